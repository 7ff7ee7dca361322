package bench

import (
	"fmt"
	"time"

	"github.com/bgagent/bgagent"
)

func pollRows() []Row {
	return []Row{{
		ID:        "poll",
		What:      "a poll sweep over running sessions of 50 messages, host latency 2 ms, 32 concurrent reads",
		Reference: "counted calls and bytes",
		Run:       runPoll,
	}}
}

// The type "polled" holds the measurements of the calls that a polling manager makes to a host.
type polled struct {
	statusCalls  float64       // calls to Statuses per interval
	reads, bytes float64       // calls to Messages and bytes read, per sweep
	longest      time.Duration // longest sweep
}

// The function "sweeps" lets a manager poll n busy sessions for the given number of intervals. The
// first interval begins after all messages have been read once. At the start of each interval,
// "sweeps" calls the function "between". The result holds the averages over the sweeps that started
// and finished during these intervals.
func sweeps(n, many int, s *starter, between func()) (p polled, err error) {
	const interval = 2 * time.Second
	s.latency, s.messages = 2*time.Millisecond, 50
	m, err := live(n, s, bgagent.Config{PollInterval: interval, ReadConcurrency: 32})
	if err != nil {
		return p, err
	}
	time.Sleep(2*interval + interval/2) // the first sweeps read all messages
	s.take()
	for range many {
		between()
		time.Sleep(interval)
	}
	whole, then := s.take()
	if len(whole) == 0 {
		return p, fmt.Errorf("no sweep finished within %d intervals", many)
	}
	k := float64(len(whole))
	p.statusCalls = k * interval.Seconds() / then.Sub(whole[0].began).Seconds()
	for _, x := range whole {
		p.reads += float64(x.reads) / k
		p.bytes += float64(x.bytes) / k
		p.longest = max(p.longest, x.last.Sub(x.began))
	}
	return p, closeManager(m)
}

func runPoll(o Options) ([]Check, error) {
	var checks []Check
	for _, n := range o.sizes(1000, 10_000) {
		for _, x := range []struct {
			name             string
			revision, events bool
			every            int // n means that every nth session changes between two sweeps; 0 means that no session changes
			reads, bytes     float64
		}{
			{"none changed, without revisions", false, false, 0, float64(n), 0},
			{"none changed, with revisions", true, false, 0, 0, 0},
			{"one in 100 changed, with revisions", true, false, 100, float64(n / 100), float64(n/100) * 2 * float64(len(text))},
			{"kept current by events", false, true, 0, 0, 0},
		} {
			name := fmt.Sprintf("%s sessions, %s", count(n), x.name)
			o.note("%s", name)
			s := newStarter()
			s.revision, s.events = x.revision, x.events
			p, err := sweeps(n, 4, s, func() {
				if x.every > 0 {
					s.change(x.every)
				}
			})
			if err != nil {
				return nil, err
			}
			checks = append(checks,
				Check{name + ": status calls per poll interval", Series{p.statusCalls}, "", 1.05, None, ""},
				Check{name + ": reads per sweep", Series{p.reads}, "", x.reads, None, ""},
				Check{name + ": bytes read per sweep", Series{p.bytes}, "B", x.bytes, None, ""},
				Check{name + ": longest sweep", Series{p.longest.Seconds() * 1000}, "ms", 2000, None, ""})
		}
	}
	return checks, nil
}
