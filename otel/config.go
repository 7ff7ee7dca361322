package bgotel

import (
	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// DefaultBuffer is how many events may wait to be read unless [Config].Buffer
// says otherwise: a burst of a thousand short tasks fits.
const DefaultBuffer = 8192

// Config says where telemetry goes and what is in it. The zero value is fine.
type Config struct {
	// TracerProvider and MeterProvider are OpenTelemetry's global ones when nil.
	// [Recorder.Shutdown] flushes them and does not shut them down.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// Parent returns the span that a task was launched under, for a host that
	// cannot use [Inject] because a model's tool call launches the task: it
	// notes the span of the call by its id before it makes the call, and finds it
	// by Task.ToolCallID. The zero SpanContext means that it does not know. It is
	// called on the recorder's goroutine, once for each attempt, and must return
	// soon.
	Parent func(bgagent.Task) trace.SpanContext

	// Content also records the descriptions of tasks and the reasons of their
	// ends. They may hold parts of prompts and of answers.
	Content bool

	// Buffer is how many events may wait to be read; DefaultBuffer when it is not
	// positive.
	Buffer int
}
