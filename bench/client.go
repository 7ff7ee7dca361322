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

// runner is a minimal client for Go functions. It does not store any data about its sessions.
type runner struct {
	turn     func(p bgagent.Prompt) // the agent's work in a turn; nil for an agent that answers immediately
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

// starter is a client whose sessions are always busy. It counts the manager's calls and the
// bytes that they return.
type starter struct {
	latency  time.Duration // time that each call takes
	messages int           // number of messages per session
	revision bool          // whether statuses have a revision, which changes with the session
	events   bool          // whether the client reports changes as events, so that polls need not read messages
	up       chan struct{} // closed when the manager knows that changes will be reported as events

	mu       sync.Mutex
	sessions map[string]*served
	all      []string
	sweeps   []sweep // sweeps since the last call to take; the last sweep is incomplete
}

// The type "served" is one session of a starter.
type served struct {
	changed int // number of changes to the last message
}

// The type "sweep" counts the calls to a starter from one call to Statuses to the next.
type sweep struct {
	began, last  time.Time // beginning of the call to Statuses, and end of the latest call
	reads, bytes int       // number of calls to Messages, and number of bytes that they returned
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
	now := time.Now()
	s.sweeps = append(s.sweeps, sweep{began: now, last: now})
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
	s.counted(0, 0)
	return out, nil
}

func (s *starter) Messages(_ context.Context, session string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	time.Sleep(s.latency)
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	defer func() { s.counted(1, size) }()
	x, ok := s.sessions[session]
	if !ok {
		return bgagent.Page{Next: after}, nil
	}
	// The cursor holds the number of messages that have been read, and the number of changes to
	// the last message at that time.
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
		size += len(m.Text)
		read = i + 1
	}
	page.More = read < s.messages
	page.Next = bgagent.Cursor(strconv.Itoa(read) + "." + strconv.Itoa(x.changed))
	return page, nil
}

// Events tells the manager that all changes are sent as events. After that, it only sends
// heartbeats.
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

// The method "change" changes the last message of each session whose index is divisible by the
// given number.
func (s *starter) change(every int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i < len(s.all); i += every {
		s.sessions[s.all[i]].changed++
	}
}

// The method "counted" adds a finished call to the current sweep. Calls before the first sweep do
// not count.
func (s *starter) counted(reads, bytes int) {
	if len(s.sweeps) == 0 {
		return
	}
	x := &s.sweeps[len(s.sweeps)-1]
	x.last, x.reads, x.bytes = time.Now(), x.reads+reads, x.bytes+bytes
}

// The method "take" returns the complete sweeps and the start of the incomplete sweep. It then
// removes all sweeps, so that counting begins again.
func (s *starter) take() (whole []sweep, then time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.sweeps) - 1; last >= 0 {
		whole, then = s.sweeps[:last], s.sweeps[last].began
	}
	s.sweeps = nil
	return whole, then
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
