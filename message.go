package bgagent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// MessageState is the state of a message that was sent to a task with [BackgroundManager.Send].
type MessageState uint8

// The states of a message. All states except MessageAccepted are final. A message sent with
// SendInput.Now is in the state MessageUncertain until the client has answered.
const (
	_                 MessageState = iota
	MessageAccepted                // the message waits to become the prompt of one of the attempt's next turns
	MessageInTurn                  // a turn of the attempt has received the message
	MessageRefused                 // the message was not accepted, and nothing was sent
	MessageUnconsumed              // the attempt ended before a turn received the message
	MessageUncertain               // it is unknown whether a turn has received the message
)

var messageStateNames = [...]string{"none", "accepted", "in the turn", "refused", "unconsumed", "uncertain"}

// String returns the name of the state in lower case, such as "in the turn".
func (s MessageState) String() string { return enumName(messageStateNames[:], uint8(s)) }

// MarshalText implements [encoding.TextMarshaler].
func (s MessageState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *MessageState) UnmarshalText(b []byte) error {
	return enumOf(s, messageStateNames[:], "state of a message", b)
}

// SendInput is a message for a task that has not ended. Text is required unless the task already
// has a message with the same Key; Send then only returns the state of that message.
type SendInput struct {
	// Key identifies the message among the messages of its task. If the task already has a message
	// with this key, Send does not send anything and returns the state of that message. If Key is
	// empty, every call sends a new message, and SendResult.Key contains the key that the manager
	// chose for it. A key has at most 200 bytes.
	Key string
	// Text is the message, at most 64 KiB. The agent gets it unchanged.
	Text string
	// If Now is set, the message joins the task's current turn, provided that the client can do
	// this (see [Steerer]). At most 20 messages join one turn. Without Now, the message becomes
	// the prompt of a separate turn.
	Now bool
}

// SendResult describes a message and its state when Send returns.
type SendResult struct {
	Key     string       // key of the message; after an error, the value of SendInput.Key
	State   MessageState // after an error: MessageRefused, or MessageUncertain if the error matches ErrUncertain
	Attempt int          // attempt to which the message belongs
	Turn    int          // number of the turn that received the message; 0 if none did
	Task    Task         // snapshot of the task; zero after an error
}

// UnconsumedMessage is an accepted message that, as far as the manager knows, no turn had received
// when the attempt ended.
type UnconsumedMessage struct {
	Key       string `json:"key"`
	Text      string `json:"text"`                // beginning of the message, in one line
	Uncertain bool   `json:"uncertain,omitempty"` // a turn might have received the message, because the attempt ended while the message was being handed over
}

// Limits for messages.
const (
	messageBytes    = 64 << 10 // longest text
	messageKeyBytes = 200      // longest key
	messagesWaiting = 20       // maximum number of a task's messages that wait for their turns
	messagesJoining = 20       // maximum number of messages that join one turn
	messagesKept    = 50       // minimum number of a task's messages whose keys are remembered
	messageAbout    = 80       // maximum number of a message's bytes that headings and lists show
)

// Errors about messages.
var (
	// ErrTooManyMessages is returned by Send if 20 messages of the task are waiting for their
	// turns. For a message with SendInput.Now, it is returned if 20 messages have joined the
	// running turn.
	ErrTooManyMessages = errors.New("the task has too many messages")

	// ErrCannotSteer is returned by Send for a message with SendInput.Now that cannot join a running
	// turn: the client is not a [Steerer], it refused the message, or the task is not in a turn.
	// The same message can be sent without Now.
	ErrCannotSteer = errors.New("the message cannot join a running turn")
)

// TurnMessage is a message for the current turn of a session.
type TurnMessage struct {
	ID      string // id of the message; unique in the session
	Task    string // id of the task, bg_…
	Attempt int    // number of the attempt
	Turn    int    // number of the running turn in the attempt
	Text    string
}

// Steerer is implemented by clients that can add a message to a running turn.
type Steerer interface {
	// Steer adds the message to the session's current turn, and returns when the agent runtime has
	// accepted the message. Steer must not abort the turn in order to prompt the session again. If
	// it is unknown whether the session has received or will receive the message, the error matches
	// [ErrUncertain]. Any other error means that the session will never receive the message. The
	// error is [ErrNoSession] if the session does not exist, and errors.ErrUnsupported if the
	// runtime cannot do this. If no turn is running, Steer does not start one, and returns an
	// error. Steer may be called while RunTurn is running. The manager calls Steer at most once for
	// a message.
	Steer(ctx context.Context, session string, msg TurnMessage) error
}

// Send sends a message to a task that is pending or running. id is the id of the task or of its
// session. A session can send messages to the tasks that descend from it, but not to its own task.
//
// The message becomes the prompt of another turn of the same attempt, after the turn that is
// currently running. For a pending task, this is the task's second turn. An attempt that waits for
// its own tasks gets the message as soon as it has a slot, before the notices about these tasks.
// Messages get their turns in the order they were accepted. The attempt does not complete before
// these turns are over. If it ends for another reason, such as a cancellation or a failure,
// Task.Unconsumed lists the messages that it did not receive; they can be sent again with Resume.
// The result of the attempt is the result of the turns that did not answer a message, followed by
// the text of each message's turn under its own heading.
//
// With SendInput.Now, the message joins the running turn, if the client can do that.
//
// If Send returns an error, it has not sent anything. There is one exception: if the error matches
// [ErrUncertain], it is unknown whether the task has received the message. Another call with the
// same key then returns the state of the message, or sends the message if the task does not have
// it. A task remembers the keys of at least its last 50 messages, across all its attempts, until
// its record expires. With [Config].Store, keys are also remembered across processes.
//
// The error is an [*InputError] if the text is missing or if an argument is too long. It matches
// [ErrAlreadyEnded] if the task has ended (use Resume), [ErrStillLive] if the task has ended but
// its end has not yet been stored, and [ErrTooManyMessages] if 20 messages are waiting or have
// joined the running turn. Otherwise it matches [ErrCannotSteer], [ErrUnknownTask], [ErrExpired],
// [ErrNotDescendant] or [ErrClosed], or it is the context's error.
//
// With [Config].Store, Send returns once the message is durable in the store, and returns the same
// errors as Launch if the message cannot be written.
func (m *BackgroundManager) Send(ctx context.Context, by Caller, id string, in SendInput) (SendResult, error) {
	m.heard(by.Session)
	return m.send(ctx, by, id, in, false)
}

// send implements Send. If the argument "again" is true, the key comes from a tool call. Such a key
// counts only until the task is resumed, because some model servers give every call the same id.
func (m *BackgroundManager) send(ctx context.Context, by Caller, id string, in SendInput, again bool) (SendResult, error) {
	r, err := m.sendTo(ctx, by, strings.TrimSpace(id), in, again)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, ErrUncertain):
		r = SendResult{Key: in.Key, State: MessageUncertain}
	default:
		r = SendResult{Key: in.Key, State: MessageRefused}
	}
	return r, fmt.Errorf("bgagent: send: %w", err)
}

func (m *BackgroundManager) sendTo(ctx context.Context, by Caller, ref string, in SendInput, again bool) (r SendResult, err error) {
	if ctx == nil {
		return r, errNoContext
	}
	if err := cmpErr(m.start(ctx), ctx.Err()); err != nil {
		return r, err
	}
	in.Text = mdtext.Valid(in.Text)
	switch {
	case len(in.Text) > messageBytes:
		return r, &InputError{"Text", fmt.Sprintf("is %d bytes long; a message has at most %d", len(in.Text), messageBytes)}
	case len(in.Key) > messageKeyBytes || mdtext.Valid(in.Key) != in.Key:
		return r, &InputError{"Key", fmt.Sprintf("must be valid UTF-8 of at most %d bytes", messageKeyBytes)}
	}
	var t *task
	var l *letter
	for {
		unsettled := false
		m.fetchFor(ctx, ref, func(st *state, now int64, _ error) { // if the record cannot be loaded, the method "send" fails as it would without a store
			if t, l, unsettled, err = st.send(by, ref, in, again, now); l != nil {
				st.settle(now) // the turn of the message might begin immediately
				r = st.sendResult(t, l)
			}
		})
		if err != nil {
			return r, m.orLost(err)
		}
		if !unsettled {
			break
		}
		if err := m.attemptKept(ctx, t); err != nil {
			return r, fmt.Errorf("%w: %w", ErrStore, err)
		}
	}
	if m.cfg.Store != nil {
		if err := m.letterKept(ctx, t, l); err != nil {
			return r, err
		}
		m.view(func(st *state) { r = st.sendResult(t, l) }) // the state might have changed during the wait
	}
	if in.Now && r.State == MessageUncertain {
		return m.steer(ctx, t, l, in.Text)
	}
	return r, nil
}

// cmpErr returns the first error that is not nil.
func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// attemptKept waits until the resume that opened the task's attempt is durable or withdrawn, because a
// message must not belong to a withdrawn attempt. It also returns if writing to the store fails.
func (m *BackgroundManager) attemptKept(ctx context.Context, t *task) error {
	return m.untilBatch(ctx, m.cfg.StoreTimeout, func(st *state) (bool, uint64) {
		return st.storing.failing || !st.unsettled(t), st.batchOfTask(t)
	})
}

// endKept waits until the end of the task is durable.
func (m *BackgroundManager) endKept(ctx context.Context, by Caller, ref string) error {
	return m.untilKept(ctx, m.cfg.StoreTimeout, func(st *state) bool {
		t, _, err := st.ref(by, ref)
		return err != nil || t == nil || t.live() || st.kept(t)
	})
}

// letterKept waits until the message is durable. If this takes too long or is impossible, letterKept
// withdraws the message and returns an error. There is one exception: if another call with the same key
// still waits, letterKept does not withdraw anything, and the error matches [ErrUncertain].
func (m *BackgroundManager) letterKept(ctx context.Context, t *task, l *letter) error {
	err := m.untilBatch(ctx, m.cfg.StoreTimeout, func(st *state) (bool, uint64) {
		return st.storing.failing || st.isRefused(t) || l.withdrawn || st.hasLetter(t, l), 0
	})
	kept, uncertain := false, false
	m.update(func(st *state, now int64) {
		kept, uncertain = st.letterAnswered(t, l, now)
		switch {
		case err != nil:
		case st.isRefused(t):
			err = recordRefused(t.id())
		case st.storing.why != "":
			err = errors.New(st.storing.why)
		default:
			err = errStoreSlow
		}
	})
	switch {
	case kept:
		return nil
	case uncertain:
		return fmt.Errorf("%w: %w: %w", ErrStore, ErrUncertain, err)
	default:
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
}

// lettersKept waits until the states of the task's messages are durable, so that they are the same in the
// next process. It stops waiting if this takes too long.
func (m *BackgroundManager) lettersKept(ctx context.Context, t *task) {
	if m.cfg.Store != nil {
		_ = m.untilKept(ctx, m.cfg.StoreTimeout, func(st *state) bool { return st.storing.failing || !t.hasRecord() || st.kept(t) })
	}
}

// steer passes the message to the client, which adds it to the running turn. The message is already
// durable, so no other process sends it again.
func (m *BackgroundManager) steer(ctx context.Context, t *task, l *letter, text string) (r SendResult, err error) {
	var steerer Steerer
	var call context.Context
	var msg TurnMessage
	session := ""
	m.update(func(st *state, _ int64) {
		switch {
		case !l.unsent: // an earlier call with the same key sends the message
			r = st.sendResult(t, l)
		case !st.mayJoin(t, l):
			st.unsend(t, l)
			err = fmt.Errorf("%w: the turn has ended; send it without Now", ErrCannotSteer)
		default:
			l.unsent, l.steering = false, true
			session, steerer, call = t.sess.id, m.host(t.run.cl).steerer, m.contextOf(t)
			msg = TurnMessage{ID: l.id(t), Task: t.id(), Attempt: int(l.attempt), Turn: int(l.turn), Text: text}
		}
	})
	if err != nil || session == "" {
		m.lettersKept(ctx, t)
		return r, err
	}
	_, err = within(call, m, goCall, "Steer", m.cfg.CallTimeout, func(ctx context.Context) (struct{}, error) {
		err := steerer.Steer(ctx, session, msg)
		if errors.Is(err, ErrUncertain) {
			return struct{}{}, fmt.Errorf("%w: %w", ErrUncertain, lookedAt(err))
		}
		return struct{}{}, lookedAt(err)
	})
	var answer *hostError
	unknown := err != nil && (!errors.As(err, &answer) || errors.Is(err, ErrUncertain)) // any other error from the client means that it refused the message
	m.update(func(st *state, _ int64) {
		switch l.steering = false; {
		case err == nil:
			st.joinedTurn(t, l)
		case !unknown:
			st.unsend(t, l)
		}
		r = st.sendResult(t, l)
	})
	m.lettersKept(ctx, t)
	switch {
	case err == nil:
		return r, nil
	case unknown:
		return r, fmt.Errorf("%w: %w", ErrUncertain, err)
	case errors.Is(err, errors.ErrUnsupported):
		return r, fmt.Errorf("%w: its client cannot do that; send it without Now", ErrCannotSteer)
	default:
		return r, fmt.Errorf("%w: the client refused it: %w", ErrCannotSteer, err)
	}
}
