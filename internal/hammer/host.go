package hammer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// host is the part that the two session clients share.
type host struct {
	o    *oracle
	name string

	mu       sync.Mutex
	sessions map[string]*hostSession
	order    []string
	rev      int
	emit     func(bgagent.HostEvent)
	emitsTo  *life
	roots    map[string]bgagent.SessionState
	down     time.Time // until this time, calls that start work fail with ErrUnreachable
}

type hostSession struct {
	id       string
	task     string
	agent    string
	model    string
	run      *activity // the running turn
	stop     chan struct{}
	gone     bool
	asking   bool
	messages []bgagent.Message
	revs     []int
	todos    []bgagent.Todo
	prompts  map[string]bool
	has      map[string]received // for a runner: state of each prompt, by id
}

func newHost(o *oracle, name string) *host {
	return &host{o: o, name: name, sessions: map[string]*hostSession{}, roots: map[string]bgagent.SessionState{}}
}

// pause waits for the duration d. It returns early if ctx ends, unless deaf is true or the host
// ignores contexts. After a call to healAll, it waits at most a second.
func (f *host) pause(ctx context.Context, d time.Duration, deaf bool) error {
	done := ctx.Done()
	if deaf || f.o.stubborn && !f.o.isHealed() {
		done = nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-f.o.heal:
		if d > time.Second { // after a call to healAll, calls end within a second
			return nil
		}
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-done:
		return ctx.Err()
	}
}

// If the oracle requires turns to be long, the method "last" waits for 30 s.
func (f *host) last(ctx context.Context) {
	f.o.mu.Lock()
	lasting := f.o.lasting
	f.o.mu.Unlock()
	if lasting {
		select {
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
		}
	}
}

// mishap injects a fault into a call: it returns an error, panics, ends the goroutine, or delays the call. If
// it returns nil, the call continues.
func (f *host) mishap(ctx context.Context, r *rand.Rand) error {
	if !f.o.broken(r) {
		return nil
	}
	switch r.IntN(8) {
	case 0, 1:
		return errors.New("the host failed")
	case 2:
		panic("the host panicked")
	case 3:
		runtime.Goexit()
	case 4: // the call hangs until its context ends
		select {
		case <-ctx.Done():
		case <-f.o.heal:
		}
		return context.Canceled
	case 5: // the call ignores its context for a while
		return f.pause(ctx, time.Duration(r.IntN(60_000))*time.Millisecond, true)
	case 6:
		return f.pause(ctx, time.Duration(r.IntN(20_000))*time.Millisecond, false)
	}
	return f.pause(ctx, time.Duration(r.IntN(300))*time.Millisecond, false)
}

const refusedText = "connection refused"

// unreachable returns ErrUnreachable while the host is down. At random times, it takes the host down for a
// while. It is used only by the calls that create a session or begin a turn.
func (f *host) unreachable(ctx context.Context, r *rand.Rand) error {
	f.mu.Lock()
	if f.o.broken(r) && r.IntN(12) == 0 {
		f.down = time.Now().Add(time.Duration(r.IntN([...]int{500, 30_000, 600_000}[r.IntN(3)])) * time.Millisecond)
	}
	down := time.Now().Before(f.down) && !f.o.isHealed()
	f.mu.Unlock()
	if !down {
		return nil
	}
	if r.IntN(3) == 0 {
		_ = f.pause(ctx, time.Duration(r.IntN(3000))*time.Millisecond, false)
	}
	return fmt.Errorf("%s: %w", refusedText, bgagent.ErrUnreachable)
}

func (f *host) create(ctx context.Context, l *life, s bgagent.SessionSpec) (string, error) {
	if l.over.Load() {
		return "", l.never(ctx)
	}
	t, err := l.m.Get(s.Task)
	if err != nil {
		f.o.fault("a session for an unknown task: %v", err)
	} else if t.Status.Terminal() && t.Ended.Before(time.Now()) {
		f.o.fault("a session for %s, which has ended (%s)", s.Task, t.Cause)
	}
	a := &activity{what: "create", key: attemptKey{s.Task, t.Attempt}, model: s.Model, agent: s.Agent, life: l}
	f.o.begin(a, f.o.slotIsNew(t.Started))
	defer f.o.end(a)
	f.o.mu.Lock()
	if !f.o.closedAt.IsZero() && f.o.closedAt.Before(time.Now()) {
		f.o.faultLocked("a session for %s after Close", s.Task)
	}
	f.o.mu.Unlock()
	r := f.o.draw("create", s.Title)
	if err := f.unreachable(ctx, r); err != nil {
		return "", err
	}
	if err := f.mishap(ctx, r); err != nil {
		return "", err
	}
	bad := f.o.broken(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.over.Load() {
		return "", errDead
	}
	if bad {
		switch r.IntN(4) {
		case 0:
			return "", nil
		case 1:
			// The host returns the id of another task's session. The manager must refuse this id. It can do
			// so only if it knows the other task. It does not know a task whose completion was reported
			// before the process began, so the session of such a task is not returned.
			if len(f.order) > 0 {
				id := f.order[r.IntN(len(f.order))]
				if _, err := l.m.Get(f.sessions[id].task); !errors.Is(err, bgagent.ErrUnknownTask) {
					return id, nil
				}
			}
		case 2:
			return "", &bgagent.NoSuchAgentError{Agent: s.Agent}
		}
	}
	id := fmt.Sprintf("ses-%s-%s", f.name, s.Title)
	for f.sessions[id] != nil {
		id += "'"
	}
	f.sessions[id] = &hostSession{id: id, task: s.Task, agent: s.Agent, model: s.Model, prompts: map[string]bool{}, has: map[string]received{}}
	f.order = append(f.order, id)
	f.o.mu.Lock()
	f.o.granted[s.Task] = true
	f.o.mu.Unlock()
	return id, nil
}

// The method "enter" checks a prompt and records the start of the call or turn that the prompt
// begins. It returns nil if the process has ended.
func (f *host) enter(l *life, what, session string, p bgagent.Prompt) *activity {
	if !f.o.prompted(l, f, session, p) {
		return nil
	}
	started := time.Now()
	if p.Turn == 1 { // the task got its slot before the session was created or looked up
		if t, err := l.m.Get(p.Task); err == nil && t.Attempt == p.Attempt {
			started = t.Started
		}
	}
	f.o.mu.Lock()
	if tried, again := f.o.refused[p.ID]; again && tried.Before(started) { // an earlier call with this prompt failed, and the task has kept its slot since that call
		started = tried
	}
	grant := !f.o.super[attemptKey{p.Task, p.Attempt - 1}] && !f.o.granted[p.Task] && started.After(f.o.limitsAt)
	delete(f.o.granted, p.Task)
	f.o.mu.Unlock()
	a := &activity{what: what, key: attemptKey{p.Task, p.Attempt}, model: p.Model, agent: p.Agent, prompt: p.ID, life: l}
	f.mu.Lock()
	s := f.sessions[session]
	if s == nil {
		f.o.fault("prompt into the unknown session %s", session)
	} else if old := s.run; old != nil && !old.lied {
		f.o.fault("session %s gets a prompt (%s) while %s of %s.%d runs in it", session, p.ID, old.what, old.key.task, old.key.no)
	}
	f.mu.Unlock()
	f.o.begin(a, grant)
	return a
}

// The method "acts" imitates an agent that uses its tools to call the manager in the middle of a
// turn.
func (f *host) acts(ctx context.Context, m *bgagent.BackgroundManager, session string, r *rand.Rand) {
	by := bgagent.Caller{Session: session}
	prompt := fmt.Sprintf("%s.%d", strings.TrimPrefix(session, "ses-"), r.IntN(1000))
	in := bgagent.LaunchInput{Agent: agents[r.IntN(len(agents))], Model: models[r.IntN(len(models))], Prompt: prompt}
	switch r.IntN(6) {
	case 0, 1, 2:
		for range 1 + r.IntN(2) {
			t, err := m.Launch(ctx, by, in)
			f.o.log("%s launches %s: %v", session, t.ID, err)
			in.Prompt += "+"
		}
	case 3:
		t, err := m.Run(ctx, by, in)
		f.o.log("%s ran %s: %s %v", session, t.ID, t.Status, err)
	case 4:
		_, err := m.CancelAll(ctx, by, bgagent.CancelOptions{})
		f.o.log("%s cancels all its tasks: %v", session, err)
	case 5:
		own := m.List(bgagent.Query{Parent: session})
		switch {
		case len(own) == 0:
		case r.IntN(2) == 0:
			_, _ = m.Read(by, own[0].ID)
		default:
			_, _ = m.Wait(ctx, by, bgagent.WaitMode(r.IntN(2)), own[0].ID)
		}
	}
}

// runnerHost implements TurnRunner.
type runnerHost struct {
	*host
	life *life
}

func (f *runnerHost) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	return f.create(ctx, f.life, s)
}

func (f *runnerHost) RunTurn(ctx context.Context, session string, p bgagent.Prompt, rep *bgagent.Reporter) (bgagent.TurnEnd, error) {
	began := time.Now()
	l := f.life
	a := f.enter(l, "turn", session, p)
	if a == nil {
		return bgagent.TurnEnd{}, l.never(ctx)
	}
	defer f.o.end(a)
	r := f.o.draw("turn", session)
	if err := f.unreachable(ctx, r); err != nil {
		f.o.refuse(l, p, began)
		return bgagent.TurnEnd{}, err
	}
	f.mu.Lock()
	s := f.sessions[session]
	if l.over.Load() {
		f.mu.Unlock()
		return bgagent.TurnEnd{}, errDead
	}
	s.run, s.has[p.ID] = a, received{state: bgagent.PromptInterrupted}
	f.mu.Unlock()
	var got bgagent.TurnEnd
	returned := false
	defer func() {
		f.mu.Lock()
		if s.run == a {
			if s.run = nil; returned {
				s.has[p.ID] = received{bgagent.PromptAnswered, got}
			}
		}
		f.mu.Unlock()
	}()
	ctx, cancel := f.alone(ctx, a)
	defer cancel()
	end, err := f.runTurn(ctx, session, p, rep, r)
	got, returned = end, err == nil
	return end, err
}

// The method "alone" returns a context that ends when ctx ends, unless the turn continues after the
// end of its process.
func (f *host) alone(ctx context.Context, a *activity) (context.Context, context.CancelFunc) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !a.orphan {
			cancel()
		}
	})
	return own, func() { stop(); cancel() }
}

// refusal randomly returns either a provider error or nil.
func (f *host) refusal(p bgagent.Prompt, r *rand.Rand) error {
	if !f.o.broken(r) || r.IntN(2) == 0 {
		return nil
	}
	e := &bgagent.ProviderError{
		Kind: bgagent.ProviderErrorKind(1 + r.IntN(4)), Scope: bgagent.ProviderScope(r.IntN(2)), Tries: r.IntN(3),
		Next: bgagent.ProviderNextStep(r.IntN(3)), // not NextNewSession, because the prompt in the new session would have the same id
	}
	if r.IntN(3) == 0 {
		e.RetryAt = time.Now().Add(time.Duration(r.IntN(900)) * time.Second)
	}
	if e.Next == bgagent.NextRepeat {
		f.o.mu.Lock()
		f.o.repeats[p.ID] = true
		if p.Notice != nil {
			f.o.unheard[p.Notice.ID] = true
		}
		f.o.mu.Unlock()
	}
	f.o.log("the provider refuses %s: %s, next step %d", p.ID, e.Kind, e.Next)
	return fmt.Errorf("the model: %w", e)
}

// runTurn simulates the turn of an accepted prompt.
func (f *runnerHost) runTurn(ctx context.Context, session string, p bgagent.Prompt, rep *bgagent.Reporter, r *rand.Rand) (bgagent.TurnEnd, error) {
	l := f.life
	if p.Notice != nil {
		f.o.told(*p.Notice, "as a turn")
	}
	if err := f.mishap(ctx, r); err != nil {
		return bgagent.TurnEnd{}, err
	}
	if e := f.refusal(p, r); e != nil {
		return bgagent.TurnEnd{}, e
	}
	text := "answer to " + p.ID + ";"
	f.last(ctx)
	deaf := f.o.stubborn || f.o.broken(r) && r.IntN(3) == 0
	said := false
	for i := range r.IntN(4) {
		if err := f.pause(ctx, workTime(r), deaf); err != nil {
			if f.o.broken(r) { // the turn continues for a while after its context has ended
				_ = f.pause(ctx, workTime(r), true)
			}
			return bgagent.TurnEnd{Text: text}, err
		}
		tool := bgagent.MessageTool{ID: fmt.Sprintf("%s-%d", p.ID, i), Name: "tool"}
		switch r.IntN(6) {
		case 0:
			rep.Text(text)
			said = true
		case 1:
			rep.Tool(tool)
			_ = f.pause(ctx, workTime(r), deaf)
			tool.State = bgagent.ToolDone
			rep.Tool(tool)
		case 2:
			if f.o.broken(r) && r.IntN(2) == 0 {
				rep.Retrying(bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}, time.Now().Add(time.Duration(r.IntN(120))*time.Second))
			}
			if r.IntN(2) == 0 {
				if err := f.asks(ctx, session, rep, r); err != nil {
					return bgagent.TurnEnd{Text: text}, err
				}
				continue
			}
			rep.Asking("may I?")
			_ = f.pause(ctx, workTime(r), deaf)
			rep.Asking("")
		case 3:
			rep.Todos([]bgagent.Todo{{Text: "more", State: bgagent.TodoState(r.IntN(4))}})
		default:
			if !f.o.isHealed() && !l.over.Load() {
				f.acts(ctx, l.m, session, r)
			}
		}
	}
	if f.o.broken(r) {
		switch r.IntN(4) {
		case 0:
			return bgagent.TurnEnd{}, errors.New("the agent failed")
		case 1:
			return bgagent.TurnEnd{Stop: bgagent.StopReason(r.IntN(9)), Text: text}, nil
		case 2:
			if !said {
				return bgagent.TurnEnd{}, nil
			}
		}
	}
	return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: text}, nil
}

func (f *runnerHost) Abort(ctx context.Context, session string) error {
	if f.life.over.Load() {
		return f.life.never(ctx)
	}
	f.o.abort(session)
	return f.mishap(ctx, f.o.draw("abort", session))
}

// workTime returns a random duration for one step of an agent.
func workTime(r *rand.Rand) time.Duration {
	most := [...]int{1, 50, 3000, 9000, 30_000, 240_000}
	return time.Duration(r.IntN(most[r.IntN(len(most))])) * time.Millisecond
}

// notify implements Config.Notify.
func (l *life) notify(ctx context.Context, session string, n bgagent.Notice) error {
	f := l.h.host[1]
	f.o.mu.Lock()
	if l.over.Load() {
		f.o.mu.Unlock()
		return l.never(ctx)
	}
	f.o.logLocked("notify %s of %s", session, n.ID)
	f.o.shownLocked(n)
	if !f.o.closedAt.IsZero() && f.o.closedAt.Before(time.Now()) {
		f.o.faultLocked("notice %s after Close", n.ID)
	}
	f.o.mu.Unlock()
	if !strings.HasPrefix(session, "root") {
		return bgagent.ErrNoSession
	}
	r := f.o.draw("notify", session)
	if f.o.broken(r) && r.IntN(2) == 0 {
		return bgagent.ErrBusy
	}
	if err := f.mishap(ctx, r); err != nil {
		return err
	}
	if ctx.Err() == nil && !l.over.Load() {
		f.o.told(n, "by Notify")
	}
	return nil
}
