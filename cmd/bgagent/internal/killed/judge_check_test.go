//go:build linux

package killed

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/kills"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/stretchr/testify/require"
)

const judgedID, judgedName = "bg_1", "task 10003" // the model runs a command, so the task needs two requests

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// The function "at" returns a time some seconds after the beginning.
func at(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }

func asked(from, to int) request {
	return request{task: judgedName, from: at(from), to: at(to), prompts: 1}
}

func judgedLine(what string, life, seconds int) kills.Line {
	return kills.Line{What: what, Life: life, At: at(seconds), Task: judgedID, Name: judgedName, Item: "item", Attempt: 1, Status: bgagent.Completed, Cause: bgagent.CauseTurnEnded}
}

// The function "right" returns faultless evidence about a task. The process of the task was killed once.
func right() evidence {
	first := asked(1, 5)
	first.fresh = true
	return evidence{
		lines: []kills.Line{judgedLine(kills.Accepted, 1, 0), judgedLine(kills.Ended, 2, 50), judgedLine(kills.Told, 2, 50), {What: kills.Closed, Life: 2}},
		found: kills.Found{
			Tasks:   map[string]bgagent.Task{judgedID: {ID: judgedID, Description: judgedName, Agent: "agent", Status: bgagent.Completed, Cause: bgagent.CauseTurnEnded, Attempt: 1}},
			Results: map[string]string{judgedID: answer(judgedName)},
		},
		requests: []request{first, asked(30, 40)},
		kills:    []time.Time{at(20)},
	}
}

// The method "end" changes the evidence: the task ends with the given status and cause.
func (e *evidence) end(status bgagent.Status, cause bgagent.Cause) {
	task := e.found.Tasks[judgedID]
	task.Status, task.Cause = status, cause
	e.found.Tasks[judgedID] = task
	for i := range e.lines {
		e.lines[i].Status, e.lines[i].Cause = status, cause
	}
}

// The method "cancelled" adds lines about a cancellation, before the line that reports the end of the task.
func (e *evidence) cancelled(seconds int) {
	e.end(bgagent.Cancelled, bgagent.CauseCaller)
	e.lines = slices.Insert(e.lines, 1, judgedLine(kills.Cancelling, 1, seconds), judgedLine(kills.Cancelled, 1, seconds))
}

func TestTheJudgeFindsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(e *evidence)
		want   string // expected verdict of the judge; empty if nothing is wrong
	}{
		{"nothing", func(*evidence) {}, ""},
		{"a task is lost", func(e *evidence) { delete(e.found.Tasks, judgedID) }, "was accepted and is lost"},
		{"a task has not ended", func(e *evidence) { e.end(bgagent.Running, bgagent.CauseNone) }, "is running"},
		{"a task ends twice", func(e *evidence) { e.lines = slices.Insert(e.lines, 1, e.lines[1]) }, "ended twice"},
		{"a result has changed", func(e *evidence) { e.found.Results[judgedID] += " " }, "has the result"},
		{"nobody was told", func(e *evidence) { e.lines = slices.Delete(e.lines, 2, 3) }, "was not told"},
		{"told again", func(e *evidence) { e.lines = slices.Insert(e.lines, 2, e.lines[2]) }, ""},
		{"told under another id", func(e *evidence) {
			e.lines = slices.Insert(e.lines, 2, e.lines[2])
			e.lines[2].Item = "another"
		}, "told under the ids"},
		{"told something else", func(e *evidence) { e.lines[2].Status = bgagent.Failed }, "was shown as error"},
		{"the last process hangs", func(e *evidence) { e.lines = e.lines[:3] }, "did not close its manager"},
		{"a killed process writes", func(e *evidence) { e.lines[2].Life = 1 }, "after the end of the process"},
		{"interrupted too early", func(e *evidence) { e.end(bgagent.Failed, bgagent.CauseInterrupted) }, "is error (interrupted)"},
		{"interrupted, and the client does not know", func(e *evidence) {
			e.end(bgagent.Failed, bgagent.CauseInterrupted)
			e.unclear = true
		}, ""},
		{"interrupted after four kills", func(e *evidence) {
			e.end(bgagent.Failed, bgagent.CauseInterrupted)
			for i := range e.lines[1:] {
				e.lines[i+1].Life = 5
			}
		}, ""},
		{"cancelled", func(e *evidence) {
			e.cancelled(6)
			e.requests = e.requests[:1]
		}, ""},
		{"cancelled, but nobody asked", func(e *evidence) { e.end(bgagent.Cancelled, bgagent.CauseCaller) }, "is cancelled"},
		{"a cancelled task comes back", func(e *evidence) {
			e.cancelled(6)
			e.requests[1] = asked(60, 61)
		}, "after the end of the task"},
		{"a cancelled task was completed", func(e *evidence) {
			e.lines = slices.Insert(e.lines, 1, judgedLine(kills.Cancelling, 1, 6), judgedLine(kills.Cancelled, 1, 6))
		}, "was cancelled and is completed"},
		{"a session has the prompt twice", func(e *evidence) { e.requests[1].prompts = 2 }, "has the prompt 2 times"},
		{"work after the end", func(e *evidence) { e.requests = append(e.requests, asked(51, 52)) }, "after the end of the task"},
		{"two programs at once", func(e *evidence) { e.requests[1] = asked(4, 40) }, "worked on it at once"},
		{"a killed program is noticed late", func(e *evidence) {
			e.requests[0].to, e.requests[0].left = at(24), true
			e.requests[1] = asked(21, 40)
		}, ""},
		{"a program was left running", func(e *evidence) {
			e.requests[0].to, e.requests[0].left = at(39), true
			e.requests[1] = asked(21, 40)
		}, "worked on it at once"},
		{"more requests because of a kill", func(e *evidence) { e.requests = append(e.requests, asked(41, 42), asked(43, 44)) }, ""},
		{"a request after a kill, of a program that was left", func(e *evidence) {
			e.kills = append(e.kills, at(0).Add(time.Millisecond))
			e.requests = append(e.requests, asked(41, 42), asked(43, 44), asked(45, 46), asked(47, 48))
		}, ""},
		{"too many requests", func(e *evidence) { e.requests = append(e.requests, asked(41, 42), asked(43, 44), asked(45, 46)) }, "was asked 5 times"},
		{"too few requests", func(e *evidence) { e.requests = e.requests[:1] }, "was asked 1 times"},
		{"more requests, although the turn went on", func(e *evidence) {
			e.requests, e.intact = append(e.requests, asked(41, 42)), true
		}, "was asked 3 times"},
		{"a stranger's request", func(e *evidence) { e.requests = append(e.requests, request{task: "task 7", from: at(1), to: at(2)}) }, "asked for task 7"},
		{"too many tasks at once", func(e *evidence) {
			for n := range limit {
				e.requests = append(e.requests, request{task: fmt.Sprint("task ", n), from: at(2), to: at(3)})
			}
		}, "5 tasks had requests at the same time"},
		{"a process is left", func(e *evidence) { e.left = []string{"7 codex"} }, "left alive: 7 codex"},
	} {
		e := right()
		c.change(&e)
		wrong, _ := judge(e)
		if c.want == "" {
			require.Empty(t, wrong, c.name)
		} else {
			require.Contains(t, strings.Join(wrong, "\n"), c.want, c.name)
		}
	}
}

func TestTheJudgeCountsRequests(t *testing.T) {
	e := right()
	again := asked(41, 42)
	again.fresh = true
	e.requests = append(e.requests, again)
	wrong, figures := judge(e)
	require.Empty(t, wrong)
	require.Equal(t, kills.Figures{Tasks: 1, Completed: 1, Made: 3, Needed: 2, Repeated: 1, Told: 1}, figures)
}

func TestARequestShowsWhatItsConversationContains(t *testing.T) {
	first := modelserver.Message{Role: modelserver.User, Text: "system\n\n" + prompt("s0", judgedName)}
	text := modelserver.Message{Role: modelserver.Assistant, Text: "the beginning"}
	goOn := modelserver.Message{Role: modelserver.User, Text: "The request was:\n\n" + prompt("s0", judgedName)}
	for _, c := range []struct {
		messages []modelserver.Message
		prompts  int
		fresh    bool
	}{
		{[]modelserver.Message{first}, 1, true},
		{[]modelserver.Message{first, text, first}, 2, false},
		{[]modelserver.Message{first, goOn}, 1, false},
		{[]modelserver.Message{goOn}, 0, false},
	} {
		r := seen("s0", modelserver.Request{Key: key("s0", judgedName), Messages: c.messages, Arrived: at(1), Ended: at(2), Done: true, Left: true})
		require.Equal(t, request{task: judgedName, from: at(1), to: at(2), left: true, prompts: c.prompts, fresh: c.fresh}, r)
	}
}
