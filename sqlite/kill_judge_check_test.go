package sqlite

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/kills"
)

const judgedID, judgedName = "bg_1", "task 10001"

func judgedTask() bgagent.Task {
	return bgagent.Task{
		ID: judgedID, Description: judgedName, Agent: "once", Status: bgagent.Completed, Cause: bgagent.CauseTurnEnded, Attempt: 1,
	}
}

func judgedTurn(what string, life int, prompt, text string) kills.Line {
	return kills.Line{What: what, Life: life, Task: judgedID, Name: judgedName, Prompt: prompt, Text: text}
}

func judgedLine(what string, life int) kills.Line {
	return kills.Line{What: what, Life: life, Task: judgedID, Name: judgedName, Attempt: 1, Status: bgagent.Completed, Cause: bgagent.CauseTurnEnded}
}

func TestTheJudgeOfKilledProcessesFindsWhatIsWrongInTheLog(t *testing.T) {
	line, turn, name := judgedLine, judgedTurn, judgedName
	begin, end := turn(kills.Begin, 2, "p1", killPrompt(name)), turn(kills.End, 2, "p1", killAnswer(name))
	told, again := line(kills.Told, 2), line(kills.Told, 3)
	told.Item, again.Item = "item", "item"
	closed := kills.Line{What: kills.Closed, Life: 3}
	right := []kills.Line{line(kills.Accepted, 1), begin, end, line(kills.Ended, 2), told, again, closed}
	otherItem, cancelled, text := again, told, begin
	otherItem.Item, cancelled.Status, text.Text = "item 2", bgagent.Cancelled, "Go on."
	many := slices.Clone(right[:1])
	for n := range killLimit + 1 {
		x := begin
		x.Task = fmt.Sprint("bg_", n)
		many = append(many, x)
	}
	lost := begin
	lost.Task = "bg_lost"
	for want, lines := range map[string][]kills.Line{
		"":                                right,
		"the last process did not close":  right[:6],
		"was not told":                    {right[0], begin, end, right[3], closed},
		"told under the ids":              {right[0], begin, end, right[3], told, otherItem, closed},
		"ended twice":                     {right[0], begin, end, right[3], right[3], told, closed},
		"was shown as cancelled":          {right[0], begin, end, cancelled, told, closed},
		"runs after its end was shown":    {right[0], begin, end, told, begin, end, closed},
		"runs twice at once":              {right[0], begin, begin, end, told, closed},
		"got the prompt p1 again":         {right[0], begin, end, begin, end, told, closed},
		"the text of prompt p1 has":       {right[0], begin, end, text, end, told, closed},
		"the original text again":         {right[0], begin, end, turn(kills.Begin, 2, "p2", killPrompt(name)), end, told, closed},
		"never got the original text":     {right[0], text, end, told, closed},
		"a result that no turn gave":      {right[0], begin, turn(kills.End, 2, "p1", "another"), told, closed},
		"was cancelled and is completed":  {right[0], begin, end, told, line(kills.Cancelled, 2), closed},
		"the manager does not know it":    {right[0], begin, end, told, line(kills.Unknown, 2), closed},
		"a turn still runs":               {right[0], begin, end, told, turn(kills.Begin, 3, "p1", killPrompt(name)), closed},
		"comes after the end of the proc": {right[0], begin, end, told, line(kills.Ended, 1), closed},
		"9 turns run":                     many,
		"which the store does not have":   {right[0], lost, begin, end, told, closed},
		"was accepted and is lost":        {right[0], begin, end, told, {What: kills.Accepted, Life: 2, Task: "bg_lost"}, closed},
	} {
		found := kills.Found{Tasks: map[string]bgagent.Task{judgedID: judgedTask()}, Results: map[string]string{judgedID: killAnswer(name)}}
		checkJudgement(t, lines, found, want)
	}
}

func TestTheJudgeOfKilledProcessesFindsWhatIsWrongInTheStore(t *testing.T) {
	begin, end := judgedTurn(kills.Begin, 2, "p1", killPrompt(judgedName)), judgedTurn(kills.End, 2, "p1", killAnswer(judgedName))
	told := judgedLine(kills.Told, 2)
	told.Item = "item"
	lines := []kills.Line{judgedLine(kills.Accepted, 1), begin, end, told, {What: kills.Closed, Life: 3}}
	for want, change := range map[string]func(*bgagent.Task, map[string]string){
		"has the result": func(_ *bgagent.Task, r map[string]string) { r[judgedID] += " " },
		"is running":     func(x *bgagent.Task, _ map[string]string) { x.Status = bgagent.Running },
		"is error (interrupted)": func(x *bgagent.Task, _ map[string]string) {
			x.Status, x.Cause = bgagent.Failed, bgagent.CauseInterrupted
		},
		"attempt 1 ended as well":  func(x *bgagent.Task, _ map[string]string) { x.Attempts = []bgagent.Attempt{{Number: 1}} },
		"agent once) is cancelled": func(x *bgagent.Task, _ map[string]string) { x.Status, x.Cause = bgagent.Cancelled, bgagent.CauseCaller },
	} {
		task, results := judgedTask(), map[string]string{judgedID: killAnswer(judgedName)}
		change(&task, results)
		checkJudgement(t, lines, kills.Found{Tasks: map[string]bgagent.Task{judgedID: task}, Results: results}, want)
	}
}

func checkJudgement(t *testing.T, lines []kills.Line, found kills.Found, want string) {
	t.Helper()
	wrong, _ := judgeKills(lines, found)
	if got := strings.Join(wrong, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
		t.Errorf("the judge says %q, want %q", got, want)
	}
}
