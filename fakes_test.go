package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/stretchr/testify/require"
)

// goRunner is a TurnRunner whose turns call a function that the test provides.
type goRunner struct {
	mu     sync.Mutex
	n      int
	aborts map[string]int

	create func(ctx context.Context, s bgagent.SessionSpec) (string, error) // if nil, the session gets the next id
	run    func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error)
	abort  func(ctx context.Context, session string) error
}

func (f *goRunner) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	if f.create != nil {
		return f.create(ctx, s)
	}
	return f.nextID(), nil
}

func (f *goRunner) nextID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	return "ses_" + strconv.Itoa(f.n)
}

func (f *goRunner) Abort(ctx context.Context, session string) error {
	f.mu.Lock()
	if f.aborts == nil {
		f.aborts = map[string]int{}
	}
	f.aborts[session]++
	f.mu.Unlock()
	if f.abort != nil {
		return f.abort(ctx, session)
	}
	return nil
}

func (f *goRunner) aborted(session string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.aborts[session]
}

func (f *goRunner) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return f.run(ctx, session, p, r)
}

// The type "plain" is a runner that implements no optional interfaces.
type plain struct {
	bgagent.SessionClient
	bgagent.TurnRunner
}

// The function "working" returns a runner whose turns last for d and then return an answer to the
// prompt.
func working(d time.Duration) plain {
	r := bgagenttest.NewRunner(func(t *bgagenttest.Turn) {
		t.Sleep(d)
		t.Say("answer to " + t.Prompt.Text)
	})
	return plain{r, r}
}

// The function "works" returns a function that runs turns that last for d and then return an answer
// to the prompt.
func works(d time.Duration) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
		select {
		case <-time.After(d):
			return bgagent.TurnEnd{Text: "answer to " + p.Text}, nil
		case <-ctx.Done():
			return bgagent.TurnEnd{}, ctx.Err()
		}
	}
}

// server is a TurnStarter whose behaviour the test controls.
type server struct {
	mu       sync.Mutex
	n, rev   int
	sessions map[string]*served
	prompts  []bgagent.Prompt
	reads    int // number of Messages calls
	asked    int // number of Statuses calls
	started  func(session string, p bgagent.Prompt)

	hidesPrompts bool // if set, messages do not name the prompt that they answer

	createErr, startErr, statusErr, readErr error
	statuses                                func(map[string]bgagent.SessionStatus) // changes a result of Statuses
	abort                                   func(ctx context.Context, session string) error
}

type served struct {
	state    bgagent.SessionState
	messages []bgagent.Message
	revs     []int
	aborts   int
	prompts  int
}

func newServer() *server { return &server{sessions: map[string]*served{}} }

func (f *server) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.createErr != nil {
		return "", f.createErr
	}
	f.n++
	id := "ses_" + strconv.Itoa(f.n)
	f.sessions[id] = &served{state: bgagent.SessionIdle}
	return id, nil
}

func (f *server) Abort(ctx context.Context, session string) error {
	f.mu.Lock()
	if s := f.sessions[session]; s != nil {
		s.aborts++
		s.state = bgagent.SessionIdle
	}
	abort := f.abort
	f.mu.Unlock()
	if abort != nil {
		return abort(ctx, session)
	}
	return nil
}

func (f *server) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	f.mu.Lock()
	if f.startErr != nil {
		defer f.mu.Unlock()
		return f.startErr
	}
	f.prompts = append(f.prompts, p)
	s := f.sessions[session]
	s.state = bgagent.SessionBusy
	s.prompts++
	started := f.started
	if !f.hidesPrompts {
		f.putLocked(s, bgagent.Message{ID: p.ID, Role: bgagent.RoleUser, PromptID: p.ID, Text: p.Text, Finished: true})
	}
	f.mu.Unlock()
	if started != nil {
		started(session, p)
	}
	return nil
}

func (f *server) putLocked(s *served, msg bgagent.Message) {
	f.rev++
	for i := range s.messages {
		if s.messages[i].ID == msg.ID {
			s.messages[i], s.revs[i] = msg, f.rev
			return
		}
	}
	s.messages, s.revs = append(s.messages, msg), append(s.revs, f.rev)
}

func (f *server) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.statusErr != nil {
		return nil, f.statusErr
	}
	out := map[string]bgagent.SessionStatus{}
	for _, id := range ids {
		if s := f.sessions[id]; s != nil {
			out[id] = bgagent.SessionStatus{State: s.state}
		}
	}
	if f.statuses != nil {
		f.statuses(out)
	}
	return out, nil
}

func (f *server) Messages(ctx context.Context, session string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.readErr != nil {
		return bgagent.Page{}, f.readErr
	}
	from, _ := strconv.Atoi(string(after))
	page := bgagent.Page{Next: bgagent.Cursor(strconv.Itoa(f.rev))}
	for i, msg := range f.sessions[session].messages {
		if f.sessions[session].revs[i] > from {
			page.Messages = append(page.Messages, msg)
		}
	}
	return page, nil
}

// The method "do" executes the function "change" with the server's lock held, so that a test can
// change the server while it is in use.
func (f *server) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// The method "set" changes a session's state.
func (f *server) set(session string, state bgagent.SessionState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[session].state = state
}

// The method "put" adds or changes a message from the agent.
func (f *server) put(session string, msg bgagent.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	msg.Role = bgagent.RoleAgent
	f.putLocked(f.sessions[session], msg)
}

// The method "say" ends a turn with a complete answer.
func (f *server) say(session, text string) {
	f.mu.Lock()
	id := fmt.Sprintf("msg_%d", len(f.sessions[session].messages))
	f.mu.Unlock()
	f.put(session, bgagent.Message{ID: id, Text: text, Finished: true, Stop: bgagent.StopEndOfTurn})
	f.set(session, bgagent.SessionIdle)
}

func (f *server) session(id string) served {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := *f.sessions[id]
	s.messages = slices.Clone(s.messages)
	return s
}

func (f *server) prompted() []bgagent.Prompt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.prompts)
}

// The function "manage" creates a manager whose invariants are checked after every update. The
// manager is closed at the end of the test.
func manage(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(sc, cfg)
	require.NoError(t, err)
	inside.CheckAlways(m, nil)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

// The function "bubble" runs a test in a synctest bubble, with a new manager for the client.
func bubble(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config, test func(*testing.T, *bgagent.BackgroundManager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, manage(t, sc, cfg)) })
}

var root = bgagent.Caller{Session: "root"}

// The function "launch" launches a task under the root session.
func launch(t *testing.T, m *bgagent.BackgroundManager, prompt string) bgagent.Task {
	t.Helper()
	task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
	require.NoError(t, err)
	return task
}

// The function "get" returns the current snapshot of a task.
func get(t *testing.T, m *bgagent.BackgroundManager, id string) bgagent.Task {
	t.Helper()
	task, err := m.Get(id)
	require.NoError(t, err)
	return task
}

// The function "ended" returns the snapshots of the tasks after all of them have ended.
func ended(t *testing.T, m *bgagent.BackgroundManager, ids ...string) []bgagent.Task {
	t.Helper()
	tasks, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, ids...)
	require.NoError(t, err)
	return tasks
}

// fullBatch launches one task for each slot. It checks that no slot was lost: all these
// tasks must run at the same time.
func fullBatch(t *testing.T, m *bgagent.BackgroundManager, slots int) {
	t.Helper()
	for i := range slots {
		task := launch(t, m, fmt.Sprintf("full batch %d", i))
		sourceAnswers()
		status := get(t, m, task.ID).Status
		require.Equal(t, bgagent.Running, status, "a slot was lost: task %d of %d is %s", i+1, slots, status)
	}
	_, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
	require.NoError(t, err)
}

func statuses(tasks []bgagent.Task) (out []bgagent.Status) {
	for _, task := range tasks {
		out = append(out, task.Status)
	}
	return out
}

// turnOn launches a task on a server and waits until its turn has begun.
func turnOn(t *testing.T, m *bgagent.BackgroundManager, prompt string) (id, session string) {
	t.Helper()
	id = launch(t, m, prompt).ID
	synctest.Wait()
	task := get(t, m, id)
	require.Equal(t, bgagent.PhaseTurn, task.Phase)
	return id, task.Session
}

func idle(session string) bgagent.HostEvent {
	return bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: bgagent.SessionIdle}}
}

func limit(n int) bgagent.Config {
	return bgagent.Config{Limits: bgagent.Limits{Default: n}}
}

func failing(err error) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{}, err
	}
}

func hostError(session string, stop bgagent.StopReason) bgagent.HostEvent {
	return bgagent.HostEvent{Kind: bgagent.HostError, Session: session, Stop: stop, Error: "x"}
}

// The function "untold" changes the result of Statuses to that of a client that cannot report
// statuses.
func untold(m map[string]bgagent.SessionStatus) {
	for id := range m {
		m[id] = bgagent.SessionStatus{State: bgagent.SessionUntold}
	}
}

// todoServer is a server that is a TodoReader.
type todoServer struct {
	*server
	todos []bgagent.Todo
	err   error
}

func (f *todoServer) Todos(context.Context, string) ([]bgagent.Todo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.todos, f.err
}

// notifyingServer is a server that is a Notifier.
type notifyingServer struct {
	*server
	inbox
}

func (f *notifyingServer) Notify(ctx context.Context, session string, n bgagent.Notice) error {
	return f.notify(ctx, session, n)
}

// rootServer is a server that is a Notifier and a SessionFinder.
type rootServer struct {
	*server
	inbox
	find func(string) (bgagent.SessionInfo, error)
}

func (f *rootServer) Notify(ctx context.Context, s string, n bgagent.Notice) error {
	return f.notify(ctx, s, n)
}

func (f *rootServer) FindSession(_ context.Context, s string) (bgagent.SessionInfo, error) {
	if f.find != nil {
		return f.find(s)
	}
	return bgagent.SessionInfo{}, errors.ErrUnsupported
}

// finder is a runner that is a SessionFinder.
type finder struct {
	*goRunner
	parents map[string]string
	err     error
}

func (f *finder) FindSession(_ context.Context, s string) (bgagent.SessionInfo, error) {
	if f.err != nil {
		return bgagent.SessionInfo{}, f.err
	}
	p, ok := f.parents[s]
	if !ok {
		return bgagent.SessionInfo{}, bgagent.ErrNoSession
	}
	return bgagent.SessionInfo{Parent: p, Directory: "/src"}, nil
}

// The method "answers" makes the server answer every prompt after the duration d.
func (f *server) answers(d time.Duration) *server {
	f.started = func(session string, p bgagent.Prompt) {
		go func() {
			time.Sleep(d)
			f.say(session, "answer to "+p.Text)
		}()
	}
	return f
}

func (f *server) askedFor() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func manageUnchecked(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(sc, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}
