// Command observe shows how to observe tasks with OpenTelemetry and expvar. In one turn, the
// program launches three tasks, of which at most two run at the same time. It prints the
// trace of the tasks and the manager's figures as expvar publishes them.
package main

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgotel "github.com/bgagent/bgagent/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "observe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) error {
	// Here, the spans stay in memory. A real program would configure its provider with a
	// batcher and with an exporter to its collector, and would also create a meter provider.
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))

	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"librarian": works(200*time.Millisecond, errors.New("the library is closed")),
		"explore":   works(300*time.Millisecond, nil),
		"oracle":    works(200*time.Millisecond, nil),
	}), bgagent.Config{
		Limits: bgagent.Limits{Default: 2},
		Model:  func(string, string) (string, error) { return "demo/small", nil },
	})
	if err != nil {
		return err
	}
	expvar.Publish("bgagent", expvar.Func(func() any { return m.Figures() }))
	rec, err := bgotel.Start(m, bgotel.Config{TracerProvider: provider})
	if err != nil {
		return errors.Join(err, m.Close(ctx))
	}

	err = work(ctx, m, provider, w)
	// The calls are made in this order, so that all tasks have ended before the last spans are
	// recorded and printed.
	err = errors.Join(err, m.Close(ctx), rec.Shutdown(ctx), draw(w, spans.GetSpans()))
	return errors.Join(err, provider.Shutdown(ctx))
}

// The function "work" is one turn of the program. It delegates three tasks and waits for all
// notices about them.
func work(ctx context.Context, m *bgagent.BackgroundManager, provider *sdktrace.TracerProvider, w io.Writer) error {
	ctx, turn := provider.Tracer("observe").Start(ctx, "turn of the program")
	defer turn.End()
	me := bgagent.Caller{Session: "main"}
	for _, agent := range []string{"librarian", "explore", "oracle"} {
		in := bgagent.LaunchInput{Agent: agent, Prompt: "work"}
		bgotel.Inject(ctx, &in) // the spans of the task become children of the turn's span
		if _, err := m.Launch(ctx, me, in); err != nil {
			return err
		}
	}
	fmt.Fprintln(w, expvar.Get("bgagent")) // a server would publish this text under /debug/vars
	for _, err := range m.Notices(ctx, me.Session) {
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(w, expvar.Get("bgagent"))
	return nil
}

// The function "works" returns an agent that uses some tokens, runs for the duration d, and then
// returns err.
func works(d time.Duration, err error) inproc.Agent {
	return func(ctx context.Context, t *inproc.Turn) (string, error) {
		t.Usage(bgagent.Usage{InputTokens: int64(len(t.Prompt.Text)), OutputTokens: d.Milliseconds()})
		select {
		case <-time.After(d):
			return "done", err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
