package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
)

// openWith opens a store with one running and many pending tasks. The function "text" replaces the reads of
// their prompts. The prompts are "task 0", "task 1" and so on.
func openWith(t *testing.T, count int, text func(ctx context.Context, prompt string) error) (*bgagent.BackgroundManager, error) {
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
	h.text = func(ctx context.Context, record, name string) (string, error) {
		prompt, err := h.Process.Text(ctx, record, name)
		if err == nil && strings.HasPrefix(name, "prompt") {
			err = text(ctx, prompt)
		}
		return prompt, err
	}
	cfg.Store = h
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
