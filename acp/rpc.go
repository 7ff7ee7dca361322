package acp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/bgagent/bgagent/internal/jsonlines"
	sdk "github.com/coder/acp-go-sdk"
)

// This package uses the SDK's message types, but not the SDK's connection. That connection has four
// faults:
//
//   - Its writes have no time limit, so an agent that does not read its input blocks the
//     caller.
//   - It ends when 1024 notifications are queued. The replay of a long conversation can
//     queue that many.
//   - It can lose an answer that arrives just before the agent exits.
//   - It refuses to write an empty file.

const (
	maxLine     = 32 << 20  // maximum number of bytes in one message; a longer message ends the connection
	maxUnsent   = 32 << 20  // maximum number of bytes that wait for the agent to read them
	maxGarbage  = 256 << 10 // maximum number of bytes that the agent may print before its first message
	maxInbound  = 256       // maximum number of the agent's requests that are answered concurrently
	shownOfLine = 200       // maximum number of bytes of a line shown in an error

	shownOfError = 2000 // maximum number of bytes of an error's text that are kept
)

// Error codes in JSON-RPC answers to the agent.
const (
	codeNoMethod  = -32601
	codeBadParams = -32602
	codeNotFound  = -32002 // from the protocol; agents also search the text for "Resource not found"
	codeRefused   = -32603 // "internal error", because the protocol has no code for a refusal
)

// handlers are the functions that a connection calls.
type handlers struct {
	// The function "request" answers a request from the agent. Each call runs in its own goroutine.
	// ctx ends when the connection ends.
	request func(ctx context.Context, method string, params json.RawMessage) (any, *sdk.RequestError)
	// The function "notify" is called for each notification from the agent. Notifications and
	// answers are handled in the order in which the agent wrote them. The function must not block,
	// because nothing is read during the call.
	notify func(method string, params json.RawMessage)
	// The function "noise" is called for text that is not a message. It must not block or keep the
	// text. It can be nil.
	noise func(text []byte)
	// The function "told" returns the prompts that were sent to the agent. A prompt can contain JSON
	// that looks like a message. If the agent prints such JSON in the middle of other text, it is not
	// treated as a message. The function can be nil.
	told func() string
}

// conn is the connection to an agent, with one JSON-RPC message per line. Its methods
// are safe for concurrent use.
type conn struct {
	h   handlers
	out *outbox

	ctx    context.Context // ends when the connection ends
	cancel context.CancelFunc
	done   chan struct{} // closed when reading has ended
	wg     sync.WaitGroup

	mu      sync.Mutex
	next    int64
	pending map[int64]waiting
	inbound int
	err     error           // reason why the connection ended; nil while it works
	garbage jsonlines.Noise // text from the agent that was not a message
}

// waiting is a request that has no answer yet.
type waiting struct {
	answer chan<- received
	seen   func(received) // called with the answer before the next message is read; can be nil
}

// newConn returns a connection that writes to w. The caller must call the method "serve" once.
func newConn(w io.WriteCloser, h handlers) *conn {
	c := &conn{h: h, done: make(chan struct{}), pending: map[int64]waiting{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.out = newOutbox(w)
	return c
}

// The method "call" makes a request, waits for its answer and decodes the answer into result. If
// the agent answers with an error, the error is a *sdk.RequestError. If ctx ends first, the error
// is the cause of ctx. Any other error states why the connection ended, why the request could not
// be encoded, or why the answer could not be read.
func (c *conn) call(ctx context.Context, method string, params, result any) error {
	return c.callSeen(ctx, method, params, result, nil)
}

// callSeen is like call. In addition, it calls the function "seen" with the answer before the next
// message is read. The function must not block.
func (c *conn) callSeen(ctx context.Context, method string, params, result any, seen func(received)) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("encoding the request %s: %w", method, err)
	}
	answer := make(chan received, 1)
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return err
	}
	c.next++
	id := c.next
	c.pending[id] = waiting{answer, seen}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pending, id)
	}()
	if err := c.send(message{ID: json.RawMessage(strconv.FormatInt(id, 10)), Method: method, Params: raw}); err != nil {
		return err
	}
	m, err := c.wait(ctx, answer)
	if err != nil {
		return err
	}
	return m.into(method, result)
}

// The method "wait" waits for an answer.
func (c *conn) wait(ctx context.Context, answer <-chan received) (received, error) {
	select {
	case m := <-answer:
		return m, nil
	case <-ctx.Done():
		return received{}, context.Cause(ctx)
	case <-c.done:
	}
	select { // the answer can be the last message that was read
	case m := <-answer:
		return m, nil
	default:
		return received{}, c.ended()
	}
}

// The method "notify" sends a notification to the agent.
func (c *conn) notify(method string, params any) error {
	raw, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("encoding the notification %s: %w", method, err)
	}
	return c.send(message{Method: method, Params: raw})
}

func (c *conn) send(m message) error {
	m.Version = "2.0"
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	if err := c.out.put(append(line, '\n')); err != nil {
		c.fail(err)
		return err
	}
	return nil
}

// The method "fail" ends the connection. If it is called again, the first reason is kept.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.cancel()
}

// The method "ended" returns the reason why the connection ended, or nil while it works.
func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// noise returns the text from the agent that was not a message.
func (c *conn) noise() jsonlines.Noise {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.garbage
}

// errOutputEnded is the reason given if a connection ended because the agent closed its output. In
// most cases the agent has exited.
var errOutputEnded = errors.New("it closed its output")

// The method "serve" reads messages until the agent's output ends or exceeds a limit, or until the
// connection ends. It returns when all goroutines that it started have ended.
func (c *conn) serve(r io.Reader) {
	in := jsonlines.NewReader(&bounded{r: r}, jsonlines.Config{
		MaxLine: maxLine + 1<<20, MaxNoise: maxGarbage, Skipped: c.skipped, Told: c.h.told,
	})
	for c.ctx.Err() == nil {
		object, err := in.Next()
		if err != nil {
			switch {
			case errors.Is(err, io.EOF):
				err = errOutputEnded
			case errors.Is(err, jsonlines.ErrNoise): // the program does not speak the agent protocol
				err = fmt.Errorf("it prints something other than JSON-RPC, which begins with %q", c.noise().First)
			}
			c.fail(err)
			break
		}
		m, ok := decode(object)
		if !ok {
			in.Reject(object)
			c.hear(object)
			continue
		}
		c.take(m)
	}
	close(c.done)
	c.cancel()
	c.out.close()
	c.wg.Wait()
}

// The method "skipped" handles text that is not a JSON object. Some programs write logs to their
// output.
func (c *conn) skipped(text []byte) {
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return
	}
	if m, ok := brokenAnswer(text); ok {
		c.take(m)
		return
	}
	c.hear(text)
}

// The method "hear" counts text that is not a message, and passes it on to the noise handler.
func (c *conn) hear(text []byte) {
	c.mu.Lock()
	c.garbage.Add(text)
	c.mu.Unlock()
	if c.h.noise != nil {
		c.h.noise(text)
	}
}

// The method "take" passes an answer to the request that waits for it, and any other message to its
// handler.
func (c *conn) take(m received) {
	switch {
	case m.method == "":
		c.mu.Lock()
		id, ok := m.request()
		if !ok && string(m.ID) == "null" && present(m.Error) && len(c.pending) == 1 {
			// The agent could not read the request, so the answer lacks the request's id. Only one request
			// is waiting, so the answer is for this request.
			for only := range c.pending {
				id = only
			}
		}
		w, asked := c.pending[id] // there is no request with the id 0
		delete(c.pending, id)
		c.mu.Unlock()
		if asked && w.seen != nil {
			w.seen(m)
		}
		if asked {
			w.answer <- m
		}
	case len(m.ID) == 0:
		c.h.notify(m.method, m.Params)
	default:
		c.mu.Lock()
		full := c.inbound >= maxInbound
		if !full {
			c.inbound++
		}
		c.mu.Unlock()
		if full {
			_ = c.send(message{ID: m.ID, Error: refusal("too many requests at once")})
			return
		}
		c.wg.Go(func() { c.answer(m) })
	}
}

// The method "answer" answers a request from the agent.
func (c *conn) answer(m received) {
	result, problem := c.h.request(c.ctx, m.method, m.Params)
	reply := message{ID: m.ID, Error: problem}
	if problem == nil {
		raw, err := json.Marshal(result)
		if err != nil {
			reply.Error = refusal(err.Error())
		}
		reply.Result = raw
	}
	c.mu.Lock()
	c.inbound--
	c.mu.Unlock()
	_ = c.send(reply) // if this fails, the connection has ended
}

// refusal returns an error answer that states why a request is refused.
func refusal(why string) *sdk.RequestError {
	return &sdk.RequestError{Code: codeRefused, Message: why}
}

// bounded is a reader that fails if a line is longer than maxLine.
type bounded struct {
	r     io.Reader
	line  int    // number of bytes in the line so far
	begin []byte // beginning of the line
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	piece := p[:n]
	if i := bytes.LastIndexByte(piece, '\n'); i >= 0 {
		piece, b.line, b.begin = piece[i+1:], 0, b.begin[:0]
	}
	b.line += len(piece)
	b.begin = append(b.begin, piece[:min(len(piece), shownOfLine-len(b.begin))]...)
	if b.line > maxLine {
		return 0, fmt.Errorf("it wrote a line of more than %d MiB, which begins with %.*q", maxLine>>20, shownOfLine, b.begin)
	}
	return n, err
}
