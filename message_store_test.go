package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// In this test, the process ends while the attempt is parked and its message waits for a slot.
func TestAParkedAttemptGetsItsMessageFromTheNextProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		other, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "other"})
		require.NoError(t, err)
		send(t, m, task.ID, "k", "more")
		time.Sleep(w.work + time.Second) // the slot went to the other task
		require.Equal(t, bgagent.Running, get(t, m, other.ID).Status)
		require.Equal(t, bgagent.PhaseWaiting, get(t, m, task.ID).Phase)
		w.crash()
		m = w.begin()
		m.Start()
		require.Equal(t, 1, get(t, m, task.ID).Messages)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 1, task.Attempt)
		require.Contains(t, task.Result, "\n\n## Answer to message 1: more\n\n")
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "more").State)
	})
}

// A suspended manager does not begin a turn for a message, but the next process does.
func TestASuspendedManagerKeepsMessages(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "k", "more")
		ctx, cancel := context.WithTimeout(t.Context(), 2*w.work)
		defer cancel()
		require.NoError(t, m.Suspend(ctx))
		task = get(t, m, task.ID)
		require.Len(t, w.prompts(task.Session), 1)
		_, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Text: "x"})
		require.ErrorIs(t, err, bgagent.ErrClosed)
		m = w.begin()
		m.Start()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Contains(t, task.Result, "## Answer to message 1: more")
		require.Len(t, w.prompts(task.Session), 2)
	})
}

func TestAKeyIsRememberedAcrossProcesses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		m.Start()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		require.Equal(t, bgagent.MessageAccepted, send(t, m, task.ID, "k", "more").State)
		w.crash()
		m = w.begin()
		r := send(t, m, task.ID, "k", "more")
		require.Equal(t, bgagent.MessageAccepted, r.State)
		require.Equal(t, 1, r.Task.Messages)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Contains(t, task.Result, "## Answer to message 1: more")
		texts := 0
		for _, h := range w.sessions[task.Session] {
			if h.prompt.Text == "more" {
				texts++
			}
		}
		require.Equal(t, 1, texts)
		w.crash()
		m = w.begin()
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "more").State)
	})
}

// In this test, the attempt ends while the message is being written.
func TestAMessageToAnAttemptThatEndsMeanwhileIsUnconsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(answering)
		defer f.Close()
		var memory storetest.Memory
		cfg := limit(1)
		cfg.Store = memory.Process()
		m := manage(t, f, cfg)
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		memory.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Delay: time.Second} })
		for range 2 { // the second launch happens while the write for the first launch keeps the store busy
			go func() {
				_, _ = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "other"})
			}()
			time.Sleep(100 * time.Millisecond)
		}
		cancelled := make(chan error)
		go func() {
			time.Sleep(10 * time.Millisecond)
			_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
			cancelled <- err
		}()
		r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "more"})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageUnconsumed, r.State)
		require.NoError(t, <-cancelled)
		task = get(t, m, task.ID)
		require.Equal(t, []bgagent.UnconsumedMessage{{Key: "k", Text: "more"}}, task.Unconsumed)
		require.Equal(t, bgagent.MessageUnconsumed, send(t, m, task.ID, "k", "").State)
		require.Equal(t, []string{"work"}, promptsOf(f.Fake, task.Session))
	})
}

func TestAMessageThatCannotBeWrittenIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(answering)
		defer f.Close()
		var memory storetest.Memory
		cfg := limit(1)
		cfg.Store = memory.Process()
		m := manage(t, f, cfg)
		task := launch(t, m, "work")
		time.Sleep(9500 * time.Millisecond)
		memory.SetFaults(func(uint64, int) storetest.Fault {
			return storetest.Fault{Kind: storetest.Refused, Delay: time.Second}
		})
		r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "more"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.NotErrorIs(t, err, bgagent.ErrUncertain)
		require.Equal(t, bgagent.MessageRefused, r.State)
		memory.SetFaults(nil)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, "answer to work", task.Result)
		require.Equal(t, []string{"work"}, promptsOf(f.Fake, task.Session))
	})
}

// In this test, a message is written as the prompt of the next turn, and withdrawn before the write
// returns. Another message then becomes the prompt of that turn.
func TestTheNextProcessRepeatsTheMessageThatTookThePlaceOfAWithdrawnOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.work, w.cfg.MaxDepth = 10*time.Second, 2
		m := w.begin()
		task := parkedForAChild(t, w, m)
		w.memory.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Delay: 2 * time.Second} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Send(ctx, root, task.ID, bgagent.SendInput{Key: "a", Text: "withdrawn"})
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		time.Sleep(3 * time.Second)
		w.memory.SetFaults(nil)
		send(t, m, task.ID, "b", "second")
		time.Sleep(5 * time.Second)
		require.Equal(t, "second", w.lastText())
		w.crash()
		w.answer = bgagent.PromptMissing
		m = w.begin()
		m.Start()
		time.Sleep(5 * time.Second)
		heard := w.texts(task.Session)
		require.Len(t, heard, 3, "the prompt of the second turn must be repeated")
		require.Equal(t, "second", heard[2])
		require.Empty(t, m.Restored().Damage)
	})
}

// parkedForAChild launches a task that waits for its child task. The child task works for an hour.
func parkedForAChild(t *testing.T, w *world, m *bgagent.BackgroundManager) bgagent.Task {
	t.Helper()
	task := launch(t, m, "work")
	time.Sleep(time.Second)
	w.takes(time.Hour)
	_, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, task.ID).Session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
	require.NoError(t, err)
	time.Sleep(time.Minute)
	w.takes(10 * time.Second)
	require.Equal(t, bgagent.PhaseWaiting, get(t, m, task.ID).Phase)
	return get(t, m, task.ID)
}

// refusesMessageOnce makes the provider refuse the first turn whose prompt is the given message.
func refusesMessageOnce(w *world, text string) {
	refused := false
	w.refuse = func(_ string, p bgagent.Prompt) error {
		if p.Text != text || refused {
			return nil
		}
		refused = true
		return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextContinue}
	}
}

func TestTheAnswerToARefusedMessageDoesNotReplaceTheResultInTheNextProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refusesMessageOnce(w, "more")
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "k", "more")
		time.Sleep(w.work)
		require.Equal(t, bgagent.PhaseParked, get(t, m, task.ID).Phase)
		w.crash()
		m = w.begin()
		m.Start()
		task = ended(t, m, task.ID)[0]
		require.Contains(t, task.Result, "answer to work\n\n## Answer to message 1: more\n\nanswer to ")
	})
}

func TestAnAttemptThatGoesOnAfterARefusalAndACrashHasTheMessage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refusesMessageOnce(w, "more")
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "k", "more")
		time.Sleep(w.work + 30*time.Second)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, task.ID).Phase)
		w.crash()
		m = w.begin()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, 2, task.Attempt)
		require.Contains(t, w.lastText(), "\nmore")
	})
}

func TestAMessageWhoseRecordTheStoreRefusesReachesNoTurn(t *testing.T) {
	f := bgagenttest.NewRunner(func(t *bgagenttest.Turn) {
		if t.Prompt.Text == "child" {
			t.Sleep(time.Hour)
		}
		answering(t)
	})
	withHands(t, f, bgagent.Config{MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
		defer f.Close()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		session := get(t, m, task.ID).Session
		_, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
		require.NoError(t, err)
		time.Sleep(30 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, m, task.ID).Phase)
		h.refuse(func(b *bgagent.StoreBatch) bool {
			if !holds(b, task.ID) {
				return false
			}
			time.Sleep(time.Second) // a message can be sent while the manager tries to write the record again
			return true
		})
		for range 300 {
			r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Text: "more"})
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.NotErrorIs(t, err, bgagent.ErrUncertain)
			require.Equal(t, bgagent.MessageRefused, r.State)
			time.Sleep(500 * time.Millisecond)
		}
		require.Equal(t, []string{"work"}, promptsOf(f.Fake, session))
	})
}

// In this test, the client accepts the message after the task has ended.
func TestAMessageThatJoinsTooLateDoesNotMakeTheTaskRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := steered{Runner: bgagenttest.NewRunner(answering)}
		defer f.Close()
		f.steer = func(context.Context, string, bgagent.TurnMessage) error {
			time.Sleep(5 * time.Second)
			return nil
		}
		var memory storetest.Memory
		cfg := limit(1)
		cfg.Store = memory.Process()
		m := manage(t, &f, cfg)
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		done := make(chan bgagent.SendResult)
		go func() {
			r, _ := m.Send(context.Background(), root, task.ID, bgagent.SendInput{Text: "more", Now: true})
			done <- r
		}()
		time.Sleep(4900 * time.Millisecond)
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Cancelled, get(t, m, task.ID).Status)
		slow(&memory, 5*time.Second)
		time.Sleep(time.Second)
		require.Equal(t, bgagent.Cancelled, get(t, m, task.ID).Status)
		<-done
	})
}

// steeringLife is a world's runner that accepts messages during its turns.
type steeringLife struct{ *life }

func (l steeringLife) Steer(context.Context, string, bgagent.TurnMessage) error { return nil }

func (l steeringLife) Notify(ctx context.Context, session string, n bgagent.Notice) error {
	return l.notify(ctx, session, n)
}

// In this test, the crash loses the prompt of the turn that the message joined.
func TestAMessageThatJoinedALostTurnGetsATurnOfItsOwn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.client = func(l *life) bgagent.SessionClient { return steeringLife{l} }
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "more", Now: true})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, r.State)
		w.crash()
		session := get(t, m, task.ID).Session
		w.mu.Lock()
		w.sessions[session] = nil
		w.mu.Unlock()
		m = w.begin()
		m.Start()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, "answer to work\n\n## Answer to message 1: more\n\nanswer to more", task.Result)
	})
}

func TestAMessageThatTheSessionHasIsNotNamedAsUnconsumed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "k", "more")
		time.Sleep(w.work - time.Second + time.Millisecond)
		require.Equal(t, "more", w.lastText())
		w.crash()
		w.cfg.InterruptRestored = true
		m = w.begin()
		m.Start()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseInterrupted, task.Cause)
		require.Empty(t, task.Unconsumed)
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "").State)
	})
}

func TestAKeyIsRememberedAfterTheTaskIsNoLongerInMemory(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "k", "more")
		ended(t, m, task.ID)
		time.Sleep(time.Hour)
		w.crash()
		m = w.begin()
		m.Start()
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "").State)
	})
}
