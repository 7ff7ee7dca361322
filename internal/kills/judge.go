package kills

import (
	"fmt"

	"github.com/bgagent/bgagent"
)

// Figures counts what happened to the tasks of one or more stores.
type Figures struct {
	Tasks, Completed, Cancelled, Interrupted int
	Made, Needed                             int // turns or requests that were made, and those that would have been made if nothing had been killed
	Repeated, Continued                      int // prompts sent again; attempts that continued another attempt
	Told, ToldAgain                          int
}

// Add adds the figures of another store.
func (f *Figures) Add(g Figures) {
	f.Tasks += g.Tasks
	f.Completed += g.Completed
	f.Cancelled += g.Cancelled
	f.Interrupted += g.Interrupted
	f.Made += g.Made
	f.Needed += g.Needed
	f.Repeated += g.Repeated
	f.Continued += g.Continued
	f.Told += g.Told
	f.ToldAgain += g.ToldAgain
}

// Describe returns the figures as a sentence; units says what the field Made counts, such as
// "requests to the model".
func (f Figures) Describe(units string) string {
	return fmt.Sprintf("%d tasks: %d completed, %d cancelled, %d interrupted; %d %s, %d would have been needed without a kill, "+
		"%d prompts were sent again, %d attempts continued another; %d ends were reported, %d of them again under the same id",
		f.Tasks, f.Completed, f.Cancelled, f.Interrupted, f.Made, units, f.Needed, f.Repeated, f.Continued, f.Told, f.ToldAgain)
}

// Judge uses the log and the store to decide whether the manager kept its promises. It does not know
// what the agents did.
type Judge struct {
	Found   Found
	Figures Figures
	Wrong   []string // one description per problem

	// Answer returns the correct result of the task with the given description.
	Answer func(name string) string
	// Unknown reports whether the agent's client may be unable to tell how far an interrupted turn got.
	Unknown func(agent string) bool

	Life    int               // number of the process whose lines are read
	Over    map[string]string // how each task's end became known
	closed  bool
	asked   map[string]bool   // tasks for which Cancel was called
	items   map[string]string // id of the item in notices, by task
	ended   map[string]bool   // tasks whose completion was reported to a subscriber
	last    map[string]int    // first process that reported the task's end
	accepts map[string]bool
}

// NewJudge returns a judge for the tasks of a store.
func NewJudge(found Found) *Judge {
	return &Judge{
		Found: found, Over: map[string]string{}, asked: map[string]bool{}, items: map[string]string{}, ended: map[string]bool{},
		last: map[string]int{}, accepts: map[string]bool{}, Unknown: func(string) bool { return false },
	}
}

// Complain adds a description of what is wrong.
func (j *Judge) Complain(format string, args ...any) {
	j.Wrong = append(j.Wrong, fmt.Sprintf(format, args...))
}

// Line judges the next line of the log.
func (j *Judge) Line(x Line) {
	if x.Life < j.Life || j.closed {
		j.Complain("a line of process %d comes after the end of the process: %s of %s", x.Life, x.What, x.Task)
	}
	j.Life = max(j.Life, x.Life)
	if x.Task != "" && x.What != Accepted {
		if _, ok := j.Found.Tasks[x.Task]; !ok {
			j.Complain("%s of %s, which the store does not have", x.What, x.Task)
		}
	}
	switch x.What {
	case Accepted:
		j.accepts[x.Task] = true
	case Told:
		j.told(x)
	case Ended:
		j.shown(x)
		if j.ended[x.Task] {
			j.Complain("%s ended twice", x.Task)
		}
		j.ended[x.Task] = true
	case Cancelling:
		j.asked[x.Task] = true
	case Cancelled:
		j.Over[x.Task] = "Cancel had returned"
		if t := j.Found.Tasks[x.Task]; t.Status != bgagent.Cancelled {
			j.Complain("%s was cancelled and is %s", x.Task, t.Status)
		}
	case Unknown:
		j.Complain("%s was accepted, and the manager does not know it", x.Task)
	case Closed:
		j.closed = true
	}
}

// Finish judges how the tasks ended. It is called after the last line.
func (j *Judge) Finish() {
	if !j.closed {
		j.Complain("the last process did not close its manager")
	}
	for id := range j.accepts {
		if _, ok := j.Found.Tasks[id]; !ok {
			j.Complain("%s was accepted and is lost", id)
		}
	}
	for id, t := range j.Found.Tasks {
		j.task(id, t)
	}
}

func (j *Judge) told(x Line) {
	j.Figures.Told++
	j.shown(x)
	if id, ok := j.items[x.Task]; ok {
		j.Figures.ToldAgain++
		if id != x.Item {
			j.Complain("%s was told under the ids %s and %s", x.Task, id, x.Item)
		}
	}
	j.items[x.Task] = x.Item
}

// The method "shown" judges a completion that was reported in a notice or to a subscriber. The
// completion must be the same as in the store.
func (j *Judge) shown(x Line) {
	t := j.Found.Tasks[x.Task]
	if t.Attempt != x.Attempt || t.Status != x.Status || t.Cause != x.Cause {
		j.Complain("%s was shown as %s (%s) of attempt %d, and is %s (%s) of attempt %d",
			x.Task, x.Status, x.Cause, x.Attempt, t.Status, t.Cause, t.Attempt)
	}
	j.Over[x.Task] = "its end was shown"
	if j.last[x.Task] == 0 {
		j.last[x.Task] = x.Life
	}
}

// Survived returns how often the process was killed between the launch of the task and its end.
func (j *Judge) Survived(id string) int {
	return j.last[id] - launchedBy(j.Found.Tasks[id].Description)
}

func (j *Judge) task(id string, t bgagent.Task) {
	f := &j.Figures
	f.Tasks++
	f.Continued += len(t.Attempts)
	name := fmt.Sprintf("%s (%s, agent %s)", id, t.Description, t.Agent)
	for _, a := range t.Attempts {
		if a.Cause != bgagent.CauseSuperseded {
			j.Complain("%s: attempt %d ended as well: %s", name, a.Number, a.Cause)
		}
	}
	parent, below := j.Found.Tasks[j.parentTask(t)]
	switch survived := j.Survived(id); {
	case t.Status == bgagent.Completed:
		f.Completed++
		if got := j.Found.Results[id]; got != j.Answer(t.Description) {
			j.Complain("%s has the result %.60q", name, got)
		}
	case t.Status == bgagent.Cancelled && t.Cause == bgagent.CauseCaller && j.asked[id]:
		f.Cancelled++
	case t.Status == bgagent.Cancelled && t.Cause == bgagent.CauseParentEnded && below && parent.Status != bgagent.Completed:
		f.Cancelled++
	case t.Cause == bgagent.CauseInterrupted && j.Unknown(t.Agent) && survived > 0:
		f.Interrupted++
	case t.Cause == bgagent.CauseInterrupted && survived > 3: // a task is interrupted only by the fourth kill without progress
		f.Interrupted++
	default:
		j.Complain("%s is %s (%s): %s", name, t.Status, t.Cause, t.Reason)
	}
	waived := t.Cause == bgagent.CauseCaller && t.Notice == bgagent.NoticeWaived
	orphan := below && parent.Status != bgagent.Completed
	if j.items[id] == "" && !waived && !orphan {
		j.Complain("%s was not told: %s", name, t.Notice)
	}
}

// parentTask returns the id of the task whose session launched t.
func (j *Judge) parentTask(t bgagent.Task) string {
	for id, up := range j.Found.Tasks {
		if up.Session == t.Parent && up.Session != "" {
			return id
		}
	}
	return ""
}
