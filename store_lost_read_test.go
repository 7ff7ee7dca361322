package bgagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// withEnded runs a test with a manager that has ended several tasks. Memory has dropped the result
// of the task "dropped", and no longer contains the record of the task "expired". The store
// contains both. The function "lose" makes the manager lose its store.
func withEnded(t *testing.T, test func(t *testing.T, m *bgagent.BackgroundManager, h *hands, dropped, expired string, lose func())) {
	cfg := bgagent.Config{RetainText: 30, RetainTasks: 4, Retention: bgagent.Disabled, Fallback: map[string][]string{"m": {"n"}}}
	withHands(t, working(time.Second), cfg, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		var ids []string
		for i := range 6 {
			ids = append(ids, launch(t, m, fmt.Sprint("task ", i)).ID)
			ended(t, m, ids[i])
			_, err := m.Read(root, ids[i]) // the notice counts as read
			require.NoError(t, err)
		}
		time.Sleep(time.Minute)
		_, err := m.Get(ids[0])
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.True(t, get(t, m, ids[2]).Dropped)
		test(t, m, h, ids[2], ids[0], func() {
			thieves["a write is refused because of its owner"](t, mem, h)
			_, err := m.Launch(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "b"})
			require.ErrorIs(t, err, bgagent.ErrStoreLost)
		})
	})
}

func TestNothingIsReadFromAStoreThatIsLost(t *testing.T) {
	withEnded(t, func(t *testing.T, m *bgagent.BackgroundManager, h *hands, dropped, expired string, lose func()) {
		lose()
		var calls atomic.Int64
		h.mu.Lock()
		h.text = func(ctx context.Context, record, name string) (string, error) {
			calls.Add(1)
			return h.Process.Text(ctx, record, name)
		}
		h.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			calls.Add(1)
			return h.Process.History(ctx, q)
		}
		h.mu.Unlock()
		resume := func(in bgagent.ResumeInput) func(id string) error {
			return func(id string) error { _, err := m.Resume(t.Context(), root, id, in); return err }
		}
		for name, call := range map[string]func(id string) error{
			"Read":   func(id string) error { _, err := m.Read(root, id); return err },
			"Forget": func(id string) error { return m.Forget(t.Context(), root, id, bgagent.ForgetOptions{}) },
			"Send": func(id string) error {
				_, err := m.Send(t.Context(), root, id, bgagent.SendInput{Text: "t"})
				return err
			},
			"Answer": func(id string) error {
				_, err := m.Answer(t.Context(), root, id, bgagent.AnswerInput{Key: "k", Option: "o"})
				return err
			},
			"Resume":              resume(bgagent.ResumeInput{Prompt: "p"}),
			"Resume with a model": resume(bgagent.ResumeInput{Prompt: "p", Model: "m"}),
			"History":             func(string) error { _, err := m.History(t.Context(), bgagent.Query{}, ""); return err },
		} {
			for _, id := range []string{expired, "bg_0000000000001"} {
				err := call(id)
				require.ErrorIs(t, err, bgagent.ErrStore, name)
				require.ErrorIs(t, err, bgagent.ErrStoreLost, name)
			}
		}
		task, err := m.Read(root, dropped)
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorIs(t, err, bgagent.ErrStoreLost)
		require.Equal(t, dropped, task.ID)
		require.True(t, task.Dropped)
		_, err = m.Read(bgagent.Caller{}, expired)
		require.ErrorIs(t, err, bgagent.ErrExpired, "a caller that searches other processes must see that this one does not have the task")
		for _, id := range []string{expired, "bg_0000000000001"} {
			r, err := bgagent.ToolOptions{}.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: id})
			require.NoError(t, err)
			require.Contains(t, r.Text, "the store is lost to this manager")
		}
		require.Zero(t, calls.Load(), "the store was read")
	})
}

func TestAReadDuringWhichTheStoreIsLostFails(t *testing.T) {
	for _, method := range []string{"Text", "History"} {
		t.Run(method, func(t *testing.T) {
			withEnded(t, func(t *testing.T, m *bgagent.BackgroundManager, h *hands, dropped, _ string, lose func()) {
				h.mu.Lock()
				h.text = func(ctx context.Context, record, name string) (string, error) {
					text, err := h.Process.Text(ctx, record, name)
					lose()
					return text, err
				}
				h.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
					found, err := h.Process.History(ctx, q)
					lose()
					return found, err
				}
				h.mu.Unlock()
				var err error
				if method == "Text" {
					_, err = m.Read(root, dropped)
				} else {
					_, err = m.History(t.Context(), bgagent.Query{}, "")
				}
				require.ErrorIs(t, err, bgagent.ErrStoreLost)
			})
		})
	}
}
