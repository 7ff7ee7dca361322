package display

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
)

// Lines shows one line for every state of a task. It is for files, pipes and
// simple terminals.
type Lines struct {
	w     *watched
	start time.Time
	last  map[int]bgagent.Status
}

// NewLines returns a display of plain lines.
func NewLines(w io.Writer) *Lines {
	return &Lines{w: &watched{w: w}, start: time.Now(), last: map[int]bgagent.Status{}}
}

// Show implements [Display].
func (l *Lines) Show(r Row) {
	was, shown := l.last[r.Number]
	if shown && was == r.Task.Status || r.Task.Status == bgagent.Pending && r.Task.Queue == nil {
		return // also when it only waits for its launch
	}
	l.last[r.Number] = r.Task.Status
	line := fmt.Sprintf("%3d  %-9s  %s: %s", r.Number, r.Task.Status, r.Task.Agent, clean(r.Task.Description))
	switch {
	case r.Task.Status.Terminal() && !r.Task.Started.IsZero():
		line += fmt.Sprintf(" (%.1f s, %s): %s", r.Task.Duration(time.Now()).Seconds(), count(r.Task.Progress.ToolCalls, "tool call"), about(r))
	case r.Task.Status != bgagent.Running:
		line += ": " + about(r)
	}
	l.line(line)
	if text := unwritten(r); text != "" {
		_, _ = io.WriteString(l.w, text) // the writer keeps the error
	}
}

// Note implements [Display].
func (l *Lines) Note(text string) { l.line("     " + clean(text)) }

// End implements [Display].
func (l *Lines) End(s Summary) error {
	l.line("     " + s.String())
	return l.w.err
}

func (l *Lines) line(text string) {
	fmt.Fprintf(l.w, "[%7.2fs] %s\n", time.Since(l.start).Seconds(), text)
}

// JSON shows one object a line: a task whenever its state or its number of tool
// calls changes, notes, and the summary.
type JSON struct {
	w    *watched
	e    *json.Encoder
	last map[int]jsonState
}

type jsonState struct {
	status bgagent.Status
	calls  int
	file   string
}

// Line is one line of the JSON display. Which fields are set depends on Type:
// task, note or summary.
type Line struct {
	Type        string              `json:"type"`
	Time        time.Time           `json:"time"`
	Number      int                 `json:"number,omitempty"`
	ID          string              `json:"id,omitempty"`
	Agent       string              `json:"agent,omitempty"`
	Description string              `json:"description,omitempty"`
	Status      string              `json:"status,omitempty"`
	Cause       string              `json:"cause,omitempty"`
	Reason      string              `json:"reason,omitempty"`
	ToolCalls   int                 `json:"tool_calls,omitempty"`
	LastTool    string              `json:"last_tool,omitempty"`
	LastMessage string              `json:"last_message,omitempty"`
	Seconds     float64             `json:"seconds,omitempty"`
	File        string              `json:"file,omitempty"`
	Log         string              `json:"log,omitempty"`     // the file with what its program printed
	Cut         bool                `json:"cut,omitempty"`     // the file holds only the beginning of the answer
	Bytes       int64               `json:"bytes,omitempty"`   // with Cut: of the whole answer, where that is known
	Problem     string              `json:"problem,omitempty"` // why there is no file
	Result      string              `json:"result,omitempty"`  // what would be in it, then
	Text        string              `json:"text,omitempty"`
	Summary     *Summary            `json:"summary,omitempty"`
	Queue       *bgagent.QueuePlace `json:"queue,omitempty"`
}

// NewJSON returns a display of lines of JSON.
func NewJSON(w io.Writer) *JSON {
	out := &watched{w: w}
	return &JSON{out, json.NewEncoder(out), map[int]jsonState{}}
}

// Show implements [Display].
func (j *JSON) Show(r Row) {
	t := r.Task
	now := jsonState{t.Status, t.Progress.ToolCalls, r.File}
	if was, shown := j.last[r.Number]; shown && was == now {
		return
	}
	j.last[r.Number] = now
	l := Line{
		Type: "task", Number: r.Number, ID: t.ID, Agent: t.Agent, Description: t.Description,
		Status: t.Status.String(), Cause: t.Cause.String(), Reason: t.Reason, ToolCalls: t.Progress.ToolCalls,
		LastTool: t.Progress.LastTool, LastMessage: t.Progress.LastMessage,
		Seconds: results.Seconds(t.Duration(time.Now())), File: r.File, Log: r.Log, Cut: r.Cut, Bytes: r.Bytes, Problem: r.Problem, Queue: t.Queue,
	}
	if r.Problem != "" {
		l.Result = t.Result
	}
	j.line(l)
}

// Note implements [Display].
func (j *JSON) Note(text string) { j.line(Line{Type: "note", Text: text}) }

// End implements [Display].
func (j *JSON) End(s Summary) error {
	j.line(Line{Type: "summary", Summary: &s})
	return j.w.err
}

// line writes a line. When nobody reads it any more the run is told by the
// signal for that; any other error is told in the end.
func (j *JSON) line(l Line) {
	l.Time = time.Now()
	_ = j.e.Encode(l)
}
