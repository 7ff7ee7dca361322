package bgagent

import (
	"context"
	"sync"
	"time"
)

// turnContext is the context of an attempt's host calls. It ends when the attempt ends, and has the
// values of the launch. It is part of the attempt and makes its channel only on demand, because
// contexts of the standard library took a fifth of the time of a short task.
type turnContext struct {
	values launchValues

	mu    sync.Mutex
	done  chan struct{} // made by Done
	err   error
	after map[*func()]struct{} // registered by AfterFunc
}

// launchValues holds the context of a launch for its values; zero if there are none. Records keep
// it for the host and never look inside.
type launchValues struct{ from context.Context }

// valuesOf returns the values of a launch.
func valuesOf(ctx context.Context) launchValues {
	if ctx == context.Background() {
		return launchValues{}
	}
	return launchValues{context.WithoutCancel(ctx)}
}

// closedChannel is what Done returns if the context ended before the first call of Done.
var closedChannel = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// Deadline implements [context.Context]. The manager's deadlines are not visible to the host.
func (c *turnContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements [context.Context].
func (c *turnContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		if c.err != nil {
			return closedChannel
		}
		c.done = make(chan struct{})
	}
	return c.done
}

// Err implements [context.Context].
func (c *turnContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value implements [context.Context].
func (c *turnContext) Value(key any) any { return valueOf(c.values, key) }

// valueOf returns a value of the launch, except its caller: with that, a tool call in a turn would
// act as the turn's parent.
func valueOf(values launchValues, key any) any {
	if values.from == nil || key == (callerKey{}) {
		return nil
	}
	return values.from.Value(key)
}

// AfterFunc runs f on a new goroutine when the context ends, unless stop is called before. The
// context package looks for this method: with it, a derived context needs no goroutine.
func (c *turnContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = map[*func()]struct{}{}
	}
	c.after[&f] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.after[&f]
		delete(c.after, &f)
		return waits
	}
}

// end ends the context. Further calls do nothing.
func (c *turnContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.Canceled
	if c.done != nil {
		close(c.done)
	}
	for f := range c.after {
		go (*f)()
	}
	c.after = nil
}

// contextOf returns a context with the values of the task's launch, for host calls outside the
// attempt's goroutine.
func (m *BackgroundManager) contextOf(t *task) context.Context {
	if t.more != nil && t.more.values != (launchValues{}) {
		return valuesOver{m.base, t.more.values}
	}
	return m.base
}

// valuesOver is a context with the values of a launch.
type valuesOver struct {
	context.Context
	values launchValues
}

func (v valuesOver) Value(key any) any {
	if x := v.Context.Value(key); x != nil {
		return x
	}
	return valueOf(v.values, key)
}
