package bgotel_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgotel "github.com/bgagent/bgagent/otel"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// BenchmarkTask measures the cost of a recorder. It runs empty tasks one after another in three
// cases: without an observer, with a subscriber that only reads events, and with a recorder and
// the SDK.
func BenchmarkTask(b *testing.B) {
	watchers := map[string]func(*testing.B, *bgagent.BackgroundManager) (done func()){
		"unwatched": func(*testing.B, *bgagent.BackgroundManager) func() { return func() {} },
		"subscribed": func(_ *testing.B, m *bgagent.BackgroundManager) func() {
			_, sub := m.Subscribe(bgotel.DefaultBuffer)
			read := make(chan struct{})
			go func() {
				defer close(read)
				for {
					if _, err := sub.Next(context.Background()); errors.Is(err, io.EOF) {
						return
					}
				}
			}()
			return func() { <-read }
		},
		"recorded": func(b *testing.B, m *bgagent.BackgroundManager) func() {
			rec, err := bgotel.Start(m, bgotel.Config{
				TracerProvider: sdktrace.NewTracerProvider(),
				MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())),
			})
			require.NoError(b, err)
			return func() { require.NoError(b, rec.Shutdown(context.Background())) }
		},
	}
	for _, name := range []string{"unwatched", "subscribed", "recorded"} {
		b.Run(name, func(b *testing.B) {
			nothing := func(context.Context, *inproc.Turn) (string, error) { return "done", nil }
			m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"nothing": nothing}), bgagent.Config{})
			require.NoError(b, err)
			done := watchers[name](b, m)
			b.ReportAllocs()
			for b.Loop() {
				_, err := m.Run(b.Context(), root, bgagent.LaunchInput{Agent: "nothing", Prompt: "nothing"})
				require.NoError(b, err)
			}
			require.NoError(b, m.Close(context.Background()))
			done()
		})
	}
}
