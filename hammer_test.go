package bgagent_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
)

var (
	hammerTime = flag.Duration("hammer.time", 2*time.Second, "how long TestHammer draws new runs")
	hammerSeed = flag.Uint64("hammer.seed", 0, "the one run that TestHammer repeats")
)

// hammerRuns is how many runs there are at least.
const hammerRuns = 60

var (
	hammerAgents = []string{"runner-a", "runner-b", "starter-a", "starter-b"}
	hammerModels = []string{"", "", "one/a", "two/a", "two/b", "three/c"}
	hammerRoots  = []string{"root1", "root2", "root3", "scope1", "scope2"}
)

// TestHammer does at random everything that can be done, with a host that does
// everything wrong that can be done wrong, and compares what happens with what
// may happen. See oracle for the rules.
func TestHammer(t *testing.T) {
	met := hammerMatrix{}
	if *hammerSeed != 0 {
		if !hammerOnce(t, *hammerSeed, met, false) {
			hammerAgain(t, *hammerSeed)
		}
		return
	}
	x := hammering{base: rand.Uint64N(1_000_000_000) + 1, end: time.Now().Add(*hammerTime), met: met}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() { x.work(t) })
	}
	workers.Wait()
	for _, seed := range x.failed {
		hammerAgain(t, seed)
	}
	t.Logf("%d runs from seed %d, %d sessions were above a limit\n%s", x.runs, x.base, met.total("over limit"), met)
	if t.Failed() || x.runs < hammerMatrixRuns {
		return
	}
	for _, cell := range met.missing() {
		t.Errorf("never met: %s", cell)
	}
}

// hammerMatrixRuns is how many runs meet all that can be met, but for one or two
// of the rarest meetings; for these there is as much time again.
const hammerMatrixRuns = 600

// hammering is what the goroutines of TestHammer share.
type hammering struct {
	base uint64
	end  time.Time

	mu     sync.Mutex
	runs   int
	failed []uint64
	met    hammerMatrix
}

// work does one run after the other.
func (x *hammering) work(t *testing.T) {
	for {
		seed, ok := x.next()
		if !ok {
			return
		}
		met := hammerMatrix{}
		ok = hammerOnce(t, seed, met, false)
		x.mu.Lock()
		x.met.join(met)
		if !ok {
			x.failed = append(x.failed, seed)
		}
		x.mu.Unlock()
	}
}

// next returns the seed of the next run, if there is to be one.
func (x *hammering) next() (seed uint64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	late := time.Since(x.end)
	switch {
	case len(x.failed) > 0:
		return 0, false
	case late < 0 || x.runs < hammerRuns:
	case x.runs >= hammerMatrixRuns && late < *hammerTime && len(x.met.missing()) > 0:
	default:
		return 0, false
	}
	seed = x.base + uint64(x.runs)
	x.runs++
	fmt.Printf("hammer %d\n", seed) // a crash shows nothing else of it
	return seed, true
}

// hammerAgain runs a seed that failed once more, with as little choice as there
// can be about the order of goroutines.
func hammerAgain(t *testing.T, seed uint64) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if hammerOnce(t, seed, hammerMatrix{}, true) {
		t.Logf("seed %d passes with GOMAXPROCS(1)", seed)
	} else {
		t.Logf("seed %d fails with GOMAXPROCS(1), too", seed)
	}
}

func hammerOnce(t *testing.T, seed uint64, met hammerMatrix, again bool) bool {
	return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHammer(t, seed, met)
			h.run()
			if len(h.o.faults) > 0 {
				t.Errorf("seed %d; repeat it with -run TestHammer -hammer.seed %d", seed, seed)
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

type hammer struct {
	t    *testing.T
	r    *rand.Rand
	o    *oracle
	m    *bgagent.BackgroundManager
	cm   *bgagent.ConcurrencyManager
	met  hammerMatrix
	host [2]*hammerHost

	mu       sync.Mutex
	ids      []string
	wg       sync.WaitGroup // callers that wait
	ctx      context.Context
	giveUp   context.CancelFunc
	n        int
	draining bool
	closed   bool
	closeErr error
}

func newHammer(t *testing.T, seed uint64, met hammerMatrix) *hammer {
	r := rand.New(rand.NewPCG(seed, 0))
	o := newOracle(seed)
	o.rate = [...]float64{0, 0.05, 0.2, 0.4}[r.IntN(4)]
	o.stubborn = r.IntN(6) == 0
	h := &hammer{t: t, r: r, o: o, met: met}
	h.ctx, h.giveUp = context.WithCancel(context.Background())
	runner, starter := newHammerHost(o, "r"), newHammerHost(o, "s")
	for _, f := range []*hammerHost{runner, starter} {
		for _, s := range []string{"root1", "root2", "root3"} {
			f.roots[s] = bgagent.SessionIdle
		}
	}
	h.host = [2]*hammerHost{runner, starter}
	o.limits = h.limits()
	cfg := bgagent.Config{
		Limits: o.limits, MaxDepth: 1 + r.IntN(4), MaxTasksPerRoot: 5 + r.IntN(30),
		Clients: map[string]bgagent.SessionClient{"starter": &hammerStarter{starter}},
		ClientFor: func(agent string) string {
			if strings.HasPrefix(agent, "starter") {
				return "starter"
			}
			return ""
		},
		Wake: []bgagent.Wake{bgagent.WakeBatch, bgagent.WakeEach, bgagent.WakeNever}[r.IntN(3)],
	}
	if r.IntN(4) > 0 {
		cfg.Notify = starter.notify
	}
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
	var err error
	if r.IntN(2) == 0 { // shared with others
		if h.cm, err = bgagent.NewConcurrencyManager(cfg.Limits); err != nil {
			t.Fatal(err)
		}
		cfg.Concurrency, cfg.Limits = h.cm, bgagent.Limits{}
	}
	h.m, err = bgagent.New(&hammerRunner{runner}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.cm, o.m = h.m.Concurrency(), h.m
	bgagent.CheckInvariantsWith(h.m, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.faults) == 0 {
			o.faultLocked("invariant: %v\n%s", err, debug.Stack())
		}
	})
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
	return l
}

func (h *hammer) run() {
	_, sub := h.m.Subscribe(1 << 20)
	h.wg.Go(func() {
		for {
			e, err := sub.Next(context.Background())
			if err != nil {
				return
			}
			h.o.event(e)
		}
	})
	total := 100 + h.r.IntN(100)
	closeAt := total
	if h.r.IntN(3) == 0 {
		closeAt = h.r.IntN(total)
	}
	for h.n = 0; h.n < total && len(h.o.faults) == 0; h.n++ {
		switch {
		case h.n == closeAt:
			h.close()
		case h.n >= total-20 && !h.draining && h.r.IntN(40) == 0:
			h.drain()
		default:
			h.op()
		}
		switch x := h.r.IntN(10); {
		case x < 3: // several at the same moment
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
	h.rest()
	sub.Close()
	h.wg.Wait()
	synctest.Wait()
	h.met.add("over limit", "", h.o.overLimit)
}

// caller is somebody who may ask for something.
func (h *hammer) caller() bgagent.Caller {
	var by bgagent.Caller
	switch x := h.r.IntN(20); {
	case x < 10:
		by.Session = hammerRoots[h.r.IntN(len(hammerRoots))]
	case x < 15:
		by.Session = h.session()
	case x < 16:
		by.Session = "stranger"
	}
	if h.r.IntN(5) == 0 {
		by.ToolCallID = fmt.Sprintf("call-%d", h.r.IntN(10))
	}
	return by
}

// session is one of a task, if there are any.
func (h *hammer) session() string {
	tasks := h.m.List(bgagent.Query{})
	if len(tasks) == 0 {
		return "root1"
	}
	if s := tasks[h.r.IntN(len(tasks))].Session; s != "" {
		return s
	}
	return "root2"
}

// target is a task, its state, and mostly somebody who may speak of it.
func (h *hammer) target(op string) (id string, by bgagent.Caller) {
	id = "bg_0000000000000000"
	h.mu.Lock()
	if len(h.ids) > 0 {
		id = h.ids[h.r.IntN(len(h.ids))]
		if h.r.IntN(2) == 0 { // a young one
			id = h.ids[max(0, len(h.ids)-1-h.r.IntN(6))]
		}
	}
	h.mu.Unlock()
	if h.r.IntN(2) == 0 { // one that is live
		if live := h.m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}}); len(live) > 0 {
			id = live[h.r.IntN(len(live))].ID
		}
	}
	t, err := h.m.Get(id)
	h.met.add(op, hammerState(t, err), 1)
	by = h.caller()
	if err == nil {
		switch h.r.IntN(4) {
		case 0:
			by.Session = t.Parent
		case 1:
			by.Session = t.Root
		case 2:
			by = bgagent.Caller{}
		}
	}
	return id, by
}

func hammerState(t bgagent.Task, err error) string {
	switch {
	case errors.Is(err, bgagent.ErrExpired):
		return "expired"
	case err != nil:
		return "unknown"
	case t.Status == bgagent.Running:
		return t.Phase.String()
	case t.Status.Terminal() && !t.Quiet:
		return "stopping"
	case t.Status == bgagent.Pending && t.Attempt > 1:
		return "pending again"
	default:
		return t.Status.String()
	}
}

// all notes an operation that meets every task there is.
func (h *hammer) all(op string) {
	for _, t := range h.m.List(bgagent.Query{}) {
		h.met.add(op, hammerState(t, nil), 1)
	}
}

func (h *hammer) input() bgagent.LaunchInput {
	in := bgagent.LaunchInput{
		Agent: hammerAgents[h.r.IntN(len(hammerAgents))], Model: hammerModels[h.r.IntN(len(hammerModels))],
		Prompt: fmt.Sprintf("p%d", h.n),
	}
	if h.r.IntN(30) == 0 {
		in.Prompt = ""
	}
	if h.r.IntN(5) == 0 {
		in.System, in.Metadata, in.Directory = "be good", map[string]string{"a": "b"}, "/tmp"
	}
	return in
}

// context is one that ends by deadline or by being cancelled, or hardly ever.
func (h *hammer) context() (context.Context, context.CancelFunc) {
	d := time.Duration(h.r.IntN([...]int{1, 2000, 60_000, 600_000}[h.r.IntN(4)])) * time.Millisecond
	switch h.r.IntN(3) {
	case 0:
		return context.WithTimeout(h.ctx, d)
	case 1:
		ctx, cancel := context.WithCancel(h.ctx)
		stop := time.AfterFunc(d, cancel)
		return ctx, func() { stop.Stop(); cancel() }
	}
	return context.WithCancel(h.ctx)
}

func (h *hammer) keep(t bgagent.Task, err error) {
	if t.ID == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.ids, t.ID) {
		h.ids = append(h.ids, t.ID)
	}
}

// aside does something that may wait, beside the other operations.
func (h *hammer) aside(f func(ctx context.Context)) {
	ctx, cancel := h.context()
	h.wg.Go(func() {
		defer cancel()
		f(ctx)
	})
}

// look notes what agents have launched, and checks the tree.
func (h *hammer) look() {
	tasks := h.m.List(bgagent.Query{})
	by := map[string]bgagent.Task{}
	for _, t := range tasks {
		h.keep(t, nil)
		by[t.Session] = t
	}
	for _, t := range tasks {
		if p, ok := by[t.Parent]; ok && t.Parent != "" && !t.Status.Terminal() && p.Status.Terminal() && p.Status != bgagent.Completed {
			h.o.fault("%s is %s, and its parent %s is %s", t.ID, t.Status, p.ID, p.Status)
		}
	}
}

func (h *hammer) op() {
	h.look()
	m, o, n := h.m, h.o, h.n
	ops := []func(){
		h.launch, h.launch, h.launch, h.launch, h.launch, h.launch, // the more tasks the merrier
		func() {
			h.all("Run")
			by, in := h.caller(), h.input()
			h.aside(func(ctx context.Context) {
				t, err := m.Run(ctx, by, in)
				o.log("%d run by %q: %s %s %v", n, by.Session, t.ID, t.Status, err)
				h.keep(t, err)
				if err == nil && !t.Status.Terminal() && by.ToolCallID == "" {
					o.fault("Run returned %s, which is %s", t.ID, t.Status)
				}
			})
		},
		func() { h.resume("Resume") }, func() { h.resume("Resume") }, func() { h.resume("RunResume") },
		func() {
			id, by := h.target("Wait")
			ids := []string{id}
			if h.r.IntN(2) == 0 {
				id, _ = h.target("Wait")
				ids = append(ids, id)
			}
			mode := bgagent.WaitMode(h.r.IntN(2))
			h.aside(func(ctx context.Context) {
				tasks, err := m.Wait(ctx, by, mode, ids...)
				o.log("%d wait for %v by %q: %v %v", n, ids, by.Session, statuses(tasks), err)
			})
		},
		func() {
			id, _ := h.target("Quiet")
			h.aside(func(ctx context.Context) { o.log("%d quiet %s: %v", n, id, m.Quiet(ctx, id)) })
		},
		func() {
			id, by := h.target("Cancel")
			t, err := m.Cancel(h.ctx, by, id, bgagent.CancelOptions{Reason: "why not"})
			o.log("%d cancel %s by %q: %s %v", n, id, by.Session, t.Status, err)
			if after, gone := m.Get(id); err == nil && gone == nil && after.Attempt == t.Attempt && !after.Status.Terminal() {
				o.fault("%s is %s after Cancel", id, after.Status)
			}
		},
		func() {
			if h.r.IntN(3) > 0 {
				return
			}
			h.all("CancelAll")
			by := h.caller()
			tasks, err := m.CancelAll(h.ctx, by, bgagent.CancelOptions{})
			o.log("%d cancel all by %q: %d %v", n, by.Session, len(tasks), err)
		},
		func() {
			if h.r.IntN(3) > 0 {
				return
			}
			h.all("SessionDeleted")
			s := h.caller().Session
			o.log("%d session %q deleted", n, s)
			if h.r.IntN(2) == 0 {
				h.vanish(s)
			} else {
				h.lie(s)
			}
			m.SessionDeleted(s)
		},
		func() {
			h.all("vanished session")
			s := h.session()
			o.log("%d session %q vanishes", n, s)
			h.vanish(s)
		},
		func() {
			id, _ := h.target("Get")
			t, err := m.Get(id)
			o.log("%d get %s: %s %v", n, id, t.Status, err)
		},
		func() {
			id, by := h.target("Read")
			t, err := m.Read(by, id)
			o.log("%d read %s by %q: %s %v", n, id, by.Session, t.Status, err)
		},
		func() {
			h.all("List")
			q := bgagent.Query{Under: h.caller().Session, Limit: h.r.IntN(5)}
			if h.r.IntN(2) == 0 {
				q = bgagent.Query{Parent: h.caller().Session, Status: []bgagent.Status{bgagent.Status(h.r.IntN(5))}}
			}
			for _, t := range m.List(q) {
				if q.Parent != "" && t.Parent != q.Parent || len(q.Status) > 0 && t.Status != q.Status[0] {
					o.fault("List(%+v) has %s of %s, which is %s", q, t.ID, t.Parent, t.Status)
				}
			}
		},
		func() {
			h.all("Outstanding and Digest")
			s := h.caller().Session
			live, owed := m.Outstanding(s)
			if live < 0 || owed < 0 {
				o.fault("Outstanding(%q) is %d, %d", s, live, owed)
			}
			m.Digest(s, h.r.IntN(2000))
		},
		func() {
			h.all("NextNotice")
			s := h.caller().Session
			h.aside(func(ctx context.Context) {
				notice, err := m.NextNotice(ctx, s)
				o.log("%d next notice of %q: %v", n, s, err)
				if err == nil {
					o.told(notice, "by NextNotice")
				}
			})
		},
		func() {
			h.all("TakeNotice")
			s := h.caller().Session
			if notice, ok := m.TakeNotice(s); ok {
				o.told(notice, "by TakeNotice")
			}
		},
		func() {
			h.all("Subscribe")
			tasks, sub := m.Subscribe(1 + h.r.IntN(20))
			o.log("%d subscribe: %d tasks", n, len(tasks))
			h.aside(func(ctx context.Context) {
				last := uint64(0)
				for {
					e, err := sub.Next(ctx)
					if err != nil {
						break
					}
					if e.Seq <= last && e.Kind != bgagent.EventMissed {
						o.fault("a subscriber got event %d after %d", e.Seq, last)
					}
					last = e.Seq
				}
				sub.Close()
			})
		},
		h.observe, h.observe,
		func() {
			h.all("SetLimits")
			l := h.limits()
			o.mu.Lock()
			o.limits, o.limitsAt = l, time.Now()
			o.logLocked("%d limits %+v", n, l)
			o.mu.Unlock()
			if err := h.cm.SetLimits(l); err != nil {
				o.fault("SetLimits: %v", err)
			}
		},
		func() {
			h.all("busy root")
			s := hammerRoots[h.r.IntN(3)]
			f := h.host[1]
			f.mu.Lock()
			f.roots[s] = bgagent.SessionState(1 + h.r.IntN(3))
			o.log("%d %s is %s", n, s, f.roots[s])
			f.mu.Unlock()
		},
	}
	ops[h.r.IntN(len(ops))]()
}

func (h *hammer) launch() {
	h.all("Launch")
	by, in := h.caller(), h.input()
	t, err := h.m.Launch(h.ctx, by, in)
	h.o.log("%d launch of %s %s by %q: %s %s %v", h.n, in.Agent, in.Model, by.Session, t.ID, t.Status, err)
	h.keep(t, err)
	if err == nil && (h.closed || h.draining) {
		h.o.fault("launched %s after Close or Drain", t.ID)
	}
}

func (h *hammer) resume(op string) {
	ref, by := h.target(op)
	if t, err := h.m.Get(ref); err == nil && t.Session != "" && h.r.IntN(2) == 0 {
		ref = t.Session
	}
	var gone *bgagent.ExpiredError
	if _, err := h.m.Get(ref); errors.As(err, &gone) && gone.Session != "" && h.r.IntN(2) == 0 {
		ref = gone.Session
	}
	n, in := h.n, bgagent.ResumeInput{Prompt: fmt.Sprintf("more%d", h.n)}
	if h.r.IntN(3) == 0 {
		in.Model = hammerModels[h.r.IntN(len(hammerModels))]
	}
	if op == "Resume" {
		before, _ := h.m.Get(ref)
		h.o.mu.Lock()
		stuck := before.Status.Terminal() && !before.Quiet && h.o.overran[attemptKey{before.ID, before.Attempt}]
		h.o.mu.Unlock()
		t, err := h.m.Resume(h.ctx, by, ref, in)
		if after, _ := h.m.Get(t.ID); err == nil && stuck && after.Status == bgagent.Pending && after.Queue == nil {
			h.o.fault("%s was resumed, and its session has not stopped", ref)
		}
		h.o.log("%d resume %s by %q: %s %v", n, ref, by.Session, t.Status, err)
		h.keep(t, err)
		return
	}
	h.aside(func(ctx context.Context) {
		t, err := h.m.RunResume(ctx, by, ref, in)
		h.o.log("%d run resume %s by %q: %s %v", n, ref, by.Session, t.Status, err)
		h.keep(t, err)
	})
}

func (h *hammer) observe() {
	h.all("Observe")
	e := bgagent.HostEvent{Kind: bgagent.HostEventKind(h.r.IntN(12)), Client: "starter", Session: h.session()}
	if h.r.IntN(6) == 0 {
		e.Client = []string{"", "nobody"}[h.r.IntN(2)]
	}
	if h.r.IntN(8) == 0 {
		e.Session = h.caller().Session
	}
	e.Status.State = bgagent.SessionState(h.r.IntN(9))
	switch e.Kind {
	case bgagent.HostError:
		e.Error, e.Stop = "an error", bgagent.StopReason(h.r.IntN(9))
		h.lie(e.Session)
	case bgagent.HostDeleted:
		if h.r.IntN(2) == 0 {
			h.vanish(e.Session)
		}
		h.lie(e.Session)
	case bgagent.HostStatus:
		h.lie(e.Session)
	}
	h.o.log("%d observe %s %s of %q", h.n, e.Kind, e.Status.State, e.Session)
	h.m.Observe(e)
}

func (h *hammer) vanish(session string) { h.host[1].vanish(session) }

func (h *hammer) lie(session string) {
	for _, f := range h.host {
		f.lie(session)
	}
}

// someAgain resumes some tasks now and then, because it is rare by itself that
// one of those waits for a slot when the manager is drained or closed.
func (h *hammer) someAgain() {
	if h.r.IntN(3) > 0 || h.draining || h.closed {
		return
	}
	for range 6 {
		h.resume("Resume")
	}
}

func (h *hammer) drain() {
	h.someAgain()
	h.all("Drain")
	h.draining = true
	h.o.log("%d drain", h.n)
	h.aside(func(ctx context.Context) { h.o.log("drained: %v", h.m.Drain(ctx)) })
	synctest.Wait()
}

// close closes the manager in the middle of everything.
func (h *hammer) close() {
	h.someAgain()
	h.all("Close")
	h.closed = true
	h.o.mu.Lock()
	h.o.closedAt = time.Now()
	h.o.logLocked("%d close", h.n)
	h.o.mu.Unlock()
	for range 2 {
		h.aside(func(ctx context.Context) {
			err := h.m.Close(ctx)
			h.o.log("closed: %v", err)
		})
	}
	synctest.Wait()
}

// rest heals the host, waits until everything has come to rest, and looks
// whether anything has been lost.
func (h *hammer) rest() {
	o, m := h.o, h.m
	synctest.Wait()
	o.clear()
	o.healAll()
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
		} else if !t.Quiet && (late == nil || !slices.Contains(late.NotStopped, t.ID)) {
			o.fault("at rest, %s.%d is not quiet", t.ID, t.Attempt)
		}
	}
	o.mu.Lock()
	for a := range o.runs {
		o.faultLocked("at rest, %s of %s.%d runs", a.what, a.key.task, a.key.no)
	}
	o.mu.Unlock()
	h.nothingOwed()
	for _, p := range h.cm.Pools() {
		if p.InUse > 0 || p.Waiting > 0 {
			o.fault("at rest, pool %q has %d slots out and %d in line", p.Name, p.InUse, p.Waiting)
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
		_ = errors.As(err, &left)
		o.fault("Close at rest: %+v", *left)
	}
	synctest.Wait()
	h.settled()
}

func (h *hammer) atRest() bool {
	for _, t := range h.m.List(bgagent.Query{}) {
		if !t.Quiet {
			return false
		}
	}
	return true
}

// nothingOwed takes what nobody was told, after which nothing may be owed.
func (h *hammer) nothingOwed() {
	sessions := map[string]bool{}
	for _, s := range hammerRoots {
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

// fullBatch expects that all slots of every pool can be had at once.
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
		for j := range b.slots + 1 { // the last is one too many
			in := bgagent.LaunchInput{Agent: hammerAgents[(i+j)%len(hammerAgents)], Model: b.models[j%len(b.models)], Prompt: fmt.Sprintf("full%d.%d", i, j)}
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

// settled compares the events with what there is at the end.
func (h *hammer) settled() {
	o := h.o
	tasks := h.m.List(bgagent.Query{})
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, state := range o.notices {
		_, told := o.delivered[key]
		if state == bgagent.NoticeDelivered && len(o.seen[key]) == 0 || state == bgagent.NoticeTaken && !told {
			o.faultLocked("the notice of %s.%d is %s, and nobody ever saw it", key.task, key.no, state)
		}
	}
	for _, t := range tasks {
		key := attemptKey{t.ID, t.Attempt}
		if _, ok := o.ends[key]; !ok && !h.closed {
			o.faultLocked("%s.%d ended without an event", t.ID, t.Attempt)
		}
		if state, ok := o.notices[key]; !ok && !h.closed || !t.Notice.Settled() { // a closed manager sends no events
			o.faultLocked("the notice of %s.%d is %q, the event said %q", t.ID, t.Attempt, t.Notice, state)
		}
	}
}

// hammerMatrix counts how often an operation met a task in a state.
type hammerMatrix map[string]map[string]int

var hammerStates = []string{"pending", "pending again", "starting", "in a turn", "asking", "waiting for its own tasks", "stopping", "completed", "error", "cancelled", "expired"}

// hammerTargets are the operations that name a task, and so can meet one that
// has expired.
var hammerTargets = []string{"Cancel", "Get", "Quiet", "Read", "Resume", "RunResume", "Wait"}

var hammerOps = append([]string{
	"CancelAll", "Close", "Drain", "Launch", "List", "NextNotice", "Observe", "Outstanding and Digest", "Run", "SessionDeleted",
	"SetLimits", "Subscribe", "TakeNotice", "busy root", "vanished session",
}, hammerTargets...)

func (x hammerMatrix) add(op, state string, n int) {
	if x[op] == nil {
		x[op] = map[string]int{}
	}
	x[op][state] += n
}

// join adds what another matrix has met.
func (x hammerMatrix) join(other hammerMatrix) {
	for op, states := range other {
		for state, n := range states {
			x.add(op, state, n)
		}
	}
}

func (x hammerMatrix) total(op string) (n int) {
	for v := range maps.Values(x[op]) {
		n += v
	}
	return n
}

// missing returns the cells that were never met and could have been.
func (x hammerMatrix) missing() (cells []string) {
	for _, op := range hammerOps {
		for _, state := range hammerStates {
			if state == "expired" && !slices.Contains(hammerTargets, op) {
				continue // it speaks of the tasks there are
			}
			if x[op][state] == 0 {
				cells = append(cells, op+" × "+state)
			}
		}
	}
	return cells
}

func (x hammerMatrix) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%24s", "")
	for _, s := range hammerStates {
		fmt.Fprintf(&b, " %9.9s", s)
	}
	for _, op := range hammerOps {
		fmt.Fprintf(&b, "\n%24s", op)
		for _, s := range hammerStates {
			fmt.Fprintf(&b, " %9d", x[op][s])
		}
	}
	return b.String()
}
