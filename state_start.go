package bgagent

import (
	"cmp"
	"hash/maphash"
	"maps"
	"slices"
)

// The code in this file admits a launch or a resume, and starts a task that got a slot.

// sameCall returns the task that an earlier call with the same hash launched, or nil.
func (st *state) sameCall(by Caller, hash uint64, foreground bool) *task {
	t := st.calls[hash]
	if t == nil || t.call != by.ToolCallID || st.callHashOf(t) != hash {
		return nil
	}
	st.awaitCall(t, foreground)
	return t
}

// awaitCall is called when a repeated foreground call must wait for the task. The task might have
// been moved to the background since the first call.
func (st *state) awaitCall(t *task, foreground bool) {
	if foreground && t.live() {
		t.set(flagForeground|flagUnanswered, true)
	}
}

// forgetCall forgets the tool call that began the latest attempt, if that attempt has ended and no
// caller waits for it. The id of the call is needed only to recognize a retry, and a retry can no
// longer follow. A later call with the same id is a new call.
func (st *state) forgetCall(t *task) {
	if t.live() || t.is(flagUnanswered) {
		return
	}
	if t.call != "" {
		if h := st.callHashOf(t); st.calls[h] == t {
			delete(st.calls, h)
		}
	}
	if t.more != nil {
		t.more.again = 0
		st.changed(t)
	}
}

// The method "admit" creates the task, or returns an error if a limit or the state of the manager
// forbids it.
func (st *state) admit(by Caller, p *plan, foreground bool, now int64) (*task, error) {
	if st.closing || st.draining {
		return nil, ErrClosed
	}
	var hash uint64
	if by.ToolCallID != "" {
		hash = callHash(st.callSeed, by, p.asked[0], p.asked[1])
		if t := st.sameCall(by, hash, foreground); t != nil {
			return t, nil
		}
	}
	n, err := st.launchNode(by.Session, p.chain)
	if err != nil {
		return nil, err
	}
	top, depth := n.root()
	if depth >= st.cfg.MaxDepth {
		return nil, pastDepth(depth, st.cfg.MaxDepth)
	}
	if err := cmp.Or(st.room(top), st.treeUsedUp(top, p.in.TreeBudget)); err != nil {
		return nil, err
	}

	t := &task{st: st, up: n, title: p.in.Description, text: p.in.Prompt, call: by.ToolCallID, queued: now, no: 1}
	st.register(t)
	if hash != 0 && st.calls[hash] == nil {
		st.calls[hash] = t
	}
	p.key.depth = depth + 1
	t.kind = st.kind(p.key, p.cl, p.agentRules)
	if hash != 0 && st.callHashOf(t) != hash { // Config.PrepareLaunch changed the input
		t.extra().call = hash
	}
	t.set(flagForeground|flagUnanswered, foreground)
	if p.values != (launchValues{}) {
		t.extra().values = p.values
	}
	if len(p.in.Metadata) > 0 {
		t.extra().metadata = maps.Clone(p.in.Metadata)
	}
	if dir := cmp.Or(p.in.Directory, n.directory()); dir != "" {
		t.extra().directory = dir
	}
	if p.in.System != "" {
		t.extra().system = p.in.System
	}
	n.link(t)
	st.countLive(t, +1)
	st.admitBudget(t, p, now)
	st.emit(EventLaunched, t)
	st.logTask(logLaunched, t)
	st.queue(t, now)
	return t, nil
}

// register gives a new task its id.
func (st *state) register(t *task) {
	for {
		id, num := st.newID("bg_", firstPrompt)
		if st.tasks[num] == nil && num != 0 {
			t.ids = id
			st.tasks[num] = t
			st.peak = max(st.peak, len(st.tasks))
			return
		}
	}
}

// room returns an error if the root session has too many live tasks, or if writes to the store
// fail.
func (st *state) room(top *node) error {
	if err := st.storeFails(); err != nil {
		return err
	}
	if limit := st.cfg.MaxTasksPerRoot; limit != Unlimited && top.counts.live >= limit {
		parked, until := st.parkedInTree(top, st.now)
		return tooManyTasks(top.session, top.counts.live, limit, parked, until)
	}
	return nil
}

// launchNode returns the node of the launching session, linked to the parents in chain.
func (st *state) launchNode(session string, chain []SessionInfo) (*node, error) {
	n := st.node(session)
	if n.gone {
		return nil, sessionIsGone(session)
	}
	switch t := n.parentTask(); {
	case t == nil:
	case !t.live() && t.status != Completed:
		return nil, taskWasEnded(t.id(), t.cause)
	case t.is(flagAwaitsQuiet), st.mayEndAgain(t): // the new attempt has not begun, so the caller is a turn of the earlier attempt
		return nil, taskNotBegun(t.id())
	}
	for at := n; len(chain) > 0 && at.of == nil && at.up == nil; chain = chain[1:] {
		at.dir = chain[0].Directory
		st.nodeChanged(at)
		if chain[0].Parent == "" {
			break
		}
		up := st.node(chain[0].Parent)
		if up.under(at.session) {
			return nil, parentCycle(session)
		}
		graft(at.counts, at, up)
		at.up = up
		up.subs = append(up.subs, at)
		st.joinAccount(at, st.now)
		st.nodeChanged(at)
		st.changedBelow(at)
		at = up
	}
	return n, nil
}

// callHash returns the hash of a call. The hash is never 0. If the seed is zero, the hash of a call
// is the same in every process.
func callHash(seed maphash.Seed, by Caller, agent, prompt string) uint64 {
	if seed == (maphash.Seed{}) {
		return storedHash(by.Session, by.ToolCallID, agent, prompt)
	}
	var h maphash.Hash
	h.SetSeed(seed)
	for _, s := range [...]string{by.Session, by.ToolCallID, agent, prompt} {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return max(h.Sum64(), 1)
}

// callHashOf returns the hash of the call that launched the task.
func (st *state) callHashOf(t *task) uint64 {
	if t.more != nil && t.more.call != 0 {
		return t.more.call
	}
	return callHash(st.callSeed, Caller{t.up.session, t.call}, t.kind.key.agent, t.text)
}

// The method "queue" puts a pending task in line for a slot.
func (st *state) queue(t *task, now int64) {
	if d := st.limit(limitQueueTimeToLive); d > 0 && t.extra().ttl == nil {
		t.more.ttl = &alarm{}
		st.deadlines.queued.set(t.more.ttl, t, now+int64(d))
	}
	if t.is(flagAwaitsQuiet) {
		return
	}
	t.wait.Owner = t
	st.passShut(t, now)
	st.askForSlot(t, false, st.slots.Ticket())
}

// askForSlot takes a slot for the task. If none is free, it puts the task at the head or at the end
// of the line; ticket decides its place among the other tasks at that end. If the task gets a slot,
// the method "settle" continues with it. In a suspended manager, askForSlot does nothing, because
// no task begins.
func (st *state) askForSlot(t *task, head bool, ticket uint64) {
	if st.suspend != notSuspended {
		return
	}
	top, _ := t.up.root()
	t.wait.Root = &top.slots
	if st.claims != nil {
		st.newClaim(t, head, ticket)
	}
	if st.slots.Take(&t.wait, &t.kind.slot, head, ticket) {
		st.due.granted = append(st.due.granted, t)
	}
}

// ringQueued ends a pending task whose queue time to live has passed.
func (st *state) ringQueued(t *task, now int64) {
	if t.status != Pending {
		return
	}
	if end := st.queueEnd(t, now); end > now { // the cool-down of the pool does not count
		st.deadlines.queued.set(t.more.ttl, t, end)
		st.changed(t)
	} else {
		st.end(t, CauseQueueTimeToLive, reasonQueued(st.limit(limitQueueTimeToLive)), now)
	}
}

// The method "granted" is called when a task has been granted a slot: the task starts, or its next
// turn begins. If the task no longer holds the slot, nothing happens.
func (st *state) granted(t *task, now int64) {
	if t.is(flagSlot) || !st.slots.Holds(&t.wait) || st.suspend != notSuspended || !st.mayStart(t) {
		return
	}
	t.set(flagSlot, true)
	switch {
	case t.status == Pending:
		st.start(t, now)
	case t.status == Running && t.run != nil && t.run.wantTurn:
		st.nextTurn(t.run, now)
	default:
		panic("bgagent: bug: a slot for task " + t.id() + ", which is " + t.status.String() + " and wants none")
	}
}

// The method "start" begins the attempt of a pending task that got its slot.
func (st *state) start(t *task, now int64) {
	if st.refusesTurn(t, now) {
		return
	}
	t.transition(Running, CauseNone)
	if x := t.more; x != nil && x.ttl != nil {
		st.deadlines.queued.set(x.ttl, t, 0)
		x.ttl = nil
	}
	a := &attempt{t: t, no: t.no, cl: t.kind.cl, started: now, phase: PhaseStarting, prompt: t.text, stage: stageCreate, sight: &nothingSeen}
	if t.more != nil {
		a.ctx.values = t.more.values
		a.prompt = joined(t.more.unsaid, t.text)
	}
	a.activity = now
	t.run = a
	if t.sess != nil {
		st.wantPrompt(a)
	}
	st.emit(EventStarted, t)
	st.logTask(logStarted, t)
	st.wakeTask(t)
	st.wantCall(a)
}

// wantCall records that the attempt's next host call is due. If the current update was made with
// BackgroundManager.step, the worker that made it can make the call. Otherwise, the method
// "release" starts a worker for it.
func (st *state) wantCall(a *attempt) {
	st.changed(a.t)
	if st.fx.after.start == nil {
		st.fx.after.start = a
	} else {
		st.fx.after.startEnd.nextRun = a
	}
	st.fx.after.startEnd = a
}

// ref returns the task with the given id, or the task whose session has that id. If the task's
// record has expired, the method "ref" returns the tombstone instead.
func (st *state) ref(by Caller, ref string) (*task, *tombstone, error) {
	if s := st.session(ref); s != nil {
		ref = s.task.id()
	}
	if num, ok := parseID(ref); ok && st.tasks[num] != nil {
		t, err := st.findOwn(by, ref)
		return t, nil, err
	}
	if tomb := st.tomb(ref); tomb != nil {
		if by.Session != "" && !tomb.descends(by.Session) {
			return nil, nil, taskError(ref, ErrNotDescendant)
		}
		if tomb.sess != nil && tomb.sess.id == ref {
			return nil, tomb, nil
		}
	}
	t, err := st.findOwn(by, ref)
	return t, nil, err
}

func (st *state) kindOf(by Caller, ref string) (kindKey, error) {
	t, tomb, err := st.ref(by, ref)
	switch {
	case err != nil:
		return kindKey{}, err
	case tomb != nil:
		return tomb.kind.key, nil
	}
	return t.kind.key, nil
}

func (st *state) resume(values launchValues, by Caller, chain []SessionInfo, ref string, in ResumeInput, foreground bool, now int64) (*task, error) {
	if st.closing || st.draining {
		return nil, ErrClosed
	}
	t, tomb, err := st.ref(by, ref)
	if err != nil {
		return nil, err
	}
	var again uint64
	if by.ToolCallID != "" {
		var id string
		if t != nil {
			id = t.id()
		} else {
			id = tomb.id
		}
		if again = callHash(st.callSeed, by, id, in.Prompt); t != nil && t.more != nil && t.more.again == again {
			st.awaitCall(t, foreground)
			return t, nil
		}
	}
	if t != nil && !t.live() && !st.kept(t) {
		return nil, stillLive(t.id(), st.shown(t))
	}
	if err := resumable(t, tomb); err != nil {
		return nil, err
	}
	if t != nil && st.isRefused(t) {
		return nil, recordRefused(t.id())
	}
	up, err := st.resumeNode(by, chain, t, tomb)
	if err != nil {
		return nil, err
	}
	budget, err := st.resumeBudget(t, tomb, up, by, in.Budget)
	if err = cmp.Or(st.room(up.top()), err); err != nil {
		st.touchNode(up)
		return nil, err
	}
	var revived Status
	if t == nil {
		revived = tomb.status
		t = st.revive(tomb, up)
	}
	st.beforeResume(t, revived)
	st.reopen(t, up, now)
	t.text = in.Prompt
	if again != 0 || t.more != nil {
		t.extra().again = again
	}
	t.set(flagForeground|flagUnanswered, foreground)
	if values != (launchValues{}) {
		t.extra().values = values
	}
	if in.Model != "" {
		st.chooseModel(t, in.Model)
	}
	st.countLive(t, +1)
	st.reopenBudget(t, budget, now)
	t.set(flagAwaitsQuiet, t.run != nil)
	st.emit(EventResumed, t)
	st.logTask(logResumed, t)
	st.queue(t, now)
	return t, nil
}

// The function "resumable" returns an error if the task, or the task of the tombstone, cannot be
// resumed.
func resumable(t *task, tomb *tombstone) error {
	switch {
	case t == nil && tomb.stuck:
		return taskError(tomb.id, ErrNotStopped)
	case t == nil && tomb.sess.gone:
		return sessionWasDeleted(tomb.id, tomb.sess.id)
	case t == nil:
		return nil
	case t.live():
		return stillLive(t.id(), t.status)
	case t.sess != nil && t.sess.stuck, t.run != nil && t.run.overrun:
		return taskError(t.id(), ErrNotStopped)
	case t.sess != nil && t.sess.gone:
		return sessionWasDeleted(t.id(), t.sess.id)
	}
	return nil
}

// resumeNode returns the node that will get the notice about the new attempt. If a session resumes
// the task, this is the node of that session. If the host resumes the task, this is the node of the
// task's parent, or the nearest node above it to which a notice can still be delivered.
func (st *state) resumeNode(by Caller, chain []SessionInfo, t *task, tomb *tombstone) (*node, error) {
	if by.Session != "" {
		return st.launchNode(by.Session, chain)
	}
	var first *node
	if t != nil {
		first = t.up
	} else {
		first = st.node(tomb.parent)
	}
	n := first
	for p := n.parentTask(); n.lapsed || p != nil && (!p.live() || st.mayEndAgain(p)); p = n.parentTask() {
		up := n.above()
		if up == nil { // no node above the expired task is known; the notice waits until a host takes it
			break
		}
		n = up
	}
	st.touchNode(first)
	return n, nil
}

// reopen prepares an ended task for a new attempt.
func (st *state) reopen(t *task, up *node, now int64) {
	if f := t.fin; f != nil {
		x := t.extra()
		if f.unsaid {
			x.unsaid = joined(x.unsaid, t.text)
		} else {
			x.unsaid = ""
		}
		x.past = append(slices.Clip(x.past), Attempt{
			Number: int(t.no), Status: t.status, Cause: t.cause, Reason: f.reason,
			Queued: st.wall(t.queued), Started: st.wall(f.started), Ended: st.wall(f.ended), Notice: t.notice,
		})
		if len(x.past) > pastAttempts {
			st.ackAttempt(t, int32(x.past[0].Number), now) // the record will no longer contain the oldest attempt
			x.past = slices.Clone(x.past[1:])
		}
		st.notePast(t)
	}
	t.set(flagUnanswered, false)
	st.forgetCall(t)
	t.setReclaimable(false)
	if t.notice == NoticeOwed {
		t.set(flagOldDebts, true)
	}
	t.set(flagDropped, false)
	if old := t.up; old != up {
		if t.notice == NoticeOwed { // abandon the debts for the earlier attempts, because they are owed to the old parent
			st.settleTask(t, NoticeGivenUp, now)
			t.set(flagOldDebts, false)
		}
		old.forgetDebts(t, NoticeGivenUp)
		old.compact()
		graft(t.subtree(), old, up)
		old.unlink(t)
		up.link(t)
		st.touchNode(old)
		if t.sess != nil && t.sess.own != nil {
			st.changedBelow(t.sess.own)
		}
	}
	if t.stay(); t.fin != nil {
		st.forgetError(t)
		st.keep.text -= int64(len(t.fin.result))
		t.fin = nil
	}
	if t.status != Pending { // a record made by the method "revive" is already pending
		t.transition(Pending, CauseNone)
	}
	t.no = st.lastNumber(t) + 1
	t.notice, t.queued = NoticeNone, now
	st.madeProgress(t)
}
