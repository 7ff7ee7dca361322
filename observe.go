package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// The code in this file handles the events that hosts report.

// Observe reports an event in the agent runtime to the manager. It is for hosts whose client is not
// an [EventSource]. Observe does not block. It ignores events about sessions that do not belong to
// the manager.
func (m *BackgroundManager) Observe(e HostEvent) {
	if e.Session != "" && m.passed(e.Kind, e.Session) {
		return
	}
	m.observe(e.received())
}

// observe is the part of Observe that few events need. It is a method of its own, so that Observe has a small
// frame.
func (m *BackgroundManager) observe(e HostEvent) {
	m.update(func(st *state, now int64) {
		cl := m.client(e.Client)
		if of := st.clientOf(e.Session); of != nil && e.Client == "" {
			cl = of
		}
		if cl != nil && st.suspend != frozen {
			st.observe(cl, e, now)
		}
	})
}

// The method "passed" handles two kinds of frequent events: events about sessions that do not
// belong to the manager, and events that only report activity. It returns true if it has handled
// the event. Handling these events here holds the lock for less time than an update would.
func (m *BackgroundManager) passed(kind HostEventKind, session string) (passed bool) {
	hash := sessionHash(m.seed, session)
	m.view(func(st *state) {
		s := st.sessions.findAt(hash, session)
		if s != nil && s.tomb > 0 && kind != HostDeleted {
			s = nil
		}
		if kind == HostActivity {
			if s != nil {
				s.active = true // state.judge later sets the time of the activity, so the clock is not read here
			}
			passed = true
			return
		}
		passed = s == nil && st.nodes[session] == nil
	})
	return passed
}

// startEvents starts the event streams of the clients. Only the first call has an effect.
func (m *BackgroundManager) startEvents() {
	m.events.Do(func() {
		for _, cl := range m.hosts {
			if cl.events != nil {
				m.spawn(goEvents, func() { m.streamEvents(cl) })
			}
		}
	})
}

// streamEvents runs the event stream of a client until the manager closes. If the stream breaks,
// streamEvents starts it again after a pause.
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

// streamOnce calls Events on a separate goroutine, and returns when the call has returned or the
// manager has closed. The goroutine is separate because Events might call runtime.Goexit or ignore
// its context.
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

// HostEventKind is the kind of a [HostEvent].
type HostEventKind uint8

// The kinds of events that a host reports.
const (
	_              HostEventKind = iota
	HostStatus                   // the session has a new status, in Status
	HostMessage                  // the message in Message is new or has changed
	HostTodos                    // the session has a new todo list, in Todos
	HostError                    // the turn failed: Error is the text, and Stop is the stop reason; StopUntold and StopEndOfTurn count as StopError
	HostDeleted                  // the session was deleted
	HostActivity                 // something else in the session changed
	HostStreamUp                 // from now on, all changes in all sessions are reported, in order
	HostStreamBeat               // the stream still works
	HostStreamGap                // events might have been lost
	HostQuestion                 // Questions holds all open questions of the session; it is empty if there are none. The client must be an Answerer, and must emit the event again after a gap
)

var hostEventKindNames = [...]string{"none", "status", "message", "todos", "error", "deleted", "activity", "stream up", "stream beat", "stream gap", "question"}

// String returns the name of the kind in lower case.
func (k HostEventKind) String() string { return enumName(hostEventKindNames[:], uint8(k)) }

// HostEvent is an event in a host's agent runtime. Events come from an [EventSource], or from the
// host through [BackgroundManager.Observe].
type HostEvent struct {
	Kind    HostEventKind
	Client  string // name of the client in Config.Clients; empty for the client given to New, and optional for an EventSource
	Session string // id of the session; empty in events about the stream
	Status  SessionStatus
	Message *Message
	Todos   []Todo
	Stop    StopReason
	Error   string
	// Provider is set in a HostError event if a request to the model provider failed.
	Provider  *ProviderError
	Questions []Question // only in a HostQuestion event
}

// ReportKind is the kind of change in a turn that a [Report] describes.
type ReportKind uint8

// The kinds of reports. The comments show which fields of the [Report] are set.
const (
	_                ReportKind = iota
	ReportText                  // Text is a piece of the text that the agent writes for the reader
	ReportReasoning             // Text is a piece of the agent's reasoning
	ReportTool                  // Tool is a tool call that has begun or whose state has changed
	ReportTodos                 // Todos is the agent's whole todo list
	ReportUsage                 // Usage is the agent's usage since the last report
	ReportAsking                // Text is the question that the agent asks; it is empty once the question is answered
	ReportActivity              // something else changed; no other field is set
	ReportState                 // Saved replaces the data that the store keeps for the session's client
	ReportCompaction            // the session was compacted; no other field is set
	ReportRetrying              // a request to the provider failed, and the agent's program repeats it; Provider and RetryAt are set
)

// Report describes one change in a running turn.
type Report struct {
	Kind  ReportKind
	Text  string
	Tool  MessageTool
	Todos []Todo
	Usage Usage
	Saved []byte

	Provider *ProviderError
	RetryAt  time.Time
}

// Reporter reports the changes in a running turn to the manager. The methods, except
// [Reporter.Ask], do not block. They are safe for concurrent use. After the turn has ended, they
// have no effect, except that [Reporter.Usage] still counts towards budgets.
type Reporter struct {
	sink   func(Report) // set by NewReporter
	m      *BackgroundManager
	a      *attempt
	turn   int32
	closed atomic.Bool
}

// NewReporter returns a reporter that calls f for every report, on the goroutine that makes the
// report. Use it to test a [TurnRunner] without a manager. The manager creates its own reporters.
func NewReporter(f func(Report)) *Reporter { return &Reporter{sink: f} }

// The method "end" closes the reporter: later calls to its methods have no effect.
func (r *Reporter) end() { r.closed.Store(true) }

func (r *Reporter) report(x Report) {
	switch {
	case r == nil || r.closed.Load() && (r.m == nil || x.Kind != ReportUsage):
	case r.m != nil:
		over := r.closed.Load()
		x = x.received()
		r.m.update(func(st *state, now int64) {
			switch a := r.a; {
			case st.suspend == frozen:
				if x.Kind == ReportUsage {
					st.countFrozen(a, r.turn, x.Usage, now)
				}
			case !over && a.live() && a.turn == r.turn && a.turnStart > 0:
				st.report(a, x, now)
			case x.Kind == ReportUsage:
				st.countLate(a, r.turn, x.Usage, now)
			}
		})
	case r.sink != nil:
		r.sink(x)
	}
}

// Text reports a piece of the text that the agent writes for the reader.
func (r *Reporter) Text(delta string) { r.report(Report{Kind: ReportText, Text: delta}) }

// Reasoning reports a piece of the agent's reasoning.
func (r *Reporter) Reasoning(delta string) { r.report(Report{Kind: ReportReasoning, Text: delta}) }

// SaveState stores data that the client needs to continue the session in another process, such as
// the id that the agent's program uses for the session. Each call replaces the data of the previous
// call. The data of the first two calls in a turn is written to the store immediately, and later
// data within 5 seconds. A later process gets the data in [SessionRestore].Saved. Data of more than
// 1 MiB is not stored, and the next process gets no data. Without a store, SaveState does nothing.
func (r *Reporter) SaveState(data []byte) {
	r.report(Report{Kind: ReportState, Saved: slices.Clone(data)})
}

// Tool reports a tool call or a change in its state. All reports with the same id, up to and
// including the report that the call has ended, belong to one call. A later report with the same id
// counts as a new call, because some agents give all calls the same id. Every report counts as
// activity. If the reports contain digests of input and result, an agent that repeats the same call
// is stopped; see [Config].RepeatedCalls. For this to work, a call should also be reported when it
// begins.
func (r *Reporter) Tool(t MessageTool) { r.report(Report{Kind: ReportTool, Tool: t}) }

// Compaction reports that the agent's runtime has replaced earlier messages of the session with a
// summary, because the input became too long for the model. If this happens twice in a row, and the
// agent neither writes text nor calls a tool between the two compactions, the attempt ends with
// [CauseTooLong].
func (r *Reporter) Compaction() { r.report(Report{Kind: ReportCompaction}) }

// Todos reports the agent's whole todo list. It copies the list.
func (r *Reporter) Todos(list []Todo) {
	r.report(Report{Kind: ReportTodos, Todos: slices.Clone(list)})
}

// Usage reports the agent's usage since the last report of usage. If this uses up a budget, the
// turn is stopped. Therefore, usage that becomes known at the end of the turn belongs in
// [TurnEnd].Usage, so that the answer is kept.
func (r *Reporter) Usage(u Usage) { r.report(Report{Kind: ReportUsage, Usage: u}) }

// Asking reports that the agent is waiting for an answer to the question. An empty question reports
// that the agent has received the answer.
func (r *Reporter) Asking(question string) { r.report(Report{Kind: ReportAsking, Text: question}) }

// Retrying reports that a request to the model provider failed and that the agent's program will
// repeat it on its own. The argument "at" is the time of the next request, or zero if it is
// unknown. Any later report of text, reasoning, a tool or usage means that a request succeeded.
func (r *Reporter) Retrying(e ProviderError, at time.Time) {
	r.report(Report{Kind: ReportRetrying, Provider: &e, RetryAt: at})
}

// Activity reports a change for which Reporter has no other method.
func (r *Reporter) Activity() { r.report(Report{Kind: ReportActivity}) }
