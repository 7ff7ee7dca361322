package bgagent

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/inside"
)

func init() {
	inside.CheckNow = func(m any) (err error) {
		m.(*BackgroundManager).view(func(st *state) { err = st.checkInvariants() })
		return err
	}
	inside.CheckUnchanged = func(m any) (err error) {
		m.(*BackgroundManager).view(func(st *state) {
			if st.storing != nil {
				err = st.checkUnchanged()
			}
		})
		return err
	}
	inside.CheckAlways = func(m any, broken func(error)) {
		if broken == nil {
			broken = func(err error) { panic("bgagent: bug: " + err.Error()) }
		}
		of, budget := m.(*BackgroundManager), recordBudget
		of.update(func(*state, int64) {
			of.check = func(st *state) {
				if err := st.checkWithin(&budget); err != nil {
					broken(err)
				}
				if !of.armed() {
					broken(errors.New("no timer is set for the earliest deadline"))
				}
			}
		})
	}
}

// A manager's checks compare all records after each update, until they have compared recordBudget
// records. From then on, they compare only recordsAtOnce task records and as many session records
// after each update. Making a record takes longer than all other checks of a task. Without this
// limit, a hammer run with a store would spend most of its time comparing records.
const (
	recordBudget  = 1000
	recordsAtOnce = 1
)

// checkInvariants checks every index of the state, and recounts every counter. The list of
// invariants is in manager.go.
func (st *state) checkInvariants() error {
	budget := math.MaxInt
	return st.checkWithin(&budget)
}

// checkWithin is like checkInvariants, but it compares the records within a budget. In tests, it is
// called with the lock held after every update and every view.
func (st *state) checkWithin(budget *int) error {
	c := checker{st: st, live: map[*node]int{}, tree: map[*node]liveCounts{}, kids: map[*node]int{}, owedAsks: map[*node]int{}}
	for _, t := range st.tasks {
		c.task(t)
	}
	for name, n := range st.nodes {
		c.node(name, n)
	}
	c.expect(c.total == st.live, "live is %d, counted %d", st.live, c.total)
	c.expect(c.unquiet == st.unquiet, "unquiet is %d, counted %d", st.unquiet, c.unquiet)
	c.expect(c.inStopTime == st.inStopTime, "inStopTime is %d, counted %d", st.inStopTime, c.inStopTime)
	c.expect(c.asked == st.openQuestions, "%d questions are open, counted %d", st.openQuestions, c.asked)
	c.expect(c.text == st.keep.text, "text is %d, counted %d", st.keep.text, c.text)
	for _, s := range st.sessions.all {
		for ; s != nil; s = s.same {
			c.session(s)
		}
	}
	if st.storing != nil {
		c.records(budget)
	}
	c.expiry("settled", &st.keep.settled, true)
	c.expiry("unsettled", &st.keep.unsettled, false)
	checkAlarms(&c, st.deadlines.attempts, func(a *attempt) bool { return a.t.run == a && !a.t.is(flagForgotten) })
	checkAlarms(&c, st.deadlines.queued, func(t *task) bool { return t.status == Pending && !t.is(flagForgotten) })
	checkAlarms(&c, st.deadlines.nodes, func(n *node) bool { return st.nodes[n.session] == n })
	checkAlarms(&c, st.deadlines.accounts, func(n *node) bool { return st.nodes[n.session] == n && n.spending != nil })
	checkAlarms(&c, st.deadlines.outages, func(o *outage) bool { return o.cl.out == o })
	if err := st.slots.Check(); err != nil {
		c.errs = append(c.errs, err)
	}
	return errors.Join(c.errs...)
}

// The method "records" verifies that the transitions have noted every change to a record. Once the
// budget is used up, it checks only a few random records. A change that was not noted stays visible
// until another change to the same record is noted, so a later check can still find it.
func (c *checker) records(budget *int) {
	most := recordsAtOnce
	if *budget > 0 {
		most = len(c.st.tasks) + len(c.st.nodes)
		*budget -= most
	}
	left := most
	for _, t := range c.st.tasks { // in random order
		if left == 0 {
			break
		}
		left--
		c.recordOfTask(t)
	}
	left = most
	for _, n := range c.st.nodes {
		if left == 0 {
			break
		}
		left--
		c.recordOfNode(n)
	}
}

func (c *checker) recordOfTask(t *task) {
	m, r := c.st.storing.tasks[t], c.st.recordTask(t)
	same := m != nil && (m.dirty || m.refused || m.last == r.image())
	c.expect(same, "the record of task %s has changed, but the change was not noted:\nthen %s\nnow  %s", t, lastOf(m), r.image())
}

func (c *checker) recordOfNode(n *node) {
	m := c.st.storing.nodes[n]
	if c.st.storing.aside[nodeKey(n.session)] {
		return
	}
	r, keep := c.st.recordNode(n)
	same := m == nil && !keep || m != nil && (m.dirty || m.refused || !keep && m.last == "" || keep && m.last == r.image())
	c.expect(same, "the record of session %q has changed, but the change was not noted:\nthen %s\nnow  %s", n.session, lastOf(m), r.image())
}

// checkUnchanged checks that the records of the loaded tasks equal the records in the store. It ignores the
// field Due, which changes if a task is no longer needed.
func (st *state) checkUnchanged() error {
	c := checker{st: st}
	for _, t := range st.tasks {
		r := st.recordTask(t)
		_, then, _ := strings.Cut(lastOf(st.storing.tasks[t]), "\n")
		c.expect(then == string(r.rec.Data), "task %s was loaded wrongly:\nthen %s\nnow  %s", t, then, r.rec.Data)
	}
	return errors.Join(c.errs...)
}

type checker struct {
	st         *state
	live       map[*node]int
	tree       map[*node]liveCounts
	kids       map[*node]int
	total      int
	unquiet    int
	inStopTime int
	asked      int           // number of open questions
	owedAsks   map[*node]int // number of questions that are still to be reported to the node
	text       int64
	errs       []error
}

func (c *checker) expect(ok bool, format string, args ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf(format, slices.Clone(args)...)) // the copy keeps args off the heap while ok is true
	}
}

// String returns the id of the task. A check passes the task instead of its id, because passing the
// task does not allocate.
func (t *task) String() string { return t.id() }

func (c *checker) task(t *task) {
	st, a := c.st, t.run
	num, ok := parseID(t.id())
	c.expect(ok && st.tasks[num] == t, "task %s is indexed wrongly", t)
	c.expect(st.nodes[t.up.session] == t.up, "task %s has a parent that is not indexed", t)
	c.kids[t.up]++
	if t.live() {
		c.total++
		c.live[t.up]++
	}
	top := t.up.top()
	c.tree[top] = c.tree[top].plus(t.share())
	c.expect(t.cause.Status() == t.status || t.cause == CauseNone && !t.status.Terminal(), "task %s is %s for %s", t, t.status, t.cause)
	c.expect((t.fin != nil) == t.status.Terminal(), "task %s is %s and has an outcome: %v", t, t.status, t.fin != nil)
	c.expect((t.notice != NoticeNone) == t.status.Terminal(), "task %s is %s with notice %q", t, t.status, t.notice)
	if t.fin != nil {
		c.text += int64(len(t.fin.result))
	}
	if a != nil && a.ended {
		c.unquiet++
		if !a.overrun {
			c.inStopTime++
		}
	}
	c.alarm(t, a)
	c.mail(t, a)
	c.questions(t, a)
	holds, waits := st.slots.Holds(&t.wait), st.slots.Waits(&t.wait)
	c.expect(!t.is(flagSlot) || holds, "task %s is marked as having a slot, but holds none", t)
	c.claim(t, holds, waits)
	switch {
	case t.status == Pending:
		if t.is(flagAwaitsQuiet) {
			c.expect(a != nil && a.ended && a.no < t.no, "task %s waits for an attempt that is quiet", t)
			c.expect(!waits, "task %s is in line before its session is quiet", t)
		} else {
			c.expect(a == nil, "pending task %s has an attempt", t)
			c.expect(waits || holds || st.recovery.due || st.suspend != notSuspended, "pending task %s is not in any line", t)
		}
	case t.status == Running:
		c.running(t, a, holds, waits)
	default:
		c.expect(!waits, "ended task %s is in line", t)
		c.expect(a != nil || !holds, "quiet task %s has a slot", t)
		c.expect(a == nil || a.ended, "ended task %s has a live attempt", t)
	}
	// A task can be evicted if it has ended, its notice is settled, its record is durable, and its
	// session has stopped or has missed its stopping deadline. With a store, the notices of its
	// earlier attempts must also be settled.
	mayGo := !t.live() && t.notice.Settled() && (a == nil || a.overrun) && st.kept(t) && !(st.storing != nil && t.owesPast())
	c.expect(!mayGo || t.fin.line == &st.keep.settled, "task %s would never be forgotten", t)
	if t.sess != nil {
		c.expect(st.session(t.sess.id) == t.sess, "session of task %s is not indexed", t)
	}
	if t.debt() >= len(t.up.owed) {
		c.expect(false, "debt %d of task %s is out of range: its parent has %d debts", t.debt(), t, len(t.up.owed))
	} else if t.debt() >= 0 {
		d := t.up.owed[t.debt()]
		c.expect(t.notice == NoticeOwed && d.t == t && d.no == t.no, "debt of task %s points elsewhere", t)
	}
}

// The method "claim" checks that a task has a claim if and only if it waits for a slot or holds
// one.
func (c *checker) claim(t *task, holds, waits bool) {
	if c.st.claims == nil {
		return
	}
	k := c.st.claims.of[t]
	c.expect((k != nil) == (holds || waits), "task %s has a claim: %v", t, k != nil)
	c.expect(!t.is(flagSlot) || k != nil && (k.granted || k.asked && k.head), "task %s has a slot that the source has not granted", t)
	c.expect(k == nil || waits || k.asked || c.st.suspend != notSuspended, "the source was not asked for the slot of task %s", t)
}

// The method "mail" checks the messages to a task. Until the task has ended, only messages for the
// latest attempt can wait. After that, no message can wait.
func (c *checker) mail(t *task, a *attempt) {
	b := t.mail()
	if b == nil {
		return
	}
	waiting, current := 0, b.current == nil
	for _, l := range b.letters {
		if l.state == MessageAccepted {
			waiting++
			c.expect(l.attempt == t.no && l.text != "", "message %d of task %s waits for attempt %d", l.no, t, l.attempt)
		}
		current = current || l == b.current
	}
	c.expect(waiting == b.waiting, "%d messages of task %s are marked as waiting, counted %d", b.waiting, t, waiting)
	c.expect(current && (b.current == nil || t.status == Running), "task %s answers a message that it does not have", t)
	c.expect(t.live() || waiting == 0, "task %s has ended, and %d messages wait", t, waiting)
	idle := a != nil && a.live() && a.takesLetter() && !a.wantTurn && waiting > 0
	c.expect(!idle || c.st.closing || c.st.recovery.due || c.st.isLost(), "task %s has a message, but does not ask for a turn", t)
}

// The method "questions" verifies the questions of a task, and counts the open ones.
func (c *checker) questions(t *task, a *attempt) {
	b := t.questions()
	if b == nil {
		return
	}
	open := 0
	for _, x := range b.list {
		if x.State == QuestionOpen {
			open++
			c.expect(a != nil && a.live() && x.a == a && (x.turn == a.turn || a.recovering), "question %s of task %s does not belong to a turn", x.Key, t)
		}
	}
	c.asked += open
	for _, x := range b.list {
		if x.owed {
			c.owedAsks[t.up]++
			c.expect(x.State == QuestionOpen, "task %s: its parent is still to be notified of the question %s, which is %s", t, x.Key, x.State)
		}
	}
	c.expect(open == b.open, "task %s has %d open questions, counted %d", t, b.open, open)
	c.expect(open == 0 || b.from > 0, "task %s has an open question, but its clocks run", t)
	c.expect(b.from == 0 || a != nil && a.live() && (open > 0 || a.outcomeWaits()), "the clocks of task %s are stopped, but it has no open question", t)
}

// The method "alarm" checks that the attempt's alarm is set for the earliest time limit of the
// attempt. Between the decision to make a host call and the call itself, no alarm needs to be set,
// because beginCall sets it.
func (c *checker) alarm(t *task, a *attempt) {
	if a == nil {
		return
	}
	for l := range attemptLimits {
		c.expect(a.ended || a.limits()&(1<<l) != 0 || c.st.limitEnd(l, a) == 0, "the time limit %d of task %s applies, but the method limits leaves it out", l, t)
	}
	if !a.ended && !a.live() || a.stage != stageNone && !a.inCall && a.heldAt == 0 {
		return
	}
	at, al := c.st.earliest(a), &a.alarm
	c.expect(at == 0 || al.index > 0 && al.at <= max(at, c.st.now+1), "a time limit of task %s passes at %d without an alarm: call setDeadline where its clock starts", t, at)
}

// The method "expiry" checks one of the two lines of ended tasks: the line of settled tasks or the
// line of unsettled tasks.
func (c *checker) expiry(name string, q *expiry, told bool) {
	var last *task
	texts := q.text == nil // whether this task and later tasks can have texts
	for t := q.first; t != nil; last, t = t, t.fin.next {
		if t.fin == nil {
			c.expect(false, "%s: task %s has no outcome", name, t)
			return
		}
		num, _ := parseID(t.id())
		c.expect(c.st.tasks[num] == t, "%s: task %s has no record", name, t)
		c.expect(t.fin.line == q && t.fin.prev == last, "%s: task %s is linked wrongly", name, t)
		c.expect(t.notice.Settled() == told, "%s: the notice of task %s is %q", name, t, t.notice)
		c.expect(last == nil || last.fin.since <= t.fin.since, "%s: task %s is behind a task that is newer in this line", name, t)
		if t == q.text {
			texts = true
		}
		c.expect(texts && q.text != nil || t.fin.result == "", "%s: the text of task %s is before the first text", name, t)
	}
	c.expect(q.last == last, "%s: last is not the last task in the line", name)
	c.expect(texts, "%s: the first text does not belong to any of its tasks", name)
}

func (c *checker) session(s *session) {
	c.expect(c.st.sessions.find(s.id) == s, "session %s is indexed wrongly", s.id)
	if s.tomb != 0 {
		tomb := &c.st.keep.tombs[s.tomb-1]
		c.expect(tomb.sess == s, "session %s has the tombstone of %s", s.id, tomb.id)
		return
	}
	if s.task == nil || s.task.sess != s {
		c.expect(false, "session %s has no task", s.id)
		return
	}
	num, _ := parseID(s.task.id())
	c.expect(c.st.tasks[num] == s.task, "session %s belongs to a forgotten task", s.id)
}

func (c *checker) running(t *task, a *attempt, holds, waits bool) {
	if a == nil || a.ended || a.no != t.no {
		c.expect(false, "running task %s has no live attempt", t)
		return
	}
	if a.parkedFor != notParked {
		c.expect(a.phase == a.parkedFor.phase(), "parked task %s is in phase %q", t, a.phase)
		// After SetLimits has granted a slot, the task keeps asking for a turn until the state
		// processes the grant.
		c.expect((waits || holds) == a.wantTurn, "task %s wants a turn: %v; is in line: %v; has a slot: %v", t, a.wantTurn, waits, holds)
		c.expect(a.wantTurn || c.st.recovery.due || c.st.waits(a, a.parkedFor), "parked task %s does not wait for anything", t)
	} else {
		c.expect(a.phase == PhaseStarting || a.phase == PhaseTurn || a.phase == PhaseAsking, "task %s is not parked, but is in phase %q", t, a.phase)
		c.expect(holds && !waits || c.st.recovery.due || c.st.suspend == frozen, "running task %s has no slot (%s)", t, a.phase)
	}
	if a.awaitsAnswer() {
		c.expect(a.inCall && a.turnStart > 0 && a.cl.runner, "task %s waits for an answer, but is not in a turn", t)
	}
	if a.awaitsProvider() {
		c.expect(a.refused != nil && a.stage == stageNone && !a.inCall && a.turnStart == 0, "task %s waits for its provider, but a turn or a call is due", t)
	}
	if r := a.refused; r != nil && a.parkedFor != notParked && r.falls {
		c.expect(a.aborts > 0 || c.st.recovery.due || c.st.suspend != notSuspended, "task %s waits to continue with another model, but nothing delays it", t)
	}
	_, followed := a.cl.followed[a]
	c.expect(followed == (a.cl.starter && a.turnStart > 0 && a.stage == stageNone), "task %s is followed: %v", t, followed)
}

func (c *checker) node(name string, n *node) {
	c.expect(n.session == name, "node %q is indexed as %q", n.session, name)
	c.expect(!n.dropped, "node %q is indexed, but counts as dropped", name)
	c.expect(n.live == c.live[n], "node %q has %d live tasks, counted %d", name, n.live, c.live[n])
	c.expect(n.counts == c.tree[n], "node %q has the counts %+v, counted %+v", name, n.counts, c.tree[n])
	c.expect(n.kids == c.kids[n], "node %q has %d tasks, counted %d", name, n.kids, c.kids[n])
	owed, reclaimable := 0, 0
	for _, d := range n.owed {
		if d.t != nil {
			owed++
		}
	}
	for t := n.first; t != nil; t = t.next {
		if t.is(flagReclaimable) {
			reclaimable++
		}
	}
	c.expect(owed == n.nOwed, "node %q owes %d, counted %d", name, n.nOwed, owed)
	c.expect(reclaimable == n.reclaimable, "node %q has %d reclaimable notices, counted %d", name, n.reclaimable, reclaimable)
	c.expect((owed > 0) == (n.oldest > 0), "node %q: oldest is %d with %d owed", name, n.oldest, owed)
	c.expect(n.needed(), "nothing needs node %q", name)
	c.expect(c.owedAsks[n] == n.asksEverywhere(), "node %q is still to be notified of %d questions, counted %d", name, n.asksEverywhere(), c.owedAsks[n])
	c.expect((len(n.asks) > 0) == (n.asksFrom > 0), "node %q: the first question was asked at %d, but there are %d questions", name, n.asksFrom, len(n.asks))
	if sp := n.spending; sp != nil {
		c.expect(n.above() == nil, "node %q is not a root, but has an account", name)
		c.expect(sp.alarm.index > 0 || n.counts.live > 0, "node %q has an account, but no live task", name)
		c.expect(c.st.budgets, "node %q has an account, but nothing is counted", name)
	}
	if n.of != nil {
		c.expect(n.of.own == n, "node %q is not the node of its session", name)
	}
}

// checkAlarms checks a heap of alarms. The function "needs" reports whether a record still needs its alarm.
func checkAlarms[T any](c *checker, h alarms[T], needs func(T) bool) {
	for i, al := range h {
		c.expect(al.index == i+1, "alarm %d has index %d", i, al.index)
		c.expect(al.at > 0, "alarm %d has the time %d", i, al.at)
		c.expect(needs(al.who), "alarm %d is set for a %T that is over: remove the alarm where it ends", i, al.who)
		c.expect(i == 0 || h[(i-1)/2].at <= al.at, "alarm %d is before its parent", i)
	}
}

// The method "armed" reports whether the timer is set for the earliest deadline or for an earlier
// time. The manager's lock must be held.
func (m *BackgroundManager) armed() bool {
	at := m.st.deadlines.first()
	return m.timerOff || m.st.suspend == frozen || at == 0 || m.timerAt != 0 && m.timerAt <= at
}

func lastOf(m *mark) string {
	if m == nil {
		return ""
	}
	return m.last
}
