package display

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/bgagent/bgagent"
)

// Lines shows one line for every state of a task. It is for files, pipes and
// simple terminals.
type Lines struct {
	w     io.Writer
	start time.Time
	last  map[int]bgagent.Status
}

// NewLines returns a display of plain lines.
func NewLines(w io.Writer) *Lines {
	return &Lines{w: w, start: time.Now(), last: map[int]bgagent.Status{}}
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
		line += fmt.Sprintf(" (%.1f s, %s): %s", r.Task.Duration(time.Now()).Seconds(), calls(r.Task), about(r))
	case r.Task.Status != bgagent.Running:
		line += ": " + about(r)
	}
	l.line(line)
}

func calls(t bgagent.Task) string {
	if t.Progress.ToolCalls == 1 {
		return "1 tool call"
	}
	return fmt.Sprintf("%d tool calls", t.Progress.ToolCalls)
}

// Note implements [Display].
func (l *Lines) Note(text string) { l.line("     " + text) }

// End implements [Display].
func (l *Lines) End(s Summary) { l.line("     " + s.String()) }

func (l *Lines) line(text string) {
	fmt.Fprintf(l.w, "[%7.2fs] %s\n", time.Since(l.start).Seconds(), text)
}

// JSON shows one object a line: a task whenever its state or its number of tool
// calls changes, notes, and the summary.
type JSON struct {
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
	Text        string              `json:"text,omitempty"`
	Summary     *Summary            `json:"summary,omitempty"`
	Queue       *bgagent.QueuePlace `json:"queue,omitempty"`
}

// NewJSON returns a display of lines of JSON.
func NewJSON(w io.Writer) *JSON { return &JSON{json.NewEncoder(w), map[int]jsonState{}} }

// Show implements [Display].
func (j *JSON) Show(r Row) {
	t := r.Task
	now := jsonState{t.Status, t.Progress.ToolCalls, r.File}
	if was, shown := j.last[r.Number]; shown && was == now {
		return
	}
	j.last[r.Number] = now
	j.line(Line{
		Type: "task", Number: r.Number, ID: t.ID, Agent: t.Agent, Description: t.Description,
		Status: t.Status.String(), Cause: t.Cause.String(), Reason: t.Reason, ToolCalls: t.Progress.ToolCalls,
		LastTool: t.Progress.LastTool, LastMessage: t.Progress.LastMessage,
		Seconds: t.Duration(time.Now()).Round(time.Millisecond).Seconds(), File: r.File, Queue: t.Queue,
	})
}

// Note implements [Display].
func (j *JSON) Note(text string) { j.line(Line{Type: "note", Text: text}) }

// End implements [Display].
func (j *JSON) End(s Summary) { j.line(Line{Type: "summary", Summary: &s}) }

// line writes a line. When nobody reads it any more the run is told by the
// signal for that.
func (j *JSON) line(l Line) {
	l.Time = time.Now()
	_ = j.e.Encode(l)
}
