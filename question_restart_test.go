package bgagent_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// If a question was not reported to its session before the process ended, the next process reports
// it. A notice whose delivery failed is repeated with the same id and text, unless its question is
// over. Questions that were reported are not reported again.
func TestTheNoticeOfAQuestionSurvivesARestart(t *testing.T) {
	failed := errors.New("the answer is lost")
	for name, c := range map[string]struct {
		first error // what Notify returns in the first process
		over  bool  // the question is over when the second process begins
		after int   // number of questions that the second process reports
	}{
		"told":                {nil, false, 0},
		"tried":               {failed, false, 1},
		"not reported":        {bgagent.ErrBusy, false, 1},
		"tried, and over now": {failed, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var first, second inbox
			onProcesses(t, asking(which), func(t *testing.T, p *processes) {
				closeNow(p.m)
				p.cfg = canAnswer(&first)
				var calls sync.Mutex // Notify is called again for a busy session, possibly while the test reads the notices
				var tried []bgagent.Notice
				first.fail = func(int) error { return c.first }
				first.seen = func(n bgagent.Notice) {
					calls.Lock()
					defer calls.Unlock()
					tried = append(tried, n)
				}
				p.begin()
				task := launch(t, p.m, "release")
				q := asks(t, p.m, task.ID)
				time.Sleep(10 * time.Second)
				calls.Lock()
				require.NotEmpty(t, tried)
				told := tried[0]
				calls.Unlock()
				require.Equal(t, []string{q.Key}, questionsIn([]bgagent.Notice{told}))
				session := get(t, p.m, task.ID).Session
				p.store.Crash()
				if c.over {
					require.True(t, p.server.AnswerAtServer(session, which.ID, "next"))
				}
				p.cfg = canAnswer(&second)
				p.crash(0)
				p.m.Start()
				time.Sleep(time.Minute)
				require.Len(t, questionsIn(second.all()), c.after)
				if c.first == failed && c.after > 0 {
					n := second.all()[0]
					require.Equal(t, told.ID, n.ID)
					require.Equal(t, told.Text, n.Text)
				}
				if !c.over {
					answer(t, p.m, task.ID, q.Key, "next")
				}
				require.Equal(t, "I ask. told next", ended(t, p.m, task.ID)[0].Result)
			})
		})
	}
}

// With a store, a question that was handed out is reported again after a restart, unless the session has
// made another call or the notice was acknowledged.
func TestAQuestionThatWasHandedOutIsOwedUntilItIsAcknowledged(t *testing.T) {
	for name, c := range map[string]struct {
		then  func(p *processes, n bgagent.Notice)
		again bool
	}{
		"nothing":   {func(*processes, bgagent.Notice) {}, true},
		"Ack":       {func(p *processes, n bgagent.Notice) { p.m.Ack(n.ID) }, false},
		"next call": {func(p *processes, _ bgagent.Notice) { p.m.TakeNotice(root.Session) }, false},
		"the status": {func(p *processes, n bgagent.Notice) {
			for range 2 { // the second call acknowledges the first
				_, err := bgagent.BackgroundOutput(p.t.Context(), p.m, root, bgagent.BackgroundOutputArgs{TaskID: n.Questions[0].Task})
				require.NoError(p.t, err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			onProcesses(t, asking(which), func(t *testing.T, p *processes) {
				closeNow(p.m)
				p.cfg = canAnswer(nil)
				p.begin()
				task := launch(t, p.m, "release")
				q := asks(t, p.m, task.ID)
				time.Sleep(time.Second)
				n, ok := p.m.TakeNotice(root.Session)
				require.True(t, ok)
				require.Equal(t, []string{q.Key}, questionsIn([]bgagent.Notice{n}))
				c.then(p, n)
				time.Sleep(10 * time.Second)
				p.crash(0)
				p.m.Start()
				time.Sleep(time.Second)
				again, ok := p.m.TakeNotice(root.Session)
				require.Equal(t, c.again, ok)
				if ok {
					require.Equal(t, n.ID, again.ID)
					require.Equal(t, n.Text, again.Text)
				}
				answer(t, p.m, task.ID, q.Key, "next")
				require.Equal(t, "I ask. told next", ended(t, p.m, task.ID)[0].Result)
			})
		})
	}
}
