package display

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/bgagent/bgagent"
	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/require"
)

func row(n int, status bgagent.Status, began time.Time) Row {
	t := bgagent.Task{Description: "task", Agent: "a", Status: status}
	if status != bgagent.Pending {
		t.Started = began
	}
	if status.Terminal() {
		t.Ended = time.Now()
	}
	return Row{Number: n, Task: t}
}

func TestLinesTellEachStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l, begin := NewLines(&out), time.Now()
		waiting := row(1, bgagent.Pending, begin)
		l.Show(waiting) // launched
		waiting.Task.Queue = &bgagent.QueuePlace{Place: 2, Pool: bgagent.PoolStats{Name: "provider x", Limit: 3, InUse: 3}}
		l.Show(waiting)
		l.Show(waiting)
		time.Sleep(1500 * time.Millisecond)
		l.Show(row(1, bgagent.Running, begin))
		l.Show(row(1, bgagent.Running, begin))
		failed := row(1, bgagent.Failed, begin)
		failed.Task.Reason = "it\nbroke \x1b[2J"
		l.Show(failed)
		_ = l.End(Summary{Failed: 1, Seconds: 1.5, Folder: "out", Unwritten: 1})
		require.Equal(t, `[   0.00s]   1  pending    a: task: waits for a slot of provider x (3 of 3 in use), number 2 in line
[   1.50s]   1  running    a: task
[   1.50s]   1  error      a: task (1.5 s, 0 tool calls): it broke
[   1.50s]      0 completed, 1 failed in 1.5 s; results in out (1 could not be written)
`, out.String())
	})
}

func TestAResultWithoutAFileIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := row(1, bgagent.Completed, time.Now())
		r.Task.Result, r.Problem, r.Task.Progress.ToolCalls = "first\x1b[2J\n  second\n", "disk full", 1
		var lines, objects bytes.Buffer
		NewLines(&lines).Show(r)
		require.Equal(t, "[   0.00s]   1  completed  a: task (0.0 s, 1 tool call): (not written: disk full)\n     | first\n     |   second\n", lines.String())
		NewJSON(&objects).Show(r)
		require.Contains(t, objects.String(), `"problem":"disk full","result":"first\u001b[2J\n  second\n"`)
		m := newModel(1)
		m.show(r)
		require.Contains(t, picture(m)[0], "    1 call  (not written: disk full)")
	})
}

// broken is an output that takes so many writes.
type broken int

func (b *broken) Write(p []byte) (int, error) {
	if *b--; *b < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestTheEndTellsThatSomethingCouldNotBeShown(t *testing.T) {
	for _, show := range []func(io.Writer) Display{
		func(w io.Writer) Display { return NewLines(w) },
		func(w io.Writer) Display { return NewJSON(w) },
	} {
		for writes, fails := range []bool{true, true, true, false} {
			left := broken(writes)
			d := show(&left)
			d.Show(row(1, bgagent.Running, time.Now()))
			d.Note("a note")
			err := d.End(Summary{})
			require.Equal(t, fails, err != nil, "after %d writes", writes)
			if fails {
				require.EqualError(t, err, "writing the output: short write")
			}
		}
	}
}

// picture is what the table shows, without colours.
func picture(m *model) []string {
	return strings.Split(strings.TrimSuffix(ansi.Strip(m.View().Content), "\n"), "\n")
}

func TestTheTableNeverExceedsItsTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		m := newModel(100)
		for n := 1; n <= 100; n++ {
			status := bgagent.Completed
			switch {
			case n == 50:
				status = bgagent.Running
			case n == 60:
				status = bgagent.Failed
			case n > 90:
				status = bgagent.Pending
			}
			r := row(n, status, begin)
			r.Task.Description = strings.Repeat("数", 60)
			r.Task.Progress.LastMessage = strings.Repeat("long ", 40)
			m.show(r)
		}
		m.note("a note\x1b[2J")
		for _, size := range [][2]int{{80, 24}, {40, 8}, {20, 4}} {
			m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
			lines := picture(m)
			require.Less(t, len(lines), size[1]+1)
			for _, l := range lines {
				require.LessOrEqual(t, ansi.StringWidth(l), size[0])
			}
			require.Contains(t, strings.Join(lines, "\n"), spinner[0], "what runs is always shown")
		}
		m.Update(tea.WindowSizeMsg{Width: 120, Height: 6})
		require.Contains(t, picture(m)[3], "1 running · 10 waiting · 88 completed · 1 not · 0 s · 97 more than this window has lines for")
		require.Contains(t, picture(m)[1], "error", "what has failed comes next")
	})
}

func TestWhatAgentsSayCannotMoveTheCursor(t *testing.T) {
	r := row(1, bgagent.Running, time.Now())
	r.Task.Progress.LastMessage = "a\x1b[2Jb\r\n\u202ec\u0007"
	require.Equal(t, "ab c", about(r))
}

func TestATableThatCannotBeShownDoesNotHang(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	table := NewTable(f, 1)
	table.Show(row(1, bgagent.Running, time.Now()))
	require.ErrorContains(t, table.End(Summary{}), "writing the output: ")
}
