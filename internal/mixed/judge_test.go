//go:build linux

package mixed

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
)

// The type "scripted" builds the record of a run that keeps all promises.
type scripted struct {
	*record
	began   time.Time
	pause   time.Duration // pause of a pool after a refusal
	bucket  *modelserver.Bucket
	number  int
	waiting []*scriptedTask
	running []*scriptedTask
	until   time.Time // end of the cool-down
	most    int       // number of turns that may run
}

type scriptedTask struct {
	id   string
	left int           // number of requests
	step time.Duration // duration of each request, and of each phase before, between and after requests
	at   time.Time     // time of the next request or of the end
	turn *begun
}

// The function "script" returns the record of a run whose limited pool pauses for the given time
// after a refusal.
func script(pause time.Duration) *record {
	s := &scripted{pause: pause, began: simulated.Add(time.Hour), most: slots, record: &record{
		limited: "explore", every: time.Second, accepted: map[int]bool{},
		tasks: map[string]bgagent.Task{}, keys: map[string]string{}, requests: map[string][]modelserver.Request{},
	}}
	s.bucket = bucketAt(s.began, s.every)
	for i := range limitedTasks {
		s.waiting = append(s.waiting, s.launch(s.limited, i))
	}
	for _, agent := range []string{"worker", "writer"} {
		free := slices.Repeat([]time.Time{s.began}, slots)
		for i := range otherTasks {
			t := s.launch(agent, i)
			s.begin(t, free[i%slots])
			for t.left > 0 {
				s.request(t, true)
			}
			s.end(t, t.at)
			free[i%slots] = t.at
		}
	}
	s.runLimited()
	return s.record
}

func (s *scripted) launch(agent string, i int) *scriptedTask {
	t := &scriptedTask{id: fmt.Sprintf("%s-%d", agent, i), left: 1, step: time.Duration(100+i%7) * time.Millisecond}
	key := keyOf("play", agent, i)
	if !quick(key) {
		t.left = 2
		s.calls = append(s.calls, key)
	}
	s.keys[t.id] = key
	s.tasks[t.id] = bgagent.Task{ID: t.id, Agent: agent, Queued: s.began}
	return t
}

func (s *scripted) begin(t *scriptedTask, at time.Time) {
	task := s.tasks[t.id]
	if task.Started.IsZero() {
		task.Started = at
		s.tasks[t.id] = task
	}
	t.turn = &begun{task: t.id, agent: task.Agent, at: at}
	t.at = at.Add(t.step)
	s.turns = append(s.turns, t.turn)
}

func (s *scripted) request(t *scriptedTask, accepted bool) {
	s.number++
	q := modelserver.Request{N: s.number, Arrived: t.at, Ended: t.at.Add(t.step),
		Messages: []modelserver.Message{{Text: "@key " + s.keys[t.id] + "\nDo your step and answer."}}}
	s.requests[t.id] = append(s.requests[t.id], q)
	if accepted {
		s.accepted[q.N] = true
		t.left--
	}
	t.at = q.Ended.Add(t.step)
}

func (s *scripted) end(t *scriptedTask, at time.Time) {
	t.at, t.turn.over = at, at
	task := s.tasks[t.id]
	task.Status, task.Ended, task.Result = bgagent.Completed, at, "answer of "+s.keys[t.id]
	s.tasks[t.id] = task
}

func (s *scripted) runLimited() {
	for now := s.began; len(s.waiting)+len(s.running) > 0; {
		for len(s.waiting) > 0 && len(s.running) < s.most && !now.Before(s.until) {
			s.begin(s.waiting[0], now)
			s.running, s.waiting = append(s.running, s.waiting[0]), s.waiting[1:]
		}
		if len(s.running) == 0 {
			now = s.until
			continue
		}
		t := slices.MinFunc(s.running, func(a, b *scriptedTask) int { return a.at.Compare(b.at) })
		if now.Before(s.until) && t.at.After(s.until) {
			now = s.until
			continue
		}
		now = t.at
		over := func() { s.running = slices.DeleteFunc(s.running, func(x *scriptedTask) bool { return x == t }) }
		switch {
		case t.left == 0:
			s.end(t, now)
			over()
			if !now.Before(s.until) {
				s.most = slots // the provider has answered a turn since the cool-down
			}
		case s.bucket.Take(now) == 0:
			s.request(t, true)
		default:
			s.request(t, false)
			t.turn.over = now.Add(t.step)
			over()
			s.waiting = slices.Insert(s.waiting, 0, t)
			if now.After(s.until) {
				s.until, s.most = t.turn.over.Add(s.pause), 1
				s.cools = append(s.cools, coolDown{at: t.turn.over, until: s.until})
			}
		}
	}
}

// afterPause returns the first cool-down after which two turns began, and these turns.
func (r *record) afterPause() (c *coolDown, first, second *begun) {
	turns := r.begins()
	for i := range r.cools {
		c := &r.cools[i]
		n := slices.IndexFunc(turns, func(b *begun) bool { return !b.at.Before(c.until) })
		if n >= 0 && n+1 < len(turns) && r.shown(turns[n+1]) == c {
			return c, turns[n], turns[n+1]
		}
	}
	return nil, nil, nil
}

func (r *record) change(id string, change func(*bgagent.Task)) {
	task := r.tasks[id]
	change(&task)
	r.tasks[id] = task
}

func TestTheJudgeAcceptsARunThatKeepsAllPromises(t *testing.T) {
	r := script(firstPause + time.Second/2)
	require.Empty(t, r.judge())
	require.Greater(t, len(r.refusals()), 5)
	require.Greater(t, len(r.cools), 5)
	c, first, second := r.afterPause()
	require.NotNil(t, c)
	require.Equal(t, c.until, first.at)
	require.True(t, second.at.After(first.at))
	require.Less(t, r.best(), r.took(), "no scheduler is faster than the one that knows the bucket")

	ofRunning, retried := r.inCoolDowns()
	require.Positive(t, ofRunning+retried, "turns that ran when the cool-down began are no turns that begin in it")
}

func TestTheJudgeFindsEveryBrokenPromise(t *testing.T) {
	const (
		complete  = "all tasks complete"
		tooEarly  = "no turn begins in a cool-down"
		oneFirst  = "one turn goes first"
		drained   = "drained in time"
		others    = "other pools are not held up"
		callsOnce = "no call is made twice"
		prompts   = "the model sees each prompt once"
	)
	seen := map[string]bool{complete: false}
	for _, c := range clauses {
		seen[c.name] = false
	}
	for _, x := range []struct {
		name, clause, fault string
		plant               func(*record)
	}{
		{"a task fails", complete, "task explore-7: error: gone", func(r *record) {
			r.change("explore-7", func(t *bgagent.Task) { t.Status, t.Reason = bgagent.Failed, "gone" })
		}},
		{"a task is lost", complete, "99 tasks instead of 100", func(r *record) { delete(r.tasks, "worker-3") }},
		{"a task has the answer of another", complete, `the result is "answer of play-worker-2"`, func(r *record) {
			r.change("worker-4", func(t *bgagent.Task) { t.Result = "answer of play-worker-2" })
		}},
		{"a task completes without a request", complete, "task writer-1: no request", func(r *record) { delete(r.requests, "writer-1") }},
		{"a turn begins a second before the end of a cool-down", tooEarly, "begins 1s before the end of a cool-down", func(r *record) {
			c, first, _ := r.afterPause()
			first.at = c.until.Add(-time.Second)
		}},
		{"a turn begins right after its pool has begun to cool down", tooEarly, "before the end of a cool-down", func(r *record) {
			c, first, _ := r.afterPause()
			first.at = c.at.Add(time.Millisecond)
		}},
		{"a pause is shorter than 5 s", tooEarly, "a pause ends only 4.999s after the refusal", func(r *record) {
			c, _, _ := r.afterPause()
			c.until = c.at.Add(4999 * time.Millisecond)
		}},
		{"the pool does not cool down", tooEarly, "refusals without a cool-down", func(r *record) { r.cools = nil }},
		{"the pool cools down although nothing was refused", tooEarly, "a cool-down without a refusal", func(r *record) {
			r.cools[0].at = r.cools[0].at.Add(-time.Millisecond)
		}},
		{"two turns go first", oneFirst, "a second turn begins 1ms after the end of a cool-down", func(r *record) {
			c, _, second := r.afterPause()
			second.at = c.until.Add(time.Millisecond)
		}},
		{"a turn of another task begins just before the first one is answered", oneFirst, "no request was answered", func(r *record) {
			c, first, second := r.afterPause()
			second.at = r.requestAfter(first.task, c.until).Arrived
		}},
		{"a task waits although the provider would accept its request", drained, "is more than 1.25 times", func(r *record) {
			*r = *script(20 * time.Second)
		}},
		{"a task of another pool starts late", others, "starts 10ms after its slot was free", func(r *record) {
			r.change("writer-20", func(t *bgagent.Task) { t.Started = t.Started.Add(10 * time.Millisecond) })
		}},
		{"all tasks of another pool are held up", others, "starts 5s after its slot was free", func(r *record) {
			for id := range maps.Clone(r.tasks) {
				r.change(id, func(t *bgagent.Task) {
					if t.Agent == "worker" {
						t.Started, t.Ended = t.Started.Add(5*time.Second), t.Ended.Add(5*time.Second)
					}
				})
			}
		}},
		{"a task of another pool starts without a slot", others, "starts -", func(r *record) {
			r.change("worker-9", func(t *bgagent.Task) { t.Started = t.Started.Add(-time.Millisecond) })
		}},
		{"a call is made twice", callsOnce, "the call of play-explore-6 was made 2 times", func(r *record) { r.calls = append(r.calls, "play-explore-6") }},
		{"a call of another pool is made twice", callsOnce, "the call of play-writer-8 was made 2 times", func(r *record) { r.calls = append(r.calls, "play-writer-8") }},
		{"a call is missing", callsOnce, "was made 0 times", func(r *record) { r.calls = r.calls[1:] }},
		{"a task makes a call that it was not told to make", callsOnce, "the call of play-explore-1-quick was made 1 times", func(r *record) {
			r.calls = append(r.calls, "play-explore-1-quick")
		}},
		{"a prompt is sent twice", prompts, "the model sees the prompt of play-explore-4 2 times", func(r *record) {
			all := r.requests["explore-4"]
			last := &all[len(all)-1]
			last.Messages = append(last.Messages, last.Messages[0])
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := script(firstPause + time.Second/2)
			x.plant(r)
			found := r.judge()
			require.Equal(t, []string{x.clause}, slices.Collect(maps.Keys(found)), "%v", found)
			require.Contains(t, found[x.clause][0], x.fault)
		})
		seen[x.clause] = true
	}
	require.NotContains(t, slices.Collect(maps.Values(seen)), false, "no case breaks the clauses %v", seen)
}

// requestAfter returns the task's first request that arrived after the given time.
func (r *record) requestAfter(task string, at time.Time) modelserver.Request {
	all := r.requests[task]
	return all[slices.IndexFunc(all, func(q modelserver.Request) bool { return q.Arrived.After(at) })]
}
