package sqlite

import (
	"context"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/kills"
)

var (
	killCount = flag.Int("kills", 8, "number of processes that TestNoKillLosesOrRepeatsWork kills")
	killsSeed = flag.Uint64("kills.seed", 0, "seed of TestNoKillLosesOrRepeatsWork; 0 for a random one")
)

// TestNoKillLosesOrRepeatsWork starts a process with 50 live tasks and kills it with SIGKILL at a
// random moment. Then it starts the process again on the same store, kills it again, and so on.
// Finally, it lets a process finish all tasks, and judges the results from outside. Then the test begins
// again with a new store.
func TestNoKillLosesOrRepeatsWork(t *testing.T) {
	seed := *killsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-kills.seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var all kills.Figures
	done, stores := 0, 0
	for ; done < *killCount && !t.Failed(); stores++ {
		o := kills.Order{Dir: t.TempDir()}
		n := min(1+rnd.IntN(6), *killCount-done)
		for o.Life = 1; o.Life <= n; o.Life++ {
			o.Seed = rnd.Uint64()
			killAtRandom(t, rnd, o)
			done++
		}
		o.Seed = rnd.Uint64()
		if err := o.Finish(t.Context()); err != nil {
			t.Fatalf("store %d: %v", stores, err)
		}
		lines, err := kills.ReadLog(o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		wrong, figures := judgeKills(lines, readKilled(t, filepath.Join(o.Dir, "store")))
		for _, w := range wrong {
			t.Errorf("store %d, %d kills: %s", stores, n, w)
		}
		all.Add(figures)
	}
	t.Logf("%d kills of processes on %d stores. %s", done, stores, all.Describe("turns began"))
}

// killAtRandom kills a process after a random time, or after it has written a random number of lines
// to its log.
func killAtRandom(t *testing.T, rnd *rand.Rand, o kills.Order) {
	after, lines := time.Minute, 1+rnd.IntN(500)
	if rnd.IntN(4) == 0 {
		after, lines = time.Duration(rnd.Int64N(int64(300*time.Millisecond))), 1<<30
	}
	if err := o.Kill(t.Context(), lines, func(ctx context.Context) { kills.Sleep(ctx, after) }); err != nil {
		t.Fatal(err)
	}
}

// readKilled reads the store from outside the manager.
func readKilled(t *testing.T, dir string) kills.Found {
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	found, err := kills.Read(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
