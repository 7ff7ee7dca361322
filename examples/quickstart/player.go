package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/bgagent/bgagent"
)

// The type "player" calls the tools as a model would, and prints the text that a model would read.
type player struct {
	m    *bgagent.BackgroundManager
	out  display
	show bool // whether the tools' answers are printed

	calls    int
	launched []string             // ids of the launched tasks
	ended    []bgagent.NoticeItem // notice items of tasks whose results have not been read yet
}

// caller returns the caller for the next tool call. A real host gets the id of the call from
// its model.
func (p *player) caller() bgagent.Caller {
	p.calls++
	return bgagent.Caller{Session: parent, ToolCallID: "call_" + strconv.Itoa(p.calls)}
}

// The method "answered" handles the answer from a tool. The answer consists of the text for the
// model and the notice that was delivered with the text. If there was no notice, n is nil. The
// manager does not deliver the notice again. A model would read an error and correct its call.
// Here, an error means a bug in this program.
func (p *player) answered(text string, isError bool, n *bgagent.Notice, err error) error {
	if err != nil {
		return err
	}
	if isError {
		return errors.New(text)
	}
	if p.show {
		p.out.print(text)
	}
	if n != nil {
		p.tell(*n)
	}
	return nil
}

func (p *player) tell(n bgagent.Notice) {
	p.out.told(n)
	p.ended = append(p.ended, n.Items...)
}

// The method "launch" delegates the jobs as background tasks.
func (p *player) launch(ctx context.Context, jobs []job) error {
	for _, j := range jobs {
		res, err := bgagent.DelegateTask(ctx, p.m, p.caller(), bgagent.DelegateTaskArgs{
			Description: j.description, Prompt: j.prompt, SubagentType: j.agent,
		})
		if err := p.answered(res.Text, res.IsError, res.Notice, err); err != nil {
			return fmt.Errorf("launching %q: %w", j.description, err)
		}
		p.launched = append(p.launched, res.Task.ID)
	}
	return nil
}

// cancelLast cancels the task that was launched last, as if it were no longer needed. If
// there are fewer slots than tasks, the task is still pending at that point and never starts.
func (p *player) cancelLast(ctx context.Context) error {
	last := p.launched[len(p.launched)-1]
	res, err := bgagent.BackgroundCancel(ctx, p.m, p.caller(), bgagent.BackgroundCancelArgs{TaskID: last})
	if err == nil && res.IsError {
		// The call fails if the task has already ended, which is possible if there are enough
		// slots.
		if t, getErr := p.m.Get(last); getErr == nil && t.Status.Terminal() {
			res.IsError = false
		}
	}
	return p.answered(res.Text, res.IsError, res.Notice, err)
}

// The method "status" calls background_output for the third task, without waiting for the task to
// end. If the answers are not printed, it does nothing.
func (p *player) status(ctx context.Context) error {
	if !p.show {
		return nil
	}
	return p.read(ctx, p.launched[2])
}

// The method "read" calls background_output for one task.
func (p *player) read(ctx context.Context, task string) error {
	res, err := bgagent.BackgroundOutput(ctx, p.m, p.caller(), bgagent.BackgroundOutputArgs{TaskID: task})
	return p.answered(res.Text, res.IsError, res.Notice, err)
}

// readAll reads the result of each task as soon as a notice reports that the task has ended.
// It returns when no task is live and no notice is owed. It never polls.
func (p *player) readAll(ctx context.Context) error {
	for {
		for len(p.ended) > 0 {
			next := p.ended[0]
			p.ended = p.ended[1:]
			if err := p.read(ctx, next.Task); err != nil {
				return fmt.Errorf("reading the result of %q: %w", next.Description, err)
			}
		}
		n, err := p.m.NextNotice(ctx, parent)
		switch {
		case errors.Is(err, bgagent.ErrNothingOwed):
			return nil
		case err != nil:
			return err
		}
		p.tell(n)
		if p.show {
			p.out.print(n.Text)
		}
	}
}

// followUp asks the agent of the first task about its findings. The question is a new turn in
// the same session, which still contains the findings.
func (p *player) followUp(ctx context.Context) error {
	t, err := p.m.Get(p.launched[0])
	if err != nil {
		return err
	}
	if t.Status != bgagent.Completed {
		p.out.print(fmt.Sprintf("No follow-up: %s ended as %s.", t.Description, t.Status))
		return nil
	}
	p.out.print("=== A follow-up question in the same session ===")
	res, err := bgagent.DelegateTask(ctx, p.m, p.caller(), bgagent.DelegateTaskArgs{
		SessionID: t.Session, Prompt: "Show me the source of the first finding, and who uses it.",
	})
	if err := p.answered(res.Text, res.IsError, res.Notice, err); err != nil {
		return fmt.Errorf("asking the follow-up question: %w", err)
	}
	return p.watched(ctx, p.readAll, t.ID)
}

// The method "watched" executes f. While f is running, the method follows the manager's events and
// shows the tasks with the given ids.
func (p *player) watched(ctx context.Context, f func(context.Context) error, ids ...string) error {
	of := func(tasks []bgagent.Task) []bgagent.Task {
		return slices.DeleteFunc(tasks, func(t bgagent.Task) bool { return !slices.Contains(ids, t.ID) })
	}
	tasks, events := p.m.Subscribe(0)
	end := p.out.watch(of(tasks))
	var wg sync.WaitGroup
	wg.Go(func() { p.follow(ctx, events, of) })
	err := f(ctx)
	events.Close()
	wg.Wait()
	p.refresh(of) // shows the changes whose events have not been read
	end()
	return err
}

// The method "follow" shows task states, as reported by events, until the subscription or ctx ends.
// The function "of" filters the tasks.
func (p *player) follow(ctx context.Context, events *bgagent.Subscription, of func([]bgagent.Task) []bgagent.Task) {
	p.refresh(of, bgagent.Pending)
	for e := range events.Events(ctx) {
		for _, t := range of([]bgagent.Task{e.Task}) {
			p.out.task(t)
		}
		switch e.Kind {
		case bgagent.EventMissed:
			p.refresh(of)
		case bgagent.EventStarted, bgagent.EventEnded: // the places of pending tasks change
			p.refresh(of, bgagent.Pending)
		}
	}
}

// The method "refresh" shows the current state of each task that has one of the given statuses,
// including its place in line. If no status is given, it shows all tasks. The function "of" filters
// the tasks.
func (p *player) refresh(of func([]bgagent.Task) []bgagent.Task, status ...bgagent.Status) {
	for _, t := range of(p.m.List(bgagent.Query{Parent: parent, Status: status})) {
		if full, err := p.m.Get(t.ID); err == nil {
			p.out.task(full)
		}
	}
}
