package bgagenttest

import (
	"context"

	"github.com/bgagent/bgagent"
)

// The clients in this file are correct, except for the methods that are replaced.

type runFunc = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error)

// badRunner is a runner with some methods replaced. A method is replaced if its function is not
// nil.
type badRunner struct {
	Runner
	create   func(ctx context.Context, s bgagent.SessionSpec) (string, error)
	abort    func(ctx context.Context, id string) error
	run      runFunc
	messages func(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error)
	notify   func(ctx context.Context, id string, n bgagent.Notice) error
	find     func(ctx context.Context, id string) (bgagent.SessionInfo, error)
	agents   func(ctx context.Context) ([]bgagent.AgentInfo, error)
	listed   func(ctx context.Context, id string) ([]bgagent.Todo, error)
	forget   func(id string)
	steer    func(ctx context.Context, id string, msg bgagent.TurnMessage) error
	restore  func(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error)
}

func (b *badRunner) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	if b.create != nil {
		return b.create(ctx, s)
	}
	return b.Runner.CreateSession(ctx, s)
}

func (b *badRunner) RestoreSession(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	if b.restore != nil {
		return b.restore(ctx, r)
	}
	return b.Runner.RestoreSession(ctx, r)
}

func (b *badRunner) Abort(ctx context.Context, id string) error {
	if b.abort != nil {
		return b.abort(ctx, id)
	}
	return b.Runner.Abort(ctx, id)
}

func (b *badRunner) RunTurn(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	if b.run != nil {
		return b.run(ctx, id, p, r)
	}
	return b.Runner.RunTurn(ctx, id, p, r)
}

func (b *badRunner) Messages(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	if b.messages != nil {
		return b.messages(ctx, id, after, most)
	}
	return b.Runner.Messages(ctx, id, after, most)
}

func (b *badRunner) Notify(ctx context.Context, id string, n bgagent.Notice) error {
	if b.notify != nil {
		return b.notify(ctx, id, n)
	}
	return b.Runner.Notify(ctx, id, n)
}

func (b *badRunner) FindSession(ctx context.Context, id string) (bgagent.SessionInfo, error) {
	if b.find != nil {
		return b.find(ctx, id)
	}
	return b.Runner.FindSession(ctx, id)
}

func (b *badRunner) Agents(ctx context.Context) ([]bgagent.AgentInfo, error) {
	if b.agents != nil {
		return b.agents(ctx)
	}
	return b.Runner.Agents(ctx)
}

func (b *badRunner) Todos(ctx context.Context, id string) ([]bgagent.Todo, error) {
	if b.listed != nil {
		return b.listed(ctx, id)
	}
	return b.Runner.Todos(ctx, id)
}

func (b *badRunner) Steer(ctx context.Context, id string, msg bgagent.TurnMessage) error {
	if b.steer != nil {
		return b.steer(ctx, id, msg)
	}
	return b.Runner.Steer(ctx, id, msg)
}

func (b *badRunner) ForgetSession(id string) {
	if b.forget != nil {
		b.forget(id)
		return
	}
	b.Runner.ForgetSession(id)
}

// badStarter is a starter with some methods replaced, like badRunner.
type badStarter struct {
	Starter
	abort    func(ctx context.Context, id string) error
	start    func(ctx context.Context, id string, p bgagent.Prompt) error
	statuses func(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error)
	messages func(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error)
	events   func(ctx context.Context, emit func(bgagent.HostEvent)) error
	answer   func(ctx context.Context, id string, q bgagent.Question, refusal error) error
}

func (b *badStarter) AnswerQuestion(ctx context.Context, id string, q bgagent.Question, refusal error) error {
	if b.answer != nil {
		return b.answer(ctx, id, q, refusal)
	}
	return b.Starter.AnswerQuestion(ctx, id, q, refusal)
}

func (b *badStarter) Abort(ctx context.Context, id string) error {
	if b.abort != nil {
		return b.abort(ctx, id)
	}
	return b.Starter.Abort(ctx, id)
}

func (b *badStarter) StartTurn(ctx context.Context, id string, p bgagent.Prompt) error {
	if b.start != nil {
		return b.start(ctx, id, p)
	}
	return b.Starter.StartTurn(ctx, id, p)
}

func (b *badStarter) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	if b.statuses != nil {
		return b.statuses(ctx, ids)
	}
	return b.Starter.Statuses(ctx, ids)
}

func (b *badStarter) Messages(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	if b.messages != nil {
		return b.messages(ctx, id, after, most)
	}
	return b.Starter.Messages(ctx, id, after, most)
}

func (b *badStarter) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	if b.events != nil {
		return b.events(ctx, emit)
	}
	return b.Starter.Events(ctx, emit)
}

// bothKinds is both a runner and a starter.
type bothKinds struct {
	Runner
	Starter Starter
}

func (b bothKinds) StartTurn(ctx context.Context, id string, p bgagent.Prompt) error {
	return b.Starter.StartTurn(ctx, id, p)
}

func (b bothKinds) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	return b.Starter.Statuses(ctx, ids)
}
