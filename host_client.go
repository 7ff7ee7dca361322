package bgagent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// hostClient is one of the host's session clients, with the abilities that addClient found. For an
// ability that the client does not have, the field is nil.
type hostClient struct {
	rec       *client // record of the client in the state
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
	restorer  SessionRestorer
	costs     CostReporter
	tokens    TokenReporter
	steerer   Steerer
	fallback  FallbackReporter
	answerer  Answerer
	kick      chan struct{} // a token in this channel makes the client's polling goroutine sweep immediately
}

// host returns the hostClient whose record in the state is cl.
func (m *BackgroundManager) host(cl *client) *hostClient { return m.hosts[cl.index] }

// addClient adds a client. It checks that the client is either a runner or a starter, and detects
// the client's other abilities.
func (m *BackgroundManager) addClient(name string, sc SessionClient) error {
	field := "client"
	if name != "" {
		field = fmt.Sprintf("Config.Clients[%q]", name)
	}
	if v := reflect.ValueOf(sc); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return &InputError{field, "is nil; it must be a SessionClient"}
	}
	cl := &hostClient{sc: sc, kick: make(chan struct{}, 1)}
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
	cl.costs, _ = sc.(CostReporter)
	cl.tokens, _ = sc.(TokenReporter)
	cl.steerer, _ = sc.(Steerer)
	cl.fallback, _ = sc.(FallbackReporter)
	cl.answerer, _ = sc.(Answerer)
	home := ""
	if cl.runner != nil {
		cl.restorer, _ = sc.(SessionRestorer)
		if h, ok := sc.(SessionHome); ok {
			home = h.Home()
		}
	}
	cl.rec = &client{
		name: name, runner: cl.runner != nil, starter: cl.starter != nil, reads: cl.reader != nil, todos: cl.todos != nil, forgets: cl.forgetter != nil, restores: cl.restorer != nil, home: home, steers: cl.steerer != nil, answers: cl.answerer != nil,
		followed: map[*attempt]struct{}{}, parents: map[*node]struct{}{},
	}
	m.hosts = append(m.hosts, cl)
	return nil
}

// clientFor returns the client that runs the agent.
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
	for _, cl := range m.hosts {
		if cl.rec.name == name {
			return cl.rec
		}
	}
	return nil
}

// hostPanic is the error for a panic or a runtime.Goexit in a host function.
type hostPanic struct {
	text  string
	stack []byte // stack of the panic; nil for a Goexit
}

func (e *hostPanic) Error() string { return e.text }

// The function "panicked" returns the error for a panic with the value v. It formats v immediately,
// because formatting can call the host's code.
func panicked(v any) error {
	return &hostPanic{text: fmt.Sprintf("the host's function panicked: %v", v), stack: debug.Stack()}
}

var errGoexit = &hostPanic{text: "the host's function called runtime.Goexit"}

// hostError holds the data that the manager needs about an error from the host. The methods of the
// host's error are the host's code: they can panic or call the manager. Therefore, they are called
// only right after the host call and never under the lock; see lookedAt.
type hostError struct {
	text string
	is   []error // known errors that the host's error matches
	from error   // the host's own error, which Err returns
}

func (e *hostError) Error() string { return e.text }

func (e *hostError) Unwrap() []error { return e.is }

// lookedAt returns err as a hostError, or nil if err is nil. Call lookedAt only where a panic
// counts as a panic in the host function, because lookedAt calls methods of err.
func lookedAt(err error) error {
	if err == nil {
		return nil
	}
	e := &hostError{text: err.Error(), from: err}
	for _, known := range [...]error{ErrBusy, ErrNoSession, ErrUnreachable, ErrUnreadable, ErrNoQuestion, errors.ErrUnsupported} {
		if errors.Is(err, known) {
			e.is = append(e.is, known)
		}
	}
	var agent *NoSuchAgentError
	if errors.As(err, &agent) && agent != nil {
		e.is = append(e.is, &NoSuchAgentError{Agent: agent.Agent, Known: slices.Clone(agent.Known)})
	}
	var refusal *ProviderError
	if errors.As(err, &refusal) {
		if refusal = refusal.received(); refusal != nil {
			e.is = append(e.is, refusal)
		}
	}
	return e
}

// errTookTooLong is the error that the function "within" wraps when the timeout has passed.
var errTookTooLong = errors.New("no answer in time")

// The function "within" makes a host call on a separate goroutine. It waits until the call returns,
// the timeout passes or ctx ends. If the timeout passes or ctx ends first, the function "within"
// cancels the call's context and no longer waits for the call. A panic or a Goexit becomes an
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
	select { // prefer the answer if the context ended at the same time
	case a := <-ch:
		return a.value, a.err
	default:
	}
	var zero T
	if err := context.Cause(ctx); errors.Is(err, errTookTooLong) {
		return zero, tookTooLong(what, timeout)
	}
	return zero, fmt.Errorf("%s: %w", what, context.Cause(ctx))
}

func tookTooLong(what string, limit time.Duration) error {
	return fmt.Errorf("%s: %w (%v)", what, errTookTooLong, limit)
}

// agentNames returns the names of the client's agents for an error text. It returns nil if the
// client cannot list them.
func (m *BackgroundManager) agentNames(cl *client) []string {
	lister := m.host(cl).lister
	if lister == nil {
		return nil
	}
	list, err := within(m.base, m, goCall, "Agents", m.cfg.CallTimeout, lister.Agents)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.Name
	}
	return names
}

// tellForgotten calls ForgetSession for every session that the state has forgotten.
func (m *BackgroundManager) tellForgotten() {
	for {
		var list []forgotten
		m.update(func(st *state, _ int64) {
			list = st.forget
			st.forget, st.forgetting = nil, len(list) > 0
		})
		if len(list) == 0 {
			return
		}
		m.each(goForget, 0, len(list), func(i int) { m.host(list[i].cl).forgetter.ForgetSession(list[i].session) }, m.tellForgotten)
	}
}

// hostErrors keeps the original errors that attempts' host calls returned. The errors are kept
// outside the state, because the state must not call their methods.
type hostErrors struct {
	mu  sync.Mutex       // guards the map; no host code is called while mu is held
	all map[string]error // error by task id
}

// keep remembers the error from a task's latest attempt. If err is nil, the remembered error is
// forgotten.
func (h *hostErrors) keep(task string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.all, task)
		return
	}
	if h.all == nil {
		h.all = map[string]error{}
	}
	h.all[task] = err
}

func (h *hostErrors) of(task string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[task]
}

// Err returns the error of the last failed call to CreateSession, RunTurn or StartTurn in the
// task's latest attempt. The result is the error that the client returned, so errors.Is and
// errors.As work with it. Err returns nil if no call failed, if the attempt is pending or running,
// or if the record of the task has expired. Task.Reason describes the same error in words.
func (m *BackgroundManager) Err(id string) error {
	failed := false
	m.view(func(st *state) {
		t, err := st.find(id)
		failed = err == nil && t.fin != nil && t.fin.failed
	})
	if !failed {
		return nil
	}
	return m.errs.of(id)
}

// turnContext is the context of an attempt's host calls. It ends when the attempt ends, and has the
// values of the launch's context. It is a field of the attempt and creates its channel only on
// demand. Contexts from the standard library would take up a fifth of a short task's time.
type turnContext struct {
	values launchValues

	mu    sync.Mutex
	done  chan struct{} // created by the first call to Done
	err   error
	after map[*func()]struct{} // functions that AfterFunc registered
}

// launchValues holds the context of a launch. Only the values of the context are used. It is zero
// if the context is context.Background(). The state stores a launchValues for the host calls of a
// task and never reads it.
type launchValues struct{ from context.Context }

// valuesOf returns the values in the context of a launch.
func valuesOf(ctx context.Context) launchValues {
	if ctx == context.Background() {
		return launchValues{}
	}
	return launchValues{context.WithoutCancel(ctx)}
}

// closedChannel is the channel that Done returns if the context ended before the first call to
// Done.
var closedChannel = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// Deadline implements [context.Context]. It does not return a deadline, because the manager's
// deadlines are not visible to the host.
func (c *turnContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements [context.Context].
func (c *turnContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		if c.err != nil {
			return closedChannel
		}
		c.done = make(chan struct{})
	}
	return c.done
}

// Err implements [context.Context].
func (c *turnContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value implements [context.Context].
func (c *turnContext) Value(key any) any { return valueOf(c.values, key) }

// valueOf returns a value from the context of the launch. It hides the caller of the launch.
// Otherwise, a tool call in the task's turn would act on behalf of the task's parent.
func valueOf(values launchValues, key any) any {
	if values.from == nil || key == (callerKey{}) {
		return nil
	}
	return values.from.Value(key)
}

// AfterFunc runs f on a new goroutine when the context ends, unless the returned function is called
// first. Package context calls this method if a parent context has it. As a result, a derived
// context does not need a goroutine.
func (c *turnContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = map[*func()]struct{}{}
	}
	c.after[&f] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.after[&f]
		delete(c.after, &f)
		return waits
	}
}

// The method "end" ends the context. Further calls have no effect.
func (c *turnContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.Canceled
	if c.done != nil {
		close(c.done)
	}
	for f := range c.after {
		go (*f)()
	}
	c.after = nil
}

// contextOf returns a context with the values of the task's launch. It is for host calls that are
// made outside the attempt's worker goroutine.
func (m *BackgroundManager) contextOf(t *task) context.Context {
	if t.more != nil && t.more.values != (launchValues{}) {
		return valuesOver{m.base, t.more.values}
	}
	return m.base
}

// valuesOver is a context that also has the values of a launch.
type valuesOver struct {
	context.Context
	values launchValues
}

func (v valuesOver) Value(key any) any {
	if x := v.Context.Value(key); x != nil {
		return x
	}
	return valueOf(v.values, key)
}

// The method "each" calls f(from), f(from+1) and so on, up to f(n-1). f calls the host's code. If a
// call panics, the loop continues with the next number. If a call ends the goroutine, a new
// goroutine of kind k continues with the remaining numbers and finally calls the function "then".
func (m *BackgroundManager) each(k goKind, from, n int, f func(int), then func()) {
	for i := from; i < n; i++ {
		func() {
			returned := false
			defer func() {
				if !returned && recover() == nil {
					m.spawn(k, func() {
						m.each(k, i+1, n, f, then)
						then()
					})
				}
			}()
			f(i)
			returned = true
		}()
	}
}
