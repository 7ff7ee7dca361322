package bgnats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

const (
	answerWithin = 10 * time.Second       // time after which a request is treated as unanswered
	askAgain     = 2 * time.Second        // time after which a request is sent again if it is harmless to repeat it
	inFlightFor  = 12 * time.Second       // how long a refused batch is resent; longer than the servers keep an unfinished batch
	retryEvery   = 100 * time.Millisecond // pause between two attempts to make a request that the servers cannot answer yet
	maxGet       = 64                     // maximum number of messages in one read
)

// The servers understand these headers. They are defined here because the client library has no functions for
// atomic batches.
const (
	headBatch    = "Nats-Batch-Id"
	headBatchSeq = "Nats-Batch-Sequence"
	headCommit   = "Nats-Batch-Commit"
	headExpected = "Nats-Expected-Last-Subject-Sequence"
	headOf       = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// These are the servers' error codes.
const (
	codeResources      = 10002 // the account has no space left
	codeNoPeers        = 10005 // no server can take the stream yet
	codeNotAvailable   = 10008 // the servers have no leader yet
	codeInsufficient   = 10023 // the server has no space left
	codeMemory         = 10028
	codeNoMessage      = 10037
	codeStorage        = 10047 // the server has no space left on the disk
	codeNoStream       = 10059
	codeWrongSequence  = 10071 // the last message of a subject is not the expected one
	codeStoreFailed    = 10077
	codeOffline        = 10118 // the stream's servers have just been started
	codeIncomplete     = 10176 // a message of the batch is missing
	codeWrongSequence2 = 10164 // like codeWrongSequence, but a write to the subject is in progress
	codeInFlight       = 10210 // too many batches were begun but not completed
)

// apiError is an error in a server's answer.
type apiError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("the server answers: %s (%d)", e.Description, e.Code)
}

// Is makes the error match [ErrFull] and [syscall.ENOSPC] if no space is left.
func (e *apiError) Is(target error) bool {
	return (target == ErrFull || target == syscall.ENOSPC) && e.full()
}

func (e *apiError) full() bool {
	switch e.Code {
	case codeResources, codeInsufficient, codeMemory, codeStorage:
		return true
	case codeStoreFailed:
		return e.Description == "maximum bytes exceeded" || e.Description == "maximum messages exceeded"
	}
	return false
}

// The method "certain" reports whether the error means that the server has not stored any part of the batch.
// The server checks the batch before it stores the first message. A disk error, codeStoreFailed, can still
// occur while the server stores the messages.
func (e *apiError) certain() bool { return e.Code != codeStoreFailed || e.full() }

func isCode(err error, codes ...int) bool {
	var e *apiError
	if errors.As(err, &e) {
		for _, c := range codes {
			if e.Code == c {
				return true
			}
		}
	}
	return false
}

// ErrFull means that the servers, the account or the stream have no space left. Errors that match ErrFull
// also match [syscall.ENOSPC].
var ErrFull = errors.New("no space is left on the servers")

// errNotConnected is returned if the connection to the servers is interrupted.
var errNotConnected = errors.New("the connection to the servers is interrupted")

// message is a message in the stream.
type message struct {
	subject string
	header  nats.Header
	data    []byte
	seq     uint64 // sequence number; 0 if unknown
}

// expect makes the server refuse the message's batch if the last message on its subject does not
// have the given sequence number. The number 0 means that no message is expected.
func (m *message) expect(seq uint64) { m.header.Set(headExpected, strconv.FormatUint(seq, 10)) }

// bytes returns the approximate size of the message.
func (m *message) bytes() int { return len(m.subject) + 200 + len(m.data) }

// wire makes requests over the connection. Its methods are safe for concurrent use.
type wire struct {
	nc *nats.Conn
	names

	mu     sync.Mutex
	joined context.Context // ends when the connection is next interrupted
	cut    context.CancelFunc
	list   chan nats.Status
	gone   chan struct{}
}

// watch starts to watch the connection, so that a request does not wait for an answer that was lost
// together with the connection.
func (w *wire) watch() {
	w.joined, w.cut = context.WithCancel(context.Background())
	w.list, w.gone = w.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED), make(chan struct{})
	go func() {
		defer close(w.gone)
		for range w.list {
			w.mu.Lock()
			w.cut()
			w.joined, w.cut = context.WithCancel(context.Background())
			w.mu.Unlock()
		}
	}()
}

func (w *wire) unwatch() {
	w.nc.RemoveStatusListener(w.list)
	<-w.gone
	w.cut()
}

// connection returns a context that ends when ctx ends or the connection is interrupted.
func (w *wire) connection(ctx context.Context) (context.Context, context.CancelFunc) {
	w.mu.Lock()
	joined := w.joined
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(joined, cancel)
	return ctx, func() { stop(); cancel() }
}

// The method "during" is like "connection", but the context also ends after answerWithin, the time
// limit for a server's answer.
func (w *wire) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, done := w.connection(ctx)
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	return ctx, func() { cancel(); done() }
}

// ready waits until the connection works. It returns an error if ctx ends first, or if the connection is
// closed.
func (w *wire) ready(ctx context.Context) error {
	changed := w.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer w.nc.RemoveStatusListener(changed)
	for {
		switch w.nc.Status() {
		case nats.CONNECTED:
			return nil
		case nats.CLOSED:
			return nats.ErrConnectionClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errNotConnected, ctx.Err())
		}
	}
}

// call makes a request to the servers' API and decodes the answer into out.
func (w *wire) call(ctx context.Context, subject string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	m, err := w.request(ctx, "$JS.API."+subject, body)
	if err != nil {
		return err
	}
	return decode(m.Data, out)
}

// request makes a request and waits for the answer, for as long as the method "during" allows.
func (w *wire) request(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	asking, done := w.during(ctx)
	defer done()
	m, err := w.nc.RequestWithContext(asking, subject, body)
	if err != nil {
		return nil, unanswered(ctx, err)
	}
	return m, nil
}

// unanswered returns the error to report for a request that failed with err. The request used a context that
// the method "during" derived from ctx. If that context ended although ctx did not, the error says that the
// connection is interrupted, or that the servers did not answer.
func unanswered(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil && errors.Is(err, context.Canceled):
		return errNotConnected
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the servers did not answer within %v", answerWithin)
	}
	return err
}

// The function "decode" decodes an answer, which contains either an error or the fields of out.
func decode(data []byte, out any) error {
	var x struct {
		Error *apiError `json:"error"`
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return fmt.Errorf("the answer of the server cannot be read: %w", err)
	}
	if x.Error != nil {
		return x.Error
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// The function "soon" reports whether the operation might succeed soon. This is the case while the servers
// are starting or electing a leader, and while the connection is interrupted.
func soon(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, errNotConnected) || isCode(err, codeNoPeers, codeNotAvailable, codeOffline)
}

// The method "patiently" calls f until f succeeds, or fails with an error that will not disappear soon. Each
// call may take at most askAgain, because servers without a leader do not answer at all.
func (w *wire) patiently(ctx context.Context, f func(context.Context) error) error {
	for {
		asking, cancel := context.WithTimeout(ctx, askAgain)
		err := f(asking)
		silent := asking.Err() != nil
		cancel()
		if err == nil || ctx.Err() != nil || !silent && !soon(err) {
			return err
		}
		if pause(ctx, retryEvery) != nil {
			return err
		}
	}
}

// The method "connected" calls f until f succeeds, or fails with an error that will not disappear soon.
// Unlike the method "patiently", it does not limit the time of a call, so f can read long messages over a
// slow connection.
func (w *wire) connected(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || !soon(err) || pause(ctx, retryEvery) != nil {
			return err
		}
	}
}

// pause waits for the duration d. If ctx ends first, it returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish writes the messages as one atomic batch and returns the sequence number of the last message. The
// other messages have the numbers directly before it. If the error matches [bgagent.ErrUncertain], it is
// unknown whether the stream contains the batch. After any other error, the stream does not contain any part
// of the batch.
func (w *wire) publish(ctx context.Context, all []message) (last uint64, err error) {
	// The server might drop the batch, but accept it when it is sent again. This happens, for example, if the
	// server loses leadership in the middle of the batch, or if other processes have begun 50 batches and
	// died. The server forgets such batches after ten seconds.
	for end := time.Now().Add(inFlightFor); ; {
		last, err = w.publishOnce(ctx, all)
		if !isCode(err, codeInFlight, codeIncomplete) || time.Now().After(end) || pause(ctx, retryEvery) != nil {
			return last, err
		}
	}
}

func (w *wire) publishOnce(ctx context.Context, all []message) (last uint64, err error) {
	if w.nc.Status() != nats.CONNECTED {
		return 0, errNotConnected
	}
	ctx, done := w.connection(ctx)
	defer done()
	id := rand.Text()
	for i, m := range all {
		out := &nats.Msg{Subject: m.subject, Header: nats.Header{}, Data: m.data}
		if len(all) > 1 {
			out.Header = nats.Header{headBatch: {id}, headBatchSeq: {strconv.Itoa(i + 1)}}
		}
		for k, v := range m.header {
			out.Header[k] = v
		}
		if i < len(all)-1 {
			if err := w.nc.PublishMsg(out); err != nil { // without the last message, the server drops the batch
				return 0, err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if len(all) > 1 {
			out.Header.Set(headCommit, "1")
		}
		waiting, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		go func() {
			if w.replaced(waiting) && pause(waiting, pingWithin/2) == nil { // gives the new leader's answer time to arrive
				cancel()
			}
		}()
		answer, err := w.nc.RequestMsgWithContext(waiting, out)
		switch {
		case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrMaxPayload): // the message was not sent
			return 0, err
		case err != nil:
			return 0, fmt.Errorf("%w: the answer of the servers did not arrive: %w", bgagent.ErrUncertain, err)
		}
		var ack struct {
			Seq   uint64 `json:"seq"`
			Count int    `json:"count"`
		}
		err = decode(answer.Data, &ack)
		var refused *apiError
		switch {
		case errors.As(err, &refused) && refused.certain():
			return 0, err
		case err == nil && (ack.Count != len(all) && len(all) > 1 || ack.Seq < uint64(len(all))):
			err = fmt.Errorf("the server answers that it has stored %d of %d messages", ack.Count, len(all))
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", bgagent.ErrUncertain, err)
		}
		last = ack.Seq
	}
	return last, nil
}

// The method "replaced" waits until the stream, after having had no leader, has one again. The earlier leader
// has died, so it does not answer the messages that were sent to it. If ctx ends first, the method returns
// false.
func (w *wire) replaced(ctx context.Context) bool {
	for silent := false; pause(ctx, pingWithin) == nil; {
		asking, cancel := context.WithTimeout(ctx, pingWithin)
		_, _, err := w.last(asking, w.meta())
		cancel()
		if err == nil && silent {
			return true
		}
		silent = err != nil
	}
	return false
}

// The type "stored" is a message in an answer from the stream's leader.
type stored struct {
	Message struct {
		Subject string `json:"subject"`
		Seq     uint64 `json:"seq"`
		Header  []byte `json:"hdrs"`
		Data    []byte `json:"data"`
	} `json:"message"`
}

// The method "last" returns the last message on the subject, as known to the stream's leader. Other servers
// can lag behind. If there is no message on the subject, the method returns false.
func (w *wire) last(ctx context.Context, subject string) (message, bool, error) {
	return w.get(ctx, map[string]any{"last_by_subj": subject})
}

// The method "at" returns the message with the given sequence number, as known to the stream's leader.
func (w *wire) at(ctx context.Context, seq uint64) (message, bool, error) {
	return w.get(ctx, map[string]any{"seq": seq})
}

func (w *wire) get(ctx context.Context, query any) (m message, found bool, err error) {
	var s stored
	if err := w.call(ctx, "STREAM.MSG.GET."+w.stream, query, &s); err != nil {
		if isCode(err, codeNoMessage) {
			err = nil
		}
		return m, false, err
	}
	m = message{subject: s.Message.Subject, seq: s.Message.Seq, data: s.Message.Data}
	if len(s.Message.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(s.Message.Header); err != nil {
			return m, false, err
		}
	}
	return m, true, nil
}

// latest returns the last message on each of the subjects that has one. Any of the stream's servers can
// answer, so the messages might be older than the leader's messages. The caller must pass at most maxGet
// subjects.
func (w *wire) latest(ctx context.Context, subjects []string) (map[string]message, error) {
	body, err := json.Marshal(map[string]any{"multi_last": subjects})
	if err != nil {
		return nil, err
	}
	asking, done := w.connection(ctx)
	defer done()
	inbox := w.nc.NewInbox()
	sub, err := w.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection was closed, which ends its subscriptions
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	if err := w.nc.PublishRequest("$JS.API.DIRECT.GET."+w.stream, inbox, body); err != nil {
		return nil, err
	}
	all := make(map[string]message, len(subjects))
	for {
		waiting, cancel := context.WithTimeout(asking, answerWithin)
		m, err := sub.NextMsgWithContext(waiting)
		cancel()
		if err != nil {
			return nil, unanswered(ctx, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the answer of the server cannot be read: %w", err)
			}
			subject := m.Header.Get("Nats-Subject")
			all[subject] = message{subject: subject, header: m.Header, data: m.Data, seq: seq}
		case "204", "404": // end of the list, or nothing was found
			return all, nil
		case "503":
			return nil, nats.ErrNoResponders
		default:
			return nil, fmt.Errorf("the server answers: %s %s", status, m.Header.Get("Description"))
		}
	}
}

// The method "purge" deletes those messages on the subjects whose sequence numbers are less than the number
// "below". If that is 0, the method deletes all messages on the subjects.
func (w *wire) purge(ctx context.Context, subjects string, below uint64) error {
	return w.call(ctx, "STREAM.PURGE."+w.stream, map[string]any{"filter": subjects, "seq": below}, nil)
}
