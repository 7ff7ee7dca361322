package hammer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// openQuestion identifies a question of a task.
type openQuestion struct {
	task, key string
}

// answering holds what the oracle knows about the answer to a question.
type answering struct {
	chosen string // option that was chosen with Answer
	told   string // option that the agent got
}

// answeringLocked returns what is known about the answer to the question with the given subject.
// Subjects are unique.
func (o *oracle) answeringLocked(subject string) *answering {
	if o.options[subject] == nil {
		o.options[subject] = &answering{}
	}
	return o.options[subject]
}

// sameLocked checks that the agent got the option that was chosen.
func (o *oracle) sameLocked(subject string) {
	if a := o.answeringLocked(subject); a.chosen != "" && a.told != "" && a.chosen != a.told {
		o.faultLocked("the question about %q was answered with %q, but its agent got %q", subject, a.chosen, a.told)
	}
}

// The method "asks" imitates an agent that asks a question. A turn that has waited for the answer for a
// minute releases its slot, so the turn does not count as running until it has a slot again.
func (f *runnerHost) asks(ctx context.Context, session string, rep *bgagent.Reporter, r *rand.Rand) error {
	f.mu.Lock()
	a := f.sessions[session].run
	f.mu.Unlock()
	if a == nil { // the turn was terminated, but continues although its context has ended
		return ctx.Err()
	}
	q := bgagent.Question{
		Kind: bgagent.QuestionKind(1 + r.IntN(2)), Title: "may I?", Subject: fmt.Sprint("subject ", r.Uint64()), Options: []string{"yes", "no"},
		Expires: time.Now().Add(time.Duration(r.IntN(600)) * time.Second),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // withdraws the question when healAll is called, because nobody answers it after that call
		select {
		case <-f.o.heal:
			cancel()
		case <-ctx.Done():
		}
	}()
	began := time.Now()
	parks := time.AfterFunc(time.Minute-time.Second, func() { f.o.setParked(a, true) })
	option, err := rep.Ask(ctx, q)
	parks.Stop()
	f.o.log("%s has asked, and was told %q %v", session, option, err)
	switch {
	case err == nil && !slices.Contains(q.Options, option):
		f.o.fault("%s was told %q, which it did not offer", session, option)
	case errors.Is(err, bgagent.ErrQuestionExpired) && time.Now().Before(q.Expires):
		f.o.fault("a question of %s expired too early", session)
	case err != nil && ctx.Err() == nil && !errors.Is(err, bgagent.ErrQuestionExpired) && !errors.Is(err, bgagent.ErrNotAsked) && !errors.Is(err, context.Canceled):
		f.o.fault("Ask of %s: %v", session, err)
	}
	if err == nil {
		f.o.mu.Lock()
		f.o.answeringLocked(q.Subject).told = option
		f.o.sameLocked(q.Subject)
		f.o.mu.Unlock()
	}
	if err == nil || errors.Is(err, bgagent.ErrQuestionExpired) { // otherwise, the turn may have ended and lost its slot
		f.o.setParked(a, false)
		if time.Since(began) > time.Minute+time.Second { // if it took little more than a minute, the turn might have kept its slot: a slow store delays the return of Ask
			f.o.hasSlot(a)
		}
	}
	return ctx.Err()
}

// setParked records whether the turn has released its slot.
func (o *oracle) setParked(a *activity, parked bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a.parked = parked
}

// hasSlot checks the limits for a turn that has just got a slot again.
func (o *oracle) hasSlot(a *activity) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.forced[a.key.task] || time.Since(o.limitsAt) < max(o.storeDelay, time.Nanosecond) {
		return
	}
	for _, l := range o.limitsLocked(a.model, a.agent) {
		o.suspectLocked(l)
	}
}

// The method "answer" answers a task's question, sometimes with an invalid option, and sometimes
// twice. Only one answer counts.
func (h *hammer) answer() {
	var open []openQuestion
	for _, t := range h.m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Running}}) {
		for _, q := range t.Questions {
			open = append(open, openQuestion{t.ID, q.Key})
		}
	}
	h.met.add("answer", "", min(len(open), 1))
	if len(open) == 0 {
		return
	}
	slices.SortFunc(open, func(a, b openQuestion) int { return slices.Compare([]string{a.task, a.key}, []string{b.task, b.key}) })
	x, n, m := open[h.r.IntN(len(open))], h.n, h.m
	var by bgagent.Caller
	if h.r.IntN(3) == 0 {
		by = h.caller()
	}
	above := h.above(x.task)
	for range 1 + h.r.IntN(2) {
		option := []string{"yes", "no", "always"}[h.r.IntN(3)]
		h.aside(func(ctx context.Context) {
			q, err := m.Answer(ctx, by, x.task, bgagent.AnswerInput{Key: x.key, Option: option})
			h.o.log("%d answer to %s of %s by %q: %q %v", n, x.key, x.task, by.Session, q.Answer, err)
			if err != nil {
				return
			}
			h.o.answered(x, q)
			if by.Session != "" && (!above[by.Session] || q.Kind == bgagent.QuestionPermission && !h.cfg.ModelsMayPermit) {
				h.o.fault("%q answered a question of kind %d of %s", by.Session, q.Kind, x.task)
			}
		})
	}
}

// The method "above" returns the sessions above the task's session.
func (h *hammer) above(id string) map[string]bool {
	tasks := map[string]bgagent.Task{} // by session
	for _, t := range h.m.List(bgagent.Query{}) {
		if t.Session != "" {
			tasks[t.Session] = t
		}
	}
	all := map[string]bool{}
	t, err := h.m.Get(id)
	for ok := err == nil; ok; t, ok = tasks[t.Parent] {
		all[t.Parent], all[t.Root] = true, true
	}
	return all
}

// The method "answered" records an answer that the manager accepted. It reports a fault if an earlier
// answer to the question was accepted too.
func (o *oracle) answered(x openQuestion, q bgagent.Question) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if was, twice := o.chosen[x]; twice || q.State != bgagent.QuestionAnswered || q.Answer == "always" {
		o.faultLocked("%s of %s was answered with %q, but earlier with %q: %+v", x.key, x.task, q.Answer, was, q)
	}
	o.chosen[x] = q.Answer
	o.answeringLocked(q.Subject).chosen = q.Answer
	o.sameLocked(q.Subject)
}
