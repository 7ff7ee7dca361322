package bench

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
)

// runner is the least that a client for Go functions can be: it keeps nothing
// of its sessions.
type runner struct {
	turn     func(p bgagent.Prompt) // nil for an agent that answers at once
	sessions atomic.Int64
}

func (r *runner) CreateSession(context.Context, bgagent.SessionSpec) (string, error) {
	return "s" + strconv.FormatInt(r.sessions.Add(1), 10), nil
}

func (r *runner) Abort(context.Context, string) error { return nil }

func (r *runner) ForgetSession(string) {}

func (r *runner) RunTurn(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
	if r.turn != nil {
		r.turn(p)
	}
	return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "done"}, nil
}

// starter is an agent server that is busy with everything for ever. What is read
// from it is counted.
type starter struct {
	latency  time.Duration
	messages int           // of each session
	revision bool          // the status tells when a session has changed
	events   bool          // changes are reported, so that nothing has to be read
	up       chan struct{} // closed once the manager knows that they are

	mu       sync.Mutex
	sessions map[string]*served
	all      []string
	count    readings
}

// served is one session of a starter.
type served struct {
	changed int // how often the last message has changed
}

// readings are what a starter was asked since they were last taken.
type readings struct {
	statusCalls, asked int           // Statuses, and sessions asked for in all
	reads, bytes       int           // Messages, and bytes handed over
	first, last        time.Time     // start of the latest Statuses, end of the latest call
	longest            time.Duration // longest sweep: from a Statuses to the last call before the next
}

func newStarter() *starter { return &starter{sessions: map[string]*served{}, up: make(chan struct{})} }

func (s *starter) CreateSession(context.Context, bgagent.SessionSpec) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := "s" + strconv.Itoa(len(s.all))
	s.sessions[id] = &served{}
	s.all = append(s.all, id)
	return id, nil
}

func (s *starter) Abort(_ context.Context, session string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, session)
	return nil
}

func (s *starter) StartTurn(context.Context, string, bgagent.Prompt) error { return nil }

func (s *starter) Statuses(_ context.Context, sessions []string) (map[string]bgagent.SessionStatus, error) {
	s.mu.Lock()
	if !s.count.first.IsZero() {
		s.count.longest = max(s.count.longest, s.count.last.Sub(s.count.first))
	}
	s.count.first = time.Now()
	s.count.statusCalls++
	s.count.asked += len(sessions)
	s.mu.Unlock()

	time.Sleep(s.latency)

	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]bgagent.SessionStatus, len(sessions))
	for _, id := range sessions {
		x, ok := s.sessions[id]
		if !ok {
			out[id] = bgagent.SessionStatus{State: bgagent.SessionIdle}
			continue
		}
		st := bgagent.SessionStatus{State: bgagent.SessionBusy}
		if s.revision {
			st.Revision = strconv.Itoa(x.changed)
		}
		out[id] = st
	}
	s.count.last = time.Now()
	return out, nil
}

func (s *starter) Messages(_ context.Context, session string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	time.Sleep(s.latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.reads++
	defer func() { s.count.last = time.Now() }()
	x, ok := s.sessions[session]
	if !ok {
		return bgagent.Page{Next: after}, nil
	}
	// The cursor is how many messages were read and how often the last had
	// changed by then.
	read, changed := 0, 0
	if after != "" {
		for i := range len(after) {
			if after[i] == '.' {
				read, _ = strconv.Atoi(string(after[:i]))
				changed, _ = strconv.Atoi(string(after[i+1:]))
			}
		}
	}
	from := read
	if read == s.messages && changed != x.changed {
		from = s.messages - 1
	}
	var page bgagent.Page
	for i := from; i < s.messages && len(page.Messages) < most; i++ {
		m := message(i, i < s.messages-1)
		page.Messages = append(page.Messages, m)
		s.count.bytes += len(m.Text)
		read = i + 1
	}
	page.More = read < s.messages
	page.Next = bgagent.Cursor(strconv.Itoa(read) + "." + strconv.Itoa(x.changed))
	return page, nil
}

// Events says once that everything is reported, and nothing ever happens.
func (s *starter) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	if !s.events {
		return errors.ErrUnsupported
	}
	emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
	close(s.up)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			emit(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change changes the last message of every session whose number is divided by
// every.
func (s *starter) change(every int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(s.all); i += every {
		s.sessions[s.all[i]].changed++
	}
}

// take returns what was counted and begins anew.
func (s *starter) take() readings {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.count
	s.count = readings{}
	return c
}

var text = func() string {
	b := make([]byte, 400)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return string(b)
}()

func message(i int, finished bool) bgagent.Message {
	return bgagent.Message{ID: "m" + strconv.Itoa(i), Role: bgagent.RoleAgent, Text: text, Finished: finished}
}
