package bgagent

import (
	"slices"

	"github.com/bgagent/bgagent/internal/slots"
)

// The code in this file links tasks and sessions into trees, and counts the live tasks of each
// tree.

// node is the record of a session that delegates: a root session, a scope, or the session of a
// task.
type node struct {
	session  string
	of       *session // session of the task to which the node belongs; nil for a root session or a scope
	up       *node    // parent node, if a client reported it or the session's task has expired; otherwise nil
	subs     []*node  // nodes whose field "up" points to this node
	dir      string
	first    *task // first task in the list of the node's tasks, oldest first
	last     *task
	live     int        // number of the node's own pending and running tasks
	counts   liveCounts // on a root: counts of the whole tree; otherwise zero
	kids     int
	slots    slots.Root // on a root: data for sharing slots fairly among roots
	gone     bool       // the host reported that the session no longer exists
	spending *spending  // on a root: the open account of the tree; nil if there is none
	lapsed   bool       // the record of the session's task has expired

	outbox
	delivery
	held *holding // with a store, unacknowledged answers that were handed out or are about to be

	waiters []*waiter // callers that wait in NextNotice
	touched bool      // listed in due.nodes
	dropped bool      // no longer in state.nodes
}

// parentTask returns the task to whose session the node belongs, or nil.
func (n *node) parentTask() *task {
	if n.of == nil {
		return nil
	}
	return n.of.task
}

// The method "above" returns the parent node of n, or nil for a root.
func (n *node) above() *node {
	if t := n.parentTask(); t != nil {
		return t.up
	}
	return n.up
}

// root returns the root of n's tree and the number of steps to it.
func (n *node) root() (top *node, depth int) {
	for top = n; top.above() != nil; depth++ {
		top = top.above()
	}
	return top, depth
}

// node returns the node of the session. If there is none, it creates one.
func (st *state) node(session string) *node {
	n := st.nodes[session]
	if n == nil {
		n = &node{session: session}
		st.nodes[session] = n
		switch s := st.sessions.find(session); {
		case s == nil:
		case s.tomb == 0:
			n.of, s.own = s, n
			st.changed(s.task)
		default:
			tomb := &st.keep.tombs[s.tomb-1]
			if up := st.node(tomb.parent); !up.under(session) {
				up.adopt(n, tomb.status)
				st.nodeChanged(n)
			}
		}
	}
	return n
}

// The method "under" reports whether n belongs to the session or descends from it.
func (n *node) under(session string) bool {
	for ; n != nil; n = n.above() {
		if n.session == session {
			return true
		}
	}
	return false
}

// The method "each" calls f for every task that descends from n.
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

// directory returns the session's working directory, or "" if it is unknown.
func (n *node) directory() string {
	if t := n.parentTask(); t != nil {
		if t.more != nil {
			return t.more.directory
		}
		return ""
	}
	return n.dir
}

// link adds t as the last task of n.
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

// countLive counts a task that becomes live (+1) or stops being live (-1).
func (st *state) countLive(t *task, by int) {
	st.live += by
	t.up.live += by
	top := t.up.top()
	if top.counts.live += by; top.spending != nil && top.counts.live == 0 {
		st.touchNode(top) // the account of the tree might close
	}
}

// liveCounts holds the contributions of a tree's live tasks. The counts of a tree's root are the
// sum of the shares of the tree's tasks. On any other node, all counts are zero. The counts of a
// root are zero when none of its tasks is live, and dropNode does not remove a root whose counts
// are not zero. The counts are not recorded: the next process counts again. A total that must
// outlast the tasks, such as the tool calls of the tree, belongs in the type "spending".
type liveCounts struct {
	live int // number of pending and running tasks
}

// The method "share" returns what the task contributes to the counts of its tree, without the tasks
// below it.
func (t *task) share() (own liveCounts) {
	if t.live() {
		own.live = 1
	}
	return own
}

// plus returns the sum of two counts.
func (x liveCounts) plus(y liveCounts) liveCounts { return liveCounts{live: x.live + y.live} }

// minus returns the difference between two counts.
func (x liveCounts) minus(y liveCounts) liveCounts { return liveCounts{live: x.live - y.live} }

// subtree returns the sum of the shares of the tasks below an ended task.
func (t *task) subtree() (part liveCounts) {
	if t.sess != nil && t.sess.own != nil {
		t.sess.own.each(func(below *task) { part = part.plus(below.share()) })
	}
	return part
}

// graft moves a part of one tree's counts to another tree. part holds the counts of a root that is
// about to get a parent, or the counts of a task's subtree. The function "graft" must be called
// before the nodes move, while the node "from" is still below the old root.
func graft(part liveCounts, from, to *node) {
	from, to = from.top(), to.top()
	from.counts = from.counts.minus(part)
	to.counts = to.counts.plus(part)
}

// The method "top" returns the root of n's tree.
func (n *node) top() *node {
	top, _ := n.root()
	return top
}

// The method "needed" reports whether the node must be kept.
func (n *node) needed() bool {
	return n.held != nil && len(n.held.envelopes())+len(n.held.hands) > 0 || n.kids > 0 || n.nOwed > 0 || len(n.waiters) > 0 || n.env != nil || n.delivering || len(n.subs) > 0 || n.counts != (liveCounts{}) || n.spending != nil
}

// dropNode removes the node if it is not needed. If no debt to the node is left, dropNode also
// stops waiting for a busy session to become idle.
func (st *state) dropNode(n *node) {
	if n.outstanding() == n.leftOver() && !n.owesAsks() {
		n.notBusy()
		n.unblocked()
	}
	if n.needed() || n.dropped {
		return
	}
	delete(st.nodes, n.session)
	n.dropped = true
	st.forgetNode(n)
	if n.of != nil {
		n.of.own = nil
		st.changed(n.of.task)
	}
	st.deadlines.nodes.set(&n.alarm, n, 0)
	if up := n.up; up != nil {
		up.subs = slices.DeleteFunc(up.subs, func(s *node) bool { return s == n })
		st.touchNode(up)
	}
}
