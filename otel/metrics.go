package bgotel

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// instruments holds the instruments for the metrics of one manager.
type instruments struct {
	queue, run, turn metric.Float64Histogram
	tokens           metric.Int64Counter
	cost             metric.Float64Counter
	missed           metric.Int64Counter

	// pending and running count the live tasks that the recorder knows of. The collector's
	// goroutine reads the counts in the callback.
	pending, running atomic.Int64

	live, owed, stopping metric.Int64ObservableUpDownCounter
	ended, over          metric.Int64ObservableCounter
	inUse, waiting       metric.Int64ObservableUpDownCounter
	limit                metric.Int64ObservableGauge
	registration         metric.Registration
}

// turnBuckets are the boundaries that the conventions recommend. The boundaries in
// taskBuckets reach greater values, because tasks wait and run longer than turns.
var (
	turnBuckets = metric.WithExplicitBucketBoundaries(0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
	taskBuckets = metric.WithExplicitBucketBoundaries(0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
)

func newInstruments(m *bgagent.BackgroundManager, meter metric.Meter) (*instruments, error) {
	in := &instruments{}
	err := errors.Join(in.measured(meter), in.observed(meter))
	if err != nil {
		return nil, err
	}
	in.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		in.observe(m.Figures(), o)
		return nil
	}, in.live, in.ended, in.stopping, in.over, in.owed, in.inUse, in.waiting, in.limit)
	return in, err
}

// The method "measured" creates the instruments to which the recorder writes.
func (in *instruments) measured(meter metric.Meter) error {
	var errs [6]error
	in.queue, errs[0] = meter.Float64Histogram("bgagent.task.queue.duration", metric.WithUnit("s"), taskBuckets,
		metric.WithDescription("How long attempts waited for a slot, from the launch to the start, or to the end of those that never started."))
	in.run, errs[1] = meter.Float64Histogram("bgagent.task.run.duration", metric.WithUnit("s"), taskBuckets,
		metric.WithDescription("How long attempts ran, from the start to the end."))
	in.turn, errs[2] = meter.Float64Histogram("gen_ai.invoke_agent.duration", metric.WithUnit("s"), turnBuckets,
		metric.WithDescription("How long turns lasted, from the prompt until the session is idle."))
	in.tokens, errs[3] = meter.Int64Counter("bgagent.task.tokens", metric.WithUnit("{token}"),
		metric.WithDescription("Tokens used, as reported by the agents."))
	in.cost, errs[4] = meter.Float64Counter("bgagent.task.cost", metric.WithUnit("{USD}"),
		metric.WithDescription("Costs, as reported by the agents."))
	in.missed, errs[5] = meter.Int64Counter("bgagent.event.missed", metric.WithUnit("{event}"),
		metric.WithDescription("Events that the recorder missed because it could not keep up."))
	return errors.Join(errs[:]...)
}

// The method "observed" creates the instruments whose values are read when metrics are collected.
func (in *instruments) observed(meter metric.Meter) error {
	var errs [8]error
	in.live, errs[0] = meter.Int64ObservableUpDownCounter("bgagent.task.live", metric.WithUnit("{task}"),
		metric.WithDescription("Tasks that are pending or running."))
	in.ended, errs[1] = meter.Int64ObservableCounter("bgagent.task.ended", metric.WithUnit("{attempt}"),
		metric.WithDescription("Ended attempts, by status and cause."))
	in.stopping, errs[2] = meter.Int64ObservableUpDownCounter("bgagent.task.stopping", metric.WithUnit("{attempt}"),
		metric.WithDescription("Ended attempts with something still running."))
	in.over, errs[3] = meter.Int64ObservableCounter("bgagent.task.over_limit", metric.WithUnit("{session}"),
		metric.WithDescription("Sessions that did not stop in time, so their slot was passed on."))
	in.owed, errs[4] = meter.Int64ObservableUpDownCounter("bgagent.notice.owed", metric.WithUnit("{notice}"),
		metric.WithDescription("Ends that the parent has not been notified of yet."))
	in.inUse, errs[5] = meter.Int64ObservableUpDownCounter("bgagent.slot.in_use", metric.WithUnit("{slot}"),
		metric.WithDescription("Slots in use."))
	in.waiting, errs[6] = meter.Int64ObservableUpDownCounter("bgagent.slot.waiting", metric.WithUnit("{task}"),
		metric.WithDescription("Tasks that wait for a slot."))
	in.limit, errs[7] = meter.Int64ObservableGauge("bgagent.slot.limit", metric.WithUnit("{slot}"),
		metric.WithDescription("Slots in total. Absent if there is no limit."))
	return errors.Join(errs[:]...)
}

func (in *instruments) observe(f bgagent.Figures, o metric.Observer) {
	status := func(s bgagent.Status) metric.MeasurementOption {
		return metric.WithAttributes(keyStatus.String(s.String()))
	}
	o.ObserveInt64(in.live, in.pending.Load(), status(bgagent.Pending))
	o.ObserveInt64(in.live, in.running.Load(), status(bgagent.Running))
	for c, n := range f.Causes {
		o.ObserveInt64(in.ended, int64(n), metric.WithAttributes(keyStatus.String(c.Status().String()), keyCause.String(c.String())))
	}
	o.ObserveInt64(in.stopping, int64(f.Stopping))
	o.ObserveInt64(in.over, int64(f.OverLimit))
	o.ObserveInt64(in.owed, int64(f.Owed))
	for _, p := range f.Pools {
		pool := metric.WithAttributes(keyPool.String(p.Name))
		o.ObserveInt64(in.inUse, int64(p.InUse), pool)
		o.ObserveInt64(in.waiting, int64(p.Waiting), pool)
		if p.Limit != bgagent.Unlimited {
			o.ObserveInt64(in.limit, int64(p.Limit), pool)
		}
	}
}

// count changes the number of live attempts with a status. The number "by" is +1 if an attempt enters the
// status, and -1 if an attempt leaves it.
func (in *instruments) count(s bgagent.Status, by int64) {
	switch s {
	case bgagent.Pending:
		in.pending.Add(by)
	case bgagent.Running:
		in.running.Add(by)
	}
}

// spend adds to the counters what an attempt has used since the last call to spend, and
// returns this usage. An agent can report a lower usage than before, but counters never
// decrease.
func (in *instruments) spend(x *record, now bgagent.Usage) bgagent.Usage {
	used := bgagent.Usage{
		InputTokens:  max(now.InputTokens-x.used.InputTokens, 0),
		OutputTokens: max(now.OutputTokens-x.used.OutputTokens, 0),
		Cost:         max(now.Cost-x.used.Cost, 0),
	}
	x.used = now
	if used.InputTokens > 0 {
		in.tokens.Add(x.ctx, used.InputTokens, inMetrics(x.agent, keyTokenType.String("input")))
	}
	if used.OutputTokens > 0 {
		in.tokens.Add(x.ctx, used.OutputTokens, inMetrics(x.agent, keyTokenType.String("output")))
	}
	if used.Cost > 0 {
		in.cost.Add(x.ctx, used.Cost, inMetrics(x.agent))
	}
	return used
}

// inMetrics returns those of the agent's attributes that metrics have, followed by the given further
// attributes.
func inMetrics(agent []attribute.KeyValue, more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(slices.Concat(agent[:min(len(agent), 2)], more)...) // the third attribute is the provider
}
