package peers

import (
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent/bench"
	"github.com/bgagent/bgagent/internal/tempdir"
)

// BenchmarkPeers compares how long a task takes in bgagent and in another library. Both write to
// the same disk, and are measured alternately. The benchmark reports the median, the minimum and
// the maximum of each figure.
func BenchmarkPeers(b *testing.B) {
	const inFlight, tasks = 100, 1000
	for _, peer := range peers {
		b.Run(peer.name, func(b *testing.B) {
			if err := bench.InFolder(func(dir string) error {
				var both [2]system
				for i, open := range []opener{peer.own, peer.open} {
					var err error
					if both[i], err = open(filepath.Join(dir, []string{"own", "peer"}[i]), inFlight); err != nil {
						return err
					}
					if err := both[i].run(inFlight, inFlight); err != nil { // a warm-up
						return err
					}
				}
				figures := map[string][]float64{}
				add := func(unit string, f float64) { figures[unit] = append(figures[unit], f) }
				for round := 0; b.Loop(); round++ {
					var took, used [2]float64
					for i := range both {
						i = (i + round) % 2
						var err error
						if took[i], used[i], err = measure(func() error { return both[i].run(tasks, inFlight) }); err != nil {
							return err
						}
					}
					add("own-ns", took[0]/tasks)
					add("peer-ns", took[1]/tasks)
					add("ratio", took[0]/took[1])
					add("own-processor-ns", used[0]/tasks)
					add("peer-processor-ns", used[1]/tasks)
					add("processor-ratio", used[0]/used[1])
				}
				for unit, f := range figures {
					slices.Sort(f)
					b.ReportMetric(f[len(f)/2], unit)
					b.ReportMetric(f[0], unit+"-least")
					b.ReportMetric(f[len(f)-1], unit+"-most")
				}
				for _, s := range both {
					if err := s.close(); err != nil {
						return err
					}
				}
				return nil
			}); errors.Is(err, errNoPostgres) {
				b.Skip(err)
			} else if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The function "measure" returns the time and the processor time of f in nanoseconds.
func measure(f func() error) (took, used float64, err error) {
	before, err := bench.ProcessorTime()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return 0, 0, err
	}
	took = float64(time.Since(start).Nanoseconds())
	after, err := bench.ProcessorTime()
	return took, after - before, err
}

func TestAPeerThatDoesNotSyncFullyIsNotMeasured(t *testing.T) {
	db, err := database(filepath.Join(tempdir.New(t), "new", "peer.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for sql, want := range map[string]string{
		"PRAGMA synchronous = NORMAL": "synchronous is 1",
		"PRAGMA synchronous = OFF":    "synchronous is 0",
		"PRAGMA synchronous = FULL":   "",
	} {
		if _, err := db.Exec(sql); err != nil {
			t.Fatal(err)
		}
		if err := syncsFully(db); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("after %q: %v", sql, err)
		}
	}
	lazy, err := sql.Open("sqlite", filepath.Join(tempdir.New(t), "lazy.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer lazy.Close()
	if err := syncsFully(lazy); err == nil || !strings.Contains(err.Error(), "the journal mode is delete") {
		t.Errorf("without a write-ahead log: %v", err)
	}
}

func TestEachSystemRunsItsTasksAndSyncsFully(t *testing.T) {
	for name, open := range map[string]opener{
		"bgagent": openOwn, "River": openRiver, "DBOS": openDBOS, "bgagent on NATS": openOwnOnNATS, "River on Postgres": openRiverOnPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(filepath.Join(tempdir.New(t), name), 2)
			if errors.Is(err, errNoPostgres) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := s.run(5, 2); err != nil {
				t.Error(err)
			}
			if err := s.close(); err != nil { // also checks again that each commit is synced
				t.Error(err)
			}
		})
	}
}
