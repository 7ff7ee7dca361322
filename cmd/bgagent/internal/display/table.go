package display

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/bgagent/bgagent"
	"github.com/charmbracelet/x/ansi"
)

// Table is a display for terminals: a table of the tasks, redrawn in place.
type Table struct {
	out     *os.File
	program *tea.Program
	done    chan struct{}
	err     error // of the program, once done is closed
}

// NewTable starts the table of that many tasks. It takes no input and no
// signals, so that Ctrl-C stays what it is.
func NewTable(out *os.File, tasks int) *Table {
	m := &model{rows: make([]Row, tasks), start: time.Now()}
	t := &Table{out: out, done: make(chan struct{})}
	t.program = tea.NewProgram(m, tea.WithOutput(out), tea.WithInput(nil), tea.WithoutSignalHandler())
	go func() {
		defer close(t.done)
		_, t.err = t.program.Run()
	}()
	return t
}

// Show implements [Display].
func (t *Table) Show(r Row) { t.program.Send(r) }

// Note implements [Display].
func (t *Table) Note(text string) { t.program.Send(noteMsg(text)) }

// End implements [Display]. The last picture stays on the screen.
func (t *Table) End(s Summary) {
	t.program.Send(endMsg{})
	<-t.done
	if t.err != nil {
		fmt.Fprintf(t.out, "(the table of tasks cannot be shown: %v)\n", t.err)
	}
	fmt.Fprintf(t.out, "\n%s\n", s)
}

// ShowCursor is for a program that ends without the end of its table.
func ShowCursor(w io.Writer) { _, _ = io.WriteString(w, ansi.ShowCursor+"\n") }

type (
	noteMsg string
	tickMsg time.Time
	endMsg  struct{}
)

// model is the picture.
type model struct {
	rows          []Row
	notes         []string
	start         time.Time
	width, height int // of the terminal; 0 while they are unknown
	frame         int
}

// Init implements [tea.Model].
func (m *model) Init() tea.Cmd { return tick() }

// tick asks for the next picture: durations grow, what runs turns.
func tick() tea.Cmd {
	return tea.Tick(100*time.Millisecond, func(now time.Time) tea.Msg { return tickMsg(now) })
}

// Update implements [tea.Model].
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case Row:
		if i := msg.Number - 1; i >= 0 && i < len(m.rows) {
			m.rows[i] = msg
		}
	case noteMsg:
		m.notes = append(m.notes, string(msg))
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
	now := time.Now()
	notes := m.notes[max(0, len(m.notes)-3):]
	var b strings.Builder
	rows := m.visible(len(notes))
	for _, r := range rows {
		b.WriteString(m.fit(m.row(r, now)))
	}
	b.WriteString(m.fit(faint("  " + m.counts(len(rows), now))))
	for _, n := range notes {
		b.WriteString(m.fit("  " + clean(n)))
	}
	// The last line is empty: it is the one that is erased in the end.
	return tea.NewView(b.String())
}

func (m *model) fit(line string) string {
	if m.width > 0 {
		line = ansi.Truncate(line, m.width, "…")
	}
	return line + "\n"
}

// rank says who is left out last when there are more tasks than lines: those
// that run, then those that ended badly, then the next in line.
func rank(s bgagent.Status) int {
	return map[bgagent.Status]int{bgagent.Running: 0, bgagent.Failed: 1, bgagent.Cancelled: 1, bgagent.Pending: 2, bgagent.Completed: 3}[s]
}

// visible returns the tasks that the terminal has lines for, in their order.
func (m *model) visible(notes int) []Row {
	rows := make([]Row, 0, len(m.rows))
	for _, r := range m.rows {
		if r.Number > 0 { // it has been launched
			rows = append(rows, r)
		}
	}
	most := m.height - 2 - notes
	if m.height == 0 || len(rows) <= most {
		return rows
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return rank(a.Task.Status) - rank(b.Task.Status) })
	rows = rows[:max(most, 1)]
	slices.SortFunc(rows, func(a, b Row) int { return a.Number - b.Number })
	return rows
}

// counts is the line below the tasks.
func (m *model) counts(shown int, now time.Time) string {
	n := map[bgagent.Status]int{}
	launched := 0
	for _, r := range m.rows {
		if r.Number > 0 {
			n[r.Task.Status]++
			launched++
		}
	}
	line := fmt.Sprintf("%d running · %d waiting · %d completed", n[bgagent.Running], n[bgagent.Pending], n[bgagent.Completed])
	if bad := n[bgagent.Failed] + n[bgagent.Cancelled]; bad > 0 {
		line += fmt.Sprintf(" · %d not", bad)
	}
	line += fmt.Sprintf(" · %.0f s", now.Sub(m.start).Seconds())
	if hidden := launched - shown; hidden > 0 {
		line += fmt.Sprintf(" · %d more than this window has lines for", hidden)
	}
	return line
}

// spinner turns at tasks that run.
var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// titleWidth is how many columns a title has.
const titleWidth = 36

func (m *model) row(r Row, now time.Time) string {
	t := r.Task
	mark := faint("·")
	switch t.Status {
	case bgagent.Running:
		mark = cyan(spinner[m.frame%len(spinner)])
	case bgagent.Completed:
		mark = green("✓")
	case bgagent.Failed:
		mark = red("✗")
	case bgagent.Cancelled:
		mark = yellow("–")
	}
	took := ""
	if !t.Started.IsZero() {
		took = fmt.Sprintf("%.1fs", t.Duration(now).Seconds())
	}
	title := ansi.Truncate(clean(t.Description), titleWidth, "…")
	title += strings.Repeat(" ", max(0, titleWidth-ansi.StringWidth(title)))
	return fmt.Sprintf("%s %s %-9s %7s %4d calls  %s", mark, title, t.Status, took, t.Progress.ToolCalls, faint(about(r)))
}

func faint(s string) string  { return "\x1b[2m" + s + "\x1b[m" }
func red(s string) string    { return "\x1b[31m" + s + "\x1b[m" }
func green(s string) string  { return "\x1b[32m" + s + "\x1b[m" }
func yellow(s string) string { return "\x1b[33m" + s + "\x1b[m" }
func cyan(s string) string   { return "\x1b[36m" + s + "\x1b[m" }
