package bgotel

import (
	"context"
	"time"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// record holds the state of a task's latest attempt. It is kept until the task is evicted.
type record struct {
	id      string
	no      int
	session string
	status  bgagent.Status
	at      trace.SpanContext // context of the attempt's span; kept after the span ends

	// The following fields are set while the attempt is live.
	span   trace.Span
	ctx    context.Context // context that contains the attempt's span
	agent  []attribute.KeyValue
	stage  stage
	part   trace.Span // span of the stage
	since  time.Time  // start of the stage
	turn   int        // number of the latest turn
	asking bool
	used   bgagent.Usage // usage that has already been recorded
}

// stage is a part of an attempt that has its own span.
type stage uint8

const (
	stageNone stage = iota
	stageQueued
	stageSession
	stageTurn
	stageWaiting
)

var stageNames = [...]string{stageQueued: "queued", stageSession: "session", stageTurn: operationInvokeAgent, stageWaiting: "waiting"}

// phaseStages maps the phases of an attempt that has a session to stages.
var phaseStages = map[bgagent.Phase]stage{
	bgagent.PhaseNone:     stageTurn,
	bgagent.PhaseStarting: stageTurn,
	bgagent.PhaseTurn:     stageTurn,
	bgagent.PhaseAsking:   stageTurn,
	bgagent.PhaseWaiting:  stageWaiting,
	bgagent.PhaseStopping: stageTurn,
	bgagent.PhaseStoring:  stageTurn,
	bgagent.PhaseParked:   stageWaiting,
}

// stageOf returns the stage of a running attempt.
func stageOf(t *bgagent.Task) stage {
	s, known := phaseStages[t.Phase]
	switch {
	case s == stageWaiting:
		return stageWaiting
	case t.Session == "":
		return stageSession
	case !known: // the phase is newer than this module
		return stageTurn
	default:
		return s
	}
}

// advance updates the record of a task to the state in t.
func (r *Recorder) advance(t *bgagent.Task, now time.Time) {
	x := r.tasks[t.ID]
	if x == nil || t.Attempt > x.no {
		x = r.begin(t, x)
	}
	if x.status.Terminal() {
		return
	}
	if x.session == "" && t.Session != "" {
		x.session = t.Session
		r.sessions[x.session] = x
	}
	if x.stage == stageQueued && !t.Started.IsZero() {
		r.meters.queue.Record(x.ctx, seconds(x.since, t.Started), inMetrics(x.agent))
		first := stageTurn // the session already exists; its creation gets no stage, because the time of the creation is unknown
		if t.Session == "" {
			first = stageSession
		}
		r.enter(x, t, first, t.Started)
	}
	if x.stage == stageSession && t.Session != "" && t.Status.Terminal() { // the event about the turn was missed
		r.enter(x, t, stageTurn, x.since)
	}
	r.moveTo(x, t.Status)
	switch {
	case t.Status.Terminal():
		r.end(x, t)
	case t.Status == bgagent.Running:
		r.run(x, t, now)
	}
}

// begin starts the span of an attempt and the span of its first stage.
func (r *Recorder) begin(t *bgagent.Task, earlier *record) *record {
	parent, delegator := r.above(t)
	x := &record{id: t.ID, no: t.Attempt, agent: agentOf(t)}
	opts := []trace.SpanStartOption{
		trace.WithTimestamp(t.Queued), trace.WithAttributes(taskOf(t, r.cfg.Content)...), trace.WithAttributes(x.agent...),
	}
	if delegator.IsValid() && !delegator.Equal(parent) {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: delegator}))
	}
	if earlier != nil {
		x.session = earlier.session
		if earlier.at.IsValid() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: earlier.at}))
		}
	}
	ctx := trace.ContextWithSpanContext(context.Background(), parent)
	x.ctx, x.span = r.tracer.Start(ctx, "task "+t.Agent, opts...)
	x.at = x.span.SpanContext()
	r.tasks[x.id] = x
	if x.session != "" {
		r.sessions[x.session] = x
	}
	r.meters.count(x.status, +1)
	r.enter(x, t, stageQueued, t.Queued)
	return x
}

// run updates the stage of a running attempt.
func (r *Recorder) run(x *record, t *bgagent.Task, now time.Time) {
	s := stageOf(t)
	inTurn := t.Phase == bgagent.PhaseTurn || t.Phase == bgagent.PhaseAsking
	if s != x.stage || inTurn && t.Progress.Turns > x.turn {
		r.enter(x, t, s, now)
	}
	if inTurn {
		x.turn = t.Progress.Turns
	}
	if asks := t.Phase == bgagent.PhaseAsking; asks != x.asking && x.stage == stageTurn {
		x.asking = asks
		name := "answered"
		if asks {
			name = "asking"
		}
		x.part.AddEvent(name, trace.WithTimestamp(now))
	}
}

// enter ends the attempt's current stage and starts the stage s.
func (r *Recorder) enter(x *record, t *bgagent.Task, s stage, at time.Time) {
	if at.Before(x.since) {
		at = x.since
	}
	r.leave(x, t, at)
	x.stage, x.since, x.part = s, at, nil
	if s == stageNone {
		return
	}
	name, opts := stageNames[s], []trace.SpanStartOption{trace.WithTimestamp(at)}
	if s == stageTurn {
		name += " " + t.Agent
		opts = append(opts, trace.WithAttributes(keyOperation.String(operationInvokeAgent), keyConversation.String(x.session)), trace.WithAttributes(x.agent...))
		x.asking = false
		if x.turn++; t.Progress.Turns > x.turn {
			x.turn = t.Progress.Turns
		}
	}
	_, x.part = r.tracer.Start(x.ctx, name, opts...)
}

// leave ends the attempt's current stage. If the attempt ended because something went wrong,
// the stage's span gets the cause of t as its error.
func (r *Recorder) leave(x *record, t *bgagent.Task, at time.Time) {
	if x.stage == stageNone {
		return
	}
	used := r.meters.spend(x, t.Progress.Usage)
	measured := inMetrics(x.agent)
	if wentWrong(t.Cause) {
		measured = inMetrics(x.agent, keyErrorType.String(t.Cause.String()))
		failed(x.part, t.Cause)
	}
	if x.stage == stageTurn {
		r.meters.turn.Record(x.ctx, seconds(x.since, at), measured)
		x.part.SetAttributes(keyTurn.Int(x.turn))
		if used.InputTokens > 0 || used.OutputTokens > 0 {
			x.part.SetAttributes(keyInputTokens.Int64(used.InputTokens), keyOutputTokens.Int64(used.OutputTokens))
		}
		if used.Cost > 0 {
			x.part.SetAttributes(keyCost.Float64(used.Cost))
		}
	}
	x.part.End(trace.WithTimestamp(at))
}

// The method "end" ends the spans of an attempt that has ended, and records its measurements.
func (r *Recorder) end(x *record, t *bgagent.Task) {
	r.enter(x, t, stageNone, t.Ended)
	if !t.Started.IsZero() {
		r.meters.run.Record(x.ctx, seconds(t.Started, t.Ended), inMetrics(x.agent, keyStatus.String(t.Status.String()), keyCause.String(t.Cause.String())))
	} else {
		r.meters.queue.Record(x.ctx, seconds(t.Queued, t.Ended), inMetrics(x.agent))
	}
	x.span.SetAttributes(keyStatus.String(t.Status.String()), keyCause.String(t.Cause.String()), keyTurns.Int(t.Progress.Turns), keyToolCalls.Int(t.Progress.ToolCalls))
	if x.session != "" {
		x.span.SetAttributes(keyConversation.String(x.session))
	}
	if r.cfg.Content && t.Reason != "" {
		x.span.SetAttributes(keyReason.String(t.Reason))
	}
	if wentWrong(t.Cause) {
		failed(x.span, t.Cause)
	}
	x.span.End(trace.WithTimestamp(t.Ended))
	x.close()
}

// abandon ends an attempt's spans when only the attempt's last status is known. It does not record
// measurements.
func (r *Recorder) abandon(x *record, status bgagent.Status) {
	now := time.Now()
	x.part.End(trace.WithTimestamp(now))
	x.span.SetAttributes(keyStatus.String(status.String()))
	x.span.End(trace.WithTimestamp(now))
	r.meters.count(x.status, -1)
	x.status = status
	x.close()
}

// moveTo sets the status of a live attempt's record.
func (r *Recorder) moveTo(x *record, status bgagent.Status) {
	r.meters.count(x.status, -1)
	r.meters.count(status, +1)
	x.status = status
}

// close clears the fields that are only needed while the attempt is live.
func (x *record) close() {
	x.span, x.ctx, x.agent, x.part, x.stage = nil, nil, nil, nil, stageNone
}

func failed(s trace.Span, c bgagent.Cause) {
	s.SetAttributes(keyErrorType.String(c.String()))
	s.SetStatus(codes.Error, c.String())
}

// seconds returns the time between two clock readings. It returns 0 if the clock went
// backwards.
func seconds(from, to time.Time) float64 { return max(to.Sub(from), 0).Seconds() }
