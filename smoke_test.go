package bgagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

type fn struct {
	n   atomic.Int64
	run func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error)
}

func (f *fn) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	return fmt.Sprintf("ses_%d", f.n.Add(1)), nil
}
func (f *fn) Abort(ctx context.Context, session string) error { return nil }
func (f *fn) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return f.run(ctx, session, p, r)
}

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fn{run: func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			select {
			case <-time.After(time.Minute):
				return bgagent.TurnEnd{Text: "did " + p.Text}, nil
			case <-ctx.Done():
				return bgagent.TurnEnd{}, ctx.Err()
			}
		}}
		var told []bgagent.Notice
		m, err := bgagent.New(c, bgagent.Config{Limits: bgagent.Limits{Default: 2}, Notify: func(ctx context.Context, s string, n bgagent.Notice) error {
			told = append(told, n)
			return nil
		}})
		require.NoError(t, err)
		bgagent.CheckInvariants(m)
		by := bgagent.Caller{Session: "root"}
		var ids []string
		for i := range 5 {
			k, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "a", Prompt: fmt.Sprint("p", i)})
			require.NoError(t, err)
			ids = append(ids, k.ID)
		}
		_, err = m.Cancel(t.Context(), by, ids[0], bgagent.CancelOptions{})
		require.NoError(t, err)
		out, err := m.Wait(t.Context(), by, bgagent.WaitAll, ids...)
		require.NoError(t, err)
		for _, o := range out {
			t.Log(o.ID, o.Status, o.Cause, o.Result, o.Duration(time.Now()), o.Notice)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, told, 1)
		require.Len(t, told[0].Items, 4)
		k, err := m.Resume(t.Context(), by, ids[0], bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		out, err = m.Wait(t.Context(), by, bgagent.WaitAll, k.ID)
		require.NoError(t, err)
		t.Logf("%+v", out[0])
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, m.Close(context.Background()))
	})
}
