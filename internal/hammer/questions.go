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

// asks imitates an agent that asks a question. A turn that waits for the answer for a minute gives its slot
// back, so it does not count as running until it has a slot again.
func (f *runnerHost) asks(ctx context.Context, session string, rep *bgagent.Reporter, r *rand.Rand) error {
	f.mu.Lock()
	a := f.sessions[session].run
	f.mu.Unlock()
	if a == nil { // the turn was ended, and continues although its context has ended
		return ctx.Err()
	}
	q := bgagent.Question{
		Kind: bgagent.QuestionKind(1 + r.IntN(2)), Title: "may I?", Subject: fmt.Sprint("subject ", r.IntN(1000)), Options: []string{"yes", "no"},
		Expires: time.Now().Add(time.Duration(r.IntN(600)) * time.Second),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // after a call to healAll, agents ask no more
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
		f.o.fault("%s was told %q, which it has not offered", session, option)
	case errors.Is(err, bgagent.ErrQuestionExpired) && time.Now().Before(q.Expires):
		f.o.fault("a question of %s expired too early", session)
	case err != nil && ctx.Err() == nil && !errors.Is(err, bgagent.ErrQuestionExpired) && !errors.Is(err, bgagent.ErrNotAsked) && !errors.Is(err, context.Canceled):
		f.o.fault("Ask of %s: %v", session, err)
	}
	if err == nil || errors.Is(err, bgagent.ErrQuestionExpired) { // otherwise the turn may have ended, and the slot is gone
		f.o.setParked(a, false)
		if time.Since(began) > time.Minute {
			f.o.hasSlot(a)
		}
	}
	return ctx.Err()
}

// setParked records whether the turn has given its slot back.
func (o *oracle) setParked(a *activity, parked bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a.parked = parked
}

// hasSlot checks the limits for a turn that has got a slot again.
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

// answer answers a question of a task, sometimes with a wrong option, and sometimes twice. One answer
// counts.
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
	for range 1 + h.r.IntN(2) {
		option := []string{"yes", "no", "always"}[h.r.IntN(3)]
		h.aside(func(ctx context.Context) {
			q, err := m.Answer(ctx, by, x.task, bgagent.AnswerInput{Key: x.key, Option: option})
			h.o.log("%d answer to %s of %s by %q: %q %v", n, x.key, x.task, by.Session, q.Answer, err)
			if err == nil {
				h.o.answered(x, q)
			}
		})
	}
}

// answered records an answer that counts.
func (o *oracle) answered(x openQuestion, q bgagent.Question) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if was, twice := o.chosen[x]; twice || q.State != bgagent.QuestionAnswered || q.Answer == "always" {
		o.faultLocked("%s of %s was answered with %q, and before with %q: %+v", x.key, x.task, q.Answer, was, q)
	}
	o.chosen[x] = q.Answer
}
