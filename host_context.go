package bgagent

import (
	"context"
	"sync"
	"time"
)

// turnContext is the context of an attempt's host calls: it ends when the
// attempt has ended and has the values of the launch. It is part of the
// attempt, because contexts of the standard library took a fifth of the time of
// a short task; its channel is only made when somebody asks for it.
type turnContext struct {
	values launchValues

	mu    sync.Mutex
	done  chan struct{} // made by Done
	err   error
	after map[*func()]struct{} // registered by AfterFunc
}

// launchValues are the values of the context of a launch; zero for none. Records
// keep them for the host and never look inside.
type launchValues struct{ from context.Context }

// valuesOf returns the values of a launch.
func valuesOf(ctx context.Context) launchValues {
	if ctx == context.Background() {
		return launchValues{}
	}
	return launchValues{context.WithoutCancel(ctx)}
}

// closedChannel is what Done returns of a context that had ended before anybody
// asked.
var closedChannel = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// Deadline implements [context.Context]: the manager's own deadlines are not
// the host's.
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

// valueOf returns a value of the launch. Its caller is none of them: a tool that a
// turn calls would act as the turn's parent.
func valueOf(values launchValues, key any) any {
	if values.from == nil || key == (callerKey{}) {
		return nil
	}
	return values.from.Value(key)
}

// AfterFunc runs f on a goroutine of its own once the context has ended, unless
// stop is called before. The context package looks for this method, and needs
// no goroutine for a context that is derived from one that has it.
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

// end ends the context. It may be called again.
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

// contextOf returns the values of a task's launch, for host calls outside its
// own goroutine.
func (m *BackgroundManager) contextOf(t *task) context.Context {
	if t.more != nil && t.more.values != (launchValues{}) {
		return valuesOver{m.base, t.more.values}
	}
	return m.base
}

// valuesOver is a context that ends with one and has the values of another.
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
