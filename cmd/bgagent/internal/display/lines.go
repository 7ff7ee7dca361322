package display

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
)

// Lines prints a line for each new state of a task. It is for files, pipes and simple
// terminals.
type Lines struct {
	w     *watched
	start time.Time
	last  map[int]bgagent.Status
	away  map[int]bool // tasks whose agents cannot be reached
	runs  map[int]Row  // running tasks
	said  time.Time    // when the last line was printed
	noted string       // the last note
}

// NewLines returns a display of plain lines.
func NewLines(w io.Writer) *Lines {
	return &Lines{w: &watched{w: w}, start: time.Now(), last: map[int]bgagent.Status{}, away: map[int]bool{}, runs: map[int]Row{}, said: time.Now()}
}

// Show implements [Display].
func (l *Lines) Show(r Row) {
	if delete(l.runs, r.Number); r.Task.Status == bgagent.Running {
		l.runs[r.Number] = r
	}
	was, shown := l.last[r.Number]
	away := r.Task.Outage != nil
	wasAway := l.away[r.Number]
	if shown && was == r.Task.Status && away == wasAway || r.Task.Status == bgagent.Pending && r.Task.Queue == nil {
		return // nothing has changed, or the task has not been launched yet
	}
	l.last[r.Number], l.away[r.Number] = r.Task.Status, away
	line := fmt.Sprintf("%3d  %-9s  %s: %s", r.Number, r.Task.Status, r.Task.Agent, clean(r.Task.Description))
	switch {
	case r.Task.Status.Terminal() && !r.Task.Started.IsZero():
		line += fmt.Sprintf(" (%.1f s, %s): %s", r.Task.Duration(time.Now()).Seconds(), count(r.Task.Progress.ToolCalls, "tool call"), about(r, false))
	case away:
		line += ": " + troubleOf(r, time.Now()) + ": " + about(r, false)
	case wasAway:
		line += ": reached again"
	case r.Task.Status != bgagent.Running:
		line += ": " + about(r, false)
	}
	l.line(line)
	if text := unwritten(r); text != "" {
		_, _ = io.WriteString(l.w, text) // the writer remembers the error
	}
}

// Note implements [Display].
func (l *Lines) Note(text string) {
	l.noted = text
	l.line("     " + clean(text))
}

// End implements [Display].
func (l *Lines) End(s Summary) error {
	if s.Stopped != "" && s.Stopped != l.noted {
		l.line("     " + clean(s.Stopped))
	}
	l.line("     " + s.String())
	return l.w.err
}

// aliveTime is the time without output after which a line names the running tasks.
const aliveTime = 30 * time.Second

// Tick implements [Display].
func (l *Lines) Tick() {
	if now := time.Now(); now.Sub(l.said) >= aliveTime && len(l.runs) > 0 {
		l.line("     " + stillRuns(l.runs, l.waiting(), now))
	}
}

// The method "waiting" returns the number of waiting tasks.
func (l *Lines) waiting() (n int) {
	for _, s := range l.last {
		if s == bgagent.Pending {
			n++
		}
	}
	return n
}

// mostNamed is the maximum number of tasks that stillRuns names.
const mostNamed = 5

// stillRuns describes the running tasks: how long each of them has been running, and how long it has been
// silent or out of reach.
func stillRuns(runs map[int]Row, waiting int, now time.Time) string {
	var parts []string
	for i, n := range slices.Sorted(maps.Keys(runs)) {
		if i == mostNamed {
			parts = append(parts, "…")
			break
		}
		r := runs[n]
		t := r.Task
		part := fmt.Sprintf("%d (%s) for %s", n, clean(t.Description), span(t.Duration(now)))
		if trouble := troubleOf(r, now); trouble != "" {
			part += ", " + trouble
		}
		parts = append(parts, part)
	}
	line := fmt.Sprintf("%d running: %s", len(runs), strings.Join(parts, "; "))
	if waiting > 0 {
		line += fmt.Sprintf("; %d waiting", waiting)
	}
	return line
}

func (l *Lines) line(text string) {
	l.said = time.Now()
	fmt.Fprintf(l.w, "[%7.2fs] %s\n", time.Since(l.start).Seconds(), text)
}

// JSON prints one object per line: notes, the summary, and changes to tasks. A task is printed when its
// state, its number of tool calls or its file has changed, and when an outage of its agent begins or ends.
type JSON struct {
	w    *watched
	e    *json.Encoder
	last map[int]jsonState
	runs map[int]Row // running tasks
	said time.Time   // when the last line was printed
}

type jsonState struct {
	status bgagent.Status
	calls  int
	file   string
	away   bool
}

// Line is one line of the JSON display. Type is "task", "note", "alive" or "summary",
// and decides which fields are set.
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
	Log         string              `json:"log,omitempty"`     // the file with its program's output
	Cut         bool                `json:"cut,omitempty"`     // the file holds only the beginning of the answer
	Bytes       int64               `json:"bytes,omitempty"`   // if Cut is set: length of the whole answer, if known
	Problem     string              `json:"problem,omitempty"` // why there is no file
	Result      string              `json:"result,omitempty"`  // if Problem is set: the result that could not be written
	Text        string              `json:"text,omitempty"`
	Summary     *Summary            `json:"summary,omitempty"`
	Queue       *bgagent.QueuePlace `json:"queue,omitempty"`
	Outage      *bgagent.Outage     `json:"outage,omitempty"` // since when and why its agent is out of reach
}

// NewJSON returns a display of lines of JSON.
func NewJSON(w io.Writer) *JSON {
	out := &watched{w: w}
	return &JSON{out, json.NewEncoder(out), map[int]jsonState{}, map[int]Row{}, time.Now()}
}

// Show implements [Display].
func (j *JSON) Show(r Row) {
	t := r.Task
	if delete(j.runs, r.Number); t.Status == bgagent.Running {
		j.runs[r.Number] = r
	}
	now := jsonState{t.Status, t.Progress.ToolCalls, r.File, t.Outage != nil}
	if was, shown := j.last[r.Number]; shown && was == now {
		return
	}
	j.last[r.Number] = now
	l := Line{
		Type: "task", Number: r.Number, ID: t.ID, Agent: t.Agent, Description: t.Description,
		Status: t.Status.String(), Cause: t.Cause.String(), Reason: t.Reason, ToolCalls: t.Progress.ToolCalls,
		LastTool: t.Progress.LastTool, LastMessage: t.Progress.LastMessage,
		Seconds: results.Seconds(t.Duration(time.Now())), File: r.File, Log: r.Log, Cut: r.Cut, Bytes: r.Bytes, Problem: r.Problem, Queue: t.Queue, Outage: t.Outage,
	}
	if r.Problem != "" {
		l.Result = t.Result
	}
	j.line(l)
}

// Tick implements [Display].
func (j *JSON) Tick() {
	if now := time.Now(); now.Sub(j.said) >= aliveTime && len(j.runs) > 0 {
		j.line(Line{Type: "alive", Text: stillRuns(j.runs, 0, now)})
	}
}

// Note implements [Display].
func (j *JSON) Note(text string) { j.line(Line{Type: "note", Text: text}) }

// End implements [Display].
func (j *JSON) End(s Summary) error {
	j.line(Line{Type: "summary", Summary: &s})
	return j.w.err
}

// line writes a line. Errors are reported by End, because the encoder writes to a
// watched writer.
func (j *JSON) line(l Line) {
	l.Time = time.Now()
	j.said = l.Time
	_ = j.e.Encode(l)
}
