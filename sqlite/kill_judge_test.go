package sqlite

import (
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/kills"
)

// killJudge judges the turns that the process has logged, in addition to everything that kills.Judge
// judges.
type killJudge struct {
	*kills.Judge

	running   map[string]string          // running turns of the current process: agent by task
	begun     map[string]int             // number of turns by prompt id
	texts     map[string]string          // prompt texts by prompt id
	answers   map[string]map[string]bool // answers that a task's turns gave, by task
	originals map[string]string          // id of the prompt with the original text, by task
}

// judgeKills returns descriptions of everything that is wrong in the log or in the store, and the figures.
func judgeKills(lines []kills.Line, found kills.Found) ([]string, kills.Figures) {
	j := &killJudge{
		Judge: kills.NewJudge(found), running: map[string]string{}, begun: map[string]int{}, texts: map[string]string{},
		answers: map[string]map[string]bool{}, originals: map[string]string{},
	}
	j.Answer = killAnswer
	j.Judge.Unknown = func(agent string) bool { return agent == "unknown" }
	for _, x := range lines {
		j.line(x)
	}
	for id := range j.running {
		j.Complain("%s: a turn still runs", id)
	}
	j.Finish()
	for id, t := range found.Tasks {
		j.Figures.Needed++
		if t.Agent == "delegate" {
			j.Figures.Needed++
		}
		if t.Status == bgagent.Completed && !j.answers[id][found.Results[id]] {
			j.Complain("%s has a result that no turn gave", id)
		}
	}
	return j.Wrong, j.Figures
}

func (j *killJudge) line(x kills.Line) {
	if x.Life > j.Life {
		clear(j.running)
	}
	j.Line(x)
	switch x.What {
	case kills.Begin:
		j.begin(x)
	case kills.End:
		delete(j.running, x.Task)
		if j.answers[x.Task] == nil {
			j.answers[x.Task] = map[string]bool{}
		}
		j.answers[x.Task][x.Text] = true
	}
}

func (j *killJudge) begin(x kills.Line) {
	t := j.Found.Tasks[x.Task]
	j.Figures.Made++
	if why := j.Over[x.Task]; why != "" {
		j.Complain("%s runs after %s", x.Task, why)
	}
	if _, ok := j.running[x.Task]; ok {
		j.Complain("%s runs twice at once", x.Task)
	}
	j.running[x.Task] = t.Agent
	of := 0
	for _, agent := range j.running {
		if agent == "again" {
			of++
		}
	}
	if len(j.running) > killLimit || of > killCap {
		j.Complain("%d turns run, %d of them of the agent with a cap", len(j.running), of)
	}
	if j.begun[x.Prompt]++; j.begun[x.Prompt] > 1 {
		j.Figures.Repeated++
		if t.Agent != "again" {
			j.Complain("%s got the prompt %s again, and the agent is %s", x.Task, x.Prompt, t.Agent)
		}
		if j.texts[x.Prompt] != x.Text {
			j.Complain("the text of prompt %s has changed", x.Prompt)
		}
	}
	j.texts[x.Prompt] = x.Text
	if x.Text == killPrompt(x.Name) {
		if first := j.originals[x.Task]; first != "" && first != x.Prompt {
			j.Complain("%s got the original text again, under another id", x.Task)
		}
		j.originals[x.Task] = x.Prompt
	} else if j.originals[x.Task] == "" {
		j.Complain("%s never got the original text before it got %q", x.Task, x.Text)
	}
}
