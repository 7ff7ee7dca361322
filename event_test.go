package bgagent_test

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestEventsLeaveInOrderWithoutAGap(t *testing.T) {
	bubble(t, &goRunner{run: works(time.Second)}, limit(2), func(t *testing.T, m *bgagent.BackgroundManager) {
		before := launch(t, m, "before")
		tasks, sub := m.Subscribe(0)
		require.Len(t, tasks, 1)
		require.Equal(t, before.ID, tasks[0].ID)
		after := launch(t, m, "after")
		ended(t, m, before.ID, after.ID)
		_ = m.Close(t.Context())
		var kinds []string
		var seq uint64
		for {
			e, err := sub.Next(t.Context())
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.Greater(t, e.Seq, seq)
			seq = e.Seq
			if e.Task.ID == after.ID {
				kinds = append(kinds, e.Kind.String())
			}
		}
		require.Equal(t, []string{"launched", "started", "phase", "phase", "ended", "quiet"}, kinds)
	})
}

func TestASlowSubscriberIsToldWhatItMissed(t *testing.T) {
	bubble(t, working(time.Second), limit(50), func(t *testing.T, m *bgagent.BackgroundManager) {
		_, sub := m.Subscribe(3)
		var ids []string
		for i := range 10 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		ended(t, m, ids...)
		synctest.Wait()
		e, err := sub.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, bgagent.EventMissed, e.Kind)
		missed := e.Missed
		for range 3 {
			e, err = sub.Next(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, e.Seq, missed+3)
		sub.Close()
		_, err = sub.Next(t.Context())
		require.ErrorIs(t, err, io.EOF)
	})
}

// Every subscriber gets its own copy of a task.
func TestSubscribersDoNotShareWhatTheyAreTold(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		_, one := m.Subscribe(0)
		_, two := m.Subscribe(0)
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "x", Metadata: map[string]string{"k": "v"}})
		require.NoError(t, err)
		e, err := one.Next(t.Context())
		require.NoError(t, err)
		e.Task.Metadata["k"] = "changed"
		e, err = two.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, "v", e.Task.Metadata["k"])
	})
}

// Pieces of text that follow each other quickly share events, but the last piece always gets an
// event.
func TestTheLastPieceOfABurstHasAnEvent(t *testing.T) {
	f := &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		time.Sleep(time.Second)
		for _, piece := range []string{"a", "b", "c", "d"} {
			r.Text(piece)
			time.Sleep(10 * time.Millisecond)
		}
		if p.Text == "pause" {
			time.Sleep(10 * time.Second)
		}
		return bgagent.TurnEnd{Text: "abcd"}, nil
	}}
	for prompt, want := range map[string][]string{
		"pause": {"a at 1s", "abcd at 1.1s"},
		"end":   {"a at 1s", "abcd at 1.04s"}, // the turn ends before the pause between two events is over
	} {
		bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
			_, sub := m.Subscribe(0)
			begun := time.Now()
			var progress []string
			read := make(chan struct{})
			go func() {
				defer close(read)
				for {
					e, err := sub.Next(context.Background())
					if err != nil {
						return
					}
					if e.Kind == bgagent.EventProgress {
						progress = append(progress, fmt.Sprintf("%s at %v", e.Task.Result, time.Since(begun)))
					}
				}
			}()
			ended(t, m, launch(t, m, prompt).ID)
			_ = m.Close(t.Context())
			<-read
			require.Equal(t, want, progress)
		})
	}
}
