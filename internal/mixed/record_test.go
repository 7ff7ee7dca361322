//go:build linux

package mixed

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
)

// The type "begun" is a turn that the manager has begun.
type begun struct {
	task, agent, prompt string
	at                  time.Time
	over                time.Time // when the call to a TurnRunner returned; zero for a TurnStarter
}

// coolDown is a pool's cool-down as a sample showed it.
type coolDown struct {
	at, until time.Time
	due       map[string]bool // tasks whose turn had begun in the manager, but not yet in the client
}

// The type "record" holds all observations of one run. The judge reads nothing else.
type record struct {
	limited  string                           // agent whose provider limits requests
	every    time.Duration                    // time after which that provider accepts one more request
	turns    []*begun                         // turns of all agents
	cools    []coolDown                       // cool-downs of the limited agent's pool
	tasks    map[string]bgagent.Task          // ended tasks, by id
	keys     map[string]string                // key of each task's conversation, by id
	requests map[string][]modelserver.Request // requests of each task, by id
	accepted map[int]bool                     // requests that the model answered, by number
	calls    []string                         // keys of the tasks whose tool calls have run, one for each call
}

// The function "quick" reports whether a task is expected to make no tool call.
func quick(key string) bool { return strings.HasSuffix(key, "-quick") }

// clause is a promise about a run, with the function that returns all violations of the promise.
type clause struct {
	name  string
	check func(*record) []string
}

var clauses = []clause{
	{"no turn begins in a cool-down", (*record).begunTooEarly},
	{"one turn goes first", (*record).begunTogether},
	{"drained in time", (*record).drainedLate},
	{"other pools are not held up", (*record).othersHeldUp},
	{"no call is made twice", (*record).callsRepeated},
	{"the model sees each prompt once", (*record).promptsRepeated},
}

// The method "judge" returns the violations of the promises, by clause. If some tasks have not
// completed correctly, it reports only these tasks.
func (r *record) judge() map[string][]string {
	if faults := r.incomplete(); len(faults) > 0 {
		return map[string][]string{"all tasks complete": faults}
	}
	found := map[string][]string{}
	for _, c := range clauses {
		if faults := c.check(r); len(faults) > 0 {
			found[c.name] = faults
		}
	}
	return found
}

func (r *record) incomplete() (faults []string) {
	if n := limitedTasks + 2*otherTasks; len(r.tasks) != n {
		faults = append(faults, fmt.Sprintf("%d tasks instead of %d", len(r.tasks), n))
	}
	for id, task := range r.tasks {
		switch {
		case task.Status != bgagent.Completed:
			faults = append(faults, fmt.Sprintf("task %s: %v: %s", id, task.Status, task.Reason))
		case task.Result != "answer of "+r.keys[id]:
			faults = append(faults, fmt.Sprintf("task %s: the result is %q", id, task.Result))
		case len(r.requests[id]) == 0:
			faults = append(faults, fmt.Sprintf("task %s: no request", id))
		case !slices.ContainsFunc(r.turns, func(b *begun) bool { return b.task == id }):
			faults = append(faults, fmt.Sprintf("task %s: no turn", id))
		}
	}
	return faults
}

// The method "begins" returns the limited agent's turns in the order they began.
func (r *record) begins() (turns []*begun) {
	for _, b := range r.turns {
		if b.agent == r.limited {
			turns = append(turns, b)
		}
	}
	slices.SortFunc(turns, func(a, b *begun) int { return a.at.Compare(b.at) })
	return turns
}

// The method "shown" returns the cool-down that the last sample before a turn showed, or nil. If
// the turn was due in that sample, the turn began before that cool-down, so the method searches for
// an earlier cool-down.
func (r *record) shown(b *begun) *coolDown {
	for i, c := range slices.Backward(r.cools) {
		if c.at.Before(b.at) && !c.due[b.task] {
			return &r.cools[i]
		}
	}
	return nil
}

// The method "refusals" returns the limited agent's refused requests in the order of their arrival.
func (r *record) refusals() (refused []modelserver.Request) {
	for id, all := range r.requests {
		for _, q := range all {
			if r.tasks[id].Agent == r.limited && !r.accepted[q.N] {
				refused = append(refused, q)
			}
		}
	}
	slices.SortFunc(refused, func(a, b modelserver.Request) int { return cmp.Compare(a.N, b.N) })
	return refused
}

// begunTooEarly finds turns that began during a cool-down, and cool-downs that ended less than 5 s
// after the refusal. The time of the refusal comes from the model server. Requests of turns that
// had already begun, and retries by programs, are not new turns, so they may be made during a
// cool-down.
func (r *record) begunTooEarly() (faults []string) {
	refused := r.refusals()
	if len(refused) > 0 && len(r.cools) == 0 {
		faults = append(faults, "refusals without a cool-down")
	}
	for i, c := range r.cools {
		since := time.Time{}
		if i > 0 {
			since = r.cools[i-1].until
		}
		if c.at.Before(since) {
			continue // a refusal extended the cool-down
		}
		known := slices.DeleteFunc(slices.Clone(refused), func(q modelserver.Request) bool { return q.Ended.After(c.at) })
		if len(known) == 0 {
			faults = append(faults, "a cool-down without a refusal")
			continue
		}
		n := slices.IndexFunc(known, func(q modelserver.Request) bool { return q.Ended.After(since) })
		if n < 0 { // the refusal came before the previous cool-down ended, and the manager was notified after that end
			n = len(known) - 1
		}
		if pause := c.until.Sub(known[n].Ended); pause < firstPause {
			faults = append(faults, fmt.Sprintf("a pause ends only %v after the refusal", pause))
		}
	}
	for _, b := range r.begins() {
		if c := r.shown(b); c != nil && b.at.Before(c.until) {
			faults = append(faults, fmt.Sprintf("a turn of task %s begins %v before the end of a cool-down", b.task, c.until.Sub(b.at)))
		}
	}
	return faults
}

// inCoolDowns counts the limited agent's requests that arrived during cool-downs.
func (r *record) inCoolDowns() (ofRunningTurns, retried int) {
	for id, all := range r.requests {
		for i, q := range all {
			in := slices.ContainsFunc(r.cools, func(c coolDown) bool { return c.at.Before(q.Arrived) && q.Arrived.Before(c.until) })
			switch {
			case r.tasks[id].Agent != r.limited || !in:
			case i > 0 && !r.accepted[all[i-1].N]:
				retried++
			default:
				ofRunningTurns++
			}
		}
	}
	return ofRunningTurns, retried
}

// begunTogether finds turns that began too early after a cool-down. A second turn may begin only in two
// cases: the model has answered a request of a turn that was not over by the end of the cool-down, or the
// first turn has been silent for 10 s.
func (r *record) begunTogether() (faults []string) {
	turns := r.begins()
	for i, b := range turns {
		c := r.shown(b)
		if i == 0 || c == nil || turns[i-1].at.Before(c.until) {
			continue // the first turn, or the first after a cool-down
		}
		first := slices.IndexFunc(turns, func(x *begun) bool { return !x.at.Before(c.until) })
		if !r.answered(c.until, b.at) && b.at.Sub(turns[first].at) < 10*time.Second {
			faults = append(faults, fmt.Sprintf("a second turn begins %v after the end of a cool-down, and no request was answered", b.at.Sub(c.until)))
		}
	}
	return faults
}

// The method "answered" reports whether the model accepted a request from the limited agent that
// arrived before the time "by". The request counts only if its turn was not over at the time
// "since".
func (r *record) answered(since, by time.Time) bool {
	for id, all := range r.requests {
		for _, q := range all {
			if r.tasks[id].Agent == r.limited && r.accepted[q.N] && q.Arrived.Before(by) && r.turnOver(id, q).After(since) {
				return true
			}
		}
	}
	return false
}

// turnOver returns the time at which a request's turn was over.
func (r *record) turnOver(task string, q modelserver.Request) time.Time {
	for _, b := range slices.Backward(r.turns) {
		if b.task == task && !b.at.After(q.Arrived) && !b.over.IsZero() {
			return b.over
		}
	}
	return r.tasks[task].Ended
}

// drainedLate compares how long the limited agent's tasks took in total with how long they would
// have taken with a scheduler that knows the state of the token bucket. It simulates that
// scheduler, using the times that were measured for the programs.
func (r *record) drainedLate() (faults []string) {
	if took, best := r.took(), r.best(); took > best*5/4+mostPause {
		faults = append(faults, fmt.Sprintf("%v is more than 1.25 times %v and one backoff", took, best))
	}
	return faults
}

// The method "took" returns the time from the start of the limited agent's first task to the end of
// its last task.
func (r *record) took() time.Duration {
	var began, over time.Time
	for _, task := range r.tasks {
		if task.Agent != r.limited {
			continue
		}
		if began.IsZero() || task.Started.Before(began) {
			began = task.Started
		}
		if task.Ended.After(over) {
			over = task.Ended
		}
	}
	return over.Sub(began)
}

// The method "best" returns how long the limited agent's tasks would have taken in total with a
// scheduler that knows the state of the token bucket.
func (r *record) best() time.Duration {
	var traces []trace
	for id, task := range r.tasks {
		if task.Agent == r.limited {
			traces = append(traces, r.trace(id))
		}
	}
	slices.SortFunc(traces, func(a, b trace) int { return a.began.Compare(b.began) })
	return drain(traces, slots, bucketAt(simulated, r.every))
}

// othersHeldUp finds tasks of the other agents that did not start as soon as a slot in their pool
// was free, although the pool was not cooling down.
func (r *record) othersHeldUp() (faults []string) {
	byAgent := map[string][]bgagent.Task{}
	for _, task := range r.tasks {
		if task.Agent != r.limited {
			byAgent[task.Agent] = append(byAgent[task.Agent], task)
		}
	}
	for agent, tasks := range byAgent {
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
			if !task.Started.Equal(want) {
				faults = append(faults, fmt.Sprintf("task %d of %s starts %v after its slot was free", i, agent, task.Started.Sub(want)))
			}
		}
	}
	return faults
}

// callsRepeated finds tool calls that were made more than once, not at all, or by a task that should make no
// call.
func (r *record) callsRepeated() (faults []string) {
	made := map[string]int{}
	for _, key := range r.calls {
		made[key]++
	}
	for _, key := range r.keys {
		want := 1
		if quick(key) {
			want = 0
		}
		if made[key] != want {
			faults = append(faults, fmt.Sprintf("the call of %s was made %d times", key, made[key]))
		}
		delete(made, key)
	}
	for key := range maps.Keys(made) {
		faults = append(faults, fmt.Sprintf("a call of the unknown task %q", key))
	}
	return faults
}

// promptsRepeated finds conversations that contain their task's prompt more than once, or not at
// all.
func (r *record) promptsRepeated() (faults []string) {
	for id, key := range r.keys {
		all, prompts := r.requests[id], 0
		for _, m := range all[len(all)-1].Messages {
			prompts += strings.Count(m.Text, "@key "+key+"\n")
		}
		if prompts != 1 {
			faults = append(faults, fmt.Sprintf("the model sees the prompt of %s %d times", key, prompts))
		}
	}
	return faults
}
