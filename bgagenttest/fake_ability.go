package bgagenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// Notify implements [bgagent.Notifier]. It puts the notice into the session's inbox unless
// the inbox already contains the notice. For a session in a turn, it returns
// [bgagent.ErrBusy].
func (f *Fake) Notify(ctx context.Context, id string, n bgagent.Notice) error {
	return f.act(ctx, Call{Kind: CallNotify, Session: id}, func() error { return f.receive(id, n) })
}

func (f *Fake) receive(id string, n bgagent.Notice) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[id]
	switch {
	case f.isDead():
		return errDead
	case s == nil:
		return fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
	case slices.ContainsFunc(s.inbox, func(x bgagent.Notice) bool { return x.ID == n.ID }):
		return nil
	case s.run != nil || s.busy:
		return bgagent.ErrBusy
	}
	s.inbox = append(s.inbox, n)
	return nil
}

// Inbox returns the notices that the session has received, in the order of arrival. It
// returns each notice once.
func (f *Fake) Inbox(session string) []bgagent.Notice {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[session]; s != nil {
		return slices.Clone(s.inbox)
	}
	return nil
}

// SetBusy begins or ends a turn that was not started by a task, such as a user's turn in a
// root session.
func (f *Fake) SetBusy(session string, busy bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if s == nil {
		return
	}
	s.busy = busy
	st := bgagent.SessionStatus{State: bgagent.SessionIdle}
	if busy {
		st.State = bgagent.SessionBusy
	}
	f.statusLocked(s, st)
}

// Todos implements [bgagent.TodoReader].
func (f *Fake) Todos(ctx context.Context, id string) (list []bgagent.Todo, err error) {
	after, lie, err := f.begin(ctx, Call{Kind: CallTodos, Session: id})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	s := f.sessions[id]
	if s != nil && !lie {
		list = slices.Clone(s.todos)
	}
	f.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
	}
	return list, after()
}

// FindSession implements [bgagent.SessionFinder].
func (f *Fake) FindSession(ctx context.Context, id string) (bgagent.SessionInfo, error) {
	after, lie, err := f.begin(ctx, Call{Kind: CallFind, Session: id})
	if err != nil {
		return bgagent.SessionInfo{}, err
	}
	f.mu.Lock()
	s := f.sessions[id]
	f.mu.Unlock()
	if s == nil || lie {
		return bgagent.SessionInfo{}, fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
	}
	return bgagent.SessionInfo{Parent: s.spec.Parent, Directory: s.spec.Directory}, after()
}

// Agents implements [bgagent.AgentLister].
func (f *Fake) Agents(ctx context.Context) ([]bgagent.AgentInfo, error) {
	if len(f.AgentNames) == 0 {
		return nil, fmt.Errorf("%s has no AgentNames: %w", f.kind, errors.ErrUnsupported)
	}
	after, lie, err := f.begin(ctx, Call{Kind: CallAgents})
	if err != nil || lie {
		return nil, err
	}
	list := make([]bgagent.AgentInfo, len(f.AgentNames))
	for i, name := range f.AgentNames {
		list[i].Name = name
	}
	return list, after()
}

// ForgetSession implements [bgagent.SessionForgetter].
func (f *Fake) ForgetSession(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[id]
	switch {
	case s == nil || f.isDead():
	case s.run != nil:
		f.book.wrong("session %s was forgotten in the middle of a turn (%s)", id, s.run.Prompt.ID)
	default:
		delete(f.sessions, id)
		f.forgotten[id] = true
	}
}

// Delete deletes a session, as a user could. The session's turn is aborted, and the session's
// status becomes SessionGone.
func (f *Fake) Delete(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if s == nil {
		return
	}
	if s.run != nil {
		s.run.aborted = true
		s.run.cancel(errAborted)
	}
	delete(f.sessions, session)
	f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: session})
}

// stream is the state of one call to Events.
type stream struct {
	queue []bgagent.HostEvent
	wake  chan struct{}
	broke error
}

// Events implements [bgagent.EventSource]. Without Stream, it returns
// [errors.ErrUnsupported].
func (s Starter) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	f := s.Fake
	if !f.Stream {
		return fmt.Errorf("%s has no Stream: %w", f.kind, errors.ErrUnsupported)
	}
	after, lie, err := f.begin(ctx, Call{Kind: CallEvents})
	if err != nil {
		return err
	}
	st := &stream{wake: make(chan struct{}, 1)}
	f.mu.Lock()
	if !f.down {
		st.queue = []bgagent.HostEvent{{Kind: bgagent.HostStreamUp}}
		for _, s := range f.sessions {
			if s.run != nil && !s.run.runner {
				st.queue = append(st.queue, s.questionsLocked())
			}
		}
		st.wake <- struct{}{}
	}
	f.streams[st] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, st)
	}()
	var beat <-chan time.Time
	if f.Beat > 0 {
		ticker := time.NewTicker(f.Beat)
		defer ticker.Stop()
		beat = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return errors.Join(after(), ctx.Err())
		case <-f.dead:
			return f.never(ctx)
		case <-beat:
			f.mu.Lock()
			f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
			f.mu.Unlock()
		case <-st.wake:
			f.mu.Lock()
			queue, broke := st.queue, st.broke
			st.queue = nil
			f.mu.Unlock()
			for _, e := range queue {
				if !lie {
					emit(e)
				}
			}
			if broke != nil {
				return broke
			}
		}
	}
}

// emitLocked passes an event to the streams. After StreamDown, it drops the event.
func (f *Fake) emitLocked(e bgagent.HostEvent) {
	if f.down {
		return
	}
	for st := range f.streams {
		st.queue = append(st.queue, e)
		st.wakeUp()
	}
}

func (st *stream) wakeUp() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// Emit emits an event on all streams.
func (f *Fake) Emit(e bgagent.HostEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emitLocked(e)
}

// StreamDown makes the streams silently lose all events until StreamUp is called.
func (f *Fake) StreamDown() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
}

// StreamUp ends the effect of StreamDown. The streams emit HostStreamGap and then
// HostStreamUp.
func (f *Fake) StreamUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
	f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
	f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
}

// StreamBreak makes Events return the error, as when a server closes the connection.
func (f *Fake) StreamBreak(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for st := range f.streams {
		st.broke = err
		st.wakeUp()
	}
}
