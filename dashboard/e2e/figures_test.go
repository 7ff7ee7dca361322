package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

func TestASilentTaskIsMarked(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{
		"wait": agents["wait"],
		"asks": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			turn.Asking("May I?")
			<-ctx.Done()
			return "", ctx.Err()
		},
		"talks": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			for ctx.Err() == nil {
				turn.Text("and on ")
				time.Sleep(50 * time.Millisecond)
			}
			return "", ctx.Err()
		},
	}, bgagent.Config{Limits: bgagent.Limits{Default: 1}})
	for _, agent := range []string{"wait", "asks", "talks"} {
		launch(t, m, "main", agent, "it "+agent)
	}
	launch(t, m, "main", "wait", "queued")
	p := open(t, serve(t, m, dashboard.Config{Silent: 2 * time.Second}), desktop)
	heard := func(title string) string { return rowWith(title) + `.querySelector('.c-heard').textContent` }
	p.until(rowWith("queued"))
	p.until(heard("it wait") + `.startsWith('silent ') && ` + rowWith("it wait") + `.dataset.silent`)
	// The task "it asks" waits for an answer, so it is not marked as silent.
	p.until(heard("it asks") + `.match(/^([3-9]s|\d\ds|\d+m.*) ago$/)`)
	p.until(heard("it talks") + ` === '0s ago'`)
	require.Empty(t, eval[string](p, heard("queued")))
	p.until(`document.querySelectorAll('#rows [data-silent]').length === 1`)
	require.Equal(t, "true", eval[string](p, rowWith("it wait")+`.dataset.silent`))
	p.openTask("it wait")
	p.until(`detail.querySelector('dl').textContent.includes('ago, which is long')`)
	for _, s := range []screen{laptop, phone} {
		p = open(t, serve(t, m, dashboard.Config{Silent: 2 * time.Second}), s)
		p.until(rowWith("it wait") + `?.querySelector('.c-heard').offsetWidth > 0`)
	}
}

func TestTokensAndCostAreSummedUp(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{
		"pays": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			turn.Usage(bgagent.Usage{InputTokens: 900, OutputTokens: 100, Cost: 1.25})
			<-ctx.Done()
			return "", ctx.Err()
		},
		"free": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			turn.Usage(bgagent.Usage{InputTokens: 500})
			return "done", nil
		},
	}, bgagent.Config{MaxDepth: 2})
	top := launch(t, m, "main", "pays", "top")
	launch(t, m, sessionOf(t, m, top), "pays", "child")
	launch(t, m, "other", "free", "free one")
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	row := func(title, tokens, cost string) {
		p.until(rowWith(title) + `?.querySelector('.c-tokens').textContent === '` + tokens + `' && ` + rowWith(title) + `.querySelector('.c-cost').textContent === '` + cost + `'`)
	}
	row("top", "1.0k", "$1.25")
	row("child", "1.0k", "$1.25")
	row("main", "2.0k", "$2.50")
	row("free one", "500", "")
	row("other", "500", "")
	p.until(`sum.textContent === '2.5k tokens · $2.50'`)
	require.Contains(t, eval[string](p, `sum.title`), "2 of 3 tasks report a cost")
	p.openTask("top")
	p.until(`detail.querySelector('dl').textContent.includes('With its tasks2.0k tokens · $2.50')`)
}
