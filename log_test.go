package bgagent_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAPanicsTextIsNotLoggedAboveDebug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := manage(t, &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			panic("cannot parse " + p.Text)
		}}, bgagent.Config{Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))})
		ended(t, m, launch(t, m, "SECRET").ID)
		synctest.Wait()
		require.NotContains(t, out.String(), "SECRET")
	})
}

type exitingHandler struct {
	slog.Handler
	n     *atomic.Int64
	first *atomic.Bool
}

func (h exitingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h exitingHandler) Handle(context.Context, slog.Record) error {
	h.n.Add(1)
	if h.first.CompareAndSwap(false, true) {
		runtime.Goexit()
	}
	return nil
}

func TestAGoexitOfTheLoggerLosesOneLine(t *testing.T) {
	count := func(exit bool) int64 {
		var n atomic.Int64
		synctest.Test(t, func(t *testing.T) {
			var first atomic.Bool
			first.Store(!exit)
			m := manage(t, working(time.Minute), bgagent.Config{Logger: slog.New(exitingHandler{n: &n, first: &first})})
			for i := range 5 {
				launch(t, m, fmt.Sprint(i))
			}
			sourceAnswers()
			_, _ = m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
			synctest.Wait()
		})
		return n.Load()
	}
	require.Equal(t, count(false), count(true))
}

func TestLogsTellNothingOfPromptsAndAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := manage(t, working(time.Second), bgagent.Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		ended(t, m, launch(t, m, "the secret prompt").ID)
		_ = m.Close(t.Context())
		require.Contains(t, out.String(), "task ended")
		require.NotContains(t, out.String(), "secret")
		require.NotContains(t, out.String(), "answer")
	})
}
