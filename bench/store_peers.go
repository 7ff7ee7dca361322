package bench

import "fmt"

// storePeersRow compares the manager with libraries that the module peers requires.
var storePeersRow = Row{
	ID: "store-peers",
	What: "launch -> told on SQLite, instant in-process agent, 1,000 tasks from 100 goroutines, at most 100 running, window 0; " +
		"time per task",
	Reference: "River (riversqlite) and DBOS, whose jobs carry no texts, on SQLite with synchronous=FULL",
	Run:       runStorePeers,
}

func runStorePeers(o Options) ([]Check, error) {
	o.note("measuring the module bench/peers")
	at, err := goBench("bench/peers", "BenchmarkPeers", o.Rounds)
	if err != nil {
		return nil, err
	}
	var checks []Check
	for _, peer := range []string{"River", "DBOS"} {
		f := at[peer]
		if f == nil {
			return nil, fmt.Errorf("the benchmark of other libraries printed no figures for %s", peer)
		}
		checks = append(checks,
			Check{peer, f.series("ratio"), "x", 1.0 / 3, 1.0 / 10, f.perSecond("own-ns", "peer-ns")},
			Check{peer + ", processor time", f.series("processor-ratio"), "x", None, None,
				nanos(f["own-processor-ns"]) + " against " + nanos(f["peer-processor-ns"])})
	}
	return checks, nil
}

// perSecond formats two figures, which are given in nanoseconds per task, as tasks per second.
func (f figures) perSecond(own, reference string) string {
	return pair{subject: Series{f[own]}, reference: Series{f[reference]}}.perSecond()
}
