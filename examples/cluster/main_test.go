package main

import (
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

var kills = flag.Int("kills", 1, "number of workers that TestNoKillExceedsALimitOrLosesATask kills, and of servers")

// TestMain calls the function "main" if the test binary was started by the function "start". The binary is
// then a server or a worker.
func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestNoKillExceedsALimitOrLosesATask(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for leases")
	}
	var b strings.Builder
	err := run(t.Context(), &b, plan{tasks: 200, kills: *kills})
	t.Log(b.String())
	require.NoError(t, err)
	require.Equal(t, *kills, strings.Count(b.String(), "Worker "))
	require.Equal(t, *kills, strings.Count(b.String(), "Server n"))
	require.Regexp(t, regexp.QuoteMeta(`  The pool "five" had at most 5 bodies at the same time; its limit is 5.
  The pool "three" had at most 3 bodies at the same time; its limit is 3.
  The pool "two" had at most 2 bodies at the same time; its limit is 2.
`), b.String(), "all slots were used")
	require.Regexp(t, `
  200 tasks were accepted. The record has 200 ends: \d+ completed, \d+ lost their slots.
(  \d+ ended just before a kill, .*
)?  12 parents were notified of 200 ends.
No limit was exceeded, no task was lost, each ended once, and each end was reported under one id.
$`, b.String())
}

// The function "said" splits the output of a process into lines.
func said(life *process, text string) (log []line) {
	for s := range strings.Lines(text) {
		log = append(log, line{life, strings.Fields(s)})
	}
	return log
}

func TestTheJudgeFindsWhatIsWrong(t *testing.T) {
	dead := &process{killed: time.Unix(0, 50)}
	good := func() ([]line, []record) {
		return append(said(dead, `accepted a parent
				accepted b parent
				begin task-1 two 10
				begin task-2 two 20
				end task-2 two 30
				told b parent told-b
				begin task-3 three 40`), said(&process{}, `accepted c parent
				begin task-1 two 51
				begin task-3 two 52
				end task-1 two 60
				end task-3 two 62
				told a parent told-a
				told b parent told-b
				told c parent told-c`)...),
			[]record{
				{bgagent.Task{ID: "a", Description: "task-1", Status: bgagent.Completed, Attempt: 1}, answer("task-1")},
				{bgagent.Task{ID: "b", Description: "task-2", Status: bgagent.Failed, Cause: bgagent.CauseSlotLost, Attempt: 1}, ""},
				{bgagent.Task{ID: "c", Description: "task-3", Status: bgagent.Completed, Attempt: 1}, answer("task-3")},
			}
	}
	log, records := good()
	require.NoError(t, judge(io.Discard, log, records))
	for _, c := range []struct {
		name, problem string
		spoil         func(log []line, records []record) ([]line, []record)
	}{
		{"a third body", `the limit of the pool "two" was exceeded`, func(l []line, r []record) ([]line, []record) {
			return append(l, said(&process{}, "begin x two 55\nend x two 56")...), r
		}},
		{"a body that begins before a process is dead", `the limit of the pool "two" was exceeded`, func(l []line, r []record) ([]line, []record) {
			return append(l, said(&process{}, "begin y two 49\nend y two 56\nbegin z two 49\nend z two 50")...), r
		}},
		{"a body that never ends", "the body of x has never ended", func(l []line, r []record) ([]line, []record) {
			return append(l, said(&process{}, "begin x two 80")...), r
		}},
		{"a lost task", "the record contains the task d 0 times", func(l []line, r []record) ([]line, []record) {
			return append(l, said(dead, "accepted d parent\ntold d parent told-d")...), r
		}},
		{"an unknown task", "3 tasks were accepted, and 4 are in the record", func(l []line, r []record) ([]line, []record) {
			x := r[0]
			x.task.ID = "x"
			return l, append(r, x)
		}},
		{"a task that is twice in the record", "the record contains the task a 2 times", func(l []line, r []record) ([]line, []record) {
			return l, append(r, r[0])
		}},
		{"a task that has ended twice", "the task a has ended 2 times", func(l []line, r []record) ([]line, []record) {
			r[0].task.Attempt = 2
			return l, r
		}},
		{"a task that has not ended", "the task a is running", func(l []line, r []record) ([]line, []record) {
			r[0].task.Status = bgagent.Running
			return l, r
		}},
		{"a wrong result", "the task a is completed", func(l []line, r []record) ([]line, []record) {
			r[0].result = "x"
			return l, r
		}},
		{"an end that is told under two ids", "the end of the task a was reported under 2 ids", func(l []line, r []record) ([]line, []record) {
			return append(l, said(dead, "told a parent told-again")...), r
		}},
		{"an end that is not told", "the end of the task b was reported under 0 ids", func(l []line, r []record) ([]line, []record) {
			for i, x := range l {
				if x.words[0] == "told" && x.words[1] == "b" {
					l[i].words = []string{"allocator", "false"}
				}
			}
			return l, r
		}},
		{"a wrong parent", "other was notified of the task a of parent", func(l []line, r []record) ([]line, []record) {
			return append(l, said(dead, "told a other told-a")...), r
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, records := c.spoil(good())
			require.ErrorContains(t, judge(io.Discard, log, records), c.problem)
		})
	}
}
