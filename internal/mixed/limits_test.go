//go:build linux

package mixed

import (
	"cmp"
	"context"
	"fmt"
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

	bucketSize = 12                     // number of requests that the provider accepts at once after a while
	bucketLeft = 3                      // number of requests that it accepts at once at first
	leastEvery = 800 * time.Millisecond // shortest time after which it accepts one more; a pause of 6 s does not fill the bucket
	mostEvery  = 3 * time.Second        // the longest such time, on a busy machine

	firstPause = 5 * time.Second // shortest pause of a pool after a refusal
	mostPause  = 6 * time.Second // the same pause with the longest random addition
)

// limitedPlay is one run of the test: 100 tasks of three programs, one of which is limited.
type limitedPlay struct {
	*testing.T
	name    string // differs between the runs of the test
	limited program
	every   time.Duration // time after which the provider accepts one more request
	watch   *watcher
	calls   string // file to which each tool call adds a line
	tasks   map[string]bgagent.Task
	keys    map[string]string // key of each task's conversation, by task

	mu       sync.Mutex
	accepted map[int]bool // requests that the model answered, by number

	requests map[string][]modelserver.Request // requests of each task
}

// The provider of one of three real programs limits requests. Its 40 tasks share a host with 60 tasks of
// the other programs.
func TestRealProgramsGetThroughATokenBucket(t *testing.T) {
	w := realagent.New(t, "opencode", "codex", "claude")
	server := w.ServeOpencode(t)
	warm(t, w, server, 1) // a program's first task takes longer
	paces := warm(t, w, server, 2*slots)
	for _, limited := range programs {
		t.Run(limited.name, func(t *testing.T) {
			every := min(max(paces[limited.agent], leastEvery), mostEvery)
			p := newPlay(t, w, server, limited, every)
			for tries := 0; len(p.refusals()) == 0; tries++ { // the programs were slower than before, so the limit was not reached
				require.Less(t, tries, 3, "the programs never reach the limit")
				t.Logf("all requests were accepted with one every %v", every)
				every *= 2
				p = newPlay(t, w, server, limited, every)
			}
			p.noTurnBeginsInACoolDown()
			p.oneTurnGoesFirst()
			p.drainsInTime()
			p.othersAreNotHeldUp()
			p.noCallIsMadeTwice()
		})
	}
}

// newPlay runs the test with a provider that accepts one more request per "every". All tasks must
// complete.
func newPlay(t *testing.T, w *realagent.World, server *realagent.OpencodeServer, limited program, every time.Duration) *limitedPlay {
	p := &limitedPlay{T: t, limited: limited, every: every, watch: &watcher{agent: limited.agent},
		tasks: map[string]bgagent.Task{}, keys: map[string]string{}, accepted: map[int]bool{}, requests: map[string][]modelserver.Request{}}
	p.name = fmt.Sprintf("%s-%s", limited.name, every.Round(time.Millisecond))
	p.calls = filepath.Join(w.Dir, "calls-"+p.name)
	p.play(w, server)
	p.allComplete()
	return p
}

// warm runs n tasks of each program without any provider limit. For each agent, it returns the
// average time from one request to the next.
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

// model is a model that makes one tool call, unless it has already made it, and then answers. For
// some tasks, it does not make a call.
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
		if x.protocol == r.Protocol && !strings.HasSuffix(r.Key, "-quick") {
			return x.shell(fmt.Sprintf("echo %s >> %s; echo did %s", r.Key, p.calls, r.Key))
		}
	}
	return modelserver.Say("answer of " + r.Key)
}

// bucket returns the provider's bucket. At the time now, it has only some of its tokens.
func (p *limitedPlay) bucket(now time.Time) *modelserver.Bucket {
	b := modelserver.NewBucket(bucketSize, p.every)
	for range bucketSize - bucketLeft {
		b.Take(now)
	}
	return b
}

// play launches all tasks, and waits until they have ended.
func (p *limitedPlay) play(w *realagent.World, server *realagent.OpencodeServer) {
	bucket := p.bucket(time.Now()).Limit(p.model, func(refusal int) bool { return refusal%2 == 0 })
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
	var ids []string
	for i := range limitedTasks {
		for _, x := range programs {
			key := fmt.Sprintf("%s-%s-%d", p.name, x.name, i)
			switch {
			case x.name != p.limited.name && i >= otherTasks:
				continue
			case i%2 > 0:
				key += "-quick"
			}
			task, err := m.Launch(ctx, bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: x.agent, Prompt: "@key " + key + "\nDo your step and answer."})
			require.NoError(p, err)
			p.keys[task.ID] = key
			ids = append(ids, task.ID)
		}
	}
	ended, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, ids...)
	require.NoError(p, err)
	of := map[string]string{}
	for _, task := range ended {
		p.tasks[task.ID] = task
		of[p.keys[task.ID]] = task.ID
	}
	for _, r := range w.Model.Requests() {
		if id := of[r.Key]; id != "" && r.Kind == modelserver.Main {
			p.requests[id] = append(p.requests[id], r)
		}
	}
}

func (p *limitedPlay) allComplete() {
	require.Len(p, p.tasks, limitedTasks+2*otherTasks)
	for id, task := range p.tasks {
		require.Equal(p, bgagent.Completed, task.Status, task.Reason)
		require.Equal(p, "answer of "+p.keys[id], task.Result)
	}
}

// begins returns the limited program's turns in the order they began.
func (p *limitedPlay) begins() (turns []*begun) {
	for _, b := range p.watch.turns {
		if b.agent == p.limited.agent {
			turns = append(turns, b)
		}
	}
	slices.SortFunc(turns, func(a, b *begun) int { return a.at.Compare(b.at) })
	return turns
}

// shown returns the cool-down that the last sample before a turn showed, or nil. If the turn was
// already due in that sample, it began before that cool-down, so shown looks for an earlier one.
func (p *limitedPlay) shown(b *begun) *coolDown {
	for i, c := range slices.Backward(p.watch.cools) {
		if c.at.Before(b.at) && !c.due[b.task] {
			return &p.watch.cools[i]
		}
	}
	return nil
}

// refusals returns the limited program's refused requests in the order of their arrival.
func (p *limitedPlay) refusals() (refused []modelserver.Request) {
	for id, all := range p.requests {
		for _, r := range all {
			if p.tasks[id].Agent == p.limited.agent && !p.accepted[r.N] {
				refused = append(refused, r)
			}
		}
	}
	slices.SortFunc(refused, func(a, b modelserver.Request) int { return cmp.Compare(a.N, b.N) })
	return refused
}

// noTurnBeginsInACoolDown checks the turns with the model server's time stamps: a pool pauses from
// when the manager learns about a refusal until at least 5 s after the refusal. Requests of turns
// that had begun before, and requests that programs retry, are counted separately.
func (p *limitedPlay) noTurnBeginsInACoolDown() {
	refused := p.refusals()
	require.NotEmpty(p, p.watch.cools)
	for i, c := range p.watch.cools {
		since := time.Time{}
		if i > 0 {
			since = p.watch.cools[i-1].until
		}
		if c.at.Before(since) {
			continue // a refusal extended the cool-down
		}
		known := slices.DeleteFunc(slices.Clone(refused), func(r modelserver.Request) bool { return r.Ended.After(c.at) })
		require.NotEmpty(p, known, "a cool-down without a refusal")
		n := slices.IndexFunc(known, func(r modelserver.Request) bool { return r.Ended.After(since) })
		if n < 0 { // the manager learned late about the last one
			n = len(known) - 1
		}
		require.False(p, c.until.Before(known[n].Ended.Add(firstPause)), "a pause that ends only %v after the refusal", c.until.Sub(known[n].Ended))
	}
	for _, b := range p.begins() {
		if c := p.shown(b); c != nil {
			require.False(p, b.at.Before(c.until), "a turn of task %s begins %v before the end of a cool-down", b.task, c.until.Sub(b.at))
		}
	}
	running, repeated := 0, 0
	for id, all := range p.requests {
		for i, r := range all {
			in := slices.ContainsFunc(p.watch.cools, func(c coolDown) bool { return c.at.Before(r.Arrived) && r.Arrived.Before(c.until) })
			switch {
			case p.tasks[id].Agent != p.limited.agent || !in:
			case i > 0 && !p.accepted[all[i-1].N]:
				repeated++
			default:
				running++
			}
		}
	}
	p.Logf("%d refusals, %d changes of cool-downs; in cool-downs, %d requests of running turns and %d that were repeated", len(refused), len(p.watch.cools), running, repeated)
}

// oneTurnGoesFirst checks that, after a cool-down, a second turn begins only after the model has
// answered a request of a turn that was not over by the end of the cool-down. A turn that is silent
// for 10 s also counts if its program shows its retries.
func (p *limitedPlay) oneTurnGoesFirst() {
	turns := p.begins()
	for i, b := range turns {
		c := p.shown(b)
		if i == 0 || c == nil || turns[i-1].at.Before(c.until) {
			continue // the first turn, or the first after a cool-down
		}
		first := slices.IndexFunc(turns, func(x *begun) bool { return !x.at.Before(c.until) })
		require.True(p, p.answered(c.until, b.at) || b.at.Sub(turns[first].at) >= 10*time.Second,
			"a second turn begins %v after the end of a cool-down, and no request was answered", b.at.Sub(c.until))
	}
}

// answered reports whether, before the time by, the model had answered a request of the limited
// program, in a turn that was not over at the time since.
func (p *limitedPlay) answered(since, by time.Time) bool {
	for id, all := range p.requests {
		task := p.tasks[id]
		for _, r := range all {
			if task.Agent == p.limited.agent && p.accepted[r.N] && r.Arrived.Before(by) && p.turnOver(id, r).After(since) {
				return true
			}
		}
	}
	return false
}

// turnOver returns when the turn of a request was over.
func (p *limitedPlay) turnOver(task string, r modelserver.Request) time.Time {
	for _, b := range slices.Backward(p.watch.turns) {
		if b.task == task && !b.at.After(r.Arrived) && !b.over.IsZero() {
			return b.over
		}
	}
	return p.tasks[task].Ended
}

// drainsInTime compares how long all tasks of the limited program took with how long they would
// take, given the measured times of the programs, under a scheduler that knows the bucket.
func (p *limitedPlay) drainsInTime() {
	var began, over time.Time
	var traces []trace
	for id, task := range p.tasks {
		if task.Agent != p.limited.agent {
			continue
		}
		if began.IsZero() || task.Started.Before(began) {
			began = task.Started
		}
		if task.Ended.After(over) {
			over = task.Ended
		}
		traces = append(traces, p.trace(id))
	}
	slices.SortFunc(traces, func(a, b trace) int { return a.began.Compare(b.began) })
	took, best := over.Sub(began), drain(traces, slots, p.bucket(simulated))
	p.Logf("%v with %d turns and a request every %v; %v with a scheduler that knows the bucket", took, len(p.begins()), p.every, best)
	require.LessOrEqual(p, took, best*5/4+mostPause, "1.25 times the best, and one backoff")
}

// othersAreNotHeldUp checks that each task of the other programs started as soon as its predecessor
// had ended, as if no pool had cooled down.
func (p *limitedPlay) othersAreNotHeldUp() {
	for _, x := range programs {
		var tasks []bgagent.Task
		for _, task := range p.tasks {
			if task.Agent == x.agent && x.agent != p.limited.agent {
				tasks = append(tasks, task)
			}
		}
		slices.SortFunc(tasks, func(a, b bgagent.Task) int { return a.Started.Compare(b.Started) })
		var ends []time.Time
		for _, task := range tasks {
			ends = append(ends, task.Ended)
		}
		slices.SortFunc(ends, time.Time.Compare)
		for i, task := range tasks {
			want := task.Queued
			if i >= slots && ends[i-slots].After(want) {
				want = ends[i-slots]
			}
			require.Equal(p, want, task.Started, "task %d of %s is held up", i, x.name)
		}
	}
}

// noCallIsMadeTwice checks that each task that calls a tool called it once, and that the model got
// each prompt once.
func (p *limitedPlay) noCallIsMadeTwice() {
	lines, err := os.ReadFile(p.calls)
	require.NoError(p, err)
	var want []string
	for id, key := range p.keys {
		if !strings.HasSuffix(key, "-quick") {
			want = append(want, key)
		}
		all := p.requests[id]
		prompts := 0
		for _, m := range all[len(all)-1].Messages {
			prompts += strings.Count(m.Text, "@key "+key+"\n")
		}
		require.Equal(p, 1, prompts, "the model sees the prompt of %s once", key)
	}
	require.ElementsMatch(p, want, strings.Fields(string(lines)))
}
