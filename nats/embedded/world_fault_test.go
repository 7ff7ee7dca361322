//go:build linux

package embedded_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// quick is a plan for workers with tasks that always wait for the slots of two pools.
var quick = workerPlan{Limits: worldLimits(2, 3), Lanes: 3, Least: 300 * time.Millisecond, Most: 1200 * time.Millisecond}

// inFlight is how long after a fault a body may still begin with a slot that was granted before the
// fault.
const inFlight = time.Second

// startsAgain waits until a body begins that cannot have a slot from before the fault, and returns the time
// from the fault to that moment.
func (w *world) startsAgain(fault time.Time) time.Duration {
	w.t.Helper()
	var some []body
	w.until("a body begins after the fault", func() bool {
		some = w.log.began(nil, fault.Add(inFlight))
		return len(some) > 0
	})
	return some[0].begin.Sub(fault)
}

// allWork waits until a body has begun in each worker after the given time.
func (w *world) allWork(after time.Time) {
	w.t.Helper()
	w.until("all workers run bodies", func() bool {
		for _, l := range w.lives {
			if len(w.log.began(l, after)) == 0 {
				return false
			}
		}
		return true
	})
}

func TestNewWorkStartsAgainAfterTheKillOfTheAllocator(t *testing.T) {
	n := faultsOf(t, false)
	t.Parallel()
	w := newWorld(t, "127.0.0.1", here, quick)
	w.start("one", "two", "three")
	var took []time.Duration
	var killed []*life
	w.allWork(time.Time{})
	for i := range n {
		victim := w.allocator()
		at := victim.kill()
		killed = append(killed, victim)
		took = append(took, w.startsAgain(at))
		bound(t, took[i], worldKey+worldLease+time.Second)
		if i < n-1 {
			began := time.Now()
			w.start(victim.name)
			w.allWork(began)
		}
	}
	t.Log("from the kill of the allocator to the next begin of a body:", longest(took))
	w.judge(killed...)
}

func TestNewWorkStartsAgainAfterTheAllocatorFreezes(t *testing.T) {
	n := faultsOf(t, false)
	t.Parallel()
	w := newWorld(t, "127.0.0.1", here, quick)
	w.start("one", "two", "three")
	var took []time.Duration
	var hurt []*life
	w.allWork(time.Time{})
	for i := range n {
		victim := w.allocator()
		at := victim.freeze(t)
		hurt = append(hurt, victim)
		took = append(took, w.startsAgain(at))
		bound(t, took[i], worldKey+worldLease+time.Second)
		w.until("the others use all slots", func() bool { return w.isFull() })
		w.allWork(victim.thaw(t))
	}
	t.Log("from the freeze of the allocator to the next begin of a body:", longest(took))
	w.judge(hurt...)
}

// isFull reports whether all slots are in use.
func (w *world) isFull() bool {
	n := w.log.running()
	return n["a"] == w.plan.Limits.Model["a"] && n["b"] == w.plan.Limits.Model["b"]
}

// TestNoBodyBeginsOnAGrantFromBeforeTheThaw freezes a worker until others use all its slots, while tasks of
// all workers wait. If a body then began in the thawed worker with an old grant, the limit would be exceeded.
func TestNoBodyBeginsOnAGrantFromBeforeTheThaw(t *testing.T) {
	n := faultsOf(t, false)
	t.Parallel()
	w := newWorld(t, "127.0.0.1", here, quick)
	w.start("one", "two", "three")
	var back []time.Duration
	var hurt []*life
	w.allWork(time.Time{})
	for range n {
		victim := w.another(w.allocator())
		w.until("the worker runs bodies", func() bool { return w.log.runs(victim) > 0 })
		at := victim.freeze(t)
		hurt = append(hurt, victim)
		passes(worldLease + time.Second)
		w.until("the others use all slots", w.isFull)
		thaw := victim.thaw(t)
		w.allWork(thaw)
		back = append(back, w.log.began(victim, thaw)[0].begin.Sub(thaw))
		require.NotEmpty(t, w.log.began(nil, at))
	}
	t.Log("from the thaw of a worker to its next begin of a body:", longest(back))
	w.judge(hurt...)
}

// TestNewWorkStartsAgainAfterTheKillOfTheLeadingServer runs bodies that take 8 s. None of them may be
// stopped. The short bodies of the pool c show when each process can start new work.
func TestNewWorkStartsAgainAfterTheKillOfTheLeadingServer(t *testing.T) {
	n := faultsOf(t, true)
	t.Parallel()
	limits := worldLimits(2, 3)
	limits.Model["c"] = 3
	w := newWorld(t, "127.0.0.1", here, workerPlan{Limits: limits, Lanes: 2, Least: 7500 * time.Millisecond, Most: 8500 * time.Millisecond})
	w.start("one", "two", "three")
	w.allWork(time.Time{}) // a process that has not joined yet would fail, because no server leads
	var took []time.Duration
	for range n {
		w.until("all slots are in use", w.isFull)
		leads := w.leader()
		at := w.alive[leads].kill()
		passes(time.Until(at.Add(worldLease * 4 / 5))) // a process that could not renew its lease would have stopped its bodies after two thirds of the lease
		w.allWork(at.Add(inFlight))                    // if a worker has not begun a new body, the pause is not over yet
		for _, l := range w.lives {
			took = append(took, w.log.pause(l, at))
			bound(t, took[len(took)-1], 12*time.Second)
		}
		w.startNode(leads)
		w.untilReady(leads)
	}
	t.Log("the longest time without a new start in a process after the kill of the leading server:", longest(took))
	w.judge()
}

// TestAnOutageOfTheServersEndsNoTask kills two of three servers and starts them again after two thirds of the
// lease. During the outage, nothing can be stored, but the processes still reach each other through the third
// server. A task that gets a slot just after the kill cannot begin, and loses the slot again. All bodies end
// before they could lose their slots.
func TestAnOutageOfTheServersEndsNoTask(t *testing.T) {
	n := faultsOf(t, true)
	t.Parallel()
	w := newWorld(t, "127.0.0.1", here, quick)
	w.start("one", "two", "three")
	w.allWork(time.Time{})
	for range n {
		w.until("all slots are in use", w.isFull)
		leads := w.leader()
		for i := range w.alive[1:] {
			w.alive[(leads+i)%3].kill()
		}
		passes(worldLease*2/3 + 2*time.Second)
		for i := range w.alive[1:] {
			w.startNode((leads + i) % 3)
		}
		w.allWork(time.Now())
	}
	w.judge()
}

// TestAFreeSlotIsUsedSoon measures the time from the end of one task's body to the beginning of the next body
// in the same pool. Each body can run in any of three processes.
func TestAFreeSlotIsUsedSoon(t *testing.T) {
	faultsOf(t, false)
	for name, forgets := range map[string]bool{"with a store": false, "without a store": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "127.0.0.1", here, workerPlan{Limits: worldLimits(2, 5), Lanes: 5, Least: 100 * time.Millisecond, Most: 200 * time.Millisecond, Forgets: forgets})
			w.start("one", "two", "three")
			w.allWork(time.Time{})
			const first = 200 // number of bodies that are ignored, because not all workers have tasks yet
			w.until("many bodies have run", func() bool { return len(w.log.all()) > 3*(1500+first) })
			var took []time.Duration
			for pool, limit := range w.plan.Limits.Model {
				var begins, ends []time.Time
				for _, b := range w.log.bodies() {
					if b.pool == pool {
						begins = append(begins, b.begin)
						if !b.end.IsZero() {
							ends = append(ends, b.end)
						}
					}
				}
				slices.SortFunc(ends, time.Time.Compare)
				for i := first / 2; i+limit < len(begins); i++ {
					took = append(took, begins[i+limit].Sub(ends[i]))
				}
			}
			slices.Sort(took)
			t.Logf("from the end of a body to the begin of the next one: median %v, 99th percentile %v of %d", took[len(took)/2], took[len(took)*99/100], len(took))
			require.Less(t, took[len(took)/2], time.Second)
			w.judge()
		})
	}
}
