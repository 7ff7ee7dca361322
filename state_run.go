package bgagent

import (
	"maps"
	"slices"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The code in this file prepares the host calls of attempts, and applies the answers to these calls.

func openTodos(list []Todo) (n int32) {
	for _, t := range list {
		if t.State.Open() {
			n++
		}
	}
	return n
}

// job holds the arguments of one host call. It is filled in under the lock.
type job struct {
	call    hostCall
	spec    SessionSpec
	session string
	prompt  Prompt
	rep     *Reporter
	cursor  Cursor          // if again is set, position up to which the session's messages were read
	again   bool            // the call is callStart, and the session has messages from earlier turns, which must be read first
	restore *SessionRestore // nil unless the call is callRestore
	slot    *sourceSlot     // slot of the attempt; nil without Config.Slots
	rules   []Permission    // copy of the rules for the first prompt of rulesOf; made together with the copy in the field "spec"
	rulesOf *attempt
}

type hostCall uint8

const (
	_ hostCall = iota
	callCreate
	callRun
	callStart
	callWait // wait for the store; then the attempt's next call is prepared again
	callRestore
	callSeal // write the text of the prompt's notice; the text becomes durable with the prompt
)

// beginCall prepares the host call that the attempt's stage requires. It returns false if no call
// may be made now, for example because the attempt has ended or its client has an outage.
func (st *state) beginCall(a *attempt, j *job, now int64) bool {
	toEnd := a.recovering && a.ended && a.t.run == a && !a.overrun // the call only stops processes that an earlier process left behind
	if a.inCall || st.suspend != notSuspended || st.storing != nil && st.storing.over || !a.live() && !toEnd || a.stage == stageNone || !toEnd && (st.awaitsClaim(a) || a.cl.out != nil && st.heldBack(a, now)) {
		return false
	}
	t := a.t
	if st.storing != nil {
		if !toEnd && st.beginWait(a, j) { // a call that only stops old processes does not wait for the store
			return true
		}
		if st.mustCount(a) {
			j.call = callWait
			return true
		}
		if st.mustRestore(a) {
			st.beginRestore(a, j, now)
			return true
		}
		if a.recovering = false; toEnd { // the client cannot stop processes that an earlier process left running
			a.stage = stageNone
			st.rest(a, now)
			return false
		}
	}
	if st.refusesTurn(t, now) {
		return false
	}
	if a.live() && a.aborts > 0 { // an Abort call in flight would stop the next turn
		return false
	}
	if st.slots.Cools() && !st.slots.MayBegin(&t.wait) {
		st.holdForPool(a, now)
		return false
	}
	if !st.hasOwnClaim(a) {
		return false
	}
	a.inCall, a.callEnd = true, now+int64(st.limit(limitCreateTimeout))
	if st.claims != nil {
		j.slot = st.claims.of[t].slot
	}
	if a.stage == stageCreate {
		j.call = callCreate
		st.spec(t, &j.spec)
		j.spec.Permissions, j.rules = t.copiedRules()
		j.rulesOf = a
	} else {
		j.call, j.session, j.again = callStart, t.sess.id, a.mustCatchUp()
		st.prompt(a, j, now)
		if a.cl.runner {
			a.callEnd = 0 // no time limit, because the call returns only when the turn ends
			j.call, j.rep = callRun, a.reporter()
			st.phase(a, PhaseTurn)
		} else if j.again {
			a.catchingUp = true
			j.cursor = t.sess.cursor
			a.callEnd = 0 // handsOver sets the time limit right before the prompt is handed over
		}
	}
	st.setDeadline(a, now)
	return true
}

// wantPrompt records that the attempt's next prompt is due.
func (st *state) wantPrompt(a *attempt) {
	a.stage = stagePrompt
	if st.storing != nil {
		st.storing.task(a.t).before = a.t.sess.cursor
		st.mustKeep(a.t)
	}
}

// copiedRules returns two copies of the task's rules, in one allocation. The client gets copies, because it
// must not be able to change the record. Each call gets its own copy, so that a change in one call does not
// affect another.
func (t *task) copiedRules() (first, second []Permission) {
	n := len(t.kind.rules)
	if n == 0 {
		return nil, nil
	}
	both := make([]Permission, 2*n)
	copy(both, t.kind.rules)
	copy(both[n:], t.kind.rules)
	return both[:n:n], both[n:]
}

// spec fills in the description of the session to create.
func (st *state) spec(t *task, s *SessionSpec) {
	*s = SessionSpec{}
	s.Task, s.Parent, s.Title, s.Depth = t.id(), t.up.session, t.title, t.kind.key.depth
	s.Agent, s.Model = t.kind.key.agent, t.kind.key.model
	if st.storing != nil {
		s.Key, s.Instance = st.storing.keyOf(t), st.storing.instance
	}
	if x := t.more; x != nil {
		s.Directory, s.Metadata = x.directory, maps.Clone(x.metadata) // cloned, because the client must not be able to change the record
	}
}

// The method "prompt" opens the next turn and fills in its prompt. Like the method "spec", it fills
// in a parameter instead of returning the prompt. A returned Prompt would be copied into every stack
// frame. The stack of a new goroutine would then have to grow, which took an eighth of the time of a
// short task.
func (st *state) prompt(a *attempt, j *job, now int64) {
	t, p := a.t, &j.prompt
	if a.promptID == "" {
		a.promptID = t.promptID(a.no, a.turn+1)
	}
	a.turn++
	a.epoch++
	st.turnContinues(t, now)
	a.turnStart, t.sess.active = now, false
	a.activity = now
	if a.cl.starter || a.sight != &nothingSeen {
		a.seen().begin(a.promptID, now)
		if past := t.sess.past; past != nil {
			a.sight.past = past.ids
		}
	}
	*p = Prompt{}
	p.ID, p.Task, p.Attempt, p.Turn, p.Text = a.promptID, t.id(), int(a.no), int(a.turn), a.prompt
	p.Agent, p.Model = t.kind.key.agent, t.kind.key.model
	if j.rulesOf != a {
		j.rules = slices.Clone(t.kind.rules)
	}
	p.Permissions, j.rules, j.rulesOf = j.rules, nil, nil
	if t.more != nil {
		p.System = t.more.system
	}
	if r := a.refused; r != nil {
		p.Unanswered = r.unanswered
	}
	a.continues = false
	if st.storing != nil {
		mark := st.storing.task(t)
		mark.instance, mark.counted, p.Instance = "", spent{}, st.storing.instance
	}
	if a.notice != nil {
		p.Notice = new(a.notice.notice.clone()) // cloned, because the client must not be able to change the record
	} else if a.told != nil { // the prompt is repeated, together with the notice that it contained
		p.Notice = new(a.told.clone())
	}
	if st.claims == nil { // with a SlotSource, the source must confirm the slot before promptBegins is called
		st.promptBegins(a, now)
	}
}

// promptBegins is called when the session is about to get the prompt that st.prompt prepared. A
// runner's call returns only when the turn ends, so the notice and the message in the prompt count
// as delivered when the call begins.
func (st *state) promptBegins(a *attempt, now int64) {
	a.forgot = false
	if !a.cl.runner {
		return
	}
	if a.notice != nil {
		a.told = new(a.notice.notice.clone())
		st.told(a, now)
	}
	st.handedOver(a, true)
}

// clone returns a copy of n that does not share any mutable parts with n.
func (n *Notice) clone() Notice {
	c := *n
	c.Items, c.Batch, c.Questions = slices.Clone(n.Items), slices.Clone(n.Batch), slices.Clone(n.Questions)
	for i := range c.Questions {
		c.Questions[i].Question = *c.Questions[i].Question.clone()
	}
	return c
}

// noteFailure records whether a host call has failed. The manager keeps the error while Err can
// return it.
func (st *state) noteFailure(a *attempt, f failureKind) {
	before := a.failed
	a.failed = f != failedNot
	if before && !a.failed || a.failed && !a.live() {
		st.rare().after.expired = append(st.rare().after.expired, a.t.id())
	}
}

// The method "created" applies the result of CreateSession.
func (st *state) created(a *attempt, id string, f *hostFailure, now int64) {
	a.inCall, a.callEnd, a.stage = false, 0, stageNone
	st.noteFailure(a, f.kind)
	st.answers(a.cl, f.kind, now)
	t := a.t
	if !a.live() {
		st.createdLate(a, id, f, now)
		return
	}
	switch {
	case st.unreached(a, stageCreate, f, now):
		return
	case f.provider != nil && st.refusedAtStart(a, f, now):
		return
	case f.kind != failedNot:
		st.end(t, CauseStartFailed, f.reason, now)
		return
	case id == "":
		st.end(t, CauseStartFailed, reasonNoID, now)
		return
	case t.up.under(id):
		st.end(t, CauseStartFailed, reasonIDAbove(id), now)
		return
	}
	if other := st.bind(t, id); other != nil {
		// Do not abort the other session, because that would stop the task that owns it.
		owner, expired := "", other.tomb != 0
		if expired {
			owner = st.keep.tombs[other.tomb-1].id
		} else {
			owner = other.task.id()
		}
		st.end(t, CauseStartFailed, reasonIDTaken(id, owner, expired), now)
		return
	}
	st.wantPrompt(a)
	st.emit(EventPhase, t)
	st.wantCall(a)
}

// createdLate aborts a session that was created after its attempt had ended. The session is never
// prompted.
func (st *state) createdLate(a *attempt, id string, f *hostFailure, now int64) {
	t := a.t
	switch {
	case id == "" || f.kind != failedNot:
		if t.is(flagForgotten) {
			st.keep.stopped(t.id())
		}
	case t.is(flagForgotten): // the task's record has expired
		if st.sessions.find(id) == nil && !t.up.under(id) {
			st.wantAbortOnce(a, id)
		}
	default:
		if t.sess == nil && !t.up.under(id) {
			st.bind(t, id)
		}
		st.abortLate(a, id, now)
	}
	st.rest(a, now)
}

// turnReturned applies the result of RunTurn.
func (st *state) turnReturned(a *attempt, end *TurnEnd, f *hostFailure, now int64) {
	a.inCall, a.stage = false, stageNone
	st.noteFailure(a, f.kind)
	st.answers(a.cl, f.kind, now)
	if !a.live() {
		st.countLate(a, a.turn, end.Usage, now)
		st.returnedLate(a)
		st.rest(a, now)
		return
	}
	gaveSlot := a.awaitsAnswer() // if the attempt gave its slot back, its turn has begun, and the call cannot be repeated
	st.asksNoMore(a, now)
	if !gaveSlot && st.unreached(a, stagePrompt, f, now) {
		return
	}
	if end.Usage != (Usage{}) {
		p := &a.seen().prog
		p.usage = p.usage.plus(end.Usage)
	}
	o := turnOutcome{cause: CauseTurnEnded, text: end.Text, todos: openTodos(a.sight.prog.todos)}
	if mdtext.Invisible(o.text) && !end.NoText {
		o.text = a.sight.text
	}
	if a.sight.text != "" {
		a.sight.text = ""
		a.sight.pieces.Reset()
	}
	completes := end.Stop == StopUntold || end.Stop == StopEndOfTurn
	if o.provider = f.provider; o.provider == nil && (f.kind != failedNot || !completes) {
		o.provider = a.halted()
	}
	switch {
	case f.kind == failedNoAgent:
		o.cause, o.reason = CauseStartFailed, f.reason
	case f.kind != failedNot && completes:
		o.cause, o.reason = CauseSessionError, f.reason
	case f.kind != failedNot: // the cause follows from the stop reason, and the reason is the error
		o.cause, _ = stopCause(end.Stop, "")
		o.reason = f.reason
	case completes:
		a.output = a.output || end.Text != ""
		o.reason = end.Remark
	default:
		o.cause, o.reason = stopCause(end.Stop, "")
	}
	st.turnOver(a, &o, now)
}

// turnStarted applies the result of StartTurn.
func (st *state) turnStarted(a *attempt, f *hostFailure, now int64) {
	a.inCall, a.callEnd, a.stage = false, 0, stageNone
	a.epoch++
	st.noteFailure(a, f.kind)
	st.answers(a.cl, f.kind, now)
	if !a.live() { // the prompt might have been accepted after the first abort, so abort again
		if f.kind != failedNot && a.turn == 1 {
			a.notTaken()
		}
		st.abortLate(a, a.t.sess.id, now)
		st.rest(a, now)
		return
	}
	if st.unreached(a, stagePrompt, f, now) {
		return
	}
	if f.provider != nil {
		o := turnOutcome{cause: CausePromptFailed, reason: f.reason, provider: f.provider, loose: true}
		st.turnOver(a, &o, now)
		return
	}
	if f.kind != failedNot {
		a.loose = true // the prompt might have been accepted despite the error
		cause := CausePromptFailed
		if f.kind == failedNoAgent {
			cause = CauseStartFailed
		}
		st.end(a.t, cause, f.reason, now)
		return
	}
	if a.notice != nil {
		st.told(a, now)
	}
	st.handedOver(a, true)
	// The turn counts as begun now that the session has the prompt.
	a.sight.answered, a.sight.c.began, a.sight.c.changed = now, now, now
	st.phase(a, PhaseTurn)
	if a.asks() { // the agent asked before the call returned
		st.showQuestion(a)
	}
	st.follow(a)
	st.setDeadline(a, now)
}

// notTaken records that the prompt of an attempt that has ended never reached the session. The next
// attempt will send that prompt together with its own.
func (a *attempt) notTaken() {
	switch t := a.t; {
	case t.no == a.no && t.fin != nil:
		t.fin.unsaid = true
	case t.no > a.no && t.is(flagAwaitsQuiet):
		t.extra().unsaid = a.prompt
	}
	a.t.st.changed(a.t)
}

// handsOver prepares the hand-over of a prompt after the session has been read. It returns false if
// the attempt has ended and must not prompt the session.
func (st *state) handsOver(a *attempt, now int64) bool {
	if !a.live() {
		return false
	}
	a.callEnd = now + int64(st.limit(limitCreateTimeout))
	st.setDeadline(a, now)
	return true
}

// caughtUp records the messages that earlier attempts, or a refused turn that continues, have left
// in the session. It is called right before the attempt prompts the session.
func (st *state) caughtUp(a *attempt, pages []Page) {
	if !a.live() {
		return // the attempt has ended, so its prompt is not handed over
	}
	a.catchingUp = false
	for i, p := range pages {
		if p.Next != "" {
			a.t.sess.cursor = p.Next
			if st.storing != nil {
				st.storing.task(a.t).before = p.Next
				st.mustKeep(a.t)
			}
		}
		if i < len(pages)-maxOld/readPage { // skip these old messages, because only the last messages have ever been seen to change
			continue
		}
		for i := range p.Messages {
			msg := &p.Messages[i]
			st.countOld(a.t, msg, st.now)
			st.countRefused(a, msg)
			a.sight.isOld(msg.ID)
		}
	}
	st.mustKeep(a.t)
}

// bind gives the task its session. If another session has the id, the method "bind" does not change
// anything and returns the other session.
func (st *state) bind(t *task, id string) (other *session) {
	s := &session{id: id, task: t}
	if other = st.sessions.add(s); other != nil {
		return other
	}
	t.sess = s
	if st.storing != nil {
		st.storing.task(t).home = t.kind.cl.home
	}
	if n := st.nodes[id]; n != nil && n.of == nil {
		// A scope with this name existed before the session. Its tasks become children of the
		// session's task.
		n.of, t.sess.own = t.sess, n
		for env := n.nextLeft(); env != nil; env = n.nextLeft() { // the task's next turn reports the debts in the envelope
			n.held.again = append(n.held.again, env)
		}
		st.regraft(n, t)
		st.joinAccount(n, st.now)
	}
	return nil
}

// regraft moves the counts of n to the tree of t. n was a root and has become the node of t's
// session.
func (st *state) regraft(n *node, t *task) {
	if n.up != nil || t.up == n || t.up.under(n.session) {
		// Either there would be a cycle, or a client reported another parent for the node. Leave
		// the node unchanged.
		n.of, t.sess.own = nil, nil
		return
	}
	n.of, t.sess.own = nil, nil // detach n for a moment, so that the function "graft" finds its old root
	graft(n.counts, n, t.up)
	n.of, t.sess.own = t.sess, n
	st.changedBelow(n)
}

// The method "told" settles the notice that the turn's prompt delivered.
func (st *state) told(a *attempt, now int64) {
	env := a.notice
	a.notice = nil
	if n := a.t.sess.own; n != nil && n.env == env {
		st.delivered(n, NoticeDelivered, now)
	}
}

// phase sets the phase of a running attempt.
func (st *state) phase(a *attempt, p Phase) {
	if a.phase != p {
		a.phase = p
		st.emit(EventPhase, a.t)
		st.wakeTask(a.t)
	}
}
