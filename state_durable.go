package bgagent

import "time"

// With a store, an effect must not become visible before the change that caused it is durable.
// Until then, the code in this file holds back host calls, notices, events and the ends of tasks.

// holdEvent notes that the task's record might have changed. If the event reports a change that is not
// durable yet, holdEvent holds back the event and returns true.
func (st *state) holdEvent(x news, t *task) bool {
	switch x.kind {
	case EventLaunched, EventResumed, EventEnded, EventSuperseded:
		st.mustKeep(t)
		st.storing.task(t).fresh = x.kind == EventLaunched || st.storing.task(t).fresh
	case EventProgress:
	default:
		st.changed(t)
	}
	if st.kept(t) {
		return false
	}
	st.addHeld(x, t)
	return true
}

// addHeld holds back an event until the task's last urgent change is durable. Like publish, it is a separate
// function because of its large frame.
func (st *state) addHeld(x news, t *task) {
	s := st.storing
	s.events = append(s.events, heldEvent{s.tasks[t].must, t, x.event(st.truth(t))})
}

// sendEvent sends an event that was held back.
func (st *state) sendEvent(e Event) {
	st.seq++
	e.Seq = st.seq
	for i, s := range st.subs {
		if i > 0 {
			e.Task, e.Budget, e.Question = e.Task.clone(), e.Budget.clone(), e.Question.clone()
		}
		s.put(e)
		st.fx.after.wakes.add(&s.waiter)
	}
}

// beginWait makes the worker wait for the store before it hands over a prompt or creates a session.
// It returns false if the worker does not have to wait.
func (st *state) beginWait(a *attempt, j *job) bool {
	j.call = callWait
	if env := a.notice; a.stage == stagePrompt && env != nil {
		if !env.sealed() {
			n := env.notice
			j.call, j.prompt.Notice = callSeal, &n
			return true
		}
		return !st.kept(a.t) || !st.keptNode(a.t.sess.own)
	}
	return !st.kept(a.t)
}

// The method "sealed" reports whether the notice has its text. Without a store, the notice gets its
// text only when it is handed out.
func (env *envelope) sealed() bool { return env.notice.Text != "" }

// The method "seal" sets the text of a notice for the node. The text does not change afterwards.
func (st *state) seal(n *node, env *envelope, text string) {
	if !env.sealed() {
		env.notice.Text = text
		st.mustKeepNode(n)
	}
}

// sealPush is like the method "seal", but for a notice that is about to be pushed. Each process
// counts its first push before making it.
func (st *state) sealPush(n *node, env *envelope, text string) {
	st.seal(n, env, text)
	if !env.pushed {
		env.pushed = true
		env.pushes++
		st.mustKeepNode(n)
	}
}

// hasEnded reports whether the task's latest attempt has ended and callers may see the end.
func (st *state) hasEnded(t *task) bool { return !t.live() && st.kept(t) }

// hideEnd changes the copy of a task so that it shows the state before the end.
func hideEnd(s *Task) {
	s.Status, s.Phase = Running, PhaseStoring
	if s.Started.IsZero() {
		s.Status = Pending
	}
	s.Cause, s.Reason, s.Ended, s.Quiet, s.Notice = CauseNone, "", time.Time{}, false, NoticeNone
	s.Partial, s.Reasoning, s.OpenTodos, s.Unconsumed = s.Result != "", false, 0, nil
}

// keepLast makes the final record of a task that is expiring from memory. The store keeps this
// record as history.
func (st *state) keepLast(t *task) {
	if s := st.storing; s != nil {
		m, r := s.task(t), st.recordTask(t)
		m.final = &r
		s.last = append(s.last, m)
		s.change(m)
		st.storeLater()
	}
}
