package bgagent

import (
	"slices"
	"sync/atomic"
)

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
