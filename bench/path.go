package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alitto/pond/v2"
	"github.com/bgagent/bgagent"
	"github.com/gammazero/workerpool"
	"github.com/panjf2000/ants/v2"
	concpool "github.com/sourcegraph/conc/pool"
)

func pathRows() []Row {
	return []Row{
		{
			ID:        "path",
			What:      "one task ends -> the next task's function has begun (whole path)",
			Reference: "x/sync's hand-off to 10,000 waiting goroutines",
			Run:       runPath,
		},
		{
			ID:        "launch",
			What:      "launch -> running -> completed -> notified, instant in-process agent, limit 100, a parent per 100 tasks, bounded retention",
			Reference: "pond Submit with a handle, same number of tasks (it tracks nothing)",
			Run:       runLaunch,
		},
		{
			ID:        "procs",
			What:      "launching and completing on two processors against one",
			Reference: "itself",
			Run:       runProcs,
		},
		{
			ID:        "peers",
			What:      "as many empty functions through pools that track nothing, limit 100",
			Reference: "pond Submit with a handle",
			Run:       runPeers,
		},
	}
}

// limit is the number of tasks that run at the same time in the throughput rows.
const limit = 100

// The type "told" counts the tasks whose completion has been reported by a notice. It closes the
// channel "all" when every task has been reported.
type told struct {
	left atomic.Int64
	all  chan struct{}
}

func newTold(n int) *told {
	t := &told{all: make(chan struct{})}
	t.left.Store(int64(n))
	return t
}

func (t *told) notify(_ context.Context, _ string, n bgagent.Notice) error {
	if t.left.Add(int64(-len(n.Items))) == 0 {
		close(t.all)
	}
	return nil
}

// The method "wait" waits until the channel "all" is closed. It returns an error if this takes longer
// than the given time.
func (t *told) wait(patience time.Duration) error {
	select {
	case <-t.all:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%d ends have not been delivered after %v", t.left.Load(), patience)
	}
}

func closeManager(m *bgagent.BackgroundManager) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var left *bgagent.CloseError
	if err := m.Close(ctx); err != nil && !(errors.As(err, &left) && len(left.NotStopped)+len(left.Hung) == 0) {
		return err
	}
	return nil
}

var input = bgagent.LaunchInput{Description: "find it", Prompt: "Find where it is implemented.", Agent: "explore"}

// root returns the session that launches task i. Each session launches 100 tasks.
func root(i int) string { return "root-" + strconv.Itoa(i/100) }

// launchAll launches n tasks and waits until all of them have been reported by notices. It returns
// the time in nanoseconds and the number of allocations, both per task.
func launchAll(n int) (ns, allocs float64, err error) {
	t := newTold(n)
	m, err := bgagent.New(&runner{}, bgagent.Config{
		Limits:       bgagent.Limits{Default: limit},
		Notify:       t.notify,
		NoticeWindow: bgagent.Disabled,
		RetainTasks:  1000,
	})
	if err != nil {
		return 0, 0, err
	}
	runtime.GC()
	before := mallocs()
	start := time.Now()
	for i := range n {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input); err != nil {
			return 0, 0, err
		}
	}
	if err := t.wait(5 * time.Minute); err != nil {
		return 0, 0, err
	}
	ns = float64(time.Since(start).Nanoseconds()) / float64(n)
	allocs = (mallocs() - before) / float64(n)
	return ns, allocs, closeManager(m)
}

// submitAll runs n empty functions in a pool of the library pond.
func submitAll(n int) (float64, error) {
	runtime.GC()
	start := time.Now()
	p := pond.NewPool(limit)
	handles := make([]pond.Task, n)
	for i := range handles {
		handles[i] = p.Submit(func() {})
	}
	for _, h := range handles {
		if err := h.Wait(); err != nil {
			return 0, err
		}
	}
	ns := float64(time.Since(start).Nanoseconds()) / float64(n)
	p.StopAndWait()
	return ns, nil
}

func runLaunch(o Options) ([]Check, error) {
	var checks []Check
	var first, last pair
	sizes := o.sizes(10_000, 100_000, 1_000_000)
	for i, n := range sizes {
		o.note("%d tasks", n)
		var allocs Series
		p, err := interleave(o.Rounds, func() (float64, error) {
			ns, a, err := launchAll(n)
			allocs = append(allocs, a)
			return ns, err
		}, func() (float64, error) { return submitAll(n) })
		if err != nil {
			return nil, err
		}
		bound, aim := 4.0, 2.0
		if i == 0 {
			bound, aim, first = 5, 3, p
		}
		last = p
		checks = append(checks,
			Check{count(n) + " tasks", p.ratio, "x", bound, aim, p.beside()},
			Check{count(n) + " tasks, allocations of one", allocs, "", 16, 8, ""})
	}
	if len(sizes) > 1 {
		own := last.subject.Median() / first.subject.Median()
		pond := last.reference.Median() / first.reference.Median()
		checks = append(checks, Check{"growth from " + count(sizes[0]) + " to " + count(sizes[len(sizes)-1]), Series{own}, "x", max(2, pond), 1.3, fmt.Sprintf("pond's own: %.2g x", pond)})
	}
	return checks, nil
}

// passAlong launches n tasks while another task holds the only slot. It returns the average time in
// nanoseconds from the start of one task to the start of the next.
func passAlong(n int) (float64, error) {
	gate, all := make(chan struct{}), make(chan struct{})
	var begun atomic.Int64
	m, err := bgagent.New(&runner{turn: func(bgagent.Prompt) {
		switch begun.Add(1) {
		case 1:
			<-gate
		case int64(n + 1):
			close(all)
		}
	}}, bgagent.Config{
		Limits:          bgagent.Limits{Default: 1},
		Wake:            bgagent.WakeNever,
		MaxTasksPerRoot: bgagent.Unlimited,
	})
	if err != nil {
		return 0, err
	}
	for i := range n + 1 {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input); err != nil {
			return 0, err
		}
	}
	runtime.GC()
	start := time.Now()
	close(gate)
	<-all
	ns := float64(time.Since(start).Nanoseconds()) / float64(n)
	return ns, closeManager(m)
}

// pathFloor measures only the cost of the records that n started tasks need. It runs none of the
// manager's code. For each task, it creates an attempt, a session with its id, an outcome that is
// kept after the task ends, and an entry in a map of sessions. It reads the clock once for each of
// the task's two host calls. A manager needs these records to know a task's session and when the
// task ended.
func pathFloor(n int) float64 {
	type attempt struct {
		_    [14]*int
		rest [30]int64
	}
	type session struct {
		_ [5]*int
		_ [5]int64
	}
	type outcome struct {
		_ [3]*int
		_ [7]int64
	}
	type record struct {
		session *session
		outcome *outcome
	}
	runtime.GC()
	kept := make([]record, 0, n)
	sessions := map[uint64]*session{}
	var running *attempt
	var ids string
	start := time.Now()
	for i := range n {
		running = &attempt{}
		running.rest[0] = int64(time.Since(start))
		s := &session{}
		ids = "s" + strconv.Itoa(i)
		sessions[uint64(i)*0x9e3779b97f4a7c15] = s
		running.rest[1] = int64(time.Since(start))
		kept = append(kept, record{s, &outcome{}})
	}
	ns := float64(time.Since(start).Nanoseconds()) / float64(n)
	runtime.KeepAlive(kept)
	runtime.KeepAlive(running)
	runtime.KeepAlive(ids)
	return ns
}

// leanFloor measures a minimum amount of work for each of n tasks, which are started one after another. Every
// manager must do more. leanFloor reads the clock for the two host calls. In each of two steps, it takes two
// uncontended locks, which stand for the locks of the state and the pool. It allocates a small object for the
// run, a small object for its record, and the host's session id. It has no map, no waiting line, no notice
// and no time limit.
func leanFloor(n int) float64 {
	type run struct {
		_    [10]*int
		rest [14]int64
	}
	type kept struct {
		_ [7]*int
		_ [9]int64
	}
	runtime.GC()
	all := make([]*kept, 0, n)
	var mu sync.Mutex
	var running *run
	var id string
	start := time.Now()
	for i := range n {
		running = &run{}
		for step := range 2 {
			running.rest[step] = int64(time.Since(start))
			for range 2 {
				mu.Lock()
				running.rest[2]++
				mu.Unlock()
			}
		}
		id = "s" + strconv.Itoa(i)
		all = append(all, &kept{})
	}
	ns := float64(time.Since(start).Nanoseconds()) / float64(n)
	runtime.KeepAlive(all)
	runtime.KeepAlive(running)
	runtime.KeepAlive(id)
	return ns
}

func runPath(o Options) ([]Check, error) {
	var checks []Check
	var first, last pair
	sizes := o.sizes(10_000, 100_000, 1_000_000)
	for i, n := range sizes {
		o.note("%d pending", n)
		p, err := interleave(o.Rounds,
			func() (float64, error) { return passAlong(n) },
			func() (float64, error) { return semaphoreHandOff(10_000), nil })
		if err != nil {
			return nil, err
		}
		if last = p; i == 0 {
			first = p
		}
		bound, aim := 2.5, 1.5
		if n <= 10_000 {
			bound, aim = 2, 1.2
		}
		checks = append(checks, Check{count(n) + " pending", p.ratio, "x", bound, aim, p.beside()})
	}
	for _, f := range []struct {
		name string
		of   func(n int) float64
		n    int
	}{
		{"the records alone, of 10,000 (a floor)", pathFloor, 10_000},
		{"less than any manager can do, of 10,000 (a floor)", leanFloor, 10_000},
		{"the same, of " + count(min(o.Most, 1_000_000)), leanFloor, min(o.Most, 1_000_000)},
	} {
		o.note("%s", f.name)
		floor, err := interleave(o.Rounds,
			func() (float64, error) { return f.of(f.n), nil },
			func() (float64, error) { return semaphoreHandOff(10_000), nil })
		if err != nil {
			return nil, err
		}
		checks = append(checks, Check{f.name, floor.ratio, "x", None, None, floor.beside()})
	}
	if len(sizes) > 1 {
		checks = append(checks, Check{"growth from " + count(sizes[0]) + " to " + count(sizes[len(sizes)-1]),
			Series{last.subject.Median() / first.subject.Median()}, "x", 2.5, 1.5, ""})
	}
	return checks, nil
}

func runProcs(o Options) ([]Check, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("this machine has only one processor")
	}
	n := min(o.Most, 100_000)
	on := func(procs int) func() (float64, error) {
		return func() (float64, error) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			ns, _, err := launchAll(n)
			return ns, err
		}
	}
	p, err := interleave(o.Rounds, on(2), on(1))
	if err != nil {
		return nil, err
	}
	return []Check{{count(n) + " tasks", p.ratio, "x", 1.25, 0.8, p.beside()}}, nil
}

// throughAnts, throughConc and throughWorkerpool run n empty functions in pools of other
// libraries, as submitAll does with pond.
func throughAnts(n int) (float64, error) {
	p, err := ants.NewPool(limit)
	if err != nil {
		return 0, err
	}
	defer p.Release()
	var done sync.WaitGroup
	done.Add(n)
	start := time.Now()
	for range n {
		if err := p.Submit(done.Done); err != nil {
			return 0, err
		}
	}
	done.Wait()
	return float64(time.Since(start).Nanoseconds()) / float64(n), nil
}

func throughConc(n int) (float64, error) {
	start := time.Now()
	p := concpool.New().WithMaxGoroutines(limit)
	for range n {
		p.Go(func() {})
	}
	p.Wait()
	return float64(time.Since(start).Nanoseconds()) / float64(n), nil
}

func throughWorkerpool(n int) (float64, error) {
	start := time.Now()
	p := workerpool.New(limit)
	for range n {
		p.Submit(func() {})
	}
	p.StopWait()
	return float64(time.Since(start).Nanoseconds()) / float64(n), nil
}

func runPeers(o Options) ([]Check, error) {
	n := min(o.Most, 100_000)
	var checks []Check
	for _, x := range []struct {
		name string
		run  func(int) (float64, error)
	}{{"ants", throughAnts}, {"conc", throughConc}, {"workerpool", throughWorkerpool}} {
		o.note("%s", x.name)
		p, err := interleave(o.Rounds,
			func() (float64, error) { return x.run(n) },
			func() (float64, error) { return submitAll(n) })
		if err != nil {
			return nil, err
		}
		checks = append(checks, Check{x.name + ", " + count(n), p.ratio, "x", None, None, p.beside()})
	}
	return checks, nil
}

// The function "count" formats a number for the table, for example as 10,000.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
