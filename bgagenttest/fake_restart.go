package bgagenttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bgagent/bgagent"
)

// Fate is what happens to a running turn when its process ends; see [Runner.NextProcess].
type Fate uint8

// The fates.
const (
	FateDefault  Fate = iota // FateCut for a runner; FateOrphan for a starter
	FateCut                  // the turn is cut off; the session keeps the prompt; a runner's text is lost, and a starter's message stays unfinished
	FateUnknown              // like FateCut, but RestoreSession returns PromptUnknown
	FateLost                 // the turn is cut off, and the session loses the prompt
	FateGone                 // the turn is cut off, and the session no longer exists
	FateAnswered             // the turn ends normally; the answer is the text written so far, or "ok" if there is none
	FateOrphan               // the turn continues until the script returns; while it is running, a runner's RestoreSession returns ErrBusy
	FateLeft                 // the turn continues until the script returns or RestoreSession ends the turn with FateCut
)

var errDead = errors.New("bgagenttest: the process of this client has ended")

// NextProcess simulates the end of the runner's process and returns the runner of the next process.
// The new runner has the same sessions, messages, records and exported fields. [Fake.Fates] decides
// what happens to each running turn.
//
// After a call to NextProcess, the manager's calls to the old runner have no effect. A call with a context
// waits until the context ends or the fake is closed, and then returns an error. A test must also close the
// old manager, so that the manager's goroutines end. NextProcess panics if it is called twice on the same
// runner.
func (r Runner) NextProcess() Runner { return Runner{r.nextProcess()} }

// NextProcess simulates the end of the starter's process and returns the starter of the next
// process. It works like [Runner.NextProcess]. A starter's server is a separate process, so
// turns continue unless [Fake.Fates] gives them another fate.
func (s Starter) NextProcess() Starter { return Starter{s.nextProcess()} }

func (f *Fake) nextProcess() *Fake {
	f.mu.Lock()
	if f.isDead() {
		f.mu.Unlock()
		panic(f.kind + ": NextProcess was called twice")
	}
	close(f.dead)
	var runs []*Turn
	for _, id := range slices.Sorted(maps.Keys(f.sessions)) {
		if run := f.sessions[id].run; run != nil && (!run.alone || !run.runner) {
			run.alone = true // must be set before the call to decide, which can end the turn
			runs = append(runs, run)
		}
	}
	f.mu.Unlock()
	for _, run := range runs {
		fate := FateDefault
		if f.Fates != nil {
			fate = f.Fates(run.Prompt)
		}
		f.decide(run, fate)
	}
	next := *f
	next.dead = make(chan struct{})
	return &next
}

// isDead reports whether the client's process has ended.
func (f *Fake) isDead() bool {
	select {
	case <-f.dead:
		return true
	default:
		return false
	}
}

// The method "never" is for calls from a process that has ended. These calls must not get an
// answer. The method returns an error after the context has ended or the fake has been closed.
func (f *Fake) never(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-f.over:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errDead
}

// The method "decide" applies the fate of a turn whose process has ended.
func (f *Fake) decide(t *Turn, fate Fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.s.run != t {
		return // the turn ended before the process did
	}
	if fate == FateDefault && t.runner {
		fate = FateCut
	}
	switch fate {
	case FateDefault, FateOrphan:
		return
	case FateLeft:
		t.left = true
		return
	}
	t.cutLocked(fate)
}

// cutLocked ends a turn before its script has returned.
func (t *Turn) cutLocked(fate Fate) {
	f, s, end := t.f, t.s, t.first+1
	switch {
	case fate == FateAnswered:
		if t.msg != nil {
			t.msg.Finished = true
			f.putLocked(s, *t.msg)
		}
		if t.msg == nil || t.text == "" { // no text follows the last tool call
			t.text = "ok"
			t.msg = &bgagent.Message{ID: f.messageIDLocked(s), Role: bgagent.RoleAgent, Text: t.text, Finished: true}
		}
		t.msg.Stop = bgagent.StopEndOfTurn
		f.putLocked(s, *t.msg)
		end = len(s.messages)
		t.receipt.state, t.receipt.end = bgagent.PromptAnswered, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: t.text}
	case fate == FateLost || fate == FateGone:
		end = t.first
		t.receipt.Lost++
		t.receipt.state = bgagent.PromptMissing
		delete(f.book.ids, t.Prompt.ID)
		if s.continued[t.Prompt.ID] != "" {
			s.messages[s.againAt].PromptID = t.Prompt.Unanswered
		}
	case fate == FateUnknown:
		t.receipt.state = bgagent.PromptUnknown
	default:
		t.receipt.state = bgagent.PromptInterrupted
	}
	if t.runner || end == t.first {
		s.messages, s.revs = s.messages[:end], s.revs[:end]
	}
	s.rev++
	t.cut, s.run = true, nil
	f.book.ends(t)
	f.statusLocked(s, bgagent.SessionStatus{State: bgagent.SessionIdle})
	if fate == FateGone {
		delete(f.sessions, s.id)
		f.emitLocked(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: s.id})
	}
	t.cancel(errDead)
}

// callerLeft is called when RunTurn's context ends. It stops the runner's turn, unless the process
// has ended and the turn continues without it.
func (t *Turn) callerLeft() {
	if t.stopped() {
		t.cancel(context.Cause(t.caller))
	}
}

// The method "stopped" reports whether the turn must stop because it was aborted or its caller's
// context has ended.
func (t *Turn) stopped() bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return t.ctx.Err() != nil || t.runner && !t.alone && t.caller.Err() != nil
}

// The method "reporter" returns the turn's reporter. After the end of the process, it returns nil.
// A nil reporter drops all reports.
func (t *Turn) reporter() *bgagent.Reporter {
	if t.f.isDead() {
		return nil
	}
	return t.r
}

// SaveState passes data for the next process to the manager; see [bgagent.Reporter.SaveState].
// [Fake.Restored] shows whether the next manager has passed the data to RestoreSession. For a
// starter, SaveState has no effect.
func (t *Turn) SaveState(data []byte) { t.reporter().SaveState(data) }

// Home implements [bgagent.SessionHome]. It returns the field Place.
func (f *Fake) Home() string { return f.Place }

// RestoreSession implements [bgagent.SessionRestorer]. A turn of an earlier process can still be
// running in the session. If the fate of that turn is [FateLeft] and its prompt has the instance
// in.Instance, RestoreSession terminates the turn. Otherwise, the error matches [bgagent.ErrBusy].
// If the session does not exist, the error matches [bgagent.ErrNoSession].
func (r Runner) RestoreSession(ctx context.Context, in bgagent.SessionRestore) (state bgagent.PromptState, end bgagent.TurnEnd, err error) {
	f := r.Fake
	if f.NoRestore {
		return state, end, fmt.Errorf("%s has NoRestore: %w", f.kind, errors.ErrUnsupported)
	}
	after, lie, err := f.begin(ctx, Call{Kind: CallRestore, Session: in.Session})
	if err != nil {
		return state, end, err
	}
	if !lie {
		state, end, err = f.restore(in)
	}
	if late := after(); late != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, late
	}
	return state, end, err
}

func (f *Fake) restore(in bgagent.SessionRestore) (state bgagent.PromptState, end bgagent.TurnEnd, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isDead() {
		return state, end, errDead
	}
	f.restored = append(f.restored, in)
	s := f.sessions[in.Session]
	if s == nil {
		return bgagent.PromptMissing, end, fmt.Errorf("%s: session %q: %w", f.kind, in.Session, bgagent.ErrNoSession)
	}
	if t := s.run; t != nil {
		if !t.left || t.Prompt.Instance != in.Instance {
			return state, end, fmt.Errorf("%s: session %q: %w", f.kind, in.Session, bgagent.ErrBusy)
		}
		t.cutLocked(FateCut)
	}
	s.client = f
	if x := s.prompts[in.Last.ID]; x != nil {
		return x.state, x.end, nil
	}
	return bgagent.PromptMissing, end, nil
}

// Restored returns the arguments of the calls to RestoreSession that took effect, oldest first.
func (f *Fake) Restored() []bgagent.SessionRestore {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.restored)
}

// Receipt describes how often a session has received a prompt. A manager must not send a prompt
// again to a session that might have it. Therefore, Times must not be greater than Lost+1. If it
// is, [Fake.Violations] reports the prompt.
type Receipt struct {
	Session string
	ID      string // id of the prompt
	Text    string // text of the prompt
	Times   int    // number of turns that the prompt has begun in the session
	Lost    int    // number of those turns that were lost together with the prompt
	Repeats int    // number of calls to StartTurn that did not begin a turn, because the session already had the prompt
}

// The type "received" is the record of a prompt that a session has received.
type received struct {
	Receipt
	state bgagent.PromptState // state of the prompt in the session; valid if no turn of the prompt is running
	end   bgagent.TurnEnd
}

// Received returns a receipt for each prompt of each session. The receipts are in the order
// the prompts first arrived. They include the prompts of sessions that no longer exist.
func (f *Fake) Received() []Receipt {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Receipt, len(f.book.received))
	for i, x := range f.book.received {
		list[i] = x.Receipt
	}
	return list
}

type receiptKey struct{ session, id, text string }

// The method "receives" counts the arrival of the turn's prompt, and returns the prompt's record.
func (b *book) receives(t *Turn) *received {
	key := receiptKey{t.s.id, t.Prompt.ID, t.Prompt.Text}
	x := b.receipts[key]
	if x == nil {
		x = &received{Receipt: Receipt{Session: key.session, ID: key.id, Text: key.text}}
		b.received, b.receipts[key] = append(b.received, x), x
	}
	x.Times++
	x.state = bgagent.PromptUnknown
	return x
}

// The method "repeated" reports whether the session already has the prompt. If so, it also counts
// the repeated call.
func (f *Fake) repeated(session, prompt string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[session]
	if s == nil || s.prompts[prompt] == nil || s.prompts[prompt].state == bgagent.PromptMissing {
		return false
	}
	s.prompts[prompt].Repeats++
	return true
}
