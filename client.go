package bgagent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"time"
)

// client is one session client with its abilities and what the poller knows of
// it.
type client struct {
	name      string
	sc        SessionClient
	runner    TurnRunner
	starter   TurnStarter
	reader    MessageReader
	notifier  Notifier
	events    EventSource
	todos     TodoReader
	finder    SessionFinder
	lister    AgentLister
	forgetter SessionForgetter

	// Guarded by BackgroundManager.mu.
	watched  map[*attempt]struct{} // attempts in a turn, or being stopped: what a sweep asks about
	parents  map[*node]struct{}    // busy parents that are owed a notice
	polling  bool                  // a goroutine polls
	toRead   []looked              // sessions that are to be read
	readers  int                   // goroutines that do so, at most Config.ReadConcurrency
	kick     chan struct{}         // wakes it early
	streamUp int64                 // since when events tell everything; 0 when they do not
	lastBeat int64
	gapAt    int64   // when events were last lost
	out      *outage // nil while its runtime can be reached, as far as is known
}

// addClient checks what the client is and finds its abilities.
func (m *BackgroundManager) addClient(name string, sc SessionClient) error {
	field := "client"
	if name != "" {
		field = fmt.Sprintf("Config.Clients[%q]", name)
	}
	if v := reflect.ValueOf(sc); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return &InputError{field, "is nil; it must be a SessionClient"}
	}
	cl := &client{name: name, sc: sc, kick: make(chan struct{}, 1), watched: map[*attempt]struct{}{}, parents: map[*node]struct{}{}}
	cl.runner, _ = sc.(TurnRunner)
	cl.starter, _ = sc.(TurnStarter)
	switch {
	case cl.runner != nil && cl.starter != nil:
		return &InputError{field, "is both a TurnRunner and a TurnStarter; it must be exactly one of the two"}
	case cl.runner == nil && cl.starter == nil:
		return &InputError{field, "is neither a TurnRunner nor a TurnStarter; it must be exactly one of the two"}
	}
	cl.reader, _ = sc.(MessageReader)
	cl.notifier, _ = sc.(Notifier)
	cl.events, _ = sc.(EventSource)
	cl.todos, _ = sc.(TodoReader)
	cl.finder, _ = sc.(SessionFinder)
	cl.lister, _ = sc.(AgentLister)
	cl.forgetter, _ = sc.(SessionForgetter)
	m.clients = append(m.clients, cl)
	return nil
}

// clientFor returns the client that the agent runs on.
func (m *BackgroundManager) clientFor(ctx context.Context, agent string) (*client, error) {
	name := ""
	if m.cfg.ClientFor != nil {
		var err error
		name, err = within(ctx, m, goCall, "Config.ClientFor", m.cfg.CallTimeout, func(context.Context) (string, error) {
			return m.cfg.ClientFor(agent), nil
		})
		if err != nil {
			return nil, err
		}
	}
	if cl := m.client(name); cl != nil {
		return cl, nil
	}
	return nil, &InputError{"Config.ClientFor", fmt.Sprintf("names the client %q for the agent %q; there is none in Config.Clients", name, agent)}
}

func (m *BackgroundManager) client(name string) *client {
	for _, cl := range m.clients {
		if cl.name == name {
			return cl
		}
	}
	return nil
}

// hostPanic is the error that a panic or a Goexit in a host's function becomes.
type hostPanic struct {
	text  string
	stack []byte // nil for a Goexit
}

func (e *hostPanic) Error() string { return e.text }

// panicked makes the text at once: to print the value may call the host.
func panicked(v any) error {
	return &hostPanic{text: fmt.Sprintf("the host's function panicked: %v", v), stack: debug.Stack()}
}

var errGoexit = &hostPanic{text: "the host's function called runtime.Goexit"}

// hostError is what the manager has to know of an error of the host. The error
// itself is the host's code, which may panic or ask the manager: it is looked at
// once, right after the call, and never under the lock.
type hostError struct {
	text string
	is   []error // those that the manager acts on
}

func (e *hostError) Error() string   { return e.text }
func (e *hostError) Unwrap() []error { return e.is }

// lookedAt returns the error as a hostError, or nil for none. It is called where
// a panic of the error is taken for one of the host's function.
func lookedAt(err error) error {
	if err == nil {
		return nil
	}
	e := &hostError{text: err.Error()}
	for _, known := range [...]error{ErrBusy, ErrNoSession, ErrUnreachable, errors.ErrUnsupported} {
		if errors.Is(err, known) {
			e.is = append(e.is, known)
		}
	}
	var agent *NoSuchAgentError
	if errors.As(err, &agent) && agent != nil {
		e.is = append(e.is, &NoSuchAgentError{Agent: agent.Agent, Known: slices.Clone(agent.Known)})
	}
	return e
}

// errTookTooLong is returned by within when its time is over.
var errTookTooLong = errors.New("no answer in time")

// within makes a host call on a goroutine of its own and waits for it at most
// for the timeout, or until ctx ends. A call that has not returned by then is
// left behind, with its context ended. A panic or a Goexit comes back as an
// error.
func within[T any](ctx context.Context, m *BackgroundManager, k goKind, what string, timeout time.Duration, f func(context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTookTooLong)
	defer cancel()
	ch := make(chan answer, 1)
	m.spawn(k, func() {
		a := answer{err: errGoexit}
		defer func() {
			if v := recover(); v != nil {
				a.err = panicked(v)
			}
			ch <- a
		}()
		a.value, a.err = f(ctx)
	})
	select {
	case a := <-ch:
		return a.value, a.err
	case <-ctx.Done():
	}
	select { // both may be ready; an answer is worth more
	case a := <-ch:
		return a.value, a.err
	default:
	}
	var zero T
	if err := context.Cause(ctx); errors.Is(err, errTookTooLong) {
		return zero, fmt.Errorf("%s: %w (%v)", what, errTookTooLong, timeout)
	}
	return zero, fmt.Errorf("%s: %w", what, context.Cause(ctx))
}

// agentNames asks the client which agents there are, for an error message.
func (m *BackgroundManager) agentNames(cl *client) []string {
	if cl.lister == nil {
		return nil
	}
	list, err := within(m.base, m, goCall, "Agents", m.cfg.CallTimeout, cl.lister.Agents)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.Name
	}
	return names
}
