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
	ReportTool                 // Tool began or got further
	ReportTodos                // Todos is the whole list
	ReportUsage                // Usage was used since the last report
	ReportAsking               // Text is the question; empty when it was answered
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

// Reporter passes on what happens in a running turn. All methods return at once
// and are safe for concurrent use; after the turn has ended they do nothing.
type Reporter struct {
	sink  func(Report) // nil for one of the manager's
	a     *attempt
	turn  int32
	ended atomic.Bool
}

// NewReporter returns a reporter that calls f, from the goroutine that reports,
// for every report. The manager makes its own; this is for testing a
// [TurnRunner] by itself.
func NewReporter(f func(Report)) *Reporter { return &Reporter{sink: f} }

// end makes every later report a no-op.
func (r *Reporter) end() { r.ended.Store(true) }

func (r *Reporter) report(x Report) {
	switch {
	case r == nil || r.ended.Load():
	case r.a != nil:
		r.a.report(r.turn, x)
	case r.sink != nil:
		r.sink(x)
	}
}

// Text reports a piece of what the agent writes to its reader.
func (r *Reporter) Text(delta string) { r.report(Report{Kind: ReportText, Text: delta}) }

// Reasoning reports that the agent is thinking, and what.
func (r *Reporter) Reasoning(delta string) { r.report(Report{Kind: ReportReasoning, Text: delta}) }

// Tool reports a tool call, or how far it has got. A call is known by its id
// from its first report to the one that it has ended, and counted once; what is
// reported under its id afterwards is another call, because some agents give all
// calls the same id. Every report is activity.
func (r *Reporter) Tool(t MessageTool) { r.report(Report{Kind: ReportTool, Tool: t}) }

// Todos reports the agent's whole todo list. The list is copied.
func (r *Reporter) Todos(list []Todo) {
	r.report(Report{Kind: ReportTodos, Todos: slices.Clone(list)})
}

// Usage reports what the agent has used since the last report.
func (r *Reporter) Usage(u Usage) { r.report(Report{Kind: ReportUsage, Usage: u}) }

// Asking reports that the agent waits for an answer to the question; an empty
// one means that it has got it.
func (r *Reporter) Asking(question string) { r.report(Report{Kind: ReportAsking, Text: question}) }

// Activity reports that something has changed that no other method tells.
func (r *Reporter) Activity() { r.report(Report{Kind: ReportActivity}) }
