//go:build linux

package mixed

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
)

const (
	limitedTasks = 40 // number of tasks of the program whose provider limits requests
	otherTasks   = 30 // number of tasks of each other program
	slots        = 3  // number of slots of each program

	bucketSize = 12                     // number of requests that the provider accepts in a burst after an idle time
	bucketLeft = 3                      // number of requests that the provider accepts in a burst at the start of the test
	leastEvery = 800 * time.Millisecond // shortest time until the provider accepts one more request; a pause of 6 s does not fill the bucket
	mostEvery  = 3 * time.Second        // longest time until the provider accepts one more request, on a busy machine

	firstPause = 5 * time.Second // shortest pause of a pool after a refusal
	mostPause  = 6 * time.Second // longest pause of a pool after a refusal, including the largest random addition
)

// limitedPlay is one run of the test: 100 tasks of three programs, one of which is limited.
type limitedPlay struct {
	*testing.T
	name    string // differs between the runs of the test
	limited program
	every   time.Duration // time after which the provider accepts one more request
	watch   *watcher
	calls   string // file to which each tool call adds a line

	mu       sync.Mutex
	accepted map[int]bool // requests that the model answered, by number
}

// The provider of one of three real programs limits requests. The 40 tasks of that program share a host
// with 60 tasks of the other programs.
func TestRealProgramsGetThroughATokenBucket(t *testing.T) {
	w := realagent.New(t, "opencode", "codex", "claude")
	server := w.ServeOpencode(t)
	warm(t, w, server, 1) // the times are not used, because a program's first task takes longer
	paces := warm(t, w, server, 2*slots)
	for _, limited := range programs {
		t.Run(limited.name, func(t *testing.T) {
			every := min(max(paces[limited.agent], leastEvery), mostEvery)
			r := play(t, w, server, limited, every)
			for tries := 0; len(r.refusals()) == 0; tries++ { // repeats the run if the programs were too slow to reach the limit
				require.Less(t, tries, 3, "the programs never reach the limit")
				t.Logf("the provider accepted all requests at an interval of %v", every)
				every *= 2
				r = play(t, w, server, limited, every)
			}
			require.Empty(t, r.judge())
			running, retried := r.inCoolDowns()
			t.Logf("%d refusals, %d changes of cool-downs; in cool-downs, %d requests of running turns and %d that were repeated", len(r.refusals()), len(r.cools), running, retried)
			t.Logf("%v with %d turns and a request every %v; %v with a scheduler that knows the bucket", r.took(), len(r.begins()), r.every, r.best())
		})
	}
}

// The function "play" runs the tasks. The provider accepts one more request each time the duration
// "every" has passed. All tasks must complete.
func play(t *testing.T, w *realagent.World, server *realagent.OpencodeServer, limited program, every time.Duration) *record {
	p := &limitedPlay{T: t, limited: limited, every: every, watch: &watcher{agent: limited.agent}, accepted: map[int]bool{}}
	p.name = fmt.Sprintf("%s-%s", limited.name, every.Round(time.Millisecond))
	p.calls = filepath.Join(w.Dir, "calls-"+p.name)
	r := p.run(w, server)
	require.Empty(t, r.incomplete())
	return r
}

// The function "warm" runs n tasks of each program without a provider limit. It returns, for each
// agent, the average time from one request to the next.
func warm(t *testing.T, w *realagent.World, server *realagent.OpencodeServer, n int) map[string]time.Duration {
	m := host(t, w, server, &watcher{}, bgagent.Limits{Default: slots})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ids := map[string][]string{}
	for _, p := range programs {
		for range n {
			task, err := m.Launch(ctx, bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: p.agent, Prompt: "@say warm"})
			require.NoError(t, err)
			ids[p.agent] = append(ids[p.agent], task.ID)
		}
	}
	paces := map[string]time.Duration{}
	for agent, ids := range ids {
		tasks, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, ids...)
		require.NoError(t, err)
		for _, task := range tasks {
			require.Equal(t, "warm", task.Result, task.Reason)
			paces[agent] = max(paces[agent], task.Ended.Sub(tasks[0].Started)/time.Duration(n))
		}
	}
	t.Logf("average times between requests: %v", paces)
	return paces
}

// The method "model" is the scripted model. For some tasks, it makes one tool call and then
// answers. For the others, it answers immediately.
func (p *limitedPlay) model(r modelserver.Request) modelserver.Reply {
	if r.Kind != modelserver.Main || r.Key == "" {
		return r.Scripted()
	}
	p.mu.Lock()
	p.accepted[r.N] = true
	p.mu.Unlock()
	for _, m := range r.Messages {
		if slices.ContainsFunc(m.Results, func(x modelserver.Result) bool { return strings.Contains(x.Text, "did "+r.Key) }) {
			return modelserver.Say("answer of " + r.Key)
		}
	}
	for _, x := range programs {
		if x.protocol == r.Protocol && !quick(r.Key) {
			return x.shell(fmt.Sprintf("echo %s >> %s; echo did %s", r.Key, p.calls, r.Key))
		}
	}
	return modelserver.Say("answer of " + r.Key)
}

// bucketAt returns the token bucket that the provider uses to limit requests. At the time "now",
// the bucket is only partly full.
func bucketAt(now time.Time, every time.Duration) *modelserver.Bucket {
	b := modelserver.NewBucket(bucketSize, every)
	for range bucketSize - bucketLeft {
		b.Take(now)
	}
	return b
}

// keyOf returns the conversation key for a program's i-th task.
func keyOf(play, program string, i int) string {
	key := fmt.Sprintf("%s-%s-%d", play, program, i)
	if i%2 > 0 {
		key += "-quick"
	}
	return key
}

// The method "run" launches all tasks, waits until they have ended, and returns the record of the
// run.
func (p *limitedPlay) run(w *realagent.World, server *realagent.OpencodeServer) *record {
	bucket := bucketAt(time.Now(), p.every).Limit(p.model, func(refusal int) bool { return refusal%2 == 0 })
	w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if r.Protocol == p.limited.protocol && r.Kind == modelserver.Main {
			return bucket(r)
		}
		return p.model(r)
	})
	defer w.Model.Handle(nil)
	m := host(p.T, w, server, p.watch, bgagent.Limits{Default: slots})
	ctx, cancel := context.WithTimeout(p.Context(), 4*patience)
	defer cancel()
	r := &record{limited: p.limited.agent, every: p.every,
		tasks: map[string]bgagent.Task{}, keys: map[string]string{}, requests: map[string][]modelserver.Request{}}
	var ids []string
	for i := range limitedTasks {
		for _, x := range programs {
			if x.name != p.limited.name && i >= otherTasks {
				continue
			}
			key := keyOf(p.name, x.name, i)
			task, err := m.Launch(ctx, bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: x.agent, Prompt: "@key " + key + "\nDo your step and answer."})
			require.NoError(p, err)
			r.keys[task.ID] = key
			ids = append(ids, task.ID)
		}
	}
	ended, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, ids...)
	require.NoError(p, err)
	of := map[string]string{}
	for _, task := range ended {
		r.tasks[task.ID] = task
		of[r.keys[task.ID]] = task.ID
	}
	for _, q := range w.Model.Requests() {
		if id := of[q.Key]; id != "" && q.Kind == modelserver.Main {
			r.requests[id] = append(r.requests[id], q)
		}
	}
	p.mu.Lock()
	r.accepted = maps.Clone(p.accepted)
	p.mu.Unlock()
	r.turns, r.cools = p.watch.seen()
	lines, err := os.ReadFile(p.calls)
	require.NoError(p, err)
	r.calls = strings.Fields(string(lines))
	return r
}
