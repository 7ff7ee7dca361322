package bgagenttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// Fake is the common part of [Runner] and [Starter]. It holds sessions with messages, todos and an
// inbox, applies faults, and records the turns that ran. Set its exported fields before the client
// is passed to [bgagent.New], and do not change them after that call. All methods are safe for
// concurrent use.
//
// A fake waits only for its own timers and channels. Therefore, in a bubble of
// testing/synctest, the turns take as much time as the script determines, but the test takes
// no real time.
type Fake struct {
	// AgentNames are the existing agents. If AgentNames is empty, every name is accepted,
	// and Agents returns [errors.ErrUnsupported].
	AgentNames []string

	// Faults returns the fault of a call. If Faults is nil, no call has a fault. Faults is
	// called on the goroutine of the call and may be called concurrently. For failures to be
	// reproducible, the result must depend only on the [Call], not on the time or the order of
	// the calls.
	Faults func(Call) Fault

	// Stream makes a starter an [bgagent.EventSource] that emits every change.
	Stream bool

	// Beat is the interval of the stream's heartbeats. Zero means no heartbeats.
	Beat time.Duration

	// With AbortTells, aborting a starter's turn emits the same events as on a real server: an
	// error, and then the idle status twice.
	AbortTells bool

	// AbortGrace is how long a starter's Abort waits for the script to return before Abort
	// returns an error. It is also the maximum time that Close waits for scripts. The default is
	// one second.
	AbortGrace time.Duration

	// Fates returns the fate of a running turn. NextProcess calls it with the prompt of each
	// running turn. If Fates is nil, the fate of every turn is FateDefault.
	Fates func(bgagent.Prompt) Fate

	// NoRestore makes a runner's RestoreSession return [errors.ErrUnsupported].
	NoRestore bool

	// Steerable makes Steer add messages to running turns; see [Turn.Steered].
	Steerable bool

	// With Continues, a starter continues a refused turn on its own; see
	// [bgagent.Prompt.Unanswered]. The session does not get a new prompt message: the message of
	// the refused prompt stays in its place and gets the id of the new prompt, and the messages of
	// both turns follow it.
	Continues bool

	// Place is the result of Home.
	Place string

	// Prefix begins the id of every session that the fake creates. The default is "ses_". If a
	// manager has several fakes, each of them needs a different prefix.
	Prefix string

	*host

	script func(*Turn)
	kind   string        // name of the type, for errors
	dead   chan struct{} // closed when the client's process has ended
}

// host is the part of a fake that outlives the client's process.
type host struct {
	mu        sync.Mutex
	n         int
	sessions  map[string]*session
	forgotten map[string]bool
	counts    map[countKey]int
	released  chan struct{}
	turns     sync.WaitGroup
	closed    bool
	over      chan struct{} // closed by Close
	restored  []bgagent.SessionRestore
	book      book
	streams   map[*stream]struct{}
	down      bool
}

// session is one conversation of a fake.
type session struct {
	id       string
	spec     bgagent.SessionSpec
	messages []bgagent.Message
	revs     []int
	rev      int
	nmsg     int
	turns    int
	run      *Turn
	busy     bool // set by SetBusy
	state    bgagent.SessionStatus
	prompts  map[string]*received // accepted prompts, by id
	client   *Fake                // client that created the session or was the last to restore it
	todos    []bgagent.Todo
	inbox    []bgagent.Notice
	joined   []string // ids of the messages that joined turns

	questions []*pendingQuestion // open questions of a starter's turn

	continued  map[string]string // maps the id of a prompt that continued a refused turn to the id of that turn's unanswered prompt
	unanswered string            // text of a refused prompt that the session keeps
	again      int               // revision at which continuesLocked last gave a prompt message a new id
	againAt    int               // index of this message in the field "messages"
}

// Runner is a fake [bgagent.TurnRunner]. RunTurn runs the script and returns when the script
// returns.
type Runner struct{ *Fake }

// Starter is a fake [bgagent.TurnStarter]. StartTurn returns immediately, and the script runs on
// another goroutine, as on a server.
type Starter struct{ *Fake }

var (
	_ bgagent.TurnRunner       = Runner{}
	_ bgagent.TurnStarter      = Starter{}
	_ bgagent.SessionRestorer  = Runner{}
	_ bgagent.EventSource      = Starter{}
	_ bgagent.MessageReader    = Runner{}
	_ bgagent.Notifier         = (*Fake)(nil)
	_ bgagent.TodoReader       = (*Fake)(nil)
	_ bgagent.SessionFinder    = (*Fake)(nil)
	_ bgagent.AgentLister      = (*Fake)(nil)
	_ bgagent.SessionForgetter = (*Fake)(nil)
	_ bgagent.SessionHome      = (*Fake)(nil)
)

// NewRunner returns a runner whose turns run the script. The script is called once for each turn,
// on the goroutine of RunTurn. If the script is nil, every turn answers "ok". If the script panics,
// RunTurn panics.
func NewRunner(script func(*Turn)) Runner { return Runner{newFake("bgagenttest.Runner", script)} }

// NewStarter returns a starter whose turns run the script. The script is called once for each turn,
// on a separate goroutine. If the script is nil, every turn answers "ok". If the script panics, the
// turn fails. Close terminates all turns.
func NewStarter(script func(*Turn)) Starter {
	return Starter{newFake("bgagenttest.Starter", script)}
}

func newFake(kind string, script func(*Turn)) *Fake {
	if script == nil {
		script = func(t *Turn) { t.Say("ok") }
	}
	return &Fake{kind: kind, script: script, dead: make(chan struct{}), host: &host{
		sessions: map[string]*session{}, forgotten: map[string]bool{}, counts: map[countKey]int{}, over: make(chan struct{}),
		released: make(chan struct{}), streams: map[*stream]struct{}{}, book: book{now: map[string]int{}, peak: map[string]int{}, tasks: map[string]int{}, ids: map[string]string{}, receipts: map[receiptKey]*received{}},
	}}
}

// Root adds sessions that were not created by a task, such as users' sessions. Notices can
// then be sent to them.
func (f *Fake) Root(sessions ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range sessions {
		f.addLocked(id, bgagent.SessionSpec{})
	}
}

func (f *Fake) addLocked(id string, spec bgagent.SessionSpec) {
	f.sessions[id] = &session{id: id, spec: spec, state: bgagent.SessionStatus{State: bgagent.SessionIdle}, prompts: map[string]*received{}, continued: map[string]string{}, client: f}
}

// Close aborts every turn and releases every call that hangs because of HangForever. It waits until
// the scripts have returned, but for at most AbortGrace. Later prompts are refused.
func (f *Fake) Close() {
	f.mu.Lock()
	if !f.closed {
		close(f.over)
	}
	f.closed = true
	for _, s := range f.sessions {
		if s.run != nil {
			s.run.cancel(errAborted)
		}
	}
	f.mu.Unlock()
	f.Release()
	over := make(chan struct{})
	go func() {
		f.turns.Wait()
		close(over)
	}()
	timer := time.NewTimer(f.grace())
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
	}
}

func (f *Fake) grace() time.Duration {
	if f.AbortGrace > 0 {
		return f.AbortGrace
	}
	return time.Second
}

// CreateSession implements [bgagent.SessionClient].
func (f *Fake) CreateSession(ctx context.Context, spec bgagent.SessionSpec) (id string, err error) {
	after, lie, err := f.begin(ctx, Call{Kind: CallCreate, Title: spec.Title})
	switch {
	case err != nil:
		return "", err
	case lie:
		return "", after()
	case len(f.AgentNames) > 0 && !slices.Contains(f.AgentNames, spec.Agent):
		return "", &bgagent.NoSuchAgentError{Agent: spec.Agent, Known: slices.Clone(f.AgentNames)}
	}
	f.mu.Lock()
	if f.isDead() {
		f.mu.Unlock()
		return "", f.never(ctx)
	}
	f.n++
	id = cmp.Or(f.Prefix, "ses_") + strconv.Itoa(f.n)
	f.addLocked(id, spec)
	f.mu.Unlock()
	if err := after(); err != nil {
		return "", err
	}
	return id, nil
}

// errAborted is the cancellation cause of an aborted turn's context.
var errAborted = errors.New("bgagenttest: the turn was aborted")

// Abort implements [bgagent.SessionClient]. It cancels the turn's context. For a runner, Abort does
// not wait. For a starter, the turn has ended when Abort returns nil.
func (f *Fake) Abort(ctx context.Context, id string) error {
	return f.act(ctx, Call{Kind: CallAbort, Session: id}, func() error {
		f.mu.Lock()
		var run *Turn
		if s := f.sessions[id]; s != nil && s.run != nil && !f.isDead() {
			run = s.run
			run.aborted = true
			run.cancel(errAborted)
		}
		f.mu.Unlock()
		if run != nil && !run.runner {
			return f.stopped(ctx, run)
		}
		return nil
	})
}

// The method "stopped" waits until the turn's script has returned. It returns an error if ctx ends
// first, or if the script does not return within the grace period.
func (f *Fake) stopped(ctx context.Context, t *Turn) error {
	timer := time.NewTimer(f.grace())
	defer timer.Stop()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("%s: the script in session %q does not stop", f.kind, t.s.id)
	}
}

// RunTurn implements [bgagent.TurnRunner].
func (r Runner) RunTurn(ctx context.Context, id string, p bgagent.Prompt, rep *bgagent.Reporter) (bgagent.TurnEnd, error) {
	f := r.Fake
	after, lie, err := f.begin(ctx, Call{Kind: CallTurn, Session: id})
	if err != nil || lie {
		return bgagent.TurnEnd{}, err
	}
	t, err := f.open(ctx, id, p, true, rep)
	if err != nil {
		return bgagent.TurnEnd{}, err
	}
	t.play()
	if err := after(); err != nil {
		return bgagent.TurnEnd{}, err
	}
	if f.isDead() {
		return bgagent.TurnEnd{}, f.never(ctx)
	}
	switch {
	case t.err != nil:
		return bgagent.TurnEnd{Text: t.text}, t.err
	case t.stop == bgagent.StopAborted && !t.aborted && ctx.Err() != nil:
		return bgagent.TurnEnd{Text: t.text}, ctx.Err()
	default:
		return bgagent.TurnEnd{Stop: t.stop, Text: t.text}, nil
	}
}

// StartTurn implements [bgagent.TurnStarter]. It does not start a turn for a prompt whose id
// the session has already accepted.
func (s Starter) StartTurn(ctx context.Context, id string, p bgagent.Prompt) error {
	f := s.Fake
	return f.act(ctx, Call{Kind: CallTurn, Session: id}, func() error {
		if f.repeated(id, p.ID) {
			return nil
		}
		t, err := f.open(ctx, id, p, false, nil)
		if err != nil {
			return err
		}
		go t.play()
		return nil
	})
}

// The method "open" begins a turn in the session, or returns an error if the prompt is refused.
func (f *Fake) open(ctx context.Context, id string, p bgagent.Prompt, runner bool, r *bgagent.Reporter) (*Turn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[id]
	switch {
	case f.isDead():
		return nil, errDead
	case f.closed:
		return nil, fmt.Errorf("%s: is closed", f.kind)
	case s == nil:
		if f.forgotten[id] {
			f.book.wrong("session %s was prompted after it was forgotten (%s)", id, p.ID)
		}
		return nil, fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
	case s.run != nil || s.busy:
		f.book.wrong("session %s was prompted in the middle of a turn (%s)", id, p.ID)
		return nil, fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrBusy)
	}
	if s.client != f && runner && !f.NoRestore {
		f.book.wrong("session %s of an earlier process was prompted before it was restored (%s)", id, p.ID)
	}
	if p.Unanswered == "" && p.Text != "" && p.Text == s.unanswered {
		f.book.wrong("session %s got a prompt again that the provider has refused and that the session keeps (%s)", id, p.ID)
	}
	s.turns++
	t := &Turn{Prompt: p, N: s.turns, f: f, s: s, caller: ctx, done: make(chan struct{}), runner: runner, r: r, first: len(s.messages)}
	t.ctx, t.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if runner {
		t.unhook = context.AfterFunc(ctx, t.callerLeft)
	}
	t.model = p.Model
	if t.model == "" {
		t.model = s.spec.Model
	}
	s.run = t
	f.turns.Add(1)
	t.receipt = f.book.begins(t)
	s.prompts[p.ID] = t.receipt
	f.statusLocked(s, bgagent.SessionStatus{State: bgagent.SessionBusy})
	if runner || !f.continuesLocked(s, p) {
		f.putLocked(s, bgagent.Message{ID: f.messageIDLocked(s), Role: bgagent.RoleUser, PromptID: p.ID, Text: p.Text, Finished: true, Time: time.Now()})
	}
	return t, nil
}

// continuesLocked gives the message of the unanswered prompt the id of the prompt that continues
// its turn. It returns false if the new turn gets its own prompt message.
func (f *Fake) continuesLocked(s *session, p bgagent.Prompt) bool {
	if !f.Continues || p.Unanswered == "" {
		return false
	}
	i := slices.IndexFunc(s.messages, func(msg bgagent.Message) bool {
		return msg.PromptID == p.Unanswered || msg.PromptID != "" && s.continued[msg.PromptID] == p.Unanswered
	})
	if i < 0 {
		return false
	}
	s.rev++
	s.again, s.againAt = s.rev, i
	s.continued[p.ID] = p.Unanswered
	msg := &s.messages[i]
	msg.PromptID = p.ID
	changed := *msg
	f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s.id, Message: &changed})
	return true
}

func (f *Fake) messageIDLocked(s *session) string {
	s.nmsg++
	return "msg_" + strconv.Itoa(s.nmsg)
}

// putLocked adds a message or changes the newest message in the session. Older messages never
// change, so messages and their revisions have the same order.
func (f *Fake) putLocked(s *session, msg bgagent.Message) {
	s.rev++
	msg.Tools = slices.Clone(msg.Tools)
	if i := len(s.messages) - 1; i >= 0 && s.messages[i].ID == msg.ID {
		s.messages[i], s.revs[i] = msg, s.rev
	} else {
		s.messages, s.revs = append(s.messages, msg), append(s.revs, s.rev)
	}
	f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s.id, Message: &msg})
}

func (f *Fake) statusLocked(s *session, st bgagent.SessionStatus) {
	s.state = st
	f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: s.id, Status: st})
}

// Statuses implements [bgagent.TurnStarter].
func (s Starter) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	f := s.Fake
	after, lie, err := f.begin(ctx, Call{Kind: CallStatuses})
	if err != nil {
		return nil, err
	}
	out := make(map[string]bgagent.SessionStatus, len(ids))
	f.mu.Lock()
	for _, id := range ids {
		s := f.sessions[id]
		switch {
		case s == nil:
			out[id] = bgagent.SessionStatus{State: bgagent.SessionGone}
		case lie:
			out[id] = bgagent.SessionStatus{State: bgagent.SessionIdle, Revision: strconv.Itoa(s.rev)}
		default:
			st := s.state
			if s.busy {
				st.State = bgagent.SessionBusy
			}
			st.Revision = strconv.Itoa(s.rev)
			out[id] = st
		}
	}
	f.mu.Unlock()
	if err := after(); err != nil {
		return nil, err
	}
	return out, nil
}

// Messages implements [bgagent.MessageReader].
func (f *Fake) Messages(ctx context.Context, id string, from bgagent.Cursor, most int) (page bgagent.Page, err error) {
	after, lie, err := f.begin(ctx, Call{Kind: CallMessages, Session: id})
	if err != nil {
		return page, err
	}
	since := 0
	if from != "" {
		if since, err = strconv.Atoi(string(from)); err != nil {
			return page, fmt.Errorf("%s: session %q: the cursor %q is not one of this client's", f.kind, id, from)
		}
	}
	f.mu.Lock()
	s := f.sessions[id]
	if s == nil {
		f.mu.Unlock()
		return page, fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
	}
	if s.again > since && s.revs[s.againAt] <= since && !lie { // the message with the new id keeps its old place, so it is added to the page without moving the cursor
		page.Messages = append(page.Messages, s.messages[s.againAt])
		if most > 0 {
			most++
		}
	}
	for i, msg := range s.messages {
		if s.revs[i] <= since || lie {
			continue
		}
		if most > 0 && len(page.Messages) == most {
			page.More = true
			break
		}
		msg.Tools = slices.Clone(msg.Tools)
		page.Messages = append(page.Messages, msg)
		since = s.revs[i]
	}
	f.mu.Unlock()
	page.Next = bgagent.Cursor(strconv.Itoa(since))
	if err := after(); err != nil {
		return bgagent.Page{}, err
	}
	return page, nil
}
