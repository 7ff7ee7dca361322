package bgagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// The code in this file decodes records. If a record contradicts itself, decoding fails, and the
// caller reports the record as damaged.

// storedTask is the record of a task and the task's texts.
type storedTask struct {
	id string
	taskRecord
	rec   StoreRecord
	cl    *client
	texts map[string]string // texts by name
}

// storedNode is the record of a session that delegates.
type storedNode struct {
	session string
	rec     StoreRecord
	nodeRecord
}

// errNewer is returned for a record that a newer version of the library wrote.
var errNewer = errors.New("the record has version")

// decodeRecord decodes the data of a record into v.
func decodeRecord(data []byte, v any) error {
	var version struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return fmt.Errorf("the record cannot be read: %w", err)
	}
	switch {
	case version.Version < 1:
		return errors.New("the record has no version")
	case version.Version > recordVersion:
		return fmt.Errorf("%w %d, and this program reads versions up to %d", errNewer, version.Version, recordVersion)
	}
	if err := decodeExactly(data, v); err != nil {
		return fmt.Errorf("the record cannot be read: %w", err)
	}
	return nil
}

// mostRan is the maximum time that the turns of a recorded attempt can have taken, in nanoseconds.
// A recorded time can be negative if a foreground task moved to the background during a turn.
const mostRan = int64(100 * 365 * 24 * time.Hour)

// decodeTask decodes the record of a task, without its texts.
func decodeTask(r *StoreRecord) (*storedTask, error) {
	x := &storedTask{id: r.Key, rec: *r}
	if _, ok := parseID(r.Key); !ok {
		return nil, errors.New("the key is not the id of a task")
	}
	if err := decodeRecord(r.Data, &x.taskRecord); err != nil {
		return nil, err
	}
	switch run, end := x.Run, x.End; {
	case x.Agent == "":
		return nil, errors.New("the task has no agent")
	case x.Attempt < 1 || x.Depth < 1:
		return nil, fmt.Errorf("attempt %d at depth %d is impossible", x.Attempt, x.Depth)
	case x.Cause != CauseNone && x.Cause.Status() != x.Status || x.Cause == CauseNone && x.Status.Terminal():
		return nil, fmt.Errorf("the status %s contradicts the cause %q", x.Status, x.Cause)
	case x.Status == Running && (run == nil || run.Stopping || run.Attempt != x.Attempt):
		return nil, errors.New("the task is running, but its attempt is missing")
	case x.Status != Running && run != nil && !run.Stopping:
		return nil, fmt.Errorf("the task is %s, but an attempt runs", x.Status)
	case x.Status.Terminal() != (end != nil):
		return nil, fmt.Errorf("the task is %s, which contradicts the outcome", x.Status)
	case x.Status.Terminal() != (x.Notice != NoticeNone):
		return nil, fmt.Errorf("the task is %s, which contradicts the state of its notice", x.Status)
	case !ascending(x.Past, x.Attempt):
		return nil, errors.New("the numbers of the earlier attempts are impossible")
	case run != nil && (run.Attempt < 1 || run.Attempt > x.Attempt || run.Attempt == x.Attempt && x.Status == Pending):
		return nil, fmt.Errorf("attempt %d of a task at attempt %d cannot run", run.Attempt, x.Attempt)
	case run != nil && (run.Turn < 0 || run.Ran > mostRan || run.Ran < -mostRan):
		return nil, fmt.Errorf("an attempt cannot have %d turns in %d ns", run.Turn, run.Ran)
	case run != nil && run.OpenTodos < 0:
		return nil, fmt.Errorf("an attempt cannot have %d open todos", run.OpenTodos)
	case x.End != nil && x.End.OpenTodos < 0:
		return nil, fmt.Errorf("an attempt cannot have %d open todos", x.End.OpenTodos)
	case run != nil && (run.ToolCalls < 0 || run.ToolCalls > math.MaxInt32):
		return nil, fmt.Errorf("an attempt cannot have made %d tool calls", run.ToolCalls)
	case run != nil && (run.Turn > 0 || run.Waits && run.Refused == nil) && x.Session == nil:
		return nil, errors.New("the attempt has a turn, but no session")
	case run != nil && !run.Refused.possible():
		return nil, errors.New("the refusals of the provider are impossible")
	case run != nil && run.Waits && run.Refused == nil && !run.Stopping && run.EndCause.Status() != Completed:
		return nil, fmt.Errorf("the attempt waits between its turns, and its end would have the cause %q", run.EndCause)
	case run != nil && run.Counted.spent() != (spent{run.Counted.Usage, run.Counted.ToolCalls}), !x.Budget.possible():
		return nil, errors.New("the used budget or its limits are impossible")
	case !x.possibleLetters():
		return nil, errors.New("the messages to the task are impossible")
	case !x.possibleQuestions():
		return nil, errors.New("the questions of the task are impossible")
	case x.Session != nil && x.Session.ID == "":
		return nil, errors.New("the session has no id")
	}
	return x, nil
}

// The function "ascending" reports whether the numbers of the attempts ascend and are less than the
// given number.
func ascending(past []Attempt, below int32) bool {
	last := 0
	for _, p := range past {
		if p.Number <= last || p.Number >= int(below) {
			return false
		}
		last = p.Number
	}
	return true
}

// The function "sound" returns the tasks that can be loaded together, and reports the others as
// damaged. Two tasks cannot have the same id or the same session. A session cannot descend from
// itself.
func sound(tasks []*storedTask) (kept []*storedTask, damage []StoreDamage) {
	ids, sessions := map[uint64]bool{}, map[string]*storedTask{}
	for _, x := range tasks {
		num, _ := parseID(x.id)
		s := x.Session
		switch {
		case ids[num]:
			damage = append(damage, StoreDamage{Key: x.id, Problem: "another task has the same id"})
			continue
		case s != nil && sessions[s.ID] != nil:
			damage = append(damage, StoreDamage{Key: x.id, Problem: fmt.Sprintf("the session %q also belongs to task %s", s.ID, sessions[s.ID].id)})
			continue
		case s != nil:
			sessions[s.ID] = x
		}
		ids[num] = true
		kept = append(kept, x)
	}
	tasks, kept = kept, nil
	for _, x := range tasks {
		up := sessions[x.Parent]
		for steps := 0; up != nil && up != x && steps < len(tasks); steps++ {
			up = sessions[up.Parent]
		}
		if up == x {
			damage = append(damage, StoreDamage{Key: x.id, Problem: "its session descends from itself"})
			continue
		}
		kept = append(kept, x)
	}
	return kept, damage
}

// textNames returns the names of the texts that the manager needs. The texts without which the task
// cannot be loaded come first; the result "needed" is their number.
func (x *storedTask) textNames() (names []string, needed int) {
	if !x.Status.Terminal() || x.End.Unsaid {
		names = append(names, textOf("prompt", x.Attempt))
	}
	if x.Run != nil && !x.Run.Stopping && x.Run.PromptOf != "" {
		names = append(names, x.Run.PromptOf)
	}
	if x.Run != nil && x.Run.Refused != nil && x.Run.Refused.Prompt != "" {
		names = append(names, x.Run.Refused.Prompt)
	}
	if x.Unsaid != "" {
		names = append(names, x.Unsaid)
	}
	names = append(append(names, x.letterTexts()...), x.questionTexts()...)
	needed = len(names)
	if x.Status.Terminal() && !x.End.Unsaid {
		names = append(names, textOf("prompt", x.Attempt))
	}
	if x.Run != nil && x.Run.Stopping && x.Run.PromptOf != "" {
		names = append(names, x.Run.PromptOf)
	}
	if x.Run != nil && x.Run.Text != "" {
		names = append(names, x.Run.Text)
	}
	if x.End != nil && x.End.Result != "" {
		names = append(names, x.End.Result)
	}
	return names, needed
}
