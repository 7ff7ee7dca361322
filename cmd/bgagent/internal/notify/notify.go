// Package notify runs the program that the user configured for notifications. The program runs when
// a task ends badly, when a task asks a question, and when the last task has ended.
package notify

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// Event is an event that the user is notified of.
type Event struct {
	// Kind is "failed" or "cancelled" after a task has ended with this status, "asks" for a question, or "done"
	// after the last task has ended.
	Kind   string
	Text   string // one line for the user
	Task   string // id of the task; empty with "done"
	Folder string // folder of the results; empty if there is none
}

const (
	// The constant "most" is the maximum time that the program can run for one event.
	most  = 30 * time.Second
	grace = 2 * time.Second

	// The constant "waiting" is the maximum number of events that wait for the program.
	waiting = 100
)

// Notifier runs the program for each event, one after the other. A nil Notifier does not run
// anything. The methods are safe for concurrent use.
type Notifier struct {
	command  []string
	instance string
	problem  func(error)

	mu     sync.Mutex
	queue  chan Event
	closed bool
	stop   context.CancelFunc
	done   chan struct{}
}

// New returns a Notifier for the command, which consists of the program and its arguments. It returns nil if
// the command is empty. The argument "instance" is the id of this run. The function "problem" is called with
// every error.
func New(command []string, instance string, problem func(error)) *Notifier {
	if len(command) == 0 {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &Notifier{command: command, instance: instance, problem: problem, queue: make(chan Event, waiting), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		for e := range n.queue {
			if ctx.Err() == nil {
				n.run(ctx, e)
			}
		}
	}()
	return n
}

// Tell queues an event for the program. It does not wait.
func (n *Notifier) Tell(e Event) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	select {
	case n.queue <- e:
	default:
		n.problem(fmt.Errorf("notify: %d events are already waiting for %s; this one is lost: %s", waiting, n.command[0], e.Text))
	}
}

// Close waits until all events have been handled. If ctx ends first, Close terminates the program and drops
// the remaining events.
func (n *Notifier) Close(ctx context.Context) {
	if n == nil {
		return
	}
	n.mu.Lock()
	if !n.closed {
		n.closed = true
		close(n.queue)
	}
	n.mu.Unlock()
	defer context.AfterFunc(ctx, n.stop)()
	<-n.done
}

// run runs the program for one event. The text of the event is the last argument. The
// other fields are passed in the environment.
func (n *Notifier) run(ctx context.Context, e Event) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	p, err := procs.Start(procs.Spec{
		Command: append(slices.Clone(n.command), e.Text),
		Env:     append(os.Environ(), "BGAGENT_EVENT="+e.Kind, "BGAGENT_TASK="+e.Task, "BGAGENT_FOLDER="+e.Folder),
		Marks:   procs.NewMarks(1, n.instance),
	})
	if err != nil {
		n.problem(fmt.Errorf("notify: %s cannot be started: %w", n.command[0], err))
		return
	}
	select {
	case <-p.Exited():
	case <-ctx.Done():
		p.Stop(nil, grace)
	}
	left := p.Finish(grace)
	switch {
	case context.Cause(ctx) == context.DeadlineExceeded:
		n.problem(fmt.Errorf("notify: %s did not end within %v and was stopped", n.command[0], most))
	case left != nil:
		n.problem(fmt.Errorf("notify: %s: %w", n.command[0], left))
	case !p.State().Success() && ctx.Err() == nil:
		n.problem(fmt.Errorf("notify: %s failed (%v)", n.command[0], p.State()))
	}
}
