//go:build linux

package embedded_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

// workerPlan describes a worker process.
type workerPlan struct {
	URL, Name   string
	Limits      bgagent.Limits
	Lanes       int           // number of tasks that the worker keeps live in each of the pools a and b
	Least, Most time.Duration // how long the body of a task takes in these pools
	Forgets     bool          // the worker has no store
	Renewals    bool          // the worker reports the renewals of its lease
}

// report writes a line to the test. A line is written as a whole, and before the reported event has an
// effect.
func report(words ...any) {
	reporting.Lock()
	defer reporting.Unlock()
	fmt.Println(words...)
}

var reporting sync.Mutex

// newManager calls New until it succeeds, but for no longer than the duration "most".
func newManager(most time.Duration, client bgagent.SessionClient, config bgagent.Config) (m *bgagent.BackgroundManager, err error) {
	for over := time.Now().Add(most); m == nil; {
		if m, err = bgagent.New(client, config); err != nil && time.Now().After(over) {
			return nil, err
		}
	}
	return m, nil
}

// runWorker joins the cluster and runs tasks, until standard input ends. Each task that ends is replaced by
// another one, so that some tasks are always waiting. If there is a pool c, the bodies of its tasks are
// always short.
func runWorker(text string) error {
	var p workerPlan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := bgnats.ClusterOptions{
		Process: p.Name, Lease: worldLease, Limits: p.Limits, Store: bgnats.StoreOptions{Grace: time.Second},
		Warn: func(err error) { report("warns", err) },
	}
	if p.Renewals {
		o.Connect = append(o.Connect, nats.SetCustomDialer(leaseDialer{}))
	}
	c, err := bgnats.Join(ctx, p.URL, o)
	if err != nil {
		return err
	}
	client := inproc.New(map[string]inproc.Agent{"worker": p.work})
	client.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil // the manager may repeat the work of a task
	}
	config := bgagent.Config{Slots: c.Slots, Store: c.Store, Wake: bgagent.WakeNever}
	if p.Forgets {
		config.Store = nil
	}
	m, err := newManager(time.Minute, &stamped{Client: client}, config) // New fails while the servers have no leader
	if err != nil {
		return err
	}
	if !p.Forgets {
		if err := c.Serve(m); err != nil {
			return err
		}
	}
	go func() {
		for was := false; ; time.Sleep(20 * time.Millisecond) {
			if is := c.Slots.IsAllocator(); is != was {
				was = is
				report("allocator", is)
			}
		}
	}()
	for i := range 2 * p.Lanes {
		go p.lane(ctx, m, string("ab"[i%2]))
	}
	if p.Limits.Model["c"] > 0 {
		for range 2 {
			go p.lane(ctx, m, "c")
		}
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(m.Close(ctx), c.Close(ctx))
}

// lane keeps one task of the pool live.
func (p *workerPlan) lane(ctx context.Context, m *bgagent.BackgroundManager, pool string) {
	for ctx.Err() == nil {
		task, err := m.Launch(ctx, bgagent.Caller{}, bgagent.LaunchInput{Agent: "worker", Model: "x/" + pool, Prompt: pool, Description: "d"})
		if err != nil {
			report("refused", err)
			time.Sleep(100 * time.Millisecond) // Launch fails while the servers have no leader
			continue
		}
		ended, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, task.ID)
		if err == nil {
			report("ended", pool, causeWord(ended[0].Cause), ended[0].Reason)
		}
	}
}

// shortBody is the longest time that a body of the pool c takes.
const shortBody = 200 * time.Millisecond

// bodies counts the bodies of this process.
var bodies atomic.Int64

// work is the body of a task. It reports the time when its turn began, before the turn waited for anything,
// and the time when it ended or was stopped.
func (p *workerPlan) work(ctx context.Context, turn *inproc.Turn) (string, error) {
	n, pool := bodies.Add(1), turn.Prompt.Text
	least, most := p.Least, p.Most
	switch {
	case pool == "c":
		least, most = shortBody/2, shortBody
	case n <= int64(2*p.Lanes):
		least = 0 // the first bodies have random lengths, so that later bodies do not all end at the same time
	}
	takes := least + rand.N(most-least)
	report("begin", pool, n, ctx.Value(beganKey{}), time.Now().Add(takes).UnixNano())
	over := time.NewTimer(takes)
	defer over.Stop()
	select {
	case <-over.C:
		report("end", pool, n, time.Now().UnixNano())
	case <-ctx.Done():
		report("stop", pool, n, time.Now().UnixNano())
	}
	return "done", ctx.Err()
}
