package bgagent_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The type "lives" describes a host with a fake runtime. The host's process ends several times.
type lives struct {
	t      *testing.T
	rnd    *rand.Rand
	memory storetest.Memory
	client bgagent.SessionClient
	fake   *bgagenttest.Fake
	next   func() // replaces the client and the fake with those of the next process
	store  *storetest.Process
	m      *bgagent.BackgroundManager
	all    []*bgagent.BackgroundManager

	tasks     []string
	cancelled map[string]int // number of the cancelled attempt, by task, unless the task was resumed afterwards
}

func newLives(t *testing.T, seed uint64, starter bool) *lives {
	l := &lives{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), cancelled: map[string]int{}}
	script := func(turn *bgagenttest.Turn) {
		turn.SaveState([]byte(turn.Prompt.ID))
		turn.Say("half ")
		if turn.Prompt.Text == "delegate" {
			_, _ = l.m.Launch(turn.Context(), bgagent.Caller{Session: turn.Session()}, bgagent.LaunchInput{Agent: "worker", Prompt: "help"})
			turn.Sleep(2 * time.Second)
		} else {
			turn.Sleep(time.Duration(5+5*turn.N) * time.Second)
		}
		turn.Say("done")
	}
	if starter {
		s := bgagenttest.NewStarter(script)
		s.Stream = l.rnd.IntN(2) == 0
		l.client, l.fake = s, s.Fake
		l.next = func() { s = s.NextProcess(); l.client, l.fake = s, s.Fake }
	} else {
		r := bgagenttest.NewRunner(script)
		l.client, l.fake = r, r.Fake
		l.next = func() { r = r.NextProcess(); l.client, l.fake = r, r.Fake }
	}
	l.fake.Root(root.Session)
	fates := int(bgagenttest.FateLeft) + 1
	if l.fake.NoRestore = l.rnd.IntN(6) == 0; l.fake.NoRestore && !starter {
		fates = int(bgagenttest.FateAnswered) + 1 // leave out the fates that let a turn outlive its process, because without a restore call nothing would stop the turn
	}
	l.fake.Fates = func(bgagent.Prompt) bgagenttest.Fate { return bgagenttest.Fate(l.rnd.IntN(fates)) }
	t.Cleanup(func() {
		for _, m := range l.all {
			_ = m.Close(context.Background())
		}
		l.fake.Close()
		time.Sleep(time.Minute) // during this virtual time, the remaining calls of the dead processes end
	})
	return l
}

// upTo waits for a random time shorter than d.
func (l *lives) upTo(d time.Duration) { time.Sleep(time.Duration(l.rnd.Int64N(int64(d)))) }

func (l *lives) begin() {
	l.store = l.memory.Process()
	var err error
	l.m, err = bgagent.New(l.client, bgagent.Config{Store: l.store, MaxDepth: 2, Limits: bgagent.Limits{Default: 3}})
	require.NoError(l.t, err)
	require.NoError(l.t, inside.CheckUnchanged(l.m))
	l.all = append(l.all, l.m)
	l.m.Start()
}

// The method "live" launches a random number of tasks. It sometimes resumes a task, and sometimes
// cancels one.
func (l *lives) live() {
	for range l.rnd.IntN(6) {
		l.tasks = append(l.tasks, launch(l.t, l.m, []string{"explore", "delegate"}[l.rnd.IntN(2)]).ID)
	}
	l.upTo(40 * time.Second)
	if len(l.tasks) == 0 {
		return
	}
	some := func() string { return l.tasks[l.rnd.IntN(len(l.tasks))] }
	if l.rnd.IntN(2) == 0 {
		id := some()
		if _, err := l.m.Resume(l.t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"}); err == nil {
			delete(l.cancelled, id)
		}
		l.upTo(3 * time.Second)
	}
	if l.rnd.IntN(3) == 0 {
		id := some()
		if task, err := l.m.Cancel(l.t.Context(), root, id, bgagent.CancelOptions{}); err == nil {
			l.cancelled[id] = task.Attempt
		}
		l.upTo(2 * time.Second)
	}
}

func (l *lives) die() {
	l.store.Crash()
	synctest.Wait()
	l.next()
	closeNow(l.m)
}

// The method "check" checks all tasks of the last manager.
func (l *lives) check() {
	told := map[string]bool{}
	for _, n := range l.fake.Inbox(root.Session) {
		for _, item := range n.Items {
			id := fmt.Sprint(item.Task, " attempt ", item.Attempt)
			require.False(l.t, told[id], "%s was reported twice", id)
			told[id] = true
		}
	}
	for _, task := range l.m.List(bgagent.Query{}) {
		require.True(l.t, task.Status.Terminal(), "%s is %s", task.ID, task.Status)
	}
	for _, id := range l.tasks {
		task, err := l.m.Get(id)
		if err != nil {
			continue // the task had ended and was reported before the last process began
		}
		if no := l.cancelled[id]; no > 0 {
			require.Equal(l.t, bgagent.Cancelled, task.Status, id)
			require.Equal(l.t, no, task.Attempt, id)
		}
		if task.Status == bgagent.Completed {
			require.Contains(l.t, []string{"half done", "half ", "ok"}, task.Result, id)
		}
		waived := task.Cause == bgagent.CauseCaller && task.Notice == bgagent.NoticeWaived
		require.True(l.t, waived || told[fmt.Sprint(id, " attempt ", task.Attempt)], "%s (%s) was not reported: %s", id, task.Status, task.Notice)
	}
	require.Empty(l.t, l.fake.Violations())
}

func TestNoDeathOfAProcessLosesOrRepeatsWork(t *testing.T) {
	for seed := range uint64(12) {
		for name, starter := range map[string]bool{"runner": false, "starter": true} {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLives(t, seed, starter)
					for range 3 {
						l.begin()
						l.live()
						l.die()
					}
					l.begin()
					time.Sleep(20 * time.Minute)
					l.check()
				})
			})
		}
	}
}

func TestATaskThatWaitsForItsTasksGetsItsNextTurnFromTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Fates = nil
		l.begin()
		id := launch(t, l.m, "delegate").ID
		for range 10 { // these tasks occupy the slots, so the first task must wait for a slot
			launch(t, l.m, "explore")
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, l.m, id).Phase)
		l.die()
		l.begin()
		task := ended(t, l.m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 1, task.Attempt)
		require.Equal(t, 2, task.Progress.Turns)
		require.Empty(t, l.fake.Violations())
	})
}

func TestANoticeThatWasBeingDeliveredIsDeliveredByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Faults = func(c bgagenttest.Call) (f bgagenttest.Fault) {
			f.Hang = c.Kind == bgagenttest.CallNotify && c.N == 1
			return f
		}
		l.begin()
		id := launch(t, l.m, "explore").ID
		ended(t, l.m, id)
		time.Sleep(time.Second)
		require.Equal(t, 1, l.fake.Calls(bgagenttest.CallNotify, root.Session))
		l.die()
		l.begin()
		time.Sleep(time.Minute)
		got := l.fake.Inbox(root.Session)
		require.Len(t, got, 1)
		require.Contains(t, got[0].Text, id)
	})
}

// A session might have worked on its prompt before the server deleted the session.
func TestATurnWhoseSessionTheServerHasDeletedIsNotRepeatedInAnotherSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, true)
		l.fake.Fates = func(bgagent.Prompt) bgagenttest.Fate { return bgagenttest.FateLeft }
		l.begin()
		id := launch(t, l.m, "explore").ID
		time.Sleep(2 * time.Second)
		session := get(t, l.m, id).Session
		require.NotEmpty(t, session)
		l.die()
		l.fake.Delete(session)
		l.begin()
		task := ended(t, l.m, id)[0]
		require.Equal(t, bgagent.CauseSessionGone, task.Cause, task.Reason)
		require.Equal(t, session, task.Session)
		require.Equal(t, 1, l.fake.Calls(bgagenttest.CallTurn, session))
		require.Empty(t, l.fake.Violations())
	})
}
