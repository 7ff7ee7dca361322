// Package slottest checks implementations of [bgagent.SlotSource].
//
//	func TestConformance(t *testing.T) {
//		slottest.Conformance(t, slottest.Harness{
//			New: func(t slottest.TB, n int, l bgagent.Limits) []bgagent.SlotSource {
//				return newSources(t, n, l)
//			},
//		})
//	}
package slottest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// TB is the part of [testing.TB] that the suite needs.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	// Fatalf fails the test and ends the goroutine that calls it.
	Fatalf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// Harness describes how [Conformance] creates sources.
type Harness struct {
	// New returns n sources that share their slots under the limits l. If the slots are shared between
	// processes, each source stands for a separate process. Every check calls New once.
	New func(t TB, n int, l bgagent.Limits) []bgagent.SlotSource

	// Cut interrupts the source's connection to the other sources, and returns a function that restores the
	// connection. A nil Cut means that slots are never lost, and the checks that need Cut are skipped.
	Cut func(s bgagent.SlotSource) (repair func())

	// Within is the maximum time that the source can take to answer. Zero means 10 seconds.
	Within time.Duration
}

// Conformance checks that a source follows the rules on which the manager relies. Every check is a
// subtest, whose name describes the rule. A failure reports what the check observed and why it matters.
func Conformance(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil {
		t.Fatalf("slottest: Harness needs New")
	}
	for _, ck := range checks {
		t.Run(ck.name, func(t *testing.T) {
			t.Helper()
			ck.hold(t, h)
		})
	}
}

type check struct {
	name   string
	why    string // why the check matters, in one line; printed if a source fails the check
	limits bgagent.Limits
	cuts   bool // the check needs Harness.Cut
	run    func(c *context)
}

// The variable "two" limits the model "m" to two slots.
var two = bgagent.Limits{Model: map[string]int{"m": 2}}

var one = bgagent.Limits{Model: map[string]int{"m": 1}}

var checks = []check{
	{name: "limit", why: "a limit applies to all processes together", limits: two, run: checkLimit},
	{name: "every slot", why: "a free slot that no request can get is lost", limits: two, run: checkEverySlot},
	{name: "order", why: "the request that has waited longest is next", limits: one, run: checkOrder},
	{name: "head", why: "the next turn of a running task goes before tasks that have not begun", limits: one, run: checkHead},
	{name: "withdrawn", why: "a cancelled task must neither get a slot nor delay the requests behind it", limits: one, run: checkWithdrawn},
	{name: "released once", why: "a slot that is released twice could be granted twice", limits: one, run: checkReleasedOnce},
	{name: "running", why: "work that is already running counts, and the next grant waits until there is room again", limits: one, run: checkRunning},
	{name: "total", why: "the total counts all pools", limits: bgagent.Limits{Total: 2}, run: checkTotal},
	{name: "agent", why: "an agent's cap applies to all its models, and delays no other agent", limits: bgagent.Limits{Agent: map[string]int{"a": 1}}, run: checkAgent},
	{name: "may begin", why: "a turn begins only with a slot", limits: one, run: checkMayBegin},
	{name: "rounds", why: "no root session may keep the others from their turns", limits: bgagent.Limits{Model: map[string]int{"m": 1}, Fair: true}, run: checkRounds},
	{name: "queued now", why: "a request without a queue time must not overtake waiting requests", limits: one, run: checkQueuedNow},
	{name: "release at once", why: "a holder whose work is already over releases the slot as soon as it gets it", limits: one, run: checkReleaseAtOnce},
	{name: "many at once", why: "managers call a source from many goroutines", limits: two, run: checkManyAtOnce},
	{name: "limits and figures", why: "the figures show people why a task waits", limits: two, run: checkFigures},
	{name: "lost", why: "work must stop before its slot is granted to others", limits: one, cuts: true, run: checkLost},
}

func (ck *check) hold(t TB, h Harness) {
	t.Helper()
	if ck.cuts && h.Cut == nil {
		t.Logf("does not apply: there is no Harness.Cut")
		return
	}
	if h.Within == 0 {
		h.Within = 10 * time.Second
	}
	c := &context{TB: t, ck: ck, h: h}
	c.sources = h.New(t, 3, ck.limits)
	ck.run(c)
	for _, r := range c.told() {
		if r.granted > 1 || r.lost > 1 {
			c.failf("the holder of %s was called %d times with SlotGranted and %d times with SlotLost; each may be called once", r.name, r.granted, r.lost)
		}
	}
}

// The method "told" returns a copy of each request. The copies show how often the holder of each
// request was called.
func (c *context) told() (all []request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.all {
		all = append(all, *r)
	}
	return all
}

// context contains the state of one run of a check.
type context struct {
	TB
	ck      *check
	h       Harness
	sources []bgagent.SlotSource

	mu     sync.Mutex
	all    []*request    // all requests
	grants []*request    // granted requests in the order of the grants
	more   chan struct{} // closed at the next call to a holder
}

// request is a slot request made by a check.
type request struct {
	c     *context
	name  string
	claim bgagent.SlotClaim
	then  func() // called with the grant; may be nil

	granted, lost int // number of calls; guarded by c.mu
	until         time.Time
	why           error
}

func (c *context) failf(format string, args ...any) {
	c.Helper()
	c.Fatalf(format+"\n(why it matters: "+c.ck.why+")", args...)
}

// SlotGranted implements [bgagent.SlotHolder].
func (r *request) SlotGranted() {
	r.c.note(func() {
		r.granted++
		r.c.grants = append(r.c.grants, r)
	})
	if r.then != nil {
		r.then()
	}
}

// SlotLost implements [bgagent.SlotHolder].
func (r *request) SlotLost(until time.Time, why error) {
	r.c.note(func() { r.lost, r.until, r.why = r.lost+1, until, why })
}

func (c *context) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	if c.more != nil {
		close(c.more)
		c.more = nil
	}
}

// The method "ask" requests a slot from source i.
func (c *context) ask(i int, name string, r bgagent.SlotRequest) *request {
	return c.askThen(i, name, r, nil)
}

// askThen is like ask, but also takes a function that is called when the slot is granted.
func (c *context) askThen(i int, name string, r bgagent.SlotRequest, then func()) *request {
	q := &request{c: c, name: name, then: then}
	c.mu.Lock()
	c.all = append(c.all, q)
	c.mu.Unlock()
	q.claim = c.sources[i].Request(r, q)
	return q
}

// The method "until" waits until the condition holds. It evaluates the condition while it holds the
// lock, after each call to a holder. The condition must not call the source.
func (c *context) until(what string, f func() bool) {
	c.Helper()
	over := time.After(c.h.Within)
	for {
		c.mu.Lock()
		if f() {
			c.mu.Unlock()
			return
		}
		if c.more == nil {
			c.more = make(chan struct{})
		}
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-over:
			c.failf("within %v: %s", c.h.Within, what)
		}
	}
}

// The method "pool" waits until the pool's figures from the last source meet the condition. A pool
// that is not listed has zero figures.
func (c *context) pool(name, what string, f func(bgagent.PoolStats) bool) {
	c.Helper()
	for over := time.Now().Add(c.h.Within); ; time.Sleep(5 * time.Millisecond) {
		pools := c.sources[len(c.sources)-1].Pools()
		found := bgagent.PoolStats{Name: name}
		if i := slices.IndexFunc(pools, func(p bgagent.PoolStats) bool { return p.Name == name }); i >= 0 {
			found = pools[i]
		}
		if f(found) {
			return
		}
		if time.Now().After(over) {
			c.failf("within %v: the figures never showed that %s; the last ones are %+v", c.h.Within, what, found)
		}
	}
}

func (c *context) granted(all ...*request) {
	c.Helper()
	for _, r := range all {
		c.until(fmt.Sprintf("the slot for %s was not granted", r.name), func() bool { return r.granted > 0 })
	}
}

// The method "waiting" waits until the last source's figures show n waiters for the pool. A check
// calls this method between two calls to the method "ask", so that the second request certainly
// arrives after the first.
func (c *context) waiting(pool string, n int) {
	c.Helper()
	c.pool(pool, fmt.Sprintf("%d requests wait for %q", n, pool), func(p bgagent.PoolStats) bool { return p.Waiting == n })
}

// The method "names" returns the names of the granted requests in the order of the grants.
func (c *context) names() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.grants {
		names = append(names, r.name)
	}
	return names
}

func (c *context) expectOrder(want ...string) {
	c.Helper()
	if got := c.names(); !slices.Equal(got, want) {
		c.failf("the slots were granted in the order %q instead of %q", got, want)
	}
}

// start is the earliest queue time of the requests in a check.
var start = time.Now().Add(-time.Minute)

func (c *context) m(i int) bgagent.SlotRequest {
	return bgagent.SlotRequest{Model: "m", Agent: "a", Queued: start.Add(time.Duration(i) * time.Second)}
}

// The method "play" lets tasks of all sources acquire slots of the model "m" and release them. It
// returns the largest number of slots that were held at the same time.
func (c *context) play(tasks int) (most int) {
	var all []*request
	for i := range tasks {
		all = append(all, c.ask(i%len(c.sources), fmt.Sprint("task ", i), c.m(i)))
	}
	held, done := 0, 0
	for done < tasks {
		var free []*request
		c.until(fmt.Sprintf("%d of %d tasks got a slot, and no further task gets one", done, tasks), func() bool {
			held = 0
			free = free[:0]
			for _, r := range all {
				if r.granted > 0 {
					free = append(free, r)
				}
			}
			held = len(free)
			return held > 0
		})
		most = max(most, held)
		r := free[rand.N(len(free))]
		all = slices.DeleteFunc(all, func(x *request) bool { return x == r })
		done++
		r.claim.Release()
	}
	return most
}

func checkLimit(c *context) {
	if most := c.play(60); most > 2 {
		c.failf("%d slots were held at the same time; the limit is 2", most)
	}
}

func checkEverySlot(c *context) {
	c.play(20)
	a, b := c.ask(0, "a", c.m(1)), c.ask(1, "b", c.m(2))
	c.granted(a, b)
	d := c.ask(2, "c", c.m(3))
	a.claim.Release()
	b.claim.Release()
	e := c.ask(0, "d", c.m(4))
	c.granted(d, e)
}

func checkOrder(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	var all []*request
	for _, i := range []int{3, 1, 4, 2} {
		all = append(all, c.ask(i%len(c.sources), fmt.Sprint(i), c.m(i)))
	}
	c.waiting("model m", 4)
	first.claim.Release()
	c.inTurn(all)
	c.expectOrder("first", "1", "2", "3", "4")
}

// inTurn releases each of the requests as soon as it is granted.
func (c *context) inTurn(all []*request) {
	c.Helper()
	for range all {
		var r *request
		c.until("no further slot was granted", func() bool {
			i := slices.IndexFunc(all, func(x *request) bool { return x.granted > 0 })
			if i < 0 {
				return false
			}
			r = all[i]
			return true
		})
		all = slices.DeleteFunc(slices.Clone(all), func(x *request) bool { return x == r })
		r.claim.Release()
	}
}

func checkHead(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	next := c.m(5)
	next.Head = true
	all := []*request{c.ask(1, "waits", c.m(1)), c.ask(2, "next turn", next)}
	c.waiting("model m", 2)
	first.claim.Release()
	c.inTurn(all)
	c.expectOrder("first", "next turn", "waits")
}

func checkWithdrawn(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	gone, last := c.ask(1, "withdrawn", c.m(1)), c.ask(2, "last", c.m(2))
	c.waiting("model m", 2)
	gone.claim.Release()
	c.waiting("model m", 1)
	first.claim.Release()
	c.granted(last)
	last.claim.Release()
	c.expectOrder("first", "last")
	end := c.ask(0, "end", c.m(3))
	c.granted(end)
}

func checkReleasedOnce(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	first.claim.Release()
	first.claim.Release()
	second := c.ask(1, "second", c.m(1))
	c.granted(second)
	first.claim.Release()
	third := c.ask(2, "third", c.m(2))
	c.waiting("model m", 1)
	if slices.Contains(c.names(), "third") {
		c.failf("the slot was granted a second time, after another claim was released three times")
	}
	second.claim.Release()
	c.granted(third)
}

func checkRunning(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	runs := c.m(1)
	runs.Running = true
	second := c.ask(1, "runs", runs)
	c.granted(second)
	third := c.ask(2, "third", c.m(2))
	c.waiting("model m", 1)
	first.claim.Release()
	c.inUse("model m", 1)
	if slices.Contains(c.names(), "third") {
		c.failf("a slot was granted although the running work still has its slot")
	}
	second.claim.Release()
	c.granted(third)
}

// inUse waits until the figures of the last source show that n slots of the pool are in use.
func (c *context) inUse(pool string, n int) {
	c.Helper()
	c.pool(pool, fmt.Sprintf("%d slots of %q are in use", n, pool), func(p bgagent.PoolStats) bool { return p.InUse == n })
}

func checkTotal(c *context) {
	a, b := c.ask(0, "a", bgagent.SlotRequest{Model: "x"}), c.ask(1, "b", bgagent.SlotRequest{Model: "y"})
	c.granted(a, b)
	third := c.ask(2, "third", bgagent.SlotRequest{Model: "z"})
	c.waiting("total", 1)
	if slices.Contains(c.names(), "third") {
		c.failf("a third slot was granted; the total is 2")
	}
	b.claim.Release()
	c.granted(third)
}

func checkAgent(c *context) {
	a := c.ask(0, "first", bgagent.SlotRequest{Model: "x", Agent: "a"})
	c.granted(a)
	second := c.ask(1, "second", bgagent.SlotRequest{Model: "y", Agent: "A "})
	c.waiting("cap a", 1)
	other := c.ask(2, "other agent", bgagent.SlotRequest{Model: "y", Agent: "b"})
	c.granted(other)
	if slices.Contains(c.names(), "second") {
		c.failf("a second slot of the agent was granted; its cap is 1")
	}
	a.claim.Release()
	c.granted(second)
}

func checkMayBegin(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	second := c.ask(1, "second", c.m(1))
	c.waiting("model m", 1)
	if !first.claim.MayBegin() {
		c.failf("MayBegin returned false for a slot that was granted")
	}
	if second.claim.MayBegin() {
		c.failf("MayBegin returned true for a slot that was not granted")
	}
	first.claim.Release()
	if first.claim.MayBegin() {
		c.failf("MayBegin returned true for a slot that was released")
	}
	c.granted(second)
	if !second.claim.MayBegin() {
		c.failf("MayBegin returned false for a slot that was granted to a waiter")
	}
}

func checkLost(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	second := c.ask(1, "second", c.m(1))
	c.waiting("model m", 1)
	repair := c.h.Cut(c.sources[0])
	var until, at time.Time
	c.until("the holder was not notified that its slot is lost", func() bool { until = first.until; return first.lost > 0 })
	if now := time.Now(); until.Before(now) {
		c.failf("the holder was notified only %v after its slot was lost", now.Sub(until))
	}
	if first.claim.MayBegin() {
		c.failf("MayBegin returned true for a slot that is lost")
	}
	c.until("the slot of a disconnected process was not granted again", func() bool { at = time.Now(); return second.granted > 0 })
	if at.Before(until) {
		c.failf("the slot was granted %v before the time at which its holder must have stopped", until.Sub(at))
	}
	repair()
	first.claim.Release() // releasing a lost slot must have no effect
	third := c.ask(0, "third", c.m(2))
	c.waiting("model m", 1)
	second.claim.Release()
	c.granted(third)
}
