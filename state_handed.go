package bgagent

import (
	"slices"
	"strconv"
	"strings"
)

// If a session or the host asks about a task that has ended, the end is settled in memory immediately.
// A store keeps the end as owed until it is acknowledged, because the process might end before the
// answer is read. In that case, the next manager hands out the end again.
//
//	owed -> taken: the notice is sealed and written -> handed out -> the answer was returned
//	                                                -> acknowledged: the store records it as settled
//
// Sometimes an end is read after the notice about it was sent, but before the manager knows whether
// the notice has arrived. If the notice arrives, the end counts as acknowledged. Until then, the
// store also keeps the notice, so that the next manager reports the end with the same notice
// instead of a new one.
//
// If the record of a task expires from memory, all ends of its attempts count as acknowledged.

// The type "holding" contains the notices and answers that were requested for a node but are not
// yet acknowledged.
type holding struct {
	taken []*envelope // notices that will be handed out once they are durable
	again []*envelope // notices of an earlier process that will be delivered or handed out again, unchanged
	left  []*envelope // notices that have reached the limit of pushes and now wait to be taken
	hands []*hand
	sent  []*envelope // notices that might have arrived but are not acknowledged; each reports at least one end that another answer has also handed out
}

// envelopes returns all notices that have not been handed out. h may be nil.
func (h *holding) envelopes() []*envelope {
	if h == nil {
		return nil
	}
	return slices.Concat(h.again, h.taken, h.left)
}

// handedOut returns all notices that the record of the node contains in addition to n.env.
func (n *node) handedOut() []*envelope {
	if n.held == nil {
		return nil
	}
	all := n.held.envelopes()
	for _, h := range n.held.hands {
		if h.notice != nil {
			all = append(all, h.notice)
		}
	}
	for _, env := range n.held.sent {
		if env != n.env && !slices.Contains(all, env) {
			all = append(all, env)
		}
	}
	return all
}

// leftOver returns the number of debts in notices that were pushed too often.
func (n *node) leftOver() (debts int) {
	if n.held != nil {
		for _, env := range n.held.left {
			debts += len(env.debts)
		}
	}
	return debts
}

// nextLeft removes the next notice from n.held.left and returns it. It returns nil if there is none.
func (n *node) nextLeft() *envelope {
	if n.held == nil || len(n.held.left) == 0 {
		return nil
	}
	env := n.held.left[0]
	n.held.left = n.held.left[1:]
	return env
}

// hand describes an answer that was handed out but is not yet acknowledged.
type hand struct {
	n       *node
	notice  *envelope // notice in the answer; nil if the answer only shows the end of a task
	members []member
	asks    []*asked
	left    bool // the answer has been returned
}

// The type "handing" collects the ends and notices that one tool call hands out. The answer is
// returned at the end of the call.
type handing struct{ hands []*hand }

// handOut records what an answer has handed out to the node's session: the ends of the given members
// and, if env is not nil, the notice in env. If out is nil, the answer counts as returned immediately.
// If there is nothing to acknowledge, handOut returns nil.
func (st *state) handOut(n *node, env *envelope, out *handing, members ...member) *hand {
	s := st.storing
	members = slices.DeleteFunc(members, func(x member) bool { return s.handed[x] != nil || x.t.is(flagForgotten) })
	h := &hand{n: n, notice: env, members: members, left: out == nil}
	if env != nil {
		h.asks = env.asks
	}
	if len(h.members)+len(h.asks) == 0 {
		return nil
	}
	if out != nil {
		out.hands = append(out.hands, h)
	}
	for _, x := range members {
		s.handed[x] = h
		st.changed(x.t)
	}
	n.hold().hands = append(n.hold().hands, h)
	st.nodeChanged(n)
	return h
}

func (n *node) hold() *holding {
	if n.held == nil {
		n.held = &holding{}
	}
	return n.held
}

// The method "read" is called when the task's end has been handed out. It settles the task's
// notices.
func (st *state) read(t *task, out *handing, now int64) {
	if st.storing != nil && !st.closed && t.notice == NoticeOwed {
		st.handOut(t.up, nil, out, t.owes()...)
		if t.up.of == nil { // if the session belongs to a task, its next turn reports ends that are not acknowledged
			st.keepSent(t.up)
		}
	}
	st.settleTask(t, NoticeRead, now)
}

// keepSent remembers the node's notices that might have arrived and that report an end that has just
// been read.
func (st *state) keepSent(n *node) {
	for _, env := range n.unsettled() {
		if (env.flying || env.tries > 0) && !slices.Contains(n.hold().sent, env) && st.reportsRead(env) {
			n.held.sent = append(n.held.sent, env)
		}
	}
}

// reportsRead reports whether the notice contains an end that another answer has also handed out and
// that is not yet acknowledged.
func (st *state) reportsRead(env *envelope) bool {
	return slices.ContainsFunc(env.notice.Items, func(it NoticeItem) bool { return st.handOf(it, env) != nil })
}

// handOf returns the answer that handed out the end in the given item of the notice. It returns nil
// if there is no such answer, or if that answer contains the notice itself.
func (st *state) handOf(it NoticeItem, env *envelope) *hand {
	num, _ := parseID(it.Task)
	t := st.tasks[num]
	if t == nil {
		return nil
	}
	if h := st.storing.handed[member{t, int32(it.Attempt)}]; h != nil && h.notice != env {
		return h
	}
	return nil
}

// The method "arrived" is called when the notice has arrived. It acknowledges the ends in the notice
// that another answer has also handed out.
func (st *state) arrived(env *envelope, now int64) {
	if st.storing == nil {
		return
	}
	for _, it := range env.notice.Items {
		if h := st.handOf(it, env); h != nil {
			num, _ := parseID(it.Task)
			st.ackedOne(member{st.tasks[num], int32(it.Attempt)}, h, now)
		}
	}
}

// notSent records that the notice has not arrived.
func (n *node) notSent(env *envelope) {
	if n.held != nil {
		n.held.sent = slices.DeleteFunc(n.held.sent, func(x *envelope) bool { return x == env })
	}
}

// The method "owes" returns the attempts of the task whose ends are still owed to the parent.
func (t *task) owes() (out []member) {
	if t.notice == NoticeOwed {
		out = append(out, member{t, t.no})
	}
	if t.more != nil {
		for _, p := range t.more.past {
			if p.Notice == NoticeOwed {
				out = append(out, member{t, int32(p.Number)})
			}
		}
	}
	return out
}

// readByRun settles the notice about a task that ended while a foreground call was waiting for it.
func (st *state) readByRun(t *task, now int64) {
	if st.storing != nil {
		st.handOut(t.up, nil, &handing{}, member{t, t.no})
	}
	st.settleNotice(t, NoticeRead, now)
}

// runReturns is called when a foreground call returns. If the call does not show the end of the
// attempt, the end is owed again.
func (st *state) runReturns(t *task, no int32, shows bool, out *handing, now int64) {
	if st.storing == nil {
		return
	}
	h := st.storing.handed[member{t, no}]
	switch {
	case h == nil || h.left || h.notice != nil:
	case shows && out == nil:
		h.left = true
	case shows:
		out.hands = append(out.hands, h)
	default:
		st.acked(h, now)
		if t.no == no && t.notice == NoticeRead {
			st.owedAgain(t, now)
		}
	}
}

// owedAgain makes the end of the task's latest attempt owed again: it returns the debt to the
// outbox. The end is not durable yet.
func (st *state) owedAgain(t *task, now int64) {
	s := st.storing
	s.events = slices.DeleteFunc(s.events, func(e heldEvent) bool {
		return e.task == t && e.event.Kind == EventNotice && e.event.Task.Attempt == int(t.no)
	})
	n := t.up
	t.notice = NoticeOwed
	t.stay()
	if p := n.parentTask(); n.gone || p != nil && !p.live() && p.status != Completed {
		st.giveUpNotice(t, now)
		return
	}
	t.setDebt(len(n.owed))
	n.owed = append(n.owed, debt{t, t.no, now})
	n.nOwed++
	if n.oldest == 0 {
		n.oldest = now
	}
	if n.urgent == 0 {
		n.urgent = now
	}
	st.expirable(t, now)
	st.changed(t)
	st.touchParent(n)
	st.touchNode(n)
}

// takeOut returns the next notice that is owed to the session. It can be a notice that is already
// packed. The notice must be written before it is handed out. If nothing is owed, takeOut returns nil.
// For the meaning of asks, see the method "take".
func (st *state) takeOut(n *node, asks bool, now int64) *envelope {
	if st.isLost() { // the next owner of the store hands out the notices
		return nil
	}
	env := n.nextLeft()
	switch {
	case env != nil:
	case n.env == nil || n.keepsEnv(asks):
		if n.env == nil && n.reclaimable > 0 {
			st.reclaim(n)
		}
		if !n.owesMore(asks) {
			return nil
		}
		env = st.packFor(n, asks, now)
	default:
		env, n.env = n.env, nil
	}
	if env != nil {
		n.hold().taken = append(n.hold().taken, env)
		st.nodeChanged(n)
	}
	return env
}

// tookOut hands out a notice that takeOut returned and that is now durable. It returns false if all
// results that the notice reports have been read.
func (st *state) tookOut(n *node, env *envelope, out *handing, now int64) bool {
	n.forgetTaken(env)
	if env.empty() {
		st.afterTake(n)
		return false
	}
	members := make([]member, len(env.debts))
	for i, d := range env.debts {
		members[i] = member{d.t, d.no}
	}
	st.handOut(n, env, out, members...)
	if n.env == nil {
		n.unblocked()
	}
	for _, d := range env.debts {
		st.settleDebt(d, NoticeTaken, now)
	}
	if n.nOwed == 0 {
		n.compact()
	}
	st.afterTake(n)
	return true
}

// takeBack is called if a notice that takeOut returned could not be written. Everything in the
// notice stays owed.
func (st *state) takeBack(n *node, env *envelope, now int64) {
	n.forgetTaken(env)
	env.debts = slices.DeleteFunc(env.debts, func(d debt) bool {
		again := d.t.no == d.no && d.t.notice == NoticeGivenUp // the manager had given up delivering the notice about this end, but the notice can still be taken
		if again && !d.t.is(flagForgotten) {
			d.t.setReclaimable(true)
		}
		return again
	})
	if st.pushedOften(env) {
		st.toldAsks(env.asks)
		env.asks = nil
	}
	switch {
	case env.empty(): // all results that the notice reports have been read
	case st.pushedOften(env):
		n.held.left = append([]*envelope{env}, n.held.left...)
	case n.env == nil && env.tries > 0:
		n.env = env
	default:
		was := n.env
		st.unpack(n, env)
		n.env = was
	}
	if p := n.parentTask(); n.gone || p != nil && !p.live() && p.status != Completed {
		st.giveUp(n, now)
	}
	st.afterTake(n)
}

func (n *node) forgetTaken(env *envelope) {
	n.held.taken = slices.DeleteFunc(n.held.taken, func(x *envelope) bool { return x == env })
}

// The method "leaves" is called when a tool's answer has been returned.
func (st *state) leaves(out *handing) {
	for _, h := range out.hands {
		h.left = true
	}
}

// heardFrom acknowledges the answers that were handed out and returned to the session. The session
// has continued since then, so it has received them.
func (st *state) heardFrom(n *node, now int64) {
	if n == nil || n.held == nil {
		return
	}
	for _, h := range slices.Clone(n.held.hands) {
		if h.left {
			st.acked(h, now)
		}
	}
}

// ack acknowledges the notice, or the notice item, that has the given id.
func (st *state) ack(id string, now int64) {
	if task, no, found := strings.Cut(strings.TrimPrefix(id, "bgn_"), "."); found { // the id of an item
		num, _ := parseID("bg_" + task)
		if t := st.tasks[num]; t != nil {
			if no, err := strconv.ParseInt(no, 10, 32); err == nil {
				st.ackAttempt(t, int32(no), now)
			}
		}
		return
	}
	for _, n := range st.nodes {
		if n.held == nil {
			continue
		}
		for _, h := range n.held.hands {
			if h.notice != nil && h.notice.notice.ID == id {
				st.acked(h, now)
				return
			}
		}
		for _, env := range n.held.sent {
			if env.notice.ID == id {
				st.arrived(env, now)
				return
			}
		}
	}
}

// The method "acked" acknowledges all ends in the answer.
func (st *state) acked(h *hand, now int64) {
	st.toldAsks(h.asks)
	h.setAsks(nil)
	for _, x := range slices.Clone(h.members) {
		st.ackedOne(x, h, now)
	}
	if h.notice != nil {
		st.arrived(h.notice, now)
	}
	st.dropHand(h)
}

func (st *state) ackedOne(x member, h *hand, now int64) {
	delete(st.storing.handed, x)
	st.changed(x.t)
	h.members = slices.DeleteFunc(h.members, func(y member) bool { return x == y })
	if held := h.n.held; len(held.sent) > 0 {
		held.sent = slices.DeleteFunc(held.sent, func(env *envelope) bool { return !st.reportsRead(env) })
		st.nodeChanged(h.n)
	}
	st.dropHand(h)
}

// dropHand removes an answer that was handed out if everything in it is acknowledged.
func (st *state) dropHand(h *hand) {
	if i := slices.Index(h.n.held.hands, h); i >= 0 && len(h.members)+len(h.asks) == 0 {
		h.n.held.hands = slices.Delete(h.n.held.hands, i, i+1)
		st.nodeChanged(h.n)
		st.touchNode(h.n)
	}
}

// ackTask is called because the record of the task is expiring. For each attempt of the task, it
// acknowledges the end if that end was handed out.
func (st *state) ackTask(t *task, now int64) {
	if st.storing == nil {
		return
	}
	st.ackAttempt(t, t.no, now)
	if t.more != nil {
		for _, p := range t.more.past {
			st.ackAttempt(t, int32(p.Number), now)
		}
	}
}

// ackAttempt acknowledges the end of one attempt if it was handed out.
func (st *state) ackAttempt(t *task, no int32, now int64) {
	if st.storing == nil {
		return
	}
	x := member{t, no}
	if h := st.storing.handed[x]; h != nil {
		st.ackedOne(x, h, now)
	}
}

// nextAgain removes the next notice from n.held.again and returns it. It returns nil if there is none.
func (n *node) nextAgain() *envelope {
	for n.held != nil && len(n.held.again) > 0 {
		env := n.held.again[0]
		n.held.again = n.held.again[1:]
		if !env.empty() { // an empty notice is skipped, because all results that it reports have been read
			return env
		}
	}
	return nil
}

// The method "taking" returns the number of debts in the notices of n.held that have not been handed
// out.
func (n *node) taking() (debts int) {
	for _, env := range n.held.envelopes() {
		debts += len(env.debts)
	}
	return debts
}

// isHanded reports whether the end of the attempt was handed out but is not yet acknowledged.
func (st *state) isHanded(t *task, no int32) bool {
	return st.storing != nil && st.storing.handed[member{t, no}] != nil
}
