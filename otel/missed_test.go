package bgotel_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	bgotel "github.com/bgagent/bgagent/otel"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// slowExporter delays the recorder: each of the first few exports takes some time.
type slowExporter struct {
	takes time.Duration
	left  int
}

func (e *slowExporter) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	if e.left == 0 {
		return nil
	}
	e.left--
	time.Sleep(e.takes)
	return nil
}

func (e *slowExporter) Shutdown(context.Context) error { return nil }

// lines returns the data points of the metrics whose names start with the prefix.
func (o *observed) lines(t *testing.T, prefix string) (found []string) {
	for _, line := range o.metrics(t) {
		if len(line) >= len(prefix) && line[:len(prefix)] == prefix {
			found = append(found, line)
		}
	}
	return found
}

func TestWhatWasMissedIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The exporter blocks the recorder for a minute when the first span ends.
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{Buffer: 4}, &slowExporter{time.Minute, 1})
		first := o.launch(t, "slow") // the recorder does not read any event after the start of this task
		time.Sleep(time.Second)
		o.launch(t, "quick")        // the recorder misses the end of this task
		o.launch(t, "for ever")     // continues to run
		long := o.launch(t, "slow") // the recorder misses that both attempts of this task end
		time.Sleep(20 * time.Second)
		_, err := o.Resume(t.Context(), root, long.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		_, err = o.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{
			"task slow 0s–10s",
			"  queued 0s–0s",
			"  session 0s–0s", // the recorder missed the creation of the session
			"  invoke_agent slow 0s–10s",
			"queued 1s–1s", // span of the task that continues to run
			"task quick 1s–2s",
			"  queued 1s–1s",
			"  invoke_agent quick 1s–2s",
			"task slow 1s–11s",
			"  queued 1s–1s",
			"  invoke_agent slow 1s–11s",
			"task slow 21s–31s",
			"  queued 21s–21s",
			"  invoke_agent slow 21s–31s",
			"task slow 41s–51s",
			"  queued 41s–41s",
			"  invoke_agent slow 41s–51s",
		}, o.tree())
		require.Equal(t, []string{"bgagent.task.live{bgagent.task.status=pending} 0", "bgagent.task.live{bgagent.task.status=running} 1"}, o.lines(t, "bgagent.task.live"))
		require.Equal(t, []string{"bgagent.task.ended{bgagent.task.cause=turn ended,bgagent.task.status=completed} 5"}, o.lines(t, "bgagent.task.ended"))
		require.NotEmpty(t, o.lines(t, "bgagent.event.missed"))

		// From here on, the recorder reads all events again.
		o.spans.Reset()
		o.launch(t, "quick")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Len(t, o.tree(), 4)
	})
}

func TestWhatExpiredUnseenIsEndedAsItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{Retention: time.Second, Wake: bgagent.WakeNever}, bgotel.Config{Buffer: 4}, &slowExporter{time.Minute, 1})
		task := o.launch(t, "slow")
		time.Sleep(5 * time.Second)
		_, err := o.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{}) // the caller is not notified of its own cancellations
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		_, err = o.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"task slow 0s–1m0s", "  queued 0s–0s", "  session 0s–1m0s"}, o.tree())
		require.Equal(t, "cancelled", attributes(o.span(t, "task slow"))["bgagent.task.status"])
		require.Equal(t, []string{"bgagent.task.live{bgagent.task.status=pending} 0", "bgagent.task.live{bgagent.task.status=running} 0"}, o.lines(t, "bgagent.task.live"))
	})
}

func TestAnExporterThatHangsHoldsUpNobodyButShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{}, bgotel.Config{Buffer: 4}, &slowExporter{10 * time.Minute, 1})
		for range 20 {
			_, err := o.Run(t.Context(), root, bgagent.LaunchInput{Agent: "quick", Prompt: "hello"})
			require.NoError(t, err)
		}
		require.Equal(t, 20*time.Second, time.Since(o.began), "the manager did not wait")
		require.NotEmpty(t, o.metrics(t), "the collection of metrics does not block")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, o.rec.Shutdown(ctx), context.DeadlineExceeded)
		require.NoError(t, o.rec.Shutdown(t.Context()), "the exporter has returned")
		require.Len(t, o.spans.GetSpans(), 4+19*3, "everything was recorded")
	})
}

func TestOneThatCannotKeepUpLooksAtAllTasksOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe(t, agents(nil), bgagent.Config{Limits: bgagent.Limits{Default: bgagent.Unlimited}}, bgotel.Config{Buffer: 1})
		for range 50 {
			o.launch(t, "quick")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, []string{"bgagent.task.ended{bgagent.task.cause=turn ended,bgagent.task.status=completed} 50"}, o.lines(t, "bgagent.task.ended"))
		tasks := 0
		for _, s := range o.spans.GetSpans() {
			if s.Name == "task quick" {
				tasks++
				require.Equal(t, time.Second, s.EndTime.Sub(s.StartTime))
			}
		}
		require.Equal(t, 50, tasks)
	})
}
