package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// In this test, a question from an earlier process is answered. After that, the agent continues to
// work for longer than its time to live.
func TestTheTimeToLiveAfterAnAnswerDoesNotGrowOverARestart(t *testing.T) {
	script := func(t *bgagenttest.Turn) {
		t.Sleep(10 * time.Second)
		_, _ = t.Question(mayI)
		t.Sleep(10 * time.Hour)
	}
	for _, create := range []time.Duration{5 * time.Second, time.Minute} {
		onProcesses(t, script, func(t *testing.T, p *processes) {
			p.cfg.TimeToLive, p.cfg.StaleTimeout, p.cfg.CreateTimeout = 25*time.Second, bgagent.Disabled, create
			task := launch(t, p.m, "build") // the first process has the default limits
			q := asks(t, p.m, task.ID)
			time.Sleep(time.Hour)
			for range 2 {
				p.crash(time.Hour)
				p.m.Start()
				time.Sleep(time.Hour)
			}
			answer(t, p.m, task.ID, q.Key, "allow")
			began := time.Now()
			end := ended(t, p.m, task.ID)[0]
			require.Equal(t, bgagent.CauseTimeToLive, end.Cause, end.Reason)
			require.LessOrEqual(t, time.Since(began), 26*time.Second)
			if create < 25*time.Second {
				require.LessOrEqual(t, time.Since(began), 16*time.Second, "the turn had worked for 10 s before its question")
			}
		})
	}
}

// In this test, a runner's turn asks a question, and the process ends. The next attempt continues
// the turn.
func TestTheTimeToLiveOfTheNextAttemptDoesNotGrowAfterAQuestion(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Ask, w.cfg.TimeToLive, w.cfg.StaleTimeout = true, 25*time.Second, bgagent.Disabled
		w.work = 10 * time.Hour
		w.reports = func(_ string, p bgagent.Prompt, r *bgagent.Reporter) {
			if p.Attempt == 1 {
				_, _ = r.Ask(context.Background(), mayI)
			}
		}
		m := w.begin()
		task := launch(t, m, "build")
		asks(t, m, task.ID)
		time.Sleep(time.Hour)
		w.crash()
		m = w.begin()
		m.Start()
		began := time.Now()
		end := ended(t, m, task.ID)[0]
		require.Equal(t, 2, end.Attempt)
		require.Equal(t, bgagent.CauseTimeToLive, end.Cause, end.Reason)
		require.LessOrEqual(t, time.Since(began), 26*time.Second)
	})
}

// noAnswerer is a starter that cannot receive answers.
type noAnswerer struct {
	bgagent.SessionClient
	bgagent.TurnStarter
	bgagent.EventSource
}

// In this test, the client of the next process is not an Answerer. The answer cannot be passed on,
// so the turn's clocks start again.
func TestAnAnswerIsNotPassedByAClientThatIsNoAnswerer(t *testing.T) {
	onProcesses(t, asking(mayI), func(t *testing.T, p *processes) {
		p.hangs.Store(true)
		task := launch(t, p.m, "build")
		q := asks(t, p.m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		answer(t, p.m, task.ID, q.Key, "deny")
		time.Sleep(time.Second)
		p.store.Crash()
		synctest.Wait()
		p.server = p.server.NextProcess()
		closeNow(p.m)
		m, err := bgagent.New(noAnswerer{p.server, p.server, p.server}, bgagent.Config{
			Ask: true, Store: p.memory.Process(), TimeToLive: 25 * time.Second, CreateTimeout: 5 * time.Second, StaleTimeout: bgagent.Disabled,
		})
		require.NoError(t, err)
		p.all = append(p.all, m)
		m.Start()
		require.Equal(t, bgagent.CauseTimeToLive, ended(t, m, task.ID)[0].Cause)
	})
}
