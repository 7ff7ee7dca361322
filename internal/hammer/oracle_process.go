package hammer

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// The following methods update the oracle when the manager's process ends and another one begins.

// The method "lose" records that the session has lost the prompt. The manager is then allowed to send the
// prompt again.
func (o *oracle) lose(prompt string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.loseLocked(prompt)
}

func (o *oracle) loseLocked(prompt string) {
	o.logLocked("prompt %s is lost", prompt)
	delete(o.promptIDs, prompt)
}

// newProcess prepares the oracle for another process. It removes the activities that ended with the last
// process, and the facts that the new process cannot know.
func (o *oracle) newProcess() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for a := range o.runs {
		if a.life != nil && a.life.over.Load() && !a.orphan {
			delete(o.runs, a)
		}
	}
	maps.Copy(o.pulled, o.pulls)
	for key := range o.notices {
		o.earlier[key] = true
	}
	clear(o.quiets)
	o.limitsAt = time.Now()
}

// The method "forgets" records an upcoming call to Forget for the task. It must be called before
// that call is made.
func (o *oracle) forgets(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, before := o.deleted[id]; !before {
		o.deleted[id] = false
	}
}

// The method "lacks" returns whether the store may lack an accepted task, and whether it must lack the task.
func (o *oracle) lacks(id string) (may, must bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	must, may = o.deleted[id]
	return may, must
}

// The method "forgot" records that a task was deleted. It checks that the manager no longer knows
// the task.
func (o *oracle) forgot(id string) {
	_, err := o.manager().Get(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deleted[id] = true
	if !errors.Is(err, bgagent.ErrUnknownTask) {
		o.faultLocked("%s was deleted, but Get returns %v", id, err)
	}
}

// diedAt reports whether a process died shortly after the given end of a task. The end can be durable even
// though the process died before it learned this and sent the event. The next process does not load such a
// task if no notice about it is owed.
func (o *oracle) diedAt(ended time.Time) bool {
	return slices.ContainsFunc(o.deaths, func(d time.Time) bool { return !ended.After(d) && d.Sub(ended) < time.Minute })
}

// The method "opens" checks and records the tasks that a new process has restored from the store.
func (o *oracle) opens(tasks []bgagent.Task) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forced = map[string]bool{}
	clear(o.found)
	for _, t := range tasks {
		key := attemptKey{t.ID, t.Attempt}
		if t.Status == bgagent.Running {
			o.forced[t.ID] = true
		}
		o.logLocked("a process begins with %s.%d %s %s %s %q", t.ID, t.Attempt, t.Status, t.Phase, t.Cause, t.Notice)
		cause, ended := o.ends[key]
		switch {
		case o.deleted[t.ID]:
			o.faultLocked("%s was deleted, but a new process shows it", t.ID)
		case !t.Status.Terminal() && ended:
			o.faultLocked("%s.%d had ended (%s), but a new process shows it as %s", t.ID, t.Attempt, cause, t.Status)
		case t.Status.Terminal() && ended && cause != t.Cause:
			o.faultLocked("%s.%d had ended (%s), but a new process shows it as %s", t.ID, t.Attempt, cause, t.Cause)
		case t.Status.Terminal():
			o.ends[key] = t.Cause
		}
		if t.Notice.Settled() {
			o.notices[key], o.earlier[key], o.found[key] = t.Notice, true, t.Notice != bgagent.NoticeGivenUp
		}
	}
}
