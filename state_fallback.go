package bgagent

import (
	"slices"

	"github.com/bgagent/bgagent/internal/slots"
)

// The code in this file lets attempts continue with another model if their model provider refuses
// their requests.
//
//	turnRefused -> park -> untilFallback -> falls -> reconsider: fallBack
//	turnRefused, cannot wait -> park, falls -> reconsider: fallBack
//	fallBack -> replace, park -> a slot of the next model's pool -> nextTurn -> the turn goes on
//
// An attempt that continues with another model is superseded. The attempt that takes its place is
// parked until the pool of the next model grants it a slot.

// The type "fallen" describes the models on which a task ran before its current model.
type fallen struct {
	tried []string
	why   string // why the task has its current model, for people
	calls bool   // an attempt with one of the earlier models might have called a tool
	steps int32  // number of attempts that continued with another model
}

// The method "fallen" returns the data about the task's earlier models, or nil.
func (t *task) fallen() *fallen {
	if t.more == nil {
		return nil
	}
	return t.more.fallen
}

// The method "fallback" returns why the task runs with a fallback model, or "" if it runs with its
// own model.
func (t *task) fallback() string {
	if f := t.fallen(); f != nil {
		return f.why
	}
	return ""
}

// chooseModel gives the task the model that a caller named.
func (st *state) chooseModel(t *task, model string) {
	st.changeModel(t, model, true)
	if t.more != nil {
		t.more.fallen = nil
	}
}

// nextModel returns the model with which the task continues if its model provider refuses its
// requests. It returns "" if there is none.
func (st *state) nextModel(t *task) string {
	k := &t.kind.key
	if len(st.cfg.Fallback) == 0 || k.named || k.model == "" {
		return ""
	}
	var tried []string
	if f := t.fallen(); f != nil {
		tried = slices.Clip(f.tried)
	}
	return nextFallback(st.cfg.Fallback, append(tried, k.model), func(model string) bool {
		space, name := countedAs(model, k.agent)
		h := st.slots.For(space, name, k.agent)
		return st.slots.Cools() && st.isShut(&h, st.now)
	})
}

// The method "fell" moves the task to another model. why holds the reason, for people.
func (st *state) fell(t *task, to, why string) *fallen {
	f := &fallen{why: why}
	if was := t.fallen(); was != nil {
		f.tried, f.calls, f.steps = slices.Clip(was.tried), was.calls, was.steps
	}
	f.tried = append(f.tried, t.kind.key.model)
	t.extra().fallen = f
	st.changeModel(t, to, false)
	st.changed(t)
	return f
}

// isShut reports whether the provider will refuse requests for so long that the pool's tasks use
// other models instead of waiting. It returns false if the provider has not given a time.
func (st *state) isShut(h *slots.Handle, now int64) bool {
	c := st.coolDownOf(h)
	return c.Refusals > 0 && c.Reset > now+st.fallbackAfter()
}

// fallbackAfter returns how long a task waits for its provider if there are other models.
func (st *state) fallbackAfter() int64 { return max(int64(st.limit(limitFallbackAfter)), 0) }

// The method "shut" reports whether tasks of the given kind, if they are waiting for their pool, must
// continue with other models. This is the case if the pool is shut (see isShut) or has been cooling
// down without progress for the time that fallbackAfter returns.
func (st *state) shut(k *kind, now int64) bool {
	if len(st.cfg.Fallback) == 0 || !st.slots.Cools() {
		return false
	}
	c := st.coolDownOf(&k.slot)
	lasts := c.Refusals > 0 && !c.Proved && c.Until > now && c.Since+st.fallbackAfter() <= now
	return lasts || st.isShut(&k.slot, now)
}

// If a pool cools down for longer than the time that fallbackAfter returns, watchPool makes sure
// that the tasks in its line continue with other models.
func (st *state) watchPool(k *kind, now int64) {
	if len(st.cfg.Fallback) == 0 || !st.slots.Cools() {
		return
	}
	c := st.coolDownOf(&k.slot)
	if at := c.Since + st.fallbackAfter(); c.Refusals > 0 && !c.Proved && at > now {
		if d := &st.deadlines; d.shut == 0 || at < d.shut {
			d.shut = at
		}
	}
}

// ringShut is called when the alarm set by watchPool goes off.
func (st *state) ringShut(now int64) {
	st.deadlines.shut = 0
	st.leaveShut(now)
	for _, t := range st.tasks {
		if st.pausedUntil(t, now) > 0 {
			st.watchPool(t.kind, now)
		}
	}
}

// The method "instead" returns the model with which a pending task must start if the pool of the
// task's own model is shut. It returns "" if the task keeps its model.
func (st *state) instead(t *task, now int64) string {
	way := t.kind.cl.fallbacks[t.kind.key.agent]
	if !st.shut(t.kind, now) || way == FallbackByItself || way == FallbackInNewSession && t.sess != nil {
		return ""
	}
	return st.nextModel(t)
}

// passShut gives a pending task the next model if the pool of its model is shut. No attempt is
// superseded, because none has begun.
func (st *state) passShut(t *task, now int64) {
	if to := st.instead(t, now); to != "" {
		st.fell(t, to, reasonFellBack(t.kind.key.model, to, &refused{}))
	}
	st.watchPool(t.kind, now)
}

// leaveShut lets the tasks that wait for shut pools continue with their next models, in launch
// order.
func (st *state) leaveShut(now int64) {
	if st.recovery.due || st.suspend != notSuspended {
		return
	}
	var list []*task
	for _, t := range st.tasks {
		if st.leavesPool(t, now) {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, byLaunch)
	for _, t := range list {
		if t.status == Running {
			st.falls(t.run)
			continue
		}
		st.releaseSlot(t)
		st.queue(t, now)
	}
}

// cooledByOther is called when another manager with the same slots has begun or extended a cool-down.
func (st *state) cooledByOther(now int64) {
	st.wakePaused()
	leaves := false
	for _, k := range st.kinds {
		leaves = leaves || st.shut(k, now)
		st.watchPool(k, now)
	}
	if leaves {
		st.leaveShut(now)
	}
}

// leavesPool reports whether a task that is waiting for its pool must continue with its next model,
// because the pool is shut.
func (st *state) leavesPool(t *task, now int64) bool {
	switch a := t.run; {
	case t.status == Pending:
		return st.isInLine(t) && st.instead(t, now) != ""
	case t.status == Running && a.awaitsProvider() && !a.refused.falls:
		return st.shut(t.kind, now) && st.mayFallBack(a, a.refused.kind, a.refused.step)
	}
	return false
}

// mayFallBack reports whether, after a refusal of the given kind, the attempt can continue with
// another model. step says how the attempt would continue with its current model. kind is zero if
// the turn could not begin because other turns were refused.
func (st *state) mayFallBack(a *attempt, kind ProviderErrorKind, step nextStep) bool {
	switch kind {
	case 0, ProviderRateLimited, ProviderOverloaded, ProviderBroken, ProviderQuota, ProviderUnknownModel:
	default:
		return false
	}
	if a.late || a.cl.fallbacks[a.t.kind.key.agent] == FallbackByItself || st.nextModel(a.t) == "" {
		return false
	}
	return !a.needsNewSession(step) || a.mayBeginAgain()
}

// needsNewSession reports whether the attempt needs a new session to continue with another model.
func (a *attempt) needsNewSession(step nextStep) bool {
	return step == stepNewSession || a.cl.fallbacks[a.t.kind.key.agent] == FallbackInNewSession
}

// isFirst reports whether the attempt is the first one of its task, or whether all attempts before
// it were replaced by attempts with other models. Such an attempt works on the prompt of the
// launch.
func (a *attempt) isFirst() bool {
	if f := a.t.fallen(); f != nil {
		return a.no == 1+f.steps
	}
	return a.no == 1
}

// mayBeginAgain reports whether a new session may get the prompt of the launch. This is allowed if
// nothing would be done twice or forgotten: the agent has not called a tool, and no turn has
// received a message or a notice.
func (a *attempt) mayBeginAgain() bool {
	if f := a.t.fallen(); !a.isFirst() || f != nil && f.calls || a.mayHaveCalled() || a.t.ownNode() != nil {
		return false
	}
	b := a.t.mail()
	return b == nil || !slices.ContainsFunc(b.letters, func(l *letter) bool { return l.turn > 0 })
}

// mayHaveCalled reports whether the agent might have called a tool. When a starter's turn is refused,
// the messages that show its tool calls might not have been read yet.
func (a *attempt) mayHaveCalled() bool {
	return a.sight.prog.toolCalls > 0 || a.cl.starter && a.turn > 0
}

// planFallback decides when a refused attempt continues with another model. If the argument "may"
// is false, the attempt keeps its model. If the argument "ends" is true, the attempt cannot wait
// for its model provider.
func (st *state) planFallback(a *attempt, may, ends bool, now int64) {
	r := a.refused
	r.fell, r.fallAt, r.falls = "", 0, false
	if !may {
		return
	}
	r.fallAt = r.since + st.fallbackAfter()
	if r.falls = ends || r.fallAt <= now || r.retryAt > r.fallAt; r.falls {
		r.fallAt = 0
	}
}

// fallbackAt returns the time at which a parked attempt continues with another model, or 0 if it
// does not.
func (st *state) fallbackAt(a *attempt) int64 {
	if !a.awaitsProvider() || st.recovery.due {
		return 0
	}
	return a.refused.fallAt
}

// fallbackDue is called at the time that fallbackAt returned.
func (st *state) fallbackDue(a *attempt, now int64) {
	r := a.refused
	r.fallAt = 0
	st.changed(a.t)
	if r.kind != 0 || st.pausedUntil(a.t, now) > 0 { // an attempt that is only waiting for a slot keeps its model
		if st.mayFallBack(a, r.kind, r.step) {
			st.falls(a)
		}
	}
}

// The method "falls" makes a parked attempt continue with another model at the end of the update.
func (st *state) falls(a *attempt) {
	a.refused.falls, a.refused.fallAt, a.refused.limit = true, 0, 0
	st.leaveLine(a)
	st.changed(a.t)
	st.touchAttempt(a)
}

// refusedAtStart lets an attempt continue with another model if its session could not be created
// because of its model. It returns false if the attempt cannot continue with another model.
func (st *state) refusedAtStart(a *attempt, f *hostFailure, now int64) bool {
	e := f.provider
	if !st.mayFallBack(a, e.Kind, stepNewSession) {
		return false
	}
	a.refused = &refused{
		kind: e.Kind, status: e.Status, message: shownMessage(e), step: stepNewSession, prompt: a.prompt, since: now, limit: now + parkMost,
		ends: CauseStartFailed, endsWhy: f.reason,
	}
	st.planFallback(a, true, true, now)
	st.parkForProvider(a, now)
	st.touchAttempt(a)
	return true
}

// fallBack replaces a parked attempt with one that continues with the next model. While an Abort
// call is in flight, fallBack does nothing, because the call would stop the next turn.
func (st *state) fallBack(a *attempt, now int64) {
	t, r := a.t, a.refused
	if a.aborts > 0 {
		return
	}
	if !st.mayFallBack(a, r.kind, r.step) { // the attempt can no longer fall back, for example, because the next model was refused while the attempt waited
		st.staysOnModel(a, now)
		return
	}
	from, to, renews := t.kind.key.model, st.nextModel(t), a.needsNewSession(r.step)
	why := reasonFellBack(from, to, r)
	if r.fell != "" { // the attempt itself is the result of a fallback and has not begun a turn
		why = reasonFellBack(from, to, &refused{})
	}
	if a.cl.starter && len(a.sight.msgs) > 0 && !renews {
		st.rememberLast(a)
	}
	next := st.replace(a, why, now)
	f := st.fell(t, to, why)
	f.calls = f.calls || a.mayHaveCalled()
	f.steps++
	st.emit(EventStarted, t)
	st.forwardMail(a, next, "")
	next.endCause = a.endCause
	next.refused = r
	*r = refused{
		kind: r.kind, status: r.status, message: r.message, step: r.step, unanswered: r.unanswered, prompt: r.prompt, told: r.told,
		since: now, limit: now + parkMost, fell: why,
	}
	if renews {
		r.step, r.unanswered, r.prompt, r.told = stepNewSession, "", joined(t.unsaid(), t.text), nil
		st.forgetOld(next, now)
	} else {
		next.text, next.output, next.forgot = a.text, a.output, a.forgot
		next.heard = a.heard || a.turn > 0 && !a.forgot
	}
	st.parkForProvider(next, now)
}

// staysOnModel makes an attempt wait for its model provider, because the attempt can no longer
// continue with another model. If the attempt cannot wait either, staysOnModel ends it.
func (st *state) staysOnModel(a *attempt, now int64) {
	r := a.refused
	if r.ends != CauseNone {
		st.end(a.t, r.ends, r.endsWhy, now)
		return
	}
	r.falls, r.limit = false, now+parkMost
	st.lookAgain(a)
	st.setDeadline(a, now)
}

// forgetOld makes sure that a new session is created for the attempt, which has not begun a turn.
func (st *state) forgetOld(a *attempt, now int64) {
	old := a.t.sess
	if old == nil {
		return
	}
	st.renew(a, now)
	st.forgetSession(a.cl, old.id)
}
