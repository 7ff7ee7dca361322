package display

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/bgagent/bgagent"
	"github.com/charmbracelet/x/ansi"
)

// Table is a display for terminals: a table of the tasks, redrawn in place ten
// times a second. What is shown between two pictures costs no more than to be
// kept.
type Table struct {
	out     *os.File
	model   *model
	program *tea.Program
	done    chan struct{}
	err     error // of the program, once done is closed
}

// NewTable starts the table of that many tasks. It takes no input and no
// signals, so that Ctrl-C stays what it is.
func NewTable(out *os.File, tasks int) *Table {
	t := &Table{out: out, model: newModel(tasks), done: make(chan struct{})}
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

// End implements [Display]. The last picture stays on the screen.
func (t *Table) End(s Summary) error {
	t.program.Send(endMsg{})
	<-t.done
	out := &watched{w: t.out}
	if t.err != nil {
		fmt.Fprintf(out, "(the table of tasks cannot be shown: %v)\n", t.err)
	}
	for _, r := range t.model.rows {
		if text := unwritten(r); text != "" {
			fmt.Fprintf(out, "\n%d  %s: %s\n%s", r.Number, clean(r.Task.Description), about(r), text)
		}
	}
	fmt.Fprintf(out, "\n%s\n", s)
	return out.err
}

// ShowCursor is for a program that ends without the end of its table.
func ShowCursor(w io.Writer) { _, _ = io.WriteString(w, ansi.ShowCursor+"\n") }

type (
	tickMsg time.Time
	endMsg  struct{}
)

// model is the picture. The program draws it after every message, so tasks do
// not come as messages: with thousands of them it would do nothing else.
type model struct {
	start time.Time

	mu    sync.Mutex // guards what follows; no picture is written while it is held
	rows  []Row      // by number; without one until it has been shown
	count map[bgagent.Status]int
	notes []string

	width, height int // of the terminal; 0 while they are unknown
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

// tick asks for the next picture: durations grow, what runs turns.
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
	notes := m.notes[max(0, len(m.notes)-3):]
	var b strings.Builder
	shown := m.visibleLocked(len(notes))
	for _, i := range shown {
		b.WriteString(m.fitLocked(m.rowLocked(&m.rows[i], now)))
	}
	b.WriteString(m.fitLocked(faint("  " + m.countsLocked(len(shown), now))))
	for _, n := range notes {
		b.WriteString(m.fitLocked("  " + clean(n)))
	}
	// The last line is empty: it is the one that is erased in the end.
	return tea.NewView(b.String())
}

func (m *model) fitLocked(line string) string {
	if m.width > 0 {
		line = ansi.Truncate(line, m.width, "…")
	}
	return line + "\n"
}

// rank says who is left out last when there are more tasks than lines: those
// that run, then those that ended badly, then the next in line.
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

// visibleLocked returns which tasks the terminal has lines for, in their order.
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

// countsLocked is the line below the tasks.
func (m *model) countsLocked(shown int, now time.Time) string {
	line := fmt.Sprintf("%d running · %d waiting · %d completed", m.count[bgagent.Running], m.count[bgagent.Pending], m.count[bgagent.Completed])
	if bad := m.count[bgagent.Failed] + m.count[bgagent.Cancelled]; bad > 0 {
		line += fmt.Sprintf(" · %d not", bad)
	}
	line += fmt.Sprintf(" · %.0f s", now.Sub(m.start).Seconds())
	all := 0
	for _, n := range m.count {
		all += n
	}
	if hidden := all - shown; hidden > 0 {
		line += fmt.Sprintf(" · %d more than this window has lines for", hidden)
	}
	return line
}

// spinner turns at tasks that run.
var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// titleWidth is how many columns a title has.
const titleWidth = 36

func (m *model) rowLocked(r *Row, now time.Time) string {
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
	return fmt.Sprintf("%s %s %-9s %7s %10s  %s", mark, title, t.Status, took, count(t.Progress.ToolCalls, "call"), faint(about(*r)))
}

func faint(s string) string  { return "\x1b[2m" + s + "\x1b[m" }
func red(s string) string    { return "\x1b[31m" + s + "\x1b[m" }
func green(s string) string  { return "\x1b[32m" + s + "\x1b[m" }
func yellow(s string) string { return "\x1b[33m" + s + "\x1b[m" }
func cyan(s string) string   { return "\x1b[36m" + s + "\x1b[m" }
