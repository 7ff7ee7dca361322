package display

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tty"
	"github.com/charmbracelet/x/ansi"
)

// Table is a display for terminals: a table of the tasks, redrawn in place ten times a second. Its
// methods only store changes, and the next redraw shows them. Keys typed while the table is shown
// are discarded and not echoed.
type Table struct {
	out     *os.File
	keys    *tty.Terminal
	model   *model
	program *tea.Program
	done    chan struct{}
	err     error // the tea program's error; set before the channel "done" is closed
}

// NewTable starts a table for the given number of tasks. The table does not handle input or
// signals, so Ctrl-C works as usual.
func NewTable(out *os.File, tasks int) *Table {
	t := &Table{out: out, keys: tty.Silence(out), model: newModel(tasks), done: make(chan struct{})}
	t.program = tea.NewProgram(t.model, tea.WithOutput(out), tea.WithInput(nil), tea.WithoutSignalHandler())
	go func() {
		defer close(t.done)
		_, t.err = t.program.Run()
	}()
	return t
}

// Show implements [Display].
func (t *Table) Show(r Row) { t.model.show(r) }

// Note implements [Display].
func (t *Table) Note(text string) { t.model.note(text) }

// Tick implements [Display]. The table redraws itself.
func (t *Table) Tick() {}

// Abandon restores the terminal. Call it if this program ends without [Table.End].
func (t *Table) Abandon() {
	t.keys.Restore()
	ShowCursor(os.Stderr)
}

// End implements [Display]. The table stays on the screen. Below it, End shows the
// tasks that ended badly, with their whole reasons, and the results that could not be
// written.
func (t *Table) End(s Summary) error {
	t.program.Send(endMsg{})
	<-t.done
	t.keys.Restore()
	out := &watched{w: t.out}
	if t.err != nil {
		fmt.Fprintf(out, "(the table of tasks cannot be shown: %v)\n", t.err)
	}
	for i := range t.model.rows {
		if r := &t.model.rows[i]; r.Task.Status == bgagent.Failed || r.Task.Status == bgagent.Cancelled && !s.Interrupted && s.Stopped == "" {
			_, _ = io.WriteString(out, "\n"+badEnd(r, s.Folder, t.model.width))
		}
	}
	for _, r := range t.model.rows {
		if text := unwritten(r); text != "" {
			fmt.Fprintf(out, "\n%d  %s: %s\n%s", r.Number, clean(r.Task.Description), about(r, false), text)
		}
	}
	fmt.Fprintf(out, "\n%s\n", s)
	return out.err
}

// badEnd describes a task that ended badly, with its whole reason, in lines that fit
// into the width.
func badEnd(r *Row, folder string, width int) string {
	mark := red("✗")
	if r.Task.Status == bgagent.Cancelled {
		mark = yellow("–")
	}
	took := ""
	if !r.Task.Started.IsZero() {
		took = ", after " + span(r.Task.Ended.Sub(r.Task.Started))
	}
	text := fmt.Sprintf("%s %d  %s (%s%s)\n", mark, r.Number, clean(r.Task.Description), r.Task.Agent, took)
	for _, line := range wrapped(doing(*r, false), max(width-4, 20)) {
		text += "    " + line + "\n"
	}
	if r.Log != "" {
		text += "    " + faint(clean(filepath.Join(folder, r.Log))) + "\n"
	}
	return text
}

// The function "wrapped" splits a text into lines of at most the given number of columns.
func wrapped(text string, width int) []string {
	return strings.Split(ansi.Wrap(text, width, ""), "\n")
}

// ShowCursor shows the cursor again and switches off bracketed paste. Call it if the program ends while its
// table is shown.
func ShowCursor(w io.Writer) {
	_, _ = io.WriteString(w, ansi.ShowCursor+ansi.ResetModeBracketedPaste+"\n")
}

type (
	tickMsg time.Time
	endMsg  struct{}
)

// model is the content of the table. The tea program draws it after every message. Changes to tasks
// are stored in the model instead of being sent as messages. Otherwise, with thousands of tasks, the
// program would draw all the time.
type model struct {
	start time.Time

	mu    sync.Mutex // guards the fields below; not held while the table is written
	rows  []Row      // by number; Row.Number is 0 until the row is first shown
	count map[bgagent.Status]int
	notes []string

	width, height int // size of the terminal; 0 while unknown
	frame         int
}

func newModel(tasks int) *model {
	return &model{start: time.Now(), rows: make([]Row, tasks), count: map[bgagent.Status]int{}}
}

func (m *model) show(r Row) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := &m.rows[r.Number-1]
	if old.Number > 0 {
		m.count[old.Task.Status]--
	}
	*old = r
	m.count[r.Task.Status]++
}

func (m *model) note(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, text)
}

// Init implements [tea.Model].
func (m *model) Init() tea.Cmd { return tick() }

// tick schedules the next redraw, which updates durations and spinners.
func tick() tea.Cmd {
	return tea.Tick(100*time.Millisecond, func(now time.Time) tea.Msg { return tickMsg(now) })
}

// Update implements [tea.Model].
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tickMsg:
		m.frame++
		return m, tick()
	case endMsg:
		return m, tea.Quit
	}
	return m, nil
}

// View implements [tea.Model].
func (m *model) View() tea.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	notes := append(m.outagesLocked(), m.notes[max(0, len(m.notes)-3):]...)
	var b strings.Builder
	shown := m.visibleLocked(len(notes))
	l := m.layoutLocked(shown)
	for _, i := range shown {
		b.WriteString(m.fitLocked(m.rowLocked(&m.rows[i], l, now)))
	}
	b.WriteString(m.fitLocked(faint("  " + m.countsLocked(len(shown), now))))
	for _, n := range notes {
		b.WriteString(m.fitLocked("  " + clean(n)))
	}
	// The last line is left empty, because the tea program erases the last line when
	// it quits.
	return tea.NewView(b.String())
}

// mostOutages is the maximum number of outages that are shown below the tasks, and outageLines is the maximum
// number of lines for each outage.
const (
	mostOutages = 2
	outageLines = 3
)

// outagesLocked returns lines with the errors of the agents that are out of reach, each error once. They are
// shown below the tasks, because the tasks' own lines are too narrow for them.
func (m *model) outagesLocked() (lines []string) {
	var seen []string
	for i := range m.rows {
		t := &m.rows[i].Task
		if t.Outage == nil || slices.Contains(seen, t.Outage.Reason) || len(seen) == mostOutages {
			continue
		}
		seen = append(seen, t.Outage.Reason)
		text := wrapped(clean(t.Agent+" is out of reach: "+t.Outage.Reason), max(m.width-2, 20))
		lines = append(lines, text[:min(len(text), outageLines)]...)
	}
	return lines
}

func (m *model) fitLocked(line string) string {
	if m.width > 0 {
		line = ansi.Truncate(line, m.width, "…")
	}
	return line + "\n"
}

// The function "rank" orders the tasks that compete for a terminal's lines: running tasks first, then tasks
// that ended badly, then waiting tasks.
func rank(s bgagent.Status) int {
	switch s {
	case bgagent.Running:
		return 0
	case bgagent.Failed, bgagent.Cancelled:
		return 1
	case bgagent.Pending:
		return 2
	}
	return 3
}

// visibleLocked returns the indexes of the tasks to show, in the order of the list. If the terminal
// has too few lines for all tasks, the function "rank" decides which tasks to show.
func (m *model) visibleLocked(notes int) []int {
	shown := make([]int, 0, len(m.rows))
	for i := range m.rows {
		if m.rows[i].Number > 0 {
			shown = append(shown, i)
		}
	}
	most := m.height - 2 - notes
	if m.height == 0 || len(shown) <= most {
		return shown
	}
	slices.SortStableFunc(shown, func(a, b int) int { return rank(m.rows[a].Task.Status) - rank(m.rows[b].Task.Status) })
	shown = shown[:max(most, 1)]
	slices.Sort(shown)
	return shown
}

// countsLocked returns the line below the tasks: the time, the number of tasks by
// status, and the costs.
func (m *model) countsLocked(shown int, now time.Time) string {
	parts := []string{span(now.Sub(m.start))}
	for _, p := range []struct {
		status bgagent.Status
		what   string
	}{{bgagent.Running, "running"}, {bgagent.Pending, "waiting"}, {bgagent.Completed, "completed"}, {bgagent.Failed, "failed"}, {bgagent.Cancelled, "cancelled"}} {
		if n := m.count[p.status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.what))
		}
	}
	all := 0
	for _, n := range m.count {
		all += n
	}
	if hidden := all - shown; hidden > 0 {
		parts = append(parts, fmt.Sprintf("%d not shown", hidden))
	}
	var used bgagent.Usage
	for i := range m.rows {
		u := m.rows[i].Task.Progress.Usage
		used.InputTokens, used.OutputTokens, used.Cost = used.InputTokens+u.InputTokens, used.OutputTokens+u.OutputTokens, used.Cost+u.Cost
	}
	line := strings.Join(parts, " · ")
	text := spent(used.InputTokens, used.OutputTokens, used.Cost)
	if text == "" {
		return line
	}
	if whole := line + " · " + text; m.width == 0 || ansi.StringWidth(whole)+2 <= m.width {
		return whole
	}
	return line + " · " + spentShort(used)
}

// spentShort is like the function "spent", but returns a shorter text that begins with the cost.
func spentShort(used bgagent.Usage) string {
	tokens := thousands(used.InputTokens) + "+" + thousands(used.OutputTokens) + " tokens"
	if used.Cost > 0 {
		return fmt.Sprintf("$%.2f, %s", used.Cost, tokens)
	}
	return tokens
}

// spinner holds the frames of the animated mark for a running task.
var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

const (
	// maxTitle is the maximum width of a title, in columns. The title column also takes at most a third of
	// the terminal, and is no wider than the longest title.
	maxTitle = 36

	// The constant "wide" is the minimum width of a terminal, in columns, at which the number of
	// tool calls is shown.
	wide = 100

	// quietTime is how long a task must be silent to be shown as quiet. If a task's silence is limited, this
	// time is at most that limit divided by quietPart.
	quietTime = 20 * time.Second
	quietPart = 9
)

// layout holds the widths of the parts of a row.
type layout struct {
	number, title, calls int // in columns; 0 if the part is not shown
}

// layoutLocked computes the layout for the given tasks. A part that no task needs gets no columns.
func (m *model) layoutLocked(shown []int) (l layout) {
	width := m.width
	if width == 0 {
		width = 80
	}
	if width >= 60 {
		l.number = len(strconv.Itoa(len(m.rows)))
	}
	for _, i := range shown {
		t := &m.rows[i].Task
		l.title = max(l.title, ansi.StringWidth(clean(t.Description)))
		if n := t.Progress.ToolCalls; n > 0 && width >= wide {
			l.calls = max(l.calls, len(count(n, "call"))+1)
		}
	}
	l.title = min(l.title, maxTitle, width/3)
	return l
}

func (m *model) rowLocked(r *Row, l layout, now time.Time) string {
	t := r.Task
	mark, text := faint("·"), faint(about(*r, true))
	switch t.Status {
	case bgagent.Running:
		mark = cyan(spinner[m.frame%len(spinner)])
		if trouble := troubleOf(*r, now); trouble != "" {
			if text = yellow(trouble); about(*r, true) != t.Phase.String() {
				text += faint("; " + about(*r, true))
			}
		}
	case bgagent.Completed:
		mark = green("✓")
	case bgagent.Failed:
		mark, text = red("✗"), about(*r, true)
	case bgagent.Cancelled:
		mark, text = yellow("–"), about(*r, true)
	}
	took, calls, number := "", "", ""
	if !t.Started.IsZero() {
		took = span(t.Duration(now))
	}
	if l.calls > 0 {
		if t.Progress.ToolCalls > 0 {
			calls = count(t.Progress.ToolCalls, "call")
		}
		calls = fmt.Sprintf(" %*s", l.calls, calls)
	}
	if l.number > 0 {
		number = fmt.Sprintf("%*d ", l.number, r.Number)
	}
	title := ansi.Truncate(clean(t.Description), l.title, "…")
	title += strings.Repeat(" ", max(0, l.title-ansi.StringWidth(title)))
	return fmt.Sprintf("%s %s%s %6s%s  %s", mark, number, title, took, calls, text)
}

// troubleOf describes how long a running task has been out of reach or quiet. If the task is
// neither, it returns "".
func troubleOf(r Row, now time.Time) string {
	t := r.Task
	if o := t.Outage; o != nil {
		text := "out of reach " + span(now.Sub(o.Since))
		if !o.Until.IsZero() {
			text += " of " + span(o.Until.Sub(o.Since))
		}
		return text
	}
	quiet := quietFor(r, now)
	if quiet == 0 {
		return ""
	}
	return "quiet for " + span(quiet)
}

// quietFor returns how long a running task has been silent, or 0 if the silence is too short to be shown.
func quietFor(r Row, now time.Time) time.Duration {
	t := r.Task
	last := t.Progress.LastActivity
	if t.Started.After(last) {
		last = t.Started
	}
	long := quietTime
	if r.Stale > 0 {
		long = min(long, r.Stale/quietPart)
	}
	if quiet := now.Sub(last); !last.IsZero() && quiet >= long {
		return quiet
	}
	return 0
}

func faint(s string) string  { return "\x1b[2m" + s + "\x1b[m" }
func red(s string) string    { return "\x1b[31m" + s + "\x1b[m" }
func green(s string) string  { return "\x1b[32m" + s + "\x1b[m" }
func yellow(s string) string { return "\x1b[33m" + s + "\x1b[m" }
func cyan(s string) string   { return "\x1b[36m" + s + "\x1b[m" }
