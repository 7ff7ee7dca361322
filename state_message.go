package bgagent

import (
	"slices"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The code in this file handles the messages that are sent to tasks. The state calls a message a
// letter. In the lines below, the text before a colon is an event or a function, and the text after
// it is the result.
//
//	send -> accepted -> the turn is over: park, lineUp -> nextTurn: current -> handed over: in the turn
//	     -> the attempt ends first: unconsumed
//	send, now -> uncertain -> taken by the client: in the turn -> the turn is lost: accepted
//
// An attempt with an accepted letter waits like an attempt with live tasks; see state_park.go. Letters
// come before notices. With a store, a letter is withdrawn if its acceptance cannot be written.
// This is safe because a turn cannot receive a letter before the letter is durable: the prompt of a
// turn is handed over only after all changes of the task are durable.

// mailbox holds the letters of a task.
type mailbox struct {
	letters []*letter // in the order they were accepted; old letters that are no longer needed are dropped
	last    int32     // number of the latest letter
	waiting int       // number of letters in the state MessageAccepted
	current *letter   // letter that is the prompt of the attempt's latest turn, or of the turn about to begin; nil if there is none
	joined  answers
}

// letter is a message sent to a task.
type letter struct {
	key    string
	about  string // beginning of the text
	text   string // empty once the turn that received the letter is over, or the attempt has ended
	name   string // with a store, name of the text; can be empty if the letter was loaded
	answer string // text of the letter's turn; empty once the attempt has ended

	answerName string // with a store, name of the answer; empty if it was not needed yet
	no         int32  // number of the letter, counted from 1
	attempt    int32
	turn       int32 // number of the turn that received the letter or that the letter must join; 0 if there is none
	state      MessageState

	now       bool  // the letter joins a running turn
	unsent    bool  // Steer has not been called for the letter yet
	steering  bool  // a call to Steer for the letter is in progress
	lost      bool  // the turn that the letter was meant to join is lost, but the call to Steer is still in progress
	callers   int32 // number of calls to Send that wait until the letter is durable
	withdrawn bool
	refused   bool // the letter was withdrawn because the store refuses the record of its task
}

// id returns the id of the letter, which is unique in the session.
func (l *letter) id(t *task) string { return t.id() + ".m" + itoa(int(l.no)) }

// The method "mail" returns the task's mailbox, or nil if nobody has sent the task a message.
func (t *task) mail() *mailbox {
	if t.more == nil {
		return nil
	}
	return t.more.mail
}

// lettersWaiting returns the number of accepted letters that no turn has received yet.
func (t *task) lettersWaiting() int {
	if b := t.mail(); b != nil {
		return b.waiting
	}
	return 0
}

// find returns the letter with the key, or nil.
func (b *mailbox) find(key string) *letter {
	if b == nil || key == "" {
		return nil
	}
	for _, l := range b.letters {
		if l.key == key {
			return l
		}
	}
	return nil
}

// The method "set" changes the state of a letter.
func (b *mailbox) set(l *letter, s MessageState) {
	if l.state == MessageAccepted {
		b.waiting--
	}
	if l.state = s; s == MessageAccepted {
		b.waiting++
	}
}

// The method "trim" drops the oldest letters that are no longer needed.
func (b *mailbox) trim() {
	for i := 0; len(b.letters) > messagesKept && i < len(b.letters); {
		if l := b.letters[i]; l.text != "" || l.answer != "" || l.state == MessageAccepted || l == b.current || l.unsent || l.steering || l.callers > 0 {
			i++
			continue
		}
		b.letters = slices.Delete(b.letters, i, i+1)
	}
}

// The method "unsettled" reports whether the resume that opened the task's attempt can still be
// withdrawn.
func (st *state) unsettled(t *task) bool {
	if st.storing == nil {
		return false
	}
	m := st.storing.tasks[t]
	return m != nil && m.undo != nil
}

// The method "send" accepts a message for a task and returns its letter. If the task already has a
// letter with the same key, send returns that letter instead. The result "unsettled" is true if the
// caller must wait because the task's attempt can still be withdrawn. If the argument "again" is
// true, the key is valid only until the task is resumed.
func (st *state) send(by Caller, ref string, in SendInput, again bool, now int64) (t *task, l *letter, unsettled bool, err error) {
	t, tomb, err := st.ref(by, ref)
	switch {
	case err != nil:
		return nil, nil, false, err
	case tomb != nil:
		return nil, nil, false, &ExpiredError{ID: tomb.id, Status: tomb.status, Session: tomb.sessionID()}
	}
	if again && in.Key != "" {
		in.Key += "." + itoa(int(t.opened()))
	}
	if l := t.mail().find(in.Key); l != nil {
		st.awaitLetter(l)
		return t, l, false, nil
	}
	switch {
	case st.closing:
		return t, nil, false, ErrClosed
	case !t.live() && !st.kept(t):
		return t, nil, false, stillLive(t.id(), st.shown(t))
	case !t.live():
		return t, nil, false, sentTooLate(t.id(), t.status)
	case mdtext.Invisible(in.Text):
		return t, nil, false, textMissing()
	}
	if err := st.storeFails(); err != nil {
		return t, nil, false, err
	}
	switch {
	case st.isRefused(t):
		return t, nil, false, recordRefused(t.id())
	case st.unsettled(t):
		return t, nil, true, nil
	case in.Now && !st.inTurn(t):
		return t, nil, false, notInTurn(t.id())
	case in.Now && !t.kind.cl.steers:
		return t, nil, false, cannotSteer(t.kind.key.agent)
	case in.Now && t.joining() >= messagesJoining:
		return t, nil, false, tooManyJoin(t.id(), messagesJoining)
	case !in.Now && t.lettersWaiting() >= messagesWaiting:
		return t, nil, false, tooManyWait(t.id(), messagesWaiting)
	}
	l = st.accept(t, in)
	st.awaitLetter(l)
	return t, l, false, nil
}

// awaitLetter is called when a call to Send must wait until the letter is durable.
func (st *state) awaitLetter(l *letter) {
	if st.storing != nil {
		l.callers++
	}
}

// The method "accept" adds a letter to the mailbox of a live task.
func (st *state) accept(t *task, in SendInput) *letter {
	x := t.extra()
	if x.mail == nil {
		x.mail = &mailbox{}
	}
	b := x.mail
	b.last++
	l := &letter{key: in.Key, text: in.Text, about: mdtext.Joined(in.Text, messageAbout), no: b.last, attempt: t.no, now: in.Now}
	if l.key == "" {
		l.key, _ = st.newID("bgm_", "")
	}
	if st.storing != nil {
		l.name = textOf("message", l.no) + "." + contentID(l.text)
	}
	b.letters = append(b.letters, l)
	b.trim()
	if a := t.run; a != nil && !a.recovering {
		a.late = false // the caller wants another turn, no matter how old the attempt is
	}
	if l.now {
		l.state, l.turn, l.unsent = MessageUncertain, t.run.turn, true
	} else {
		b.set(l, MessageAccepted)
	}
	st.letterChanged(t)
	return l
}

// letterChanged records an urgent change to a letter and reports it. If the task's attempt is
// parked, the method "settle" checks whether its next turn is due, or whether nothing is left
// to wait for.
func (st *state) letterChanged(t *task) {
	st.mustKeep(t)
	st.emit(EventMessage, t)
	if a := t.run; a != nil && a.live() && a.takesLetter() {
		st.touchAttempt(a)
	}
}

// sendResult describes the letter to the caller of Send.
func (st *state) sendResult(t *task, l *letter) SendResult {
	r := SendResult{Key: l.key, State: l.state, Attempt: int(l.attempt)}
	switch {
	case l.state == MessageInTurn:
		r.Turn = int(l.turn)
	case !l.now && l.state != MessageAccepted && t.no == l.attempt && !t.live() && !st.kept(t):
		r.State = MessageAccepted // the end of the attempt is not shown yet
	}
	if t.hasRecord() {
		r.Task = st.fullSnapshot(t)
	}
	return r
}

// hasLetter reports whether the acceptance of the letter is durable.
func (st *state) hasLetter(t *task, l *letter) bool {
	if l.name == "" { // the letter has no record to wait for: there is no store, or the letter was loaded from it
		return true
	}
	m := st.storing.tasks[t]
	if m == nil { // the task has expired
		return !l.withdrawn
	}
	in, has := m.texts[l.name]
	return has && in <= st.storing.committed
}

// letterAnswered is called when a call to Send is no longer waiting for the letter. It withdraws a
// letter that is not durable if writes fail or if no other call waits for it.
func (st *state) letterAnswered(t *task, l *letter, now int64) (kept, uncertain bool) {
	l.callers--
	switch {
	case l.withdrawn:
		return false, !l.refused
	case st.hasLetter(t, l):
		if t.no != l.attempt || !t.live() || l.now && !l.lost && !t.mayLose(l) {
			t.dropText(l)
		}
		return true, false
	case l.callers > 0 && !st.storing.failing && !st.storing.over && !st.isRefused(t):
		return false, true
	}
	if m := st.storing.tasks[t]; m != nil {
		_, uncertain = m.texts[l.name]
	}
	st.unsend(t, l)
	return false, uncertain
}

// refuseLetters withdraws the letters that are not durable, because the store refuses the task's
// record. Otherwise, the next turn could receive the letters, because the turn does not wait for a
// record that the store refuses.
func (st *state) refuseLetters(t *task) {
	b := t.mail()
	if b == nil || !t.hasRecord() {
		return
	}
	for _, l := range slices.Clone(b.letters) {
		if !st.hasLetter(t, l) {
			l.refused = true
			st.unsend(t, l)
		}
	}
}

// unsend withdraws a letter that no turn has received.
func (st *state) unsend(t *task, l *letter) {
	b := t.mail()
	if l.withdrawn = true; !t.hasRecord() {
		return
	}
	b.set(l, MessageRefused)
	b.letters = slices.DeleteFunc(b.letters, func(x *letter) bool { return x == l })
	if b.current == l {
		b.current = nil
		if a := t.run; a != nil && a.live() && a.stage == stagePrompt && !a.inCall {
			st.parkInstead(a)
		}
	}
	st.letterSettled(t)
}

// letterSettled records an urgent change to a letter whose task might have ended. An end that is
// already visible must stay visible, so after the end nothing waits for the change.
func (st *state) letterSettled(t *task) {
	switch s := st.storing; {
	case t.live() && (s == nil || !s.over):
		st.letterChanged(t)
	case s != nil:
		st.changed(t)
		s.urgent = true
	}
}

// letterDue asks for a slot for the turn of the next letter, if there is a letter.
func (st *state) letterDue(a *attempt, now int64) {
	switch {
	case a.wantTurn || a.t.lettersWaiting() == 0 || st.closing || st.recovery.due || st.isLost():
	case a.late:
		st.end(a.t, CauseInterrupted, st.lateFor, now)
	default:
		st.lineUp(a)
	}
}

// nextLetter makes the oldest accepted letter the prompt of the next turn. It returns false if there is
// none.
func (st *state) nextLetter(a *attempt) bool {
	b := a.t.mail()
	if b == nil {
		return false
	}
	b.current = nil
	for _, l := range b.letters {
		if l.state == MessageAccepted {
			b.current, a.prompt = l, l.text
			return true
		}
	}
	return false
}

// handedOver records that the new turn has received the current letter or, if sure is false, that
// it might have received it.
func (st *state) handedOver(a *attempt, sure bool) {
	b := a.t.mail()
	if b == nil || b.current == nil || b.current.state != MessageAccepted {
		return
	}
	b.current.turn = a.turn
	if sure {
		b.set(b.current, MessageInTurn)
	} else {
		b.set(b.current, MessageUncertain)
	}
	st.emit(EventMessage, a.t)
}

// notHandedOver records that the prompt of a turn did not reach the session and will be handed over
// again.
func (a *attempt) notHandedOver() {
	if b := a.t.mail(); b != nil && b.current != nil && b.current.state == MessageInTurn {
		b.set(b.current, MessageAccepted)
		b.current.turn = 0
		a.t.st.changed(a.t)
	}
}

// endMail is called when the task's attempt ends, after its result has been captured.
func (t *task) endMail() {
	b := t.mail()
	if b == nil {
		return
	}
	// If the host call with the prompt has begun, a current letter in the state MessageAccepted is
	// being handed over.
	a := t.run
	begun := a != nil && (a.inCall || a.stage == stageNone || a.recovering || a.loose)
	for _, l := range b.letters {
		switch {
		case l.lost: // the client might still accept the letter, but no turn will receive it
			l.now, l.lost = false, false
			b.set(l, MessageUnconsumed)
		case l.state != MessageAccepted:
		case l == b.current && begun:
			b.set(l, MessageUncertain)
		default:
			b.set(l, MessageUnconsumed)
		}
		if l.answer, l.answerName = "", ""; t.st.hasLetter(t, l) {
			t.dropText(l)
		}
	}
	b.current, b.joined = nil, answers{}
}

// dropText drops the text of a letter that no turn will receive. Before the letter is durable, its
// text must not be dropped, because the text shows whether the letter is durable.
func (t *task) dropText(l *letter) {
	if l.text != "" {
		l.text = ""
		t.st.changed(t)
	}
}

// forwardMail passes the letters of a superseded attempt on to the next attempt. It returns the
// prompt: the given request, followed by the letters that the interrupted turn had received.
func (st *state) forwardMail(a, next *attempt, request string) string {
	b := a.t.mail()
	if b == nil {
		return request
	}
	if b.current != nil { // the interrupted turn was answering a letter, so the text of the turns before it is kept
		next.text, next.output = a.text, a.output
	}
	for _, l := range b.letters {
		if l.attempt != a.no {
			continue
		}
		l.attempt = next.no
		b.joined = answers{}
		if l.state == MessageInTurn && l.text != "" {
			request = joined(request, l.text)
			l.turn, l.now = 1, false // the letter is part of the prompt, so it is not sent again
		}
	}
	return request
}

// The method "unconsumed" lists messages for the attempt with the given number. As far as the manager
// knew when the attempt ended, no turn had received these messages.
func (t *task) unconsumed(no int32) (list []UnconsumedMessage) {
	b := t.mail()
	if b == nil {
		return nil
	}
	for _, l := range b.letters {
		if l.attempt == no && !l.now && (l.state == MessageUnconsumed || l.state == MessageUncertain) {
			list = append(list, UnconsumedMessage{l.key, l.about, l.state == MessageUncertain})
		}
	}
	return list
}
