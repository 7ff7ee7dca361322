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

// scope is the name of the tracer and of the meter.
const scope = "github.com/bgagent/bgagent/otel"

// Recorder follows the tasks of one manager. It is made by [Start] and ended by
// [Recorder.Shutdown].
type Recorder struct {
	m   *bgagent.BackgroundManager
	cfg Config

	tracer trace.Tracer
	meters *instruments

	ctx  context.Context // ends when Shutdown begins
	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended

	// Only the goroutine touches these.
	tasks    map[string]*record // by task
	sessions map[string]*record // by session, to find what a task's own tasks belong under
	caughtUp time.Time          // when what was missed was last made good
}

// Start follows the tasks of the manager from here on: those that are live
// already, with the times that they have, and all later ones. It starts one
// goroutine. Managers whose recorders share a meter provider are added up. The
// error is that of an instrument that the meter provider has refused.
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

// Shutdown records every event that the manager has sent, ends the spans of the
// tasks that are still live, with the status that they have, and flushes the
// providers where they can be flushed; it does not shut them down. Call it after
// the manager's Close, so that every task has ended. It may be called again, and
// by several goroutines at once. When ctx ends first, because an exporter holds
// up the recorder's goroutine, the error is ctx's and the goroutine goes on.
func (r *Recorder) Shutdown(ctx context.Context) error {
	r.stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("bgotel: shutdown: %w", ctx.Err())
	}
	// The figures are read once more while the instruments are still there.
	err := errors.Join(flush(ctx, r.cfg.TracerProvider), flush(ctx, r.cfg.MeterProvider), r.meters.registration.Unregister())
	if err != nil {
		return fmt.Errorf("bgotel: shutdown: %w", err)
	}
	return nil
}

// flush flushes a provider of the SDK: the API has no such method.
func flush(ctx context.Context, provider any) error {
	if f, ok := provider.(interface{ ForceFlush(context.Context) error }); ok {
		return f.ForceFlush(ctx)
	}
	return nil
}

// follow reads events until the manager has been closed or Shutdown begins. By
// then Next has returned everything that was sent: it only waits, and looks at
// the context, when there is nothing to read.
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
		case x != nil || e.Kind == bgagent.EventLaunched: // else of a task that has expired: its session has stopped at last
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

// first takes the tasks that were there before the recorder. Nothing is recorded
// of those that have ended.
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

// see takes what is known of a task by now. It only matters how far the task has
// got, not which event says so: the same function takes an event and a task of
// the list that makes missed ones good.
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

// asItEnded returns the task as it was when an earlier attempt had ended.
func asItEnded(t *bgagent.Task, past bgagent.Attempt) *bgagent.Task {
	was := *t
	was.Attempt, was.Status, was.Cause, was.Reason = past.Number, past.Status, past.Cause, past.Reason
	was.Queued, was.Started, was.Ended = past.Queued, past.Started, past.Ended
	was.Phase, was.Progress = bgagent.PhaseNone, bgagent.Progress{}
	return &was
}

// catchUpPause is the shortest time between two looks at all tasks. Whoever
// cannot keep up must not have the manager copy all of its tasks again and again.
const catchUpPause = time.Second

// catchUp makes good what was missed. What is left of the old subscription is
// older than the new one's list and would lead backwards, so it is dropped.
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

// expiredAs returns how an attempt ended whose task has expired unseen.
func (r *Recorder) expiredAs(x *record) bgagent.Status {
	var gone *bgagent.ExpiredError
	if _, err := r.m.Get(x.id); errors.As(err, &gone) {
		return gone.Status
	}
	return x.status
}

// forget drops a task whose record has expired, if it is known.
func (r *Recorder) forget(x *record) {
	if x == nil {
		return
	}
	delete(r.tasks, x.id)
	if r.sessions[x.session] == x {
		delete(r.sessions, x.session)
	}
}

// above returns the span that the task's own belongs under, and that of the task
// that has delegated it.
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
