package sqlite

import (
	"context"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent"
)

// killFound contains the tasks of a store and their results.
type killFound struct {
	tasks   map[string]bgagent.Task
	results map[string]string
}

// readKilled reads the store from outside the manager.
func readKilled(ctx context.Context, dir string) (f killFound, err error) {
	r, err := OpenReader(dir)
	if err != nil {
		return f, err
	}
	defer r.Close()
	records, err := r.Live(ctx)
	if err != nil {
		return f, err
	}
	for q := (bgagent.StoreQuery{Limit: 1000}); ; {
		page, err := r.History(ctx, q)
		if err != nil {
			return f, err
		}
		records = append(records, page...)
		if len(page) < q.Limit {
			break
		}
		q.Before = page[len(page)-1].Key
	}
	f = killFound{map[string]bgagent.Task{}, map[string]string{}}
	for _, record := range records {
		if record.Kind != bgagent.StoreTask {
			continue
		}
		t, err := record.Task()
		if err != nil {
			return f, err
		}
		f.tasks[t.ID] = t
		if t.Status == bgagent.Completed {
			if f.results[t.ID], err = r.Text(ctx, t.ID, fmt.Sprint("result.", t.Attempt)); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}

// killFigures counts what happened to the tasks of one store or of several stores.
type killFigures struct {
	tasks, completed, cancelled, interrupted int
	turns, needed                            int // turns that began, and turns that would have begun if nothing had been killed
	repeated, continued                      int // prompts sent again; attempts that continued another attempt
	told, toldAgain                          int
}

func (f *killFigures) add(g killFigures) {
	f.tasks += g.tasks
	f.completed += g.completed
	f.cancelled += g.cancelled
	f.interrupted += g.interrupted
	f.turns += g.turns
	f.needed += g.needed
	f.repeated += g.repeated
	f.continued += g.continued
	f.told += g.told
	f.toldAgain += g.toldAgain
}

func (f killFigures) String() string {
	return fmt.Sprintf("%d tasks: %d completed, %d cancelled, %d interrupted; %d turns began, %d would have begun without a kill, "+
		"%d prompts were sent again, %d attempts continued another; %d ends were reported, %d of them again under the same id",
		f.tasks, f.completed, f.cancelled, f.interrupted, f.turns, f.needed, f.repeated, f.continued, f.told, f.toldAgain)
}

// killJudge uses the log and the store to decide whether the manager kept its promises.
type killJudge struct {
	found   killFound
	figures killFigures
	wrong   []string

	life      int
	closed    bool
	running   map[string]string          // running turns of the current process: agent by task
	over      map[string]string          // how the end of the task became known
	begun     map[string]int             // number of turns by prompt id
	texts     map[string]string          // prompt texts by prompt id
	answers   map[string]map[string]bool // answers that the turns of a task gave
	originals map[string]string          // id of the prompt with the original text, by task
	accepted  map[string]bool
	items     map[string]string // id of the item in notices, by task
	ended     map[string]bool   // tasks whose completion was reported to a subscriber
	last      map[string]int    // first process that reported the end of the task
}

// judgeKills returns a description of everything that is wrong.
func judgeKills(lines []killLine, found killFound) ([]string, killFigures) {
	j := &killJudge{
		found: found, running: map[string]string{}, over: map[string]string{}, begun: map[string]int{}, texts: map[string]string{},
		answers: map[string]map[string]bool{}, originals: map[string]string{}, accepted: map[string]bool{}, items: map[string]string{},
		ended: map[string]bool{}, last: map[string]int{},
	}
	for _, x := range lines {
		j.line(x)
	}
	if !j.closed {
		j.complain("the last process did not close its manager")
	}
	for id := range j.running {
		j.complain("%s: a turn still runs", id)
	}
	for id := range j.accepted {
		if _, ok := found.tasks[id]; !ok {
			j.complain("%s was accepted and is lost", id)
		}
	}
	for id, t := range found.tasks {
		j.task(id, t)
	}
	return j.wrong, j.figures
}

func (j *killJudge) complain(format string, args ...any) {
	j.wrong = append(j.wrong, fmt.Sprintf(format, args...))
}

func (j *killJudge) line(x killLine) {
	if x.Life < j.life || j.closed {
		j.complain("a line of process %d comes after the end of the process: %s of %s", x.Life, x.What, x.Task)
	}
	if x.Life > j.life {
		j.life = x.Life
		clear(j.running)
	}
	if x.Task != "" && x.What != lineAccepted {
		if _, ok := j.found.tasks[x.Task]; !ok {
			j.complain("%s of %s, which the store does not have", x.What, x.Task)
		}
	}
	switch x.What {
	case lineAccepted:
		j.accepted[x.Task] = true
	case lineBegin:
		j.begin(x)
	case lineEnd:
		delete(j.running, x.Task)
		if j.answers[x.Task] == nil {
			j.answers[x.Task] = map[string]bool{}
		}
		j.answers[x.Task][x.Text] = true
	case lineTold:
		j.told(x)
	case lineEnded:
		j.shown(x)
		if j.ended[x.Task] {
			j.complain("%s ended twice", x.Task)
		}
		j.ended[x.Task] = true
	case lineCancelled:
		j.over[x.Task] = "Cancel had returned"
		if t := j.found.tasks[x.Task]; t.Status != bgagent.Cancelled {
			j.complain("%s was cancelled and is %s", x.Task, t.Status)
		}
	case lineUnknown:
		j.complain("%s was accepted, and the manager does not know it", x.Task)
	case lineClosed:
		j.closed = true
	}
}

func (j *killJudge) begin(x killLine) {
	t := j.found.tasks[x.Task]
	j.figures.turns++
	if why := j.over[x.Task]; why != "" {
		j.complain("%s runs after %s", x.Task, why)
	}
	if _, ok := j.running[x.Task]; ok {
		j.complain("%s runs twice at once", x.Task)
	}
	j.running[x.Task] = t.Agent
	of := 0
	for _, agent := range j.running {
		if agent == "again" {
			of++
		}
	}
	if len(j.running) > killLimit || of > killCap {
		j.complain("%d turns run, %d of them of the agent with a cap", len(j.running), of)
	}
	if j.begun[x.Prompt]++; j.begun[x.Prompt] > 1 {
		j.figures.repeated++
		if t.Agent != "again" {
			j.complain("%s got the prompt %s again, and the agent is %s", x.Task, x.Prompt, t.Agent)
		}
		if j.texts[x.Prompt] != x.Text {
			j.complain("the text of prompt %s has changed", x.Prompt)
		}
	}
	j.texts[x.Prompt] = x.Text
	if x.Text == killPrompt(x.Name) {
		if first := j.originals[x.Task]; first != "" && first != x.Prompt {
			j.complain("%s got the original text again, under another id", x.Task)
		}
		j.originals[x.Task] = x.Prompt
	} else if j.originals[x.Task] == "" {
		j.complain("%s never got the original text before it got %q", x.Task, x.Text)
	}
}

func (j *killJudge) told(x killLine) {
	j.figures.told++
	j.shown(x)
	if id, ok := j.items[x.Task]; ok {
		j.figures.toldAgain++
		if id != x.Item {
			j.complain("%s was told under the ids %s and %s", x.Task, id, x.Item)
		}
	}
	j.items[x.Task] = x.Item
}

// shown compares the completion that was reported with the completion in the store.
func (j *killJudge) shown(x killLine) {
	t := j.found.tasks[x.Task]
	if t.Attempt != x.Attempt || t.Status != x.Status || t.Cause != x.Cause {
		j.complain("%s was shown as %s (%s) of attempt %d, and is %s (%s) of attempt %d",
			x.Task, x.Status, x.Cause, x.Attempt, t.Status, t.Cause, t.Attempt)
	}
	j.over[x.Task] = "its end was shown"
	if j.last[x.Task] == 0 {
		j.last[x.Task] = x.Life
	}
}

// task judges how a task ended.
func (j *killJudge) task(id string, t bgagent.Task) {
	f := &j.figures
	f.tasks++
	f.continued += len(t.Attempts)
	f.needed++
	if t.Agent == "delegate" {
		f.needed++
	}
	name := fmt.Sprintf("%s (%s, agent %s)", id, t.Description, t.Agent)
	for _, a := range t.Attempts {
		if a.Cause != bgagent.CauseSuperseded {
			j.complain("%s: attempt %d ended as well: %s", name, a.Number, a.Cause)
		}
	}
	survived := j.last[id] - killLaunched(t.Description) // number of kills that the task survived
	parent, below := j.found.tasks[j.parentTask(t)]
	switch {
	case t.Status == bgagent.Completed:
		f.completed++
		if got := j.found.results[id]; got != killAnswer(t.Description) {
			j.complain("%s has the result %.60q", name, got)
		} else if !j.answers[id][got] {
			j.complain("%s has a result that no turn gave", name)
		}
	case t.Status == bgagent.Cancelled && t.Cause == bgagent.CauseCaller && strings.HasSuffix(t.Description, "9"):
		f.cancelled++
	case t.Status == bgagent.Cancelled && t.Cause == bgagent.CauseParentEnded && below && parent.Status != bgagent.Completed:
		f.cancelled++
	case t.Cause == bgagent.CauseInterrupted && t.Agent == "unknown" && survived > 0:
		f.interrupted++
	case t.Cause == bgagent.CauseInterrupted && survived > 3: // a task is interrupted only by the fourth kill without progress
		f.interrupted++
	default:
		j.complain("%s is %s (%s): %s", name, t.Status, t.Cause, t.Reason)
	}
	waived := t.Cause == bgagent.CauseCaller && t.Notice == bgagent.NoticeWaived
	orphan := below && parent.Status != bgagent.Completed
	if j.items[id] == "" && !waived && !orphan {
		j.complain("%s was not told: %s", name, t.Notice)
	}
}

// parentTask returns the id of the task whose session launched t.
func (j *killJudge) parentTask(t bgagent.Task) string {
	for id, up := range j.found.tasks {
		if up.Session == t.Parent && up.Session != "" {
			return id
		}
	}
	return ""
}

// killLaunched returns the number of the process that launched the task with the given name, or the
// task that delegated it.
func killLaunched(name string) (life int) {
	_, _ = fmt.Sscanf(name, "task %d", &life) // the name was chosen by this test
	return life / killNames
}
