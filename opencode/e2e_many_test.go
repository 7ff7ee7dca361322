package opencode_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestFiftyTasksOnOneServerKeepToALimitOfTen(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := serve(t, w, w.ServeOpencode(t), opencode.Config{}, bgagent.Config{Limits: bgagent.Limits{Default: 10}})
	root := s.root()
	ours := func(r modelserver.Request) bool {
		return isMain(r) && strings.HasPrefix(r.Key, "many-") && r.Session != root
	}
	bySession := func(r modelserver.Request) string { return r.Session }
	w.Model.Handle(modelserver.Together(10, ours, bySession, nil))
	var ids []string
	for i := range 50 {
		ids = append(ids, s.launch(root, "worker", fmt.Sprintf("@key many-%d\n@slow 10 50ms\n@say the answer is number %d", i, i)).ID)
	}
	for i, task := range s.ended(ids...) {
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, fmt.Sprintf("the answer is number %d", i), task.Result)
	}
	require.Equal(t, 10, w.Model.MaxOpen(ours, bySession), "the maximum of open turns at the model")
	s.waitFor(func(r modelserver.Request) bool {
		return isMain(r) && r.Session == root && strings.Contains(r.LastUser(), ids[49])
	})
	told := map[string]int{}
	var notices []string
	for _, r := range w.Model.Requests() {
		if isMain(r) && r.Session == root && !slices.Contains(notices, r.LastUser()) {
			notices = append(notices, r.LastUser())
			for _, id := range ids {
				told[id] += min(strings.Count(r.LastUser(), id), 1)
			}
		}
	}
	for _, id := range ids {
		require.Equal(t, 1, told[id], "the parent is told of %s once", id)
	}
}

// The server is killed in the middle of a turn and restarted. After the restart, the session is
// idle and its last message is incomplete. The task ends as interrupted and can be resumed.
func TestAServerThatIsKilledInMidTurnInterruptsItsTasks(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := serve(t, w, w.ServeOpencode(t), opencode.Config{}, bgagent.Config{})
	task := s.launch("scope", "worker", "@key killed\n@slow 1000 100ms\n@say "+strings.Repeat("more and more ", 100))
	s.waitFor(func(r modelserver.Request) bool { return r.Key == "killed" && isMain(r) })
	s.s.Kill()
	s.s.Restart()
	got := s.ended(task.ID)[0]
	require.Equal(t, bgagent.Failed, got.Status)
	require.Contains(t, []bgagent.Cause{bgagent.CauseInterrupted, bgagent.CauseNoOutput}, got.Cause, got.Reason)
	s.quiet(task.ID)
	_, err := s.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "@say here I am again"})
	require.NoError(t, err)
	got = s.ended(task.ID)[0]
	require.Equal(t, bgagent.Completed, got.Status, got.Reason)
	require.Equal(t, "here I am again", got.Result)
}

func TestAServerThatIsAwayForTooLongFailsItsTasks(t *testing.T) {
	w := realagent.New(t, "opencode")
	server := w.ServeOpencode(t)
	warm := serve(t, w, server, opencode.Config{}, bgagent.Config{}) // a server's first turn can take longer than the server is allowed to be unreachable
	require.Equal(t, "warm", warm.ended(warm.launch("scope", "worker", "@say warm").ID)[0].Result)
	s := serve(t, w, server, opencode.Config{}, bgagent.Config{HostUnreachable: 20 * time.Second, StopTimeout: time.Second})
	task := s.launch("scope", "worker", "@key away\n@hang never")
	s.waitFor(func(r modelserver.Request) bool { return r.Key == "away" && isMain(r) })
	s.s.Kill()
	got := s.ended(task.ID)[0]
	require.Equal(t, bgagent.CauseHostUnreachable, got.Cause)
	_, err := s.m.Launch(t.Context(), bgagent.Caller{Session: "scope"}, bgagent.LaunchInput{Agent: "worker", Prompt: "@say hello"})
	require.NoError(t, err)
	tasks := s.m.List(bgagent.Query{Parent: "scope"})
	got = s.ended(tasks[len(tasks)-1].ID)[0]
	require.Equal(t, bgagent.CauseHostUnreachable, got.Cause, "the outage delayed its start beyond the limit")
	require.Contains(t, got.Reason, "opencode serve")
}

var latencies = flag.Int("opencode.latency", 0, "measure how soon this many ends are seen and reported")

// TestLatency measures two delays after the idle event of a task's session: until the task ends,
// and until the model gets a request with the parent's notice. During the first 5 s of a task, the
// manager does not trust an idle status. Therefore, some tasks are shorter than 5 s and some are
// longer.
func TestLatency(t *testing.T) {
	if *latencies == 0 {
		t.Skip("measures only with -opencode.latency n")
	}
	w := realagent.New(t, "opencode")
	server := w.ServeOpencode(t)
	for _, x := range []struct {
		name string
		at   int           // number of concurrent tasks
		each time.Duration // how long the first task's model writes
		more time.Duration // additional time for each additional task
	}{{"shorter than 5 s", 1, 100 * time.Millisecond, 0}, {"longer than 5 s", 10, 5500 * time.Millisecond, 570 * time.Millisecond}} {
		t.Run(x.name, func(t *testing.T) {
			s := serve(t, w, server, opencode.Config{}, bgagent.Config{Wake: bgagent.WakeEach, Limits: bgagent.Limits{Default: x.at}})
			idle := s.watchWire()
			var mu sync.Mutex
			var ended, told []time.Duration
			var group sync.WaitGroup
			for i := range x.at {
				slow := fmt.Sprintf("@slow 2 %v\n@say done", (x.each+time.Duration(i)*x.more)/2) // the times differ, so that the tasks do not end together
				group.Go(func() {
					for range *latencies / x.at {
						root := s.root()
						task := s.launch(root, "worker", slow)
						got := s.ended(task.ID)[0]
						require.Equal(t, bgagent.Completed, got.Status, got.Reason)
						at := idle(got.Session)
						var notice time.Time
						s.waitFor(func(r modelserver.Request) bool {
							notice = r.Arrived
							return isMain(r) && r.Session == root && strings.Contains(r.LastUser(), task.ID)
						})
						mu.Lock()
						ended, told = append(ended, got.Ended.Sub(at)), append(told, notice.Sub(at))
						mu.Unlock()
					}
				})
			}
			group.Wait()
			report := func(what string, d []time.Duration) {
				slices.Sort(d)
				t.Logf("%s, n=%d: median %v, 99th percentile %v", what, len(d), d[len(d)/2].Round(time.Millisecond/10), d[len(d)*99/100].Round(time.Millisecond/10))
			}
			report("idle on the wire to the task's end", ended)
			report("idle on the wire to the request that carries the notice", told)
		})
	}
}

// watchWire follows the server's stream with a separate client. It returns a function that waits
// for a session's idle event and returns the time of the event.
func (s *scene) watchWire() func(session string) time.Time {
	c, err := opencode.New(opencode.Config{URL: s.s.URL, Directory: s.w.Dir})
	require.NoError(s, err)
	var mu sync.Mutex
	at := map[string]time.Time{}
	up := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	s.Cleanup(func() { cancel(); group.Wait() })
	group.Go(func() {
		_ = c.Events(ctx, func(e bgagent.HostEvent) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == bgagent.HostStatus && e.Status.State == bgagent.SessionIdle && at[e.Session].IsZero() {
				at[e.Session] = time.Now()
			}
			select {
			case up <- struct{}{}:
			default:
			}
		})
	})
	<-up
	return func(session string) (when time.Time) {
		require.Eventually(s, func() bool {
			mu.Lock()
			defer mu.Unlock()
			when = at[session]
			return !when.IsZero()
		}, patience, time.Millisecond)
		return when
	}
}
