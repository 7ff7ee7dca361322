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
	alarm  alarm

	trimming bool
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

// expirableLocked is called when an attempt has ended, its notice has been
// settled or it has become quiet.
func (m *BackgroundManager) expirableLocked(t *task, now int64) {
	if t.live() || t.run != nil && !t.run.overrun || t.notice == NoticeNone || t.is(flagForgotten) {
		return
	}
	q := &m.keep.told
	if !t.notice.Settled() {
		if m.pushesLocked(t.up) {
			return // it will be told soon, or given up
		}
		q = &m.keep.untold
	}
	if t.fin.line != q {
		t.stay()
		q.push(t, now)
	}
	m.trimLocked(now)
}

// pushesLocked reports whether what is owed to the node reaches it without its
// doing. What only waits to be taken may have to go for want of room.
func (m *BackgroundManager) pushesLocked(n *node) bool {
	if p := n.parentTask(); p != nil {
		return p.live()
	}
	return !n.gone && !n.scope && !m.closing && m.cfg.Wake != WakeNever && m.canNotify()
}

// trimLocked drops what is over the limits.
func (m *BackgroundManager) trimLocked(now int64) {
	k := &m.keep
	if k.trimming { // settling a notice that has to go comes back here
		return
	}
	k.trimming = true
	defer func() { k.trimming = false }()
	k.ended = len(m.tasks) - m.live
	if d := m.cfg.Retention; d > 0 {
		for t := k.told.first; t != nil; t = k.told.first {
			if at := t.fin.since + int64(d); at > now {
				m.alarmByLocked(&k.alarm, k, at)
				break
			}
			m.expireLocked(t, now)
		}
	}
	for limit := m.cfg.RetainText; limit >= 0 && k.text > limit && (m.dropTextLocked(&k.told) || m.dropTextLocked(&k.untold)); {
		continue
	}
	for limit := m.cfg.RetainTasks; limit >= 0 && k.ended > limit; {
		t := k.told.first
		if t == nil {
			if t = k.untold.first; t == nil {
				break
			}
			m.settleTaskLocked(t, NoticeGivenUp, now)
		}
		m.expireLocked(t, now)
	}
}

func (k *retention) ringLocked(m *BackgroundManager, now int64) { m.trimLocked(now) }

// dropTextLocked drops the text of the oldest task in the line that has one.
func (m *BackgroundManager) dropTextLocked(q *expiry) bool {
	for t := q.text; t != nil; t = q.text {
		q.text = t.fin.next
		if t.fin.result != "" {
			m.keep.text -= int64(len(t.fin.result))
			t.fin.result = ""
			t.set(flagDropped, true)
			return true
		}
	}
	return false
}

// expireLocked drops the record of an ended task.
func (m *BackgroundManager) expireLocked(t *task, now int64) {
	m.emitLocked(EventExpired, t)
	m.logLocked(logExpired, t)
	stuck := t.run != nil
	if a := t.run; a != nil { // it could not be stopped: nobody asks its session any more
		m.unquiet--
		m.unwatchLocked(a)
		m.alarmLocked(&a.alarm, a, 0)
		t.run = nil
	}
	t.stay()
	t.set(flagForgotten, true)
	t.setLost(false)
	m.keep.text -= int64(len(t.fin.result))
	m.keep.ended--
	num, _ := parseID(t.id())
	delete(m.tasks, num)
	m.buryLocked(t, stuck)
	t.set(flagUnanswered, false)
	m.forgetCallLocked(t)
	if !m.pushesLocked(t.up) { // nobody may ever take what is owed for earlier attempts
		t.up.forgetDebts(t)
		t.up.compact()
	}
	t.up.unlink(t)
	m.dropNodeLocked(t.up)
	if len(m.watchers[t]) == 0 { // else they are about to be given it
		// A batch may remember the end for long.
		t.text, t.fin.result, t.fin.prog = "", "", nil
	}
	m.pokeLocked(t)
	m.shrinkLocked()
}

// adopt makes the node of a session whose task has expired a child of the task's
// parent, so that what descends from it keeps its place in the tree. Nobody is
// there to be told: what is owed to it waits to be taken.
func (n *node) adopt(child *node, status Status) {
	child.up, child.lapsed, child.scope, child.gone = n, true, true, status != Completed
	n.subs = append(n.subs, child)
}

// shrinkLocked makes the maps anew when most of their entries have gone: a Go
// map never gives memory back by itself.
func (m *BackgroundManager) shrinkLocked() {
	if m.peak < 1024 || len(m.tasks)*4 > m.peak {
		return
	}
	m.tasks, m.calls, m.sessions.all, m.nodes = remade(m.tasks), remade(m.calls), remade(m.sessions.all), remade(m.nodes)
	m.peak = len(m.tasks)
}

func remade[K comparable, V any](old map[K]V) map[K]V {
	fresh := make(map[K]V, len(old))
	for k, v := range old {
		fresh[k] = v
	}
	return fresh
}

// buryLocked puts up the tombstone of a task. When there are too many the oldest
// ones go, and with them the last that the clients have to keep of their
// sessions.
func (m *BackgroundManager) buryLocked(t *task, stuck bool) {
	k := &m.keep
	i := len(k.tombs)
	if i < tombstones {
		k.tombs = append(k.tombs, tombstone{})
	} else {
		if k.free == 0 {
			for ; k.free < tombstonesGo; k.free++ {
				m.dropTombLocked((k.next + k.free) % tombstones)
			}
		}
		i, k.next, k.free = k.next, (k.next+1)%tombstones, k.free-1
	}
	tomb := &k.tombs[i]
	root, _ := t.up.root()
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

func (m *BackgroundManager) dropTombLocked(i int) {
	k := &m.keep
	tomb := &k.tombs[i]
	if tomb.id == "" { // its task lives again
		return
	}
	if s := tomb.sess; s != nil {
		m.sessions.remove(s)
		m.forgetLocked(tomb.kind.cl, s.id)
	}
	m.releaseKindLocked(tomb.kind)
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

// tombLocked returns the tombstone of a task by its id or its session's, or nil.
func (m *BackgroundManager) tombLocked(ref string) *tombstone {
	if tomb := m.keep.find(ref); tomb != nil {
		return tomb
	}
	if s := m.sessions.find(ref); s != nil && s.tomb != 0 {
		return &m.keep.tombs[s.tomb-1]
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

// reviveLocked makes a record again of which only the tombstone is left.
func (m *BackgroundManager) reviveLocked(tomb *tombstone, up *node) *task {
	num, _ := parseID(tomb.id)
	t := &task{m: m, ids: tomb.id, title: tomb.title, no: tomb.no, debt: -1, status: tomb.status, notice: NoticeRead}
	if tomb.unsaid != "" {
		t.extra().unsaid = tomb.unsaid
	}
	t.kind = tomb.kind // and its reference
	t.sess = tomb.sess
	t.sess.task, t.sess.tomb = t, 0
	m.tasks[num] = t
	up.link(t)
	if n := m.nodes[t.sess.id]; n != nil && !up.under(n.session) {
		old := n.up
		top, _ := n.root()
		n.of, n.up, t.sess.own = t.sess, nil, n
		n.lapsed, n.scope, n.gone = false, false, false
		live := t.subtreeLive()
		top.tree -= live
		top, _ = up.root()
		top.tree += live
		if old != nil {
			old.subs = slices.DeleteFunc(old.subs, func(s *node) bool { return s == n })
			m.dropNodeLocked(old)
		}
	}
	*tomb = tombstone{}
	return t
}

// forgetLocked tells a client that a session will never be asked for again.
func (m *BackgroundManager) forgetLocked(cl *client, session string) {
	if cl == nil || cl.forgetter == nil || session == "" {
		return
	}
	m.forget = append(m.forget, forgotten{cl, session})
	if !m.forgetting {
		m.forgetting = true
		m.spawn(goForget, m.tellForgotten)
	}
}

type forgotten struct {
	cl      *client
	session string
}

// tellForgotten calls ForgetSession until there is nothing more to forget.
func (m *BackgroundManager) tellForgotten() {
	for {
		m.mu.Lock()
		list := m.forget
		m.forget, m.forgetting = nil, len(list) > 0
		m.mu.Unlock()
		if len(list) == 0 {
			return
		}
		m.each(goForget, 0, len(list), func(i int) { list[i].cl.forgetter.ForgetSession(list[i].session) }, m.tellForgotten)
	}
}
