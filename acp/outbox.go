package acp

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// outbox is the queue of lines to an agent. Queueing a line never waits for the agent.
type outbox struct {
	w    io.WriteCloser
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	queue  [][]byte
	size   int
	err    error // why nothing more can be written
	closed bool
}

func newOutbox(w io.WriteCloser) *outbox {
	o := &outbox{w: w, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go o.run()
	return o
}

// The method "put" queues a line. It fails if too many bytes wait for the agent to read them.
func (o *outbox) put(line []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
		return o.err
	case o.closed:
		return errors.New("the connection to it is closed")
	case o.size > 0 && o.size+len(line) > maxUnsent:
		return fmt.Errorf("it does not read its input: %d MiB are waiting", o.size>>20)
	}
	o.queue = append(o.queue, line)
	o.size += len(line)
	o.poke()
	return nil
}

func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) run() {
	defer close(o.done)
	for range o.wake {
		for {
			o.mu.Lock()
			if o.closed {
				o.mu.Unlock()
				return
			}
			if len(o.queue) == 0 {
				o.mu.Unlock()
				break
			}
			line := o.queue[0]
			o.queue[0] = nil
			if o.queue = o.queue[1:]; len(o.queue) == 0 {
				o.queue = nil
			}
			o.mu.Unlock()
			_, err := o.w.Write(line)
			o.mu.Lock()
			o.size -= len(line)
			if err != nil && o.err == nil {
				o.err = fmt.Errorf("it does not accept input: %w", err)
			}
			o.mu.Unlock()
		}
	}
}

// The method "close" closes the agent's input. If the agent is not reading, a line can be cut off.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.poke()
	o.mu.Unlock()
	_ = o.w.Close() // ends a Write that blocks
	<-o.done
}
