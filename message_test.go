package bgagent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The function "answering" simulates an agent that works for 10 s and then answers with the text of
// its prompt.
func answering(t *bgagenttest.Turn) {
	t.Sleep(10 * time.Second)
	if t.Prompt.Notice != nil {
		t.Say("answer to a notice")
		return
	}
	t.Say("answer to " + t.Prompt.Text)
}

// onBoth runs a test twice, once with a runner and once with a starter. The turns of both run the
// script.
func onBoth(t *testing.T, script func(*bgagenttest.Turn), cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake)) {
	t.Helper()
	runBoth(t, script, false, cfg, test)
}

// runBoth is like onBoth. If stream is true, the starter reports events.
func runBoth(t *testing.T, script func(*bgagenttest.Turn), stream bool, cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake)) {
	for _, name := range []string{"runner", "starter"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runner := bgagenttest.NewRunner(script)
				f, sc := runner.Fake, bgagent.SessionClient(runner)
				if name == "starter" {
					starter := bgagenttest.NewStarter(script)
					starter.Stream = stream
					f, sc = starter.Fake, starter
				}
				defer f.Close()
				test(t, manage(t, sc, cfg), f)
				require.Empty(t, f.Violations())
			})
		})
	}
}

func send(t *testing.T, m *bgagent.BackgroundManager, id, key, text string) bgagent.SendResult {
	t.Helper()
	r, err := m.Send(context.Background(), root, id, bgagent.SendInput{Key: key, Text: text})
	require.NoError(t, err)
	return r
}

func TestAMessageIsTheNextTurnOfTheSameAttempt(t *testing.T) {
	onBoth(t, answering, limit(1), func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake) {
		task := launch(t, m, "work")
		time.Sleep(3 * time.Second)
		r := send(t, m, task.ID, "k", "also look at the tests")
		require.Equal(t, bgagent.MessageAccepted, r.State)
		require.Equal(t, 1, r.Task.Messages)
		require.Equal(t, 1, r.Attempt)
		require.Zero(t, r.Turn)
		require.Equal(t, bgagent.MessageAccepted, send(t, m, task.ID, "", "and the docs").State)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 1, task.Attempt)
		require.Equal(t, 3, task.Progress.Turns)
		require.Equal(t, "answer to work\n\n## Answer to message 1: also look at the tests\n\nanswer to also look at the tests\n\n"+
			"## Answer to message 2: and the docs\n\nanswer to and the docs", task.Result)
		require.Zero(t, task.Messages)
		require.Empty(t, task.Unconsumed)
		r = send(t, m, task.ID, "k", "whatever")
		require.Equal(t, bgagent.MessageInTurn, r.State)
		require.Equal(t, 2, r.Turn)
		require.NoError(t, m.Quiet(t.Context(), task.ID))
		fullBatch(t, m, 1)
	})
}

func TestAMessageToAPendingTaskIsItsSecondTurn(t *testing.T) {
	onBoth(t, answering, limit(1), func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake) {
		first, task := launch(t, m, "first"), launch(t, m, "work")
		require.Equal(t, bgagent.Pending, task.Status)
		require.Equal(t, bgagent.MessageAccepted, send(t, m, task.ID, "", "more").State)
		task = ended(t, m, first.ID, task.ID)[1]
		require.Equal(t, "answer to work\n\n## Answer to message 1: more\n\nanswer to more", task.Result)
		require.Equal(t, 2, task.Progress.Turns)
	})
}

func TestATaskThatWaitsForItsOwnTasksGetsAMessageBeforeTheNotice(t *testing.T) {
	var m *bgagent.BackgroundManager
	script := func(turn *bgagenttest.Turn) {
		if turn.Prompt.Text == "delegate" {
			by := bgagent.Caller{Session: turn.Session()}
			_, err := m.Launch(turn.Context(), by, bgagent.LaunchInput{Agent: "w", Prompt: "child"})
			if err != nil {
				turn.Fail(err)
			}
		}
		if turn.Prompt.Text == "child" {
			turn.Sleep(time.Minute)
		}
		answering(turn)
	}
	cfg := limit(5)
	cfg.MaxDepth = 2
	onBoth(t, script, cfg, func(t *testing.T, made *bgagent.BackgroundManager, f *bgagenttest.Fake) {
		m = made
		task := launch(t, m, "delegate")
		time.Sleep(30 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, m, task.ID).Phase)
		// With a store, the turn can begin before Send returns.
		require.Contains(t, []bgagent.MessageState{bgagent.MessageAccepted, bgagent.MessageInTurn}, send(t, m, task.ID, "k", "a message").State)
		synctest.Wait()
		require.Equal(t, bgagent.PhaseTurn, get(t, m, task.ID).Phase)
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "").State)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, "answer to a notice\n\n## Answer to message 1: a message\n\nanswer to a message", task.Result)
		require.Equal(t, 3, task.Progress.Turns)
	})
}

func TestANoticeThatIsDueWithAMessageFollowsIt(t *testing.T) {
	var m *bgagent.BackgroundManager
	texts := make(chan string, 10)
	script := func(turn *bgagenttest.Turn) {
		if turn.Prompt.Text == "delegate" {
			_, _ = m.Launch(turn.Context(), bgagent.Caller{Session: turn.Session()}, bgagent.LaunchInput{Agent: "w", Prompt: "child"})
		}
		if turn.Prompt.Text != "child" {
			texts <- strings.SplitN(turn.Prompt.Text, "\n", 2)[0]
			turn.Sleep(20 * time.Second) // the child ends during the first of these turns
		}
		answering(turn)
	}
	cfg := limit(5)
	cfg.MaxDepth = 2
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(script)
		defer f.Close()
		m = manage(t, f, cfg)
		task := launch(t, m, "delegate")
		time.Sleep(time.Second)
		send(t, m, task.ID, "", "one")
		send(t, m, task.ID, "", "two")
		task = ended(t, m, task.ID)[0]
		close(texts)
		var got []string
		for s := range texts {
			got = append(got, s)
		}
		require.Equal(t, []string{"delegate", "one", "two", "## All Background Tasks Ended"}, got)
		require.True(t, strings.HasPrefix(task.Result, "answer to a notice\n\n## Answer to message 1: one"), task.Result)
	})
}

func TestAnEndNamesTheMessagesThatItHasNotConsumed(t *testing.T) {
	var told inbox
	cfg := limit(1)
	cfg.Notify = told.notify
	onBoth(t, answering, cfg, func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake) {
		task := launch(t, m, "work")
		time.Sleep(3 * time.Second)
		send(t, m, task.ID, "k", "first\nline")
		send(t, m, task.ID, "l", "second")
		time.Sleep(12 * time.Second) // the turn for the first message is running
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "").State)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{Reason: "enough"})
		require.NoError(t, err)
		task = get(t, m, task.ID)
		require.Equal(t, []bgagent.UnconsumedMessage{{Key: "l", Text: "second"}}, task.Unconsumed)
		require.Equal(t, bgagent.MessageUnconsumed, send(t, m, task.ID, "l", "").State)
		require.Equal(t, "enough", task.Reason)
		time.Sleep(time.Minute)
		n := told.all()
		require.Equal(t, 1, n[len(n)-1].Items[0].Unconsumed)
		require.Contains(t, n[len(n)-1].Text, "1 message not consumed")

		again, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		require.Empty(t, again.Unconsumed, "the unconsumed messages belong to the earlier attempt")
		require.Equal(t, bgagent.MessageUnconsumed, send(t, m, task.ID, "l", "second").State, "the key is remembered")
		require.Equal(t, bgagent.MessageAccepted, send(t, m, task.ID, "m", "second").State)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, "answer to go on\n\n## Answer to message 3: second\n\nanswer to second", task.Result)
	})
}

func TestWhatASendRefuses(t *testing.T) {
	withoutStore(t)
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(answering)
		defer f.Close()
		m := manage(t, f, limit(1))
		task := launch(t, m, "work")
		try := func(by bgagent.Caller, id string, in bgagent.SendInput) error {
			r, err := m.Send(t.Context(), by, id, in)
			require.Error(t, err)
			require.Equal(t, bgagent.MessageRefused, r.State)
			require.Equal(t, in.Key, r.Key)
			require.Zero(t, r.Task)
			return err
		}
		require.ErrorIs(t, try(bgagent.Caller{Session: "other"}, task.ID, bgagent.SendInput{Text: "x"}), bgagent.ErrNotDescendant)
		time.Sleep(time.Second)
		session := get(t, m, task.ID).Session
		require.ErrorIs(t, try(bgagent.Caller{Session: session}, task.ID, bgagent.SendInput{Text: "x"}), bgagent.ErrNotDescendant, "a task cannot send a message to itself")
		require.ErrorIs(t, try(root, "bg_0000000000000000", bgagent.SendInput{Text: "x"}), bgagent.ErrUnknownTask)
		require.ErrorIs(t, try(root, task.ID, bgagent.SendInput{Text: "x", Now: true}), bgagent.ErrCannotSteer)
		var input *bgagent.InputError
		require.ErrorAs(t, try(root, task.ID, bgagent.SendInput{Key: "k"}), &input)
		require.Equal(t, "Text", input.Field)
		require.ErrorAs(t, try(root, task.ID, bgagent.SendInput{Text: strings.Repeat("x", 64<<10+1)}), &input)
		require.Equal(t, "Text", input.Field)
		require.ErrorAs(t, try(root, task.ID, bgagent.SendInput{Text: "x", Key: strings.Repeat("x", 201)}), &input)
		require.Equal(t, "Key", input.Field)
		for i := range 20 {
			r, err := m.Send(t.Context(), root, session, bgagent.SendInput{Text: "x"})
			require.NoError(t, err)
			require.Equal(t, i+1, r.Task.Messages)
		}
		require.ErrorIs(t, try(root, task.ID, bgagent.SendInput{Text: "x"}), bgagent.ErrTooManyMessages)
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		err = try(root, task.ID, bgagent.SendInput{Text: "x"})
		require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
		require.Contains(t, err.Error(), "Resume")
		require.NoError(t, m.Close(t.Context()))
		require.ErrorIs(t, try(root, task.ID, bgagent.SendInput{Text: "x"}), bgagent.ErrClosed)
	})
}

// No matter when and why the attempt ends, a message that was accepted has reached a turn or is
// listed as unconsumed, and no session gets it twice.
func TestNoEndLosesAMessage(t *testing.T) {
	ends := map[string]func(t *testing.T, m *bgagent.BackgroundManager, task bgagent.Task){
		"cancel": func(t *testing.T, m *bgagent.BackgroundManager, task bgagent.Task) {
			_, _ = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		},
		"deleted": func(_ *testing.T, m *bgagent.BackgroundManager, task bgagent.Task) {
			m.SessionDeleted(task.Session)
		},
		"close": func(t *testing.T, m *bgagent.BackgroundManager, _ bgagent.Task) { _ = m.Close(t.Context()) },
		"none":  func(*testing.T, *bgagent.BackgroundManager, bgagent.Task) {},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			for at := 0; at <= 36; at++ {
				onBoth(t, answering, limit(1), func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake) {
					task := launch(t, m, "work")
					states := map[string]bgagent.MessageState{}
					for i := range 37 {
						if i == at {
							task, _ = m.Get(task.ID)
							go end(t, m, task)
						}
						if i%5 == 0 {
							key := fmt.Sprintf("message %d", i)
							r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: key, Text: key})
							if err == nil {
								states[key] = r.State
							}
						}
						time.Sleep(time.Second)
					}
					task = ended(t, m, task.ID)[0]
					got := map[string]int{}
					for _, p := range promptsOf(f, task.Session) {
						got[p]++
					}
					unconsumed, uncertain := map[string]bool{}, map[string]bool{}
					for _, u := range task.Unconsumed {
						unconsumed[u.Key] = true
						uncertain[u.Key] = u.Uncertain
					}
					for key := range states {
						require.LessOrEqual(t, got[key], 1, key)
						if require.True(t, got[key] == 1 || unconsumed[key], "%s at %d is lost: %+v", key, at, task); !uncertain[key] {
							require.False(t, got[key] == 1 && unconsumed[key], "%s at %d: %+v", key, at, task)
						}
						if task.Status == bgagent.Completed {
							require.Contains(t, task.Result, "\n\nanswer to "+key)
						}
					}
					require.LessOrEqual(t, got["work"], 1)
				})
			}
		})
	}
}

// promptsOf returns the texts of the prompts that the session received.
func promptsOf(f *bgagenttest.Fake, session string) (texts []string) {
	p, err := f.Messages(context.Background(), session, "", 0)
	if err != nil {
		return nil
	}
	for _, msg := range p.Messages {
		if msg.Role == bgagent.RoleUser {
			texts = append(texts, msg.Text)
		}
	}
	return texts
}

func TestTheKeysOfTheLastMessagesAreRemembered(t *testing.T) {
	withoutStore(t)
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(answering)
		defer f.Close()
		m := manage(t, f, limit(1))
		id := launch(t, m, "work").ID
		for i := range 80 {
			if i%20 == 0 && i > 0 {
				ended(t, m, id)
				_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
				require.NoError(t, err)
			}
			send(t, m, id, fmt.Sprint("key ", i), "more")
		}
		ended(t, m, id)
		for i := range 80 {
			r, err := m.Send(t.Context(), root, id, bgagent.SendInput{Key: fmt.Sprint("key ", i), Text: "more"})
			if i < 30 {
				require.ErrorIs(t, err, bgagent.ErrAlreadyEnded, "key %d is forgotten", i)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, bgagent.MessageInTurn, r.State)
			require.Equal(t, i/20+1, r.Attempt)
		}
	})
}

func TestABudgetThatIsUsedUpLeavesMessagesUnconsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			time.Sleep(10 * time.Second)
			return bgagent.TurnEnd{Text: "answer", Usage: bgagent.Usage{OutputTokens: 10}}, nil
		}}
		cfg := limit(1)
		cfg.TaskBudget.OutputTokens = 5
		m := manage(t, f, cfg)
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "k", "more")
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseBudget, task.Cause)
		require.Equal(t, "answer", task.Result)
		require.Equal(t, []bgagent.UnconsumedMessage{{Key: "k", Text: "more"}}, task.Unconsumed)
	})
}
