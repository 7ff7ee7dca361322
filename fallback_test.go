package bgagent_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The tests use these models, and launch tasks on modelA.
const modelA, modelB, modelC = "one/a", "two/b", "two/c"

// The function "fallbacks" returns a configuration whose tasks run on modelA, with the given
// fallbacks.
func fallbacks(models ...string) bgagent.Config {
	cfg := limit(1)
	cfg.Model = func(_, asked string) (string, error) {
		if asked != "" {
			return asked, nil
		}
		return modelA, nil
	}
	cfg.Fallback = map[string][]string{modelA: models}
	return cfg
}

// onModels returns a function that refuses turns with the given models.
func onModels(refusals map[string]bgagent.ProviderError) func(int, bgagent.Prompt) error {
	return func(_ int, p bgagent.Prompt) error {
		e, refuses := refusals[p.Model]
		if !refuses {
			return nil
		}
		return &e
	}
}

func modelsOf(turns []limitedTurn) (models []string) {
	for _, turn := range turns {
		models = append(models, turn.prompt.Model)
	}
	return models
}

func TestATaskThatCannotWaitGoesOnWithTheNextModelAtOnce(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // time at which a synctest bubble begins
	for name, e := range map[string]bgagent.ProviderError{
		"a quota without a reset":             {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue},
		"a reset that is too late":            {Kind: bgagent.ProviderRateLimited, Next: bgagent.NextContinue, RetryAt: now.Add(7 * time.Hour)},
		"a reset later than FallbackAfter":    {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue, RetryAt: now.Add(11 * time.Minute)},
		"an unknown model":                    {Kind: bgagent.ProviderUnknownModel, Next: bgagent.NextContinue},
		"a session that does not continue":    {Kind: bgagent.ProviderOverloaded, Next: bgagent.NextNone},
		"a session that is gone":              {Kind: bgagent.ProviderQuota, Next: bgagent.NextNewSession},
		"a session with nothing of the turn":  {Kind: bgagent.ProviderQuota, Next: bgagent.NextRepeat},
		"an unknown model without a session":  {Kind: bgagent.ProviderUnknownModel, Next: bgagent.NextNone},
		"a failure after which nothing is ok": {Kind: bgagent.ProviderBroken, Next: bgagent.NextNone},
	} {
		t.Run(name, func(t *testing.T) {
			e.Message = "no, thanks"
			f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: e}))
			bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
				began := time.Now()
				task := ended(t, m, launch(t, m, "p").ID)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, time.Second, time.Since(began))
				require.Equal(t, modelB, task.Model)
				require.Contains(t, task.Fallback, "fell back from the model one/a to two/b: the provider of the model refused the turn ("+e.Kind.String()+"): no, thanks")

				require.Equal(t, 2, task.Attempt)
				require.Len(t, task.Attempts, 1)
				require.Equal(t, bgagent.CauseSuperseded, task.Attempts[0].Cause)
				require.Equal(t, bgagent.Cancelled, task.Attempts[0].Status)
				require.Equal(t, task.Fallback, task.Attempts[0].Reason)
				require.Equal(t, bgagent.NoticeNone, task.Attempts[0].Notice)

				turns := f.turns()
				require.Equal(t, []string{modelA, modelB}, modelsOf(turns))
				second := turns[1].prompt
				require.Equal(t, "answer to "+second.Text, task.Result)
				require.Equal(t, task.Session, turns[1].session)
				switch e.Next {
				case bgagent.NextContinue:
					require.Equal(t, turns[0].session, turns[1].session)
					require.Equal(t, turns[0].prompt.ID, second.Unanswered)
				case bgagent.NextRepeat:
					require.Equal(t, turns[0].session, turns[1].session)
					require.Equal(t, "p", second.Text)
				default:
					require.NotEqual(t, turns[0].session, turns[1].session)
					require.Equal(t, "p", second.Text)
					require.Empty(t, second.Unanswered)
				}
			})
		})
	}
}

func TestATaskThatCanWaitGoesOnWithTheNextModelAfterFallbackAfter(t *testing.T) {
	for name, c := range map[string]struct {
		kind  bgagent.ProviderErrorKind
		after time.Duration
		want  time.Duration
	}{
		"by default":     {bgagent.ProviderRateLimited, 0, 10 * time.Minute},
		"an overload":    {bgagent.ProviderOverloaded, 2 * time.Minute, 2 * time.Minute},
		"a failure":      {bgagent.ProviderBroken, time.Hour, 30 * time.Minute}, // after 30 min, the task would end if it had no fallback
		"without a wait": {bgagent.ProviderOverloaded, bgagent.Disabled, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: c.kind, Next: bgagent.NextContinue}}))
			cfg := fallbacks(modelB)
			cfg.FallbackAfter = c.after
			bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				began := time.Now()
				task := ended(t, m, launch(t, m, "p").ID)[0]
				turns := f.turns()
				last := turns[len(turns)-1]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, modelB, last.prompt.Model)
				require.Equal(t, c.want, last.at.Sub(began))
				require.Len(t, task.Attempts, 1)
			})
		})
	}
}

func TestAWaitThatIsOverInTimeNeedsNoFallback(t *testing.T) {
	f := newLimited(first(3, bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}))
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.Completed, task.Status)
		require.Equal(t, []string{modelA, modelA, modelA, modelA}, modelsOf(f.turns()))
		require.Empty(t, task.Fallback)
		require.Equal(t, 1, task.Attempt)
	})
}

func TestNoFallbackWhereNoneIsAllowed(t *testing.T) {
	quota := bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}
	refusals := map[string]bgagent.ProviderError{
		"the key was rejected":   {Kind: bgagent.ProviderAuthentication, Next: bgagent.NextContinue},
		"the input is too long":  {Kind: bgagent.ProviderTooLong, Next: bgagent.NextContinue},
		"the caller named it":    quota,
		"the host chose it":      quota,
		"the model has none":     quota,
		"a runtime with its own": quota,
	}
	for name, e := range refusals {
		t.Run(name, func(t *testing.T) {
			f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: e, modelC: e}))
			var client bgagent.SessionClient = f
			cfg, in := fallbacks(modelB), bgagent.LaunchInput{Agent: "worker", Prompt: "p"}
			falls := false
			switch name {
			case "the caller named it":
				in.Model = modelA
			case "the host chose it": // the caller did not choose the model
				falls = true
				in.Model = modelC
				cfg.PrepareLaunch = func(_ context.Context, _ bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
					in.Model = modelA
					return in, nil
				}
			case "the model has none":
				cfg.Model = func(string, string) (string, error) { return modelC, nil }
			case "a runtime with its own":
				client = ways{f, bgagent.FallbackByItself}
			}
			bubble(t, client, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				launched, err := m.Launch(t.Context(), root, in)
				require.NoError(t, err)
				task := ended(t, m, launched.ID)[0]
				require.Equal(t, falls, task.Status == bgagent.Completed, task.Reason)
				require.Equal(t, falls, len(f.turns()) == 2)
				require.Equal(t, falls, task.Fallback != "")
			})
		})
	}
	t.Run("the model refused", func(t *testing.T) {
		f := newLimited(nil)
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Stop: bgagent.StopRefused}, nil
		}
		bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, bgagent.CauseRefused, task.Cause)
			require.Equal(t, modelA, task.Model)
		})
	})
}

// The type "ways" is a runner that declares how its agents continue with other models.
type ways struct {
	*limited
	way bgagent.FallbackWay
}

func (w ways) Fallback(string) bgagent.FallbackWay { return w.way }

// In this test, the provider refuses the turn, with and without a preceding tool call.
func TestAToolCallForbidsANewSession(t *testing.T) {
	for _, way := range []bgagent.FallbackWay{bgagent.FallbackInSession, bgagent.FallbackInNewSession} {
		for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextNone} {
			for _, calls := range []bool{false, true} {
				t.Run(fmt.Sprint(way, next, calls), func(t *testing.T) {
					f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: next}}))
					turn := f.run
					f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
						if p.Model == modelA && calls {
							r.Tool(bgagent.MessageTool{ID: "1", Name: "write", State: bgagent.ToolDone})
						}
						r.Text("a part of ")
						return turn(ctx, session, p, r)
					}
					bubble(t, ways{f, way}, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
						task := ended(t, m, launch(t, m, "p").ID)[0]
						turns := f.turns()
						inSession := way == bgagent.FallbackInSession && next == bgagent.NextContinue
						if calls && !inSession {
							require.Equal(t, bgagent.CauseRateLimited, task.Cause)
							require.Len(t, turns, 1)
							require.Equal(t, "a part of ", task.Result)
							require.True(t, task.Partial)
							return
						}
						require.Equal(t, bgagent.Completed, task.Status, task.Reason)
						require.Equal(t, inSession, turns[0].session == turns[1].session)
					})
				})
			}
		}
	}
}

// In this test, all models are refused. The fallbacks form a cycle.
func TestEachFallbackIsTriedOnce(t *testing.T) {
	quota := bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: quota, modelB: quota, modelC: quota}))
	cfg := fallbacks(modelB)
	cfg.Fallback[modelB] = []string{"ONE/A", modelC}
	cfg.Fallback["c"] = []string{modelB}
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.CauseRateLimited, task.Cause)
		require.Equal(t, []string{modelA, modelB, modelC}, modelsOf(f.turns()))
		require.Equal(t, 3, task.Attempt)
		require.Contains(t, task.Fallback, "from the model two/b to two/c")
		require.Equal(t, f.turns()[0].session, task.Session)
	})
}

func TestAFallbackWaitsInTheLineOfItsOwnPool(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue, Status: 429}}))
	f.last = time.Minute
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		busy, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "busy", Model: modelB})
		require.NoError(t, err)
		synctest.Wait()
		_, events := m.Subscribe(0)
		defer events.Close()
		id := launch(t, m, "p").ID
		synctest.Wait()
		task := get(t, m, id)
		require.Equal(t, bgagent.Running, task.Status)
		require.Equal(t, bgagent.PhaseParked, task.Phase)
		require.Equal(t, modelB, task.Model)
		require.Equal(t, task.Fallback+"; it waits for a slot of that model", task.Reason)
		require.Zero(t, task.Until)
		pools := map[string]bgagent.PoolStats{}
		for _, p := range m.Concurrency().Pools() {
			pools[p.Name] = p
		}
		require.Equal(t, 1, pools["default two/b"].InUse)
		require.Equal(t, 1, pools["default two/b"].Waiting)
		require.Zero(t, pools["default one/a"].InUse, "the slot of the first model is free")
		out, err := bgagent.BackgroundOutput(bgagent.WithCaller(t.Context(), root), m, root, bgagent.BackgroundOutputArgs{TaskID: id})
		require.NoError(t, err)
		require.Contains(t, out.Text, "| Model | fell back from the model one/a to two/b: the provider of the model refused the turn (quota, status 429) |")

		tasks := ended(t, m, busy.ID, id)
		require.Equal(t, []bgagent.Status{bgagent.Completed, bgagent.Completed}, statuses(tasks))
		require.False(t, f.turns()[2].at.Before(tasks[0].Ended))
		var kinds []bgagent.EventKind
		for {
			e, err := events.Next(t.Context())
			require.NoError(t, err)
			if e.Task.ID == id {
				kinds = append(kinds, e.Kind)
				if e.Kind == bgagent.EventSuperseded {
					require.Equal(t, modelA, e.Task.Model)
					require.Equal(t, task.Fallback, e.Task.Reason)
				}
				if e.Kind == bgagent.EventEnded {
					require.Equal(t, modelB, e.Task.Model)
					break
				}
			}
		}
		require.Contains(t, kinds, bgagent.EventSuperseded)
	})
}

// In this test, many tasks are launched. The provider of their model says that it will accept
// requests again, but too late for these tasks.
func TestTasksThatHaveNotStartedPassAModelThatIsRefusedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := func() time.Time { return time.Now().Add(5 * time.Hour) }
		f := newLimited(nil)
		f.refuse = func(_ int, p bgagent.Prompt) error {
			if p.Model == modelC {
				return nil
			}
			time.Sleep(time.Second)
			return &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue, RetryAt: late()}
		}
		m := manage(t, f, fallbacks(modelB, modelC))
		began := time.Now()
		named, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "named", Model: modelA})
		require.NoError(t, err)
		var ids []string
		for i := range 10 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(1500 * time.Millisecond)
		ids = append(ids, launch(t, m, "10").ID)
		require.Equal(t, modelB, get(t, m, ids[10]).Model)
		tasks := ended(t, m, ids...)
		for i, task := range tasks {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, modelC, task.Model)
			require.Contains(t, task.Fallback, "to two/c")
			if i > 1 { // task 0 was refused, so it can start after task 1
				require.False(t, task.Started.Before(tasks[i-1].Started), "task %d starts before task %[1]d - 1", i)
			}
		}
		require.Less(t, time.Since(began), time.Minute)
		require.Equal(t, modelA, get(t, m, named.ID).Model)
		require.Equal(t, bgagent.PhaseParked, get(t, m, named.ID).Phase)
		require.Equal(t, 1, get(t, m, ids[5]).Attempt, "the task had not begun a turn before")
	})
}

func TestBudgetsCountTheTurnsOfAllModels(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}}))
	turn := f.run
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		r.Usage(bgagent.Usage{InputTokens: 100}) // usage is reported before the tool call that uses up the budget
		for i := range 2 {
			r.Tool(bgagent.MessageTool{ID: fmt.Sprint(i), Name: "read", State: bgagent.ToolDone})
		}
		return turn(ctx, session, p, r)
	}
	for limit, want := range map[int]bgagent.Status{5: bgagent.Completed, 4: bgagent.Cancelled} {
		cfg := fallbacks(modelB)
		cfg.TaskBudget.ToolCalls = limit
		bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, want, task.Status, task.Reason)
			require.Equal(t, want == bgagent.Cancelled, task.Cause == bgagent.CauseBudget)
			require.Equal(t, 4, task.Budget.Used.ToolCalls)
			require.EqualValues(t, 200, task.Budget.Used.InputTokens)
			require.Equal(t, modelB, task.Model)
			require.Equal(t, 2, task.Attempt)
		})
	}
}

func TestACallWhoseTimeEndsAfterAFallbackIsToldThatTheTaskGoesOn(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}}))
	f.last = time.Minute
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		task, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "p"})
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		require.Equal(t, 2, task.Attempt)
		require.Equal(t, bgagent.Running, task.Status)
	})
}

// This test checks waiting callers, repeated tool calls and messages.
func TestWhatWaitsForATaskFollowsItToTheNextModel(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}}))
	refuse := f.refuse
	f.refuse = func(n int, p bgagent.Prompt) error {
		time.Sleep(time.Second)
		return refuse(n, p)
	}
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		by := bgagent.Caller{Session: root.Session, ToolCallID: "call"}
		in := bgagent.LaunchInput{Agent: "worker", Prompt: "p"}
		done := make(chan bgagent.Task, 1)
		go func() {
			task, err := m.Run(t.Context(), by, in)
			if err != nil {
				t.Error(err)
			}
			done <- task
		}()
		synctest.Wait()
		id := m.List(bgagent.Query{})[0].ID
		sent, err := m.Send(t.Context(), root, id, bgagent.SendInput{Key: "k", Text: "more"})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageAccepted, sent.State)
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, 2, get(t, m, id).Attempt)
		again, err := m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		require.Equal(t, id, again.ID)
		task := <-done
		require.Equal(t, id, task.ID)
		require.Equal(t, 2, task.Attempt)
		require.Equal(t, bgagent.Completed, task.Status)
		turns := f.turns()
		require.Len(t, turns, 3)
		require.Equal(t, "more", turns[2].prompt.Text)
		require.Contains(t, task.Result, "## Answer to message 1: more\n\nanswer to more")
		require.Empty(t, task.Unconsumed)
		sent, err = m.Send(t.Context(), root, id, bgagent.SendInput{Key: "k"})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, sent.State)
	})
}

func TestAResumedTaskKeepsTheModelToWhichItFellBack(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}}))
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		fell := ended(t, m, id)[0]
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		task := ended(t, m, id)[0]
		require.Equal(t, modelB, task.Model)
		require.Equal(t, fell.Fallback, task.Fallback)
		require.Equal(t, 3, task.Attempt)
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "once more", Model: modelA})
		require.NoError(t, err)
		task = ended(t, m, id)[0]
		require.Equal(t, modelA, task.Model)
		require.Empty(t, task.Fallback)
		require.Equal(t, bgagent.CauseRateLimited, task.Cause, "the caller has named the model")
		require.Equal(t, []string{modelA, modelB, modelB, modelA}, modelsOf(f.turns()))
	})
}

// In this test, a task that waits for a slot for its next model is cancelled and then resumed.
func TestAPromptThatTheSessionHasIsNotSentAgain(t *testing.T) {
	for next, want := range map[bgagent.ProviderNextStep]string{bgagent.NextContinue: "more", bgagent.NextRepeat: "p\n\nmore", bgagent.NextNone: "p\n\nmore"} {
		f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderQuota, Next: next}}))
		f.last = time.Minute
		bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "busy", Model: modelB})
			require.NoError(t, err)
			id := launch(t, m, "p").ID
			synctest.Wait()
			require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
			_, err = m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
			require.NoError(t, err)
			_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "more"})
			require.NoError(t, err)
			ended(t, m, id)
			turns := f.turns()
			require.Equal(t, want, turns[len(turns)-1].prompt.Text)
		})
	}
}
