package bgagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// A runner's question is dropped when the process ends.
func TestTheQuestionOfARunnerIsNoLongerAskedAfterARestart(t *testing.T) {
	for _, wait := range []time.Duration{10 * time.Second, time.Hour} {
		inWorld(t, func(t *testing.T, w *world) {
			w.cfg.Ask = true
			w.reports = func(_ string, p bgagent.Prompt, r *bgagent.Reporter) {
				if p.Attempt == 1 {
					_, _ = r.Ask(context.Background(), mayI)
				}
			}
			m := w.begin()
			task := launch(t, m, "build")
			q := asks(t, m, task.ID)
			time.Sleep(wait)
			w.crash()
			m = w.begin()
			loaded := get(t, m, task.ID)
			require.Equal(t, q.Key, loaded.Questions[0].Key)
			require.Equal(t, q.Subject, loaded.Questions[0].Subject)
			over, err := m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
			require.ErrorIs(t, err, bgagent.ErrQuestionOver)
			require.ErrorContains(t, err, "no longer asked")
			require.Equal(t, bgagent.QuestionWithdrawn, over.State)
			end := ended(t, m, task.ID)[0]
			require.Equal(t, bgagent.Completed, end.Status, end.Reason)
			require.Equal(t, 2, end.Attempt, "the turn was interrupted, and another attempt continues it")
		})
	}
}

// The type "processes" holds the store and a server that outlives the processes of its manager.
type processes struct {
	t      *testing.T
	memory storetest.Memory
	store  *storetest.Process
	server bgagenttest.Starter
	m      *bgagent.BackgroundManager
	cfg    bgagent.Config
	hangs  atomic.Bool // AnswerQuestion calls hang
	all    []*bgagent.BackgroundManager
}

func onProcesses(t *testing.T, script func(*bgagenttest.Turn), test func(t *testing.T, p *processes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &processes{t: t, server: bgagenttest.NewStarter(script), cfg: bgagent.Config{Ask: true}}
		p.server.Stream = true
		p.server.Faults = func(c bgagenttest.Call) bgagenttest.Fault {
			return bgagenttest.Fault{Hang: c.Kind == bgagenttest.CallAnswer && p.hangs.Load()}
		}
		p.begin()
		defer func() {
			for _, m := range p.all {
				_ = m.Close(context.Background())
			}
			p.server.Close()
			time.Sleep(time.Minute)
		}()
		test(t, p)
		require.Empty(t, p.server.Violations())
	})
}

func (p *processes) begin() {
	p.store = p.memory.Process()
	p.cfg.Store = p.store
	var err error
	p.m, err = bgagent.New(p.server, p.cfg)
	require.NoError(p.t, err)
	require.Empty(p.t, p.m.Restored().Damage)
	require.NoError(p.t, inside.CheckUnchanged(p.m))
	inside.CheckAlways(p.m, nil)
	p.all = append(p.all, p.m)
}

// The method "crash" ends the process, and begins the next one after a pause.
func (p *processes) crash(pause time.Duration) {
	p.store.Crash()
	synctest.Wait()
	p.server = p.server.NextProcess()
	closeNow(p.m)
	time.Sleep(pause)
	p.begin()
}

func TestAQuestionThatItsServerStillAsksKeepsItsKeyOverARestart(t *testing.T) {
	onProcesses(t, asking(mayI), func(t *testing.T, p *processes) {
		p.cfg.TimeToLive = 25 * time.Second
		task := launch(t, p.m, "build")
		q := asks(t, p.m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		time.Sleep(time.Hour)
		p.crash(10 * time.Minute)
		p.m.Start()
		time.Sleep(time.Hour)
		now := get(t, p.m, task.ID)
		require.Len(t, now.Questions, 1)
		require.Equal(t, q.Key, now.Questions[0].Key)
		require.True(t, q.Expires.Equal(now.Questions[0].Expires))
		require.Equal(t, bgagent.PhaseAsking, now.Phase)
		answer(t, p.m, task.ID, q.Key, "allow")
		end := ended(t, p.m, task.ID)[0]
		require.Equal(t, bgagent.Completed, end.Status, end.Reason)
		require.Equal(t, "I ask. told allow", end.Result)
	})
}

func TestAQuestionThatItsServerNoLongerAsksIsOverAfterARestart(t *testing.T) {
	onProcesses(t, asking(mayI), func(t *testing.T, p *processes) {
		task := launch(t, p.m, "build")
		q := asks(t, p.m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		session := get(t, p.m, task.ID).Session
		p.store.Crash()
		require.True(t, p.server.AnswerAtServer(session, mayI.ID, "deny"))
		p.crash(0)
		p.m.Start()
		time.Sleep(time.Second)
		require.Empty(t, get(t, p.m, task.ID).Questions)
		_, err := p.m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
		require.ErrorContains(t, err, "no longer asked")
		require.Equal(t, "I ask. told deny", ended(t, p.m, task.ID)[0].Result)
	})
}

// In this test, the process ends after it has accepted the answer to a question but before the
// server has received the answer.
func TestAnAcceptedAnswerReachesItsServerInTheNextProcess(t *testing.T) {
	onProcesses(t, asking(mayI), func(t *testing.T, p *processes) {
		p.hangs.Store(true)
		task := launch(t, p.m, "build")
		q := asks(t, p.m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		answer(t, p.m, task.ID, q.Key, "deny")
		time.Sleep(time.Second)
		p.hangs.Store(false)
		p.crash(0)
		over, err := p.m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
		require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		require.Equal(t, "deny", over.Answer)
		require.Equal(t, "I ask. told deny", ended(t, p.m, task.ID)[0].Result)
	})
}

func TestAnAnswerIsDurableBeforeTheAgentGetsIt(t *testing.T) {
	onProcesses(t, asking(mayI), func(t *testing.T, p *processes) {
		task := launch(t, p.m, "build")
		q := asks(t, p.m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		p.memory.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Delay: 5 * time.Second} })
		done := make(chan error, 1)
		go func() {
			_, err := p.m.Answer(context.Background(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
			done <- err
		}()
		time.Sleep(4 * time.Second)
		require.Empty(t, done)
		require.Equal(t, 0, p.server.Calls(bgagenttest.CallAnswer, get(t, p.m, task.ID).Session))
		time.Sleep(2 * time.Second)
		require.NoError(t, <-done)
		p.memory.SetFaults(nil)
		require.Equal(t, "I ask. told allow", ended(t, p.m, task.ID)[0].Result)
	})
}

func TestAnAnswerIsDurableBeforeARunnerGetsIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Ask = true
		var told atomic.Value
		w.reports = func(_ string, _ bgagent.Prompt, r *bgagent.Reporter) {
			option, _ := r.Ask(context.Background(), mayI)
			told.Store(option)
		}
		m := w.begin()
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		w.memory.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Delay: 5 * time.Second} })
		go func() {
			_, _ = m.Answer(context.Background(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
		}()
		time.Sleep(4 * time.Second)
		require.Nil(t, told.Load())
		time.Sleep(2 * time.Second)
		require.Equal(t, "allow", told.Load())
		w.memory.SetFaults(nil)
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
	})
}

func TestAnAnswerThatCannotBeWrittenIsUncertain(t *testing.T) {
	onProcesses(t, asking(mayI), func(t *testing.T, p *processes) {
		task := launch(t, p.m, "build")
		q := asks(t, p.m, task.ID)
		time.Sleep(time.Second) // until the store has recorded the question
		p.memory.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Delay: time.Hour} })
		_, err := p.m.Answer(t.Context(), host, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		p.memory.SetFaults(nil)
		require.Equal(t, "I ask. told allow", ended(t, p.m, task.ID)[0].Result, "the agent gets the answer once it is durable")
	})
}

func TestSuspendDoesNotWaitForAnAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Ask = true
		w.reports = func(_ string, p bgagent.Prompt, r *bgagent.Reporter) {
			if p.Attempt == 1 {
				_, _ = r.Ask(context.Background(), mayI)
			}
		}
		m := w.begin()
		task := launch(t, m, "build")
		asks(t, m, task.ID)
		time.Sleep(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		require.NoError(t, m.Suspend(ctx))
		require.Less(t, time.Since(began), time.Minute)
		m = w.begin()
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
	})
}

// When an agent gets its answer, its task changes immediately, possibly before the call to Answer has
// returned.
func TestAnAnswerThatIsStoredIsNotReportedAsUncertain(t *testing.T) {
	f := &goRunner{}
	f.run = func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for i := range 20 {
			q := which
			q.ID = fmt.Sprint("que_", i)
			if _, err := r.Ask(context.Background(), q); err != nil {
				return bgagent.TurnEnd{}, err
			}
		}
		return bgagent.TurnEnd{Text: "done"}, nil
	}
	bubble(t, f, bgagent.Config{Ask: true, Store: new(storetest.Memory).Process()}, func(t *testing.T, m *bgagent.BackgroundManager) {
		for range 6 {
			id := launch(t, m, "p").ID
			for range 20 {
				q := asks(t, m, id)
				_, err := m.Answer(t.Context(), bgagent.Caller{}, id, bgagent.AnswerInput{Key: q.Key, Option: "main"})
				require.NoError(t, err)
			}
			ended(t, m, id)
		}
	})
}
