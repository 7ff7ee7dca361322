package bgagent

import (
	"hash/maphash"
	"slices"
)

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
	// Tombstones are looked for by id one after the other, because that is rare
	// and an index would cost every task that goes; by session, which every new
	// session is, there is one.
	tombs []tombstone      // a ring
	nums  []uint64         // the numbers in their ids; 0 for one that was revived
	next  int              // the oldest of the ring, once it is full
	sess  map[uint64]int32 // by the hash of the session's id
	seed  maphash.Seed
}

// expiry is a queue of ended attempts. Entries of tasks that were resumed, or
// that moved from untold to told, are passed over.
type expiry struct {
	list []expiring
	head int
	text int // entries before this one have lost their text
}

type expiring struct {
	t  *task
	no int32
	at int64
}

// tombstone is what remains of an expired task.
type tombstone struct {
	id      string
	session string
	parent  string
	root    string
	kind    *kind
	cursor  Cursor
	title   string
	no      int32
	status  Status
	stuck   bool // it did not stop
}

// current reports whether the entry still speaks of the task as it is.
func (e expiring) current(told bool) bool {
	return e.t != nil && e.t.no == e.no && !e.t.live() && !e.t.is(flagForgotten) && e.t.notice.Settled() == told
}

// expirableLocked is called when an attempt has ended, its notice has been
// settled or it has become quiet.
func (m *BackgroundManager) expirableLocked(t *task, now int64) {
	if t.live() || t.run != nil && !t.run.overrun || t.notice == NoticeNone || t.is(flagForgotten) {
		return
	}
	q := &m.keep.untold
	if t.notice.Settled() {
		q = &m.keep.told
	} else if m.pushesLocked(t.up) {
		return // it will be told soon, or given up
	}
	q.list = append(q.list, expiring{t, t.no, now})
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
		for {
			e, ok := k.told.first(true)
			if !ok {
				break
			}
			if e.at+int64(d) > now {
				m.alarmByLocked(&k.alarm, k, e.at+int64(d))
				break
			}
			k.told.pop()
			m.expireLocked(e.t, now)
		}
	}
	for limit := m.cfg.RetainText; limit >= 0 && k.text > limit && (m.dropTextLocked(&k.told, true) || m.dropTextLocked(&k.untold, false)); {
		continue
	}
	for limit := m.cfg.RetainTasks; limit >= 0 && k.ended > limit; {
		e, ok := k.told.first(true)
		if ok {
			k.told.pop()
		} else if e, ok = k.untold.first(false); ok {
			k.untold.pop()
			m.settleTaskLocked(e.t, NoticeGivenUp, now)
		}
		if !ok {
			break
		}
		m.expireLocked(e.t, now)
	}
}

func (k *retention) ringLocked(m *BackgroundManager, now int64) { m.trimLocked(now) }

// first returns the oldest entry that still holds.
func (q *expiry) first(told bool) (expiring, bool) {
	for q.head < len(q.list) {
		if e := q.list[q.head]; e.current(told) {
			return e, true
		}
		q.pop()
	}
	return expiring{}, false
}

func (q *expiry) pop() {
	q.list[q.head] = expiring{}
	q.head++
	if q.head == len(q.list) {
		*q = expiry{}
	} else if q.head >= 64 && q.head*2 >= len(q.list) {
		rest := make([]expiring, len(q.list)-q.head)
		copy(rest, q.list[q.head:])
		q.list, q.text, q.head = rest, max(q.text-q.head, 0), 0
	}
}

// dropTextLocked drops the text of the oldest entry that has one.
func (m *BackgroundManager) dropTextLocked(q *expiry, told bool) bool {
	for q.text = max(q.text, q.head); q.text < len(q.list); q.text++ {
		e := q.list[q.text]
		if e.current(told) && e.t.fin.result != "" {
			m.keep.text -= int64(len(e.t.fin.result))
			e.t.fin.result = ""
			e.t.set(flagDropped, true)
			q.text++
			return true
		}
	}
	return false
}

// expireLocked drops the record of an ended task.
func (m *BackgroundManager) expireLocked(t *task, now int64) {
	m.emitLocked(EventExpired, t)
	m.logLocked(logExpired, t)
	num, _ := parseID(t.id)
	root, _ := t.up.root()
	tomb := tombstone{
		id: t.id, parent: t.up.session, root: root.session, kind: t.kind, title: t.title, no: t.no, status: t.status,
		stuck: t.run != nil,
	}
	if a := t.run; a != nil { // it could not be stopped: nobody asks its session any more
		m.unquiet--
		m.unwatchLocked(a)
		m.alarmLocked(&a.alarm, a, 0)
		t.run = nil
	}
	if s := t.sess; s != nil {
		tomb.session, tomb.cursor = s.id, s.cursor
		delete(m.sessions, s.id)
	}
	t.set(flagForgotten, true)
	if t.is(flagLost) {
		t.up.lost--
	}
	m.keep.text -= int64(len(t.fin.result))
	m.keep.ended--
	delete(m.tasks, num)
	if t.call != "" {
		if h := m.callHashOf(t); m.calls[h] == t {
			delete(m.calls, h)
		}
	}
	if !m.pushesLocked(t.up) { // nobody may ever take what is owed for earlier attempts
		t.up.forgetDebts(t)
		t.up.compact()
	}
	t.up.unlink(t)
	m.dropNodeLocked(t.up)
	m.keep.bury(tomb, num, m)
	m.pokeLocked(t)
	m.shrinkLocked()
}

// shrinkLocked makes the maps anew when most of their entries have gone: a Go
// map never gives memory back by itself.
func (m *BackgroundManager) shrinkLocked() {
	if m.peak < 1024 || len(m.tasks)*4 > m.peak {
		return
	}
	m.tasks, m.calls, m.sessions, m.nodes = remade(m.tasks), remade(m.calls), remade(m.sessions), remade(m.nodes)
	m.peak = len(m.tasks)
}

func remade[K comparable, V any](old map[K]V) map[K]V {
	fresh := make(map[K]V, len(old))
	for k, v := range old {
		fresh[k] = v
	}
	return fresh
}

// bury adds a tombstone; the oldest one goes when there are too many, and with
// it the last that the client has to keep of its session.
func (k *retention) bury(tomb tombstone, num uint64, m *BackgroundManager) {
	if k.sess == nil {
		k.sess, k.seed = map[uint64]int32{}, m.seed
	}
	i := len(k.tombs)
	if i < tombstones {
		k.tombs, k.nums = append(k.tombs, tombstone{}), append(k.nums, 0)
	} else {
		i = k.next
		k.next = (k.next + 1) % tombstones
	}
	if k.nums[i] != 0 {
		k.unindex(i)
		m.forgetLocked(k.tombs[i].kind.cl, k.tombs[i].session)
		m.releaseKindLocked(k.tombs[i].kind)
	}
	k.tombs[i], k.nums[i] = tomb, num
	if tomb.session != "" {
		k.sess[maphash.String(k.seed, tomb.session)] = int32(i)
	}
}

// unearth takes a tombstone out of the ring: its task lives again.
func (k *retention) unearth(tomb *tombstone, num uint64) {
	i := slices.Index(k.nums, num)
	k.unindex(i)
	k.nums[i] = 0
	*tomb = tombstone{}
}

func (k *retention) unindex(i int) {
	if h := maphash.String(k.seed, k.tombs[i].session); k.sess[h] == int32(i) {
		delete(k.sess, h)
	}
}

func (k *retention) byID(num uint64, id string) *tombstone {
	if i := slices.Index(k.nums, num); i >= 0 && k.tombs[i].id == id {
		return &k.tombs[i]
	}
	return nil
}

// find returns the tombstone with the id, or of the session.
func (k *retention) find(ref string) *tombstone {
	if num, ok := parseID(ref); ok {
		return k.byID(num, ref)
	}
	if k.sess == nil {
		return nil
	}
	if i, ok := k.sess[maphash.String(k.seed, ref)]; ok && k.tombs[i].session == ref {
		return &k.tombs[i]
	}
	return nil
}

// stopped is called when a call that made the task stuck has returned after all.
func (k *retention) stopped(id string) {
	if tomb := k.find(id); tomb != nil {
		tomb.stuck = false
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
	t := &task{id: tomb.id, title: tomb.title, no: tomb.no, debt: -1, status: tomb.status, notice: NoticeRead}
	t.kind = tomb.kind // and its reference
	t.sess = &session{id: tomb.session, cl: t.kind.cl, task: t, cursor: tomb.cursor}
	if n := m.nodes[tomb.session]; n != nil && n.of != nil {
		// Its tasks were counted at a root that may have been forgotten, too.
		top, _ := n.root()
		n.of, t.sess.own = t.sess, n
		live := t.subtreeLive()
		top.tree -= live
		top, _ = up.root()
		top.tree += live
	}
	m.tasks[num] = t
	m.sessions[t.sess.id] = t.sess
	up.link(t)
	m.keep.unearth(tomb, num)
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

// tellForgotten calls ForgetSession until there is nothing more to forget. A
// call that panics or ends the goroutine is the host's loss alone.
func (m *BackgroundManager) tellForgotten() {
	for {
		m.mu.Lock()
		list := m.forget
		m.forget, m.forgetting = nil, len(list) > 0
		m.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for i := range list {
			m.tellForgottenOne(list, i)
		}
	}
}

func (m *BackgroundManager) tellForgottenOne(list []forgotten, i int) {
	returned := false
	defer func() {
		if !returned && recover() == nil {
			m.spawn(goForget, func() {
				for i++; i < len(list); i++ {
					m.tellForgottenOne(list, i)
				}
				m.tellForgotten()
			})
		}
	}()
	list[i].cl.forgetter.ForgetSession(list[i].session)
	returned = true
}
