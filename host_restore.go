package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The code in this file continues the tasks of an earlier process. It asks the clients how far the
// sessions of these tasks got with their last prompts.

// Restored describes the store as a new manager found it.
type Restored struct {
	Tasks    int           // number of tasks that the manager loaded into memory
	Damage   []StoreDamage // records that cannot be read, or whose client is not configured; these records stay in the store
	Outdated string        // why the store might lack the latest changes; see StoreContents
	Seen     time.Time     // when the earlier manager is last known to have been running; zero if there was none
}

// Restored describes the contents of the store when the manager was created. Without a store, the
// result is empty.
func (m *BackgroundManager) Restored() Restored { return m.found }

// Start continues the tasks of an earlier process. A manager without a store does not need Start.
// Calls that launch, resume or cancel tasks, send messages, wait for tasks, or take notices also call
// Start. Calls that only read do not. Only the first call to Start has an effect. Start waits for
// the calls to Config.RestoreContext. After Close or Suspend has begun, Start does nothing. Start
// is safe for concurrent use.
func (m *BackgroundManager) Start() { _ = m.start(context.Background()) }

// restoringKey is the key of a context value that marks the contexts passed to
// Config.RestoreContext.
type restoringKey struct{}

// errRestoring is returned if Config.RestoreContext calls a method that would have to wait until
// Config.RestoreContext returns.
var errRestoring = errors.New("the call would wait for Config.RestoreContext, from which it was made")

// start does the work of Start. If ctx ends first, the method "start" returns the context's
// error, and the work continues. Every caller waits, so that no new task gets ahead of the
// tasks of the earlier process.
func (m *BackgroundManager) start(ctx context.Context) error {
	if ctx == nil {
		return errNoContext
	}
	if m.cfg.Store == nil || m.isClosed() {
		return nil
	}
	select {
	case <-m.started:
		return nil
	default:
	}
	if m.starting.CompareAndSwap(false, true) {
		m.spawn(goCall, m.recoverTasks)
	} else if ctx.Value(restoringKey{}) == m {
		return errRestoring
	}
	select {
	case <-m.started:
		return nil
	case <-m.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// recoverTasks continues the tasks of the earlier process.
func (m *BackgroundManager) recoverTasks() {
	m.startEvents()
	m.restoreContexts()
	m.learnFallbacks()
	m.update(func(st *state, now int64) {
		st.beginRecovery(time.Now(), now)
		close(m.started)
	})
}

// restoreContexts restores the context values of the earlier process's live tasks. If the context
// of a task cannot be restored, the task ends.
func (m *BackgroundManager) restoreContexts() {
	var tasks []Task
	count := 0
	m.view(func(st *state) {
		for _, t := range st.recovery.tasks {
			if !t.live() || st.recovery.outdated != "" { // the tasks of an outdated store are not continued
				continue
			}
			if count++; m.cfg.RestoreContext != nil {
				tasks = append(tasks, st.truth(t))
			}
		}
	})
	if m.cfg.RestoreContext == nil && count > 0 {
		m.update(func(st *state, _ int64) { st.logText(logNoContext, fmt.Sprintf("%d tasks", count), "") })
	}
	for _, s := range tasks {
		if m.isClosed() { // the tasks stay unchanged in the store
			return
		}
		base := context.WithValue(m.base, restoringKey{}, m)
		ctx, err := within(base, m, goCall, "Config.RestoreContext", m.cfg.CallTimeout, func(ctx context.Context) (context.Context, error) {
			ctx, err := m.cfg.RestoreContext(ctx, s)
			return ctx, lookedAt(err)
		})
		why, values := "", launchValues{}
		switch {
		case err != nil:
			why = reasonNoContext(err.Error())
		case ctx != nil:
			values = valuesOf(ctx)
		}
		m.update(func(st *state, _ int64) {
			if t, _ := st.find(s.ID); t != nil && !st.closing {
				st.giveValues(t, values, why)
			}
		})
	}
}

// busyPause is the pause before a restore call is repeated if a process of the session is still
// running.
const busyPause = time.Second

// restoreTimes is the time limit for a restore call, as a multiple of Config.CreateTimeout. The
// client first terminates processes that are still running, and some programs took more than a
// minute to load a session.
const restoreTimes = 4

// callRestore calls the client to restore the attempt's session.
func (m *BackgroundManager) callRestore(a *attempt, j *job) *attempt {
	in := *j.restore
	j.restore = nil
	var r restoredSession
	var err error
	var ctx context.Context = a.callContext()
	ends, agent, home := false, "", ""
	m.view(func(st *state) {
		home = st.storing.task(a.t).home
		agent = a.t.kind.key.agent      // copied under the lock, because a resume can replace the kind
		if ends = a.restoreEnds; ends { // the attempt's own context has ended
			ctx = m.contextOf(a.t)
		}
	})
	switch cl := m.host(a.cl); {
	case cl.starter != nil:
		r, err = m.restoreStarter(ctx, cl, in, j.cursor)
	case home != "" && a.cl.home != "" && home != a.cl.home: // the client would not find the session, and the manager would repeat the work in a new session
		err = fmt.Errorf("%w: it is on %s, and the client's sessions are on %s", ErrUnreadable, home, a.cl.home)
	default:
		r, err = m.restoreRunner(ctx, cl, in)
	}
	if r.continues, _ = m.continues(agent); err != nil {
		r.missing, r.stopped = errors.Is(err, ErrNoSession), errors.Is(err, ErrUnreadable)
		if ends && !r.missing && !r.stopped {
			m.sleep(busyPause)
		}
	}
	failed := m.failureOf(a, doingRestore, err)
	return m.answer(func(st *state, now int64) { st.restored(a, r, &failed, now) }, j)
}

// The method "continues" reports whether interrupted turns of the agent must be continued.
func (m *BackgroundManager) continues(agent string) (bool, error) {
	if m.cfg.OnRestart == nil {
		return true, nil
	}
	return within(m.base, m, goCall, "Config.OnRestart", m.cfg.CallTimeout, func(context.Context) (bool, error) {
		return m.cfg.OnRestart(agent), nil
	})
}

// restoreRunner restores the session of a runner. It repeats the call while the client reports that
// a process of the session is still running.
func (m *BackgroundManager) restoreRunner(ctx context.Context, cl *hostClient, in SessionRestore) (r restoredSession, err error) {
	if cl.restorer == nil {
		return r, nil // without a SessionRestorer, the progress of the session is unknown
	}
	most := restoreTimes * m.cfg.CreateTimeout
	end := time.Now().Add(most)
	for {
		type answer struct {
			state PromptState
			end   TurnEnd
		}
		var got answer
		got, err = within(ctx, m, goCall, "RestoreSession", most, func(ctx context.Context) (answer, error) {
			state, end, err := cl.restorer.RestoreSession(ctx, in)
			return answer{state, end}, lookedAt(err)
		})
		r.prompt, r.end = got.state, got.end
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			return restoredSession{}, nil
		case errors.Is(err, errTookTooLong): // a timeout proves nothing, so the call is repeated later
			return r, fmt.Errorf("%w: %w", ErrUnreachable, err)
		case !errors.Is(err, ErrBusy) || time.Now().After(end):
			return r, err
		}
		if !m.sleep(busyPause) {
			return r, err
		}
	}
}

// restoreStarter finds out whether a starter's session contains the last prompt. If so, the manager
// follows the turn of this prompt like any other turn.
func (m *BackgroundManager) restoreStarter(ctx context.Context, cl *hostClient, in SessionRestore, before Cursor) (r restoredSession, err error) {
	if in.Session == "" {
		return r, nil
	}
	end, gone := time.Now().Add(m.cfg.CreateTimeout), 0
	for {
		var sure bool
		r, sure, err = m.lookForPrompt(ctx, cl, in, before)
		if errors.Is(err, ErrNoSession) {
			gone++
		}
		// While a server is starting, it might report that a session does not exist. Therefore, the
		// session counts as missing only after a second report.
		if sure || err != nil && gone != 1 || time.Now().After(end) || !m.sleep(busyPause) {
			return r, err
		}
	}
}

// lookForPrompt asks once for the session's status, and for the messages after the position that
// the session had before the prompt. The result "sure" is false if the call fails, or if a turn is
// running and the messages do not show to which prompt it belongs.
func (m *BackgroundManager) lookForPrompt(ctx context.Context, cl *hostClient, in SessionRestore, before Cursor) (r restoredSession, sure bool, err error) {
	answer, err := within(ctx, m, goPoll, "Statuses", m.cfg.StatusTimeout, func(ctx context.Context) (map[string]SessionStatus, error) {
		answer, err := cl.starter.Statuses(ctx, []string{in.Session})
		return answer, lookedAt(err)
	})
	if err != nil {
		return r, false, fmt.Errorf("%w: %w", ErrUnreachable, err) // a failed call does not show whether the session exists
	}
	idle := false
	switch s := answer[in.Session]; s.State {
	case SessionGone:
		return r, false, ErrNoSession
	case SessionUnknown:
		return r, false, fmt.Errorf("%w: the status of the session could not be read", ErrUnreachable)
	case SessionIdle, SessionUntold:
		idle = true
	}
	pages, err := m.read(ctx, cl.rec, in.Session, before)
	if err != nil {
		return r, false, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	empty, ids := true, false // ids is set if the client returns the ids of prompts
	for _, p := range pages {
		for _, msg := range p.Messages {
			if msg.PromptID == in.Last.ID && in.Last.ID != "" {
				r.prompt, r.follow = PromptInterrupted, true
				return r, true, nil
			}
			empty, ids = false, ids || msg.PromptID != ""
			r.old = append(r.old, msg.ID)
		}
	}
	r.old = nil // the prompt was not found, so the messages might belong to its turn
	if !empty && !ids && before != "" {
		all, err := m.read(ctx, cl.rec, in.Session, "")
		if err != nil {
			return r, false, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		ids = slices.ContainsFunc(all, func(p Page) bool {
			return slices.ContainsFunc(p.Messages, func(msg Message) bool { return msg.PromptID != "" })
		})
	}
	whole := len(pages) > 0 && !pages[len(pages)-1].More
	switch {
	case idle && whole && (empty || ids):
		r.prompt, sure = PromptMissing, true
	case !idle && ids: // the prompt will appear soon, or another client prompted the session
	default:
		r.prompt, r.follow, sure = PromptInterrupted, true, idle || !empty
	}
	return r, sure, nil
}
