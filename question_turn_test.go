package bgagent_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

func TestARunnerCanStopAsking(t *testing.T) {
	for _, after := range []time.Duration{30 * time.Second, time.Hour} {
		cfg := limit(1)
		cfg.Ask = true
		run := func(ctx context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "other" {
				time.Sleep(10 * time.Second)
				return bgagent.TurnEnd{Text: "done"}, nil
			}
			ctx, cancel := context.WithTimeout(ctx, after)
			defer cancel()
			_, err := r.Ask(ctx, mayI)
			return bgagent.TurnEnd{Text: "stopped: " + err.Error()}, nil
		}
		bubble(t, &goRunner{run: run}, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
			task := launch(t, m, "build")
			q := asks(t, m, task.ID)
			time.Sleep(after - time.Second)
			other := launch(t, m, "other")
			time.Sleep(2 * time.Second)
			if after > time.Minute {
				require.Equal(t, bgagent.PhaseParked, get(t, m, task.ID).Phase, "the turn must not continue without a slot")
			}
			end := ended(t, m, task.ID)[0]
			require.Contains(t, end.Result, context.DeadlineExceeded.Error())
			_, err := m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
			require.ErrorContains(t, err, "no longer asked")
			ended(t, m, other.ID)
		})
	}
}

func TestNothingIsAskedIfTheContextHasEnded(t *testing.T) {
	run := func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, err := r.Ask(ctx, mayI)
		return bgagent.TurnEnd{Text: err.Error()}, nil
	}
	bubble(t, &goRunner{run: run}, bgagent.Config{Ask: true}, func(t *testing.T, m *bgagent.BackgroundManager) {
		_, events := m.Subscribe(100)
		task := launch(t, m, "build")
		require.Equal(t, "bgagent: ask: "+context.Canceled.Error(), ended(t, m, task.ID)[0].Result)
		for {
			e, err := events.Next(t.Context())
			require.NoError(t, err)
			require.NotEqual(t, bgagent.EventQuestion, e.Kind)
			if e.Kind == bgagent.EventEnded {
				break
			}
		}
	})

	var reports []bgagent.Report
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := bgagent.NewReporter(func(r bgagent.Report) { reports = append(reports, r) }).Ask(ctx, mayI)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, reports)
}

func TestAnAnswerIsPassedAgainAfterAFailure(t *testing.T) {
	for _, failure := range []error{bgagent.ErrUnreachable, bgagent.ErrBusy, errors.New("status 500")} {
		faults := func(c bgagenttest.Call) bgagenttest.Fault {
			if c.Kind == bgagenttest.CallAnswer && c.N < 4 {
				return bgagenttest.Fault{Err: failure}
			}
			return bgagenttest.Fault{}
		}
		onFaultyServer(t, asking(mayI), faults, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ bgagenttest.Starter) {
			task := launch(t, m, "build")
			answer(t, m, task.ID, asks(t, m, task.ID).Key, "allow")
			require.Equal(t, "I ask. told allow", ended(t, m, task.ID)[0].Result)
		})
	}
}

func TestAnAnswerThatTheRuntimeCannotGetIsNotPassedAgain(t *testing.T) {
	for _, failure := range []error{bgagent.ErrNoQuestion, errors.ErrUnsupported} {
		faults := func(c bgagenttest.Call) bgagenttest.Fault {
			if c.Kind == bgagenttest.CallAnswer {
				return bgagenttest.Fault{Err: failure}
			}
			return bgagenttest.Fault{}
		}
		onFaultyServer(t, asking(mayI), faults, bgagent.Config{TimeToLive: time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager, s bgagenttest.Starter) {
			task := launch(t, m, "build")
			answer(t, m, task.ID, asks(t, m, task.ID).Key, "allow")
			time.Sleep(10 * time.Minute)
			require.Equal(t, 1, s.Calls(bgagenttest.CallAnswer, get(t, m, task.ID).Session))
			_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
			require.NoError(t, err)
		})
	}
}

func TestAQuestionThatWasAnsweredAtTheServerIsOver(t *testing.T) {
	onFakeServer(t, asking(mayI), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, s bgagenttest.Starter) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		require.True(t, s.AnswerAtServer(get(t, m, task.ID).Session, mayI.ID, "deny"))
		synctest.Wait()
		_, err := m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
		require.ErrorContains(t, err, "no longer asked")
		require.Equal(t, "I ask. told deny", ended(t, m, task.ID)[0].Result)
	})
}

func TestTwoQuestionsOfATurnAreAnsweredSeparately(t *testing.T) {
	run := func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		var wg sync.WaitGroup
		var told [2]string
		for i, q := range []bgagent.Question{mayI, which} {
			wg.Go(func() { told[i], _ = r.Ask(ctx, q) })
		}
		wg.Wait()
		return bgagent.TurnEnd{Text: told[0] + " and " + told[1]}, nil
	}
	cfg := limit(1)
	cfg.Ask = true
	bubble(t, &goRunner{run: run}, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "build")
		synctest.Wait()
		list := get(t, m, task.ID).Questions
		require.Len(t, list, 2)
		time.Sleep(time.Hour)
		for i, q := range list {
			answer(t, m, task.ID, q.Key, q.Options[0])
			synctest.Wait()
			if i == 0 {
				require.Equal(t, bgagent.PhaseAsking, get(t, m, task.ID).Phase)
				time.Sleep(2 * time.Minute)
				require.Equal(t, bgagent.PhaseParked, get(t, m, task.ID).Phase)
			}
		}
		require.Equal(t, "allow and main", ended(t, m, task.ID)[0].Result)
	})
}

// An answer is withheld while its task has no slot. If the turn is cancelled during this time, the
// answer does not reach the agent.
func TestATurnThatHasEndedGetsNoAnswer(t *testing.T) {
	told := make(chan string, 1)
	run := func(ctx context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "other" {
			return works(time.Hour)(ctx, "", p, r)
		}
		option, err := r.Ask(context.WithoutCancel(ctx), mayI)
		told <- option + err.Error()
		return bgagent.TurnEnd{}, ctx.Err()
	}
	cfg := limit(1)
	cfg.Ask, cfg.TimeToLive, cfg.StaleTimeout = true, bgagent.Disabled, bgagent.Disabled
	bubble(t, &goRunner{run: run}, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		launch(t, m, "other")
		time.Sleep(2 * time.Minute)
		answer(t, m, task.ID, q.Key, "allow")
		require.Empty(t, told)
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Contains(t, <-told, "the turn has ended")
		require.NoError(t, m.Quiet(t.Context(), task.ID))
	})
}
