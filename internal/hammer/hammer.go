// Package hammer runs random operations against a manager whose hosts inject random faults. An oracle checks
// that the manager keeps its guarantees.
package hammer

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
)

var (
	runTime = flag.Duration("hammer.time", 2*time.Second, "how long the hammer starts new runs")
	runs    = flag.Int("hammer.runs", 0, "how many runs the hammer starts even if that takes longer than hammer.time")
	first   = flag.Uint64("hammer.first", 0, "seed of the first run; 0 for a random one")
	oneSeed = flag.Uint64("hammer.seed", 0, "seed of a single run to repeat")
)

// leastRuns is the minimum number of runs if no run fails. Runs with crashes take longer, so their
// minimum is lower.
const (
	leastRuns        = 20
	leastRunsCrashes = 8
)

var (
	agents = []string{"runner-a", "runner-b", "starter-a", "starter-b"}
	models = []string{"", "", "one/a", "two/a", "two/b", "three/c"}
	roots  = []string{"root1", "root2", "root3", "scope1", "scope2"}
)

// Run performs random runs for the duration given by the flag -hammer.time, and at least the number
// of runs given by the flag -hammer.runs. The seed of each run is the previous run's seed plus 1. If
// the flag -hammer.seed is set, Run repeats the run with that seed instead. Each failure message
// contains the seed of the run.
func Run(t *testing.T, o Options) {
	met := matrix{}
	if *oneSeed != 0 {
		if !runOnce(t, o, *oneSeed, met, false) {
			runAgain(t, o, *oneSeed)
		}
		return
	}
	x := hammering{o: o, base: cmp.Or(*first, rand.Uint64N(1_000_000_000)+1), end: time.Now().Add(*runTime), met: met}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() { x.work(t) })
	}
	workers.Wait()
	for _, seed := range x.failed {
		runAgain(t, o, seed)
	}
	t.Logf("%d runs from seed %d, %d sessions were above a limit, %d crashes, %d answers to questions\n%s", x.runs, x.base, met.total("over limit"), met.total("lives"), met.total("answer"), met)
	if t.Failed() || x.runs < matrixRuns {
		return
	}
	for _, cell := range met.missing(o) {
		t.Errorf("never met: %s", cell)
	}
}

// matrixRuns is the number of runs that should cover every cell of the matrix. If cells are still missing
// after these runs, Run continues for up to twice the duration given by -hammer.time.
const matrixRuns = 600

// hammering is the state that the goroutines of Run share.
type hammering struct {
	o    Options
	base uint64
	end  time.Time

	mu     sync.Mutex
	runs   int
	failed []uint64
	met    matrix
}

// The method "work" performs runs until the method "next" returns no seed.
func (x *hammering) work(t *testing.T) {
	for {
		seed, ok := x.next()
		if !ok {
			return
		}
		met := matrix{}
		ok = runOnce(t, x.o, seed, met, false)
		x.mu.Lock()
		x.met.join(met)
		if !ok {
			x.failed = append(x.failed, seed)
		}
		x.mu.Unlock()
	}
}

// next returns the seed of the next run. ok is false if no further run is needed.
func (x *hammering) next() (seed uint64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	late, least := time.Since(x.end), leastRuns
	if x.o.Crashes {
		least = leastRunsCrashes
	}
	least = max(least, *runs)
	switch {
	case len(x.failed) > 0:
		return 0, false
	case late < 0 || x.runs < least:
	case x.runs >= matrixRuns && late < *runTime && len(x.met.missing(x.o)) > 0:
	default:
		return 0, false
	}
	seed = x.base + uint64(x.runs)
	x.runs++
	fmt.Printf("hammer %d\n", seed) // if the run crashes, this is the only output that contains its seed
	return seed, true
}

// runAgain repeats the run of a failed seed on one processor, so that goroutines interleave as
// little as possible.
func runAgain(t *testing.T, o Options, seed uint64) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if runOnce(t, o, seed, matrix{}, true) {
		t.Logf("seed %d passes with GOMAXPROCS(1)", seed)
	} else {
		t.Logf("seed %d also fails with GOMAXPROCS(1)", seed)
	}
}

func runOnce(t *testing.T, o Options, seed uint64, met matrix, again bool) bool {
	return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		d := o.disk(t)
		synctest.Test(t, func(t *testing.T) {
			h := newHammer(t, o, seed, met, d)
			h.run()
			if len(h.o.faults) > 0 {
				t.Errorf("seed %d failed; repeat it with %s", seed, o.repeat(t.Name(), seed))
				for _, f := range h.o.faults[:min(len(h.o.faults), 10)] {
					t.Error(f)
				}
				if !again {
					t.Log("trace:\n" + strings.Join(h.o.trace, "\n"))
				}
			}
		})
	})
}

// Of 100 runs with crashes, shortRuns are short: they have fewer operations, and a crash follows sooner.
// Of 100 short runs, only checkedRuns check the invariants after each update, because these checks take
// most of the time of a run. The oracle judges all runs. One full run with crashes takes about as long
// as thirty short runs. On a real store, all runs are short.
const (
	shortRuns   = 99
	checkedRuns = 2
)

type hammer struct {
	t    *testing.T
	r    *rand.Rand
	o    *oracle
	m    *bgagent.BackgroundManager
	cm   *bgagent.ConcurrencyManager
	met  matrix
	host [2]*host

	cfg     bgagent.Config // configuration of all processes; newLife adds the fields that differ
	shared  bool           // whether each manager gets a concurrency manager in its configuration
	crashes bool
	short   bool // see shortRuns
	checks  bool // whether the invariants are checked after each update
	disk    disk
	life    *life
	gone    []*life
	sub     *bgagent.Subscription

	mu       sync.Mutex
	ids      []string
	wg       sync.WaitGroup // counts the goroutines that the run waits for at its end
	ctx      context.Context
	giveUp   context.CancelFunc
	n        int
	draining bool
	closed   bool
	closeErr error
}

func newHammer(t *testing.T, op Options, seed uint64, met matrix, d disk) *hammer {
	r := rand.New(rand.NewPCG(seed, 0))
	o := newOracle(seed)
	o.rate = [...]float64{0, 0.05, 0.2, 0.4}[r.IntN(4)]
	o.stubborn = r.IntN(6) == 0
	switch {
	case op.Crashes:
		o.storeDelay = 2 * time.Second
	case inside.Store != nil:
		o.storeDelay = 50 * time.Millisecond
	}
	h := &hammer{t: t, r: r, o: o, met: met, crashes: op.Crashes, disk: d}
	h.ctx, h.giveUp = context.WithCancel(context.Background())
	runner, starter := newHost(o, "r"), newHost(o, "s")
	for _, f := range []*host{runner, starter} {
		for _, s := range []string{"root1", "root2", "root3"} {
			f.roots[s] = bgagent.SessionIdle
		}
	}
	h.host = [2]*host{runner, starter}
	o.limits = h.limits()
	cfg := bgagent.Config{
		MaxDepth: 1 + r.IntN(4), MaxTasksPerRoot: 5 + r.IntN(30),
		ClientFor: func(agent string) string {
			if strings.HasPrefix(agent, "starter") {
				return "starter"
			}
			return ""
		},
		Wake: []bgagent.Wake{bgagent.WakeBatch, bgagent.WakeEach, bgagent.WakeNever}[r.IntN(3)],
	}
	if r.IntN(4) > 0 {
		cfg.Notify = (&life{}).notify // only marks the field as set; newLife sets the function of each process
	}
	cfg.Ask, cfg.ModelsMayPermit = r.IntN(3) > 0, r.IntN(2) == 0
	if r.IntN(3) == 0 {
		cfg.RetainTasks = 1 + r.IntN(6)
	}
	if r.IntN(3) == 0 {
		cfg.Retention = time.Minute
	}
	if r.IntN(3) == 0 {
		cfg.QueueTimeToLive = time.Duration(1+r.IntN(300)) * time.Second
	}
	if r.IntN(3) == 0 {
		cfg.TimeToLive = time.Duration(10+r.IntN(300)) * time.Second
	}
	if r.IntN(3) == 0 {
		cfg.StopTimeout = time.Duration(500+r.IntN(5000)) * time.Millisecond
	}
	h.shared, h.cfg = r.IntN(2) == 0, cfg
	h.short = op.Crashes && r.IntN(100) < shortRuns || op.Content != nil
	h.checks = !h.short || r.IntN(100) < checkedRuns
	d.use(h)
	h.newLife()
	return h
}

func (h *hammer) limits() bgagent.Limits {
	r := h.r
	l := bgagent.Limits{Default: 1 + r.IntN(3)}
	if r.IntN(2) == 0 {
		l.Model = map[string]int{"one/a": 1 + r.IntN(3)}
	}
	if r.IntN(2) == 0 {
		l.Provider = map[string]int{"two": 1 + r.IntN(3)}
	}
	if r.IntN(6) == 0 {
		l.Default = bgagent.Unlimited
	}
	if r.IntN(3) == 0 {
		l.Total = 1 + r.IntN(4)
	}
	if r.IntN(3) == 0 {
		l.Agent = map[string]int{agents[r.IntN(len(agents))]: 1 + r.IntN(2), agents[r.IntN(len(agents))]: 1 + r.IntN(3)}
	}
	l.Fair = r.IntN(3) == 0
	return l
}

func (h *hammer) run() {
	total, crashEvery := 100+h.r.IntN(100), 25
	if h.short {
		total, crashEvery = 20+h.r.IntN(40), 12
	}
	closeAt := total
	if h.r.IntN(3) == 0 {
		closeAt = h.r.IntN(total)
	}
	for h.n = 0; h.n < total && len(h.o.faults) == 0; h.n++ {
		h.reopen()
		switch {
		case h.crashes && h.r.IntN(crashEvery) == 0:
			h.crash()
		case h.n == closeAt:
			h.close()
		case h.n >= total-20 && !h.draining && h.r.IntN(40) == 0:
			h.drain()
		default:
			h.op()
		}
		switch x := h.r.IntN(10); {
		case x < 3: // the next operation follows immediately
		case x < 6:
			synctest.Wait()
		default:
			time.Sleep([...]time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 11 * time.Second, 40 * time.Second, 4 * time.Minute}[h.r.IntN(7)])
			synctest.Wait()
		}
		if h.n%8 == 0 {
			synctest.Wait()
			h.o.clear()
		}
	}
	h.reopen()
	h.rest()
	h.sub.Close()
	for _, l := range h.gone {
		closeNow(l.m)
	}
	h.wg.Wait()
	synctest.Wait()
	h.met.add("over limit", "", h.o.overLimit)
}

// The method "rest" stops injecting faults, waits until all tasks are quiet, and checks that all
// tasks have ended, all notices are settled and all slots are free.
func (h *hammer) rest() {
	o := h.o
	synctest.Wait()
	o.clear()
	o.healAll()
	synctest.Wait()
	h.reopen()
	m := h.m
	for _, f := range h.host {
		f.mu.Lock()
		for _, s := range []string{"root1", "root2", "root3"} {
			f.roots[s] = bgagent.SessionIdle
		}
		f.mu.Unlock()
	}
	h.giveUp()
	for range 24 {
		time.Sleep(time.Hour)
		synctest.Wait()
		if h.atRest() {
			break
		}
	}
	o.clear()
	if h.closed {
		h.closeErr = m.Close(context.Background())
	}
	var late *bgagent.CloseError
	_ = errors.As(h.closeErr, &late)
	for _, t := range m.List(bgagent.Query{}) {
		if !t.Status.Terminal() {
			o.fault("at rest, %s.%d is %s (%s)", t.ID, t.Attempt, t.Status, t.Phase)
		} else if !t.Quiet && !(h.crashes && o.isOver(t)) && (late == nil || !slices.Contains(late.NotStopped, t.ID)) {
			o.fault("at rest, %s.%d is not quiet", t.ID, t.Attempt)
		}
	}
	o.mu.Lock()
	for a := range o.runs {
		o.faultLocked("at rest, %s of %s.%d runs", a.what, a.key.task, a.key.no)
	}
	o.mu.Unlock()
	h.nothingOwed()
	h.nothingUnsaid()
	for _, p := range h.cm.Pools() {
		if p.InUse > 0 || p.Waiting > 0 {
			o.fault("at rest, pool %q has %d slots in use and %d waiters", p.Name, p.InUse, p.Waiting)
		}
	}
	if !h.closed && !h.draining {
		h.fullBatch()
	}
	o.mu.Lock()
	if o.closedAt.IsZero() {
		o.closedAt = time.Now()
	}
	o.mu.Unlock()
	if err := m.Close(context.Background()); err != nil && !h.closed {
		var left *bgagent.CloseError
		if _ = errors.As(err, &left); !h.onlyOrphans(left) {
			o.fault("Close at rest: %+v", *left)
		}
	}
	synctest.Wait()
	h.settled()
	h.nothingLost()
}

func (h *hammer) atRest() bool {
	for _, t := range h.m.List(bgagent.Query{}) {
		if !t.Quiet {
			return false
		}
	}
	return true
}

// nothingOwed takes all remaining notices and checks that no session is still owed a notice.
func (h *hammer) nothingOwed() {
	sessions := map[string]bool{}
	for _, s := range roots {
		sessions[s] = true
	}
	sessions["stranger"], sessions[""] = true, true
	for _, t := range h.m.List(bgagent.Query{}) {
		sessions[t.Parent] = true
		if t.Session != "" {
			sessions[t.Session] = true
		}
	}
	for s := range sessions {
		for n, ok := h.m.TakeNotice(s); ok; n, ok = h.m.TakeNotice(s) {
			h.o.told(n, "at the end")
		}
		if live, owed := h.m.Outstanding(s); live != 0 || owed != 0 {
			h.o.fault("at rest, Outstanding(%q) is %d, %d", s, live, owed)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		if _, err := h.m.NextNotice(ctx, s); !errors.Is(err, bgagent.ErrNothingOwed) {
			h.o.fault("at rest, NextNotice(%q): %v", s, err)
		}
		cancel()
	}
}

// fullBatch fills several pools. It checks that exactly as many tasks run in each pool as the pool has
// slots.
func (h *hammer) fullBatch() {
	l := bgagent.Limits{Default: 3, Model: map[string]int{"one/a": 2}, Provider: map[string]int{"two": 4}}
	if err := h.cm.SetLimits(l); err != nil {
		h.o.fault("SetLimits: %v", err)
	}
	h.o.mu.Lock()
	h.o.limits, h.o.lasting = l, true
	h.o.mu.Unlock()
	time.Sleep(time.Second)
	batch := []struct {
		models []string
		slots  int
	}{{[]string{"one/a"}, 2}, {[]string{"two/a", "two/b"}, 4}, {[]string{"three/c"}, 3}}
	for i, b := range batch {
		for j := range b.slots + 1 { // the last task gets no slot
			in := bgagent.LaunchInput{Agent: agents[(i+j)%len(agents)], Model: b.models[j%len(b.models)], Prompt: fmt.Sprintf("full%d.%d", i, j)}
			t, err := h.m.Launch(context.Background(), bgagent.Caller{Session: "last" + b.models[0]}, in)
			if err != nil || (t.Status == bgagent.Running) != (j < b.slots) {
				h.o.fault("full batch: task %d, with %d slots for %s, is %s: %v", j+1, b.slots, in.Model, t.Status, err)
			}
		}
	}
	time.Sleep(time.Hour)
	synctest.Wait()
	for _, b := range batch {
		for _, t := range h.m.List(bgagent.Query{Parent: "last" + b.models[0]}) {
			if !t.Quiet {
				h.o.fault("full batch: %s is %s", t.ID, t.Status)
			}
		}
		for n, ok := h.m.TakeNotice("last" + b.models[0]); ok; n, ok = h.m.TakeNotice("last" + b.models[0]) {
			h.o.told(n, "of the full batch")
		}
	}
	synctest.Wait()
	h.o.clear()
}

// The method "settled" checks that the events agree with the final states of tasks and notices.
func (h *hammer) settled() {
	o := h.o
	tasks := h.m.List(bgagent.Query{})
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, state := range o.notices {
		_, told := o.delivered[key]
		if state == bgagent.NoticeDelivered && len(o.seen[key]) == 0 || state == bgagent.NoticeTaken && !told {
			o.faultLocked("the notice of %s.%d is %s, but no host ever received it", key.task, key.no, state)
		}
	}
	for _, t := range tasks {
		key := attemptKey{t.ID, t.Attempt}
		_, reported := o.ends[key]
		silent := h.closed || !reported && o.diedAt(t.Ended) // a closed manager and a dead process send no events
		if !reported && !silent {
			o.faultLocked("%s.%d ended without an event", t.ID, t.Attempt)
		}
		if state, ok := o.notices[key]; !ok && !silent || !t.Notice.Settled() {
			o.faultLocked("the notice of %s.%d is %q, but the event says %q", t.ID, t.Attempt, t.Notice, state)
		}
	}
}
