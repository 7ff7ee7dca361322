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

// A Recorder produces the telemetry of one manager's tasks. [Start] creates a Recorder, and
// [Recorder.Shutdown] stops it.
type Recorder struct {
	m   *bgagent.BackgroundManager
	cfg Config

	tracer trace.Tracer
	meters *instruments

	ctx  context.Context // ends when Shutdown begins
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine ends

	// Only the goroutine uses the following fields.
	tasks    map[string]*record // by task id
	sessions map[string]*record // by session; used to find the parent spans of delegated tasks
	caughtUp time.Time          // time of the last call to catchUp
}

// Start starts recording the manager's tasks. The tasks that are already live are included,
// with their actual times. Start starts one goroutine. If recorders of several managers share
// a meter provider, their values are added up. Start returns an error if the meter provider
// refuses an instrument.
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

// Shutdown processes all events that the manager has sent so far. It ends the spans of tasks that
// are still live, with their current status. It flushes the providers if they support flushing, but
// does not shut them down. Shutdown should be called after the manager's Close, when every task has
// ended. It may be called more than once, and concurrently. An exporter can block the recorder's
// goroutine. If ctx ends before the goroutine ends, Shutdown returns the error of ctx and the
// goroutine continues.
func (r *Recorder) Shutdown(ctx context.Context) error {
	r.stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("bgotel: shutdown: %w", ctx.Err())
	}
	// The flush reads the figures once more, so it must come before Unregister.
	err := errors.Join(flush(ctx, r.cfg.TracerProvider), flush(ctx, r.cfg.MeterProvider), r.meters.registration.Unregister())
	if err != nil {
		return fmt.Errorf("bgotel: shutdown: %w", err)
	}
	return nil
}

// flush flushes a provider if it has the method ForceFlush. The SDK's providers have this
// method, but the API's interfaces do not include it.
func flush(ctx context.Context, provider any) error {
	if f, ok := provider.(interface{ ForceFlush(context.Context) error }); ok {
		return f.ForceFlush(ctx)
	}
	return nil
}

// follow reads events until the manager is closed or Shutdown begins. No event is lost at
// Shutdown, because Next checks the context only if there is no event to read.
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
		case x != nil || e.Kind == bgagent.EventLaunched: // other events without a record are about evicted tasks
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

// The method "first" adds the tasks that existed before the recorder. It does not create spans for tasks that
// have ended.
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

// The method "see" updates the record of a task to the task's current state. It does not depend on the kind
// of event, so it handles both events and the list of tasks that catchUp reads.
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

// asItEnded returns the state of the task at the end of an earlier attempt.
func asItEnded(t *bgagent.Task, past bgagent.Attempt) *bgagent.Task {
	was := *t
	was.Attempt, was.Status, was.Cause, was.Reason = past.Number, past.Status, past.Cause, past.Reason
	was.Queued, was.Started, was.Ended = past.Queued, past.Started, past.Ended
	was.Phase, was.Progress = bgagent.PhaseNone, bgagent.Progress{}
	return &was
}

// catchUpPause is the minimum time between two reads of all tasks while the recorder runs.
// Without a pause, a recorder that cannot keep up would make the manager copy all of its
// tasks repeatedly.
const catchUpPause = time.Second

// catchUp replaces the subscription and updates the records from the new list of tasks. It
// drops the remaining events of the old subscription, because they are older than the list.
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

// expiredAs returns the last status of an attempt whose task was evicted before the recorder
// saw its end.
func (r *Recorder) expiredAs(x *record) bgagent.Status {
	var gone *bgagent.ExpiredError
	if _, err := r.m.Get(x.id); errors.As(err, &gone) {
		return gone.Status
	}
	return x.status
}

// forget drops the record of an evicted task. If x is nil, the method "forget" does nothing.
func (r *Recorder) forget(x *record) {
	if x == nil {
		return
	}
	delete(r.tasks, x.id)
	if r.sessions[x.session] == x {
		delete(r.sessions, x.session)
	}
}

// The method "above" returns the parent of the task's span, and the span of the delegator: the turn that
// delegated the task or, if that turn has ended, its attempt.
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
