package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// The function "draw" prints spans as a tree. Each line shows the start, the duration, the error
// and the tokens of a span.
func draw(w io.Writer, spans tracetest.SpanStubs) error {
	below := map[trace.SpanID]tracetest.SpanStubs{}
	for _, s := range spans {
		below[s.Parent.SpanID()] = append(below[s.Parent.SpanID()], s)
	}
	var began time.Time
	var b strings.Builder
	var tree func(of trace.SpanID, indent string)
	tree = func(of trace.SpanID, indent string) {
		all := below[of]
		slices.SortStableFunc(all, func(a, b tracetest.SpanStub) int {
			return cmp.Or(a.StartTime.Compare(b.StartTime), a.EndTime.Compare(b.EndTime))
		})
		for _, s := range all {
			if began.IsZero() {
				began = s.StartTime
			}
			name := indent + s.Name
			fmt.Fprintf(&b, "%-28s %5v +%v%s\n", name, rounded(s.StartTime.Sub(began)), rounded(s.EndTime.Sub(s.StartTime)), remarks(s))
			tree(s.SpanContext.SpanID(), indent+"  ")
		}
	}
	tree(trace.SpanID{}, "")
	_, err := io.WriteString(w, b.String())
	return err
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

func remarks(s tracetest.SpanStub) (text string) {
	if s.Status.Code == codes.Error {
		text += "  error: " + s.Status.Description
	}
	for _, kv := range s.Attributes {
		if kv.Key == "gen_ai.usage.output_tokens" {
			text += fmt.Sprintf("  %d tokens", kv.Value.AsInt64())
		}
	}
	return text
}
