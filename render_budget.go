package bgagent

import (
	"fmt"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about budgets. None of them suggests that the model continue the task, because only a
// person or the host can raise a limit.

// fileKey returns the path of the limit's key in a file.
func (l *BudgetLimit) fileKey() string {
	whose := "task"
	if l.Task == "" {
		whose = "tree"
	}
	return budgetKey + "." + whose + "." + budgetKeys[l.Part]
}

// reasonBudget returns the reason for ending a task when a budget is used up.
func reasonBudget(l BudgetLimit) string {
	if l.Task != "" {
		return fmt.Sprintf("its budget is used up: %v; Config.TaskBudget (%s) or LaunchInput.Budget sets the limit, and the host can raise it with ResumeInput.Budget", l, l.fileKey())
	}
	whose := "session " + mdtext.Quote(l.Root)
	if l.Root == "" {
		whose = "the host"
	}
	s := fmt.Sprintf("the budget of all tasks of %s is used up: %v; Config.TreeBudget (%s) or LaunchInput.TreeBudget sets the limit", whose, l, l.fileKey())
	if l.Until.IsZero() {
		return s + ", which counts until no task of " + whose + " is live"
	}
	return s + ", which counts anew from " + l.Until.UTC().Format(budgetTime)
}

// budgetAdvice follows the reason if a budget ended the task.
const budgetAdvice = "Do not continue it, and do not launch another task for the same work: a budget is used up. Only the user, or the program that runs the agents, can raise it. Use what there is, and report what is missing."

// budgetUsedUp answers a call that was refused because a budget is used up.
func budgetUsedUp(l BudgetLimit) string {
	whose := "task " + mdtext.Code(l.Task, idMax)
	if l.Task == "" {
		whose = "all tasks together"
	}
	s := fmt.Sprintf("Nothing was launched: the budget of %s is used up (%v). Only the user, or the program that runs the agents, can raise it.", whose, l)
	if !l.Until.IsZero() {
		s += " It counts anew from " + l.Until.UTC().Format(budgetTime) + "."
	}
	return s + " Go on with what you have."
}

// String lists how much of each limit is used, such as "1.20 of 2.50 US dollars, 12 of 20 tool
// calls".
func (u BudgetUse) String() string {
	used := spent{Usage{u.Used.InputTokens, u.Used.OutputTokens, u.Used.Cost}, u.Used.ToolCalls}
	var parts []string
	for p := range budgetParts {
		limit := u.Limit.of(p)
		if limit == 0 {
			continue
		}
		s := BudgetLimit{Part: p, Limit: limit, Used: used.of(p)}.String()
		if p == BudgetCost && u.CostNotReported {
			s += " (not all costs were reported)"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}
