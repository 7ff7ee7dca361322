package bgagent

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Budget limits what a task, or all tasks of a tree together, may use. A budget is used up when one
// of its limits is reached. In every field, 0 means no limit.
type Budget struct {
	InputTokens  int64   `json:"input_tokens,omitempty"`
	OutputTokens int64   `json:"output_tokens,omitempty"`
	TotalTokens  int64   `json:"total_tokens,omitempty"` // input tokens and output tokens together
	Cost         float64 `json:"cost,omitempty"`         // US dollars
	ToolCalls    int     `json:"tool_calls,omitempty"`
}

// BudgetPart names one limit of a [Budget].
type BudgetPart uint8

// The limits of a budget. They are checked in this order.
const (
	BudgetInputTokens BudgetPart = iota
	BudgetOutputTokens
	BudgetTotalTokens
	BudgetCost
	BudgetToolCalls
	budgetParts
)

var budgetPartNames = [...]string{"input tokens", "output tokens", "total tokens", "cost", "tool calls"}

// String returns the name of the limit in lower case, such as "input tokens".
func (p BudgetPart) String() string { return enumName(budgetPartNames[:], uint8(p)) }

// MarshalText implements [encoding.TextMarshaler].
func (p BudgetPart) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *BudgetPart) UnmarshalText(b []byte) error {
	return enumOf(p, budgetPartNames[:], "part of a budget", b)
}

// budgetFields holds the names of the fields of Budget, for errors.
var budgetFields = [budgetParts]string{"InputTokens", "OutputTokens", "TotalTokens", "Cost", "ToolCalls"}

// The method "of" returns the limit p, or 0 if the budget does not set it.
func (b *Budget) of(p BudgetPart) float64 {
	switch p {
	case BudgetInputTokens:
		return float64(b.InputTokens)
	case BudgetOutputTokens:
		return float64(b.OutputTokens)
	case BudgetTotalTokens:
		return float64(b.TotalTokens)
	case BudgetCost:
		return b.Cost
	case BudgetToolCalls:
		return float64(b.ToolCalls)
	}
	panic("bgagent: bug: a budget without this limit")
}

// isZero reports whether the budget has no limits.
func (b Budget) isZero() bool { return b == Budget{} }

// countsTokens reports whether the budget limits tokens.
func (b Budget) countsTokens() bool {
	return b.InputTokens > 0 || b.OutputTokens > 0 || b.TotalTokens > 0
}

// The method "smaller" returns a budget with the smaller of each pair of limits.
func (b Budget) smaller(c Budget) Budget {
	return Budget{
		InputTokens: least(b.InputTokens, c.InputTokens), OutputTokens: least(b.OutputTokens, c.OutputTokens), TotalTokens: least(b.TotalTokens, c.TotalTokens),
		Cost: least(b.Cost, c.Cost), ToolCalls: least(b.ToolCalls, c.ToolCalls),
	}
}

// The function "least" returns the smaller of two limits. A limit of 0 means no limit.
func least[T int | int64 | float64](a, b T) T {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// The method "replaced" returns a copy of b. In the copy, each limit that c sets replaces the limit
// of b.
func (b Budget) replaced(c Budget) Budget {
	set := func(limit *int64, by int64) {
		if by > 0 {
			*limit = by
		}
	}
	set(&b.InputTokens, c.InputTokens)
	set(&b.OutputTokens, c.OutputTokens)
	set(&b.TotalTokens, c.TotalTokens)
	if c.Cost > 0 {
		b.Cost = c.Cost
	}
	if c.ToolCalls > 0 {
		b.ToolCalls = c.ToolCalls
	}
	return b
}

// check returns an error if a limit is negative, infinite or not a number.
func (b *Budget) check(field string) error {
	for p := range budgetParts {
		if x := b.of(p); x < 0 || math.IsNaN(x) || math.IsInf(x, 0) {
			return &InputError{field + "." + budgetFields[p], fmt.Sprintf("is %v; it must be positive, or 0 for no limit", x)}
		}
	}
	return nil
}

// spent describes what tasks have used: tokens, costs and tool calls.
type spent struct {
	usage Usage
	calls int
}

// plus returns the sum of x and y. A sum that is too large for its type becomes the type's maximum.
func (x spent) plus(y spent) spent {
	return spent{
		Usage{sum(x.usage.InputTokens, y.usage.InputTokens), sum(x.usage.OutputTokens, y.usage.OutputTokens), min(x.usage.Cost+y.usage.Cost, math.MaxFloat64)},
		int(sum(int64(x.calls), int64(y.calls))),
	}
}

func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// The method "beyond" returns x minus y. Each number that would be negative becomes 0.
func (x spent) beyond(y spent) spent {
	d := x.usage.minus(y.usage)
	return spent{Usage{max(d.InputTokens, 0), max(d.OutputTokens, 0), max(d.cost(), 0)}, max(x.calls-y.calls, 0)}
}

// The method "of" returns the amount in x that counts towards the limit p.
func (x *spent) of(p BudgetPart) float64 {
	switch p {
	case BudgetInputTokens:
		return float64(x.usage.InputTokens)
	case BudgetOutputTokens:
		return float64(x.usage.OutputTokens)
	case BudgetTotalTokens:
		return float64(sum(x.usage.InputTokens, x.usage.OutputTokens))
	case BudgetCost:
		return x.usage.Cost
	case BudgetToolCalls:
		return float64(x.calls)
	}
	panic("bgagent: bug: no number counts towards this limit")
}

// asBudget converts x to a Budget.
func (x spent) asBudget() Budget {
	u := x.usage
	return Budget{u.InputTokens, u.OutputTokens, sum(u.InputTokens, u.OutputTokens), u.Cost, x.calls}
}

// budgetWarning is the fraction of a limit at which an EventBudget is sent.
const budgetWarning = 0.8

// costError is an upper bound on the rounding error of a sum of costs, in US dollars. With this
// allowance, ten reports of 0.1 reach a limit of 1.
const costError = 1e-9

// The method "reached" returns the first limit of which at least the fraction "part" has been used.
// It ignores the limits in the set "but".
func (b *Budget) reached(x *spent, part float64, but partSet) (p BudgetPart, ok bool) {
	for p := range budgetParts {
		limit, used := b.of(p), x.of(p)
		if p == BudgetCost {
			used += costError
		}
		if limit > 0 && used >= part*limit && !but.has(p) {
			return p, true
		}
	}
	return 0, false
}

// partSet is a set of a budget's limits.
type partSet uint8

func (s partSet) has(p BudgetPart) bool { return s&(1<<p) != 0 }

// BudgetUse is a budget and how much of it has been used.
type BudgetUse struct {
	Limit Budget `json:"limit"`
	Used  Budget `json:"used"` // if CostNotReported is set, a cost of 0 means that the cost is unknown
	// CostNotReported is set if the budget limits the cost, and a turn that used tokens did not
	// report its cost. Used does not include the cost of that turn.
	CostNotReported bool `json:"cost_not_reported,omitempty"`
}

// TreeBudget is the account of a tree: the usage of the tasks under a root session since the
// account was opened. See [Config].TreeBudget.
type TreeBudget struct {
	Root   string    `json:"root"` // root session or scope; empty for the tasks that the host launched
	Opened time.Time `json:"opened"`
	Until  time.Time `json:"until,omitzero"` // end of the period; zero if the account closes when no task of the tree is live
	BudgetUse
}

// BudgetLimit is one limit of a budget, and how much of it has been used.
type BudgetLimit struct {
	Task  string     `json:"task,omitempty"` // id of the task that has the budget; empty if a tree has the budget
	Root  string     `json:"root,omitempty"` // root session of the tree that has the budget
	Part  BudgetPart `json:"part"`           // the limit
	Limit float64    `json:"limit"`          // number of tokens or calls, or US dollars
	Used  float64    `json:"used"`           // in the unit of Limit
	Until time.Time  `json:"until,omitzero"` // for a tree whose budget has a period, the end of the period
}

// clone returns a copy of l, or nil if l is nil.
func (l *BudgetLimit) clone() *BudgetLimit {
	if l == nil {
		return nil
	}
	c := *l
	return &c
}

// String returns the used amount and the limit, such as "2.61 of 2.50 US dollars".
func (l BudgetLimit) String() string {
	if l.Part == BudgetCost {
		return fmt.Sprintf("%s of %s US dollars", dollars(l.Used), dollars(l.Limit))
	}
	return fmt.Sprintf("%.0f of %.0f %s", l.Used, l.Limit, l.Part)
}

// dollars formats an amount with at least two decimals and at most six.
func dollars(x float64) string {
	if s := strconv.FormatFloat(x, 'f', 2, 64); math.Abs(x-mustFloat(s)) < 5e-7 {
		return s
	}
	return strconv.FormatFloat(math.Round(x*1e6)/1e6, 'f', -1, 64)
}

func mustFloat(s string) float64 {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic("bgagent: bug: a formatted number cannot be read: " + err.Error())
	}
	return x
}

// BudgetError is returned by Launch, Run, Resume and RunResume if a budget is used up. In that
// case, nothing was launched.
type BudgetError struct {
	Limit BudgetLimit // the limit that is reached
}

// Error names the owner of the budget, the limit and the used amount.
func (e *BudgetError) Error() string {
	whose := "the task " + e.Limit.Task
	switch {
	case e.Limit.Task == "" && e.Limit.Root == "":
		whose = "all tasks of the host"
	case e.Limit.Task == "":
		whose = "the tree of session " + mdtext.Quote(e.Limit.Root)
	}
	s := fmt.Sprintf("the budget of %s is used up: %v", whose, e.Limit)
	if !e.Limit.Until.IsZero() {
		s += "; the next period begins at " + e.Limit.Until.UTC().Format(budgetTime)
	}
	return s
}

// budgetTime is the format that texts use for the end of a period.
const budgetTime = "2006-01-02 15:04 MST"

// CostReporter is implemented by clients that know whether they report an agent's costs. If
// ReportsCost returns false, a launch with a budget that limits the cost is refused. For a client
// that is not a CostReporter, every limit on the cost is accepted.
type CostReporter interface {
	// ReportsCost reports whether the agent's usage includes the cost. It must not block.
	ReportsCost(agent string) bool
}

// TokenReporter is implemented by clients that know whether they report all of an agent's tokens.
// If ReportsTokens returns false, a launch with a budget that limits tokens is refused. For a
// client that is not a TokenReporter, every limit on tokens is accepted.
type TokenReporter interface {
	// ReportsTokens reports whether the agent's usage includes all tokens. It must not block.
	ReportsTokens(agent string) bool
}
