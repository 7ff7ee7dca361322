package bgnats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// meta is the content of the message about the store itself. Each batch contains a new version of
// this message, and states which sequence number the previous version must have. Therefore, if an
// owner has lost the store to another owner, the servers refuse its whole batch.
type meta struct {
	Version int                `json:"version"` // format of the store
	Epoch   uint64             `json:"epoch"`   // number of times that the store was opened
	Batch   uint64             `json:"batch"`   // number of the last batch of the manager
	Token   string             `json:"token"`   // token of the owner; empty if there is none
	Owner   bgagent.StoreOwner `json:"owner"`   // the last owner
	Due     int                `json:"due"`     // number of due records
	DueSum  uint64             `json:"due_sum"` // sum of the header checksums of all due records
	Swept   uint64             `json:"swept"`   // the texts of records that were deleted up to this sequence number no longer exist

	// Home says where the sessions of the store's process are kept. It is empty if no other process may
	// take over the store; see the file takeover.go. Adopter is the process that has taken over the store.
	// It is empty while no such process has the store. Left says how the last such process left the store.
	// Patience is ClusterOptions.TakeOverSuspended.
	Home     string        `json:"home,omitempty"`
	Patience time.Duration `json:"patience,omitempty"`
	Adopter  string        `json:"adopter,omitempty"`
	Left     left          `json:"left,omitempty"`

	// Run identifies the last time that the store's own process opened the store. It stays the same while
	// other processes have the store.
	Run string `json:"run,omitempty"`

	// Journal is set while a large batch is being applied; see the file journal.go.
	Journal *journal `json:"journal,omitempty"`

	// The following fields are not part of the message's content. They are set when the message is
	// read or written.
	seq    uint64 // sequence number of the message
	before uint64 // sequence number of the message that existed when the store was opened
}

const metaVersion = 1

// silentAfter is the time after which a connected owner that does not answer is treated as dead. An owner can
// be connected but silent, for example, if its machine has stopped and the servers have not noticed this yet.
// silentAfter is less than the default of the manager's StoreTimeout, so that Open can finish before the
// manager stops waiting for it.
const silentAfter = 20 * time.Second

// pingWithin is the time after which an unanswered request to an owner is repeated.
const pingWithin = time.Second

// message returns the message with m as its content. The server refuses it if the stream no longer
// contains the message from which m was read.
func (m meta) message(n names) (message, error) {
	body, err := json.Marshal(m)
	out := message{subject: n.meta(), header: nats.Header{}, data: body}
	out.expect(m.seq)
	return out, err
}

// readMeta returns the content of the store's message about itself. For a new store, it returns
// content without an owner.
func (w *wire) readMeta(ctx context.Context) (m meta, err error) {
	var msg message
	found := false
	err = w.patiently(ctx, func(ctx context.Context) error {
		msg, found, err = w.last(ctx, w.meta())
		return err
	})
	if err != nil {
		return m, err
	}
	m.Version, m.seq = metaVersion, msg.seq
	if !found {
		return m, nil
	}
	if err := json.Unmarshal(msg.data, &m); err != nil {
		return m, fmt.Errorf("the message on %s cannot be read: %w", msg.subject, err)
	}
	if m.Version != metaVersion {
		return m, fmt.Errorf("the store has the unknown format %d: a newer version of bgagent wrote it", m.Version)
	}
	return m, nil
}

// writeMeta writes m, which the caller has read from the stream and changed.
func (w *wire) writeMeta(ctx context.Context, m *meta) error {
	msg, err := m.message(w.names)
	if err != nil {
		return err
	}
	seq, err := w.publish(ctx, []message{msg})
	if err == nil {
		m.seq = seq
	}
	return err
}

// The function "moved" reports whether a batch was refused because the stream contains messages other than
// those expected.
func moved(err error) bool { return isCode(err, codeWrongSequence, codeWrongSequence2) }

// The function "again" reports whether a failed write of the content can succeed after the content
// is read again.
func again(err error) bool {
	return moved(err) || soon(err) || errors.Is(err, bgagent.ErrUncertain)
}

// The method "take" makes the given owner the owner of the store. It also makes this process answer pings to
// that owner; the result "answering" is the subscription for them. The function "may" reports whether the
// store can be taken from its present owner, if there is one, and changes the content as needed. If it
// returns false without an error, the method "take" calls it again.
func (w *wire) take(ctx context.Context, owner bgagent.StoreOwner, may func(context.Context, *meta) (bool, error)) (m meta, answering *nats.Subscription, err error) {
	token := rand.Text()
	answering, err = w.nc.Subscribe(w.alive(token), func(q *nats.Msg) { _ = q.Respond(nil) }) // if the answer is lost, the asking manager repeats its request
	if err == nil {                                                                           // no process may see the token before the servers have registered the subscription
		// Flush is not used here. If a connection is interrupted again while nats.go reconnects, nats.go
		// waits forever for the answers to earlier calls to Flush, so no later call returns in time.
		err = w.patiently(ctx, func(ctx context.Context) error {
			_, err := w.request(ctx, w.alive(token), nil)
			return err
		})
	}
	for before := uint64(0); err == nil; {
		if m, err = w.readMeta(ctx); err != nil {
			break
		}
		if m.Token == token { // an earlier attempt succeeded, but its answer was lost
			m.before = before
			return m, answering, nil
		}
		can := false
		if can, err = may(ctx, &m); err != nil {
			break
		}
		if !can {
			continue
		}
		before = m.seq
		m.Epoch++
		m.Token, m.Owner, m.before = token, owner, before
		if err = w.writeMeta(ctx, &m); err == nil {
			return m, answering, nil
		}
		if again(err) && pause(ctx, retryEvery) == nil {
			err = w.ready(ctx)
		}
	}
	if answering != nil {
		_ = answering.Unsubscribe() // an error does not matter, because an earlier failure is reported
	}
	return m, nil, err
}

// ping asks the owner with the given token whether it is alive.
func (w *wire) ping(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	_, err := w.nc.RequestWithContext(ctx, w.alive(owner), nil)
	return err
}

// awaitDeath waits until the owner is known or assumed to be dead. If the owner is alive, it
// returns a [*bgagent.StoreOwnedError].
func (w *wire) awaitDeath(ctx context.Context, m meta, grace time.Duration) error {
	began := time.Now()
	for {
		if err := w.ready(ctx); err != nil {
			return err
		}
		err := w.ping(ctx, m.Token)
		waited := time.Since(began)
		switch {
		case err == nil:
			return &bgagent.StoreOwnedError{Owner: m.Owner}
		case ctx.Err() != nil:
			return fmt.Errorf("the store belongs to %s (process %d on %s), which does not answer; Open waits to find out whether it is dead: %w", m.Owner.Program, m.Owner.PID, m.Owner.Host, ctx.Err())
		case w.nc.Status() != nats.CONNECTED:
			began = time.Now() // without a connection, an answer from the owner could not arrive, so the wait starts over
		case errors.Is(err, nats.ErrNoResponders) && waited >= grace, waited >= max(silentAfter, grace):
			return nil
		}
		if err := pause(ctx, retryEvery); err != nil {
			return err
		}
	}
}
