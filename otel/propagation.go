package bgotel

import (
	"context"
	"maps"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Inject puts the span that ctx carries into the metadata of a launch, as the
// traceparent and tracestate of W3C Trace Context, so that the task's spans come
// under it. Without a span in ctx it does nothing. The map that is there is
// copied, not written to.
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

// extract returns the span that Inject has put into the metadata.
func extract(metadata map[string]string) trace.SpanContext {
	if len(metadata) == 0 {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(metadata))
	return trace.SpanContextFromContext(ctx)
}
