//go:build linux

package killed

import (
	"cmp"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/kills"
)

const (
	// lag is how long the model server may take to notice that a killed program has disconnected.
	lag = 5 * time.Second
	// stops is how long the program of a cancelled task may keep running.
	stops = 30 * time.Second
)

// request is a request to the model in a task's conversation.
type request struct {
	task     string // description of the task
	from, to time.Time
	left     bool // whether the program disconnected before the end of the answer
	prompts  int  // number of messages in the conversation that are the task's prompt
	fresh    bool // whether the conversation begins with this request
}

// The method "end" returns the time until which the request was certainly open.
func (r request) end() time.Time {
	if !r.left {
		return r.to
	}
	if t := r.to.Add(-lag); t.After(r.from) {
		return t
	}
	return r.from
}

// evidence is everything that can be known from outside the killed processes.
type evidence struct {
	lines    []kills.Line
	found    kills.Found
	requests []request
	kills    []time.Time
	left     []string // agent programs that are still running ten seconds after the last host process has ended
	unclear  bool     // whether the client might be unable to find out how far a turn got
	intact   bool     // whether the turns continue while the process is dead
}

// judge returns a description of everything that is wrong.
func judge(e evidence) ([]string, kills.Figures) {
	j := kills.NewJudge(e.found)
	j.Answer, j.Unknown = answer, func(string) bool { return e.unclear }
	accepted, over, cancelled := map[string]time.Time{}, map[string]time.Time{}, map[string]time.Time{}
	for _, x := range e.lines {
		j.Line(x)
		switch x.What {
		case kills.Accepted:
			accepted[x.Task] = x.At
		case kills.Ended, kills.Told:
			if over[x.Task].IsZero() {
				over[x.Task] = x.At
			}
		case kills.Cancelled:
			cancelled[x.Task] = x.At
		}
	}
	j.Finish()
	of := map[string][]request{}
	for _, r := range e.requests {
		of[r.task] = append(of[r.task], r)
	}
	for id, t := range e.found.Tasks {
		end := over[id]
		if t.Status == bgagent.Cancelled {
			end = cmp.Or(cancelled[id], end).Add(stops)
		}
		judgeRequests(j, e, t, of[t.Description], accepted[id], end)
		delete(of, t.Description)
	}
	for name := range of {
		j.Complain("the model was asked for %s, which the store does not have", name)
	}
	judgeLimit(j, e.requests)
	for _, p := range e.left {
		j.Complain("left alive: %s", p)
	}
	return j.Wrong, j.Figures
}

// judgeRequests judges the requests that were made for one task.
func judgeRequests(j *kills.Judge, e evidence, t bgagent.Task, made []request, accepted, end time.Time) {
	f, name := &j.Figures, t.ID+" ("+t.Description+")"
	f.Made += len(made)
	fresh := 0
	var before request
	for _, r := range made {
		if r.prompts > 1 {
			j.Complain("%s: a session has the prompt %d times", name, r.prompts)
		}
		if r.from.After(end) {
			j.Complain("%s: the model was asked %v after the end of the task", name, r.from.Sub(end))
		}
		if r.from.Before(before.end()) {
			j.Complain("%s: two programs worked on it at once for %v", name, before.end().Sub(r.from))
		}
		if r.end().After(before.end()) {
			before = r
		}
		if r.fresh {
			fresh++
		}
	}
	f.Repeated += max(fresh-1, 0)
	if t.Status != bgagent.Completed {
		return
	}
	least := needed(t.Description)
	most := least
	f.Needed += least
	if !e.intact {
		most *= 1 + interruptions(e.kills, made, accepted, end)
	}
	if n := len(made); n < least || n > most {
		j.Complain("%s: the model was asked %d times, and not %d to %d times", name, n, least, most)
	}
}

// The function "interruptions" returns the number of kills that may have interrupted the task. They include
// the last kill before the first request, because a program whose process is dead may still make this
// request.
func interruptions(kills []time.Time, made []request, accepted, end time.Time) (n int) {
	if len(made) == 0 {
		return 0
	}
	before := false
	for _, at := range kills {
		switch {
		case at.Before(accepted) || at.After(end):
		case at.After(made[0].from):
			n++
		case !before:
			before = true
			n++
		}
	}
	return n
}

// judgeLimit checks how many tasks had requests at the same time.
func judgeLimit(j *kills.Judge, requests []request) {
	type step struct {
		at   time.Time
		task string
		open int
	}
	var steps []step
	for _, r := range requests {
		if end := r.end(); end.After(r.from) {
			steps = append(steps, step{r.from, r.task, 1}, step{end, r.task, -1})
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.open, b.open)) })
	open, most := map[string]int{}, 0
	for _, s := range steps {
		if open[s.task] += s.open; open[s.task] == 0 {
			delete(open, s.task)
		}
		most = max(most, len(open))
	}
	if most > limit {
		j.Complain("%d tasks had requests at the same time", most)
	}
}
