package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/sqlite"
)

var dayTasks = flag.Int("day.tasks", 4000, "tasks that end during the day")

// While tasks come and go for a day, the store returns the space of deleted tasks to the file system. The
// reference is a copy that contains the same data and nothing else. cmd/report runs this test with 100,000
// tasks. For each comparison, the test prints an attribute with the ratio and both sizes.
func TestAFileIsNotMuchLargerThanItsDataAfterADay(t *testing.T) {
	const (
		bursts = 96 // one every quarter of an hour
		keep   = time.Hour
		limit  = 2 // bound of the ratio
	)
	dir := filepath.Join(t.TempDir(), "store")
	compare := func(what string, mostEnded int) {
		t.Helper()
		file, data, live, ended := fileAndData(t, dir)
		if live != *dayTasks/10 || ended > mostEnded {
			t.Errorf("%s: %d live tasks and %d ended ones are stored", what, live, ended)
		}
		t.Attr(what, fmt.Sprintf("%.3f %d %d", file/data, int(file), int(data)))
		if file/data > limit {
			t.Errorf("%s: the file has %.0f bytes, but a copy has %.0f", what, file, data)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		store := sqlite.New(dir, sqlite.Options{KeepFor: keep, KeepTasks: -1, KeepBytes: -1, Warn: func(err error) { t.Error(err) }})
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
			"quick": func(context.Context, *inproc.Turn) (string, error) { return "It is in auth.go.", nil },
			"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			},
		}), bgagent.Config{
			Store: store, Limits: bgagent.Limits{Default: *dayTasks, Agent: map[string]int{"slow": 1}},
			TimeToLive: bgagent.Disabled, QueueTimeToLive: bgagent.Disabled, MaxTasksPerRoot: bgagent.Unlimited,
			NoticeWindow: bgagent.Disabled, Notify: func(context.Context, string, bgagent.Notice) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		launched := 0
		launch := func(agent string, n int) {
			t.Helper()
			if err := InParallel(min(n, 1000), n, func(i int) error {
				in := input
				in.Agent = agent
				_, err := m.Launch(t.Context(), bgagent.Caller{Session: root(launched + i)}, in)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			launched += n
		}
		launch("slow", *dayTasks/10) // these tasks stay live for the whole day
		for i := range bursts {
			launch("quick", *dayTasks*(i+1)/bursts-*dayTasks*i/bursts)
			time.Sleep(24 * time.Hour / bursts)
		}
		synctest.Wait()
		if err := suspend(m); err != nil {
			t.Fatal(err)
		}
		compare("live-and-last-hour", *dayTasks/10)

		// Two hours later, all tasks that have ended are too old to be kept.
		time.Sleep(2 * time.Hour)
		if _, err := store.Open(t.Context(), bgagent.StoreOwner{Instance: "upkeep"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		compare("live", 0)
	})
}

// fileAndData returns the size of the store's file and the size of a copy that contains the same
// records and texts, but no unused space. It also returns the numbers of live and ended tasks.
func fileAndData(t *testing.T, dir string) (file, data float64, live, ended int) {
	t.Helper()
	reader, err := sqlite.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() // otherwise, the store could not shorten its log when it is closed
	duplicate := filepath.Join(t.TempDir(), "copy.db")
	if err := reader.Backup(t.Context(), duplicate); err != nil {
		t.Fatal(err)
	}
	records, err := reader.Live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	history, err := reader.History(t.Context(), bgagent.StoreQuery{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var sizes [2]float64
	for i, path := range []string{filepath.Join(dir, "tasks.db"), duplicate} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sizes[i] = float64(info.Size())
	}
	return sizes[0], sizes[1], len(records), len(history)
}
