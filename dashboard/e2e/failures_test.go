package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// withFailing contains the tests' agents and an agent that fails.
var withFailing = map[string]inproc.Agent{
	"echo": agents["echo"], "wait": agents["wait"],
	"fail": func(context.Context, *inproc.Turn) (string, error) { return "", errors.New("the disk is full") },
}

// sessionOf waits until the task has a session, and returns the session.
func sessionOf(t *testing.T, m *bgagent.BackgroundManager, id string) string {
	for {
		task, err := m.Get(id)
		require.NoError(t, err)
		if task.Session != "" {
			return task.Session
		}
	}
}

func below(title string) string { return rowWith(title) + `.querySelector('.below').textContent` }

func TestAPhoneShowsWhyATaskFailedAndWhatItCost(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{
		"echo": agents["echo"],
		"fail": func(_ context.Context, turn *inproc.Turn) (string, error) {
			turn.Usage(bgagent.Usage{Cost: 1.25})
			return "", errors.New("the disk is full")
		},
	}, bgagent.Config{})
	launch(t, m, "main", "fail", "a task with a title that is longer than a phone is wide, so that it is cut")
	launch(t, m, "main", "echo", "done")
	p := open(t, serve(t, m, dashboard.Config{}), phone)
	row := rowWith("a task with a title that is longer than a phone is wide, so that it is cut")
	p.until(row + `?.dataset.state === 'error' && ` + rowWith("done") + `?.dataset.state === 'completed'`)
	for cell, want := range map[string]string{".c-last": "the disk is full", ".c-cost": "$1.25", ".c-state": "error", ".c-heard": "ago"} {
		require.Contains(t, eval[string](p, row+`.querySelector('`+cell+`').textContent`), want)
		require.True(t, eval[bool](p, `(r => r.width > 20 && r.left >= 0 && r.right <= innerWidth)(`+row+`.querySelector('`+cell+`').getBoundingClientRect())`), cell)
	}
	require.Contains(t, eval[string](p, rowWith("main")+`.querySelector('.c-cost').textContent`), "$1.25")
	// No cell may cover another one.
	require.Empty(t, eval[string](p, `[...document.querySelectorAll('#rows .row')].flatMap(row => {
		const cells = [...row.children].filter(e => e.textContent && e.getClientRects().length).map(e => [e.className, e.getBoundingClientRect()])
		return cells.flatMap(([a, x], i) => cells.slice(i + 1).filter(([, y]) => x.left < y.right && y.left < x.right && x.top < y.bottom && y.top < x.bottom).map(([b]) => a + ' and ' + b))
	}).join()`))
	require.Zero(t, eval[int](p, rowWith("done")+`.querySelector('.c-last').offsetWidth`), "the last message of a completed task is not shown here")
}

func TestFailuresAreCountedOnEveryRowAboveThem(t *testing.T) {
	m := newManager(t, withFailing, bgagent.Config{MaxDepth: 4})
	top := launch(t, m, "main", "wait", "top")
	middle := launch(t, m, sessionOf(t, m, top), "wait", "middle")
	for i := range 2 {
		id := launch(t, m, sessionOf(t, m, middle), "fail", fmt.Sprint("deep ", i))
		_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
		require.NoError(t, err)
	}
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("deep 1"))
	for _, title := range []string{"main", "top", "middle"} {
		p.until(below(title) + ` === '2 failed'`)
		require.Positive(t, eval[int](p, rowWith(title)+`.querySelector('.below').offsetWidth`))
	}
	require.Empty(t, eval[string](p, below("deep 0")))
	require.Equal(t, "4 tasks", eval[string](p, rowWith("main")+`.querySelector('.c-time').textContent`))

	p.do(chromedp.Focus(chromedp.CSS("#tree")), chromedp.KeyEvent(kb.Home))
	p.press(kb.ArrowDown, kb.ArrowLeft)
	p.until(active + `.getAttribute('aria-expanded') === 'false'`)
	require.Equal(t, "2 failed", eval[string](p, below("top")))
	launch(t, m, sessionOf(t, m, middle), "fail", "deep 2") // fails while the rows above it are folded
	p.until(below("top") + ` === '3 failed' && ` + below("main") + ` === '3 failed'`)

	p.click("[data-show=failed]")
	p.until(rowWith("deep 2")) // shown even though its parents are folded
	require.Equal(t, "6", eval[string](p, `String(document.querySelectorAll('#rows .row').length)`))
}

func TestEachTaskIsInOneGroup(t *testing.T) {
	p := open(t, serve(t, newManager(t, agents, bgagent.Config{}), dashboard.Config{}), desktop)
	p.until(`document.querySelectorAll('#chips button').length === 7`)
	require.Equal(t, "All Running Queued Parked Failed Cancelled Done", eval[string](p, `[...document.querySelectorAll('#chips button')].map(b => b.firstChild.data).join(' ')`))
	for task, want := range map[string]string{
		`{ status: 'pending' }`:                                       "queued",
		`{ status: 'pending', phase: 'parked' }`:                      "parked",
		`{ status: 'running' }`:                                       "running",
		`{ status: 'running', phase: 'asking' }`:                      "running",
		`{ status: 'running', phase: 'parked' }`:                      "parked",
		`{ status: 'running', phase: 'waiting for its own tasks' }`:   "running",
		`{ status: 'completed' }`:                                     "done",
		`{ status: 'error', phase: 'stopping' }`:                      "failed",
		`{ status: 'cancelled', phase: 'stopping', over_limit: true}`: "cancelled",
	} {
		got, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`import(new URL('format.js', location)).then(f => f.groupOf(`+task+`))`, chromedp.EvalAwaitPromise))
		require.NoError(t, err)
		require.Equal(t, want, got, task)
	}
}

func TestTheAddressKeepsWhatIsShown(t *testing.T) {
	m := newManager(t, withFailing, bgagent.Config{})
	first, second := launch(t, m, "main", "fail", "first"), launch(t, m, "main", "wait", "second")
	_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, first)
	require.NoError(t, err)
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	shown := func(task, show, view string) string {
		return fmt.Sprintf(`(detail.hidden ? '' : detail.querySelector('h2').textContent) === %q && document.querySelector('#chips [aria-pressed=true]').dataset.show === %q && document.querySelector('[role=tab][aria-selected=true]').textContent === %q`, task, show, view)
	}
	p.until(rowWith("second"))
	p.click("[data-show=failed]")
	p.until(rowWith("second") + ` === undefined`)
	p.openTask("first")
	p.click("#tab-time")
	p.until(shown("first", "failed", "Timeline"))
	require.Equal(t, "#task="+first+"&show=failed&view=timeline", eval[string](p, `location.hash`))
	p.do(chromedp.Reload())
	p.until(shown("first", "failed", "Timeline"))
	for _, want := range []string{shown("first", "failed", "Tree"), shown("", "failed", "Tree"), shown("", "all", "Tree")} {
		p.js(`history.back()`)
		p.until(want)
	}
	p.until(rowWith("second"))
	p.js(`history.forward()`)
	p.until(shown("", "failed", "Tree"))
	p.do(chromedp.SendKeys(chromedp.CSS("#search"), "a&b=c"))
	p.do(chromedp.Reload())
	p.until(`search.value === 'a&b=c' && ` + shown("", "failed", "Tree"))
	p.js(`location.hash = '#` + second + `'`) // links to a task have this form
	p.until(shown("second", "all", "Tree"))
	p.click(".close")
	p.until(`location.hash === ''`)
	p.js(`location.hash = '#task=bg_none&show=nothing&view=%'`)
	p.until(shown("", "all", "Tree"))
}
