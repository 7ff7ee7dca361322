package hammer

import (
	"context"
	"testing"
)

// A real store waits for files or connections, so its goroutines are never durably blocked, and time
// would stand still in a bubble that contains them. Therefore, a real store lives outside of the bubble.
// A channel that was made in a bubble cannot be used outside of the bubble, but a bubble can use
// channels that were made outside.

// outside makes calls outside of the bubble in which its method "do" is called.
type outside chan *call

// call is one call outside of the bubble. It uses only channels that were made outside.
type call struct {
	f     chan func(context.Context)
	ended chan struct{} // closed when the caller's context ends
	done  chan struct{} // closed when the call has returned
}

// newOutside returns a value whose method "do" makes calls outside of the bubble. It must be called
// outside of the bubble.
func newOutside(t *testing.T) outside {
	calls, over := make(outside), make(chan struct{})
	t.Cleanup(func() { close(over) })
	go func() {
		for {
			c := &call{make(chan func(context.Context)), make(chan struct{}), make(chan struct{})}
			select {
			case calls <- c:
				go c.serve()
			case <-over:
				return
			}
		}
	}()
	return calls
}

func (c *call) serve() {
	defer close(c.done) // deferred, so that c.done is also closed if f ends the goroutine
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.ended:
			cancel()
		case <-c.done:
		}
	}()
	(<-c.f)(ctx)
}

// The method "do" calls f outside of the bubble and waits until f returns. The time of the bubble stands
// still during the call. The context of f ends when ctx ends.
func (o outside) do(ctx context.Context, f func(context.Context)) {
	c := <-o
	stop := context.AfterFunc(ctx, func() { close(c.ended) })
	defer stop()
	c.f <- f
	<-c.done
}
