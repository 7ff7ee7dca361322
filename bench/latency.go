package bench

import (
	"context"
	"time"

	"github.com/bgagent/bgagent"
)

func latencyRows() []Row {
	return []Row{{
		ID:        "notice",
		What:      "the agent's end -> the notice handed to the host, window 0",
		Reference: "-",
		Run:       runNotice,
	}}
}

// noticeLatency runs n tasks one after another. For each task, it returns the time in nanoseconds from the
// end of the agent's turn to the notice.
func noticeLatency(n int) (Series, error) {
	ended := make(chan time.Time, 1)
	arrived := make(chan time.Time, 1)
	m, err := bgagent.New(&runner{turn: func(bgagent.Prompt) { ended <- time.Now() }}, bgagent.Config{
		Notify: func(context.Context, string, bgagent.Notice) error {
			arrived <- time.Now()
			return nil
		},
		NoticeWindow: bgagent.Disabled,
		RetainTasks:  1000,
	})
	if err != nil {
		return nil, err
	}
	var out Series
	for i := range n {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(100 * i)}, input); err != nil {
			return nil, err
		}
		from := <-ended
		out = append(out, float64((<-arrived).Sub(from).Nanoseconds()))
	}
	return out, closeManager(m)
}

func runNotice(o Options) ([]Check, error) {
	var p50, p99 Series
	for range o.Rounds {
		s, err := noticeLatency(2000)
		if err != nil {
			return nil, err
		}
		p50, p99 = append(p50, s.Quantile(0.5)/1e3), append(p99, s.Quantile(0.99)/1e3)
	}
	return []Check{
		{"p50", p50, "µs", None, 10, ""},
		{"p99", p99, "µs", 1000, 50, ""},
	}, nil
}
