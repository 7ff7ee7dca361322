package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

// limits are the limits for all workers together.
var limits = map[string]int{"two": 2, "three": 3, "five": 5}

// lease is how long a worker can be dead before its slots are granted to others. It is more than
// twice as long as the servers need to replace their leader.
const lease = 20 * time.Second

// poolOf returns the model of a task, which is also the name of its pool. The work is distributed
// so that all pools need about the same time.
func poolOf(n int) string {
	switch n % 10 {
	case 0, 1:
		return "two"
	case 2, 3, 4:
		return "three"
	}
	return "five"
}

// howLong returns how long a task takes.
func howLong(n int) time.Duration {
	if n%12 == 0 {
		return 2 * time.Second
	}
	return time.Duration(200+n*37%400) * time.Millisecond
}

func answer(title string) string { return "The answer to " + title + "." }

// stdout guards standard output, where a worker reports what happens. A line is written by a single
// call, so a kill can lose a whole line, but never a part of a line.
var stdout sync.Mutex

func tell(words ...any) {
	stdout.Lock()
	defer stdout.Unlock()
	fmt.Println(words...)
}

// runWorker runs a worker. If its store is empty, it launches its share of the tasks. Otherwise, an
// earlier process of the same worker died, and its tasks are continued.
func runWorker(ctx context.Context, name string) error {
	tasks, err := strconv.Atoi(os.Getenv(tasksVariable))
	if err != nil {
		return err
	}
	slow, err := strconv.Atoi(os.Getenv(slowVariable))
	if err != nil {
		return err
	}
	nc, err := nats.Connect(os.Getenv(urlVariable), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	slots, err := newSlots(ctx, nc)
	if err != nil {
		return err
	}
	go watch(slots)
	m, err := newManager(ctx, nc, name, slots, time.Duration(slow))
	if err != nil {
		return err
	}
	ended, err := m.History(ctx, bgagent.Query{}, "")
	if err != nil {
		return err
	}
	isNew := m.Restored().Tasks == 0 && len(ended) == 0
	for n := range tasks {
		if fmt.Sprint(n%workers) != name || !isNew {
			continue
		}
		parent := fmt.Sprint("parent-", n%12)
		t, err := m.Launch(ctx, bgagent.Caller{Session: parent}, bgagent.LaunchInput{
			Agent: "worker", Model: "demo/" + poolOf(n), Description: fmt.Sprint("task-", n), Prompt: fmt.Sprint(n),
		})
		if err != nil {
			return err
		}
		tell("accepted", t.ID, parent)
	}
	m.Start()
	if err := m.Drain(ctx); err != nil { // until everything has ended and has been reported
		return err
	}
	tell("finished", name)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the program says that all workers have finished
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return errors.Join(m.Close(ctx), slots.Close(ctx))
}

// newSlots joins the workers that share the slots. While the servers are electing their leader,
// bgnats.NewSlots keeps retrying.
func newSlots(ctx context.Context, nc *nats.Conn) (*bgnats.Slots, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return bgnats.NewSlots(ctx, nc, "agents", bgnats.SlotOptions{Limits: bgagent.Limits{Model: limits}, Lease: lease, Replicas: 3})
}

// The function "watch" prints whether this worker grants slots to all workers.
func watch(slots *bgnats.Slots) {
	for was := false; ; time.Sleep(100 * time.Millisecond) {
		if is := slots.IsAllocator(); is != was {
			was = is
			tell("allocator", is)
		}
	}
}

// newManager creates the manager. The servers might not have elected a leader yet, so newManager
// retries.
func newManager(ctx context.Context, nc *nats.Conn, name string, slots *bgnats.Slots, slow time.Duration) (m *bgagent.BackgroundManager, err error) {
	client := inproc.New(map[string]inproc.Agent{"worker": func(ctx context.Context, t *inproc.Turn) (string, error) {
		return work(ctx, t, slow)
	}})
	client.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil // the work can be repeated
	}
	for over := time.Now().Add(within); time.Now().Before(over); {
		m, err = bgagent.New(client, bgagent.Config{
			Store: store(nc, name),
			Slots: slots,
			Wake:  bgagent.WakeEach,
			Notify: func(_ context.Context, parent string, n bgagent.Notice) error {
				for _, item := range n.Items {
					tell("told", item.Task, parent, item.ID)
				}
				return nil
			},
		})
		if err == nil {
			break
		}
	}
	return m, err
}

// The function "work" is the body of a task. It reports when it begins and ends.
func work(ctx context.Context, t *inproc.Turn, slow time.Duration) (string, error) {
	var n int
	if _, err := fmt.Sscan(t.Prompt.Text, &n); err != nil {
		return "", err
	}
	tell("begin", t.Title(), poolOf(n), time.Now().UnixNano())
	defer func() { tell("end", t.Title(), poolOf(n), time.Now().UnixNano()) }()
	select {
	case <-time.After(slow * howLong(n)):
		return answer(t.Title()), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
