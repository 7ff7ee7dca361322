package bgotel_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgotel "github.com/bgagent/bgagent/otel"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// The type "observed" is a manager with a recorder and in-memory exporters of the SDK.
type observed struct {
	*bgagent.BackgroundManager
	rec    *bgotel.Recorder
	spans  *tracetest.InMemoryExporter
	reader *sdkmetric.ManualReader
	tracer trace.Tracer
	began  time.Time
}

var root = bgagent.Caller{Session: "root"}

// observe returns a manager and a recorder for its tasks. The recorder exports spans to memory and to the
// given exporters.
func observe(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config, with bgotel.Config, exporters ...sdktrace.SpanExporter) *observed {
	t.Helper()
	m, err := bgagent.New(sc, cfg)
	require.NoError(t, err)
	o := &observed{BackgroundManager: m, began: time.Now()}
	o.record(t, with, exporters...)
	t.Cleanup(func() { o.end(t) })
	return o
}

// record starts a recorder for the manager.
func (o *observed) record(t *testing.T, with bgotel.Config, exporters ...sdktrace.SpanExporter) {
	t.Helper()
	o.spans, o.reader = tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader()
	opts := []sdktrace.TracerProviderOption{sdktrace.WithSyncer(o.spans)}
	for _, e := range exporters {
		opts = append(opts, sdktrace.WithSyncer(e))
	}
	tp := sdktrace.NewTracerProvider(opts...)
	with.TracerProvider = tp
	if with.MeterProvider == nil {
		with.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.reader))
	}
	o.tracer = tp.Tracer("host")
	var err error
	o.rec, err = bgotel.Start(o.BackgroundManager, with)
	require.NoError(t, err)
}

// end closes the manager and shuts down the recorder. A second call has no effect.
func (o *observed) end(t *testing.T) {
	t.Helper()
	err := o.Close(context.Background())
	if !errors.As(err, new(*bgagent.CloseError)) { // undelivered notices can remain, because no host takes them
		require.NoError(t, err)
	}
	require.NoError(t, o.rec.Shutdown(context.Background()))
}

func (o *observed) launch(t *testing.T, agent string) bgagent.Task {
	t.Helper()
	task, err := o.Launch(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: "secret of " + agent})
	require.NoError(t, err)
	return task
}

// tree returns one line for each finished span, in the order the spans started. A
// line is indented under the line of the parent span. Times are relative to the start of the
// test.
func (o *observed) tree() []string {
	all := o.spans.GetSpans()
	slices.SortStableFunc(all, func(a, b tracetest.SpanStub) int {
		return cmp.Or(a.StartTime.Compare(b.StartTime), a.EndTime.Compare(b.EndTime)) // sorted by end time if the start times are equal
	})
	known := map[trace.SpanID]bool{}
	for _, s := range all {
		known[s.SpanContext.SpanID()] = true
	}
	var lines []string
	var draw func(parent trace.SpanID, indent string)
	draw = func(parent trace.SpanID, indent string) {
		for _, s := range all {
			up := s.Parent.SpanID()
			if !known[up] {
				up = trace.SpanID{}
			}
			if up != parent {
				continue
			}
			line := fmt.Sprintf("%s%s %v–%v", indent, s.Name, s.StartTime.Sub(o.began), s.EndTime.Sub(o.began))
			if s.Status.Code == codes.Error {
				line += " error: " + s.Status.Description
			}
			lines = append(lines, line)
			draw(s.SpanContext.SpanID(), indent+"  ")
		}
	}
	draw(trace.SpanID{}, "")
	return lines
}

// span returns the only span with the given name.
func (o *observed) span(t *testing.T, name string) tracetest.SpanStub {
	t.Helper()
	var found []tracetest.SpanStub
	for _, s := range o.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	require.Len(t, found, 1, name)
	return found[0]
}

func attributes(s tracetest.SpanStub) map[string]any { return asMap(attribute.NewSet(s.Attributes...)) }

func asMap(set attribute.Set) map[string]any {
	m := map[string]any{}
	for _, kv := range set.ToSlice() {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// metrics collects the metrics and returns one line for each data point, sorted. The line for
// a histogram contains the number of values and their sum.
func (o *observed) metrics(t *testing.T) []string {
	t.Helper()
	var rm metricdata.ResourceMetrics
	require.NoError(t, o.reader.Collect(context.Background(), &rm))
	var lines []string
	add := func(name string, set attribute.Set, value string) {
		lines = append(lines, name+"{"+set.Encoded(attribute.DefaultEncoder())+"} "+value)
	}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, fmt.Sprint(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, fmt.Sprint(p.Value))
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, fmt.Sprint(p.Value))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, fmt.Sprintf("%d values, %v in all", p.Count, p.Sum))
				}
			default:
				require.Fail(t, "unknown data", "%T", data)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// agents returns a client with agents that work for different durations, and with the further agents in the
// map "more".
func agents(more map[string]inproc.Agent) *inproc.Client {
	all := map[string]inproc.Agent{
		"quick": works(time.Second), "slow": works(10 * time.Second), "for ever": works(1000 * time.Hour),
	}
	for name, a := range more {
		all[name] = a
	}
	return inproc.New(all)
}

func works(d time.Duration) inproc.Agent {
	return func(ctx context.Context, t *inproc.Turn) (string, error) {
		select {
		case <-time.After(d):
			return "secret answer", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
