//go:build linux

package mixed

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/modelserver"
)

// The type "trace" contains the times that a task needs, apart from waiting.
type trace struct {
	began time.Time
	steps []step        // its requests to the model
	tail  time.Duration // time from the last answer to the end of the task
}

// The type "step" is a request to the model: the time before it, and the time until its answer is
// complete.
type step struct{ before, answer time.Duration }

// The method "trace" returns the times that a task took, not counting the time lost to refusals.
// The time before a request counts up to the first attempt, even if that attempt was refused.
func (r *record) trace(id string) trace {
	i := slices.IndexFunc(r.turns, func(b *begun) bool { return b.task == id })
	x := trace{began: r.turns[i].at}
	last, first := x.began, time.Time{}
	for _, q := range r.requests[id] {
		if first.IsZero() {
			first = q.Arrived
		}
		if r.accepted[q.N] {
			x.steps = append(x.steps, step{max(first.Sub(last), 0), q.Ended.Sub(q.Arrived)})
			last, first = q.Ended, time.Time{}
		}
	}
	x.tail = r.tasks[id].Ended.Sub(last)
	return x
}

// The variable "simulated" is the time that the simulated clock of the function "drain" shows at the
// beginning.
var simulated = time.Unix(0, 0)

// The function "drain" returns how long the tasks take with the given number of slots if each
// request is made only when the bucket has a token.
func drain(tasks []trace, slots int, bucket *modelserver.Bucket) time.Duration {
	type run struct {
		trace
		step int
		at   time.Time
	}
	began, over := simulated, simulated
	var running []*run
	next := func(at time.Time) {
		if len(tasks) > 0 {
			running = append(running, &run{trace: tasks[0], at: at.Add(tasks[0].steps[0].before)})
			tasks = tasks[1:]
		}
	}
	for range slots {
		next(began)
	}
	for len(running) > 0 {
		r := slices.MinFunc(running, func(a, b *run) int { return a.at.Compare(b.at) })
		if r.step == len(r.steps) {
			over = r.at
			running = slices.DeleteFunc(running, func(x *run) bool { return x == r })
			next(r.at)
			continue
		}
		if wait := bucket.Take(r.at); wait > 0 {
			r.at = r.at.Add(wait)
			continue
		}
		r.at = r.at.Add(r.steps[r.step].answer)
		if r.step++; r.step < len(r.steps) {
			r.at = r.at.Add(r.steps[r.step].before)
		} else {
			r.at = r.at.Add(r.tail)
		}
	}
	return over.Sub(began)
}

func TestAScheduleThatKnowsTheBucketIsComputedFromTheTimesOfTheTasks(t *testing.T) {
	of := func(n int) (tasks []trace) {
		for range n {
			tasks = append(tasks, trace{steps: []step{{time.Second, 0}, {time.Second, time.Second}}, tail: time.Second})
		}
		return tasks
	}
	require.Equal(t, 4*time.Second, drain(of(1), 1, modelserver.NewBucket(10, time.Second)))
	require.Equal(t, 40*time.Second, drain(of(10), 1, modelserver.NewBucket(10, time.Second)), "the slots decide")
	require.Equal(t, 8*time.Second, drain(of(10), 5, modelserver.NewBucket(100, time.Second)))
	// The first request takes a token after 1 s, and the last of 100 tokens arrives 990 s later.
	// The last answer and the final delay of 1 s come after that.
	require.Equal(t, 993*time.Second, drain(of(50), 50, modelserver.NewBucket(1, 10*time.Second)), "the bucket decides")
}
