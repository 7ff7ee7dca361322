package bgagenttest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
)

// Turn is one turn of a fake's session. The script plays the agent in the turn, and the turn ends
// when the script returns. A method that ends the turn does not return: it unwinds the script, so
// that the script's deferred functions run. A method that waits also unwinds the script if the
// turn is stopped during the wait. All methods must be called on the goroutine of the script.
type Turn struct {
	Prompt bgagent.Prompt // the prompt of the turn
	N      int            // number of the turn in its session, from 1

	f      *Fake
	s      *session
	caller context.Context // context of RunTurn or StartTurn
	ctx    context.Context
	cancel context.CancelCauseFunc
	unhook func() bool   // for a runner: stops watching the context "caller"
	done   chan struct{} // closed when the script returns
	runner bool
	r      *bgagent.Reporter // receives the reports; nil for a starter
	model  string
	first  int // index of the prompt in the session's messages

	// Guarded by Fake.mu while the turn is running.
	msg     *bgagent.Message // the message that is being written
	calls   int
	text    string // the text of the newest message that has text
	refused *bgagent.ProviderError
	stop    bgagent.StopReason
	err     error
	aborted bool
	alone   bool // the turn's process has ended, and the turn continues
	left    bool // the turn's fate is FateLeft, so RestoreSession can end the turn
	cut     bool // the turn was ended by its fate, so the methods that the script calls have no effect
	receipt *received
	steered []bgagent.TurnMessage
}

// The type "unwound" is the value of the panic that unwinds a script.
type unwound struct{}

// Context returns a context that ends when the turn must stop. A script that does not use Turn's
// methods to wait should also stop waiting when the context ends. A script that ignores the context
// imitates an agent that cannot be stopped.
func (t *Turn) Context() context.Context { return t.ctx }

// Session returns the id of the session.
func (t *Turn) Session() string { return t.s.id }

// Spec returns the spec that the session was created with.
func (t *Turn) Spec() bgagent.SessionSpec { return t.s.spec }

// History returns the session's messages up to now, including this turn's prompt.
func (t *Turn) History() []bgagent.Message {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return slices.Clone(t.s.messages)
}

// Say writes a piece of the answer. After a tool call, the piece begins a new message.
func (t *Turn) Say(text string) {
	t.change(func(msg *bgagent.Message) {
		msg.Text += text
		t.text = msg.Text
	}, true)
	t.reporter().Text(text)
}

// Think writes a piece of reasoning.
func (t *Turn) Think(text string) {
	t.change(func(msg *bgagent.Message) { msg.Reasoning += text }, true)
	t.reporter().Reasoning(text)
}

// Tool simulates a tool call that takes d.
func (t *Turn) Tool(name string, d time.Duration) {
	t.f.mu.Lock()
	t.calls++
	id := "call_" + strconv.Itoa(t.N) + "_" + strconv.Itoa(t.calls)
	t.f.mu.Unlock()
	t.Call(bgagent.MessageTool{ID: id, Name: name, State: bgagent.ToolRunning})
	t.Sleep(d)
	t.Call(bgagent.MessageTool{ID: id, Name: name, State: bgagent.ToolDone})
}

// Call reports the state of a tool call. It is for scripts that make several tool calls
// concurrently or leave a tool call unfinished.
func (t *Turn) Call(call bgagent.MessageTool) {
	t.change(func(msg *bgagent.Message) {
		if i := slices.IndexFunc(msg.Tools, func(x bgagent.MessageTool) bool { return x.ID == call.ID }); i >= 0 {
			msg.Tools = slices.Clone(msg.Tools)
			msg.Tools[i] = call
		} else {
			msg.Tools = append(slices.Clone(msg.Tools), call)
			if t.runner {
				t.text = ""
			}
		}
	}, false)
	t.reporter().Tool(call)
}

// Usage adds u to the usage of the message that is being written, and reports u.
func (t *Turn) Usage(u bgagent.Usage) {
	t.change(func(msg *bgagent.Message) {
		msg.Usage.InputTokens += u.InputTokens
		msg.Usage.OutputTokens += u.OutputTokens
		msg.Usage.Cost += u.Cost
	}, false)
	t.reporter().Usage(u)
}

// Todos sets the session's todo list.
func (t *Turn) Todos(list ...bgagent.Todo) {
	t.f.mu.Lock()
	if !t.cut {
		t.s.todos = slices.Clone(list)
		t.f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: t.s.id, Todos: slices.Clone(list)})
	}
	t.f.mu.Unlock()
	t.reporter().Todos(list)
}

// Ask simulates a question that the agent asks and that is answered after d.
func (t *Turn) Ask(question string, d time.Duration) {
	t.status(bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: question})
	t.reporter().Asking(question)
	t.Sleep(d)
	t.status(bgagent.SessionStatus{State: bgagent.SessionBusy})
	t.reporter().Asking("")
}

// Retry simulates a request to the model that fails and is retried after d.
func (t *Turn) Retry(reason string, d time.Duration) {
	t.status(bgagent.SessionStatus{State: bgagent.SessionRetrying, Detail: reason, RetryAt: time.Now().Add(d)})
	t.reporter().Activity()
	t.Sleep(d)
	t.status(bgagent.SessionStatus{State: bgagent.SessionBusy})
	t.reporter().Activity()
}

func (t *Turn) status(st bgagent.SessionStatus) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if !t.cut {
		t.f.statusLocked(t.s, st)
	}
}

// Sleep simulates work that takes d and does not report anything. If the turn is stopped,
// Sleep unwinds the script.
func (t *Turn) Sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.ctx.Done():
	case <-timer.C:
		if !t.stopped() {
			return
		}
	}
	panic(unwound{})
}

// Wait simulates work that lasts until the turn is stopped. It then unwinds the script.
func (t *Turn) Wait() {
	<-t.ctx.Done()
	panic(unwound{})
}

// Fail ends the turn with an error from the agent.
func (t *Turn) Fail(err error) {
	t.f.mu.Lock()
	t.err, t.stop = err, bgagent.StopError
	t.f.mu.Unlock()
	panic(unwound{})
}

// Refuse ends the turn because the model provider refused a request. A runner returns e as the error of
// RunTurn; a starter reports it in the message that ends the turn and in the event. What the session keeps
// depends on e.Next. With NextRepeat, the session can get the same prompt again. With any other value, the
// fake records a repeated prompt as a violation by the manager. With NextNewSession, a runner's session no
// longer exists.
func (t *Turn) Refuse(e bgagent.ProviderError) {
	t.f.mu.Lock()
	t.refused = &e
	t.err, t.stop = t.refused, bgagent.StopError
	t.f.mu.Unlock()
	panic(unwound{})
}

// Retrying simulates a program that automatically retries a refused request after d. If the turn
// is stopped during this time, Retrying unwinds the script.
func (t *Turn) Retrying(e bgagent.ProviderError, d time.Duration) {
	at := time.Now().Add(d)
	t.status(bgagent.SessionStatus{State: bgagent.SessionRetrying, Detail: e.Error(), RetryAt: at, Provider: &e})
	t.reporter().Retrying(e, at)
	t.Sleep(d)
	t.status(bgagent.SessionStatus{State: bgagent.SessionBusy})
}

// Stop ends the turn with the given reason.
func (t *Turn) Stop(reason bgagent.StopReason) {
	t.f.mu.Lock()
	t.stop = reason
	t.f.mu.Unlock()
	panic(unwound{})
}

// The method "change" applies f to the message that is being written, and begins a message if there
// is none. The parameter "text" is true if f adds text. Text is never added to a message with tool
// calls; it begins a new message instead.
func (t *Turn) change(f func(*bgagent.Message), text bool) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if t.cut {
		return
	}
	if t.msg != nil && text && len(t.msg.Tools) > 0 {
		t.msg.Finished = true
		t.f.putLocked(t.s, *t.msg)
		t.msg = nil
	}
	if t.msg == nil {
		t.msg = &bgagent.Message{ID: t.f.messageIDLocked(t.s), Role: bgagent.RoleAgent, Time: time.Now()}
	}
	f(t.msg)
	t.f.putLocked(t.s, *t.msg)
}

// The method "play" calls the script and then ends the turn, even if the script panics or calls
// Goexit.
func (t *Turn) play() {
	returned := false
	defer func() {
		v := recover()
		_, ours := v.(unwound)
		t.finish(returned || ours, v)
		if v != nil && !ours && t.runner {
			panic(v)
		}
	}()
	t.f.script(t)
	returned = true
}

// The method "finish" ends the turn; orderly is true if the script returned or was unwound, and v
// is the recovered value of a panic.
func (t *Turn) finish(orderly bool, v any) {
	f, s := t.f, t.s
	stopped := t.stopped()
	if t.runner {
		t.unhook()
	}
	f.mu.Lock()
	if t.cut {
		f.mu.Unlock()
		close(t.done)
		f.turns.Done()
		return
	}
	switch {
	case !orderly && v != nil:
		t.stop, t.err = bgagent.StopError, fmt.Errorf("the script panicked: %v", v)
	case !orderly:
		t.stop, t.err = bgagent.StopError, fmt.Errorf("the script called runtime.Goexit")
	case t.stop == bgagent.StopUntold && stopped:
		t.stop = bgagent.StopAborted
	case t.stop == bgagent.StopUntold:
		t.stop = bgagent.StopEndOfTurn
	}
	t.cancel(nil)
	why := ""
	switch {
	case t.err != nil:
		why = t.err.Error()
	case t.stop == bgagent.StopAborted:
		why = "aborted"
	}
	if t.msg == nil && t.stop != bgagent.StopEndOfTurn {
		t.msg = &bgagent.Message{ID: f.messageIDLocked(s), Role: bgagent.RoleAgent, Time: time.Now()}
	}
	if t.msg != nil {
		t.msg.Finished, t.msg.Stop, t.msg.Error, t.msg.Provider = true, t.stop, why, t.refused
		f.putLocked(s, *t.msg)
	}
	s.run = nil
	f.keepsRefusedLocked(t)
	f.book.ends(t)
	t.receipt.state, t.receipt.end = bgagent.PromptAnswered, bgagent.TurnEnd{Stop: t.stop, Text: t.text}
	idle := bgagent.SessionStatus{State: bgagent.SessionIdle}
	if t.stop == bgagent.StopError || t.stop == bgagent.StopAborted && f.AbortTells {
		f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostError, Session: s.id, Stop: t.stop, Error: why, Provider: t.refused})
	}
	f.statusLocked(s, idle)
	if t.stop == bgagent.StopAborted && f.AbortTells {
		f.statusLocked(s, idle)
	}
	f.mu.Unlock()
	close(t.done)
	f.turns.Done()
}

// keepsRefusedLocked determines what the session keeps of a refused turn.
func (f *Fake) keepsRefusedLocked(t *Turn) {
	switch {
	case t.refused == nil:
	case t.refused.Next == bgagent.NextNewSession && t.runner:
		delete(f.sessions, t.s.id)
	case t.refused.Next != bgagent.NextRepeat:
		t.s.unanswered = t.Prompt.Text
	}
}
