package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

func eventRows() []Row {
	return []Row{{
		ID:        "events",
		What:      "an event for a session that the manager does not own / owns, from one and two senders",
		Reference: "an RWMutex map look-up of the same size",
		Run:       runEvents,
	}}
}

// The function "live" returns a manager with n running tasks. The manager's client is s.
func live(n int, s *starter, cfg bgagent.Config) (*bgagent.BackgroundManager, error) {
	cfg.Limits = bgagent.Limits{Default: bgagent.Unlimited}
	cfg.Wake = bgagent.WakeNever
	cfg.MaxTasksPerRoot = bgagent.Unlimited
	cfg.StaleTimeout, cfg.TimeToLive = bgagent.Disabled, bgagent.Disabled
	m, err := bgagent.New(s, cfg)
	if err != nil {
		return nil, err
	}
	if s.events {
		<-s.up // until the manager knows that changes arrive as events, it reads every prompted session
	}
	for i := range n {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(time.Minute); ; {
		turns := 0
		for _, t := range m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Running}}) {
			if t.Phase == bgagent.PhaseTurn {
				turns++
			}
		}
		if turns == n {
			return m, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("only %d of %d tasks are in a turn", turns, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sendAll divides n calls to f among concurrent senders, and returns the time per call in
// nanoseconds.
func sendAll(senders int, f func(i int)) float64 {
	return perOp(func(n int) {
		var all sync.WaitGroup
		for s := range senders {
			all.Go(func() {
				for i := range n / senders {
					f(i*senders + s)
				}
			})
		}
		all.Wait()
	})
}

func runEvents(o Options) ([]Check, error) {
	var checks []Check
	for _, n := range o.sizes(10, 1000, 10_000, 100_000) {
		o.note("%d live", n)
		s := newStarter()
		// The interval is so long that no poll happens during the measurement. Another row measures
		// polls.
		m, err := live(n, s, bgagent.Config{PollInterval: time.Hour, HostUnreachable: bgagent.Disabled})
		if err != nil {
			return nil, err
		}
		foreign := make([]string, n)
		looked := make(map[string]*served, n)
		for i := range foreign {
			foreign[i] = "foreign-" + strconv.Itoa(i)
		}
		for id, x := range s.sessions {
			looked[id] = x
		}
		var mu sync.RWMutex
		for _, x := range []struct {
			name       string
			sessions   []string
			bound, aim float64
		}{{"none of ours", foreign, 5, 2}, {"one of ours", s.all, 4, 2}} {
			for _, senders := range []int{1, 2} {
				p, err := interleave(o.Rounds, func() (float64, error) {
					return sendAll(senders, func(i int) {
						m.Observe(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: x.sessions[i%n]})
					}), nil
				}, func() (float64, error) {
					return sendAll(senders, func(i int) {
						mu.RLock()
						_ = looked[x.sessions[i%n]]
						mu.RUnlock()
					}), nil
				})
				if err != nil {
					return nil, err
				}
				checks = append(checks, Check{fmt.Sprintf("%s, %s live, %d sender(s)", x.name, count(n), senders), p.ratio, "x", x.bound, x.aim, p.beside()})
			}
		}
		if err := closeManager(m); err != nil {
			return nil, err
		}
	}
	return checks, nil
}
