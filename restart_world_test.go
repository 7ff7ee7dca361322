package bgagent_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// world holds everything that outlives a process: a store, and the sessions of a runner with the
// prompts that they received.
type world struct {
	t      *testing.T
	memory storetest.Memory
	told   inbox
	cfg    bgagent.Config
	client func(*life) bgagent.SessionClient // if set, makes the client of each process; this client also gets the notices

	mu           sync.Mutex
	n            int
	sessions     map[string][]*heard
	work         time.Duration       // length of a turn
	answer       bgagent.PromptState // if set, what every restore call answers
	found        string              // text of the answer that restore calls find
	ending       bgagent.TurnEnd     // end of the turn that restore calls find, without its text
	restored     []bgagent.SessionRestore
	restores     func(bgagent.SessionRestore) bool // reports whether the process ends during the restore call
	restoreFails error                             // error of RestoreSession; nil means that it succeeds
	life         *life
	failed       bool
	broke        bool                      // writes fail
	seen         func(ctx context.Context) // called with the context of each turn
	start        time.Duration             // length of a CreateSession call
	abort        time.Duration             // length of an Abort call
	hangs        bool                      // turns ignore their contexts
	calls        []string                  // names of the client's methods that were called
	last         bgagent.Prompt            // last prompt that a session got
	keys         []string                  // keys passed to CreateSession

	reports func(session string, p bgagent.Prompt, r *bgagent.Reporter) // reports the progress of a turn when it begins
	refuse  func(session string, p bgagent.Prompt) error                // if it returns an error, the provider refuses the turn
	bills   func(ctx context.Context, r *bgagent.Reporter)              // runs alongside each turn until the turn ends
}

// The type "heard" is one prompt that a session received.
type heard struct {
	prompt   bgagent.Prompt
	answered bool
}

// life is one process with its manager.
type life struct {
	w     *world
	store *storetest.Process
	m     *bgagent.BackgroundManager
	dead  chan struct{}
}

func newWorld(t *testing.T) *world {
	return &world{t: t, found: "found", sessions: map[string][]*heard{}, work: time.Minute}
}

// The method "begin" starts a new process. The previous process must have ended.
func (w *world) begin() *bgagent.BackgroundManager {
	w.t.Helper()
	l := &life{w: w, store: w.memory.Process(), dead: make(chan struct{})}
	cfg := w.cfg
	cfg.Store, cfg.Notify = l.store, l.notify
	var client bgagent.SessionClient = l
	if w.client != nil {
		client, cfg.Notify = w.client(l), nil
	}
	var err error
	l.m, err = bgagent.New(client, cfg)
	require.NoError(w.t, err)
	require.Empty(w.t, l.m.Restored().Damage)
	require.NoError(w.t, inside.CheckUnchanged(l.m))
	inside.CheckAlways(l.m, func(err error) { w.broken(err) })
	w.life = l
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = l.m.Close(ctx)
	})
	return l.m
}

// The method "crash" ends the process. From then on, its calls have no effect. The manager is
// closed, because it would otherwise try to write for hours.
func (w *world) crash() {
	w.life.store.Crash()
	close(w.life.dead)
	synctest.Wait()
	closeNow(w.life.m)
}

func (l *life) notify(ctx context.Context, session string, n bgagent.Notice) error {
	select {
	case <-l.dead:
		return errors.New("the process is dead")
	default:
		return l.w.told.notify(ctx, session, n)
	}
}

func (l *life) CreateSession(ctx context.Context, spec bgagent.SessionSpec) (string, error) {
	l.w.mu.Lock()
	l.w.keys = append(l.w.keys, spec.Key)
	l.w.mu.Unlock()
	stopped := ctx.Done()
	if l.w.hangs {
		stopped = nil
	}
	select {
	case <-time.After(l.w.start):
	case <-stopped:
		return "", ctx.Err()
	case <-l.dead:
		return "", errors.New("the process is dead")
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.w.calls = append(l.w.calls, "CreateSession")
	l.w.n++
	id := "ses_" + strconv.Itoa(l.w.n)
	l.w.sessions[id] = nil
	return id, nil
}

func (l *life) Abort(context.Context, string) error {
	select {
	case <-l.dead:
		return errors.New("the process is dead")
	case <-time.After(l.w.abort):
	}
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if l.w.life == l {
		l.w.calls = append(l.w.calls, "Abort")
	}
	return nil
}

// The method "called" returns the names of the client's methods that were called since the
// previous call to this method.
func (w *world) called() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	names, w.calls = w.calls, nil
	return names
}

func (l *life) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	w := l.w
	if w.bills != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go w.bills(ctx, r)
	}
	if w.seen != nil {
		w.seen(ctx)
	}
	if w.reports != nil {
		w.reports(session, p, r)
	}
	if w.refuse != nil {
		if err := w.refuse(session, p); err != nil {
			return bgagent.TurnEnd{}, err
		}
	}
	s := &heard{prompt: p}
	w.mu.Lock()
	w.calls = append(w.calls, "RunTurn")
	w.sessions[session], w.last = append(w.sessions[session], s), p
	work := w.work
	w.mu.Unlock()
	stopped := ctx.Done()
	if w.hangs {
		stopped = nil
	}
	select {
	case <-time.After(work):
		w.mu.Lock()
		s.answered = true
		w.mu.Unlock()
		return bgagent.TurnEnd{Text: "answer to " + p.Text}, nil
	case <-stopped:
		return bgagent.TurnEnd{}, ctx.Err()
	case <-l.dead:
		return bgagent.TurnEnd{}, errors.New("the process is dead")
	}
}

func (l *life) RestoreSession(_ context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	w := l.w
	select {
	case <-l.dead:
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, errors.New("the process is dead")
	default:
	}
	if w.restores != nil && w.restores(r) {
		<-l.dead
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, errors.New("the process is dead")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restored, w.calls = append(w.restored, r), append(w.calls, "RestoreSession")
	if w.restoreFails != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, w.restoreFails
	}
	if w.answer != bgagent.PromptUnknown {
		end := w.ending
		end.Text = w.found
		return w.answer, end, nil
	}
	list, ok := w.sessions[r.Session]
	if !ok {
		return bgagent.PromptMissing, bgagent.TurnEnd{}, bgagent.ErrNoSession
	}
	i := slices.IndexFunc(list, func(s *heard) bool { return s.prompt.ID == r.Last.ID })
	switch {
	case i < 0:
		return bgagent.PromptMissing, bgagent.TurnEnd{}, nil
	case list[i].answered:
		return bgagent.PromptAnswered, bgagent.TurnEnd{Text: "answer to " + list[i].prompt.Text}, nil
	default:
		return bgagent.PromptInterrupted, bgagent.TurnEnd{}, nil
	}
}

// The method "takes" sets the length of the turns that begin from now on.
func (w *world) takes(work time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.work = work
}

// lastText returns the text of the last prompt that a session received.
func (w *world) lastText() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.Text
}

// The method "texts" returns the texts of all prompts that a session received.
func (w *world) texts(session string) (texts []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sessions[session] {
		texts = append(texts, s.prompt.Text)
	}
	return texts
}

// The method "prompts" returns the ids of all prompts that a session received.
func (w *world) prompts(session string) (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sessions[session] {
		ids = append(ids, s.prompt.ID)
	}
	return ids
}

func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}
