package bgotel

import (
	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// DefaultBuffer is the default of [Config].Buffer. A burst of a thousand short
// tasks fits.
const DefaultBuffer = 8192

// Config says where telemetry goes and what it contains. The zero value is ready to
// use.
type Config struct {
	// TracerProvider and MeterProvider default to OpenTelemetry's global ones.
	// [Recorder.Shutdown] flushes them but does not shut them down.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// Parent returns the span that a task was launched under. It is for hosts that
	// cannot use [Inject] because a model's tool call launches the task: the host
	// stores the span of the call before making it, and finds it by Task.ToolCallID.
	// The zero SpanContext means that there is no such span. Parent is called on the
	// recorder's goroutine, once per attempt, and must return quickly.
	Parent func(bgagent.Task) trace.SpanContext

	// Content also records the descriptions of tasks and the reasons of their ends.
	// Both may contain parts of prompts and answers.
	Content bool

	// Buffer is how many events may wait to be read. If it is not positive,
	// DefaultBuffer applies.
	Buffer int
}
