package bench

import (
	"fmt"
	"time"

	"github.com/bgagent/bgagent"
)

func pollRows() []Row {
	return []Row{{
		ID:        "poll",
		What:      "a poll sweep over running sessions of 50 messages, host latency 2 ms, 32 reads at once",
		Reference: "calls and bytes counted",
		Run:       runPoll,
	}}
}

// sweeps lets a manager poll n busy sessions and returns what one sweep asks,
// on average of so many, once everything has been read. between is called
// between two sweeps.
func sweeps(n, many int, s *starter, between func()) (statusCalls, reads, bytes float64, longest time.Duration, err error) {
	const interval = 2 * time.Second
	s.latency, s.messages = 2*time.Millisecond, 50
	m, err := live(n, s, bgagent.Config{PollInterval: interval, ReadConcurrency: 32})
	if err != nil {
		return 0, 0, 0, 0, err
	}
	time.Sleep(2*interval + interval/2) // in the first sweeps all messages are new
	s.take()
	for range many {
		between()
		time.Sleep(interval)
	}
	c := s.take()
	longest = max(c.longest, c.last.Sub(c.first))
	swept := float64(max(c.statusCalls, 1))
	return float64(c.statusCalls) / float64(many), float64(c.reads) / swept, float64(c.bytes) / swept, longest, closeManager(m)
}

func runPoll(o Options) ([]Check, error) {
	var checks []Check
	for _, n := range o.sizes(1000, 10_000) {
		for _, x := range []struct {
			name             string
			revision, events bool
			every            int // each so manieth session changes between two sweeps; 0 for none
			reads, bytes     float64
		}{
			{"without news, no revisions", false, false, 0, float64(n), 0},
			{"without news, revisions", true, false, 0, 0, 0},
			{"one in 100 changed, revisions", true, false, 100, float64(n / 100), float64(n/100) * 2 * float64(len(text))},
			{"kept current by events", false, true, 0, 0, 0},
		} {
			name := fmt.Sprintf("%s sessions %s", count(n), x.name)
			o.note("%s", name)
			s := newStarter()
			s.revision, s.events = x.revision, x.events
			status, reads, bytes, longest, err := sweeps(n, 3, s, func() {
				if x.every > 0 {
					s.change(x.every)
				}
			})
			if err != nil {
				return nil, err
			}
			// A sweep more than intervals may begin within the time counted.
			checks = append(checks,
				Check{name + ": status calls in an interval", Series{status}, "", 1.34, None, ""},
				Check{name + ": reads", Series{reads}, "", x.reads, None, ""},
				Check{name + ": bytes read", Series{bytes}, "B", x.bytes, None, ""},
				Check{name + ": longest sweep", Series{longest.Seconds() * 1000}, "ms", 2000, None, ""})
		}
	}
	return checks, nil
}
