package bgotel_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgotel "github.com/bgagent/bgagent/otel"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

func TestMetricsTellOfTasksSlotsAndNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(map[string]inproc.Agent{
			"spends": func(_ context.Context, turn *inproc.Turn) (string, error) {
				turn.Usage(bgagent.Usage{InputTokens: 700, OutputTokens: 30, Cost: 0.25})
				time.Sleep(2 * time.Second)
				turn.Usage(bgagent.Usage{InputTokens: 300, OutputTokens: 70, Cost: 0.25})
				return "", errors.New("the agent failed")
			},
		}), bgagent.Config{
			Limits: bgagent.Limits{Default: 1, Model: map[string]int{"free": bgagent.Unlimited}}, Wake: bgagent.WakeNever,
			Model: func(agent, _ string) (string, error) {
				return map[string]string{"slow": "one/m", "quick": "one/m", "spends": "free"}[agent], nil
			},
		}, bgotel.Config{})
		o.launch(t, "slow")
		o.launch(t, "quick")
		o.launch(t, "spends")
		synctest.Wait()
		require.Equal(t, []string{
			"bgagent.notice.owed{} 0",
			"bgagent.slot.in_use{bgagent.pool=default one/m} 1",
			"bgagent.slot.in_use{bgagent.pool=model free} 1",
			"bgagent.slot.limit{bgagent.pool=default one/m} 1",
			"bgagent.slot.waiting{bgagent.pool=default one/m} 1",
			"bgagent.slot.waiting{bgagent.pool=model free} 0",
			"bgagent.task.live{bgagent.task.status=pending} 1",
			"bgagent.task.live{bgagent.task.status=running} 2",
			"bgagent.task.over_limit{} 0",
			"bgagent.task.queue.duration{gen_ai.agent.name=slow,gen_ai.request.model=m} 1 values, 0 in all",
			"bgagent.task.queue.duration{gen_ai.agent.name=spends,gen_ai.request.model=free} 1 values, 0 in all",
			"bgagent.task.stopping{} 0",
		}, o.metrics(t))

		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{
			"bgagent.notice.owed{} 3",
			"bgagent.task.cost{gen_ai.agent.name=spends,gen_ai.request.model=free} 0.5",
			"bgagent.task.ended{bgagent.task.cause=session error,bgagent.task.status=error} 1",
			"bgagent.task.ended{bgagent.task.cause=turn ended,bgagent.task.status=completed} 2",
			"bgagent.task.live{bgagent.task.status=pending} 0",
			"bgagent.task.live{bgagent.task.status=running} 0",
			"bgagent.task.over_limit{} 0",
			"bgagent.task.queue.duration{gen_ai.agent.name=quick,gen_ai.request.model=m} 1 values, 10 in all",
			"bgagent.task.queue.duration{gen_ai.agent.name=slow,gen_ai.request.model=m} 1 values, 0 in all",
			"bgagent.task.queue.duration{gen_ai.agent.name=spends,gen_ai.request.model=free} 1 values, 0 in all",
			"bgagent.task.run.duration{bgagent.task.cause=session error,bgagent.task.status=error,gen_ai.agent.name=spends,gen_ai.request.model=free} 1 values, 2 in all",
			"bgagent.task.run.duration{bgagent.task.cause=turn ended,bgagent.task.status=completed,gen_ai.agent.name=quick,gen_ai.request.model=m} 1 values, 1 in all",
			"bgagent.task.run.duration{bgagent.task.cause=turn ended,bgagent.task.status=completed,gen_ai.agent.name=slow,gen_ai.request.model=m} 1 values, 10 in all",
			"bgagent.task.stopping{} 0",
			"bgagent.task.tokens{gen_ai.agent.name=spends,gen_ai.request.model=free,gen_ai.token.type=input} 1000",
			"bgagent.task.tokens{gen_ai.agent.name=spends,gen_ai.request.model=free,gen_ai.token.type=output} 100",
			"gen_ai.invoke_agent.duration{error.type=session error,gen_ai.agent.name=spends,gen_ai.request.model=free} 1 values, 2 in all",
			"gen_ai.invoke_agent.duration{gen_ai.agent.name=quick,gen_ai.request.model=m} 1 values, 1 in all",
			"gen_ai.invoke_agent.duration{gen_ai.agent.name=slow,gen_ai.request.model=m} 1 values, 10 in all",
		}, o.metrics(t))

		_, ok := o.TakeNotice(root.Session)
		require.True(t, ok)
		require.Equal(t, "bgagent.notice.owed{} 0", o.metrics(t)[0])
	})
}

func TestNothingIsCollectedAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{})
		require.NotEmpty(t, o.metrics(t))
		require.NoError(t, o.rec.Shutdown(t.Context()))
		require.Empty(t, o.metrics(t))
	})
}

func TestManagersThatShareAMeterProviderAreAddedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		with := bgotel.Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
		var both []*observed
		for range 2 {
			o := observe(t, agents(nil), bgagent.Config{Limits: bgagent.Limits{Default: 1}}, with)
			o.launch(t, "slow")
			o.launch(t, "slow")
			o.reader = reader
			both = append(both, o)
		}
		synctest.Wait()
		require.Equal(t, []string{"bgagent.task.live{bgagent.task.status=pending} 2", "bgagent.task.live{bgagent.task.status=running} 2"}, both[0].lines(t, "bgagent.task.live"))
		require.Equal(t, []string{"bgagent.slot.in_use{bgagent.pool=agent slow} 2"}, both[0].lines(t, "bgagent.slot.in_use"))
		require.NoError(t, both[0].rec.Shutdown(t.Context()))
		require.Equal(t, []string{"bgagent.slot.in_use{bgagent.pool=agent slow} 1"}, both[1].lines(t, "bgagent.slot.in_use"))
	})
}

func TestTheDocumentationNamesEveryMetric(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	source, err := os.ReadFile("metrics.go")
	require.NoError(t, err)
	made := regexp.MustCompile(`meter\.[A-Za-z0-9]+\("([a-z_.]+)"`).FindAllStringSubmatch(string(source), -1)
	require.Len(t, made, 14)
	for _, m := range made {
		require.Regexp(t, `(?m)^//\t`+regexp.QuoteMeta(m[1])+` +\S`, string(doc))
	}
}

// The type "refusing" is a meter provider whose meter refuses counters.
type refusing struct{ noop.MeterProvider }

func (refusing) Meter(string, ...metric.MeterOption) metric.Meter { return noCounters{} }

type noCounters struct{ noop.Meter }

func (noCounters) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, errors.New("no counters here")
}

func TestStartSaysWhichInstrumentWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(agents(nil), bgagent.Config{})
		require.NoError(t, err)
		_, err = bgotel.Start(m, bgotel.Config{MeterProvider: refusing{}})
		require.ErrorContains(t, err, "bgotel: start: no counters here")
		require.NoError(t, m.Close(t.Context()))
	})
}

func TestWithoutAnSDKItDoesNothingAndNoHarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(agents(nil), bgagent.Config{})
		require.NoError(t, err)
		rec, err := bgotel.Start(m, bgotel.Config{})
		require.NoError(t, err)
		_, err = m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "quick", Prompt: "hello"})
		require.NoError(t, err)
		require.NoError(t, m.Close(t.Context()))
		require.NoError(t, rec.Shutdown(t.Context()))
	})
}
