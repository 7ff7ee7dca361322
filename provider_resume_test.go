package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestAResumeSendsThePromptOfWhichTheSessionKeptNothing(t *testing.T) {
	for next, want := range map[bgagent.ProviderNextStep]string{
		bgagent.NextRepeat: "p\n\nmore", bgagent.NextNewSession: "p\n\nmore", bgagent.NextContinue: "more",
	} {
		f := newLimited(first(3, bgagent.ProviderError{Kind: bgagent.ProviderBroken, Next: next}))
		bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
			id := launch(t, m, "p").ID
			time.Sleep(25 * time.Second)
			require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
			require.Len(t, f.turns(), 3)
			_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
			require.NoError(t, err)
			_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "more"})
			require.NoError(t, err)
			require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
			require.Equal(t, want, f.turns()[3].prompt.Text)
		})
	}
}

func TestAResumeAfterAnEndByTheProviderSendsThePromptThatWasNotKept(t *testing.T) {
	f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderBroken, Next: bgagent.NextRepeat}))
	cfg := limit(1)
	cfg.MaxPark = bgagent.Disabled
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		require.Equal(t, bgagent.CauseRateLimited, ended(t, m, id)[0].Cause)
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, id)
		require.Equal(t, "p\n\nmore", f.turns()[1].prompt.Text)
	})
}

func TestASuspensionEndsATurnAfterOneThatWasStopped(t *testing.T) {
	f := retries(func(r *bgagent.Reporter) { r.Retrying(overloaded, time.Now().Add(10*time.Minute)) })
	f.last = time.Hour
	cfg := limit(1)
	var memory storetest.Memory
	synctest.Test(t, func(t *testing.T) {
		cfg.Store = memory.Process()
		m := manage(t, f, cfg)
		id := launch(t, m, "p").ID
		time.Sleep(12 * time.Minute)
		require.Len(t, f.turns(), 2)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, id).Phase)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, m.Suspend(ctx))
		require.NoError(t, ctx.Err())
	})
}
