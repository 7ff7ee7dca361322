package bgotel

import (
	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// DefaultBuffer is the default value of [Config].Buffer. It has room for the events of a
// thousand short tasks that run at the same time.
const DefaultBuffer = 8192

// Config determines the destination and the content of telemetry. The zero value is ready to
// use.
type Config struct {
	// TracerProvider and MeterProvider default to OpenTelemetry's global providers.
	// [Recorder.Shutdown] flushes the providers but does not shut them down.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider

	// Parent returns the span under which a task was launched. It is for hosts that cannot use
	// [Inject] because a model's tool call launches the task. The host stores the span of the
	// tool call before it executes the call, and Parent looks up the span by Task.ToolCallID.
	// The zero SpanContext means that the task was not launched under a span. Parent is called
	// on the recorder's goroutine, once per attempt, and must return quickly.
	Parent func(bgagent.Task) trace.SpanContext

	// Content, if true, also records the descriptions of tasks and the reasons why they ended.
	// Both can contain parts of prompts and answers.
	Content bool

	// Buffer is the maximum number of unread events. If it is not positive, DefaultBuffer
	// applies.
	Buffer int
}
