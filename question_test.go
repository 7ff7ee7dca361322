package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// mayI is a request for permission.
var mayI = bgagent.Question{ID: "per_1", Kind: bgagent.QuestionPermission, Title: "May I run make?", Subject: "make -j 4 all", Options: []string{"allow", "deny"}}

// The variable "which" is a question that does not ask for permission.
var which = bgagent.Question{ID: "que_1", Kind: bgagent.QuestionChoice, Title: "Which branch?", Subject: "Which branch is to be released?", Options: []string{"main", "next"}}

// The function "asking" simulates an agent that asks a question after 10 s, works for another 10 s,
// and ends with the answer that it got.
func asking(q bgagent.Question) func(*bgagenttest.Turn) {
	return func(t *bgagenttest.Turn) {
		t.Say("I ask. ")
		t.Sleep(10 * time.Second)
		option, err := t.Question(q)
		t.Sleep(10 * time.Second)
		switch {
		case errors.Is(err, bgagent.ErrQuestionExpired):
			t.Say("expired")
		case errors.Is(err, bgagent.ErrNotAsked):
			t.Say("refused: " + err.Error())
		case err != nil:
			t.Say("failed: " + err.Error())
		default:
			t.Say("told " + option)
		}
	}
}

// askingOnBoth runs a test twice, once with a runner and once with a starter. The turns of both run
// the script.
func askingOnBoth(t *testing.T, script func(*bgagenttest.Turn), cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake)) {
	cfg.Ask = true
	runBoth(t, script, true, cfg, test)
}

// onFake runs a test with a runner whose turns run the script.
func onFake(t *testing.T, script func(*bgagenttest.Turn), cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := bgagenttest.NewRunner(script)
		defer r.Close()
		cfg.Ask = true
		test(t, manage(t, r, cfg))
		require.Empty(t, r.Violations())
	})
}

// onFakeServer is like onFake, but uses a starter that reports events.
func onFakeServer(t *testing.T, script func(*bgagenttest.Turn), cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager, s bgagenttest.Starter)) {
	t.Helper()
	onFaultyServer(t, script, nil, cfg, test)
}

// onFaultyServer is like onFakeServer, but the starter's calls have the given faults.
func onFaultyServer(t *testing.T, script func(*bgagenttest.Turn), faults func(bgagenttest.Call) bgagenttest.Fault, cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager, s bgagenttest.Starter)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := bgagenttest.NewStarter(script)
		s.Stream, s.Faults = true, faults
		defer s.Close()
		cfg.Ask = true
		test(t, manage(t, s, cfg), s)
		require.Empty(t, s.Violations())
	})
}

// The function "asks" returns the task's question as soon as the task has asked it.
func asks(t *testing.T, m *bgagent.BackgroundManager, id string) bgagent.Question {
	t.Helper()
	for range 1000 {
		if list := get(t, m, id).Questions; len(list) > 0 {
			return list[0]
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.Fail(t, "the task does not ask")
	return bgagent.Question{}
}

var host = bgagent.Caller{}

func answer(t *testing.T, m *bgagent.BackgroundManager, id, key, option string) bgagent.Question {
	t.Helper()
	q, err := m.Answer(context.Background(), host, id, bgagent.AnswerInput{Key: key, Option: option})
	require.NoError(t, err)
	return q
}

func TestATaskGoesOnWithTheAnswerToItsQuestion(t *testing.T) {
	askingOnBoth(t, asking(mayI), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		_, sub := m.Subscribe(0)
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		require.Equal(t, bgagent.QuestionOpen, q.State)
		require.Equal(t, mayI.Subject, q.Subject)
		require.Equal(t, mayI.Options, q.Options)
		require.Equal(t, 24*time.Hour, q.Expires.Sub(q.Asked))
		now := get(t, m, task.ID)
		require.Equal(t, bgagent.PhaseAsking, now.Phase)
		require.Equal(t, mayI.Title, now.Progress.Detail)

		over := answer(t, m, task.ID, q.Key, "allow")
		require.Equal(t, bgagent.QuestionAnswered, over.State)
		require.Equal(t, "allow", over.Answer)
		end := ended(t, m, task.ID)[0]
		require.Equal(t, "I ask. told allow", end.Result)
		require.Empty(t, end.Questions)
		var states []bgagent.QuestionState
		for _, e := range eventsOf(t, sub, task.ID) {
			if e.Kind == bgagent.EventQuestion {
				states = append(states, e.Question.State)
				require.Equal(t, q.Key, e.Question.Key)
			}
		}
		require.Equal(t, []bgagent.QuestionState{bgagent.QuestionOpen, bgagent.QuestionAnswered}, states)
	})
}

// eventsOf returns the events about the task up to its end.
func eventsOf(t *testing.T, sub *bgagent.Subscription, id string) (list []bgagent.Event) {
	t.Helper()
	for {
		e, err := sub.Next(t.Context())
		require.NoError(t, err)
		if e.Task.ID == id {
			if list = append(list, e); e.Kind == bgagent.EventEnded {
				return list
			}
		}
	}
}

func TestAQuestionThatIsOpenForADayHoldsNoSlotAndIsNotStale(t *testing.T) {
	script := func(t *bgagenttest.Turn) {
		if t.Prompt.Text == "build" {
			asking(mayI)(t)
		} else {
			t.Sleep(10 * time.Minute)
			t.Say("done")
		}
	}
	onFake(t, script, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		other := launch(t, m, "other")
		time.Sleep(59 * time.Second)
		require.Equal(t, bgagent.Pending, get(t, m, other.ID).Status, "the asking task keeps its slot for a minute")
		time.Sleep(2 * time.Second)
		parked := get(t, m, task.ID)
		require.Equal(t, bgagent.PhaseParked, parked.Phase)
		require.Equal(t, q.Expires, parked.Until)
		require.Contains(t, parked.Reason, mayI.Title)
		require.Equal(t, bgagent.Running, get(t, m, other.ID).Status)
		ended(t, m, other.ID)

		time.Sleep(22 * time.Hour)
		require.Equal(t, bgagent.PhaseParked, get(t, m, task.ID).Phase)
		busy, last := launch(t, m, "busy"), launch(t, m, "last")
		time.Sleep(time.Minute)
		answer(t, m, task.ID, q.Key, "deny")
		now := get(t, m, task.ID)
		require.Equal(t, bgagent.PhaseParked, now.Phase, "the answer is withheld until the task has a slot")
		require.Contains(t, now.Reason, "slot")
		ended(t, m, busy.ID)
		sourceAnswers()
		require.Equal(t, bgagent.PhaseTurn, get(t, m, task.ID).Phase, "the task is at the head of the line")
		require.Equal(t, bgagent.Pending, get(t, m, last.ID).Status)
		require.Equal(t, "I ask. told deny", ended(t, m, task.ID)[0].Result)
		require.Equal(t, bgagent.Completed, ended(t, m, last.ID)[0].Status)
		sourceAnswers()
		require.Zero(t, m.Concurrency().Pools())
	})
}

func TestAStarterKeepsItsSlotWhileItAsks(t *testing.T) {
	onFakeServer(t, asking(mayI), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, _ bgagenttest.Starter) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		time.Sleep(23 * time.Hour)
		now := get(t, m, task.ID)
		require.Equal(t, bgagent.PhaseAsking, now.Phase)
		answer(t, m, task.ID, q.Key, "allow")
		require.Equal(t, "I ask. told allow", ended(t, m, task.ID)[0].Result)
	})
}

// The time to live is paused while a task asks a question, whether or not the task has given its
// slot back.
func TestTheTimeToLiveDoesNotPassWhileATaskAsks(t *testing.T) {
	for _, wait := range []time.Duration{50 * time.Second, 10 * time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			cfg := bgagent.Config{TimeToLive: 25 * time.Second, StaleTimeout: 15 * time.Second}
			askingOnBoth(t, asking(mayI), cfg, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
				task := launch(t, m, "build")
				q := asks(t, m, task.ID)
				time.Sleep(wait)
				answer(t, m, task.ID, q.Key, "allow")
				end := ended(t, m, task.ID)[0]
				require.Equal(t, bgagent.Completed, end.Status, end.Reason)
			})
		})
	}
	t.Run("runs again after the answer", func(t *testing.T) {
		cfg := bgagent.Config{TimeToLive: 15 * time.Second, StaleTimeout: bgagent.Disabled}
		askingOnBoth(t, asking(mayI), cfg, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
			task := launch(t, m, "build")
			q := asks(t, m, task.ID)
			time.Sleep(time.Hour)
			answer(t, m, task.ID, q.Key, "allow")
			require.Equal(t, bgagent.CauseTimeToLive, ended(t, m, task.ID)[0].Cause)
		})
	})
}

func TestOneOfTwoAnswersCounts(t *testing.T) {
	askingOnBoth(t, asking(mayI), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		var wg sync.WaitGroup
		var got [2]bgagent.Question
		var errs [2]error
		for i, option := range q.Options {
			wg.Go(func() {
				got[i], errs[i] = m.Answer(context.Background(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: option})
			})
		}
		wg.Wait()
		lost := 0
		if errs[0] == nil {
			lost = 1
		}
		require.NoError(t, errs[1-lost])
		require.ErrorIs(t, errs[lost], bgagent.ErrQuestionOver)
		require.ErrorContains(t, errs[lost], fmt.Sprintf("answered with %q", q.Options[1-lost]))
		require.Equal(t, got[1-lost], got[lost], "the other caller must get the accepted answer")
		require.Equal(t, "I ask. told "+q.Options[1-lost], ended(t, m, task.ID)[0].Result)
	})
}

func TestAnExpiredQuestionIsNotDenied(t *testing.T) {
	q := mayI
	askingOnBoth(t, asking(q), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		require.Equal(t, 24*time.Hour, q.Expires.Sub(q.Asked))
		time.Sleep(25 * time.Hour)
		require.Equal(t, "I ask. expired", ended(t, m, task.ID)[0].Result)
		over, err := m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
		require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		require.ErrorContains(t, err, "expired")
		require.Equal(t, bgagent.QuestionExpired, over.State)
		require.Empty(t, over.Answer)
	})
}

func TestAClientSetsWhenItsQuestionExpires(t *testing.T) {
	script := func(t *bgagenttest.Turn) {
		q := mayI
		q.Expires = time.Now().Add(time.Minute)
		_, err := t.Question(q)
		t.Say(err.Error())
	}
	onFake(t, script, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		end := ended(t, m, launch(t, m, "build").ID)[0]
		require.Equal(t, time.Minute, time.Since(began))
		require.Contains(t, end.Result, bgagent.ErrQuestionExpired.Error())
	})
}

func TestACancelledTaskAsksNoMore(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Hour} {
		askingOnBoth(t, asking(mayI), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
			task := launch(t, m, "build")
			q := asks(t, m, task.ID)
			time.Sleep(wait)
			_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
			require.NoError(t, err)
			require.Empty(t, get(t, m, task.ID).Questions)
			over, err := m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
			require.ErrorIs(t, err, bgagent.ErrQuestionOver)
			require.ErrorContains(t, err, "no longer asked")
			require.Equal(t, bgagent.QuestionWithdrawn, over.State)
			require.Empty(t, over.Subject, "the subject must not be kept")
			require.NoError(t, m.Quiet(t.Context(), task.ID))
			fullBatch(t, m, 1)
		})
	}
}

func TestAQuestionIsRefusedAtOnceByDefault(t *testing.T) {
	runBoth(t, asking(mayI), true, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		began := time.Now()
		end := ended(t, m, launch(t, m, "build").ID)[0]
		require.Contains(t, end.Result, "refused: ")
		require.Contains(t, end.Result, "Config.Ask")
		require.Less(t, time.Since(began), 25*time.Second)
	})
}

func TestTheTwentyFirstQuestionIsRefused(t *testing.T) {
	askingOnBoth(t, asking(mayI), bgagent.Config{Limits: bgagent.Limits{Default: bgagent.Unlimited}}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		var ids []string
		for range 21 {
			ids = append(ids, launch(t, m, "build").ID)
		}
		time.Sleep(time.Minute)
		open, over := 0, 0
		for _, id := range ids {
			if task := get(t, m, id); len(task.Questions) > 0 {
				open++
			} else {
				require.Contains(t, task.Result, "20 questions")
				over++
			}
		}
		require.Equal(t, 20, open)
		require.Equal(t, 1, over)
	})
}

func TestAnAnswerMustFitItsQuestion(t *testing.T) {
	askingOnBoth(t, asking(mayI), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		for _, c := range []struct {
			id, key, option string
			is              error
			text            string
		}{
			{task.ID, q.Key, "always", nil, "allow, deny"},
			{task.ID, q.Key, "", nil, "allow, deny"},
			{task.ID, "", "allow", nil, "Key: is missing"},
			{task.ID, q.ID + ".other", "allow", bgagent.ErrNoQuestion, ""},
			{"bg_unknown", q.Key, "allow", bgagent.ErrUnknownTask, ""},
		} {
			_, err := m.Answer(t.Context(), host, c.id, bgagent.AnswerInput{Key: c.key, Option: c.option})
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
				continue
			}
			require.ErrorAs(t, err, new(*bgagent.InputError))
			require.ErrorContains(t, err, c.text)
		}
		require.Len(t, get(t, m, task.ID).Questions, 1, "a wrong answer must not change anything")
		answer(t, m, get(t, m, task.ID).Session, q.Key, "deny")
		require.Equal(t, "I ask. told deny", ended(t, m, task.ID)[0].Result)
	})
}

// The key contains a digest of the subject, so an answer cannot reach a different question that has
// the same id.
func TestAnAnswerCountsOnlyForTheSubjectShown(t *testing.T) {
	script := func(t *bgagenttest.Turn) { t.Sleep(time.Minute) }
	onFakeServer(t, script, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ bgagenttest.Starter) {
		task := launch(t, m, "build")
		time.Sleep(time.Second)
		session := get(t, m, task.ID).Session
		report := func(list ...bgagent.Question) {
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostQuestion, Session: session, Questions: list})
		}
		report(mayI)
		first := asks(t, m, task.ID)
		report(mayI)
		require.Equal(t, []bgagent.Question{first}, get(t, m, task.ID).Questions, "the same question must not be asked twice")
		changed := mayI
		changed.Subject = "make -j 4 all && rm -rf /"
		report(changed)
		second := asks(t, m, task.ID)
		require.NotEqual(t, first.Key, second.Key)
		over, err := m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: first.Key, Option: "allow"})
		require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		require.Equal(t, bgagent.QuestionWithdrawn, over.State)
		require.Equal(t, []bgagent.Question{second}, get(t, m, task.ID).Questions)
		report()
		require.Empty(t, get(t, m, task.ID).Questions)
	})
}
