package bgagent_test

import (
	"context"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestTheBudgetOfATreeStopsTheWholeTree(t *testing.T) {
	f := &goRunner{}
	cfg := bgagent.Config{TreeBudget: bgagent.Budget{Cost: 1}, MaxDepth: 2, Limits: bgagent.Limits{Default: 2}}
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				_, err := m.Launch(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
				return bgagent.TurnEnd{Text: "waiting"}, err
			}
			return spending(bgagent.Usage{InputTokens: 1, Cost: 0.1}).run(ctx, session, p, r)
		}
		other := bgagent.Caller{Session: "other"}
		far, err := m.Launch(t.Context(), other, bgagent.LaunchInput{Agent: "far", Prompt: "x"})
		require.NoError(t, err)
		parent, b, c, d := launch(t, m, "parent"), launch(t, m, "b"), launch(t, m, "c"), launch(t, m, "d")
		time.Sleep(2500 * time.Millisecond)
		require.Len(t, m.Figures().Budgets, 2)
		tasks := ended(t, m, parent.ID, b.ID, c.ID, d.ID)
		for _, task := range append(tasks, m.List(bgagent.Query{Under: tasks[0].Session})...) {
			require.Equal(t, bgagent.CauseBudget, task.Cause, task.Prompt)
			require.Contains(t, task.Reason, `the budget of all tasks of session "root" is used up: 1.00 of 1.00 US dollars`)
		}
		require.Equal(t, "waiting", tasks[0].Result)
		require.Equal(t, bgagent.Running, get(t, m, far.ID).Status, "the other tree has a separate account")
	})
}

func TestALaunchIsRefusedWhileTheBudgetOfItsTreeIsUsedUp(t *testing.T) {
	f := spending(bgagent.Usage{InputTokens: 10})
	bubble(t, f, bgagent.Config{TreeBudget: bgagent.Budget{InputTokens: 40}, BudgetPeriod: time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		task := launch(t, m, "a")
		ended(t, m, task.ID)
		for range 2 {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "b"})
			var used *bgagent.BudgetError
			require.ErrorAs(t, err, &used)
			require.Equal(t, "root", used.Limit.Root)
			require.Equal(t, began.Add(time.Hour), used.Limit.Until)
			require.ErrorContains(t, err, `the budget of the tree of session "root" is used up: 40 of 40 input tokens; the next period begins at`)
			_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more", Budget: bgagent.Budget{InputTokens: 1000}})
			require.ErrorAs(t, err, &used, "the budget of a task does not widen the budget of its tree")
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Hour)
		require.Empty(t, m.Figures().Budgets, "the period is over")
		launch(t, m, "b")
	})
}

func TestTheAccountOfATreeClosesWithItsLastTask(t *testing.T) {
	f := spending(bgagent.Usage{InputTokens: 10})
	bubble(t, f, bgagent.Config{TreeBudget: bgagent.Budget{InputTokens: 40}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		a := launch(t, m, "a")
		time.Sleep(1500 * time.Millisecond)
		b := launch(t, m, "b")
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, int64(10), m.Figures().Budgets[0].Used.InputTokens)
		require.Equal(t, 3*time.Second, ended(t, m, b.ID)[0].Duration(time.Now()), "the usage of task a counts")
		require.Empty(t, m.Figures().Budgets)
		require.Equal(t, 4*time.Second, ended(t, m, launch(t, m, "c").ID)[0].Duration(time.Now()))
	})
}

func TestAPeriodThatEndsWhileTasksAreLiveBeginsAnother(t *testing.T) {
	f := spending(bgagent.Usage{InputTokens: 10})
	bubble(t, f, bgagent.Config{TreeBudget: bgagent.Budget{InputTokens: 1000}, BudgetPeriod: 61300 * time.Millisecond, StaleTimeout: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "a")
		time.Sleep(150*time.Second + 500*time.Millisecond)
		require.Equal(t, bgagent.Running, get(t, m, task.ID).Status)
		b := m.Figures().Budgets
		require.Len(t, b, 1)
		require.Equal(t, int64(280), b[0].Used.InputTokens)
		require.Equal(t, 61300*time.Millisecond, b[0].Until.Sub(b[0].Opened))
	})
}

func TestAccountsJoinWhenATreeBecomesPartOfAnother(t *testing.T) {
	f := &finder{goRunner: spending(bgagent.Usage{InputTokens: 10}), parents: map[string]string{}}
	bubble(t, f, bgagent.Config{TreeBudget: bgagent.Budget{InputTokens: 80}, MaxDepth: 5}, func(t *testing.T, m *bgagent.BackgroundManager) {
		// "ses_2" is first the name of a scope and later the id of a task's session.
		scope, err := m.Launch(t.Context(), bgagent.Caller{Session: "ses_2"}, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.NoError(t, err)
		time.Sleep(3500 * time.Millisecond)
		task := launch(t, m, "b") // the session of the task is ses_2
		time.Sleep(1200 * time.Millisecond)
		require.Equal(t, "ses_2", get(t, m, task.ID).Session)
		b := m.Figures().Budgets
		require.Len(t, b, 1)
		require.Equal(t, "root", b[0].Root)
		require.Equal(t, int64(50), b[0].Used.InputTokens)
		require.Equal(t, bgagent.CauseBudget, ended(t, m, scope.ID)[0].Cause)
	})
}

func TestAnAccountKeepsItsPeriodWhenItsTreeJoinsOneWithoutAccount(t *testing.T) {
	f := &finder{goRunner: spending(bgagent.Usage{InputTokens: 10}), parents: map[string]string{}}
	bubble(t, f, bgagent.Config{BudgetPeriod: time.Hour, MaxDepth: 5}, func(t *testing.T, m *bgagent.BackgroundManager) {
		scope := bgagent.LaunchInput{Agent: "worker", Prompt: "a", TreeBudget: bgagent.Budget{InputTokens: 80}}
		_, err := m.Launch(t.Context(), bgagent.Caller{Session: "ses_2"}, scope)
		require.NoError(t, err)
		before := m.Figures().Budgets[0]
		time.Sleep(3500 * time.Millisecond)
		launch(t, m, "b") // the session of the task is ses_2
		time.Sleep(1200 * time.Millisecond)
		b := m.Figures().Budgets
		require.Len(t, b, 1)
		require.Equal(t, "root", b[0].Root)
		require.Equal(t, before.Until, b[0].Until)
		require.Equal(t, before.Opened, b[0].Opened)
		require.Equal(t, int64(50), b[0].Used.InputTokens, "40 are in the account, and the other task has used 10")
	})
}

// In this test, the usage of a turn arrives after the next turn has begun.
func TestUsageOfAnEarlierTurnStopsTheRunningTurn(t *testing.T) {
	f := &goRunner{}
	bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}, MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager) {
		var first *bgagent.Reporter
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch {
			case p.Text == "child":
				return bgagent.TurnEnd{Text: "child's answer"}, nil
			case p.Turn == 1:
				first = r
				_, err := m.Launch(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
				return bgagent.TurnEnd{Text: "first"}, err
			}
			<-ctx.Done()
			return bgagent.TurnEnd{}, ctx.Err()
		}
		task := launch(t, m, "parent")
		time.Sleep(30 * time.Second)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, task.ID).Phase)
		first.Usage(bgagent.Usage{InputTokens: 100})
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseBudget, task.Cause, task.Reason)
		require.Equal(t, "first", task.Result)
	})
}
