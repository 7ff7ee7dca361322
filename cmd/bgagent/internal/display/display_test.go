package display

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
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

func TestLinesShowEachStateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l, begin := NewLines(&out), time.Now()
		waiting := row(1, bgagent.Pending, begin)
		l.Show(waiting) // prints the launch
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
		require.Contains(t, picture(m)[0], "1 task   0.0s  (not written: disk full)")
	})
}

// broken is an output that accepts the given number of writes and then fails.
type broken int

func (b *broken) Write(p []byte) (int, error) {
	if *b--; *b < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestEndReportsThatSomethingCouldNotBeShown(t *testing.T) {
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

// picture returns the lines of the table without colours.
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
			require.Contains(t, strings.Join(lines, "\n"), spinner[0], "running tasks are always shown")
		}
		m.Update(tea.WindowSizeMsg{Width: 120, Height: 6})
		require.Contains(t, picture(m)[3], "0.0s · 1 running · 10 waiting · 88 completed · 1 failed · 97 not shown")
		require.Contains(t, picture(m)[1], "✗", "failed tasks come next")
	})
}

func TestWhatAgentsSayCannotMoveTheCursor(t *testing.T) {
	r := row(1, bgagent.Running, time.Now())
	r.Task.Progress.LastMessage = "a\x1b[2Jb\r\n\u202ec\u0007"
	require.Equal(t, "ab c", about(r, true))
}

func TestATableThatCannotBeShownDoesNotHang(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	table := NewTable(f, 1)
	table.Show(row(1, bgagent.Running, time.Now()))
	require.ErrorContains(t, table.End(Summary{}), "writing the output: ")
}

// scene returns a table with tasks in all states.
func scene(n int) *model {
	m, begin := newModel(n), time.Now()
	for i := 1; i <= n; i++ {
		status := []bgagent.Status{bgagent.Running, bgagent.Failed, bgagent.Completed, bgagent.Pending, bgagent.Cancelled}[i%5]
		r := row(i, status, begin)
		r.Task.Description = "a title that takes more columns than it can have here"
		r.Task.Progress = bgagent.Progress{ToolCalls: i, LastMessage: "reading the third of the files", LastActivity: begin, Usage: bgagent.Usage{InputTokens: 1000, OutputTokens: 10, Cost: 0.01}}
		r.Task.Reason = "agent.sh: it exited with code 3: no such key in the file that it reads"
		if status == bgagent.Pending {
			r.Task.Queue = &bgagent.QueuePlace{Place: i, Pool: bgagent.PoolStats{Name: "all", Limit: 2, InUse: 2}}
		}
		m.show(r)
	}
	return m
}

func TestTheColumnThatMattersHasRoomAtEveryWidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, n := range []int{10, 50} {
			m := scene(n)
			for width, want := range map[int]string{
				130: "exit 3: no such key in the file that it reads",
				80:  "exit 3: no such key in the file",
				60:  "exit 3: no such key in",
				40:  "exit 3: no su",
			} {
				m.Update(tea.WindowSizeMsg{Width: width, Height: 60})
				lines := picture(m)
				require.Len(t, lines, n+1)
				for _, l := range lines {
					require.LessOrEqual(t, ansi.StringWidth(l), width)
				}
				require.Contains(t, lines[0], want, "%d columns", width)
				require.Equal(t, width >= wide, strings.Contains(lines[0], "1 call"), "calls only if there is room")
				require.Contains(t, lines[2], "number 3 in"[:9], "%d columns", width)
			}
			m.Update(tea.WindowSizeMsg{Width: 130, Height: 60})
			k := n / 5
			require.Contains(t, picture(m)[n], fmt.Sprintf("%d running · %d waiting · %d completed · %d failed · %d cancelled · ", k, k, k, k, k))
			require.Contains(t, picture(m)[n], " tokens in, "+strconv.Itoa(n*10)+" out, $0."+strconv.Itoa(n))
		}
	})
}

func TestAQuietTaskIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := scene(5)
		m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
		require.NotContains(t, picture(m)[4], "quiet")
		time.Sleep(75 * time.Second)
		require.Contains(t, picture(m)[4], " 1m15s  quiet for 1m15s; reading the th")
	})
}

// The function "away" returns a task whose server has been unreachable since the given time.
func away(began time.Time) Row {
	r := row(1, bgagent.Running, began)
	r.Task.Outage = &bgagent.Outage{Since: began, Until: began.Add(5 * time.Minute), Reason: "no answer:\n\x1b[2Jconnection refused"}
	return r
}

func TestATaskOutOfReachSaysWhyAndForHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines, objects bytes.Buffer
		begin := time.Now()
		l, j, m := NewLines(&lines), NewJSON(&objects), newModel(1)
		m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
		show := func(r Row) {
			for _, d := range []interface{ Show(Row) }{l, j} {
				d.Show(r)
				d.Show(r)
			}
			m.show(r)
		}
		show(row(1, bgagent.Running, begin))
		time.Sleep(time.Second)
		show(away(begin))
		time.Sleep(74 * time.Second)
		require.Contains(t, picture(m)[0], "1 task  1m15s  out of reach 1m15s of 5m00s; no answer: connection refused", "even if the task is quiet")
		require.Equal(t, "  a is out of reach: no answer: connection refused", picture(m)[2], "with all the columns")
		l.Tick()
		never := away(begin)
		never.Task.Outage.Until = time.Time{}
		m.show(never)
		require.Contains(t, picture(m)[0], "out of reach 1m15s; no answer")
		show(row(1, bgagent.Running, begin))
		require.NotContains(t, strings.Join(picture(m), ""), "out of reach")
		require.Equal(t, `[   0.00s]   1  running    a: task
[   1.00s]   1  running    a: task: out of reach 1.0s of 5m00s: no answer: connection refused
[  75.00s]      1 running: 1 (task) for 1m15s, out of reach 1m15s of 5m00s
[  75.00s]   1  running    a: task: reached again
`, lines.String())
		require.Equal(t, 3, strings.Count(objects.String(), `"type":"task"`))
		require.Equal(t, 1, strings.Count(objects.String(), `"outage":{"since":`))
		show(away(begin))
		failed := row(1, bgagent.Failed, begin)
		failed.Task.Reason = "it was away"
		lines.Reset()
		l.Show(failed)
		require.Contains(t, lines.String(), "error      a: task (75.0 s, 0 tool calls): it was away")
	})
}

func TestTheWholeReasonOfABadEndIsBelowTheTable(t *testing.T) {
	r := row(7, bgagent.Failed, time.Now())
	r.Log = "007-task.log"
	r.Task.Ended = r.Task.Started.Add(95 * time.Second)
	r.Task.Reason = strings.TrimSpace(strings.Repeat("word ", 60))
	text := ansi.Strip(badEnd(&r, "out", 40))
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	require.Equal(t, "✗ 7  task (a, after 1m35s)", lines[0])
	require.Equal(t, "    out/007-task.log", lines[len(lines)-1])
	require.Equal(t, 60, strings.Count(text, "word"))
	for _, l := range lines {
		require.LessOrEqual(t, ansi.StringWidth(l), 40)
	}
}

func TestAPipeGetsALineEveryHalfMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines, objects bytes.Buffer
		for _, d := range []Display{NewLines(&lines), NewJSON(&objects)} {
			d.Tick()
			r := row(1, bgagent.Running, time.Now())
			d.Show(r)
			waits := row(2, bgagent.Pending, time.Now())
			waits.Task.Queue = &bgagent.QueuePlace{}
			d.Show(waits)
			for range 124 {
				time.Sleep(500 * time.Millisecond)
				d.Tick()
			}
			d.Show(row(1, bgagent.Completed, time.Now()))
			before := lines.Len() + objects.Len()
			time.Sleep(time.Hour)
			d.Tick()
			require.Equal(t, before, lines.Len()+objects.Len(), "nothing runs")
		}
		require.Contains(t, lines.String(), "[  30.00s]      1 running: 1 (task) for 30s, quiet for 30s; 1 waiting\n")
		require.Equal(t, 2, strings.Count(lines.String(), "1 running"))
		require.Equal(t, 2, strings.Count(objects.String(), `"type":"alive"`))
	})
}

func TestWhyARunWasStoppedIsSaidOnce(t *testing.T) {
	for _, noted := range []bool{false, true} {
		var out bytes.Buffer
		l := NewLines(&out)
		if noted {
			l.Note("stopped after 1s")
		}
		require.NoError(t, l.End(Summary{Stopped: "stopped after 1s"}))
		require.Equal(t, 1, strings.Count(out.String(), "stopped after 1s"))
	}
}

func TestTheSummarySaysWhatWasSpent(t *testing.T) {
	s := Summary{Completed: 1, Failed: 2, Cancelled: 3, Seconds: 1, Folder: "out", Input: 1_234_567, Output: 23_456, Cost: 1.5}
	require.Equal(t, "1 completed, 2 failed, 3 cancelled in 1.0 s; 1.2M tokens in, 23k out, $1.50; results in out", s.String())
	for d, want := range map[time.Duration]string{0: "0.0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 90 * time.Minute: "1h30m"} {
		require.Equal(t, want, span(d))
	}
}
