package bgotel

import (
	"context"
	"maps"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Inject adds the span of ctx to the metadata of a launch, as the traceparent and tracestate
// of W3C Trace Context. This span becomes the parent of the task's span. If ctx has no span,
// Inject does nothing. It does not write to the original map but replaces in.Metadata with a
// copy.
func Inject(ctx context.Context, in *bgagent.LaunchInput) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return
	}
	m := maps.Clone(in.Metadata)
	if m == nil {
		m = map[string]string{}
	}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(m))
	in.Metadata = m
}

// extract returns the span that Inject added to the metadata, or the zero SpanContext.
func extract(metadata map[string]string) trace.SpanContext {
	if len(metadata) == 0 {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(metadata))
	return trace.SpanContextFromContext(ctx)
}
