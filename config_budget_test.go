package bgagent_test

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAFileSetsBudgets(t *testing.T) {
	user, err := bgagent.ParseConfig("user", inSection(`"budget": {"task": {"cost": 2.5, "toolCalls": 200, "inputTokens": 1e6}, "tree": {"totalTokens": 5000000, "periodMs": 86400000}}`))
	require.NoError(t, err)
	require.Equal(t, bgagent.Config{
		TaskBudget:   bgagent.Budget{Cost: 2.5, ToolCalls: 200, InputTokens: 1_000_000},
		TreeBudget:   bgagent.Budget{TotalTokens: 5_000_000},
		BudgetPeriod: 24 * time.Hour,
	}, applied(t, user, nil))
	require.Empty(t, user.Ignored())

	project, err := bgagent.ParseConfig("project", inSection(`"budget": {"task": {"cost": 0, "toolCalls": null}, "tree": null}`))
	require.NoError(t, err)
	require.Equal(t, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1_000_000}}, applied(t, user.Merge(project), nil), "0 and null remove limits")
	none, err := bgagent.ParseConfig("none", inSection(`"budget": null`))
	require.NoError(t, err)
	require.Equal(t, bgagent.Config{}, applied(t, user.Merge(none), nil))

	var set []string
	for _, s := range user.Settings() {
		if s.Key == "budget" {
			set = append(set, s.Name()+" "+s.Value)
		}
	}
	require.Equal(t, []string{"budget.task.inputTokens 1000000", "budget.task.cost 2.5", "budget.task.toolCalls 200", "budget.tree.totalTokens 5000000", "budget.tree.periodMs 86400000"}, set)
}

func TestWrongBudgetsInAFileAreErrorsWithTheirPlaces(t *testing.T) {
	for members, want := range map[string]string{
		`"budget": 3`:                                `background_task.budget: is the number 3; it must be an object like`,
		`"budget": {"all": {}}`:                      `budget.all: is not a known budget; the budgets are task and tree`,
		`"budget": {"task": 3}`:                      `budget.task: is the number 3; it must be an object of limits`,
		`"budget": {"task": {"tokens": 3}}`:          `budget.task.tokens: is not a known limit; the limits are inputTokens, outputTokens, totalTokens, cost, toolCalls`,
		`"budget": {"task": {"periodMs": 3}}`:        `budget.task.periodMs: is not a known limit`,
		`"budget": {"task": {"cost": "3"}}`:          `budget.task.cost: is the string "3"; it must be a number of US dollars, or 0 for no limit`,
		`"budget": {"task": {"cost": -3}}`:           `budget.task.cost: is -3; it must be a number of US dollars between 0`,
		`"budget": {"task": {"cost": 0.0000001}}`:    `the smallest limit is 0.000001 US dollars`,
		`"budget": {"task": {"toolCalls": 1.5}}`:     `budget.task.toolCalls: is not whole (1.5); it must be a whole number, or 0 for no limit`,
		`"budget": {"task": {"cost": 1, "cost": 2}}`: `budget.task.cost: appears twice`,
		`"budget": {"task": {}, "task": {}}`:         `budget.task: appears twice`,
		`"budget": {"tree": {"periodMs": -1}}`:       `budget.tree.periodMs: is negative (-1); it must be a whole number of milliseconds, or 0 for no period`,
		`"budgets": {"task": {"cost": 2}}`:           `did you mean budget?`,
	} {
		_, err := bgagent.ParseConfig("f.json", inSection(members))
		require.ErrorContains(t, err, want, members)
		require.Positive(t, fileErrors(t, err)[0].Line)
	}
}

func TestBudgetsAreWrittenAsTheyAreRead(t *testing.T) {
	want := bgagent.Config{
		TaskBudget:   bgagent.Budget{InputTokens: 1, OutputTokens: 2, TotalTokens: 3, Cost: 0.000001, ToolCalls: 5},
		TreeBudget:   bgagent.Budget{Cost: 1234.56},
		BudgetPeriod: bgagent.Disabled,
	}
	text, err := bgagent.FormatConfig(want)
	require.NoError(t, err)
	f, err := bgagent.ParseConfig("f.json", text)
	require.Equal(t, want, applied(t, f, err), string(text))
	for _, c := range []bgagent.Config{{TaskBudget: bgagent.Budget{Cost: 1.0 / 3}}, {TreeBudget: bgagent.Budget{ToolCalls: -1}}, {BudgetPeriod: time.Microsecond}} {
		_, err := bgagent.FormatConfig(c)
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input)
	}
}
