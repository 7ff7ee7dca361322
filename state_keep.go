package bgagent

import "slices"

// What is kept of ended tasks, and for how long. Tasks with settled notices are evicted first, and
// texts before records. Tombstones stay for the last evicted tasks, so that their ids are not
// reported as unknown.

// retention holds the ended tasks in the order of their eviction.
type retention struct {
	settled   expiry // their notices are settled
	unsettled expiry
	size      int   // number of ended tasks that have a record
	text      int64 // bytes of results in the records

	// Tombstones are searched by task one by one: that is rare, and an index would cost time for
	// every evicted task. Every new session is searched for, so sessions have an index of their
	// own.
	tombs []tombstone // a ring
	next  int         // place of the next one once the ring is full
	free  int         // number of free places from next on
}

// expiry is a line of ended tasks, linked through their outcomes.
type expiry struct {
	first, last *task
	text        *task // the first task that may still have its text; nil if none has
}

// expiring is the place of an ended task in its line.
type expiring struct {
	line       *expiry // nil for none
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

// stay takes the task out of its line, if it is in one.
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

// tombstone is what is kept of an expired task.
type tombstone struct {
	id     string
	sess   *session // nil if it never had one
	parent string
	root   string
	kind   *kind
	title  string
	no     int32
	unsaid string // prompts that never reached the session
	status Status
	stuck  bool // it did not stop
}

// sessionID returns the id of the task's session, or "".
func (t *tombstone) sessionID() string {
	if t.sess == nil {
		return ""
	}
	return t.sess.id
}

// expirable puts an ended task into its line once it may be evicted. It is called when an attempt
// ends, its notice is settled, or it becomes quiet.
func (st *state) expirable(t *task, now int64) {
	if t.live() || t.run != nil && !t.run.overrun || t.notice == NoticeNone || t.is(flagForgotten) {
		return
	}
	q := &st.keep.settled
	if !t.notice.Settled() {
		if st.pushes(t.up) {
			return // its notice will soon be delivered or given up
		}
		q = &st.keep.unsettled
	}
	if t.fin.line != q {
		t.stay()
		q.push(t, now)
	}
	st.due.evict = true
}

// pushes reports whether the manager delivers n's notices itself. Notices that
// the host must collect can be evicted.
func (st *state) pushes(n *node) bool {
	if p := n.parentTask(); p != nil {
		return p.live()
	}
	return !n.gone && !n.scope && !st.closing && st.cfg.Wake != WakeNever && st.cfg.notifies
}

// evict removes what exceeds the retention limits.
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
			// Never give up an owed notice while a task with a settled one only has to become quiet
			// before it can go.
			if t = k.unsettled.first; t == nil || k.size-st.inStopTime <= limit {
				break
			}
			st.settleTask(t, NoticeGivenUp, now)
		}
		st.expire(t)
	}
}

// dropText drops the text of the oldest task in the line that still has one.
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

// expire drops the record of an ended task.
func (st *state) expire(t *task) {
	st.emit(EventExpired, t)
	st.logTask(logExpired, t)
	stuck := t.run != nil
	if a := t.run; a != nil { // it could not be stopped; nobody polls its session any more
		st.unquiet--
		st.unfollow(a)
		st.deadlines.attempts.set(&a.alarm, a, 0)
		t.run = nil
	}
	t.stay()
	st.forgetError(t)
	t.set(flagForgotten, true)
	t.setReclaimable(false)
	st.keep.text -= int64(len(t.fin.result))
	st.keep.size--
	num, _ := parseID(t.id())
	delete(st.tasks, num)
	st.bury(t, stuck)
	t.set(flagUnanswered, false)
	st.forgetCall(t)
	if !st.pushes(t.up) { // nobody may ever take the notices of earlier attempts
		t.up.forgetDebts(t, NoticeGivenUp)
		t.up.compact()
	}
	t.up.unlink(t)
	st.touchNode(t.up)
	if len(st.waiters[t]) == 0 { // otherwise its waiters still need the result
		// A batch may keep the task for a long time.
		t.text, t.fin.result, t.fin.prog = "", "", nil
	}
	st.wakeTask(t)
	st.shrink()
}

// forgetError lets go of the host error that ended the task.
func (st *state) forgetError(t *task) {
	if t.fin.failed {
		st.rare().after.expired = append(st.rare().after.expired, t.id())
	}
}

// adopt makes child, the node of a session whose task has expired, a child of the task's parent, so
// that its descendants keep their place in the tree. Nobody can notify it any more, so its notices
// wait to be taken.
func (n *node) adopt(child *node, status Status) {
	child.up, child.lapsed, child.scope, child.gone = n, true, true, status != Completed
	n.subs = append(n.subs, child)
}

// shrink copies the maps once most of their entries are gone. A Go map never returns memory by
// itself.
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

// bury keeps a tombstone of the task. If there are too many, it drops the oldest ones, and their
// clients forget those sessions.
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
	tomb.id, tomb.title, tomb.no, tomb.status = t.id(), t.title, t.no, t.status
	tomb.parent, tomb.root, tomb.kind, tomb.stuck = t.up.session, root.session, t.kind, stuck
	if s := t.sess; s != nil {
		tomb.sess, s.tomb, s.task = s, int32(i)+1, nil
		if t.fin.unsaid {
			tomb.unsaid = joined(t.unsaid(), t.text)
		}
		if n := s.own; n != nil {
			n.of, s.own = nil, nil
			t.up.adopt(n, t.status)
		}
	}
}

func (st *state) dropTomb(i int) {
	k := &st.keep
	tomb := &k.tombs[i]
	if tomb.id == "" { // its task was revived
		return
	}
	if s := tomb.sess; s != nil {
		st.sessions.remove(s)
		st.forgetSession(tomb.kind.cl, s.id)
	}
	st.releaseKind(tomb.kind)
	*tomb = tombstone{}
}

// find returns the tombstone of the task with the id, or nil.
func (k *retention) find(id string) *tombstone {
	for i := range k.tombs {
		if t := &k.tombs[i]; t.id == id && id != "" {
			return t
		}
	}
	return nil
}

// tomb returns the tombstone of a task by its id or its session's, or nil.
func (st *state) tomb(ref string) *tombstone {
	if tomb := st.keep.find(ref); tomb != nil {
		return tomb
	}
	if s := st.sessions.find(ref); s != nil && s.tomb != 0 {
		return &st.keep.tombs[s.tomb-1]
	}
	return nil
}

// stopped clears the stuck mark of a tombstone, because the call that did not stop has returned.
func (k *retention) stopped(id string) {
	if tomb := k.find(id); tomb != nil {
		if tomb.stuck = false; tomb.sess != nil {
			tomb.sess.stuck = false
		}
	}
}

// descends reports whether the session launched the task, directly or as its root. A tombstone
// remembers no session in between.
func (t *tombstone) descends(session string) bool {
	return t.parent == session || t.root == session
}

func (k *retention) descends(id, session string) bool {
	tomb := k.find(id)
	return tomb != nil && tomb.descends(session)
}

// revive makes a new record of a task from its tombstone, for reopen. No transition leads back to
// the status that the task had, so the record begins as pending.
func (st *state) revive(tomb *tombstone, up *node) *task {
	num, _ := parseID(tomb.id)
	t := &task{st: st, ids: tomb.id, title: tomb.title, no: tomb.no, debt: -1, notice: NoticeRead}
	if tomb.unsaid != "" {
		t.extra().unsaid = tomb.unsaid
	}
	t.kind = tomb.kind // the task takes over the tombstone's reference
	t.sess = tomb.sess
	t.sess.task, t.sess.tomb = t, 0
	st.tasks[num] = t
	up.link(t)
	if n := st.nodes[t.sess.id]; n != nil && !up.under(n.session) {
		old := n.up
		t.sess.own = n
		graft(t.subtree(), n, up)
		n.of, n.up = t.sess, nil
		n.lapsed, n.scope, n.gone = false, false, false
		if old != nil {
			old.subs = slices.DeleteFunc(old.subs, func(s *node) bool { return s == n })
			st.touchNode(old)
		}
	}
	*tomb = tombstone{}
	return t
}

// forgetSession tells a client that the session will never be used again.
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
