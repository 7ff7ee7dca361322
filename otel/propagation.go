package bgotel

import (
	"context"
	"maps"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Inject puts the span of ctx into the metadata of a launch, as the traceparent and
// tracestate of W3C Trace Context. The task's spans then become children of it. If
// ctx has no span, Inject does nothing. It copies in.Metadata and never writes to
// the original map.
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

// extract returns the span that Inject put into the metadata.
func extract(metadata map[string]string) trace.SpanContext {
	if len(metadata) == 0 {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(metadata))
	return trace.SpanContextFromContext(ctx)
}
