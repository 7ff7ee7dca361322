package bgagent_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// If the provider refuses the turn that reports a question, the turn is repeated with the question,
// even if it now also reports that a task has ended.
func TestARefusedNoticeTurnKeepsItsQuestionWhenAnEndJoinsIt(t *testing.T) {
	var m *bgagent.BackgroundManager
	var notices []*bgagent.Notice
	var texts []string
	script := func(t *bgagenttest.Turn) {
		by := bgagent.Caller{Session: t.Session()}
		switch n := t.Prompt.Notice; {
		case t.Prompt.Text == "ask":
			asking(which)(t)
		case t.Prompt.Text == "end":
			t.Sleep(12 * time.Second)
		case n == nil:
			for _, prompt := range []string{"ask", "end"} {
				_, err := m.Launch(context.Background(), by, bgagent.LaunchInput{Agent: "worker", Prompt: prompt, Model: "other/" + prompt})
				t.Say(fmtErr(err))
			}
		default:
			notices, texts = append(notices, n), append(texts, t.Prompt.Text)
			if len(notices) == 1 {
				t.Refuse(bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat, RetryAt: time.Now().Add(time.Minute)})
			}
			for _, q := range n.Questions {
				_, err := m.Answer(context.Background(), by, q.Task, bgagent.AnswerInput{Key: q.Question.Key, Option: "next"})
				t.Say(fmtErr(err))
			}
		}
	}
	cfg := canAnswer(nil)
	cfg.MaxDepth, cfg.Limits.Default = 2, 3
	onFake(t, script, cfg, func(t *testing.T, made *bgagent.BackgroundManager) {
		m = made
		ended(t, m, launch(t, m, "top").ID)
		require.GreaterOrEqual(t, len(notices), 2)
		require.Len(t, notices[0].Questions, 1)
		require.Empty(t, notices[0].Items)
		require.Equal(t, notices[0].Questions, notices[1].Questions)
		require.Len(t, notices[1].Items, 1, "the notice must also report the end")
		require.Contains(t, texts[1], notices[0].Questions[0].Question.Key)
	})
}

// fmtErr returns the text of the error, or "" if there is no error.
func fmtErr(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// If the caller lacks the tool background_message, a call reports tasks that have ended, and leaves
// questions for the next notice.
func TestACallerWithoutTheToolLeavesQuestionsOwed(t *testing.T) {
	without := bgagent.ToolOptions{Omit: []string{bgagent.ToolBackgroundMessage}}
	script := func(t *bgagenttest.Turn) {
		if t.Prompt.Text == "release" {
			asking(which)(t)
		}
	}
	check := func(t *testing.T, m *bgagent.BackgroundManager) {
		task, other := launch(t, m, "release"), launch(t, m, "other")
		ended(t, m, other.ID)
		q := asks(t, m, task.ID)
		time.Sleep(time.Second)
		r, err := without.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{})
		require.NoError(t, err)
		require.NotNil(t, r.Notice)
		require.Len(t, r.Notice.Items, 1)
		require.Empty(t, r.Notice.Questions)
		r, err = without.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{})
		require.NoError(t, err)
		require.Nil(t, r.Notice)
		n, ok := m.TakeNotice(root.Session)
		require.True(t, ok)
		require.Equal(t, []string{q.Key}, questionsIn([]bgagent.Notice{n}))
		answer(t, m, task.ID, q.Key, "main")
		ended(t, m, task.ID)
	}
	t.Run("without a store", func(t *testing.T) { onFake(t, script, canAnswer(nil), check) })
	t.Run("with a store", func(t *testing.T) {
		onProcesses(t, script, func(t *testing.T, p *processes) {
			closeNow(p.m)
			p.cfg = canAnswer(nil)
			p.begin()
			check(t, p.m)
		})
	})
}

// Calls from callers that lack the tool background_message do not change an undelivered notice that
// reports a question.
func TestACallerWithoutTheToolLeavesANoticeThatWasTried(t *testing.T) {
	var box inbox
	box.fails(errors.New("down"))
	onFake(t, asking(which), canAnswer(&box), func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "release")
		asks(t, m, task.ID)
		time.Sleep(time.Second)
		require.Positive(t, box.called())
		r, err := bgagent.ToolOptions{Omit: []string{bgagent.ToolBackgroundMessage}}.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{})
		require.NoError(t, err)
		require.Nil(t, r.Notice)
		box.answers()
		time.Sleep(time.Hour)
		require.Len(t, questionsIn(box.all()), 1)
	})
}

// A tool result reports only the questions that it shows. A question that was asked after the
// result was made is still owed.
func TestAQuestionThatAnAnswerDoesNotShowStaysOwed(t *testing.T) {
	for _, shown := range []bool{true, false} {
		onFake(t, asking(which), canAnswer(nil), func(t *testing.T, m *bgagent.BackgroundManager) {
			task := launch(t, m, "release")
			before := get(t, m, task.ID)
			asks(t, m, task.ID)
			time.Sleep(time.Second)
			if shown {
				before = get(t, m, task.ID)
			}
			bgagent.ShowsQuestions(m, root, before)
			_, owed := m.TakeNotice(root.Session)
			require.Equal(t, !shown, owed)
		})
	}
}

// If a question is over before the store has accepted the notice about it, the question is not
// reported.
func TestAQuestionThatIsOverBeforeItsNoticeIsStoredIsNotReported(t *testing.T) {
	var box inbox
	onProcesses(t, asking(which), func(t *testing.T, p *processes) {
		closeNow(p.m)
		p.cfg = canAnswer(&box)
		p.cfg.NoticeWindow = 5 * time.Second
		p.begin()
		task := launch(t, p.m, "release")
		asks(t, p.m, task.ID)
		time.Sleep(time.Second)
		p.memory.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Kind: storetest.Refused} })
		time.Sleep(time.Minute)
		require.Empty(t, box.all())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.m.Cancel(ctx, host, task.ID, bgagent.CancelOptions{})
		require.Error(t, err, "the end must not be durable yet")
		time.Sleep(time.Minute)
		p.memory.SetFaults(nil)
		time.Sleep(time.Hour)
		require.Len(t, box.all(), 1)
		require.Empty(t, box.all()[0].Questions)
		require.Len(t, box.all()[0].Items, 1)
	})
}

// If a host changes a notice, the repetition of the notice is unaffected.
func TestAHostCannotChangeTheQuestionsOfANotice(t *testing.T) {
	var box inbox
	var calls sync.Mutex // the notice is delivered again, possibly while the test reads it
	var seen []bgagent.Question
	box.seen = func(n bgagent.Notice) {
		calls.Lock()
		defer calls.Unlock()
		q := &n.Questions[0]
		seen = append(seen, bgagent.Question{Title: q.Question.Title, Options: append([]string{}, q.Question.Options...)})
		q.Question.Title, q.Question.Options[0] = "changed", "changed"
	}
	box.fails(errors.New("down"))
	onFake(t, asking(which), canAnswer(&box), func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "release")
		asks(t, m, task.ID)
		time.Sleep(time.Minute)
		calls.Lock()
		defer calls.Unlock()
		require.Greater(t, len(seen), 1)
		for _, q := range seen {
			require.Equal(t, bgagent.Question{Title: which.Title, Options: which.Options}, q)
		}
	})
}

// A notice with a question can also report the end of a task whose batch is not yet complete. If
// the question is over before the session takes the notice, the end waits for its batch again.
func TestAnEndWaitsForItsBatchAgainOnceTheQuestionIsOver(t *testing.T) {
	var box inbox
	box.fails(bgagent.ErrBusy)
	script := func(t *bgagenttest.Turn) {
		switch t.Prompt.Text {
		case "release":
			asking(which)(t)
		case "long":
			t.Sleep(10 * time.Minute)
			t.Say("done")
		default:
			t.Say("done")
		}
	}
	cfg := canAnswer(&box)
	cfg.NoticeMaxWait, cfg.Limits.Default, cfg.StaleTimeout = bgagent.Disabled, 3, bgagent.Disabled
	onFake(t, script, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		task, first, long := launch(t, m, "release"), launch(t, m, "first"), launch(t, m, "long")
		ended(t, m, first.ID)
		q := asks(t, m, task.ID)
		time.Sleep(time.Second)
		require.Positive(t, box.called())
		answer(t, m, task.ID, q.Key, "main")
		box.answers()
		ended(t, m, task.ID)
		time.Sleep(time.Minute)
		require.Empty(t, box.all(), "the batch is still open")
		ended(t, m, long.ID)
		time.Sleep(time.Minute)
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Items, 3)
	})
}

// If only models can answer, a question that no model may answer is refused immediately.
func TestWhereOnlyModelsAnswerOtherQuestionsAreRefused(t *testing.T) {
	long := which
	long.Subject = strings.Repeat("x", 2<<10+1)
	with := []string{bgagent.ToolBackgroundMessage}
	for name, c := range map[string]struct {
		by    bgagent.Caller
		q     bgagent.Question
		cfg   bgagent.Config
		asked bool
	}{
		"a choice":                          {root, which, bgagent.Config{OptionalTools: with}, true},
		"without the tool":                  {root, which, bgagent.Config{}, false},
		"a permission":                      {root, mayI, bgagent.Config{OptionalTools: with}, false},
		"a permission that models may give": {root, mayI, bgagent.Config{OptionalTools: with, ModelsMayPermit: true}, true},
		"a subject that is not shown":       {root, long, bgagent.Config{OptionalTools: with}, false},
		"a task of the host":                {host, which, bgagent.Config{OptionalTools: with}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.OnlyModelsAnswer = true
			askingOnBoth(t, asking(c.q), c.cfg, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
				task, err := m.Launch(t.Context(), c.by, bgagent.LaunchInput{Agent: "worker", Prompt: "p"})
				require.NoError(t, err)
				if c.asked {
					answer(t, m, task.ID, asks(t, m, task.ID).Key, c.q.Options[0])
					require.Equal(t, "I ask. told "+c.q.Options[0], ended(t, m, task.ID)[0].Result)
					return
				}
				require.Contains(t, ended(t, m, task.ID)[0].Result, "only models can answer questions here, and none may answer this one")
			})
		})
	}
}
