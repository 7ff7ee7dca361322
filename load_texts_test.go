package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
)

// withPending returns a store with one running and many pending tasks, together with a client and a
// configuration for their manager.
func withPending(t *testing.T, count int) (*hands, bgagent.SessionClient, bgagent.Config) {
	t.Helper()
	memory, client := &storetest.Memory{}, working(time.Second)
	cfg := bgagent.Config{Store: memory.Process(), Limits: bgagent.Limits{Default: 1}, MaxTasksPerRoot: bgagent.Unlimited}
	m := manage(t, client, cfg)
	for i := range count {
		launch(t, m, fmt.Sprint("task ", i))
	}
	require.NoError(t, m.Suspend(t.Context()))
	require.NoError(t, m.Close(t.Context()))
	h := &hands{Process: memory.Process()}
	cfg.Store = h
	return h, client, cfg
}

// openWith opens a store with one running and many pending tasks. It calls text for each prompt
// that is read. The prompts are "task 0", "task 1" and so on.
func openWith(t *testing.T, count int, text func(ctx context.Context, prompt string) error) (*bgagent.BackgroundManager, error) {
	t.Helper()
	h, client, cfg := withPending(t, count)
	h.text = func(ctx context.Context, record, name string) (string, error) {
		prompt, err := h.Process.Text(ctx, record, name)
		if err == nil && strings.HasPrefix(name, "prompt") {
			err = text(ctx, prompt)
		}
		return prompt, err
	}
	m, err := bgagent.New(client, cfg)
	if err == nil {
		inside.CheckAlways(m, func(err error) { t.Error(err) })
		t.Cleanup(func() { _ = m.Close(context.Background()) })
	}
	return m, err
}

// If a store fails or panics when it reads some texts, this must not harm the tasks whose texts it
// can read.
func TestATextThatCannotBeReadConcernsItsTaskOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := openWith(t, 300, func(_ context.Context, prompt string) error {
			switch prompt {
			case "task 7", "task 8", "task 290":
				panic("the store panics")
			case "task 40", "task 299":
				runtime.Goexit()
			case "task 100":
				return errors.New("the disk does not answer")
			}
			return nil
		})
		require.NoError(t, err)
		problems := map[string]int{}
		for _, d := range m.Restored().Damage {
			require.True(t, strings.HasPrefix(d.Key, "bg_"), d.Key)
			problems[d.Problem]++
		}
		require.Equal(t, 1, problems[`the text "prompt.1": the disk does not answer`], problems)
		total := 0
		for problem, n := range problems {
			require.Contains(t, problem, `the text "prompt.1": `)
			total += n
		}
		require.Equal(t, 6, total, problems)
		require.Equal(t, 294, m.Restored().Tasks)
		m.Start()
		time.Sleep(time.Hour)
		for _, task := range m.List(bgagent.Query{}) {
			if task.Prompt != "task 0" { // the turn of this task was running, and the client cannot continue it
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, "answer to "+task.Prompt, task.Result)
			}
		}
	})
}

// Config.StoreTimeout limits each call to the store, not all of them together.
func TestASlowStoreHasItsTimeForEachText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m, err := openWith(t, 100, func(context.Context, string) error {
			time.Sleep(bgagent.DefaultStoreTimeout - time.Second)
			return nil
		})
		require.NoError(t, err)
		require.Empty(t, m.Restored().Damage)
		require.Equal(t, 100, m.Restored().Tasks)
		require.Greater(t, time.Since(began), 20*bgagent.DefaultStoreTimeout)
	})
}

// If a prompt is not read in time, New fails, so that the task is not treated as damaged.
func TestAStoreThatNeverAnswersIsNotOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began time.Time
		_, err := openWith(t, 100, func(ctx context.Context, prompt string) error {
			if prompt == "task 50" {
				began = time.Now()
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorContains(t, err, "Store.Text: no answer in time (30s)")
		require.Equal(t, bgagent.DefaultStoreTimeout, time.Since(began))
	})
}

// After a read that never ends, there must be no further reads, because New closes the store when
// it fails.
func TestNoTextIsReadAfterTheStoreIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, client, cfg := withPending(t, 60)
		var mu sync.Mutex
		closed, late, calls := false, 0, 0
		h.text = func(ctx context.Context, record, name string) (string, error) {
			mu.Lock()
			calls++
			if closed {
				late++
			}
			first := calls == 1
			mu.Unlock()
			if first { // the disk hangs for a while; like os.ReadFile, the store cannot be interrupted
				time.Sleep(2 * bgagent.DefaultStoreTimeout)
			}
			return h.Process.Text(context.Background(), record, name)
		}
		h.close = func() error {
			mu.Lock()
			closed = true
			mu.Unlock()
			return h.Process.Close()
		}
		_, err := bgagent.New(client, cfg)
		require.ErrorIs(t, err, bgagent.ErrStore)
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		require.True(t, closed)
		require.Zero(t, late, "calls of Store.Text that began after Store.Close had returned")
	})
}

// If calls to this store overlapped, the time for which a call waits for others would count towards
// its time limit.
func TestAStoreThatReadsOneTextAtATimeHasItsTimeForEachText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, client, cfg := withPending(t, 200)
		one := make(chan struct{}, 1)
		h.text = func(ctx context.Context, record, name string) (string, error) {
			one <- struct{}{}
			defer func() { <-one }()
			time.Sleep(bgagent.DefaultStoreTimeout * 2 / 5)
			return h.Process.Text(ctx, record, name)
		}
		m, err := bgagent.New(client, cfg)
		time.Sleep(24 * time.Hour)
		require.NoError(t, err)
		require.Equal(t, 200, m.Restored().Tasks)
		_ = m.Close(context.Background())
	})
}

// A result is not needed to load a task, so the manager does not wait for it forever.
func TestATextThatIsTooLateIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, client := &storetest.Memory{}, working(time.Second)
		cfg := bgagent.Config{Store: memory.Process(), MaxTasksPerRoot: bgagent.Unlimited}
		m := manage(t, client, cfg)
		for i := range 60 {
			launch(t, m, fmt.Sprint("task ", i))
		}
		time.Sleep(10 * time.Minute)
		_ = m.Close(t.Context()) // the error says that the ends were not reported
		h := &hands{Process: memory.Process()}
		cfg.Store = h
		var mu sync.Mutex
		calls, now, most := map[string]int{}, 0, 0
		h.text = func(ctx context.Context, record, name string) (string, error) {
			mu.Lock()
			calls[record+name]++
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(bgagent.DefaultStoreTimeout + time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return h.Process.Text(context.Background(), record, name)
		}
		m, err := bgagent.New(client, cfg)
		require.NoError(t, err)
		time.Sleep(24 * time.Hour)
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, calls, 120)
		for text, n := range calls {
			require.Equal(t, 1, n, text)
		}
		require.LessOrEqual(t, most, 2)
		_ = m.Close(context.Background())
	})
}

func TestADamagedTaskDoesNotWaitForItsOtherTexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, client := &storetest.Memory{}, working(time.Second)
		cfg := bgagent.Config{Store: memory.Process(), Limits: bgagent.Limits{Default: 1}, MaxTasksPerRoot: bgagent.Unlimited}
		m := manage(t, client, cfg)
		launch(t, m, "first")
		second := launch(t, m, "second")
		_, err := m.Send(t.Context(), root, second.ID, bgagent.SendInput{Text: "a message"})
		require.NoError(t, err)
		require.NoError(t, m.Suspend(t.Context()))
		require.NoError(t, m.Close(t.Context()))
		h := &hands{Process: memory.Process()}
		cfg.Store = h
		h.text = func(ctx context.Context, record, name string) (string, error) {
			if record == second.ID {
				if strings.HasPrefix(name, "prompt") {
					return "", errors.New("damaged")
				}
				<-ctx.Done()
				return "", ctx.Err()
			}
			return h.Process.Text(ctx, record, name)
		}
		m, err = bgagent.New(client, cfg)
		require.NoError(t, err)
		require.Len(t, m.Restored().Damage, 1)
		_ = m.Close(context.Background())
	})
}

func TestEachReadOfATextHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, client, cfg := withPending(t, 3)
		var mu sync.Mutex
		without := 0
		h.text = func(ctx context.Context, record, name string) (string, error) {
			if _, ok := ctx.Deadline(); !ok {
				mu.Lock()
				without++
				mu.Unlock()
			}
			return h.Process.Text(ctx, record, name)
		}
		m, err := bgagent.New(client, cfg)
		require.NoError(t, err)
		mu.Lock()
		require.Zero(t, without)
		mu.Unlock()
		_ = m.Close(context.Background())
	})
}

func TestATaskWhoseResultIsSlowCanBeResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, m, task := withStoredEnd(t)
		h.text = func(ctx context.Context, record, name string) (string, error) {
			if strings.HasPrefix(name, "result") {
				time.Sleep(bgagent.DefaultStoreTimeout + time.Second) // like os.ReadFile, it cannot be interrupted
			}
			return h.Process.Text(ctx, record, name)
		}
		h.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			time.Sleep(time.Millisecond)
			return h.Process.History(ctx, q)
		}
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		_ = m.Close(context.Background())
	})
}

// withStoredEnd returns a manager that has loaded nothing, and whose store contains an ended task.
func withStoredEnd(t *testing.T) (*hands, *bgagent.BackgroundManager, bgagent.Task) {
	t.Helper()
	memory, client := &storetest.Memory{}, working(time.Second)
	h := &hands{Process: memory.Process()}
	cfg := bgagent.Config{Store: h, Notify: (&inbox{}).notify}
	m := manage(t, client, cfg)
	task := launch(t, m, "task 0")
	time.Sleep(time.Minute)
	require.NoError(t, m.Close(t.Context()))
	h = &hands{Process: memory.Process()}
	cfg.Store = h
	m, err := bgagent.New(client, cfg)
	require.NoError(t, err)
	return h, m, task
}

func TestHistoryNeedNotSetTheKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, m, task := withStoredEnd(t)
		h.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			out, err := h.Process.History(ctx, q)
			for i := range out {
				out[i].Kind = 0
			}
			return out, err
		}
		defer func() { _ = m.Close(context.Background()) }()
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
	})
}

func TestNoTextIsReadAfterCloseHasOvertakenAResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, m, task := withStoredEnd(t)
		var mu sync.Mutex
		closed := false
		var late []string
		h.text = func(ctx context.Context, record, name string) (string, error) {
			mu.Lock()
			if closed {
				late = append(late, name)
			}
			mu.Unlock()
			time.Sleep(5 * time.Second)
			return h.Process.Text(ctx, record, name)
		}
		h.close = func() error {
			mu.Lock()
			closed = true
			mu.Unlock()
			return h.Process.Close()
		}
		done := make(chan error)
		go func() {
			_, err := m.Resume(context.Background(), root, task.ID, bgagent.ResumeInput{Prompt: "go on"})
			done <- err
		}()
		time.Sleep(time.Second)
		var left *bgagent.CloseError
		require.ErrorAs(t, m.Close(context.Background()), &left)
		require.Len(t, left.Hung, 1, "the read takes longer than Close waits for it")
		require.ErrorIs(t, <-done, bgagent.ErrClosed)
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		require.Empty(t, late)
	})
}

func TestNoTextIsReadAfterANeededOneWasTooLate(t *testing.T) {
	for range 20 { // the store's answer races with Close
		synctest.Test(t, func(t *testing.T) {
			h, client, cfg := withPending(t, 10)
			var closed, late atomic.Bool
			h.text = func(ctx context.Context, record, name string) (string, error) {
				if closed.Load() {
					late.Store(true)
				}
				text, err := h.Process.Text(context.Background(), record, name)
				if text == "task 5" {
					<-ctx.Done()
					return "", ctx.Err()
				}
				return text, err
			}
			h.close = func() error {
				closed.Store(true)
				return h.Process.Close()
			}
			_, err := bgagent.New(client, cfg)
			require.ErrorIs(t, err, bgagent.ErrStore)
			time.Sleep(time.Hour)
			require.False(t, late.Load())
		})
	}
}
