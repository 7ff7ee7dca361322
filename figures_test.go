package bgagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestFiguresCountWhatThereIsAndEveryEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runner := &goRunner{}
		runner.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "fail" {
				return bgagent.TurnEnd{}, errors.New("it failed")
			}
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, runner, bgagent.Config{
			Limits: bgagent.Limits{Default: 2}, Wake: bgagent.WakeNever, TimeToLive: 90 * time.Second,
		})
		require.Equal(t, bgagent.Figures{Causes: map[bgagent.Cause]uint64{}, Pools: []bgagent.PoolStats{}}, m.Figures())

		first := launch(t, m, "one")
		launch(t, m, "two")
		launch(t, m, "fail")
		waits := launch(t, m, "four")
		synctest.Wait()
		pool := bgagent.PoolStats{Name: "agent worker", Limit: 2, InUse: 2, Waiting: 2}
		require.Equal(t, bgagent.Figures{
			Live: 4, Kept: 4, Attempts: 4, Causes: map[bgagent.Cause]uint64{}, Pools: []bgagent.PoolStats{pool},
		}, m.Figures())

		_, err := m.Cancel(t.Context(), bgagent.Caller{}, waits.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		f := m.Figures()
		require.Equal(t, map[bgagent.Cause]uint64{bgagent.CauseTurnEnded: 2, bgagent.CauseSessionError: 1, bgagent.CauseHost: 1}, f.Causes)
		require.Equal(t, []uint64{4, 2, 1, 1}, []uint64{f.Attempts, f.Completed, f.Failed, f.Cancelled})
		require.Equal(t, []int{0, 0, 4, 4}, []int{f.Live, f.Stopping, f.Owed, f.Kept})
		require.EqualValues(t, len("answer to one")+len("answer to two"), f.KeptText)
		require.Empty(t, f.Pools)

		// Each further attempt of a task is also counted.
		_, err = m.Resume(t.Context(), bgagent.Caller{}, first.ID, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for ok := true; ok; _, ok = m.TakeNotice(root.Session) {
		}
		f = m.Figures()
		require.Equal(t, []uint64{5, 3}, []uint64{f.Attempts, f.Completed})
		require.Equal(t, []int{0, 4}, []int{f.Owed, f.Kept})
	})
}

func TestFiguresOutliveTheRecordsAndClose(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{Retention: time.Minute, Wake: bgagent.WakeNever}, func(t *testing.T, m *bgagent.BackgroundManager) {
		ended := launch(t, m, "one")
		_, err := m.Cancel(t.Context(), root, ended.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		launch(t, m, "two")
		synctest.Wait()
		require.ErrorAs(t, m.Close(t.Context()), new(*bgagent.CloseError)) // the end of the second task was not reported, so Close returns an error
		f := m.Figures()
		require.Equal(t, map[bgagent.Cause]uint64{bgagent.CauseCaller: 1, bgagent.CauseClosed: 1}, f.Causes)
		require.Equal(t, []int{0, 0, 1, 1}, []int{f.Live, f.Stopping, f.Owed, f.Kept})
	})
}

func TestFiguresTellOfASessionThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		m := manage(t, &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-let
			return bgagent.TurnEnd{}, nil
		}}, bgagent.Config{StopTimeout: 10 * time.Second})
		task := launch(t, m, "never stops")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		f := m.Figures()
		require.Equal(t, []int{0, 1, 1}, []int{f.Live, f.Stopping, f.Pools[0].InUse})
		time.Sleep(11 * time.Second)
		synctest.Wait()
		f = m.Figures()
		require.EqualValues(t, 1, f.OverLimit)
		require.Empty(t, f.Pools)
		close(let)
	})
}

func TestFiguresAreJSONThatNeedsNoTable(t *testing.T) {
	text, err := json.Marshal(bgagent.Figures{
		Live: 1, Completed: 2, Causes: map[bgagent.Cause]uint64{bgagent.CauseTurnEnded: 2},
		Pools: []bgagent.PoolStats{{Name: "default", Limit: 5, InUse: 1}},
	})
	require.NoError(t, err)
	require.JSONEq(t, `{"live":1,"stopping":0,"owed":0,"kept":0,"kept_text":0,"attempts":0,
		"completed":2,"error":0,"cancelled":0,"causes":{"turn ended":2},"over_limit":0,
		"pools":[{"name":"default","limit":5,"in_use":1,"waiting":0}]}`, string(text))
}
