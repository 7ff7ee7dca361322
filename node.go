package bgagent

import "slices"

// node is a session that has delegated: a root session, a scope, or the session
// of a task.
type node struct {
	session string
	of      *session // set when it is a task's own
	up      *node    // its parent, for a session that was looked up, or whose task has expired
	subs    []*node  // the nodes whose up it is
	dir     string
	first   *task // tasks, oldest first
	last    *task
	live    int // tasks of it that are pending or running
	tree    int // on a root: live tasks in the whole tree
	kids    int
	gone    bool // the host said that it does not exist any more
	lapsed  bool // it was a task's own, whose record has expired

	owed    []debt   // what has ended and has not been told; settled ones have no task
	head    int      // all of owed before it are settled
	nOwed   int      // those that are not
	oldest  int64    // when the oldest of owed came
	urgent  int64    // when something came that does not wait for the batch; 0 for nothing
	members []member // ended attempts of the batch that is open
	closed  []member // of batches that have closed and have not been told
	omitted int      // members that were left out because there were too many
	lost    int      // tasks whose notice was given up and not taken since

	env      *envelope // what is being delivered, or to be tried again
	adrift   *envelope // given up while it was being delivered
	busy     *client   // it was busy when last looked at
	scope    bool      // nobody can notify it
	retry    int64     // not before
	trying   int64     // since when it could not be told what is due; 0 when it could
	fails    int       // looks at its status in a row that told nothing
	untold   int       // those of them that were answered
	alarm    alarm
	waiters  []chan struct{}
	delivery bool // a goroutine delivers to it
}

// parentTask returns the task whose session n is, or nil.
func (n *node) parentTask() *task {
	if n.of == nil {
		return nil
	}
	return n.of.task
}

// above returns the node that n descends from, or nil for a root.
func (n *node) above() *node {
	if t := n.parentTask(); t != nil {
		return t.up
	}
	return n.up
}

// root returns the top of the chain and how many steps it is away.
func (n *node) root() (top *node, depth int) {
	for top = n; top.above() != nil; depth++ {
		top = top.above()
	}
	return top, depth
}

// nodeLocked returns the node of a session, made when there is none.
func (m *BackgroundManager) nodeLocked(session string) *node {
	n := m.nodes[session]
	if n == nil {
		n = &node{session: session}
		m.nodes[session] = n
		switch s := m.sessions.find(session); {
		case s == nil:
		case s.tomb == 0:
			n.of, s.own = s, n
		default:
			tomb := &m.keep.tombs[s.tomb-1]
			if up := m.nodeLocked(tomb.parent); !up.under(session) {
				up.adopt(n, tomb.status)
			}
		}
	}
	return n
}

// under reports whether n descends from the session.
func (n *node) under(session string) bool {
	for ; n != nil; n = n.above() {
		if n.session == session {
			return true
		}
	}
	return false
}

// each calls f for every task that descends from n.
func (n *node) each(f func(*task)) {
	for t := n.first; t != nil; {
		next := t.next
		f(t)
		if t.sess != nil && t.sess.own != nil {
			t.sess.own.each(f)
		}
		t = next
	}
	for _, sub := range n.subs {
		sub.each(f)
	}
}

// directory returns where the session works, as far as it is known.
func (n *node) directory() string {
	if t := n.parentTask(); t != nil {
		if t.more != nil {
			return t.more.directory
		}
		return ""
	}
	return n.dir
}

// link makes t the youngest task of n.
func (n *node) link(t *task) {
	t.up, t.prev, t.next = n, n.last, nil
	if n.last != nil {
		n.last.next = t
	} else {
		n.first = t
	}
	n.last = t
	n.kids++
}

func (n *node) unlink(t *task) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		n.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		n.last = t.prev
	}
	t.prev, t.next = nil, nil
	n.kids--
}

// openLocked counts a task as live (+1) or not live any more (-1).
func (m *BackgroundManager) openLocked(t *task, by int) {
	m.live += by
	t.up.live += by
	top, _ := t.up.root()
	top.tree += by
}

// dropNodeLocked forgets a node that nothing needs, and of one that is owed
// nothing that it was busy.
func (m *BackgroundManager) dropNodeLocked(n *node) {
	if n.outstanding() == 0 {
		n.notBusy()
		n.trying = 0
	}
	if n.kids > 0 || n.nOwed > 0 || len(n.waiters) > 0 || n.env != nil || n.delivery || len(n.subs) > 0 || m.nodes[n.session] != n {
		return
	}
	delete(m.nodes, n.session)
	if n.of != nil {
		n.of.own = nil
	}
	m.alarmLocked(&n.alarm, n, 0)
	if up := n.up; up != nil {
		up.subs = slices.DeleteFunc(up.subs, func(s *node) bool { return s == n })
		m.dropNodeLocked(up)
	}
}
