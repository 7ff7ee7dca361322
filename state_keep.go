package bgagent

import "slices"

// What is kept of ended tasks, and for how long. What has been told goes first,
// texts before records; of the last ones that went a tombstone stays, so that
// nobody reads "unknown" of a task that was.

// retention holds the ended tasks in the order in which they may go.
type retention struct {
	told   expiry // their parent knows
	untold expiry
	ended  int   // ended tasks in the registry
	text   int64 // bytes of results in the registry

	// Tombstones are looked for by task one after the other, because that is
	// rare and an index would cost every task that goes. By session, which every
	// new session is, the sessions' own index finds them.
	tombs []tombstone // a ring
	next  int         // where the next one goes, once the ring is full
	free  int         // places from there on whose tombstones have gone
}

// expiry is a line of ended tasks, which are linked by their outcomes.
type expiry struct {
	first, last *task
	text        *task // those before it have no text any more; nil when none has
}

// expiring is where an ended task stands among those that may go.
type expiring struct {
	line       *expiry // nil for none
	prev, next *task
	since      int64
}

// push puts a task at the end of the line.
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

// stay takes the task out of its line, if it stands in one.
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

// tombstone is what remains of an expired task.
type tombstone struct {
	id     string
	sess   *session // nil when it never had one
	parent string
	root   string
	kind   *kind
	title  string
	no     int32
	unsaid string // prompts that the session never got
	status Status
	stuck  bool // it did not stop
}

// sessionID returns the id of its session, or nothing.
func (t *tombstone) sessionID() string {
	if t.sess == nil {
		return ""
	}
	return t.sess.id
}

// expirable is called when an attempt has ended, its notice has been
// settled or it has become quiet.
func (st *state) expirable(t *task, now int64) {
	if t.live() || t.run != nil && !t.run.overrun || t.notice == NoticeNone || t.is(flagForgotten) {
		return
	}
	q := &st.keep.told
	if !t.notice.Settled() {
		if st.pushes(t.up) {
			return // it will be told soon, or given up
		}
		q = &st.keep.untold
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

// evict drops what is over the limits of what is kept.
func (st *state) evict(now int64) {
	k := &st.keep
	k.ended = len(st.tasks) - st.live
	if d := st.cfg.Retention; d > 0 {
		for t := k.told.first; t != nil; t = k.told.first {
			if at := t.fin.since + int64(d); at > now {
				if by := &st.deadlines.keep; *by == 0 || at < *by {
					*by = at
				}
				break
			}
			st.expire(t)
		}
	}
	for limit := st.cfg.RetainText; limit >= 0 && k.text > limit && (st.dropText(&k.told) || st.dropText(&k.untold)); {
		continue
	}
	for limit := st.cfg.RetainTasks; limit >= 0 && k.ended > limit; {
		t := k.told.first
		if t == nil {
			// What is owed is not given up while something that has been told
			// only has to become quiet before it can go.
			if t = k.untold.first; t == nil || k.ended-st.stopping <= limit {
				break
			}
			st.settleTask(t, NoticeGivenUp, now)
		}
		st.expire(t)
	}
}

// dropText drops the text of the oldest task in the line that has one.
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
	if a := t.run; a != nil { // it could not be stopped: nobody asks its session any more
		st.unquiet--
		st.unfollow(a)
		st.deadlines.attempts.set(&a.alarm, a, 0)
		t.run = nil
	}
	t.stay()
	st.forgetError(t)
	t.set(flagForgotten, true)
	t.setLost(false)
	st.keep.text -= int64(len(t.fin.result))
	st.keep.ended--
	num, _ := parseID(t.id())
	delete(st.tasks, num)
	st.bury(t, stuck)
	t.set(flagUnanswered, false)
	st.forgetCall(t)
	if !st.pushes(t.up) { // nobody may ever take what is owed for earlier attempts
		t.up.forgetDebts(t, NoticeGivenUp)
		t.up.compact()
	}
	t.up.unlink(t)
	st.touchNode(t.up)
	if len(st.waiters[t]) == 0 { // else they are about to be given it
		// A batch may remember the end for long.
		t.text, t.fin.result, t.fin.prog = "", "", nil
	}
	st.wakeTask(t)
	st.shrink()
}

// forgetError has the host forget the error that ended the task.
func (st *state) forgetError(t *task) {
	if t.fin.failed {
		st.rare().expired = append(st.rare().expired, t.id())
	}
}

// adopt makes the node of a session whose task has expired a child of the task's
// parent, so that what descends from it keeps its place in the tree. Nobody is
// there to be told: what is owed to it waits to be taken.
func (n *node) adopt(child *node, status Status) {
	child.up, child.lapsed, child.scope, child.gone = n, true, true, status != Completed
	n.subs = append(n.subs, child)
}

// shrink makes the maps anew when most of their entries have gone: a Go
// map never gives memory back by itself.
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

// bury puts up the tombstone of a task. When there are too many the oldest
// ones go, and with them the last that the clients have to keep of their
// sessions.
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
	if tomb.id == "" { // its task lives again
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

// stopped is called when a call that made the task stuck has returned after all.
func (k *retention) stopped(id string) {
	if tomb := k.find(id); tomb != nil {
		if tomb.stuck = false; tomb.sess != nil {
			tomb.sess.stuck = false
		}
	}
}

// descends reports whether the session had launched the task, as far as the
// tombstone tells: directly, or as the root of the chain.
func (t *tombstone) descends(session string) bool {
	return t.parent == session || t.root == session
}

func (k *retention) descends(id, session string) bool {
	tomb := k.find(id)
	return tomb != nil && tomb.descends(session)
}

// revive makes a record again of which only the tombstone is left.
func (st *state) revive(tomb *tombstone, up *node) *task {
	num, _ := parseID(tomb.id)
	t := &task{st: st, ids: tomb.id, title: tomb.title, no: tomb.no, debt: -1, status: tomb.status, notice: NoticeRead}
	if tomb.unsaid != "" {
		t.extra().unsaid = tomb.unsaid
	}
	t.kind = tomb.kind // and its reference
	t.sess = tomb.sess
	t.sess.task, t.sess.tomb = t, 0
	st.tasks[num] = t
	up.link(t)
	if n := st.nodes[t.sess.id]; n != nil && !up.under(n.session) {
		old := n.up
		t.sess.own = n
		graft(account{live: t.subtreeLive()}, n, up)
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

// forgetSession tells a client that a session will never be asked for again.
func (st *state) forgetSession(cl *client, session string) {
	if cl == nil || !cl.forgets || session == "" {
		return
	}
	st.forget = append(st.forget, forgotten{cl, session})
	if !st.forgetting {
		st.forgetting = true
		st.rare().forget = true
	}
}

type forgotten struct {
	cl      *client
	session string
}
