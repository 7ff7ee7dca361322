package bgagenttest

import (
	"context"
	"fmt"
	"slices"

	"github.com/bgagent/bgagent"
)

var _ bgagent.Answerer = Starter{}

// pendingQuestion is a question that a starter's script asks.
type pendingQuestion struct {
	bgagent.Question
	answer chan reply
}

type reply struct {
	option string
	err    error
}

// Question asks a question and waits for the answer. With a runner, it calls
// [bgagent.Reporter.Ask]. With a starter, it emits a HostQuestion event, and returns when
// AnswerQuestion is called; in this case, q.ID must be set, and the starter needs Stream. If the
// turn is stopped before the answer arrives, Question unwinds the script.
func (t *Turn) Question(q bgagent.Question) (option string, err error) {
	if t.runner {
		option, err = t.reporter().Ask(t.ctx, q)
	} else {
		option, err = t.askAtServer(q)
	}
	if t.stopped() {
		panic(unwound{})
	}
	return option, err
}

func (t *Turn) askAtServer(q bgagent.Question) (string, error) {
	p := &pendingQuestion{q, make(chan reply, 1)}
	t.f.mu.Lock()
	t.s.questions = append(t.s.questions, p)
	t.f.statusLocked(t.s, bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: q.Title})
	t.f.tellQuestionsLocked(t.s)
	t.f.mu.Unlock()
	select {
	case o := <-p.answer:
		return o.option, o.err
	case <-t.ctx.Done():
		t.Unask(q.ID)
		return "", t.ctx.Err()
	}
}

// Unask ends a starter's question without an answer from the manager, as if a person had answered it at the
// server. [Turn.Question] then returns an empty option and no error.
func (t *Turn) Unask(id string) { t.f.answer(t.s, id, reply{}) }

// AnswerAtServer answers a question from a starter's session, as a person could at the server. It
// reports whether the session was asking the question.
func (f *Fake) AnswerAtServer(session, id, option string) bool {
	f.mu.Lock()
	s := f.sessions[session]
	f.mu.Unlock()
	return s != nil && f.answer(s, id, reply{option: option})
}

// The method "answer" ends a question and reports whether the session was asking it.
func (f *Fake) answer(s *session, id string, o reply) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(s.questions, func(p *pendingQuestion) bool { return p.ID == id })
	if i < 0 {
		return false
	}
	s.questions[i].answer <- o
	s.questions = slices.Delete(s.questions, i, i+1)
	f.tellQuestionsLocked(s)
	if len(s.questions) == 0 && s.run != nil {
		f.statusLocked(s, bgagent.SessionStatus{State: bgagent.SessionBusy})
	}
	return true
}

// AnswerQuestion implements [bgagent.Answerer].
func (s Starter) AnswerQuestion(ctx context.Context, id string, q bgagent.Question, refusal error) error {
	f := s.Fake
	return f.act(ctx, Call{Kind: CallAnswer, Session: id}, func() error {
		f.mu.Lock()
		s := f.sessions[id]
		f.mu.Unlock()
		switch {
		case f.isDead():
			return errDead
		case s == nil:
			return fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
		case refusal == nil && !slices.Contains(q.Options, q.Answer):
			f.mu.Lock()
			defer f.mu.Unlock()
			f.book.wrong("the question %s of session %s was answered with %q, which was not offered", q.ID, id, q.Answer)
			return fmt.Errorf("%s: %q is not offered", f.kind, q.Answer)
		case !f.answer(s, q.ID, reply{q.Answer, refusal}):
			return fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoQuestion)
		}
		return nil
	})
}

// tellQuestionsLocked emits a session's open questions.
func (f *Fake) tellQuestionsLocked(s *session) { f.emitLocked(s.questionsLocked()) }

func (s *session) questionsLocked() bgagent.HostEvent {
	e := bgagent.HostEvent{Kind: bgagent.HostQuestion, Session: s.id}
	for _, p := range s.questions {
		e.Questions = append(e.Questions, p.Question)
	}
	return e
}
