// Package display shows the tasks of a run: as a table that is redrawn in place, as
// plain lines, or as lines of JSON.
package display

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// Row is one task to show.
type Row struct {
	Number int // number of the task in the list, from 1
	Task   bgagent.Task
	File   string // file with the result; empty until it is written
	Log    string // file with the program's output; empty until it is written, or if the program printed nothing
	Cut    bool   // File holds only the beginning of the answer
	Bytes  int64  // if Cut is set: length of the whole answer; 0 if unknown

	// Stale is how long a task can be silent before it is cancelled; 0 means no limit.
	Stale time.Duration

	// Problem is the reason why the result could not be written. In that case, Task.Result holds
	// the result, so that it can be shown and is not lost.
	Problem string
}

// Summary is the outcome of a run.
type Summary struct {
	Completed   int     `json:"completed"`
	Failed      int     `json:"failed"`
	Cancelled   int     `json:"cancelled"`
	Seconds     float64 `json:"seconds"`
	Folder      string  `json:"folder"`
	Unwritten   int     `json:"unwritten,omitempty"` // number of results that could not be written
	Cut         int     `json:"cut,omitempty"`       // number of files that hold only the beginning of an answer
	Input       int64   `json:"input_tokens,omitempty"`
	Output      int64   `json:"output_tokens,omitempty"`
	Cost        float64 `json:"cost,omitempty"` // US dollars
	Interrupted bool    `json:"interrupted,omitempty"`
	Stopped     string  `json:"stopped,omitempty"` // why --fail-fast or --max-time stopped the run
}

// String returns the summary as one line.
func (s Summary) String() string {
	parts := []string{fmt.Sprintf("%d completed", s.Completed)}
	for _, p := range []struct {
		n    int
		what string
	}{{s.Failed, "failed"}, {s.Cancelled, "cancelled"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	line := fmt.Sprintf("%s in %.1f s; ", strings.Join(parts, ", "), s.Seconds)
	if used := spent(s.Input, s.Output, s.Cost); used != "" {
		line += used + "; "
	}
	line += "results in " + s.Folder
	if s.Unwritten > 0 {
		line += fmt.Sprintf(" (%d could not be written)", s.Unwritten)
	}
	if s.Cut > 0 {
		line += fmt.Sprintf(" (%s only the beginning of an answer)", holds(s.Cut))
	}
	return line
}

// The function "spent" describes the tokens and costs that the agents reported. If they did not report any,
// it returns "".
func spent(input, output int64, cost float64) string {
	var parts []string
	if input+output > 0 {
		parts = append(parts, fmt.Sprintf("%s tokens in, %s out", thousands(input), thousands(output)))
	}
	if cost > 0 {
		parts = append(parts, fmt.Sprintf("$%.2f", cost))
	}
	return strings.Join(parts, ", ")
}

// The function "thousands" formats a number of tokens.
func thousands(n int64) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 10_000:
		return fmt.Sprintf("%.0fk", float64(n)/1e3)
	}
	return strconv.FormatInt(n, 10)
}

// The function "span" formats a duration in a few characters.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// The function "holds" returns the words "1 file holds", or "N files hold" for other numbers.
func holds(files int) string {
	if files == 1 {
		return "1 file holds"
	}
	return fmt.Sprintf("%d files hold", files)
}

// Display shows the tasks of one run. Its methods must not be called concurrently.
type Display interface {
	// Show shows the current state of a task.
	Show(r Row)
	// Note shows a line about the run.
	Note(text string)
	// Tick is called about twice a second, to update durations.
	Tick()
	// End shows the outcome of the run. No method may be called after End. End returns the first error that
	// occurred while the output was written.
	End(s Summary) error
}

// The function "unwritten" returns the result of a task whose file could not be written. The result is in a
// form that is safe for a terminal. Every line is indented, so that it cannot be mistaken for a line of this
// program.
func unwritten(r Row) string {
	if r.Problem == "" || strings.TrimSpace(r.Task.Result) == "" {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(cleantext.String(r.Task.Result))) {
		b.WriteString("     | " + printable(line) + "\n")
	}
	return b.String()
}

// The function "printable" returns the line without the characters that could move the cursor. It keeps
// spaces and tabs.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return -1
		}
		return r
	}, line)
}

// watched is a writer that keeps its first error.
type watched struct {
	w   io.Writer
	err error
}

// Write implements io.Writer.
func (w *watched) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("writing the output: %w", err)
	}
	return n, err
}

// The function "count" formats a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// The function "clean" turns an agent's text into one line for a terminal. It removes escape sequences and
// control characters, which could move the cursor.
func clean(s string) string {
	return strings.Join(strings.FieldsFunc(cleantext.String(s), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
	}), " ")
}

// The function "about" describes in a few words what the task is doing, what it is waiting for, or how it
// ended. If short is true, it uses fewer words.
func about(r Row, short bool) string {
	line := doing(r, short)
	if r.Problem != "" {
		line = strings.TrimSpace(line + " (not written: " + clean(r.Problem) + ")")
	}
	if r.Cut {
		line = strings.TrimSpace(line + " (" + cutOf(r.Bytes) + ")")
	}
	return line
}

// cutOf describes a file that holds only the beginning of an answer.
func cutOf(bytes int64) string {
	if bytes == 0 {
		return "only the beginning of the answer"
	}
	return fmt.Sprintf("only the beginning of an answer of %d bytes", bytes)
}

func doing(r Row, short bool) string {
	t := r.Task
	switch t.Status {
	case bgagent.Pending:
		if t.Queue == nil {
			return "waits"
		}
		if pool := t.Queue.Pool; short && t.Queue.Place > 0 {
			return fmt.Sprintf("number %d in line for %s (%d of %d)", t.Queue.Place, pool.Name, pool.InUse, pool.Limit)
		}
		line := fmt.Sprintf("waits for a slot of %s (%d of %d in use)", t.Queue.Pool.Name, t.Queue.Pool.InUse, t.Queue.Pool.Limit)
		if t.Queue.Place > 0 {
			line += fmt.Sprintf(", number %d in line", t.Queue.Place)
		}
		return line
	case bgagent.Running:
		if t.Outage != nil {
			return clean(t.Outage.Reason)
		}
		// In this case, the task waits for an answer, or for a slot after the answer.
		if t.Phase == bgagent.PhaseParked && strings.HasPrefix(t.Reason, "waits for ") {
			return clean(t.Reason)
		}
		if t.Phase == bgagent.PhaseParked {
			line := "waits for the provider"
			if !t.Until.IsZero() {
				line += " until " + t.Until.Local().Format("15:04:05")
			}
			return line
		}
		for _, s := range []string{t.Progress.Detail, t.Progress.LastMessage, t.Progress.LastTool} {
			if s = clean(s); s != "" {
				return s
			}
		}
		return t.Phase.String()
	case bgagent.Completed:
		return r.File
	}
	if reason := clean(t.Reason); reason != "" {
		if short {
			return shortReason(reason)
		}
		return reason
	}
	return t.Cause.String()
}

// The pattern "exited" matches the beginning of a reason that says that a program exited with an
// error.
var exited = regexp.MustCompile(`^it exited with code (\d+): `)

// shortReason shortens a reason for the table. It drops the program's name, which the task's title
// makes unnecessary, and shortens the words about the exit code.
func shortReason(reason string) string {
	if program, rest, ok := strings.Cut(reason, ": "); ok && !strings.ContainsRune(program, ' ') {
		reason = rest
	}
	return exited.ReplaceAllString(reason, "exit $1: ")
}
