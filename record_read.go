package bgagent

import (
	"errors"
	"fmt"
)

// Task returns the task that the record describes. Task.Prompt, Task.Result and the subjects of
// Task.Questions are empty. For the attempt with number A, [Store].Text returns the prompt and the
// result under the names "prompt.A" and "result.A". If the task has not ended, Task returns it as
// it was when the record was written. Task returns an error if the record does not describe a task
// or cannot be decoded.
func (r *StoreRecord) Task() (Task, error) {
	if r.Kind != StoreTask {
		return Task{}, errors.New("bgagent: the record does not describe a task")
	}
	x, err := decodeTask(r)
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: task %s: %w", r.Key, err)
	}
	t := x.task(r)
	t.Foreground = x.Foreground
	if x.Run != nil && x.Run.Attempt == x.Attempt && !t.Status.Terminal() {
		t.Started, t.Phase, t.Progress.Turns, t.Quiet = x.Run.Started, x.Run.Phase, int(x.Run.Turn), false
		t.Questions = x.openQuestions()
		if r := x.Run.Refused; r != nil && x.Run.Waits {
			t.Reason, t.Until = reasonParked(&refused{kind: r.Kind, status: r.Status, message: r.Message, fell: r.Fell}), r.Until
		}
	}
	return t, nil
}
