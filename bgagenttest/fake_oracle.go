package bgagenttest

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// CallKind identifies a method of a fake.
type CallKind uint8

// The kinds of calls.
const (
	_            CallKind = iota
	CallCreate            // CreateSession
	CallTurn              // RunTurn or StartTurn
	CallAbort             // Abort
	CallStatuses          // Statuses
	CallMessages          // Messages
	CallNotify            // Notify
	CallTodos             // Todos
	CallFind              // FindSession
	CallAgents            // Agents
	CallEvents            // Events
	CallRestore           // RestoreSession
	CallSteer             // Steer
	CallAnswer            // AnswerQuestion
)

var callNames = [...]string{"none", "CreateSession", "RunTurn or StartTurn", "Abort", "Statuses", "Messages", "Notify", "Todos", "FindSession", "Agents", "Events", "RestoreSession", "Steer", "AnswerQuestion"}

// String returns the name of the method or methods.
func (k CallKind) String() string {
	if int(k) < len(callNames) {
		return callNames[k]
	}
	return fmt.Sprintf("(%d)", uint8(k))
}

// Call describes a call to one of the fake's methods. [Fake.Faults] uses it to decide whether the
// call has a fault. Title and N do not depend on the order of goroutines. A random choice that
// depends only on Title, N and a seed is the same when the test is repeated.
type Call struct {
	Kind    CallKind
	Session string // empty for CreateSession, Statuses, Agents and Events
	Title   string // description of the session's task
	N       int    // number of the call, from 1, among the calls with the same Kind and Session (for CreateSession: Title)
}

// Fault describes how a call goes wrong. The zero value means no fault. Delay, Hang and
// HangForever take effect first, and then one of Panic, Goexit and Err. A fault that ends the
// call replaces the call's effect or, with Late, follows it.
type Fault struct {
	Delay       time.Duration // the call first waits this long; if its context ends during the wait, the call ends
	Hang        bool          // the call waits until its context ends, and returns the context's error
	HangForever bool          // the call waits until Release is called, even if its context ends
	Panic       any           // value with which the call panics
	Goexit      bool          // the call ends its goroutine
	Err         error         // error that the call returns

	// If Late is set, the call takes effect before the fault, so that only the answer to the
	// call is lost. For Events, the fault follows the end of the stream. For RunTurn, it follows
	// the end of the turn.
	Late bool

	// With Lie, the call returns no error and has no effect. CreateSession returns an empty id. Statuses
	// returns SessionIdle for all existing sessions. Messages returns no messages, RunTurn returns the
	// zero TurnEnd, and RestoreSession returns PromptUnknown. Events emits nothing, Abort stops nothing,
	// and Steer adds nothing. Only FindSession returns an error, ErrNoSession.
	Lie bool
}

type countKey struct {
	kind CallKind
	of   string
}

// The method "begin" counts a call and applies the call's fault. If the fault is late, the method
// does not apply it but returns a function that does. The caller must call this function when the
// call has taken effect.
func (f *Fake) begin(ctx context.Context, c Call) (after func() error, lie bool, err error) {
	if f.isDead() {
		return nil, false, f.never(ctx)
	}
	f.mu.Lock()
	key := countKey{c.Kind, c.Session}
	if s := f.sessions[c.Session]; s != nil {
		c.Title = s.spec.Title
	}
	if c.Kind == CallCreate {
		key.of = c.Title
	}
	f.counts[key]++
	c.N = f.counts[key]
	f.mu.Unlock()
	after = func() error { return nil }
	if f.Faults == nil {
		return after, false, nil
	}
	fault := f.Faults(c)
	if fault.Late {
		return func() error { return f.suffer(ctx, fault) }, fault.Lie, nil
	}
	if err = f.suffer(ctx, fault); f.isDead() {
		err = f.never(ctx)
	}
	return after, fault.Lie, err
}

// The method "act" makes the call. It calls do unless the call's fault prevents this.
func (f *Fake) act(ctx context.Context, c Call, do func() error) error {
	after, lie, err := f.begin(ctx, c)
	if err != nil {
		return err
	}
	if lie {
		return after()
	}
	if err := do(); err != nil {
		return err
	}
	return after()
}

func (f *Fake) suffer(ctx context.Context, fault Fault) error {
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fault.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if fault.HangForever {
		f.mu.Lock()
		released := f.released
		closed := f.closed
		f.mu.Unlock()
		if !closed {
			<-released
		}
	}
	switch {
	case fault.Panic != nil:
		panic(fault.Panic)
	case fault.Goexit:
		runtime.Goexit()
	}
	return fault.Err
}

// Release unblocks the calls that hang because of HangForever.
func (f *Fake) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.released)
	f.released = make(chan struct{})
}

// A book contains the turns that are running or have run, and the manager's violations.
type book struct {
	now, peak map[string]int    // number of running turns by model: the current number, and the maximum so far
	tasks     map[string]int    // number of running turns by task
	ids       map[string]string // session by prompt id; does not contain prompts that their session has lost
	received  []*received       // prompt records, in the order of the prompts' first arrival
	receipts  map[receiptKey]*received
	prompts   []bgagent.Prompt
	bad       []string // violations
}

func (b *book) wrong(format string, args ...any) { b.bad = append(b.bad, fmt.Sprintf(format, args...)) }

// The method "begins" records the beginning of a turn. If the turn should not have begun, the method also
// records the manager's violation. It returns the record of the turn's prompt.
func (b *book) begins(t *Turn) *received {
	b.prompts = append(b.prompts, t.Prompt)
	b.now[t.model]++
	b.peak[t.model] = max(b.peak[t.model], b.now[t.model])
	if id := t.Prompt.ID; id != "" {
		if was, twice := b.ids[id]; twice {
			b.wrong("the prompt %s was run twice, in the sessions %s and %s", id, was, t.s.id)
		}
		b.ids[id] = t.s.id
	}
	if task := t.Prompt.Task; task != "" {
		b.tasks[task]++
		if b.tasks[task] > 1 {
			b.wrong("the task %s runs %d turns at the same time (%s)", task, b.tasks[task], t.Prompt.ID)
		}
	}
	return b.receives(t)
}

func (b *book) ends(t *Turn) {
	if b.now[t.model]--; b.now[t.model] == 0 {
		delete(b.now, t.model)
	}
	if b.tasks[t.Prompt.Task]--; b.tasks[t.Prompt.Task] <= 0 {
		delete(b.tasks, t.Prompt.Task)
	}
}

// Running returns the number of running turns by model. The model is that of the prompt or,
// if the prompt has none, that of the session. Models without a running turn are left out.
func (f *Fake) Running() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.book.now)
}

// Peak returns the maximum number of concurrent turns with the model.
func (f *Fake) Peak(model string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.book.peak[model]
}

// Prompts returns the prompts that have begun a turn, in the order of their turns.
func (f *Fake) Prompts() []bgagent.Prompt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.book.prompts)
}

// Calls returns how often the method was called. For CreateSession, the second argument is the
// title; for other methods, it is the id of the session.
func (f *Fake) Calls(kind CallKind, of string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[countKey{kind, of}]
}

// Violations returns descriptions of the manager's violations. A manager must not prompt a session
// in the middle of a turn, a session that it has forgotten, or a runner's session from an earlier
// process that it has not restored. It must not run the same prompt twice, unless the session has
// lost the prompt; see [FateLost]. It must not run two turns of one task concurrently, or forget a
// session in the middle of a turn. After Close, turns that are still running are also reported. At
// its end, a test should check that there are no violations.
func (f *Fake) Violations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.book.bad)
	if f.closed {
		for _, model := range slices.Sorted(maps.Keys(f.book.now)) {
			out = append(out, fmt.Sprintf("%d turn(s) of the model %q are still running after Close", f.book.now[model], model))
		}
	}
	return out
}
