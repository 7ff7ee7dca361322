package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Events about sessions that the host reports.

// Observe tells the manager about an event in a session of the agent runtime. It is for hosts whose
// client is no [EventSource]. It returns at once and ignores sessions that do not belong to the
// manager.
func (m *BackgroundManager) Observe(e HostEvent) {
	if e.Session != "" && m.passed(e.Kind, e.Session) {
		return
	}
	m.update(func(st *state, now int64) {
		cl := m.client(e.Client)
		if of := st.clientOf(e.Session); of != nil && e.Client == "" {
			cl = of
		}
		if cl != nil {
			st.observe(cl, e, now)
		}
	})
}

// passed handles the two frequent kinds of events with little time under the lock: events about
// sessions of others, and events that only report activity. It returns false for all others.
func (m *BackgroundManager) passed(kind HostEventKind, session string) (passed bool) {
	hash := sessionHash(m.seed, session)
	m.view(func(st *state) {
		s := st.sessions.findAt(hash, session)
		if s != nil && s.tomb > 0 && kind != HostDeleted {
			s = nil
		}
		if kind == HostActivity {
			if s != nil {
				s.active = true // no clock is read here; judge notes the time
			}
			passed = true
			return
		}
		passed = s == nil && st.nodes[session] == nil
	})
	return passed
}

// streamEvents runs the event stream of a client until the manager closes.
func (m *BackgroundManager) streamEvents(cl *hostClient) {
	emit := func(e HostEvent) {
		e.Client = cl.rec.name
		m.Observe(e)
	}
	for failures := 1; m.base.Err() == nil; failures++ {
		began := time.Now()
		err := m.streamOnce(cl, emit)
		emit(HostEvent{Kind: HostStreamGap})
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if time.Since(began) > time.Minute {
			failures = 1
		}
		if !m.sleep(min(backoff(failures), 30*time.Second)) {
			return
		}
	}
}

// streamOnce calls Events on a separate goroutine. If Events ends its goroutine or ignores its
// context, this one continues.
func (m *BackgroundManager) streamOnce(cl *hostClient, emit func(HostEvent)) error {
	const forever = 100 * 365 * 24 * time.Hour
	_, err := within(m.base, m, goEvents, "Events", forever, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, lookedAt(cl.events.Events(ctx, emit))
	})
	if err != nil && m.base.Err() == nil {
		m.update(func(st *state, _ int64) {
			st.logText(logStreamBroke, fmt.Sprintf("client %q", cl.rec.name), err.Error())
		})
	}
	return err
}

// ReportKind says what a [Report] tells.
type ReportKind uint8

// The kinds of reports.
const (
	_               ReportKind = iota
	ReportText                 // Text was written to the reader
	ReportReasoning            // Text was thought
	ReportTool                 // Tool began, or its state changed
	ReportTodos                // Todos is the whole list
	ReportUsage                // Usage is what was used since the last report
	ReportAsking               // Text is the question; empty once it is answered
	ReportActivity             // something else changed
)

// Report is one thing that happened in a running turn.
type Report struct {
	Kind  ReportKind
	Text  string
	Tool  MessageTool
	Todos []Todo
	Usage Usage
}

// Reporter reports what happens in a running turn. All methods return at once and are safe for
// concurrent use. After the turn has ended, they do nothing.
type Reporter struct {
	sink   func(Report) // set by NewReporter
	m      *BackgroundManager
	a      *attempt
	turn   int32
	closed atomic.Bool
}

// NewReporter returns a reporter that calls f for every report, on the reporting goroutine. It is
// for testing a [TurnRunner] by itself: the manager makes its own reporters.
func NewReporter(f func(Report)) *Reporter { return &Reporter{sink: f} }

// end makes every later report a no-op.
func (r *Reporter) end() { r.closed.Store(true) }

func (r *Reporter) report(x Report) {
	switch {
	case r == nil || r.closed.Load():
	case r.m != nil:
		r.m.update(func(st *state, now int64) {
			if a := r.a; a.live() && a.turn == r.turn && a.turnStart > 0 {
				st.report(a, x, now)
			}
		})
	case r.sink != nil:
		r.sink(x)
	}
}

// Text reports a piece of the text that the agent writes to its reader.
func (r *Reporter) Text(delta string) { r.report(Report{Kind: ReportText, Text: delta}) }

// Reasoning reports a piece of the agent's reasoning.
func (r *Reporter) Reasoning(delta string) { r.report(Report{Kind: ReportReasoning, Text: delta}) }

// Tool reports a tool call or a change of its state. A call is known by its id from its first
// report until the report that it has ended, and is counted once. A later report with the same id
// is another call, because some agents give all calls the same id. Every report counts as activity.
func (r *Reporter) Tool(t MessageTool) { r.report(Report{Kind: ReportTool, Tool: t}) }

// Todos reports the agent's whole todo list. The list is copied.
func (r *Reporter) Todos(list []Todo) {
	r.report(Report{Kind: ReportTodos, Todos: slices.Clone(list)})
}

// Usage reports what the agent has used since the last report.
func (r *Reporter) Usage(u Usage) { r.report(Report{Kind: ReportUsage, Usage: u}) }

// Asking reports that the agent waits for an answer to the question. An empty question means that
// it has got the answer.
func (r *Reporter) Asking(question string) { r.report(Report{Kind: ReportAsking, Text: question}) }

// Activity reports a change that no other method covers.
func (r *Reporter) Activity() { r.report(Report{Kind: ReportActivity}) }
