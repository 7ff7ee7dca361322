package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// sleeper is a response whose connection silently dies while the field "asleep" is set.
type sleeper struct {
	http.ResponseWriter
	asleep *atomic.Bool
}

func (s sleeper) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s sleeper) Write(b []byte) (int, error) {
	if s.asleep.Load() {
		return len(b), nil
	}
	return s.ResponseWriter.Write(b)
}

func TestAPageThatSleptIsRightAgain(t *testing.T) {
	m := newManager(t, withFailing, bgagent.Config{RetainTasks: 1, Wake: bgagent.WakeNever})
	gone := launch(t, m, "main", "echo", "gone")
	_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, gone)
	require.NoError(t, err)
	stays := launch(t, m, "main", "wait", "stays")
	h := dashboard.New(m, dashboard.Config{})
	t.Cleanup(h.Close)
	var streams atomic.Int32
	asleep := make([]*atomic.Bool, 10)
	for i := range asleep {
		asleep[i] = new(atomic.Bool)
	}
	p := open(t, serveBehind(t, m, dashboard.Config{}, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/events") {
			return false
		}
		h.ServeHTTP(sleeper{w, asleep[streams.Add(1)-1]}, r)
		return true
	}), desktop)
	p.until(rowWith("stays") + ` && ` + rowWith("gone"))
	p.openTask("stays")
	asleep[0].Store(true)
	_, err = m.Cancel(t.Context(), bgagent.Caller{}, stays, bgagent.CancelOptions{})
	require.NoError(t, err)
	require.NoError(t, m.Quiet(t.Context(), stays))
	m.TakeNotice("main")
	launch(t, m, "main", "wait", "new")
	for {
		if _, err := m.Get(gone); err != nil {
			break
		}
		_, _ = m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, launch(t, m, "other", "echo", "x"))
		m.TakeNotice("other")
	}
	require.Equal(t, "running", eval[string](p, rowWith("stays")+`.dataset.state`), "nothing has arrived")
	p.js(`{ const now = Date.now; Date.now = () => now() + 60_000 }`) // the computer wakes up
	p.until(rowWith("new") + `?.dataset.state === 'running' && ` + rowWith("gone") + ` === undefined && link.dataset.state === 'live'`)
	want := "undefined"
	if _, err := m.Get(stays); err == nil {
		want = "cancelled"
	}
	require.Equal(t, want, eval[string](p, `String(`+rowWith("stays")+`?.dataset.state)`))
	require.EqualValues(t, 2, streams.Load())
}

// A page's rows must depend only on the last state of each task. This script sends random batches to a store,
// and compares its rows and sums with those of a new store that gets only the last states. It returns a
// description of the first difference.
const lastStates = `import(new URL('store.js', location)).then(({ Store }) => {
  let seed = 1
  const below = n => (seed = (seed * 48271) % 2147483647) % n
  const statuses = ['pending', 'running', 'completed', 'error', 'cancelled']
  const describe = store => {
    store.total()
    return store.rows().map(r => [r.level, r.node.key, r.kids, r.node.failed, r.node.below, r.node.tokens, r.node.live].join(':')).join(' ') + JSON.stringify([store.groups, store.sum])
  }
  for (let round = 0; round < 300; round++) {
    const store = new Store()
    const last = new Map()
    let n = 0
    const make = i => ({ id: 't' + i, n: last.get('t' + i)?.n ?? ++n, title: 't' + i, agent: 'x', status: statuses[below(5)], phase: ['', 'parked'][below(2)], tokens: below(100),
      cost: 0, session: last.get('t' + i)?.session || (below(3) ? 's' + i : ''), parent: below(2) && i ? 's' + below(i) : 'main' + below(2) })
    for (let step = 0; step < 20; step++) {
      const rows = [], gone = []
      for (let k = below(6); k > 0; k--) {
        const i = below(12)
        if (below(6) === 0 && last.delete('t' + i)) gone.push('t' + i)
        else if (!gone.includes('t' + i)) {
          const task = make(i)
          rows.push(task)
          last.set(task.id, task)
        }
      }
      const batch = { rows: rows.filter(r => !gone.includes(r.id)), gone }
      if (below(7) === 0) { // the page has missed some batches, and gets all tasks in parts
        const all = [...last.values()].sort(() => below(3) - 1)
        const cut = below(all.length + 1)
        store.apply({ first: true, more: true, rows: all.slice(0, cut) })
        store.apply({ rows: all.slice(cut) })
      } else store.apply(batch)
      const fresh = new Store()
      fresh.apply({ first: true, rows: [...last.values()].sort((a, b) => a.n - b.n) })
      for (const show of ['all', 'failed']) {
        store.choose({ show })
        fresh.choose({ show })
        if (describe(store) !== describe(fresh)) return round + '.' + step + ' ' + show + '\n' + describe(store) + '\n' + describe(fresh)
      }
      store.choose({ show: 'all' })
    }
  }
  return ''
})`

func TestTheRowsDependOnlyOnTheLastStateOfEachTask(t *testing.T) {
	p := open(t, serve(t, newManager(t, agents, bgagent.Config{}), dashboard.Config{}), desktop)
	got, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](lastStates, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestWhatRunsIsAboveWhatIsOver(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{
		"echo": agents["echo"], "wait": agents["wait"], "fail": withFailing["fail"],
		"limited": func(context.Context, *inproc.Turn) (string, error) {
			return "", &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(time.Hour), Next: bgagent.NextRepeat}
		},
	}, bgagent.Config{Limits: bgagent.Limits{Agent: map[string]int{"wait": 2}}})
	launch(t, m, "main", "limited", "parked")
	over := launch(t, m, "main", "wait", "cancelled")
	launch(t, m, "main", "wait", "running, old")
	var ids []string
	for _, agent := range []string{"wait", "wait", "echo", "fail"} {
		ids = append(ids, launch(t, m, "main", agent, agent+" "+string(rune('a'+len(ids)))))
	}
	_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, ids[2:]...)
	require.NoError(t, err)
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	titles := `[...document.querySelectorAll('#rows .row')].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(r => r.querySelector('.text').textContent).join(', ')`
	p.until(titles + ` === 'main, running, old, cancelled, parked, wait b, wait a, fail d, echo c'`)
	bar := `getComputedStyle(document.querySelector('[aria-label="cap wait"] .bar i')).backgroundColor`
	alarming := eval[string](p, bar)
	_, err = m.Cancel(t.Context(), bgagent.Caller{}, over, bgagent.CancelOptions{})
	require.NoError(t, err)
	p.until(titles + ` === 'main, wait a, running, old, parked, wait b, fail d, echo c, cancelled'`)
	_, err = m.Cancel(t.Context(), bgagent.Caller{}, ids[1], bgagent.CancelOptions{})
	require.NoError(t, err)
	p.until(`document.querySelector('[aria-label="cap wait"] .waiting').textContent === ''`)
	require.Equal(t, "2/2", eval[string](p, `document.querySelector('[aria-label="cap wait"] b').textContent`))
	require.NotEqual(t, alarming, eval[string](p, bar), "a full pool is not alarming if nobody waits")
}

func TestTheViewDoesNotFollowARowThatMoves(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{Limits: bgagent.Limits{Default: bgagent.Unlimited}, MaxTasksPerRoot: bgagent.Unlimited})
	ids := make([]string, 200)
	for i := range ids {
		ids[i] = launch(t, m, "main", "wait", fmt.Sprint("task ", i))
	}
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("task 199"))
	p.js(`tree.scrollTop = 28 * 51`) // hides the session's row and the rows of tasks 199 to 150
	visible := `[...document.querySelectorAll('#rows .row')].map(r => [r.getBoundingClientRect().top - document.querySelector('#tree .head').getBoundingClientRect().bottom, r.querySelector('.text').textContent]).filter(r => r[0] > -1).sort((a, b) => a[0] - b[0])[0]?.[1]`
	p.until(visible + ` === 'task 149'`)
	cancel := func(i int) {
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, ids[i], bgagent.CancelOptions{})
		require.NoError(t, err)
	}
	cancel(149)
	p.until(visible + ` === 'task 150'`) // the rows below stay where they are
	cancel(199)                          // out of view
	p.until(`document.querySelector('[data-show=cancelled] b').textContent === '2' && ` + visible + ` === 'task 150'`)
	require.EqualValues(t, 28*49, eval[float64](p, `tree.scrollTop`))
}
