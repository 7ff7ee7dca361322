package bgagent

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// The code in this file makes the copies of tasks that callers see.

// fullSnapshot returns a snapshot of the task that includes its place in line.
func (st *state) fullSnapshot(t *task) Task {
	s := st.snapshot(t)
	if t.status == Pending && !t.is(flagAwaitsQuiet) {
		place, pool := st.slots.Place(&t.wait)
		s.Queue = &QueuePlace{Place: place, Pool: poolStats(st.epoch.Add(-time.Duration(st.slotsFrom)), pool)}
	}
	return s
}

// The method "shown" returns the status that callers see.
func (st *state) shown(t *task) Status {
	switch {
	case st.kept(t) || t.live():
		return t.status
	case t.fin.started > 0:
		return Running
	default:
		return Pending
	}
}

func byLaunch(a, b *task) int {
	return cmp.Or(cmp.Compare(a.queued, b.queued), cmp.Compare(a.id(), b.id()))
}

// snapshot returns the task as callers see it, without its place in line. The snapshot shows the
// end of an attempt only once that end is durable.
func (st *state) snapshot(t *task) Task {
	s := st.truth(t)
	if !t.live() && !st.kept(t) {
		hideEnd(&s)
	}
	return s
}

// clone returns a copy of t that does not share any mutable parts with t.
func (t Task) clone() Task {
	t.Metadata, t.Attempts, t.Progress.Todos = maps.Clone(t.Metadata), slices.Clone(t.Attempts), slices.Clone(t.Progress.Todos)
	t.Unconsumed, t.Questions = slices.Clone(t.Unconsumed), slices.Clone(t.Questions)
	for i := range t.Questions {
		t.Questions[i] = *t.Questions[i].clone()
	}
	return t
}

// The method "truth" returns a copy of the task that shows its end even if the end is not durable
// yet.
func (st *state) truth(t *task) Task {
	s := Task{
		Budget: t.budgetUse(),
		ID:     t.id(), Parent: t.up.session, Description: t.title, Agent: t.kind.key.agent, Model: t.kind.key.model,
		Prompt: t.text, ToolCallID: t.call, Client: t.kind.cl.name, Depth: t.kind.key.depth,
		Status: t.status, Cause: t.cause, Attempt: int(t.no), Queued: st.wall(t.queued),
		Notice: t.notice, Foreground: t.is(flagForeground), Dropped: t.is(flagDropped),
	}
	root, _ := t.up.root()
	s.Root = root.session
	if t.sess != nil {
		s.Session = t.sess.id
		if t.sess.own != nil {
			s.Waiting = t.sess.own.live
		}
	}
	if x := t.more; x != nil {
		s.Metadata = maps.Clone(x.metadata)
		s.Attempts = slices.Clone(x.past)
		s.Messages, s.Unconsumed = t.lettersWaiting(), t.unconsumed(t.no)
		s.Fallback = t.fallback()
	}
	if a := t.run; a != nil && a.no == t.no {
		s.Phase = a.phase
		s.Started = st.wall(a.started)
		if t.live() {
			s.Progress = st.progress(&a.sight.prog, int(a.turn), a.activity)
			s.Outage = st.outageOf(a)
			s.Questions = t.openQuestions()
			switch {
			case a.awaitsProvider():
				st.showParked(a, &s)
			case a.awaitsAnswer():
				s.Reason, s.Until = reasonAsking(s.Questions)
			}
			s.Result = a.answer()
			if s.Partial = s.Result != ""; !s.Partial && a.sight.text != "" {
				s.Result, s.Partial = a.sight.text, true
			}
		}
	}
	if f := t.fin; f != nil && !t.live() {
		s.Started, s.Ended = st.wall(f.started), st.wall(f.ended)
		s.Reason, s.Result, s.Partial, s.Cut, s.OpenTodos = f.reason, f.result, f.partial, f.cut(), int(f.todos)
		s.Reasoning = f.thought() && s.Result != ""
		s.Quiet = t.run == nil
		s.OverLimit = t.run != nil && t.run.no == t.no && t.run.overrun && !t.is(flagSlot)
		if f.prog != nil {
			s.Progress = st.progress(f.prog, int(f.turns), f.activity)
		} else {
			s.Progress.Turns, s.Progress.LastActivity = int(f.turns), st.wall(f.activity)
		}
	}
	return s
}

func (st *state) progress(p *progress, turns int, activity int64) Progress {
	return Progress{
		Turns: turns, ToolCalls: p.toolCalls, LastTool: p.lastTool, LastMessage: p.lastText, LastMessageAt: st.wall(p.lastTextA),
		LastActivity: st.wall(activity), Detail: p.detail, Todos: slices.Clone(p.todos), Usage: p.usage,
	}
}

// wall converts a time on the state's clock to wall time.
func (st *state) wall(at int64) time.Time { return wall(st.epoch, at) }

func wall(epoch time.Time, at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(at))
}

// list returns the tasks that the query selects, in launch order.
func (st *state) list(q Query) (found []*task) {
	add := func(t *task) {
		if !st.shows(t) {
			return
		}
		if len(q.Status) == 0 || slices.Contains(q.Status, st.shown(t)) {
			found = append(found, t)
		}
	}
	switch {
	case q.Parent != "":
		if n := st.nodes[q.Parent]; n != nil && (q.Under == "" || q.Under == q.Parent || n.under(q.Under)) {
			for t := n.first; t != nil; t = t.next {
				add(t)
			}
		}
	case q.Under != "":
		if n := st.nodes[q.Under]; n != nil {
			n.each(add)
		}
	default:
		for _, t := range st.tasks {
			add(t)
		}
	}
	slices.SortFunc(found, byLaunch)
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[len(found)-q.Limit:]
	}
	return found
}

// treeBudgets returns the open accounts.
func (st *state) treeBudgets() (list []TreeBudget) {
	if !st.budgets {
		return nil
	}
	for _, n := range st.nodes {
		if sp := n.spending; sp != nil {
			list = append(list, TreeBudget{n.session, st.wall(sp.opened), st.wall(sp.end()), BudgetUse{st.limits(sp), sp.used.asBudget(), sp.untold}})
		}
	}
	slices.SortFunc(list, func(a, b TreeBudget) int { return a.Opened.Compare(b.Opened) })
	return list
}
