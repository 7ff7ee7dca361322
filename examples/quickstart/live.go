package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/bgagent/bgagent"
	"github.com/charmbracelet/x/ansi"
)

// screen is a display for terminals. It redraws a table of the shown tasks in place, and
// prints other text after the table.
type screen struct {
	out   *os.File
	brief bool // whether a table is erased when its tasks have ended

	mu      sync.Mutex
	program *tea.Program // nil unless tasks are shown
	later   []string     // output to be printed after the table
}

func newScreen(out *os.File, brief bool) *screen { return &screen{out: out, brief: brief} }

func (d *screen) print(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.program != nil {
		d.later = append(d.later, text)
		return
	}
	fmt.Fprintln(d.out, strings.TrimRight(text, "\n")+"\n")
}

// The method "watch" shows the tasks as a table. The table does not handle input or signals, so
// that Ctrl-C still interrupts the program.
func (d *screen) watch(tasks []bgagent.Task) func() {
	t := &table{brief: d.brief}
	for _, task := range tasks {
		t.put(task)
	}
	p := tea.NewProgram(t, tea.WithOutput(d.out), tea.WithInput(nil), tea.WithoutSignalHandler())
	done := make(chan struct{})
	go func() {
		defer close(done)
		// An error from the table is only printed, because the results do not depend on the table.
		if _, err := p.Run(); err != nil {
			d.print(fmt.Sprintf("(the table of tasks cannot be shown: %v)", err))
		}
	}()
	d.mu.Lock()
	d.program = p
	d.mu.Unlock()
	return func() {
		p.Send(endMsg{})
		<-done
		d.mu.Lock()
		later := d.later
		d.program, d.later = nil, nil
		d.mu.Unlock()
		if !d.brief {
			fmt.Fprintln(d.out)
		}
		for _, text := range later {
			d.print(text)
		}
	}
}

func (d *screen) task(t bgagent.Task) { d.send(taskMsg(t)) }

func (d *screen) told(n bgagent.Notice) { d.send(toldMsg(endsOf(n))) }

func (d *screen) send(m tea.Msg) {
	d.mu.Lock()
	p := d.program
	d.mu.Unlock()
	if p != nil {
		p.Send(m)
	}
}

type (
	taskMsg bgagent.Task
	toldMsg string
	tickMsg time.Time
	endMsg  struct{}
)

// table is a [tea.Model] that shows the tasks as a table.
type table struct {
	tasks []bgagent.Task // in launch order
	told  []string       // one line for each delivered notice
	width int            // width of the terminal; 0 while it is unknown
	frame int            // number of the current frame of the spinner
	brief bool           // whether the table becomes empty when the tasks have ended
	ended bool
}

func (t *table) put(task bgagent.Task) {
	for i := range t.tasks {
		if t.tasks[i].ID == task.ID {
			if !stateOf(task).before(stateOf(t.tasks[i])) {
				t.tasks[i] = task
			}
			return
		}
	}
	t.tasks = append(t.tasks, task)
}

// Init implements [tea.Model].
func (t *table) Init() tea.Cmd { return tick() }

// The function "tick" schedules the next redraw, which updates the durations and the spinner.
func tick() tea.Cmd {
	return tea.Tick(100*time.Millisecond, func(now time.Time) tea.Msg { return tickMsg(now) })
}

// Update implements [tea.Model].
func (t *table) Update(m tea.Msg) (tea.Model, tea.Cmd) {
	switch m := m.(type) {
	case tea.WindowSizeMsg:
		t.width = m.Width
	case taskMsg:
		t.put(bgagent.Task(m))
	case toldMsg:
		t.told = append(t.told, string(m))
	case tickMsg:
		t.frame++
		return t, tick()
	case endMsg:
		t.ended = true
		return t, tea.Quit
	}
	return t, nil
}

// View implements [tea.Model].
func (t *table) View() tea.View {
	var b strings.Builder
	if t.brief && t.ended {
		return tea.NewView("")
	}
	now := time.Now()
	for _, task := range t.tasks {
		b.WriteString(t.fit(t.row(task, now)))
	}
	for _, told := range t.told {
		b.WriteString(t.fit(faint("  told: " + told)))
	}
	// The text ends with an empty line, because the last line is erased when the program ends.
	return tea.NewView(b.String())
}

func (t *table) fit(line string) string {
	if t.width > 0 {
		line = ansi.Truncate(line, t.width, "…")
	}
	return line + "\n"
}

// spinner holds the frames of the mark next to running tasks.
var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

func (t *table) row(task bgagent.Task, now time.Time) string {
	mark, about := faint("·"), ""
	switch task.Status {
	case bgagent.Pending:
		if q := task.Queue; q != nil {
			about = fmt.Sprintf("%s: %d of %d in use", q.Pool.Name, q.Pool.InUse, q.Pool.Limit)
			if q.Place > 0 {
				about = fmt.Sprintf("number %d in line, %s", q.Place, about)
			}
		}
	case bgagent.Running:
		mark, about = cyan(spinner[t.frame%len(spinner)]), task.Progress.LastTool
		if about == "" {
			about = task.Phase.String()
		}
	case bgagent.Completed:
		mark = green("✓")
		about = fmt.Sprintf("%d tool calls", task.Progress.ToolCalls)
	case bgagent.Failed:
		mark, about = red("✗"), task.Reason
	case bgagent.Cancelled:
		mark, about = yellow("–"), task.Cause.String()
	}
	took := ""
	if !task.Started.IsZero() {
		took = fmt.Sprintf("%.1fs", task.Duration(now).Seconds())
	}
	return fmt.Sprintf("%s %-50s %-9s %6s  %s", mark, ansi.Truncate(task.Description, 50, "…"), task.Status, took, faint(about))
}

func faint(s string) string  { return "\x1b[2m" + s + "\x1b[m" }
func red(s string) string    { return "\x1b[31m" + s + "\x1b[m" }
func green(s string) string  { return "\x1b[32m" + s + "\x1b[m" }
func yellow(s string) string { return "\x1b[33m" + s + "\x1b[m" }
func cyan(s string) string   { return "\x1b[36m" + s + "\x1b[m" }
