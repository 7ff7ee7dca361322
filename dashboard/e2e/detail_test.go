package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// serveBehind serves the manager's page, but first calls the function "answer" for each request. If that
// function returns true, it has answered the request, and the page's handler does not get the request.
func serveBehind(t *testing.T, m *bgagent.BackgroundManager, cfg dashboard.Config, answer func(http.ResponseWriter, *http.Request) bool) string {
	h := dashboard.New(m, cfg)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answer(w, r) {
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(h.Close)
	return srv.URL + "/"
}

// The function "hold" returns a function that blocks a request until the request is cancelled or the test is
// over. The result "waiting" is the number of blocked requests.
func hold(t *testing.T) (held func(*http.Request), waiting *atomic.Int32) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	waiting = new(atomic.Int32)
	return func(r *http.Request) {
		waiting.Add(1)
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}, waiting
}

func (p *tab) openTask(title string) {
	p.t.Helper()
	p.until(rowWith(title))
	p.js(rowWith(title) + `.click()`)
	p.until(fmt.Sprintf(`detail.querySelector('h2')?.textContent === %q`, title))
}

// messages is an expression for the texts of the messages. The prompt is not one of them, because the
// page shows it above the messages.
const messages = `[...detail.querySelectorAll('.messages :is(pre, .note)')].map(e => e.textContent).join('|')`

// result is an expression for a task's result or error, as shown on the page.
const result = `[...detail.querySelectorAll('.whole:not([hidden]) pre')].map(e => e.textContent).join('|')`

func TestASlowAnswerAboutOneTaskDoesNotHoldUpAnother(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	slow := launch(t, m, "main", "echo", "slow")
	launch(t, m, "main", "echo", "fast")
	held, waiting := hold(t)
	p := open(t, serveBehind(t, m, dashboard.Config{}, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/messages") && r.FormValue("id") == slow {
			held(r)
		}
		return false
	}), desktop)
	p.openTask("slow")
	require.Eventually(t, func() bool { return waiting.Load() > 0 }, time.Minute, 20*time.Millisecond)
	p.openTask("fast")
	p.until(messages + ` === 'as above|as above' && ` + result + ` === 'you said: fast'`)
}

func TestATaskThatIsLeftAndLookedAtAgainHasAllItsMessages(t *testing.T) {
	more := make(chan struct{})
	m := newManager(t, map[string]inproc.Agent{
		"echo": agents["echo"],
		"slow": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			turn.Text("one")
			select {
			case <-more:
			case <-ctx.Done():
				return "", ctx.Err()
			}
			turn.Text(" two")
			<-ctx.Done()
			return "", ctx.Err()
		},
	}, bgagent.Config{})
	launch(t, m, "main", "slow", "first")
	launch(t, m, "main", "echo", "second")
	var hold atomic.Bool
	waiting, release := make(chan struct{}), make(chan struct{})
	p := open(t, serveBehind(t, m, dashboard.Config{}, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/messages") && r.FormValue("after") != "" && hold.CompareAndSwap(true, false) {
			close(waiting)
			<-release
		}
		return false
	}), desktop)
	p.openTask("first")
	p.until(messages + ` === 'as above|one'`)
	hold.Store(true)
	close(more)
	<-waiting
	p.openTask("second")
	p.openTask("first")
	close(release)
	p.until(messages + ` === 'as above|one two'`)
}

func TestTheLastOfVeryManyMessagesAreShown(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, "main", "echo", "first")
	_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(t, err)
	const pages = 60
	p := open(t, serveBehind(t, m, dashboard.Config{}, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/messages") {
			return false
		}
		at := 0
		_, _ = fmt.Sscan(r.FormValue("after"), &at)
		if at < pages {
			at++
			fmt.Fprintf(w, `{"messages":[{"id":"%d","role":"assistant","text":"number %d","finished":true}],"next":"%d","more":%t}`, at, at, at, at < pages)
		} else {
			fmt.Fprintf(w, `{"messages":[],"next":"%d","more":false}`, at)
		}
		return true
	})+"#"+id, desktop)
	p.until(messages + fmt.Sprintf(`.endsWith('number %d')`, pages))
}

func TestAMessageThatBecomesAnotherOfTheSameLengthIsShown(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	launch(t, m, "main", "wait", "first")
	var text atomic.Value
	text.Store("one")
	p := open(t, serveBehind(t, m, dashboard.Config{}, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/messages") {
			return false
		}
		fmt.Fprintf(w, `{"messages":[{"id":"1","role":"agent","text":%q,"finished":false}],"next":"1","more":false}`, text.Load())
		return true
	}), desktop)
	p.openTask("first")
	p.until(messages + ` === 'one'`)
	text.Store("two")
	_, err := m.Cancel(t.Context(), bgagent.Caller{}, m.List(bgagent.Query{})[0].ID, bgagent.CancelOptions{})
	require.NoError(t, err)
	p.until(messages + ` === 'two'`)
}

func TestAnAddressThatIsNoTasksDoesNoHarm(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	launch(t, m, "main", "wait", "first")
	p := open(t, serve(t, m, dashboard.Config{})+"#100%", desktop)
	p.until(rowWith("first"))
}

func TestADialogIsNotClosedByTheAnswerToAnEarlierOne(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	launch(t, m, "main", "wait", "first")
	launch(t, m, "main", "wait", "second")
	var answered atomic.Bool
	waiting, release := make(chan struct{}), make(chan struct{})
	p := open(t, serveBehind(t, m, dashboard.Config{AllowCancel: true}, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/cancel") {
			return false
		}
		close(waiting)
		<-release
		fmt.Fprint(w, "{}")
		answered.Store(true)
		return true
	}), desktop)
	p.openTask("first")
	p.click(".danger")
	p.click("#ask-yes")
	<-waiting
	p.click("#ask-no")
	p.openTask("second")
	p.click(".danger")
	p.do(chromedp.SendKeys(chromedp.CSS("#ask-text"), "why"))
	close(release)
	require.Eventually(t, answered.Load, time.Minute, 20*time.Millisecond)
	p.js(`setTimeout(() => window.__later = true, 300)`)
	p.until(`window.__later`)
	require.Equal(t, "true false why", eval[string](p, `[ask.open, document.getElementById('ask-yes').disabled, document.getElementById('ask-text').value].join(' ')`))
}

func TestALookThatFailedIsSaidAndTakenAgain(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, "main", "wait", "first")
	var broken atomic.Bool
	p := open(t, serveBehind(t, m, dashboard.Config{}, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/task") || !broken.Load() {
			return false
		}
		http.Error(w, `{"error":"out of order"}`, http.StatusBadGateway)
		return true
	}), desktop)
	p.openTask("first")
	p.until(messages + ` === 'as above'`)
	broken.Store(true)
	_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
	require.NoError(t, err)
	require.NoError(t, m.Quiet(t.Context(), id))
	p.until(`detail.querySelector('.note').offsetHeight > 0 && detail.querySelector('.note').textContent === 'out of order'`)
	broken.Store(false)
	launch(t, m, "main", "echo", "second") // makes the page get a batch
	p.until(`detail.querySelector('.note').offsetHeight === 0`)
	p.mu.Lock()
	p.problems = nil // the browser logs the answers with status 502
	p.mu.Unlock()
}

func TestATaskOfAnEarlierProcessIsNotShownAsRunning(t *testing.T) {
	var now atomic.Pointer[dashboard.Handler]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.Load().ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	first := newManager(t, agents, bgagent.Config{})
	launch(t, first, "main", "wait", "first")
	now.Store(dashboard.New(first, dashboard.Config{}))
	p := open(t, srv.URL+"/", desktop)
	p.openTask("first")

	second := newManager(t, agents, bgagent.Config{})
	launch(t, second, "main", "wait", "second")
	before := now.Swap(dashboard.New(second, dashboard.Config{}))
	t.Cleanup(func() { now.Load().Close() })
	before.Close()
	p.until(rowWith("second"))
	p.until(`detail.hidden`)
	p.mu.Lock()
	p.problems = nil // if the page has just requested the first task from the new handler, the browser logs the answer with status 404
	p.mu.Unlock()
}
