package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// oracle knows what really runs at the host, and what the manager has said of
// it. Everything it finds wrong is kept; the run looks at it after each step.
type oracle struct {
	mu     sync.Mutex
	seed   uint64
	m      *bgagent.BackgroundManager
	faults []string
	trace  []string
	began  time.Time

	limits    bgagent.Limits
	limitsAt  time.Time // when they were changed last
	closedAt  time.Time // when Close was called first
	runs      map[*activity]struct{}
	granted   map[string]bool // tasks whose session has been made, until their first prompt
	suspects  []suspect
	promptIDs map[string]bool
	answers   map[attemptKey][]string // prompt ids
	draws     map[string]uint64

	seq       uint64
	ends      map[attemptKey]bgagent.Cause
	notices   map[attemptKey]bgagent.NoticeState
	overran   map[attemptKey]bool
	quiets    map[attemptKey]int
	aborted   map[string]bool                // sessions
	seen      map[attemptKey]map[string]bool // notice ids the host was ever shown
	delivered map[attemptKey]string          // what told of it, for good
	overLimit int
	healed    bool
	heal      chan struct{}
	rate      float64 // of faults
	stubborn  bool    // the host ignores its contexts
	lasting   bool    // every turn takes its time
}

type attemptKey struct {
	task string
	no   int
}

// activity is something that takes a slot: a creation, a call, a turn.
type activity struct {
	what  string
	key   attemptKey
	model string
	agent string
	lied  bool
}

type suspect struct {
	pool  string
	limit int
	at    time.Duration
	who   []*activity
}

func newOracle(seed uint64) *oracle {
	return &oracle{
		seed: seed, began: time.Now(), runs: map[*activity]struct{}{}, granted: map[string]bool{}, promptIDs: map[string]bool{},
		answers: map[attemptKey][]string{}, draws: map[string]uint64{}, ends: map[attemptKey]bgagent.Cause{},
		notices: map[attemptKey]bgagent.NoticeState{}, overran: map[attemptKey]bool{}, quiets: map[attemptKey]int{},
		aborted: map[string]bool{}, seen: map[attemptKey]map[string]bool{}, delivered: map[attemptKey]string{}, heal: make(chan struct{}),
	}
}

// draw returns random numbers that depend on the call alone, not on the order
// in which goroutines come here.
func (o *oracle) draw(kind, name string) *rand.Rand {
	o.mu.Lock()
	key := kind + " " + name
	n := o.draws[key]
	o.draws[key]++
	o.mu.Unlock()
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", o.seed, key, n)
	return rand.New(rand.NewPCG(o.seed, h.Sum64()))
}

func (o *oracle) log(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked(format, args...)
}

func (o *oracle) logLocked(format string, args ...any) {
	o.trace = append(o.trace, fmt.Sprintf("%12v ", time.Since(o.began))+fmt.Sprintf(format, args...))
}

func (o *oracle) fault(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faultLocked(format, args...)
}

func (o *oracle) faultLocked(format string, args ...any) {
	o.logLocked("FAULT "+format, args...)
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

func (o *oracle) isHealed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.healed
}

// healAll ends all faults, and all that hangs.
func (o *oracle) healAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.healed {
		o.healed = true
		close(o.heal)
		o.logLocked("the host is healed")
	}
}

// broken reports whether this call is to go wrong.
func (o *oracle) broken(r *rand.Rand) bool {
	x := r.Float64()
	return !o.isHealed() && x < o.rate
}

// pool is where the limits of the moment count an activity.
func (o *oracle) poolLocked(model, agent string) (string, int) {
	def := o.limits.Default
	if model == "" {
		return "agent " + agent, def
	}
	provider, bare, _ := strings.Cut(model, "/")
	if n := o.limits.Model[model]; n != 0 {
		return "model " + model, n
	}
	if n := o.limits.Model[bare]; n != 0 {
		return "model " + bare, n
	}
	if n := o.limits.Provider[provider]; n != 0 {
		return "provider " + provider, n
	}
	return "default " + model, def
}

// begin notes that something of the attempt begins to run. When that needs a
// new slot there must have been one.
func (o *oracle) begin(a *activity, grant bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("%s of %s.%d begins", a.what, a.key.task, a.key.no)
	o.runs[a] = struct{}{}
	if !grant || o.limitsAt.Equal(time.Now()) {
		return
	}
	pool, limit := o.poolLocked(a.model, a.agent)
	var who []*activity
	tasks := map[attemptKey]bool{}
	for b := range o.runs {
		if p, _ := o.poolLocked(b.model, b.agent); p == pool && !b.lied && !tasks[b.key] {
			tasks[b.key] = true
			who = append(who, b)
		}
	}
	if limit != bgagent.Unlimited && len(who) > limit {
		o.suspects = append(o.suspects, suspect{pool, limit, time.Since(o.began), who})
	}
}

// runsLocked reports whether anything of the attempt runs.
func (o *oracle) runsLocked(task string, no int) bool {
	for a := range o.runs {
		if a.key == (attemptKey{task, no}) {
			return true
		}
	}
	return false
}

func (o *oracle) end(a *activity) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.runs[a]; ok {
		o.logLocked("%s of %s.%d is over", a.what, a.key.task, a.key.no)
	}
	delete(o.runs, a)
}

// clear looks at the suspects once every event has been read: what overran its
// stopping deadline does not count.
func (o *oracle) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.suspects {
		n := 0
		var names []string
		for _, a := range s.who {
			if !o.overran[a.key] && !a.lied {
				n++
				names = append(names, fmt.Sprintf("%s of %s.%d", a.what, a.key.task, a.key.no))
			}
		}
		if n > s.limit {
			o.faultLocked("at %v: %d run in pool %q with a limit of %d: %v", s.at, n, s.pool, s.limit, names)
		}
	}
	o.suspects = nil
}

// prompted checks what must hold of every prompt.
func (o *oracle) prompted(session string, p bgagent.Prompt) {
	key := attemptKey{p.Task, p.Attempt}
	t, err := o.m.Get(p.Task)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("prompt %s into %s (turn %d)", p.ID, session, p.Turn)
	now := time.Now()
	if o.promptIDs[p.ID] {
		o.faultLocked("prompt %s came twice", p.ID)
	}
	o.promptIDs[p.ID] = true
	o.answers[key] = append(o.answers[key], p.ID)
	switch {
	case err != nil:
		o.faultLocked("prompt %s of a task that is not there: %v", p.ID, err)
	case t.Session != session:
		o.faultLocked("prompt %s goes to %s, the task's session is %s", p.ID, session, t.Session)
	case t.Attempt != p.Attempt && t.Queued.Before(now):
		o.faultLocked("prompt %s of attempt %d during attempt %d", p.ID, p.Attempt, t.Attempt)
	case t.Attempt == p.Attempt && t.Status.Terminal() && t.Ended.Before(now):
		o.faultLocked("prompt %s after the task ended (%s)", p.ID, t.Cause)
	case t.Status == bgagent.Pending && t.Attempt == p.Attempt:
		o.faultLocked("prompt %s while the task is pending", p.ID)
	}
	if !o.closedAt.IsZero() && o.closedAt.Before(now) {
		o.faultLocked("prompt %s after Close", p.ID)
	}
	if p.Notice != nil {
		o.shownLocked(*p.Notice)
	}
}

func (o *oracle) shownLocked(n bgagent.Notice) {
	for _, it := range n.Items {
		key := attemptKey{it.Task, it.Attempt}
		if o.seen[key] == nil {
			o.seen[key] = map[string]bool{}
		}
		o.seen[key][n.ID] = true
		if _, ended := o.ends[key]; it.Status == bgagent.Pending && ended {
			o.faultLocked("notice %s says nothing of how %s.%d ended", n.ID, it.Task, it.Attempt)
		}
	}
}

// told notes that a notice has been given for good.
func (o *oracle) told(n bgagent.Notice, how string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("notice %s to %s %s: %d items", n.ID, n.Session, how, len(n.Items))
	o.shownLocked(n)
	if len(n.Items) == 0 {
		o.faultLocked("notice %s has no items", n.ID)
	}
	for _, it := range n.Items {
		key := attemptKey{it.Task, it.Attempt}
		if id, ok := o.delivered[key]; ok && id != n.ID {
			o.faultLocked("%s.%d told twice: %s and %s (%s)", it.Task, it.Attempt, id, n.ID, how)
		}
		o.delivered[key] = n.ID
	}
}

// event checks one event of the manager. The oracle reads all of them.
func (o *oracle) event(e bgagent.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := e.Task
	key := attemptKey{t.ID, t.Attempt}
	o.logLocked("event %s %s.%d %s %s %s", e.Kind, t.ID, t.Attempt, t.Status, t.Phase, t.Cause)
	if e.Kind == bgagent.EventMissed || o.seq != 0 && e.Seq != o.seq+1 {
		o.faultLocked("event %d after %d (%s)", e.Seq, o.seq, e.Kind)
	}
	o.seq = e.Seq
	_, ended := o.ends[key]
	switch e.Kind {
	case bgagent.EventLaunched, bgagent.EventResumed:
		if t.Status != bgagent.Pending {
			o.faultLocked("%s.%d is %s when it is %s", t.ID, t.Attempt, t.Status, e.Kind)
		}
	case bgagent.EventStarted, bgagent.EventPhase, bgagent.EventProgress:
		if ended || t.Status != bgagent.Running && e.Kind != bgagent.EventPhase {
			o.faultLocked("%s of %s.%d, which is %s", e.Kind, t.ID, t.Attempt, t.Status)
		}
	case bgagent.EventEnded:
		if ended {
			o.faultLocked("%s.%d ended twice", t.ID, t.Attempt)
		}
		o.ends[key] = t.Cause
		if !t.Status.Terminal() || t.Cause.Status() != t.Status {
			o.faultLocked("%s.%d ended as %s for %s", t.ID, t.Attempt, t.Status, t.Cause)
		}
		o.resultLocked(t)
	case bgagent.EventNotice:
		if was, twice := o.notices[key]; twice {
			o.faultLocked("notice of %s.%d settled twice: %s, %s", t.ID, t.Attempt, was, t.Notice)
		}
		if !t.Notice.Settled() {
			o.faultLocked("notice of %s.%d settled as %q", t.ID, t.Attempt, t.Notice)
		}
		o.notices[key] = t.Notice
	case bgagent.EventOverLimit:
		// The event may come when new attempts have waited for the one that does
		// not stop: each of them may have been cancelled and followed by another.
		for no := t.Attempt; no > 0; no-- {
			o.overran[attemptKey{t.ID, no}] = true
			if o.runsLocked(t.ID, no) {
				break
			}
		}
		o.overLimit++
		if t.Session != "" && o.closedAt.IsZero() && !o.aborted[t.Session] {
			o.faultLocked("%s.%d was given up, and its session %s never aborted", t.ID, t.Attempt, t.Session)
		}
	case bgagent.EventQuiet:
		if o.quiets[key]++; o.quiets[key] > 2 {
			o.faultLocked("%s.%d is quiet again", t.ID, t.Attempt)
		}
	}
}

// abort notes that a session is to be aborted.
func (o *oracle) abort(session string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.logLocked("abort of %s", session)
	o.aborted[session] = true
}

// resultLocked checks that a completed attempt has its own answer.
func (o *oracle) resultLocked(t bgagent.Task) {
	if t.Status != bgagent.Completed || t.Result == "" {
		return
	}
	for _, id := range o.answers[attemptKey{t.ID, t.Attempt}] {
		if strings.Contains(t.Result, "answer to "+id+";") {
			return
		}
	}
	o.faultLocked("%s.%d completed (%s) with a foreign result: %.100q", t.ID, t.Attempt, t.Cause, t.Result)
}

// hammerHost is what the two clients have in common.
type hammerHost struct {
	o    *oracle
	name string

	mu       sync.Mutex
	sessions map[string]*hammerSession
	order    []string
	rev      int
	emit     func(bgagent.HostEvent)
	roots    map[string]bgagent.SessionState
}

type hammerSession struct {
	id       string
	task     string
	agent    string
	model    string
	run      *activity // the turn that runs
	stop     chan struct{}
	gone     bool
	asking   bool
	messages []bgagent.Message
	revs     []int
	todos    []bgagent.Todo
	prompts  map[string]bool
}

func newHammerHost(o *oracle, name string) *hammerHost {
	return &hammerHost{o: o, name: name, sessions: map[string]*hammerSession{}, roots: map[string]bgagent.SessionState{}}
}

// pause waits for the time, unless the context ends first and is listened to.
func (f *hammerHost) pause(ctx context.Context, d time.Duration, deaf bool) error {
	done := ctx.Done()
	if deaf || f.o.stubborn && !f.o.isHealed() {
		done = nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-f.o.heal:
		if d > time.Second { // everything ends soon
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

// last lets a turn take its time, where that is wanted.
func (f *hammerHost) last(ctx context.Context) {
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

// mishap is a fault that any call may have. It returns an error, or panics, or
// ends the goroutine; nil means that the call goes on, maybe late.
func (f *hammerHost) mishap(ctx context.Context, r *rand.Rand) error {
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
	case 4: // hangs until its context ends
		select {
		case <-ctx.Done():
		case <-f.o.heal:
		}
		return context.Canceled
	case 5: // ignores its context for a while
		return f.pause(ctx, time.Duration(r.IntN(60_000))*time.Millisecond, true)
	case 6:
		return f.pause(ctx, time.Duration(r.IntN(20_000))*time.Millisecond, false)
	}
	return f.pause(ctx, time.Duration(r.IntN(300))*time.Millisecond, false)
}

func (f *hammerHost) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	t, err := f.o.m.Get(s.Task)
	if err != nil {
		f.o.fault("a session for a task that is not there: %v", err)
	} else if t.Status.Terminal() && t.Ended.Before(time.Now()) {
		f.o.fault("a session for %s, which has ended (%s)", s.Task, t.Cause)
	}
	a := &activity{what: "create", key: attemptKey{s.Task, t.Attempt}, model: s.Model, agent: s.Agent}
	f.o.begin(a, true)
	defer f.o.end(a)
	f.o.mu.Lock()
	if !f.o.closedAt.IsZero() && f.o.closedAt.Before(time.Now()) {
		f.o.faultLocked("a session for %s after Close", s.Task)
	}
	f.o.mu.Unlock()
	r := f.o.draw("create", s.Title)
	if err := f.mishap(ctx, r); err != nil {
		return "", err
	}
	bad := f.o.broken(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if bad {
		switch r.IntN(4) {
		case 0:
			return "", nil
		case 1:
			if len(f.order) > 0 {
				return f.order[r.IntN(len(f.order))], nil
			}
		case 2:
			return "", &bgagent.NoSuchAgentError{Agent: s.Agent}
		}
	}
	id := fmt.Sprintf("ses-%s-%s", f.name, s.Title)
	for f.sessions[id] != nil {
		id += "'"
	}
	f.sessions[id] = &hammerSession{id: id, task: s.Task, agent: s.Agent, model: s.Model, prompts: map[string]bool{}}
	f.order = append(f.order, id)
	f.o.mu.Lock()
	f.o.granted[s.Task] = true
	f.o.mu.Unlock()
	return id, nil
}

// enter begins a prompt's call or turn.
func (f *hammerHost) enter(what, session string, p bgagent.Prompt) *activity {
	f.o.prompted(session, p)
	f.o.mu.Lock()
	grant := !f.o.granted[p.Task]
	delete(f.o.granted, p.Task)
	f.o.mu.Unlock()
	a := &activity{what: what, key: attemptKey{p.Task, p.Attempt}, model: p.Model, agent: p.Agent}
	f.mu.Lock()
	s := f.sessions[session]
	if s == nil {
		f.o.fault("prompt into the unknown session %s", session)
	} else if old := s.run; old != nil && !old.lied {
		f.o.fault("%s is prompted (%s) while %s of %s.%d runs in it", session, p.ID, old.what, old.key.task, old.key.no)
	}
	f.mu.Unlock()
	f.o.begin(a, grant)
	return a
}

// acts is what an agent does with its own tools in the middle of a turn.
func (f *hammerHost) acts(ctx context.Context, session string, r *rand.Rand) {
	m := f.o.m
	by := bgagent.Caller{Session: session}
	prompt := fmt.Sprintf("%s.%d", strings.TrimPrefix(session, "ses-"), r.IntN(1000))
	in := bgagent.LaunchInput{Agent: hammerAgents[r.IntN(len(hammerAgents))], Model: hammerModels[r.IntN(len(hammerModels))], Prompt: prompt}
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
		f.o.log("%s cancels all its own: %v", session, err)
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

// hammerRunner is a TurnRunner.
type hammerRunner struct{ *hammerHost }

func (f *hammerRunner) RunTurn(ctx context.Context, session string, p bgagent.Prompt, rep *bgagent.Reporter) (bgagent.TurnEnd, error) {
	a := f.enter("turn", session, p)
	f.mu.Lock()
	s := f.sessions[session]
	s.run = a
	f.mu.Unlock()
	defer f.o.end(a)
	defer func() {
		f.mu.Lock()
		if s.run == a {
			s.run = nil
		}
		f.mu.Unlock()
	}()
	if p.Notice != nil {
		f.o.told(*p.Notice, "as a turn")
	}
	r := f.o.draw("turn", session)
	if err := f.mishap(ctx, r); err != nil {
		return bgagent.TurnEnd{}, err
	}
	text := "answer to " + p.ID + ";"
	f.last(ctx)
	deaf := f.o.stubborn || f.o.broken(r) && r.IntN(3) == 0
	said := false
	for i := range r.IntN(4) {
		if err := f.pause(ctx, hammerWork(r), deaf); err != nil {
			if f.o.broken(r) { // goes on for a while
				_ = f.pause(ctx, hammerWork(r), true)
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
			_ = f.pause(ctx, hammerWork(r), deaf)
			tool.State = bgagent.ToolDone
			rep.Tool(tool)
		case 2:
			rep.Asking("may I?")
			_ = f.pause(ctx, hammerWork(r), deaf)
			rep.Asking("")
		case 3:
			rep.Todos([]bgagent.Todo{{Text: "more", State: bgagent.TodoState(r.IntN(4))}})
		default:
			if !f.o.isHealed() {
				f.acts(ctx, session, r)
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

func (f *hammerRunner) Abort(ctx context.Context, session string) error {
	f.o.abort(session)
	return f.mishap(ctx, f.o.draw("abort", session))
}

// hammerWork is how long a step of an agent takes.
func hammerWork(r *rand.Rand) time.Duration {
	most := [...]int{1, 50, 3000, 9000, 30_000, 240_000}
	return time.Duration(r.IntN(most[r.IntN(len(most))])) * time.Millisecond
}

// hammerStarter is a TurnStarter with every ability there is.
type hammerStarter struct{ *hammerHost }

func (f *hammerStarter) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	a := f.enter("hand-over", session, p)
	defer f.o.end(a)
	r := f.o.draw("start", session)
	if f.o.broken(r) && r.IntN(2) == 0 { // fails, but has been accepted
		f.accept(session, p)
		if err := f.mishap(ctx, r); err != nil {
			return err
		}
		return errors.New("accepted, and failed")
	}
	if err := f.mishap(ctx, r); err != nil {
		return err
	}
	f.accept(session, p)
	if t, err := f.o.m.Get(p.Task); p.Notice != nil && ctx.Err() == nil && err == nil && !t.Status.Terminal() && t.Attempt == p.Attempt {
		f.o.told(*p.Notice, "as a turn")
	}
	return nil
}

func (f *hammerStarter) accept(session string, p bgagent.Prompt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if s == nil || s.gone || s.prompts[p.ID] {
		return
	}
	s.prompts[p.ID] = true
	a := &activity{what: "turn", key: attemptKey{p.Task, p.Attempt}, model: p.Model, agent: p.Agent}
	if old := s.run; old != nil {
		close(s.stop) // reported where it was not allowed
		f.o.end(old)
	}
	s.run, s.stop = a, make(chan struct{})
	f.putLocked(s, bgagent.Message{ID: p.ID, Role: bgagent.RoleUser, PromptID: p.ID, Text: p.Text, Finished: true})
	f.o.begin(a, false)
	f.tellLocked(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: bgagent.SessionBusy}})
	go f.turn(s, a, s.stop, p)
}

// turn is what the agent does after a prompt was accepted.
func (f *hammerStarter) turn(s *hammerSession, a *activity, stop chan struct{}, p bgagent.Prompt) {
	r := f.o.draw("turn", s.id)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	text := "answer to " + p.ID + ";"
	f.last(ctx)
	deaf := f.o.broken(r) && r.IntN(2) == 0
	msg := bgagent.Message{Role: bgagent.RoleAgent, Text: text}
	for i := range r.IntN(4) {
		if f.pause(ctx, hammerWork(r), deaf) != nil {
			break
		}
		msg.ID = fmt.Sprintf("%s-%d", p.ID, i)
		switch r.IntN(5) {
		case 0:
			f.put(s, msg)
		case 1:
			msg.Tools = []bgagent.MessageTool{{ID: msg.ID, Name: "tool", State: bgagent.ToolRunning}}
			f.put(s, msg)
			_ = f.pause(ctx, hammerWork(r), deaf)
			msg.Tools[0].State = bgagent.ToolDone
			f.put(s, msg)
		case 2:
			f.asks(s, true)
			_ = f.pause(ctx, hammerWork(r), deaf)
			f.asks(s, false)
		case 3:
			f.mu.Lock()
			s.todos = []bgagent.Todo{{Text: "more", State: bgagent.TodoState(r.IntN(4))}}
			f.mu.Unlock()
		default:
			if !f.o.isHealed() {
				f.acts(ctx, s.id, r)
			}
		}
	}
	_ = f.pause(ctx, hammerWork(r), deaf)
	msg = bgagent.Message{ID: p.ID + "-end", Role: bgagent.RoleAgent, Text: text, Finished: true, Stop: bgagent.StopEndOfTurn}
	if f.o.broken(r) {
		switch r.IntN(4) {
		case 0:
			msg.Stop = bgagent.StopReason(r.IntN(9))
		case 1:
			msg.Finished, msg.Stop = false, bgagent.StopUntold
		case 2:
			msg.ID = "" // says nothing
		}
	}
	if ctx.Err() != nil {
		msg.Stop = bgagent.StopAborted
	}
	f.mu.Lock()
	if s.run != a {
		f.mu.Unlock()
		return
	}
	if msg.ID != "" {
		f.putLocked(s, msg)
	}
	s.run, s.asking = nil, false
	f.o.end(a)
	f.mu.Unlock()
	idle := bgagent.HostEvent{Kind: bgagent.HostStatus, Session: s.id, Status: bgagent.SessionStatus{State: bgagent.SessionIdle}}
	if f.o.broken(r) {
		switch r.IntN(3) {
		case 0:
			return // lost
		case 1:
			f.tell(idle) // doubled
		}
		_ = f.pause(context.Background(), hammerWork(r), false) // late
	}
	f.tell(idle)
}

func (f *hammerStarter) asks(s *hammerSession, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.asking = on
}

func (f *hammerStarter) put(s *hammerSession, msg bgagent.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	msg.Tools = slices.Clone(msg.Tools)
	f.putLocked(s, msg)
	f.tellLocked(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s.id, Message: &msg})
}

func (f *hammerStarter) putLocked(s *hammerSession, msg bgagent.Message) {
	f.rev++
	for i := range s.messages {
		if s.messages[i].ID == msg.ID {
			s.messages[i], s.revs[i] = msg, f.rev
			return
		}
	}
	s.messages, s.revs = append(s.messages, msg), append(s.revs, f.rev)
}

func (f *hammerStarter) tell(e bgagent.HostEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tellLocked(e)
}

func (f *hammerStarter) tellLocked(e bgagent.HostEvent) {
	if f.emit != nil {
		f.emit(e)
	}
}

// Abort stops the turn, or says that it does.
func (f *hammerStarter) Abort(ctx context.Context, session string) error {
	f.o.abort(session)
	r := f.o.draw("abort", session)
	if err := f.mishap(ctx, r); err != nil {
		return err
	}
	if f.o.broken(r) && r.IntN(2) == 0 {
		return nil // nothing happened
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[session]; s != nil && s.run != nil {
		select {
		case <-s.stop:
		default:
			close(s.stop)
		}
	}
	return nil
}

// vanish deletes a session. Its turn is over at once.
func (f *hammerHost) vanish(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if s == nil {
		return
	}
	s.gone = true
	if s.run != nil && s.stop != nil {
		select {
		case <-s.stop:
		default:
			close(s.stop)
		}
		f.o.end(s.run)
		s.run = nil
	}
}

// lie notes that the manager was told something untrue of the session.
func (f *hammerHost) lie(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[session]; s != nil && s.run != nil {
		f.o.mu.Lock()
		s.run.lied = true
		f.o.mu.Unlock()
	}
}

func (f *hammerStarter) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	r := f.o.draw("statuses", "")
	if err := f.mishap(ctx, r); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]bgagent.SessionStatus{}
	for _, id := range ids {
		var s bgagent.SessionStatus
		switch h := f.sessions[id]; {
		case h != nil && h.gone:
			s.State = bgagent.SessionGone
		case h != nil && h.run != nil && h.asking:
			s.State = bgagent.SessionAsking
		case h != nil && h.run != nil:
			s.State = bgagent.SessionBusy
		case h != nil:
			s.State = bgagent.SessionIdle
		default:
			if s.State = bgagent.SessionGone; f.roots[id] != 0 {
				s.State = f.roots[id]
			}
		}
		if f.o.broken(r) {
			switch r.IntN(3) {
			case 0:
				continue // missing
			case 1:
				s.State = bgagent.SessionUnknown
			case 2:
				s.State = bgagent.SessionState(100 + r.IntN(100))
			}
		}
		out[id] = s
	}
	return out, nil
}

func (f *hammerStarter) Messages(ctx context.Context, session string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	if err := f.mishap(ctx, f.o.draw("messages", session)); err != nil {
		return bgagent.Page{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if s == nil || s.gone {
		return bgagent.Page{}, bgagent.ErrNoSession
	}
	from, _ := strconv.Atoi(string(after))
	page := bgagent.Page{Next: bgagent.Cursor(strconv.Itoa(f.rev))}
	for i, msg := range s.messages {
		if s.revs[i] > from {
			page.Messages = append(page.Messages, msg)
		}
	}
	return page, nil
}

func (f *hammerStarter) Todos(ctx context.Context, session string) ([]bgagent.Todo, error) {
	if err := f.mishap(ctx, f.o.draw("todos", session)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[session]; s != nil {
		return slices.Clone(s.todos), nil
	}
	return nil, nil
}

func (f *hammerStarter) FindSession(ctx context.Context, session string) (bgagent.SessionInfo, error) {
	if err := f.mishap(ctx, f.o.draw("find", session)); err != nil {
		return bgagent.SessionInfo{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.roots[session] != 0 {
		info := bgagent.SessionInfo{Directory: "/work"}
		if session == "root3" {
			info.Parent = "root1"
		}
		return info, nil
	}
	return bgagent.SessionInfo{}, bgagent.ErrNoSession
}

func (f *hammerStarter) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	r := f.o.draw("events", "")
	f.mu.Lock()
	f.emit = emit
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.emit = nil
		f.mu.Unlock()
	}()
	emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.o.heal: // no more beats: polls must do
			<-ctx.Done()
			return ctx.Err()
		case <-time.After(20 * time.Second):
			emit(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
		}
		if f.o.broken(r) {
			if r.IntN(2) == 0 {
				panic("the stream panicked")
			}
			return errors.New("the stream broke")
		}
	}
}

// notify is Config.Notify.
func (f *hammerHost) notify(ctx context.Context, session string, n bgagent.Notice) error {
	f.o.mu.Lock()
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
	if ctx.Err() == nil {
		f.o.told(n, "by Notify")
	}
	return nil
}
