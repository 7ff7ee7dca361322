package hammer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
)

// starterHost implements TurnStarter and the optional client interfaces for messages, todos,
// sessions and events.
type starterHost struct {
	*host
	life *life
}

func (f *starterHost) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	return f.create(ctx, f.life, s)
}

func (f *starterHost) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	began := time.Now()
	l := f.life
	a := f.enter(l, "hand-over", session, p)
	if a == nil {
		return l.never(ctx)
	}
	defer f.o.end(a)
	r := f.o.draw("start", session)
	if err := f.unreachable(ctx, r); err != nil {
		f.o.refuse(l, p, began)
		return err
	}
	if f.o.broken(r) && r.IntN(2) == 0 { // the call fails even though the host accepted the prompt
		f.accept(session, p)
		if err := f.mishap(ctx, r); err != nil {
			return err
		}
		return errors.New("accepted, but failed")
	}
	if err := f.mishap(ctx, r); err != nil {
		return err
	}
	if e := f.refusal(p, r); e != nil {
		var how *bgagent.ProviderError
		if errors.As(e, &how) && how.Next == bgagent.NextContinue && p.Notice != nil && !l.over.Load() {
			f.o.told(*p.Notice, "as a turn that was refused") // the session received the notice although the turn is refused
		}
		return e
	}
	f.accept(session, p)
	if t, err := l.m.Get(p.Task); p.Notice != nil && ctx.Err() == nil && err == nil && !t.Status.Terminal() && t.Attempt == p.Attempt {
		f.o.told(*p.Notice, "as a turn")
	}
	return nil
}

func (f *starterHost) accept(session string, p bgagent.Prompt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if f.life.over.Load() { // the process ended before the prompt arrived
		return
	}
	if s == nil || s.gone || s.prompts[p.ID] {
		return
	}
	s.prompts[p.ID] = true
	a := &activity{what: "turn", key: attemptKey{p.Task, p.Attempt}, model: p.Model, agent: p.Agent, prompt: p.ID}
	if old := s.run; old != nil {
		close(s.stop) // ends the old turn, which is still running although it was reported as ended
		f.o.end(old)
	}
	s.run, s.stop = a, make(chan struct{})
	f.putLocked(s, bgagent.Message{ID: p.ID, Role: bgagent.RoleUser, PromptID: p.ID, Text: p.Text, Finished: true})
	f.o.begin(a, false)
	f.tellLocked(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: bgagent.SessionBusy}})
	go f.turn(s, a, s.stop, p)
}

// The method "turn" simulates the turn of an accepted prompt.
func (f *starterHost) turn(s *hostSession, a *activity, stop chan struct{}, p bgagent.Prompt) {
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
		if f.pause(ctx, workTime(r), deaf) != nil {
			break
		}
		msg.ID = fmt.Sprintf("%s-%d", p.ID, i)
		switch r.IntN(5) {
		case 0:
			f.put(s, msg)
		case 1:
			msg.Tools = []bgagent.MessageTool{{ID: msg.ID, Name: "tool", State: bgagent.ToolRunning}}
			f.put(s, msg)
			_ = f.pause(ctx, workTime(r), deaf)
			msg.Tools[0].State = bgagent.ToolDone
			f.put(s, msg)
		case 2:
			f.asks(s, true)
			_ = f.pause(ctx, workTime(r), deaf)
			f.asks(s, false)
		case 3:
			f.mu.Lock()
			s.todos = []bgagent.Todo{{Text: "more", State: bgagent.TodoState(r.IntN(4))}}
			f.mu.Unlock()
		default:
			if !f.o.isHealed() {
				f.acts(ctx, f.o.manager(), s.id, r)
			}
		}
	}
	_ = f.pause(ctx, workTime(r), deaf)
	msg = bgagent.Message{ID: p.ID + "-end", Role: bgagent.RoleAgent, Text: text, Finished: true, Stop: bgagent.StopEndOfTurn}
	if f.o.broken(r) {
		switch r.IntN(4) {
		case 0:
			msg.Stop = bgagent.StopReason(r.IntN(9))
		case 1:
			msg.Finished, msg.Stop = false, bgagent.StopUntold
		case 2:
			msg.ID = "" // the turn ends without a final message
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
			return // the event is lost
		case 1:
			f.tell(idle) // the event is sent twice
		}
		_ = f.pause(context.Background(), workTime(r), false) // the event is delayed
	}
	f.tell(idle)
}

func (f *starterHost) asks(s *hostSession, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.asking = on
}

func (f *starterHost) put(s *hostSession, msg bgagent.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.run == nil { // the turn ended together with the process
		return
	}
	msg.Tools = slices.Clone(msg.Tools)
	f.putLocked(s, msg)
	f.tellLocked(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s.id, Message: &msg})
}

func (f *starterHost) putLocked(s *hostSession, msg bgagent.Message) {
	f.rev++
	for i := range s.messages {
		if s.messages[i].ID == msg.ID {
			s.messages[i], s.revs[i] = msg, f.rev
			return
		}
	}
	s.messages, s.revs = append(s.messages, msg), append(s.revs, f.rev)
}

func (f *starterHost) tell(e bgagent.HostEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tellLocked(e)
}

func (f *starterHost) tellLocked(e bgagent.HostEvent) {
	if f.emit != nil {
		f.emit(e)
	}
}

// Abort stops the turn. As an injected fault, it may return nil without stopping the turn.
func (f *starterHost) Abort(ctx context.Context, session string) error {
	if f.life.over.Load() {
		return f.life.never(ctx)
	}
	f.o.abort(session)
	r := f.o.draw("abort", session)
	if err := f.mishap(ctx, r); err != nil {
		return err
	}
	if f.o.broken(r) && r.IntN(2) == 0 {
		return nil // the turn continues
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

// vanish deletes a session and immediately ends its turn.
func (f *host) vanish(session string) {
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

// The method "lie" marks the running turn of the session, because the manager gets a false event about
// the session.
func (f *host) lie(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sessions[session]; s != nil && s.run != nil {
		f.o.mu.Lock()
		s.run.lied = true
		f.o.mu.Unlock()
	}
}

func (f *starterHost) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	if f.life.over.Load() {
		return nil, f.life.never(ctx)
	}
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
				continue // the status is missing from the result
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

func (f *starterHost) Messages(ctx context.Context, session string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	if f.life.over.Load() {
		return bgagent.Page{}, f.life.never(ctx)
	}
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

func (f *starterHost) Todos(ctx context.Context, session string) ([]bgagent.Todo, error) {
	if f.life.over.Load() {
		return nil, f.life.never(ctx)
	}
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

func (f *starterHost) FindSession(ctx context.Context, session string) (bgagent.SessionInfo, error) {
	if f.life.over.Load() {
		return bgagent.SessionInfo{}, f.life.never(ctx)
	}
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

func (f *starterHost) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	r := f.o.draw("events", "")
	f.mu.Lock()
	f.emit, f.emitsTo = emit, f.life
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		if f.emitsTo == f.life {
			f.emit = nil
		}
		f.mu.Unlock()
	}()
	emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.o.heal: // after a call to healAll, there are no heartbeats, so polls must suffice
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
