package kills

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

const (
	Live = 50     // number of live tasks that the host maintains
	Root = "main" // id of the root session

	names = 10_000 // process n numbers its tasks from n*names
)

// Host runs in the process that a test kills. It launches tasks so that there are always [Live] live tasks.
// The last process is not killed: it launches no tasks, and waits for the existing tasks to end.
type Host struct {
	Log  *Log
	Life int
	Last bool // whether this is the last process, which is not killed
	Rand *rand.Rand

	Launch  func(n int) bgagent.LaunchInput // returns the task with the given number; its description is overwritten
	Cancels func(n int) bool                // whether the task with the given number is cancelled soon after its launch
	Leaves  func(n int) bool                // whether the last process cancels the task with the given number if the task is pending; nil means no
	Ends    time.Duration                   // how long the last process may take

	m        *bgagent.BackgroundManager
	mu       sync.Mutex
	next     int
	launched map[string]bool // names of the accepted tasks
}

// Name returns the description of the task with the given number.
func Name(n int) string { return fmt.Sprint("task ", n) }

// Number returns the number of the task with the given description. A task that was delegated has
// the number of the task that delegated it.
func Number(name string) (n int) {
	_, _ = fmt.Sscanf(name, "task %d", &n) // cannot fail for a name from Name
	return n
}

// launchedBy returns the number of the process that launched the task with the given description.
func launchedBy(name string) int { return Number(name) / names }

// Run runs tasks until the process is killed. In the last process, it returns when all tasks have
// ended, and closes the manager. It gets the log lines of the earlier processes.
func (h *Host) Run(m *bgagent.BackgroundManager, lines []Line) error {
	h.m, h.next, h.launched = m, h.Life*names, map[string]bool{}
	for _, x := range lines {
		if x.What == Accepted {
			h.launched[x.Name] = true
		}
	}
	h.Log.Add(Line{What: Opened})
	_, events := m.Subscribe(1 << 16)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		h.watch(events)
	}()
	m.Start()
	if !h.Last {
		return h.keepBusy()
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.Ends)
	defer cancel()
	err := errors.Join(h.leave(), h.untilAllHaveEnded(ctx), m.Drain(ctx), h.mayNotStop(m.Close(ctx)))
	if err != nil {
		for _, t := range m.List(bgagent.Query{}) {
			fmt.Fprintln(os.Stderr, t.ID, t.Description, t.Session, t.Status, t.Phase, t.Quiet, t.Notice, t.Reason)
		}
	}
	<-watched
	h.Log.Add(Line{What: Closed})
	return err
}

// killsBeforeGivingUp is the number of kills after which a manager no longer tries to stop a session: four kills
// during the turn interrupt the task, and a fifth one follows while its session is being stopped.
const killsBeforeGivingUp = 5

// mayNotStop returns Close's error, or nil if the error only lists sessions that the manager no
// longer tries to stop. The test itself checks that no agent is left.
func (h *Host) mayNotStop(err error) error {
	var left *bgagent.CloseError
	if !errors.As(err, &left) || left.Err != nil || len(left.Owed)+len(left.Hung) > 0 || h.Life <= killsBeforeGivingUp {
		return err
	}
	for _, id := range left.NotStopped {
		if t, gone := h.m.Get(id); gone != nil || t.Cause != bgagent.CauseInterrupted {
			return errors.Join(err, gone)
		}
	}
	return nil
}

func (h *Host) watch(events *bgagent.Subscription) {
	for {
		e, err := events.Next(context.Background())
		if err != nil {
			return // the manager was closed, and all events have been read
		}
		if e.Kind == bgagent.EventEnded {
			h.Log.Add(Line{What: Ended, Task: e.Task.ID, Attempt: e.Task.Attempt, Status: e.Task.Status, Cause: e.Task.Cause})
		}
	}
}

// The method "leave" cancels the pending tasks for which Leaves returns true.
func (h *Host) leave() (err error) {
	if h.Leaves == nil {
		return nil
	}
	for _, t := range h.m.List(bgagent.Query{Parent: Root}) {
		if t.Status == bgagent.Pending && h.Leaves(Number(t.Description)) {
			err = errors.Join(err, h.cancel(t.ID))
		}
	}
	return err
}

// untilAllHaveEnded waits until all tasks have ended. Unlike with Drain, the tasks can still delegate.
func (h *Host) untilAllHaveEnded(ctx context.Context) error {
	tasks, events := h.m.Subscribe(1 << 16)
	defer events.Close()
	live := map[string]bool{}
	for _, t := range tasks {
		if !t.Status.Terminal() {
			live[t.ID] = true
		}
	}
	for len(live) > 0 {
		e, err := events.Next(ctx)
		if err != nil {
			return err
		}
		switch e.Kind {
		case bgagent.EventLaunched:
			live[e.Task.ID] = true
		case bgagent.EventEnded:
			delete(live, e.Task.ID)
		}
	}
	return nil
}

// keepBusy launches tasks until the process is killed, so that there are always enough live tasks.
func (h *Host) keepBusy() error {
	failed := make(chan error, Live)
	live := 0
	for _, t := range h.m.List(bgagent.Query{Parent: Root}) {
		if !t.Status.Terminal() {
			live++
		}
	}
	free := make(chan struct{}, Live)
	for range Live - live {
		free <- struct{}{}
	}
	_, events := h.m.Subscribe(1 << 16)
	go func() {
		for {
			e, err := events.Next(context.Background())
			if err != nil {
				return
			}
			if e.Kind == bgagent.EventEnded && e.Task.Parent == Root {
				select {
				case free <- struct{}{}:
				default: // enough tasks are live
				}
			}
		}
	}()
	for {
		select {
		case <-free:
			go func() { failed <- h.launch() }()
		case err := <-failed:
			if err != nil {
				return err
			}
		}
	}
}

func (h *Host) launch() error {
	h.mu.Lock()
	n := h.next
	h.next++
	h.mu.Unlock()
	in := h.Launch(n)
	in.Description = Name(n)
	t, err := h.Accept(bgagent.Caller{Session: Root}, in)
	if err != nil || !h.Cancels(n) {
		return err
	}
	h.Pause(20 * time.Millisecond)
	return h.cancel(t.ID)
}

func (h *Host) cancel(id string) error {
	h.Log.Add(Line{What: Cancelling, Task: id})
	_, err := h.m.Cancel(context.Background(), bgagent.Caller{Session: Root}, id, bgagent.CancelOptions{})
	switch {
	case errors.Is(err, bgagent.ErrAlreadyEnded), errors.Is(err, bgagent.ErrExpired):
		return nil
	case err == nil:
		h.Log.Add(Line{What: Cancelled, Task: id})
	case errors.Is(err, bgagent.ErrUnknownTask):
		h.Log.Add(Line{What: Unknown, Task: id})
		return nil
	}
	return err
}

// Accept launches a task and logs it.
func (h *Host) Accept(by bgagent.Caller, in bgagent.LaunchInput) (bgagent.Task, error) {
	t, err := h.m.Launch(context.Background(), by, in)
	if err == nil {
		h.Log.Add(Line{What: Accepted, Task: t.ID, Name: in.Description})
		h.mu.Lock()
		h.launched[in.Description] = true
		h.mu.Unlock()
	}
	return t, err
}

// Launched reports whether a task with the given description was accepted, by this process or by an
// earlier one.
func (h *Host) Launched(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.launched[name]
}

// Pause waits for a random time below the given maximum.
func (h *Host) Pause(most time.Duration) {
	h.mu.Lock()
	d := time.Duration(h.Rand.Int64N(int64(most)))
	h.mu.Unlock()
	time.Sleep(d)
}

// Notify is a function for [bgagent.Config.Notify].
func (h *Host) Notify(_ context.Context, _ string, n bgagent.Notice) error {
	h.Told(n)
	h.Pause(2 * time.Millisecond)
	return nil
}

// Told logs the items of a notice.
func (h *Host) Told(n bgagent.Notice) {
	for _, i := range n.Items {
		h.Log.Add(Line{What: Told, Task: i.Task, Item: i.ID, Attempt: i.Attempt, Status: i.Status, Cause: i.Cause})
	}
}
