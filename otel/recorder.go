package bgotel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name of the tracer and the meter.
const scope = "github.com/bgagent/bgagent/otel"

// Recorder follows the tasks of one manager. Create one with [Start] and end it
// with [Recorder.Shutdown].
type Recorder struct {
	m   *bgagent.BackgroundManager
	cfg Config

	tracer trace.Tracer
	meters *instruments

	ctx  context.Context // ends when Shutdown begins
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine ends

	// Used by the goroutine only.
	tasks    map[string]*record // by task id
	sessions map[string]*record // by session, to find the parent spans of delegated tasks
	caughtUp time.Time          // when catchUp last ran
}

// Start follows the manager's tasks from now on. It includes those already live,
// with their actual times. It starts one goroutine. If recorders of several
// managers share a meter provider, their values are added up. The error is that of
// an instrument that the meter provider refuses.
func Start(m *bgagent.BackgroundManager, cfg Config) (*Recorder, error) {
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = DefaultBuffer
	}
	meters, err := newInstruments(m, cfg.MeterProvider.Meter(scope))
	if err != nil {
		return nil, fmt.Errorf("bgotel: start: %w", err)
	}
	r := &Recorder{
		m: m, cfg: cfg, tracer: cfg.TracerProvider.Tracer(scope), meters: meters, done: make(chan struct{}),
		tasks: map[string]*record{}, sessions: map[string]*record{},
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	tasks, sub := m.Subscribe(cfg.Buffer)
	go r.follow(tasks, sub)
	return r, nil
}

// Shutdown records every event that the manager has sent and ends the spans of
// tasks that are still live, with their current status. It flushes the providers if
// they support it, but does not shut them down. Call it after the manager's Close,
// when every task has ended. It may be called again, and concurrently. If ctx ends
// first because an exporter blocks the recorder's goroutine, Shutdown returns the
// error of ctx and the goroutine continues.
func (r *Recorder) Shutdown(ctx context.Context) error {
	r.stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("bgotel: shutdown: %w", ctx.Err())
	}
	// The figures are read once more before the instruments are unregistered.
	err := errors.Join(flush(ctx, r.cfg.TracerProvider), flush(ctx, r.cfg.MeterProvider), r.meters.registration.Unregister())
	if err != nil {
		return fmt.Errorf("bgotel: shutdown: %w", err)
	}
	return nil
}

// flush flushes a provider of the SDK. The API has no such method.
func flush(ctx context.Context, provider any) error {
	if f, ok := provider.(interface{ ForceFlush(context.Context) error }); ok {
		return f.ForceFlush(ctx)
	}
	return nil
}

// follow reads events until the manager is closed or Shutdown begins. Next returns
// every sent event first: it looks at the context only when there is nothing to
// read.
func (r *Recorder) follow(tasks []bgagent.Task, sub *bgagent.Subscription) {
	defer close(r.done)
	r.first(tasks)
	for {
		e, err := sub.Next(r.ctx)
		if err != nil {
			break
		}
		switch x := r.tasks[e.Task.ID]; {
		case e.Kind == bgagent.EventMissed:
			r.meters.missed.Add(context.Background(), int64(e.Missed))
			sub = r.catchUp(sub)
		case e.Kind == bgagent.EventExpired:
			r.forget(x)
		case x != nil || e.Kind == bgagent.EventLaunched: // otherwise the session of an evicted task has finally stopped
			r.see(&e.Task)
		}
	}
	sub.Close()
	for _, x := range r.tasks {
		if !x.status.Terminal() {
			r.abandon(x, x.status)
		}
	}
}

// first adds the tasks that existed before the recorder. Those that have ended are
// not recorded.
func (r *Recorder) first(tasks []bgagent.Task) {
	now := time.Now()
	for i := range tasks {
		t := &tasks[i]
		if !t.Status.Terminal() {
			r.advance(t, now)
			continue
		}
		x := &record{id: t.ID, no: t.Attempt, session: t.Session, status: t.Status}
		r.tasks[x.id] = x
		if x.session != "" {
			r.sessions[x.session] = x
		}
	}
}

// see updates the record of a task to its current state. Only the task's state
// matters, not the kind of event, so the same function handles events and the list
// that catchUp reads.
func (r *Recorder) see(t *bgagent.Task) {
	now := time.Now()
	for _, past := range t.Attempts {
		x := r.tasks[t.ID]
		if x == nil || past.Number > x.no || past.Number == x.no && !x.status.Terminal() {
			r.advance(asItEnded(t, past), now)
		}
	}
	r.advance(t, now)
}

// asItEnded returns the task as it was when an earlier attempt ended.
func asItEnded(t *bgagent.Task, past bgagent.Attempt) *bgagent.Task {
	was := *t
	was.Attempt, was.Status, was.Cause, was.Reason = past.Number, past.Status, past.Cause, past.Reason
	was.Queued, was.Started, was.Ended = past.Queued, past.Started, past.Ended
	was.Phase, was.Progress = bgagent.PhaseNone, bgagent.Progress{}
	return &was
}

// catchUpPause is the minimum time between two reads of all tasks. A recorder that
// cannot keep up must not make the manager copy all of its tasks again and again.
const catchUpPause = time.Second

// catchUp replaces the subscription and records what was missed from the new list
// of tasks. Events left in the old subscription are older than this list, so they
// are dropped.
func (r *Recorder) catchUp(sub *bgagent.Subscription) *bgagent.Subscription {
	sub.Close()
	if pause := catchUpPause - time.Since(r.caughtUp); pause > 0 {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
		}
	}
	r.caughtUp = time.Now()
	tasks, sub := r.m.Subscribe(r.cfg.Buffer)
	there := make(map[string]bool, len(tasks))
	for i := range tasks {
		there[tasks[i].ID] = true
		r.see(&tasks[i])
	}
	for id, x := range r.tasks {
		if there[id] {
			continue
		}
		if !x.status.Terminal() {
			r.abandon(x, r.expiredAs(x))
		}
		r.forget(x)
	}
	return sub
}

// expiredAs returns the status of an attempt whose task was evicted unseen.
func (r *Recorder) expiredAs(x *record) bgagent.Status {
	var gone *bgagent.ExpiredError
	if _, err := r.m.Get(x.id); errors.As(err, &gone) {
		return gone.Status
	}
	return x.status
}

// forget drops the record of an evicted task, if there is one.
func (r *Recorder) forget(x *record) {
	if x == nil {
		return
	}
	delete(r.tasks, x.id)
	if r.sessions[x.session] == x {
		delete(r.sessions, x.session)
	}
}

// above returns the parent of the task's span, and the span of the task that
// delegated it.
func (r *Recorder) above(t *bgagent.Task) (parent, delegator trace.SpanContext) {
	if x := r.sessions[t.Parent]; x != nil {
		delegator = x.at
		if x.stage == stageTurn {
			delegator = x.part.SpanContext()
		}
	}
	if parent = extract(t.Metadata); !parent.IsValid() && r.cfg.Parent != nil {
		parent = r.cfg.Parent(*t)
	}
	if !parent.IsValid() {
		parent = delegator
	}
	return parent, delegator
}
