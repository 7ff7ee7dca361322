package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

func TestTheOutcomeIsShownFirstAndWhole(t *testing.T) {
	long := strings.Repeat("a line of the outcome\n\tindented  twice\n", 200) + "the end"
	m := newManager(t, map[string]inproc.Agent{
		"says": func(context.Context, *inproc.Turn) (string, error) { return long, nil },
		"fail": func(_ context.Context, turn *inproc.Turn) (string, error) {
			turn.Text("half of it")
			return "", errors.New(long)
		},
	}, bgagent.Config{})
	done, failed := launch(t, m, "main", "says", "done"), launch(t, m, "main", "fail", "failed")
	tasks, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, done, failed)
	require.NoError(t, err)
	reason := tasks[1].Reason
	require.Greater(t, len(reason), 240, "longer than in a row")
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	first := `[...detail.querySelectorAll('section, dl, details')].find(e => e.offsetParent)`
	p.openTask("done")
	p.until(result + fmt.Sprintf(` === %q`, long))
	require.Equal(t, "Result", eval[string](p, first+`.querySelector('h3').textContent`))
	require.True(t, eval[bool](p, `(e => e.scrollHeight <= e.clientHeight && getComputedStyle(e).whiteSpace === 'pre-wrap')(`+first+`.querySelector('pre'))`), "nothing is hidden")
	p.js(`navigator.clipboard.writeText = text => { window.__copied = text; return Promise.resolve() }`)
	p.js(first + `.querySelector('.copy').click()`)
	p.until(first + `.querySelector('.copy').textContent === 'Copied'`)
	require.Equal(t, long, eval[string](p, `__copied`))

	p.openTask("failed")
	p.until(result + fmt.Sprintf(` === %q`, reason+"|half of it"))
	require.Equal(t, "Error", eval[string](p, first+`.querySelector('h3').textContent`))
	// Browsers also reject this call on a page that is served without HTTPS.
	p.js(`navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))`)
	p.js(`document.addEventListener('copy', () => { window.__copied = String(getSelection()) })`)
	p.click(".whole:not([hidden]) .copy")
	p.until(first + `.querySelector('.copy').textContent === 'Copied'`)
	require.Equal(t, reason, eval[string](p, `__copied`))
}

func TestAFailedTaskIsTriedAgainWithOneClick(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	var mu sync.Mutex
	var prompts []string
	m := newManager(t, map[string]inproc.Agent{
		"flaky": func(_ context.Context, turn *inproc.Turn) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			prompts = append(prompts, turn.Prompt.Text)
			if broken.Load() {
				return "", errors.New("the disk is full")
			}
			return "it works", nil
		},
	}, bgagent.Config{})
	id := launch(t, m, "main", "flaky", "do it")
	p := open(t, serve(t, m, dashboard.Config{AllowResume: true}), desktop)
	retry := `[...detail.querySelectorAll('button')].find(b => b.textContent === 'Retry')`
	p.until(rowWith("do it") + `?.dataset.state === 'error'`)
	require.NoError(t, m.Quiet(t.Context(), id))
	p.openTask("do it")
	p.until(retry + `.offsetWidth > 0`)
	broken.Store(false)
	p.js(retry + `.click()`)
	p.until(result + ` === 'it works' && ` + retry + `.hidden`)
	require.Equal(t, []string{"do it", "do it"}, prompts)
	p.until(`detail.querySelector('.attempts').offsetHeight > 0`)
	attempts := eval[string](p, `detail.querySelector('.attempts').textContent`)
	require.Contains(t, attempts, "1: error · session error")
	require.Contains(t, attempts, "the disk is full")
}

func TestARetryThatIsRefusedSaysWhy(t *testing.T) {
	m := newManager(t, withFailing, bgagent.Config{})
	id := launch(t, m, "main", "fail", "do it")
	task, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(t, err)
	require.NoError(t, m.Quiet(t.Context(), id))
	m.SessionDeleted(task[0].Session)
	p := open(t, serve(t, m, dashboard.Config{AllowResume: true})+"#"+id, desktop)
	retry := `[...detail.querySelectorAll('button')].find(b => b.textContent === 'Retry' && b.offsetWidth > 0)`
	p.until(retry)
	p.js(retry + `.click()`)
	p.until(`detail.querySelector('.problem').offsetHeight > 0`)
	require.Contains(t, eval[string](p, `detail.querySelector('.problem').textContent`), "session")
	p.mu.Lock()
	p.problems = nil // the browser logs the answers with status 409
	p.mu.Unlock()
}

func TestTheLogOfATaskIsShownLive(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, "main", "wait", "first")
	var text atomic.Value
	text.Store("one\n")
	p := open(t, serve(t, m, dashboard.Config{Log: func(_ context.Context, task string, offset int64) (string, int64, error) {
		if task != id {
			return "", 0, errors.New("another task")
		}
		part := text.Load().(string)[offset:]
		part = part[:min(len(part), 3)] // a log can arrive in small parts
		return part, offset + int64(len(part)), nil
	}})+"#"+id, desktop)
	log := `detail.querySelector('.log pre').textContent`
	p.until(`detail.querySelector('.log')?.offsetHeight > 0`)
	require.Empty(t, eval[string](p, log), "nothing is fetched while the log is folded")
	p.js(`detail.querySelector('.log').open = true`)
	p.until(log + ` === 'one\n'`)
	text.Store("one\ntwo " + hostile)
	p.until(log + fmt.Sprintf(" === %q", "one\ntwo "+hostile))
	text.Store("one\ntwo " + hostile + " three")
	_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
	require.NoError(t, err)
	p.until(log + fmt.Sprintf(" === %q", "one\ntwo "+hostile+" three")) // including what comes last
}
