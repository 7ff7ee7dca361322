package bgotel_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgotel "github.com/bgagent/bgagent/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// The span of a task becomes a child of one of the program's spans.
func Example() {
	ctx := context.Background()
	exporter := tracetest.NewInMemoryExporter() // a real program uses an exporter that sends the spans to a collector
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))

	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"echo": func(_ context.Context, t *inproc.Turn) (string, error) { return t.Prompt.Text, nil },
	}), bgagent.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	rec, err := bgotel.Start(m, bgotel.Config{TracerProvider: provider})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, span := provider.Tracer("example").Start(ctx, "answer the user")
	in := bgagent.LaunchInput{Agent: "echo", Prompt: "hello"}
	bgotel.Inject(ctx, &in)
	if _, err = m.Run(ctx, bgagent.Caller{Session: "main"}, in); err != nil {
		fmt.Println(err)
	}
	span.End()

	// Close the manager first, so that the recorder records the end of every task.
	if err := errors.Join(m.Close(ctx), rec.Shutdown(ctx)); err != nil {
		fmt.Println(err)
	}
	for _, s := range exporter.GetSpans() {
		if s.Parent.SpanID() == span.SpanContext().SpanID() {
			fmt.Printf("%s is below %q\n", s.Name, "answer the user")
		}
	}
	// Output:
	// task echo is below "answer the user"
}
