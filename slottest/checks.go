package slottest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
)

func checkRounds(c *context) {
	of := func(i int, root string) bgagent.SlotRequest {
		r := c.m(i)
		r.Root = root
		return r
	}
	first := c.ask(0, "first", of(0, "r"))
	c.granted(first)
	all := []*request{c.ask(0, "a1", of(1, "a")), c.ask(1, "a2", of(2, "a")), c.ask(2, "b1", of(3, "b"))}
	c.waiting("model m", 3)
	first.claim.Release()
	c.inTurn(all)
	c.expectOrder("first", "a1", "b1", "a2")
}

func checkQueuedNow(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	now := c.m(0)
	now.Queued = time.Time{}
	all := []*request{c.ask(1, "queued now", now)}
	c.waiting("model m", 1)
	all = append(all, c.ask(2, "queued before", c.m(1)))
	c.waiting("model m", 2)
	first.claim.Release()
	c.inTurn(all)
	c.expectOrder("first", "queued before", "queued now")
}

func checkReleaseAtOnce(c *context) {
	first := c.ask(0, "first", c.m(0))
	c.granted(first)
	var quick *request
	asked := make(chan struct{})
	quick = c.askThen(1, "quick", c.m(1), func() {
		<-asked
		quick.claim.Release()
	})
	close(asked)
	third := c.ask(2, "third", c.m(2))
	c.waiting("model m", 2)
	first.claim.Release()
	c.granted(quick, third)
}

func checkManyAtOnce(c *context) {
	var held, most, stuck atomic.Int32
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			for n := range 5 {
				granted := make(chan struct{})
				var once sync.Once
				r := c.askThen(i%len(c.sources), fmt.Sprintf("%d of goroutine %d", n, i), bgagent.SlotRequest{Model: "m"}, func() {
					once.Do(func() { close(granted) })
				})
				select {
				case <-granted:
					for now, seen := held.Add(1), most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
					}
					r.claim.MayBegin()
					held.Add(-1)
				case <-time.After(c.h.Within):
					stuck.Add(1)
				}
				r.claim.Release()
			}
		})
	}
	all.Wait()
	if n := stuck.Load(); n > 0 {
		c.failf("%d requests got no slot within %v", n, c.h.Within)
	}
	if n := most.Load(); n > 2 {
		c.failf("%d slots were held at the same time; the limit is 2", n)
	}
}

func checkFigures(c *context) {
	for _, s := range c.sources {
		if n := s.Limits().Model["m"]; n != 2 {
			c.failf("Limits returned %d for the model m; it is 2", n)
		}
	}
	c.granted(c.ask(0, "a", c.m(0)), c.ask(1, "b", c.m(1)))
	c.ask(1, "waits", c.m(2))
	c.waiting("model m", 1)
	c.inUse("model m", 2)
}
