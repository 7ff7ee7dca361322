package bgotel_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/inproc"
	bgotel "github.com/bgagent/bgagent/otel"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

func TestATaskIsATraceOfWhatItGoesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(map[string]inproc.Agent{
			"explore": func(ctx context.Context, turn *inproc.Turn) (string, error) {
				turn.Usage(bgagent.Usage{InputTokens: 1000, OutputTokens: 20, Cost: 0.5})
				time.Sleep(5 * time.Second)
				return "found", nil
			},
		}), bgagent.Config{Limits: bgagent.Limits{Default: 1}, Model: func(string, string) (string, error) { return "google/gemini-3", nil }}, bgotel.Config{})
		o.launch(t, "slow")
		time.Sleep(2 * time.Second)
		task, err := o.Launch(t.Context(), bgagent.Caller{Session: "root", ToolCallID: "call_1"}, bgagent.LaunchInput{Agent: "explore", Prompt: "look"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{
			"task slow 0s–10s",
			"  queued 0s–0s",
			"  session 0s–0s",
			"  invoke_agent slow 0s–10s",
			"task explore 2s–15s",
			"  queued 2s–10s",
			"  session 10s–10s",
			"  invoke_agent explore 10s–15s",
		}, o.tree())

		task, err = o.Get(task.ID)
		require.NoError(t, err)
		require.Equal(t, map[string]any{
			"bgagent.task.id": task.ID, "bgagent.task.attempt": int64(1), "bgagent.task.parent": "root", "bgagent.task.depth": int64(1),
			"gen_ai.agent.name": "explore", "gen_ai.request.model": "gemini-3", "gen_ai.provider.name": "gcp.gemini",
			"gen_ai.tool.call.id": "call_1", "gen_ai.conversation.id": task.Session,
			"bgagent.task.status": "completed", "bgagent.task.cause": "turn ended", "bgagent.task.turns": int64(1), "bgagent.task.tool_calls": int64(0),
		}, attributes(o.span(t, "task explore")))
		require.Equal(t, map[string]any{
			"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "explore", "gen_ai.request.model": "gemini-3", "gen_ai.provider.name": "gcp.gemini",
			"gen_ai.conversation.id": task.Session, "gen_ai.usage.input_tokens": int64(1000), "gen_ai.usage.output_tokens": int64(20),
			"bgagent.turn": int64(1), "bgagent.turn.cost": 0.5,
		}, attributes(o.span(t, "invoke_agent explore")))
		require.Equal(t, trace.SpanKindInternal, o.span(t, "invoke_agent explore").SpanKind)
	})
}

func TestWhatATaskDelegatesIsUnderTheTurnThatDidIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o *observed
		o = observe(t, agents(map[string]inproc.Agent{
			"lead": func(ctx context.Context, turn *inproc.Turn) (string, error) {
				time.Sleep(time.Second)
				if turn.Prompt.Notice != nil {
					return "all is done", nil
				}
				by, _ := bgagent.CallerFrom(ctx)
				_, err := o.Launch(ctx, by, bgagent.LaunchInput{Agent: "slow", Prompt: "help"})
				return "delegated", err
			},
		}), bgagent.Config{MaxDepth: 2, NoticeWindow: bgagent.Disabled}, bgotel.Config{})
		o.launch(t, "lead")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{
			"task lead 0s–12s",
			"  queued 0s–0s",
			"  session 0s–0s",
			"  invoke_agent lead 0s–1s",
			"    task slow 1s–11s",
			"      queued 1s–1s",
			"      session 1s–1s",
			"      invoke_agent slow 1s–11s",
			"  waiting 1s–11s",
			"  invoke_agent lead 11s–12s",
		}, o.tree())
	})
}

func TestEndsThatNobodyWantedAreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		agent string
		cfg   bgagent.Config
		act   func(*testing.T, *observed, bgagent.Task)
		want  []string
	}{
		"failed": {agent: "fails", want: []string{
			"task fails 0s–1s error: session error", "  queued 0s–0s", "  session 0s–0s", "  invoke_agent fails 0s–1s error: session error"}},
		"no such agent": {agent: "nobody", want: []string{
			"task nobody 0s–0s error: start failed", "  queued 0s–0s", "  session 0s–0s error: start failed"}},
		"too long": {agent: "for ever", cfg: bgagent.Config{TimeToLive: time.Minute, StaleTimeout: bgagent.Disabled}, want: []string{
			"task for ever 0s–1m0s error: time to live", "  queued 0s–0s", "  session 0s–0s", "  invoke_agent for ever 0s–1m0s error: time to live"}},
		"cancelled": {agent: "slow", act: func(t *testing.T, o *observed, task bgagent.Task) {
			time.Sleep(3 * time.Second)
			_, err := o.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{Reason: "a secret reason"})
			require.NoError(t, err)
		}, want: []string{"task slow 0s–3s", "  queued 0s–0s", "  session 0s–0s", "  invoke_agent slow 0s–3s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := observe(t, agents(map[string]inproc.Agent{"fails": func(context.Context, *inproc.Turn) (string, error) {
					time.Sleep(time.Second)
					return "", errors.New("a secret of the agent")
				}}), c.cfg, bgotel.Config{})
				task := o.launch(t, c.agent)
				if c.act != nil {
					c.act(t, o, task)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Equal(t, c.want, o.tree())
				o.end(t)
			})
		})
	}
}

func TestWhatEndsInTheQueueHasNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{Limits: bgagent.Limits{Default: 1, Model: map[string]int{"m": 1}}, QueueTimeToLive: 4 * time.Second,
			Model: func(string, string) (string, error) { return "m", nil }}, bgotel.Config{})
		o.launch(t, "slow")
		o.launch(t, "quick")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"task quick 0s–4s error: queue time to live", "  queued 0s–4s error: queue time to live"}, o.tree()[:2])
	})
}

func TestAnotherAttemptIsASpanOfItsOwnLinkedToTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{})
		task := o.launch(t, "slow")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		first := o.span(t, "task slow")
		o.spans.Reset()
		_, err := o.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"task slow 20s–30s", "  queued 20s–20s", "  invoke_agent slow 20s–30s"}, o.tree(), "the session already existed")
		again := o.span(t, "task slow")
		require.EqualValues(t, 2, attributes(again)["bgagent.task.attempt"])
		require.Len(t, again.Links, 1)
		require.Equal(t, first.SpanContext, again.Links[0].SpanContext)
		require.NotEqual(t, first.SpanContext.TraceID(), again.SpanContext.TraceID())
	})
}

func TestATaskComesUnderTheSpanThatLaunchedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := map[string]trace.SpanContext{}
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{Parent: func(t bgagent.Task) trace.SpanContext { return calls[t.ToolCallID] }})
		ctx, turn := o.tracer.Start(t.Context(), "a turn of the host")
		_, call := o.tracer.Start(ctx, "a tool call of the host")
		calls["call_1"] = call.SpanContext()

		metadata := map[string]string{"mine": "stays"}
		in := bgagent.LaunchInput{Agent: "quick", Prompt: "one", Metadata: metadata}
		bgotel.Inject(ctx, &in)
		require.Equal(t, map[string]string{"mine": "stays"}, metadata, "the caller's map is not changed")
		require.Equal(t, "stays", in.Metadata["mine"])
		task, err := o.Launch(ctx, root, in)
		require.NoError(t, err)
		_, err = o.Launch(ctx, bgagent.Caller{Session: "root", ToolCallID: "call_1"}, bgagent.LaunchInput{Agent: "slow", Prompt: "two"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		quick, slow := o.span(t, "task quick"), o.span(t, "task slow")
		require.Equal(t, turn.SpanContext().SpanID(), quick.Parent.SpanID())
		require.Equal(t, turn.SpanContext().TraceID(), quick.SpanContext.TraceID())
		require.Equal(t, call.SpanContext().SpanID(), slow.Parent.SpanID())

		// A resumed task belongs to the same trace.
		o.spans.Reset()
		_, err = o.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, turn.SpanContext().SpanID(), o.span(t, "task quick").Parent.SpanID())
	})
}

func TestInjectWithoutASpanDoesNothing(t *testing.T) {
	in := bgagent.LaunchInput{Agent: "a"}
	bgotel.Inject(t.Context(), &in)
	require.Nil(t, in.Metadata)
}

func TestContentIsOnlyRecordedWhenItIsAskedFor(t *testing.T) {
	for _, content := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			o := observe(t, agents(map[string]inproc.Agent{"fails": func(context.Context, *inproc.Turn) (string, error) {
				return "", errors.New("secret")
			}}), bgagent.Config{}, bgotel.Config{Content: content})
			o.launch(t, "fails")
			o.launch(t, "quick")
			time.Sleep(time.Minute)
			o.end(t)
			found := false
			for _, s := range o.spans.GetSpans() {
				for _, kv := range s.Attributes {
					found = found || strings.Contains(kv.Value.String(), "secret")
				}
				require.NotContains(t, s.Status.Description, "secret")
			}
			require.Equal(t, content, found)
		})
	}
}

func TestWhatIsLiveAtShutdownIsEndedAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{})
		o.launch(t, "slow")
		time.Sleep(3 * time.Second)
		require.NoError(t, o.rec.Shutdown(t.Context()))
		require.NoError(t, o.rec.Shutdown(t.Context()), "again")
		require.Contains(t, o.tree(), "task slow 0s–3s")
		require.Equal(t, "running", attributes(o.span(t, "task slow"))["bgagent.task.status"])
	})
}

func TestTasksThatWereThereBeforeAreFollowedWithTheirOwnTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{})
		o.launch(t, "quick")
		time.Sleep(3 * time.Second)
		o.launch(t, "slow")
		time.Sleep(3 * time.Second)
		require.NoError(t, o.rec.Shutdown(t.Context()))
		o.record(t, bgotel.Config{})
		time.Sleep(time.Minute)
		o.end(t)
		require.Equal(t, []string{"task slow 3s–13s", "  queued 3s–3s", "  invoke_agent slow 3s–13s"}, o.tree())
	})
}

func TestQuestionsAreEventsOfTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(map[string]inproc.Agent{"asks": func(_ context.Context, turn *inproc.Turn) (string, error) {
			time.Sleep(time.Second)
			turn.Asking("may I see the secret?")
			time.Sleep(5 * time.Second)
			turn.Asking("")
			time.Sleep(time.Second)
			return "thanks", nil
		}}), bgagent.Config{}, bgotel.Config{})
		o.launch(t, "asks")
		time.Sleep(time.Minute)
		synctest.Wait()
		events := o.span(t, "invoke_agent asks").Events
		require.Len(t, events, 2)
		require.Equal(t, []string{"asking", "answered"}, []string{events[0].Name, events[1].Name})
		require.Equal(t, []time.Duration{1 * time.Second, 6 * time.Second}, []time.Duration{events[0].Time.Sub(o.began), events[1].Time.Sub(o.began)})
		require.Empty(t, events[0].Attributes)
	})
}

func TestATaskThatExpiresBeforeItsSessionStopsIsRecordedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(map[string]inproc.Agent{"stubborn": func(context.Context, *inproc.Turn) (string, error) {
			time.Sleep(time.Hour) // the agent ignores the end of its context
			return "at last", nil
		}}), bgagent.Config{Retention: time.Minute, StopTimeout: time.Second}, bgotel.Config{})
		task := o.launch(t, "stubborn")
		time.Sleep(time.Second)
		_, err := o.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		_, err = o.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.Equal(t, []string{"task stubborn 0s–1s", "  queued 0s–0s", "  session 0s–0s", "  invoke_agent stubborn 0s–1s"}, o.tree())
		require.Contains(t, o.metrics(t), "bgagent.task.over_limit{} 1")
	})
}

func TestTheTurnsOfAServerAreFoundByItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o *observed
		server := bgagenttest.NewStarter(func(turn *bgagenttest.Turn) {
			turn.Sleep(3 * time.Second)
			if turn.Prompt.Agent == "lead" && turn.Prompt.Notice == nil {
				_, err := o.Launch(context.Background(), bgagent.Caller{Session: turn.Session()}, bgagent.LaunchInput{Agent: "helper", Prompt: "help"})
				require.NoError(t, err)
			}
			turn.Say("done")
		})
		server.Stream = true
		o = observe(t, server, bgagent.Config{MaxDepth: 2, MinIdleTime: time.Millisecond, NoticeWindow: bgagent.Disabled}, bgotel.Config{})
		o.launch(t, "lead")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{
			"task lead 0s–9s",
			"  queued 0s–0s",
			"  session 0s–0s",
			"  invoke_agent lead 0s–3s",
			"    task helper 3s–6s",
			"      queued 3s–3s",
			"      session 3s–3s",
			"      invoke_agent helper 3s–6s",
			"  waiting 3s–6s",
			"  invoke_agent lead 6s–9s",
		}, o.tree())
		var numbers []any
		for _, s := range o.spans.GetSpans() {
			if s.Name == "invoke_agent lead" {
				numbers = append(numbers, attributes(s)["bgagent.turn"])
			}
		}
		require.Equal(t, []any{int64(1), int64(2)}, numbers)
		o.end(t)
		server.Close()
		require.Empty(t, server.Violations())
	})
}
