package bgagent

import (
	"cmp"
	"slices"
	"time"
)

// The code in this file continues the attempts of an earlier process.
//
//	load -> beginRecovery -> attempts that may still run get slots -> restore call -> restored -> ...
//	                      -> pending tasks get in line
//
// An attempt is recovering from beginRecovery until its client has reported how far the session got
// with the last prompt. A session of an earlier process is foreign until the client has restored
// it. The client must have restored the session before the session gets its next prompt.

// recovery holds the information about an earlier process that the state needs until it has
// continued that process's tasks.
type recovery struct {
	due   bool    // the tasks have been loaded but not continued yet
	tasks []*task // live tasks and ended tasks that are being stopped, in the order they were queued
	seen  time.Time
	clock time.Time // the same time as in the field "seen", but on the records' clock
	clean bool      // the earlier manager was suspended

	crashed time.Time // time of the last crash before the earlier manager began; zero if there was none
	careful bool      // the earlier manager was continuing attempts one at a time

	outdated string // why the store might lack the latest changes; empty if there is no sign of this
}

// The method "late" returns the reason why the manager does not automatically begin turns for the
// earlier process's tasks, or "" if it does begin them. wall is the current wall time.
func (st *state) late(wall time.Time) string {
	r := &st.recovery
	gone := wall.Sub(r.seen)
	switch most := st.limit(limitRestartWithin); {
	case r.outdated != "":
		return reasonOutdated(r.outdated)
	case st.cfg.InterruptRestored:
		return reasonNotContinued
	case most > 0 && !r.seen.IsZero() && gone > most:
		return reasonLate(gone, most)
	}
	return ""
}

// maxRestarts is the number of crashes that a task survives without making progress between them.
const maxRestarts = 3

// beginRecovery continues the tasks of the earlier process. wall is the current wall time.
func (st *state) beginRecovery(wall time.Time, now int64) {
	if !st.recovery.due || st.closing || st.isLost() {
		return
	}
	outdated, careful := st.recovery.outdated != "", st.recovery.crashedOften()
	if !st.recovery.clean && len(st.recovery.tasks) > 0 { // the earlier process crashed: a suspension sets the field "clean", and Close leaves no live tasks
		st.storing.crashed = st.recovery.seen
	}
	list, clean, clock, late := st.recovery.tasks, st.recovery.clean, st.recovery.clock, st.late(wall)
	st.recovery = recovery{}
	st.lateFor = late
	for _, t := range list {
		if a := t.run; a != nil {
			a.late = late != ""
		}
		st.leaveEarlier(t, clock, now)
		if a := t.run; a != nil && a.turn == 0 { // the time during which no process runs does not count towards the start's time to live
			st.storing.task(t).since = now - max(st.at(clock)-st.startedAt(a), 0)
		}
	}
	if st.outdated = outdated; outdated {
		st.endAll(list, late, now)
		return
	}
	for _, t := range list { // attempts that might still be running get their slots first, even if that exceeds the limits
		a := t.run
		if a == nil {
			continue
		}
		t.wait.Owner, t.wait.Root = t, &t.up.top().slots // also for a parked attempt, which gets its slot later
		if a.parkedFor != notParked {
			continue
		}
		st.slots.Force(&t.wait, &t.kind.slot)
		st.claimRunning(t)
		t.set(flagSlot, true)
		switch {
		case a.ended:
			st.stopAgain(a, clean, now)
		case careful && st.storing.task(t).noValues == "":
			st.postpone(a, now)
		default:
			st.recoverTurn(a, clean, now)
		}
	}
	for _, t := range list {
		a := t.run
		if a == nil || !a.live() || a.parkedFor == notParked {
			continue
		}
		why := st.storing.task(t).noValues
		if a.awaitsProvider() {
			why = cmp.Or(why, late)
			st.coolAgain(a, now)
			st.setDeadline(a, now)
		}
		if why != "" {
			st.end(t, CauseInterrupted, why, now)
			continue
		}
		st.lookAgain(a)
		st.touchAttempt(a)
	}
	for _, t := range list {
		if why := cmp.Or(st.storing.task(t).noValues, late); why != "" && t.status == Pending {
			st.end(t, CauseInterrupted, why, now)
		}
		if t.status == Pending && !st.slots.Waits(&t.wait) && !st.slots.Holds(&t.wait) {
			st.queue(t, now)
		}
	}
	for _, n := range st.nodes {
		st.touchNode(n)
	}
	st.continueNext(now)
}

// endAll ends the tasks of an outdated store without calling a client or a notifier, because
// another manager might still be running their sessions. Hosts can take the notices, and resume the
// tasks.
func (st *state) endAll(list []*task, why string, now int64) {
	for _, t := range st.tasks {
		st.storing.task(t).instance = ""
		st.changed(t)
	}
	for _, t := range slices.Backward(list) { // end tasks before their parents, because the end of a parent would end its tasks with another reason
		if a := t.run; a != nil {
			a.recovering, a.stage = false, stageNone
		}
		st.end(t, CauseInterrupted, why, now)
		if a := t.run; a != nil { // the attempt was being stopped in the earlier process
			st.quiet(a, now)
		}
	}
	for _, n := range st.nodes {
		st.giveUp(n, now)
	}
}

// giveValues gives a live task of the earlier process the context values for its host calls. If why
// is not empty, the values could not be restored, and beginRecovery ends the task.
func (st *state) giveValues(t *task, values launchValues, why string) {
	if why != "" {
		t.set(flagForeground, false) // no caller waits for the end, so the end is reported to the parent
		st.storing.task(t).noValues = why
		return
	}
	t.extra().values = values
	if a := t.run; a != nil {
		a.ctx.values = values
	}
}

// startedAt returns the time from which the time to live of the attempt's start counts.
func (st *state) startedAt(a *attempt) int64 {
	if st.storing == nil {
		return cmp.Or(a.startFrom, a.started)
	}
	return cmp.Or(st.storing.task(a.t).since, a.started)
}

// madeProgress resets the number of restarts, because the task has made progress since the last
// restart.
func (st *state) madeProgress(t *task) {
	if s := st.storing; s != nil && s.tasks[t] != nil {
		s.tasks[t].restarts, s.tasks[t].outlived, s.tasks[t].since = 0, 0, 0
		st.isContinued(t)
	}
}

// recoverTurn continues an attempt whose session might be in a turn.
func (st *state) recoverTurn(a *attempt, clean bool, now int64) {
	mark := st.storing.task(a.t)
	if !clean {
		mark.restarts++
	}
	st.mustKeep(a.t)
	why := mark.noValues
	switch {
	case why != "":
	case mark.restarts > maxRestarts:
		why = reasonRestarts(maxRestarts)
	case mark.outlived > maxOutlived:
		why = reasonRestarts(maxOutlived)
	}
	if why != "" {
		st.end(a.t, CauseInterrupted, why, now)
		a.countedIn = st.storing.open
		st.wantCall(a) // the restore call stops processes that are still running
		return
	}
	a.activity = now
	st.wantCall(a)
}

// stopAgain stops an attempt that was being stopped when the process ended. If the host call that
// stops the attempt has made the process crash several times, the attempt counts as not stopped,
// and its client is not called again.
func (st *state) stopAgain(a *attempt, clean bool, now int64) {
	if mark := st.storing.task(a.t); !clean {
		mark.restarts++
		st.changed(a.t)
		st.storing.urgent, a.countedIn = true, st.storing.open
		if mark.restarts > maxRestarts+1 { // one more than for a live attempt, because an attempt that ends at maxRestarts is then stopped with one more call
			a.stage = stageNone
			st.overrun(a, now)
			return
		}
	}
	a.stopEnd = now + int64(st.limit(limitStopTimeout))
	st.deadlines.attempts.set(&a.alarm, a, a.stopEnd)
	switch {
	case a.cl.restores: // if the session is unknown, the client terminates any process that the start left running
		if a.stage, a.recovering = stagePrompt, true; a.t.sess == nil {
			a.stage = stageCreate
		}
		st.wantCall(a)
		return
	case a.t.sess == nil:
		st.rest(a, now)
		return
	}
	a.loose = a.cl.starter
	st.wantAbort(a)
}

// mustRestore reports whether the client must restore the attempt's session before the manager does
// anything else with the session.
func (st *state) mustRestore(a *attempt) bool {
	if a.recovering {
		return a.cl.starter || a.cl.restores || a.stage == stagePrompt
	}
	return a.stage == stagePrompt && a.cl.restores && a.t.sess.foreign && a.live()
}

// beginRestore prepares the call that restores the attempt's session.
func (st *state) beginRestore(a *attempt, j *job, now int64) {
	t, mark := a.t, st.storing.task(a.t)
	j.call = callRestore
	j.restore = &SessionRestore{Saved: slices.Clone(mark.saved), Instance: mark.instance}
	if st.outdated { // another manager might still be running the session, so its processes must not be terminated
		j.restore.Instance = ""
	}
	st.spec(t, &j.restore.Spec)
	j.restore.Spec.Permissions = slices.Clone(t.kind.rules)
	if t.sess != nil {
		j.restore.Session, j.cursor = t.sess.id, mark.before
	}
	if a.recovering && a.turn > 0 {
		p := &j.restore.Last
		p.ID, p.Task, p.Attempt, p.Turn, p.Text = a.promptID, t.id(), int(a.no), int(a.turn), a.prompt
		p.Agent, p.Model, p.Permissions = t.kind.key.agent, t.kind.key.model, slices.Clone(t.kind.rules)
		p.Instance, j.cursor = j.restore.Instance, mark.before
		if a.refused != nil {
			p.Unanswered = a.refused.unanswered
		}
	}
	a.inCall, a.restoring, a.restoreEnds = true, true, !a.live()
	if a.live() {
		st.setDeadline(a, now)
	}
}

// restoredSession is a client's answer to a restore call.
type restoredSession struct {
	prompt    PromptState
	end       TurnEnd
	missing   bool     // the session does not exist
	stopped   bool     // for a runner, nothing is running, although the call failed
	follow    bool     // for a starter, the turn is running, or its messages show how it ended
	old       []string // for a starter, ids of messages before the prompt
	continues bool     // an interrupted turn must be continued
}

// The method "restored" applies the answer to a restore call.
func (st *state) restored(a *attempt, r restoredSession, f *hostFailure, now int64) {
	a.inCall, a.callEnd = false, 0
	st.noteFailure(a, f.kind)
	st.answers(a.cl, f.kind, now)
	t := a.t
	recovering := a.recovering
	if a.live() && st.unreached(a, a.stage, f, now) {
		a.restoring = false
		return
	}
	a.restoring = false
	if !a.live() && f.kind != failedNot && !r.missing {
		if a.recovering = a.recovering && !r.stopped; a.recovering {
			st.wantCall(a) // processes of the session might still be running, so the call is repeated until the stopping deadline
		} else {
			st.rest(a, now) // for a starter, the method "rest" lets polls find out whether the session is running
		}
		return
	}
	a.recovering = false
	if mark := st.storing.task(t); mark.instance != "" && (f.kind == failedNot || r.missing) {
		// No process of the earlier manager is left, so this manager hands over the next prompt. The
		// record must contain this manager's id before the prompt is handed over. If the attempt has
		// ended, the change is not urgent: the attempt does not get another prompt, and callers might
		// already have seen its end.
		mark.instance = ""
		if a.live() {
			st.mustKeep(t)
		} else {
			st.changed(t)
		}
	}
	if t.sess != nil && !r.missing && f.kind == failedNot {
		t.sess.foreign = false
		st.changed(t)
	}
	if a.live() && recovering && a.turn > 0 && (r.missing || f.kind == failedNot && r.prompt != PromptMissing) { // the session might have the prompt
		st.handedOver(a, !r.missing && (r.follow || r.prompt == PromptAnswered || r.prompt == PromptInterrupted))
	}
	switch {
	case !a.live():
		st.rest(a, now)
	case r.stopped:
		st.end(t, CauseInterrupted, reasonNotRestored(f.reason), now)
	case f.kind != failedNot && !r.missing: // the session might still be running, so it is stopped as usual
		a.recovering, a.loose = a.cl.runner, a.loose || a.cl.starter
		st.end(t, CauseInterrupted, reasonNotRestored(f.reason), now)
		st.wantCall(a)
	case r.missing && recovering && a.cl.starter && a.turn > 0: // the session might have worked on the prompt before the server deleted it
		st.end(t, CauseSessionGone, reasonSessionLost, now)
	case r.missing && (!recovering && a.turn > 0 || a.turn > 1 || !a.isFirst() || a.heard || t.sess != nil && t.sess.own != nil): // a new session would lack the contents of the old session
		st.end(t, CauseSessionGone, reasonSessionLost, now)
	case a.late && (!recovering || a.turn == 0 || r.missing || r.prompt == PromptMissing || r.prompt == PromptInterrupted && !r.follow):
		st.end(t, CauseInterrupted, st.lateFor, now)
	case !recovering || a.turn == 0: // the session did not get a prompt
		if r.missing {
			st.renew(a, now)
		}
		st.wantCall(a)
	case r.missing:
		st.renew(a, now)
		st.wantCall(a)
	default:
		st.restoredTurn(a, r, now)
	}
}

// restoredTurn continues or ends the attempt, depending on how far the session got with the last
// prompt.
func (st *state) restoredTurn(a *attempt, r restoredSession, now int64) {
	t, mark := a.t, st.storing.task(a.t)
	if r.prompt == PromptMissing { // the same prompt is handed over again, with the same id
		a.turn--
		a.sendAgain()
		st.mustKeep(t)
		st.wantCall(a)
		return
	}
	a.stage, a.continues = stageNone, r.continues && !a.late
	if a.notice != nil {
		st.told(a, now)
	}
	switch {
	case r.follow:
		st.turnContinues(t, now)
		a.turnStart = st.turnOfBefore(a, now)
		a.seen().begin(a.promptID, now)
		a.sight.foreign, a.sight.knownTo = true, longAgo
		a.sight.counted, mark.counted = a.sight.counted.plus(mark.counted), spent{} // the whole turn is read again, and its usage up to mark.counted must not count twice
		for _, id := range r.old {
			a.sight.isOld(id)
		}
		a.sight.needRead = true
		t.sess.cursor = mark.before
		st.phase(a, PhaseTurn)
		if a.asks() {
			st.showQuestion(a)
		}
		st.follow(a)
		st.setDeadline(a, now)
	case r.prompt == PromptAnswered:
		a.turnStart = now
		if r.end.Usage != (Usage{}) {
			s := a.seen()
			s.counted.usage, mark.counted = s.counted.usage.plus(mark.counted.usage), spent{}
		}
		st.turnReturned(a, &r.end, &hostFailure{}, now)
	case r.prompt == PromptInterrupted && r.continues:
		st.supersede(a, now)
	case r.prompt == PromptInterrupted:
		st.end(t, CauseInterrupted, reasonRestart, now)
	default:
		a.loose = a.cl.starter // a starter's session might be in a turn
		st.end(t, CauseInterrupted, reasonRestartUnknown, now)
	}
}

// turnOfBefore returns the time from which the time to live of a starter's turn counts. If the turn
// began so long ago that its time to live is over, the result is a later time. This gives the
// manager enough time to read the session, because the turn might have ended before its time to
// live was over. The time during which the turn waited for an answer does not count.
func (st *state) turnOfBefore(a *attempt, now int64) int64 {
	began := st.storing.task(a.t).turnStart
	if began == 0 {
		return now
	}
	if most := st.limit(limitTimeToLive); most > 0 {
		until := now
		if a.clocksStand() {
			until = a.t.questions().from
		}
		began = max(began, until+a.ran-int64(most)+int64(st.limit(limitCreateTimeout)))
	}
	return min(began, now)
}

// The method "renew" makes sure that a new session is created for the attempt, because the old
// session no longer exists or must not get another prompt.
func (st *state) renew(a *attempt, now int64) {
	t := a.t
	if t.sess == nil {
		return
	}
	st.sessions.remove(t.sess)
	t.sess = nil
	a.stage = stageCreate
	a.turn, a.promptID, a.startFrom = 0, "", now
	a.sendAgain()
	if st.storing == nil {
		return
	}
	mark := st.storing.task(t)
	mark.sessions++
	mark.saved, mark.since, mark.counted = nil, now, spent{}
	st.mustKeep(t)
}
