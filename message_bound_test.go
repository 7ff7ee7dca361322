package bgagent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestABoundedNumberOfMessagesJoinsATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := steered{Runner: bgagenttest.NewRunner(answering)}
		defer f.Close()
		got := 0
		var fail error
		f.steer = func(context.Context, string, bgagent.TurnMessage) error { got++; return fail }
		m := manage(t, &f, limit(1))
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		text := strings.Repeat("x", 64<<10)
		now := func(key int) error {
			_, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: fmt.Sprint(key), Text: text, Now: true})
			return err
		}
		for i := range 20 {
			fail = nil
			if i%2 == 1 { // a message that might have joined the turn also counts towards the limit
				fail = bgagent.ErrUncertain
				require.ErrorIs(t, now(i), bgagent.ErrUncertain)
				continue
			}
			require.NoError(t, now(i))
		}
		err := now(20)
		require.ErrorIs(t, err, bgagent.ErrTooManyMessages)
		require.ErrorContains(t, err, "20 have joined its running turn, and no more can join it; send the message without Now")
		require.NoError(t, now(0), "a message with a known key is not refused")
		require.Equal(t, 20, got)

		r := send(t, m, task.ID, "", "more")
		require.Equal(t, bgagent.MessageAccepted, r.State, "the message can be sent without Now")
		time.Sleep(11 * time.Second) // the turn for the message "more" is running
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, r.Key, "").State)
		fail = nil
		for i := range 20 {
			require.NoError(t, now(30+i), "each turn has room for 20 messages")
		}
		require.ErrorIs(t, now(50), bgagent.ErrTooManyMessages)
		for range 20 {
			send(t, m, task.ID, "", "more")
		}
		_, err = m.Send(t.Context(), root, task.ID, bgagent.SendInput{Text: "x"})
		require.ErrorContains(t, err, "20 wait for their turns, and no more can wait")
	})
}

// All snapshots of a task share one text that contains all its answers. Taking a snapshot must not
// concatenate the answers again.
func TestSnapshotsShareTheTextOfTheAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(answering)
		defer f.Close()
		m := manage(t, f, limit(1))
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		send(t, m, task.ID, "", "one")
		send(t, m, task.ID, "", "two")
		time.Sleep(20 * time.Second) // the turn for the second message is running
		first, second := get(t, m, task.ID).Result, get(t, m, task.ID).Result
		require.Equal(t, "answer to work\n\n## Answer to message 1: one\n\nanswer to one", first)
		require.Same(t, unsafe.StringData(first), unsafe.StringData(second))
		require.Same(t, unsafe.StringData(first), unsafe.StringData(m.List(bgagent.Query{})[0].Result))
		require.Equal(t, first+"\n\n## Answer to message 2: two\n\nanswer to two", ended(t, m, task.ID)[0].Result)
	})
}

// If the session contains nothing from a turn, the turn begins again without the messages that
// joined it. Each of these messages then gets a separate turn.
func TestAMessageThatJoinedARefusedTurnGetsATurnOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := false
		f := steered{Runner: bgagenttest.NewRunner(func(turn *bgagenttest.Turn) {
			if !refused {
				refused = true
				turn.Sleep(10 * time.Second)
				turn.Fail(&bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextRepeat})
			}
			answering(turn)
		})}
		defer f.Close()
		f.steer = func(context.Context, string, bgagent.TurnMessage) error { return nil }
		m := manage(t, &f, limit(1))
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "joined", Now: true})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, r.State)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, "answer to work\n\n## Answer to message 1: joined\n\nanswer to joined", task.Result)
	})
}

// Until a task's end is durable, a model must not be told that the task has ended.
func TestBackgroundMessageWaitsForTheStoredEnd(t *testing.T) {
	withMemory(t, working(time.Second), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		task := launch(t, m, "a")
		time.Sleep(100 * time.Millisecond)
		slow(mem, 10*time.Second)
		time.Sleep(2 * time.Second)
		require.Equal(t, bgagent.PhaseStoring, get(t, m, task.ID).Phase)
		r, err := bgagent.BackgroundMessage(t.Context(), m, root, bgagent.BackgroundMessageArgs{TaskID: task.ID, Message: "more"})
		require.NoError(t, err)
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "has ended, so the message was not sent.")
		require.Equal(t, bgagent.Completed, get(t, m, task.ID).Status, "the end is durable, so it is shown")
	})
}

func TestBackgroundMessageShowsNoEndThatCannotBeStored(t *testing.T) {
	withMemory(t, working(time.Second), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		task := launch(t, m, "a")
		time.Sleep(100 * time.Millisecond)
		slow(mem, 10*time.Minute)
		time.Sleep(2 * time.Second)
		r, err := bgagent.BackgroundMessage(t.Context(), m, root, bgagent.BackgroundMessageArgs{TaskID: task.ID, Message: "more"})
		require.NoError(t, err)
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "cannot be stored at present.")
		require.NotContains(t, r.Text, "ended")
	})
}

func TestARecordDescribesTheMessagesOfItsTask(t *testing.T) {
	withMemory(t, working(10*time.Second), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		id := launch(t, m, "a").ID
		recorded := func() bgagent.Task {
			for _, r := range mem.Records() {
				if r.Key == id {
					task, err := r.Task()
					require.NoError(t, err)
					return task
				}
			}
			t.Fatal("the task has no record")
			return bgagent.Task{}
		}
		time.Sleep(time.Second)
		send(t, m, id, "k", "more")
		require.Equal(t, 1, recorded().Messages)
		require.Empty(t, recorded().Unconsumed)
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		want := ended(t, m, id)[0].Unconsumed
		require.Equal(t, []bgagent.UnconsumedMessage{{Key: "k", Text: "more"}}, want)
		require.Equal(t, want, recorded().Unconsumed)
		require.Zero(t, recorded().Messages)
		page, err := m.History(t.Context(), bgagent.Query{}, "")
		require.NoError(t, err)
		require.Equal(t, want, page[0].Unconsumed)
	})
}
