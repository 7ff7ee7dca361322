package bgagent

// The code in this file carries a task's budget over to its next attempt.

// The method "raised" returns the budget with which a task is resumed. A task that resumes another
// task cannot raise a limit.
func (st *state) raised(was *taskBudget, by Budget, mayRaise bool) *taskBudget {
	var b taskBudget
	if was != nil {
		b = *was
	}
	if b.limits.isZero() {
		b.limits = st.cfg.TaskBudget
	}
	if mayRaise {
		b.limits = b.limits.replaced(by)
	} else {
		b.limits = b.limits.smaller(by)
	}
	for p := range budgetParts {
		if limit := b.limits.of(p); b.used.of(p) < budgetWarning*limit {
			b.warned &^= 1 << p
		}
	}
	return &b
}

// resumeBudget returns the budget for the next attempt of a task that has ended, even if only a
// tombstone of the task remains. It returns an error if the task's budget or the tree's budget is
// used up.
//
// If one task resumes another, it cannot raise the limits of the resumed task. The resumed task
// does not get wider limits than the task that resumes it.
func (st *state) resumeBudget(t *task, tomb *tombstone, up *node, by Caller, asked Budget) (*taskBudget, error) {
	var was *taskBudget
	id := ""
	if t != nil {
		id, was = t.id(), st.spentSoFar(t)
	} else {
		id, was = tomb.id, st.keep.budgets[tomb.sess]
	}
	own := Budget{}
	mayRaise := by.Session == "" || up.parentTask() == nil
	if !mayRaise {
		own = st.parentLimits(up.session)
	}
	if was == nil && asked.isZero() && st.cfg.TaskBudget.isZero() && own.isZero() {
		return nil, st.treeUsedUp(up.top(), Budget{})
	}
	b := st.raised(was, asked, mayRaise)
	b.limits = b.limits.smaller(own)
	if l, used := b.reached(id); used {
		return nil, &BudgetError{l}
	}
	return b, st.treeUsedUp(up.top(), Budget{})
}

// spentSoFar returns the budget of an ended task. If the latest attempt was not counted because
// there was no budget, the result also includes the usage of that attempt.
func (st *state) spentSoFar(t *task) *taskBudget {
	if t.fin == nil {
		return t.budget()
	}
	return st.spentWith(t, t.fin.prog)
}

// spentWith is like spentSoFar, but takes the progress of the latest attempt from p, which may be
// nil.
func (st *state) spentWith(t *task, p *progress) *taskBudget {
	b := t.budget()
	if p == nil || b != nil && st.budgets {
		return b
	}
	x := (spent{p.usage, p.toolCalls}).beyond(spent{})
	switch {
	case x == (spent{}):
		return b
	case b == nil:
		return &taskBudget{tally: tally{used: x}}
	}
	sum := *b
	sum.used = sum.used.plus(x)
	return &sum
}

// keepSpent keeps the usage of a superseded attempt in the task's budget. p is the progress of that
// attempt.
func (st *state) keepSpent(t *task, p *progress) { t.extra().budget = st.spentWith(t, p) }

// reopenBudget gives a resumed task its budget, and opens the account of its tree.
func (st *state) reopenBudget(t *task, b *taskBudget, now int64) {
	if b != nil {
		st.budgets = st.budgets || !b.limits.isZero()
		t.extra().budget = b
	}
	if top := t.up.top(); !st.limits(top.spending).isZero() {
		st.account(top, Budget{}, now)
	}
}
