package bgagent_test

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The function "spending" returns a runner whose turns report usage once a second, each time with a
// piece of text, and never end on their own.
func spending(u bgagent.Usage) *goRunner {
	f := &goRunner{}
	f.run = func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for {
			select {
			case <-time.After(time.Second):
				r.Text("more ")
				r.Usage(u)
			case <-ctx.Done():
				return bgagent.TurnEnd{}, ctx.Err()
			}
		}
	}
	return f
}

// budgetEvents collects the limits that budget events report. The returned function returns the
// limits collected so far.
func budgetEvents(t *testing.T, m *bgagent.BackgroundManager) func() []bgagent.BudgetLimit {
	_, sub := m.Subscribe(1000)
	var mu sync.Mutex
	var all []bgagent.BudgetLimit
	go func() {
		for {
			e, err := sub.Next(context.Background())
			if err != nil {
				return
			}
			if e.Kind == bgagent.EventBudget {
				mu.Lock()
				all = append(all, *e.Budget)
				mu.Unlock()
			}
		}
	}()
	return func() []bgagent.BudgetLimit {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func TestATurnIsStoppedWhenTheBudgetOfItsTaskIsUsedUp(t *testing.T) {
	for name, c := range map[string]struct {
		budget bgagent.Budget
		used   string
	}{
		"input":  {bgagent.Budget{InputTokens: 500}, "500 of 500 input tokens"},
		"output": {bgagent.Budget{OutputTokens: 45}, "50 of 45 output tokens"},
		"total":  {bgagent.Budget{TotalTokens: 540}, "550 of 540 total tokens"},
		"cost":   {bgagent.Budget{Cost: 0.5}, "0.50 of 0.50 US dollars"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, spending(bgagent.Usage{InputTokens: 100, OutputTokens: 10, Cost: 0.1}), bgagent.Config{TaskBudget: c.budget}, func(t *testing.T, m *bgagent.BackgroundManager) {
				events := budgetEvents(t, m)
				task := ended(t, m, launch(t, m, "a").ID)[0]
				require.Equal(t, bgagent.Cancelled, task.Status)
				require.Equal(t, bgagent.CauseBudget, task.Cause)
				require.Contains(t, task.Reason, c.used)
				require.Contains(t, task.Reason, "ResumeInput.Budget")
				require.Equal(t, 5*time.Second, task.Duration(time.Now()))
				require.Equal(t, strings.Repeat("more ", 5), task.Result)
				require.True(t, task.Partial)
				require.Equal(t, c.budget, task.Budget.Limit)
				require.Equal(t, int64(500), task.Budget.Used.InputTokens)
				require.Len(t, events(), 1)
			})
		})
	}
}

func TestToolCallsCountTowardsABudget(t *testing.T) {
	f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for range 100 {
			r.Tool(bgagent.MessageTool{ID: "x", Name: "read", State: bgagent.ToolRunning})
			r.Tool(bgagent.MessageTool{ID: "x", Name: "read", State: bgagent.ToolDone})
			if ctx.Err() != nil {
				return bgagent.TurnEnd{}, ctx.Err()
			}
		}
		return bgagent.TurnEnd{Text: "done"}, nil
	}}
	bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{ToolCalls: 20}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "a").ID)[0]
		require.Equal(t, bgagent.CauseBudget, task.Cause)
		require.Equal(t, 20, task.Progress.ToolCalls)
		require.Contains(t, task.Reason, "20 of 20 tool calls")
	})
}

func TestAnEventTellsThatFourFifthsOfABudgetAreUsed(t *testing.T) {
	bubble(t, spending(bgagent.Usage{InputTokens: 100, Cost: 0.5}), bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1000, Cost: 10}, TreeBudget: bgagent.Budget{InputTokens: 2000}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		events := budgetEvents(t, m)
		task := launch(t, m, "a")
		time.Sleep(7500 * time.Millisecond)
		require.Empty(t, events())
		time.Sleep(time.Second)
		require.Equal(t, []bgagent.BudgetLimit{{Task: task.ID, Part: bgagent.BudgetInputTokens, Limit: 1000, Used: 800}}, events())
		require.Equal(t, bgagent.Running, get(t, m, task.ID).Status)
		ended(t, m, task.ID)
		second := launch(t, m, "b")
		ended(t, m, second.ID)
		require.Len(t, events(), 2, "the account of the tree closed with the first batch")
	})
}

func TestAnAnswerThatCameWithTheCrossingReportIsKept(t *testing.T) {
	t.Run("runner", func(t *testing.T) {
		f := &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Text: "the answer", Usage: bgagent.Usage{InputTokens: 5000}}, nil
		}}
		bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}, TreeBudget: bgagent.Budget{InputTokens: 100}}, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "a").ID)[0]
			require.Equal(t, bgagent.Completed, task.Status)
			require.Equal(t, "the answer", task.Result)
			require.False(t, task.Partial)
			require.Equal(t, int64(5000), task.Progress.Usage.InputTokens)
			_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
			var used *bgagent.BudgetError
			require.ErrorAs(t, err, &used)
			require.Equal(t, bgagent.BudgetLimit{Task: task.ID, Limit: 100, Used: 5000}, used.Limit)
		})
	})
	for _, how := range []string{"poll", "event", "untold"} {
		t.Run("starter, "+how, func(t *testing.T) {
			f := newServer()
			bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}}, func(t *testing.T, m *bgagent.BackgroundManager) {
				id, s := turnOn(t, m, "a")
				time.Sleep(11 * time.Second)
				last := bgagent.Message{ID: "m9", Role: bgagent.RoleAgent, Text: "the answer", Finished: true, Stop: bgagent.StopEndOfTurn, Usage: bgagent.Usage{InputTokens: 5000}}
				if how == "untold" {
					last.Stop = bgagent.StopUntold
				}
				f.put(s, last)
				if how == "event" {
					m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s, Message: &last})
				}
				f.set(s, bgagent.SessionIdle)
				task := ended(t, m, id)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, "the answer", task.Result)
				require.Equal(t, int64(5000), task.Budget.Used.InputTokens)
			})
		})
	}
}

func TestAMessageWithToolCallsThatCrossesTheBudgetStopsTheTurn(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, s := turnOn(t, m, "a")
		f.put(s, bgagent.Message{ID: "m1", Text: "I look", Finished: true, Stop: bgagent.StopToolCalls, Usage: bgagent.Usage{InputTokens: 60}, Tools: []bgagent.MessageTool{{ID: "1", Name: "read", State: bgagent.ToolDone}}})
		time.Sleep(5 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		f.put(s, bgagent.Message{ID: "m2", Text: "I look again", Finished: true, Stop: bgagent.StopToolCalls, Usage: bgagent.Usage{InputTokens: 60}, Tools: []bgagent.MessageTool{{ID: "2", Name: "read", State: bgagent.ToolDone}}})
		time.Sleep(3 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.CauseBudget, task.Cause)
		require.Equal(t, "I look again", task.Result)
		require.Positive(t, f.session(s).aborts)
		f.set(s, bgagent.SessionIdle)
	})
}

func TestAResumeCountsWhatEarlierAttemptsHaveUsedAndRaisesTheBudget(t *testing.T) {
	f := spending(bgagent.Usage{InputTokens: 10})
	bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 40, ToolCalls: 7}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		events := budgetEvents(t, m)
		task := ended(t, m, launch(t, m, "a").ID)[0]
		var used *bgagent.BudgetError
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b"})
		require.ErrorAs(t, err, &used)
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b", Budget: bgagent.Budget{InputTokens: 40}})
		require.ErrorAs(t, err, &used)
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b", Budget: bgagent.Budget{InputTokens: 100}})
		require.NoError(t, err)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, 6*time.Second, task.Duration(time.Now()))
		require.Equal(t, bgagent.Budget{InputTokens: 100, ToolCalls: 7}, task.Budget.Limit)
		require.Equal(t, int64(60), task.Progress.Usage.InputTokens, "the progress covers only this attempt")
		require.Equal(t, int64(100), task.Budget.Used.InputTokens)
		require.Len(t, events(), 2, "the raised limit has a separate event")
	})
}

func TestABudgetThatAResumeSetsCountsWhatWasUsedBefore(t *testing.T) {
	f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{Text: "x", Usage: bgagent.Usage{InputTokens: 30}}, nil
	}}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "a").ID)[0]
		require.Zero(t, task.Budget)
		for range 2 {
			_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b"})
			require.NoError(t, err)
			ended(t, m, task.ID)
		}
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "c", Budget: bgagent.Budget{InputTokens: 90}})
		require.ErrorContains(t, err, "90 of 90 input tokens")
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "c", Budget: bgagent.Budget{InputTokens: 100}})
		require.NoError(t, err)
	})
}

func TestAChildNeverWidensABudget(t *testing.T) {
	f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
		<-ctx.Done()
		return bgagent.TurnEnd{}, ctx.Err()
	}}
	cfg := bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1000, Cost: 5}, TreeBudget: bgagent.Budget{Cost: 9}, MaxDepth: 3}
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		deleg := func(by string, in bgagent.LaunchInput) bgagent.Task {
			in.Agent, in.Prompt = "worker", "x"
			task, err := m.Launch(t.Context(), bgagent.Caller{Session: by}, in)
			require.NoError(t, err)
			synctest.Wait()
			return get(t, m, task.ID)
		}
		a := deleg("root", bgagent.LaunchInput{Budget: bgagent.Budget{InputTokens: 5000, Cost: 2, ToolCalls: 9}, TreeBudget: bgagent.Budget{Cost: 20}})
		require.Equal(t, bgagent.Budget{InputTokens: 1000, Cost: 2, ToolCalls: 9}, a.Budget.Limit)
		b := deleg(a.Session, bgagent.LaunchInput{Budget: bgagent.Budget{InputTokens: 300, Cost: 4}, TreeBudget: bgagent.Budget{Cost: 7}})
		require.Equal(t, bgagent.Budget{InputTokens: 300, Cost: 2, ToolCalls: 9}, b.Budget.Limit)
		c := deleg(b.Session, bgagent.LaunchInput{Budget: bgagent.Budget{ToolCalls: 90}, TreeBudget: bgagent.Budget{Cost: 8}})
		require.Equal(t, bgagent.Budget{InputTokens: 300, Cost: 2, ToolCalls: 9}, c.Budget.Limit)
		require.Equal(t, bgagent.Budget{Cost: 7}, m.Figures().Budgets[0].Limit)

		_, err := m.Cancel(t.Context(), root, c.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), bgagent.Caller{Session: b.Session}, c.ID, bgagent.ResumeInput{Prompt: "y", Budget: bgagent.Budget{Cost: 100, ToolCalls: 3}})
		require.NoError(t, err)
		require.Equal(t, bgagent.Budget{InputTokens: 300, Cost: 2, ToolCalls: 3}, get(t, m, c.ID).Budget.Limit, "a task cannot raise the budget of a task that it resumes")
	})
}

func TestUsageThatArrivesAfterTheEndOfATurnCountsForTheNext(t *testing.T) {
	t.Run("runner", func(t *testing.T) {
		var last *bgagent.Reporter
		f := &goRunner{run: func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			last = r
			return bgagent.TurnEnd{Text: "x"}, nil
		}}
		bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}}, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "a").ID)[0]
			last.Usage(bgagent.Usage{InputTokens: 100})
			last.Text("late")
			after := get(t, m, task.ID)
			require.Equal(t, bgagent.Completed, after.Status)
			require.Equal(t, task.Progress, after.Progress)
			require.Equal(t, int64(100), after.Budget.Used.InputTokens)
			_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b"})
			var used *bgagent.BudgetError
			require.ErrorAs(t, err, &used)
		})
	})
	t.Run("cancelled runner", func(t *testing.T) {
		f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-ctx.Done()
			r.Usage(bgagent.Usage{InputTokens: 30})
			return bgagent.TurnEnd{Usage: bgagent.Usage{InputTokens: 40}}, ctx.Err()
		}}
		bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}, TreeBudget: bgagent.Budget{InputTokens: 200}, BudgetPeriod: time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := launch(t, m, "a")
			synctest.Wait()
			_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
			require.NoError(t, err)
			synctest.Wait()
			require.Equal(t, bgagent.CauseCaller, get(t, m, task.ID).Cause)
			require.Equal(t, int64(70), get(t, m, task.ID).Budget.Used.InputTokens)
			require.Equal(t, int64(70), m.Figures().Budgets[0].Used.InputTokens)
		})
	})
	t.Run("starter", func(t *testing.T) {
		f := newServer()
		bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}}, func(t *testing.T, m *bgagent.BackgroundManager) {
			id, s := turnOn(t, m, "a")
			time.Sleep(11 * time.Second)
			last := bgagent.Message{ID: "m9", Role: bgagent.RoleAgent, Text: "x", Finished: true, Stop: bgagent.StopEndOfTurn, Usage: bgagent.Usage{InputTokens: 10}}
			f.put(s, last)
			f.set(s, bgagent.SessionIdle)
			ended(t, m, id)
			last.Usage.InputTokens = 70
			for range 2 { // a repeated event counts once
				m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s, Message: &last})
			}
			require.Equal(t, int64(70), get(t, m, id).Budget.Used.InputTokens)
			require.Equal(t, bgagent.Completed, get(t, m, id).Status)
			last.Usage.InputTokens = 100
			f.put(s, last) // the manager notices the higher usage only when it reads the session before the next prompt
			_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "b"})
			require.NoError(t, err)
			task := ended(t, m, id)[0]
			require.Equal(t, bgagent.CauseBudget, task.Cause)
			require.Equal(t, 1, f.session(s).prompts, "the second prompt must not be handed over")
		})
	})
}

func TestTheNextTurnOfAParkedTaskIsRefused(t *testing.T) {
	f := &goRunner{}
	bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 100}, MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager) {
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text != "parent" {
				time.Sleep(time.Minute)
				return bgagent.TurnEnd{Text: "child's answer"}, nil
			}
			_, err := m.Launch(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
			return bgagent.TurnEnd{Text: "first", Usage: bgagent.Usage{InputTokens: 200}}, err
		}
		task := launch(t, m, "parent")
		time.Sleep(30 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, m, task.ID).Phase)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseBudget, task.Cause)
		require.Equal(t, "first", task.Result)
		require.Equal(t, bgagent.Completed, m.List(bgagent.Query{Parent: task.Session})[0].Status)
	})
}

// teller is a runner that declares whether it reports costs and tokens.
type teller struct {
	*goRunner
	cost, tokens bool
}

func (t teller) ReportsCost(agent string) bool   { return t.cost || agent == "paid" }
func (t teller) ReportsTokens(agent string) bool { return t.tokens }

func TestABudgetOnWhatTheClientDoesNotReportIsRefused(t *testing.T) {
	cost, tokens := bgagent.Budget{Cost: 1}, bgagent.Budget{TotalTokens: 1000}
	for name, c := range map[string]struct {
		client teller
		cfg    bgagent.Config
		in     bgagent.LaunchInput
		want   string
	}{
		"cost in Config":         {teller{tokens: true}, bgagent.Config{TaskBudget: cost}, bgagent.LaunchInput{}, `limits the cost, but the client of agent "worker" reports no cost`},
		"cost of the tree":       {teller{tokens: true}, bgagent.Config{TreeBudget: cost}, bgagent.LaunchInput{}, "budget of the tree: limits the cost"},
		"cost in LaunchInput":    {teller{tokens: true}, bgagent.Config{}, bgagent.LaunchInput{Budget: cost}, "limits the cost"},
		"tree in LaunchInput":    {teller{tokens: true}, bgagent.Config{}, bgagent.LaunchInput{TreeBudget: cost}, "limits the cost"},
		"tokens":                 {teller{cost: true}, bgagent.Config{TaskBudget: tokens}, bgagent.LaunchInput{}, "does not report all tokens"},
		"another agent has cost": {teller{tokens: true}, bgagent.Config{TaskBudget: cost}, bgagent.LaunchInput{Agent: "paid"}, ""},
		"both are reported":      {teller{cost: true, tokens: true}, bgagent.Config{TaskBudget: bgagent.Budget{Cost: 1, InputTokens: 5}}, bgagent.LaunchInput{}, ""},
		"tool calls":             {teller{}, bgagent.Config{TaskBudget: bgagent.Budget{ToolCalls: 3}}, bgagent.LaunchInput{}, ""},
		"no budget":              {teller{}, bgagent.Config{}, bgagent.LaunchInput{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.client.goRunner = &goRunner{run: works(time.Second)}
			bubble(t, c.client, c.cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				c.in.Prompt = "x"
				if c.in.Agent == "" {
					c.in.Agent = "worker"
				}
				task, err := m.Launch(t.Context(), root, c.in)
				if c.want == "" {
					require.NoError(t, err)
					return
				}
				var input *bgagent.InputError
				require.ErrorAs(t, err, &input)
				require.ErrorContains(t, err, c.want)
				require.Empty(t, task.ID)
				require.Empty(t, m.List(bgagent.Query{}))
			})
		})
	}
	t.Run("resume", func(t *testing.T) {
		bubble(t, teller{goRunner: &goRunner{run: works(time.Second)}}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "a").ID)[0]
			_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b", Budget: cost})
			require.ErrorContains(t, err, "limits the cost")
			_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "b", Budget: bgagent.Budget{InputTokens: -1}})
			require.ErrorContains(t, err, "Budget.InputTokens: is -1; it must be positive")
		})
	})
}

func TestTokensWithoutACostAreSaidOnce(t *testing.T) {
	f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{Text: "x", Usage: bgagent.Usage{InputTokens: 30}}, nil
	}}
	var log bytes.Buffer
	cfg := bgagent.Config{TaskBudget: bgagent.Budget{Cost: 1}, TreeBudget: bgagent.Budget{Cost: 1}, BudgetPeriod: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		for range 3 {
			task := ended(t, m, launch(t, m, "a").ID)[0]
			require.True(t, task.Budget.CostNotReported)
		}
		require.True(t, m.Figures().Budgets[0].CostNotReported)
		synctest.Wait()
		require.Equal(t, 1, strings.Count(log.String(), "reported no cost"), log.String())
	})
}

func TestWrongBudgetsAreRefused(t *testing.T) {
	for want, cfg := range map[string]bgagent.Config{
		"Config.TaskBudget.Cost: is -1":     {TaskBudget: bgagent.Budget{Cost: -1}},
		"Config.TreeBudget.ToolCalls: is -": {TreeBudget: bgagent.Budget{ToolCalls: -5}},
		"Config.BudgetPeriod: is -5ns":      {BudgetPeriod: -5},
	} {
		_, err := bgagent.New(working(time.Second), cfg)
		require.ErrorContains(t, err, want)
	}
	bubble(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "x", TreeBudget: bgagent.Budget{OutputTokens: -1}})
		require.ErrorContains(t, err, "TreeBudget.OutputTokens: is -1")
	})
}

func TestABudgetErrorIsAnAnswerForTheModel(t *testing.T) {
	bubble(t, spending(bgagent.Usage{InputTokens: 10}), bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 40}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "a").ID)[0]
		reply, err := bgagent.DelegateTask(t.Context(), m, root, bgagent.DelegateTaskArgs{Prompt: "go on", SessionID: task.Session})
		require.NoError(t, err)
		require.True(t, reply.IsError)
		require.Contains(t, reply.Text, "is used up (40 of 40 input tokens). Only the user, or the program that runs the agents, can raise it.")
		require.NotContains(t, reply.Text, "delegate_task(")
	})
}

func TestACostThatIsNoNumberCountsAsNone(t *testing.T) {
	for _, cost := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		f := &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Usage(bgagent.Usage{Cost: cost})
			<-ctx.Done()
			return bgagent.TurnEnd{Usage: bgagent.Usage{Cost: cost}}, ctx.Err()
		}}
		withMemory(t, f, bgagent.Config{TreeBudget: bgagent.Budget{Cost: 5}, BudgetPeriod: time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory) {
			task := launch(t, m, "a")
			synctest.Wait()
			_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
			require.NoError(t, err)
			time.Sleep(time.Minute)
			require.Zero(t, m.Figures().Budgets[0].Used.Cost)
		})
	}
}

func TestTheHostRaisesTheBudgetOfATaskBelowALiveTask(t *testing.T) {
	f := &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "child" {
			r.Usage(bgagent.Usage{InputTokens: 10})
		}
		<-ctx.Done()
		return bgagent.TurnEnd{}, ctx.Err()
	}}
	bubble(t, f, bgagent.Config{MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager) {
		parent := launch(t, m, "parent")
		synctest.Wait()
		by := bgagent.Caller{Session: get(t, m, parent.ID).Session}
		child, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "child", Budget: bgagent.Budget{InputTokens: 10}})
		require.NoError(t, err)
		require.Equal(t, bgagent.CauseBudget, ended(t, m, child.ID)[0].Cause)
		more := bgagent.ResumeInput{Prompt: "go on", Budget: bgagent.Budget{InputTokens: 30}}
		_, err = m.Resume(t.Context(), by, child.ID, more)
		var used *bgagent.BudgetError
		require.ErrorAs(t, err, &used, "a task cannot raise a budget")
		again, err := m.Resume(t.Context(), bgagent.Caller{}, child.ID, more)
		require.NoError(t, err)
		require.Equal(t, int64(30), again.Budget.Limit.InputTokens)
	})
}
