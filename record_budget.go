package bgagent

import "time"

// budgetRecord is the part of a task's record that describes its budget.
type budgetRecord struct {
	Limits      Budget `json:"limits,omitzero"`
	tallyRecord        // usage over all attempts
}

// tallyRecord describes the usage that counts towards a budget.
type tallyRecord struct {
	Used        usedRecord `json:"used,omitzero"`
	Warned      partSet    `json:"warned,omitempty"`
	CostUnknown bool       `json:"cost_unknown,omitempty"`
}

// usedRecord describes the usage of tasks.
type usedRecord struct {
	Usage     Usage `json:"usage,omitzero"`
	ToolCalls int   `json:"tool_calls,omitempty"`
}

// accountRecord is the part of a session's record that describes the account of its tree.
type accountRecord struct {
	Narrow Budget `json:"narrow,omitzero"` // for each limit, the smallest value that a launch has set
	tallyRecord
	Opened time.Time `json:"opened"`
	Until  time.Time `json:"until,omitzero"` // end of the period; zero if no budget period is configured
}

// The method "limits" returns the limits in the record, or no limits if one of them is impossible.
func (x *accountRecord) limits() Budget {
	if x.Narrow.check("") != nil {
		return Budget{}
	}
	return x.Narrow
}

func recordUsed(x spent) usedRecord { return usedRecord{x.usage, x.calls} }

// The method "spent" returns the usage that the record describes. Impossible numbers become 0.
func (x usedRecord) spent() spent { return spent{x.Usage, x.ToolCalls}.beyond(spent{}) }

func recordTally(x tally) tallyRecord { return tallyRecord{recordUsed(x.used), x.warned, x.untold} }

func (x tallyRecord) tally() tally { return tally{x.Used.spent(), x.Warned, x.CostUnknown} }

// recordBudgetOf makes the record of a budget, or returns nil if there is none.
func recordBudgetOf(b *taskBudget) *budgetRecord {
	if b == nil {
		return nil
	}
	return &budgetRecord{b.limits, recordTally(b.tally)}
}

// budget returns the budget that the record describes.
func (x *budgetRecord) budget() *taskBudget {
	return &taskBudget{limits: x.Limits, tally: x.tally()}
}

// The method "possible" reports whether all numbers in the record are possible.
func (x *budgetRecord) possible() bool {
	return x == nil || x.Limits.check("") == nil && x.Used.spent() == (spent{x.Used.Usage, x.Used.ToolCalls})
}

// countedInTurn returns the counted usage that belongs to the attempt's current turn. After a restart,
// a starter's turn is read again from its beginning, and a runner's client might report the usage of
// the whole turn. This usage must not be counted twice.
func (st *state) countedInTurn(a *attempt, mark *mark) usedRecord {
	switch {
	case !st.budgets:
		return usedRecord{}
	case a.recovering || a.sight == &nothingSeen:
		return recordUsed(mark.counted)
	default:
		return recordUsed(a.sight.counted.beyond(a.sight.base))
	}
}

// loadAccount restores the account of a tree.
func (st *state) loadAccount(n *node, x *accountRecord) {
	if x == nil || n.above() != nil {
		return
	}
	st.budgets = true
	n.spending = &spending{narrow: x.limits(), tally: x.tally(), opened: st.at(x.Opened)}
	if !x.Until.IsZero() {
		st.deadlines.accounts.set(&n.spending.alarm, n, st.at(x.Until))
	}
}

// recordAccount makes the record of a tree's account, or returns nil if there is no account.
func (st *state) recordAccount(n *node) *accountRecord {
	sp := n.spending
	if sp == nil {
		return nil
	}
	return &accountRecord{sp.narrow, recordTally(sp.tally), st.wall(sp.opened), st.wall(sp.end())}
}
