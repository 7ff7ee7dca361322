package bgagent

import (
	"hash/maphash"
	"slices"
)

// The code in this file counts the usage of tasks, and stops tasks whose budgets are used up.
//
// There are two kinds of budgets. The budget of a task counts all its attempts. The account of a
// tree counts all tasks of the tree. A launch or a resume opens the account. It closes when no task of
// the tree is live or, if a budget period is configured, at the end of the period. Without budgets,
// nothing is counted.

// taskBudget is the budget and the usage of a task. A task without limits has a taskBudget only if it
// had earlier attempts: their usage is kept, so that a later resume can set a limit.
type taskBudget struct {
	limits Budget
	tally
}

// The type "spending" is the open account of a tree. It belongs to the root of the tree.
type spending struct {
	narrow Budget // smallest limits set by launches since the account was opened; Config.TreeBudget also applies
	tally
	opened int64
	alarm  alarm // end of the period; not set if no budget period is configured
}

// tally is the usage that counts towards a budget.
type tally struct {
	used   spent
	warned partSet // limits for which an EventBudget was sent
	untold bool    // the budget limits the cost, but a turn used tokens without reporting its cost
}

// The method "add" counts more usage, and calls the function "near" for each limit that has now
// nearly been reached.
func (x *tally) add(more spent, limits Budget, near func(p BudgetPart)) {
	x.used = x.used.plus(more)
	for {
		p, ok := limits.reached(&x.used, budgetWarning, x.warned)
		if !ok {
			return
		}
		x.warned |= 1 << p
		near(p)
	}
}

// The method "join" merges y into x.
func (x *tally) join(y tally) {
	x.used = x.used.plus(y.used)
	x.warned |= y.warned
	x.untold = x.untold || y.untold
}

// budget returns the budget of the task, or nil.
func (t *task) budget() *taskBudget {
	if t.more == nil {
		return nil
	}
	return t.more.budget
}

// The method "limits" returns the limits of a tree's account. sp may be nil.
func (st *state) limits(sp *spending) Budget {
	if sp == nil {
		return st.cfg.TreeBudget
	}
	return st.cfg.TreeBudget.smaller(sp.narrow)
}

// parentLimits returns the limits that tasks launched by the session inherit from the session's own
// task.
func (st *state) parentLimits(session string) (b Budget) {
	if s := st.session(session); s != nil && s.task.budget() != nil {
		b = s.task.budget().limits
	}
	return b
}

// limitsFor returns the limits that apply to a task that the session launches with the given budgets. A
// task never gets a wider limit than its parent.
func (st *state) limitsFor(session string, task, tree Budget) (Budget, Budget) {
	task = st.cfg.TaskBudget.smaller(st.parentLimits(session)).smaller(task)
	var sp *spending
	if n := st.nodes[session]; n != nil {
		sp = n.top().spending
	}
	return task, st.limits(sp).smaller(tree)
}

// treeLimit describes the limit on the part p of the tree's budget.
func (st *state) treeLimit(top *node, limits Budget, p BudgetPart) BudgetLimit {
	l := BudgetLimit{Root: top.session, Part: p, Limit: limits.of(p)}
	if sp := top.spending; sp != nil {
		l.Used, l.Until = sp.used.of(p), st.wall(sp.end())
	}
	return l
}

// The method "end" returns the end of the account's period, or 0 if it has none.
func (sp *spending) end() int64 {
	if sp.alarm.index == 0 {
		return 0
	}
	return sp.alarm.at
}

func (b *taskBudget) limit(id string, p BudgetPart) BudgetLimit {
	return BudgetLimit{Task: id, Part: p, Limit: b.limits.of(p), Used: b.used.of(p)}
}

// treeUsedUp returns an error if the account of the tree is used up. narrow holds the limits that
// the launch requests for the tree.
func (st *state) treeUsedUp(top *node, narrow Budget) error {
	if l, used := st.treeReached(top, narrow); used {
		return &BudgetError{l}
	}
	return nil
}

// treeReached returns the limit that the tree's account has reached. If narrow contains a smaller
// limit than the account, the smaller limit applies.
func (st *state) treeReached(top *node, narrow Budget) (l BudgetLimit, used bool) {
	if top.spending == nil {
		return l, false
	}
	limits := st.limits(top.spending).smaller(narrow)
	p, used := limits.reached(&top.spending.used, 1, 0)
	if used {
		l = st.treeLimit(top, limits, p)
	}
	return l, used
}

// admitBudget gives a new task its budget. If the tree of the task has limits, admitBudget opens the
// tree's account.
func (st *state) admitBudget(t *task, p *plan, now int64) {
	if !st.budgets && p.in.Budget.isZero() && p.in.TreeBudget.isZero() {
		return
	}
	task, tree := st.limitsFor(t.up.session, p.in.Budget, p.in.TreeBudget)
	switch {
	case task.isZero():
	case t.more == nil: // allocate t.more and the budget at once
		x := &struct {
			extra  extra
			budget taskBudget
		}{}
		t.more, x.extra.budget = &x.extra, &x.budget
		fallthrough
	default:
		st.budgets = true
		if t.more.budget == nil {
			t.more.budget = &taskBudget{}
		}
		t.more.budget.limits = task
	}
	if !tree.isZero() {
		st.account(t.up.top(), p.in.TreeBudget, now)
	}
}

// The method "account" makes sure that the tree's account is open, and narrows its limits.
func (st *state) account(top *node, narrow Budget, now int64) {
	if top.spending == nil {
		until := int64(0)
		if d := st.limit(limitBudgetPeriod); d > 0 {
			until = now + int64(d)
		}
		st.openAccount(top, &spending{opened: now}, until)
	}
	top.spending.narrow = top.spending.narrow.smaller(narrow)
	st.nodeChanged(top)
}

// openAccount opens the account sp for the tree. The argument "until" is the end of the account's
// period, or 0 if the account has no period.
func (st *state) openAccount(top *node, sp *spending, until int64) {
	st.budgets = true
	top.spending = sp
	if until != 0 {
		st.deadlines.accounts.set(&sp.alarm, top, until)
	}
	// What the live tasks have used so far does not count towards the new account.
	top.each(func(t *task) {
		if a := t.run; a != nil && a.sight != &nothingSeen {
			a.sight.counted = a.sight.counted.plus(a.counts().beyond(a.sight.counted))
		}
	})
}

// closeAccount closes the account of a tree if no task of the tree is live and the account has no
// period.
func (st *state) closeAccount(n *node) {
	if sp := n.spending; sp != nil && sp.alarm.index == 0 && n.counts.live == 0 {
		n.spending = nil
		st.nodeChanged(n)
	}
}

// ringAccount closes an account at the end of its period. If tasks of the tree are live, it opens the
// next account.
func (st *state) ringAccount(n *node, now int64) {
	sp := n.spending
	n.spending = nil
	st.nodeChanged(n)
	st.touchNode(n)
	if n.counts.live > 0 {
		st.account(n, sp.narrow, now)
	}
}

// joinAccount adds the account of n, which was a root, to the account of the tree to which n now
// belongs. The limits of both accounts then apply to that tree, but only the tree's own period
// applies. If the tree has no account, it takes over the account of n, including its period.
func (st *state) joinAccount(n *node, now int64) {
	sp := n.spending
	if sp == nil || n.above() == nil {
		return
	}
	until := sp.end()
	st.deadlines.accounts.set(&sp.alarm, n, 0)
	n.spending = nil
	st.nodeChanged(n)
	top := n.top()
	if top.spending == nil {
		st.openAccount(top, sp, until)
		st.nodeChanged(top)
		return
	}
	st.account(top, sp.narrow, now)
	top.spending.join(sp.tally)
}

// The method "counts" returns the usage that the attempt's progress shows.
func (a *attempt) counts() spent { return spent{a.sight.prog.usage, a.sight.prog.toolCalls} }

// The method "count" counts only usage that it has not counted yet, so a message that is read again
// is not counted twice. The method reports whether the attempt is still live.
func (st *state) count(a *attempt, now int64) (live bool) {
	if st.budgets && a.sight != &nothingSeen {
		st.add(a, now)
		st.enforce(a.t, nil, now)
	}
	return a.live()
}

// The method "add" adds the attempt's uncounted usage to the totals for its task and its tree.
func (st *state) add(a *attempt, now int64) {
	s := a.sight
	more := a.counts().beyond(s.counted)
	s.counted = s.counted.plus(more)
	st.spend(a.t, more, now)
}

// countEnd adds the attempt's usage to the totals when its turn ends. Even if this uses up a
// budget, the outcome of the turn must not change. Therefore, countEnd does not call enforce; the
// caller must call it afterwards.
func (st *state) countEnd(a *attempt, now int64) {
	if !st.budgets || a.sight == &nothingSeen {
		return
	}
	st.add(a, now)
	if u := a.sight.prog.usage; u.Cost == 0 && u.InputTokens+u.OutputTokens > 0 {
		st.costMissing(a.t)
	}
}

// countLate counts usage that was reported after its turn had ended. It never changes how that turn
// ended. turn is the number of that turn in the attempt.
func (st *state) countLate(a *attempt, turn int32, u Usage, now int64) {
	if !st.budgets || a.t.is(flagForgotten) {
		return
	}
	st.spend(a.t, spent{usage: u}.beyond(spent{}), now)
	over := a
	if a.turn != turn { // the attempt has begun another turn
		over = nil
	}
	st.enforce(a.t, over, now)
}

// If a message of an earlier turn shows more usage than was last seen, countOld counts the
// difference.
func (st *state) countOld(t *task, msg *Message, now int64) {
	s := t.sess
	if !st.budgets || s == nil || s.past == nil || s.past.use == nil || t.is(flagForgotten) {
		return
	}
	i := slices.Index(s.past.ids[:], maphash.String(st.seed, msg.ID))
	if i < 0 {
		return
	}
	more := spent{usage: msg.Usage}.beyond(spent{usage: s.past.use[i]})
	if more == (spent{}) {
		return
	}
	s.past.use[i] = s.past.use[i].plus(more.usage)
	st.spend(t, more, now)
	st.enforce(t, nil, now)
}

// The method "spend" adds usage to the totals for the task and its tree, and sends events for
// limits that are nearly reached.
func (st *state) spend(t *task, more spent, now int64) {
	if more == (spent{}) {
		return
	}
	if b := t.budget(); b != nil {
		st.changed(t)
		b.add(more, b.limits, func(p BudgetPart) { st.emitBudget(t, b.limit(t.id(), p)) })
	}
	top := t.up.top()
	sp := top.spending
	if sp == nil {
		return
	}
	st.nodeChanged(top)
	limits := st.limits(sp)
	sp.add(more, limits, func(p BudgetPart) { st.emitBudget(t, st.treeLimit(top, limits, p)) })
}

// If the budget of the task is used up, enforce stops the task's turn. If the account of the tree is
// used up, enforce stops all tasks of the tree. It does not stop the attempt "over", because the turn
// of that attempt has just returned. If the message just read shows that a turn is ending anyway,
// enforce also spares that turn and the parked tasks that wait for it. A parked attempt has no turn
// that could be stopped; its next turn is refused.
func (st *state) enforce(t *task, over *attempt, now int64) {
	if a := t.run; a != nil && a.live() && a != over && !a.betweenTurns() && !a.closesTurn() {
		if l, used := t.usedUp(); used {
			st.end(t, CauseBudget, reasonBudget(l), now)
		}
	}
	top := t.up.top()
	l, used := st.treeReached(top, Budget{})
	if !used || top.counts.live == 0 {
		return
	}
	var live []*task
	waits := map[*task]bool{} // parked tasks to spare: ending them would cut off the answer of a turn that is ending anyway
	top.each(func(t *task) {
		a := t.run
		switch {
		case !t.live():
		case a == nil || a.ended || a != over && !a.closesTurn():
			live = append(live, t)
		default:
			for p := t.up.parentTask(); p != nil && p.run != nil && p.run.betweenTurns(); p = p.up.parentTask() {
				waits[p] = true
			}
		}
	})
	live = slices.DeleteFunc(live, func(t *task) bool { return waits[t] })
	reason := reasonBudget(l)
	for _, t := range slices.Backward(live) { // end tasks before their parents, because the end of a parent would end its tasks with CauseParentEnded
		st.end(t, CauseBudget, reason, now)
	}
}

// usedUp returns the limit in the task's own budget that the task has reached.
func (t *task) usedUp() (l BudgetLimit, used bool) {
	if b := t.budget(); b != nil {
		return b.reached(t.id())
	}
	return l, false
}

// The method "reached" returns the limit that the task has reached. id is the id of the task.
func (b *taskBudget) reached(id string) (l BudgetLimit, used bool) {
	p, used := b.limits.reached(&b.used, 1, 0)
	if used {
		l = b.limit(id, p)
	}
	return l, used
}

// closesTurn reports whether the newest message of a starter's turn shows that the turn is ending
// anyway. If the client has no stop reasons, a finished message with text shows this.
func (a *attempt) closesTurn() bool {
	s := a.sight
	if !a.cl.starter || a.turnStart == 0 || !s.begun || !s.finished || s.inFlight() > 0 {
		return false
	}
	if s.stop == StopUntold {
		return s.textAt == s.newest && s.text != ""
	}
	return s.stop != StopToolCalls
}

// If the budget of the task or of its tree does not allow another turn, refusesTurn ends the task
// and returns true.
func (st *state) refusesTurn(t *task, now int64) bool {
	return st.budgets && t.live() && st.endIfUsedUp(t, now)
}

// endIfUsedUp ends the task if its budget or that of its tree is used up, and reports whether it did.
func (st *state) endIfUsedUp(t *task, now int64) bool {
	l, used := t.usedUp()
	if !used {
		l, used = st.treeReached(t.up.top(), Budget{})
	}
	if used {
		st.end(t, CauseBudget, reasonBudget(l), now)
	}
	return used
}

// If a budget limits the cost, costMissing records that a turn of the task used tokens without
// reporting its cost. It logs this once for each kind of task.
func (st *state) costMissing(t *task) {
	b, sp := t.budget(), t.up.top().spending
	mine := b != nil && b.limits.Cost > 0
	ours := sp != nil && st.limits(sp).Cost > 0
	if mine {
		b.untold = true
		st.changed(t)
	}
	if ours {
		sp.untold = true
		st.nodeChanged(t.up.top())
	}
	if key := t.kind.key; mine || ours {
		key.depth, key.named = 0, false
		if st.costless == nil {
			st.costless = map[kindKey]struct{}{}
		}
		if _, said := st.costless[key]; !said {
			st.costless[key] = struct{}{}
			st.logText(logNoCost, key.agent, key.model)
		}
	}
}

// pastUsage holds the usage of each message in pastMessages, in the same order.
type pastUsage [len(pastMessages{})]Usage

// noteUsage remembers the usage of the turn's last messages, so that usage that becomes known later
// can be counted.
func (st *state) noteUsage(a *attempt) {
	if !st.budgets || !a.cl.starter || len(a.sight.msgs) == 0 || a.t.sess == nil {
		return
	}
	past, use := a.sight.last(st.seed), pastUsage{}
	for _, seen := range a.sight.msgs {
		if back := a.sight.count - 1 - seen.index; back < len(use) {
			use[back] = seen.usage
		}
	}
	a.t.sess.past = &pastTurns{past, &use}
}

// emitBudget sends an EventBudget.
func (st *state) emitBudget(t *task, l BudgetLimit) {
	st.emitNews(news{kind: EventBudget, budget: &l}, t)
}

// budgetUse returns the budget of the task for a snapshot. It is zero if the task has none.
func (t *task) budgetUse() BudgetUse {
	b := t.budget()
	if b == nil || b.limits.isZero() {
		return BudgetUse{}
	}
	return BudgetUse{b.limits, b.used.asBudget(), b.untold}
}
