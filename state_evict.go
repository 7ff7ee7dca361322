package bgagent

import "slices"

// The code in this file evicts ended tasks. Tasks with settled notices are evicted first. Texts are
// dropped before records. Each of the most recently evicted tasks leaves a tombstone, so that its
// id is reported as expired and not as unknown.

// retention holds the ended tasks. In each list, the next task to be evicted comes first.
type retention struct {
	settled   expiry // ended tasks whose notices are settled
	unsettled expiry // ended tasks whose notices are still owed
	size      int    // number of ended tasks that have a record
	text      int64  // bytes of the results in the records

	// The tombstone of a task is found by a linear search, because searches are rare and an index
	// would cost time for every evicted task. Sessions have an index, because every new session is
	// looked up.
	tombs []tombstone // ring buffer of tombstones
	next  int         // index of the next tombstone to write once the ring is full
	free  int         // number of free entries, starting at the index in the field "next"

	// The field "unsaid" holds the prompts that never reached the sessions of tombstones. Few
	// tombstones have such a prompt, so a field in every tombstone would waste memory.
	unsaid map[*session]string

	// The field "budgets" holds the budgets of the tasks that have tombstones. For tasks without a
	// budget, it holds their usage, so that a limit set by a resume also counts this usage.
	budgets map[*session]*taskBudget
}

// expiry is a linked list of ended tasks. The links are in the outcomes of the tasks.
type expiry struct {
	first, last *task
	text        *task // first task in the list that might still have its text; nil if there is none
}

// The type "expiring" is the position of an ended task in its line. A line is one of the two lists
// of type expiry.
type expiring struct {
	line       *expiry // nil if the task is not in a line
	prev, next *task
	since      int64
}

// push appends a task to the line.
func (q *expiry) push(t *task, now int64) {
	t.fin.expiring = expiring{line: q, prev: q.last, since: now}
	if q.last != nil {
		q.last.fin.next = t
	} else {
		q.first = t
	}
	q.last = t
	if q.text == nil {
		q.text = t
	}
}

// The method "stay" removes the task from its line, if it is in a line.
func (t *task) stay() {
	if t.fin == nil || t.fin.line == nil {
		return
	}
	at := t.fin.expiring
	q := at.line
	if q.text == t {
		q.text = at.next
	}
	if at.prev != nil {
		at.prev.fin.next = at.next
	} else {
		q.first = at.next
	}
	if at.next != nil {
		at.next.fin.prev = at.prev
	} else {
		q.last = at.prev
	}
	t.fin.expiring = expiring{}
}

// tombstone holds the data that the manager keeps about an expired task.
type tombstone struct {
	id     string
	sess   *session // nil if the task never had a session
	parent string
	root   string
	kind   *kind
	title  string
	no     int32 // highest attempt number that the task has used
	status Status
	stuck  bool // the session did not stop
}

// sessionID returns the id of the task's session, or "".
func (t *tombstone) sessionID() string {
	if t.sess == nil {
		return ""
	}
	return t.sess.id
}

// The method "expirable" puts an ended task into its line if the task can be evicted. It is called
// when an attempt has ended or become quiet, and when the notice about an attempt has been settled.
func (st *state) expirable(t *task, now int64) {
	if t.live() || t.run != nil && !t.run.overrun || t.notice == NoticeNone || t.is(flagForgotten) || st.storing != nil && t.owesPast() {
		return
	}
	if !st.kept(t) {
		st.storing.ended = append(st.storing.ended, t)
		return
	}
	q := &st.keep.settled
	if !t.notice.Settled() {
		if st.pushes(t.up) {
			return // the task cannot be evicted before its notice is delivered or abandoned
		}
		q = &st.keep.unsettled
	}
	if t.fin.line != q {
		t.stay()
		q.push(t, now)
	}
	st.due.evict = true
}

// The method "pushes" reports whether the manager delivers the notices of n itself. If it does
// not, the host must take the notices, and tasks can be evicted while their notices are owed.
func (st *state) pushes(n *node) bool {
	if p := n.parentTask(); p != nil {
		return p.live()
	}
	return !n.gone && !n.scope && !st.closing && st.cfg.Wake != WakeNever && st.cfg.notifies
}

// evict drops texts and records that exceed the retention limits.
func (st *state) evict(now int64) {
	k := &st.keep
	k.size = len(st.tasks) - st.live
	if d := st.limit(limitRetention); d > 0 {
		for t := k.settled.first; t != nil; t = k.settled.first {
			if at := t.fin.since + int64(d); at > now {
				if by := &st.deadlines.keep; *by == 0 || at < *by {
					*by = at
				}
				break
			}
			st.expire(t)
		}
	}
	for limit := st.cfg.RetainText; limit >= 0 && k.text > limit && (st.dropText(&k.settled) || st.dropText(&k.unsettled)); {
		continue
	}
	for limit := st.cfg.RetainTasks; limit >= 0 && k.size > limit; {
		t := k.settled.first
		if t == nil {
			// Do not abandon an owed notice if waiting is enough: some tasks with settled notices
			// can be evicted as soon as they are quiet. With a store, an owed notice is never
			// abandoned here.
			if t = k.unsettled.first; t == nil || st.storing != nil || k.size-st.inStopTime <= limit {
				break
			}
			st.settleTask(t, NoticeGivenUp, now)
		}
		st.expire(t)
	}
}

// dropText drops the text of the oldest task in the line whose text is still in memory. It returns
// false if there is no such task.
func (st *state) dropText(q *expiry) bool {
	for t := q.text; t != nil; t = q.text {
		q.text = t.fin.next
		if t.fin.result != "" {
			st.keep.text -= int64(len(t.fin.result))
			t.fin.result = ""
			t.set(flagDropped, true)
			return true
		}
	}
	return false
}

// If the task's result was dropped from memory and the store still has it, storedResult returns the
// name of the result in the store. Otherwise, it returns "".
func (st *state) storedResult(t *task) string {
	if st.storing == nil || !t.is(flagDropped) || t.fin == nil {
		return ""
	}
	name := textOf("result", t.no)
	if in, has := st.storing.task(t).texts[name]; has && in <= st.storing.committed {
		return name
	}
	return ""
}

// expire drops the record of an ended task and leaves a tombstone.
func (st *state) expire(t *task) { st.drop(t, true) }

// The method "drop" removes the record of an ended task. If tomb is true, a tombstone remains;
// otherwise, the id and the session become unknown.
func (st *state) drop(t *task, tomb bool) {
	st.emit(EventExpired, t)
	st.logTask(logExpired, t)
	// If the task was restored from a tombstone or the store, t.run is nil, but the session might
	// still be marked as stuck.
	stuck := t.run != nil || t.sess != nil && t.sess.stuck
	if a := t.run; a != nil { // the attempt could not be stopped; its session is no longer polled
		st.unquiet--
		st.unfollow(a)
		st.deadlines.attempts.set(&a.alarm, a, 0)
		t.run = nil
	}
	t.stay()
	st.forgetError(t)
	t.setReclaimable(false)
	st.ackTask(t, st.now)
	st.orphan(t) // before the last record is made: the next process would load the record if tasks were still below the task
	st.keepLast(t)
	t.set(flagForgotten, true)
	st.keep.text -= int64(len(t.fin.result))
	st.keep.size--
	num, _ := parseID(t.id())
	delete(st.tasks, num)
	if tomb {
		st.bury(t, stuck)
	} else {
		st.removeSession(t)
	}
	t.set(flagUnanswered, false)
	st.forgetCall(t)
	if !st.pushes(t.up) { // the parent must take its notices itself and might never do so, so the task's debts are dropped
		t.up.forgetDebts(t, NoticeGivenUp)
		t.up.compact()
	}
	t.up.unlink(t)
	st.touchNode(t.up)
	if len(st.waiters[t]) == 0 { // a waiter would still need the result
		// Free the texts now, because a batch might keep the task object for a long time.
		t.text, t.fin.result, t.fin.prog = "", "", nil
	}
	st.wakeTask(t)
	st.shrink()
}

// forgetError asks the manager to forget the host error that ended the task.
func (st *state) forgetError(t *task) {
	if t.fin.failed {
		st.rare().after.expired = append(st.rare().after.expired, t.id())
	}
}

// The method "adopt" makes n the parent of the node "child". The node "child" belongs to the session
// of an expired task, and n is the node of that task's parent. In this way, the tasks below the
// expired task stay in the tree. Notices for the expired task's session can no longer be delivered,
// so they wait until a host takes them.
func (n *node) adopt(child *node, status Status) {
	child.up, child.lapsed, child.scope, child.gone = n, true, true, status != Completed
	n.subs = append(n.subs, child)
}

// shrink copies the maps if most of their entries have been deleted, because a Go map never returns
// memory on its own.
func (st *state) shrink() {
	if st.peak < 1024 || len(st.tasks)*4 > st.peak {
		return
	}
	st.tasks, st.calls, st.sessions.all, st.nodes = remade(st.tasks), remade(st.calls), remade(st.sessions.all), remade(st.nodes)
	st.peak = len(st.tasks)
}

func remade[K comparable, V any](old map[K]V) map[K]V {
	fresh := make(map[K]V, len(old))
	for k, v := range old {
		fresh[k] = v
	}
	return fresh
}

// bury adds a tombstone for the task. If there are too many tombstones, it drops the oldest ones and
// asks their clients to forget the sessions.
func (st *state) bury(t *task, stuck bool) {
	k := &st.keep
	i := len(k.tombs)
	if i < tombstones {
		k.tombs = append(k.tombs, tombstone{})
	} else {
		if k.free == 0 {
			for ; k.free < tombstonesGo; k.free++ {
				st.dropTomb((k.next + k.free) % tombstones)
			}
		}
		i, k.next, k.free = k.next, (k.next+1)%tombstones, k.free-1
	}
	tomb := &k.tombs[i]
	root := t.up.top()
	tomb.id, tomb.title, tomb.no, tomb.status = t.id(), t.title, st.lastNumber(t), t.status
	tomb.parent, tomb.root, tomb.kind, tomb.stuck = t.up.session, root.session, t.kind, stuck
	if s := t.sess; s != nil {
		tomb.sess, s.tomb, s.task = s, int32(i)+1, nil
		if t.fin.unsaid {
			k.keepUnsaid(s, joined(t.unsaid(), t.text))
		}
		if b := st.spentSoFar(t); b != nil {
			if k.budgets == nil {
				k.budgets = map[*session]*taskBudget{}
			}
			k.budgets[s] = b
		}
	}
}

// orphan gives the tasks below an expired task to the node of the task's parent.
func (st *state) orphan(t *task) {
	if t.sess == nil || t.sess.own == nil {
		return
	}
	n := t.sess.own
	n.of, t.sess.own = nil, nil
	t.up.adopt(n, t.status)
	st.nodeChanged(n)
}

// keepUnsaid keeps prompts that never reached the session of an expired task.
func (k *retention) keepUnsaid(s *session, prompts string) {
	if prompts == "" {
		return
	}
	if k.unsaid == nil {
		k.unsaid = map[*session]string{}
	}
	k.unsaid[s] = prompts
}

func (st *state) dropTomb(i int) {
	k := &st.keep
	tomb := &k.tombs[i]
	if tomb.id == "" { // the task was revived
		return
	}
	if s := tomb.sess; s != nil {
		delete(k.unsaid, s)
		delete(k.budgets, s)
		st.sessions.remove(s)
		st.forgetSession(tomb.kind.cl, s.id)
	}
	st.releaseKind(tomb.kind)
	*tomb = tombstone{}
}

// find returns the tombstone of the task with the given id, or nil.
func (k *retention) find(id string) *tombstone {
	for i := range k.tombs {
		if t := &k.tombs[i]; t.id == id && id != "" {
			return t
		}
	}
	return nil
}

// tomb returns the tombstone of the task that ref names, or nil. ref is the id of the task or of
// its session.
func (st *state) tomb(ref string) *tombstone {
	if tomb := st.keep.find(ref); tomb != nil {
		return tomb
	}
	if s := st.sessions.find(ref); s != nil && s.tomb != 0 {
		return &st.keep.tombs[s.tomb-1]
	}
	return nil
}

// The method "stopped" clears the stuck mark of the task's tombstone and session. The host call
// that did not stop in time has now returned.
func (k *retention) stopped(id string) {
	if tomb := k.find(id); tomb != nil {
		if tomb.stuck = false; tomb.sess != nil {
			tomb.sess.stuck = false
		}
	}
}

// The method "descends" reports whether the session is the task's parent or its root. A tombstone
// does not contain the sessions between the parent and the root.
func (t *tombstone) descends(session string) bool {
	return t.parent == session || t.root == session
}

func (k *retention) descends(id, session string) bool {
	tomb := k.find(id)
	return tomb != nil && tomb.descends(session)
}

// revive makes a new record of a task from its tombstone, so that the method "reopen" can open a
// new attempt. The status of the record is pending, because no transition leads to the task's
// earlier status.
func (st *state) revive(tomb *tombstone, up *node) *task {
	num, _ := parseID(tomb.id)
	t := &task{st: st, ids: tomb.id, title: tomb.title, no: tomb.no, notice: NoticeRead}
	if unsaid := st.keep.unsaid[tomb.sess]; unsaid != "" {
		t.extra().unsaid = unsaid
		delete(st.keep.unsaid, tomb.sess)
	}
	if b := st.keep.budgets[tomb.sess]; b != nil {
		t.extra().budget = b
		delete(st.keep.budgets, tomb.sess)
	}
	t.kind = tomb.kind // the task takes over the tombstone's reference
	t.sess = tomb.sess
	t.sess.task, t.sess.tomb = t, 0
	st.tasks[num] = t
	st.changed(t)
	up.link(t)
	if n := st.nodes[t.sess.id]; n != nil && !up.under(n.session) {
		st.rejoin(n, t)
	}
	*tomb = tombstone{}
	return t
}

// rejoin makes n the node of t's session again, after the record of t expired and was restored.
func (st *state) rejoin(n *node, t *task) {
	old := n.up
	t.sess.own = n
	graft(t.subtree(), n, t.up)
	n.of, n.up = t.sess, nil
	st.joinAccount(n, st.now)
	n.lapsed, n.scope, n.gone = false, false, false
	st.nodeChanged(n)
	st.changedBelow(n)
	if old != nil {
		old.subs = slices.DeleteFunc(old.subs, func(s *node) bool { return s == n })
		st.touchNode(old)
	}
}

// forgetSession requests a call to the client's method ForgetSession, because the session will
// never be used again.
func (st *state) forgetSession(cl *client, session string) {
	if cl == nil || !cl.forgets || session == "" {
		return
	}
	st.forget = append(st.forget, forgotten{cl, session})
	if !st.forgetting {
		st.forgetting = true
		st.rare().after.forget = true
	}
}

type forgotten struct {
	cl      *client
	session string
}
