package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/tempdir"
)

var sayMissing = sync.OnceFunc(func() {
	fmt.Fprintln(os.Stderr, "SKIPPED: tests with a real browser: chromium is not installed; .ci/chromium installs it")
})

// chromium returns the path of the browser. If there is no browser, the test is skipped or fails.
func chromium(t *testing.T) string {
	t.Helper()
	mode := os.Getenv("BGAGENT_REAL_AGENTS")
	if mode == "skip" || mode == "" && testing.Short() {
		t.Skip("not run with a real browser: BGAGENT_REAL_AGENTS=skip or -short")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if mode == "require" {
		t.Fatal("chromium is not installed; .ci/chromium installs it")
	}
	sayMissing()
	t.Skip("chromium is not installed; .ci/chromium installs it")
	return ""
}

// screen describes the screen on which the page is shown.
type screen struct {
	width, height int64
	scale         float64
	phone, dark   bool
}

var (
	desktop = screen{width: 1360, height: 820, scale: 1}
	phone   = screen{width: 390, height: 844, scale: 2, phone: true}
)

// tab is a page in the browser. The test fails if the page logs a problem or sends
// a request to another server.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close func() // closes the browser; later calls do nothing

	mu       sync.Mutex
	problems []string
}

// watchRows records when the first row appears, the maximum number of rows, and
// every long task.
const watchRows = `(() => {
  const seen = window.__seen = { first: 0, most: 0, longest: 0 }
  const look = () => {
    const rows = document.querySelectorAll('[role=row], li, tr').length
    seen.most = Math.max(seen.most, rows)
    if (!seen.first && document.querySelector('#rows [data-state]:not([data-state=session]) .text')?.textContent) seen.first = performance.now()
  }
  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true })
  new PerformanceObserver(list => { for (const e of list.getEntries()) seen.longest = Math.max(seen.longest, e.duration) }).observe({ type: 'longtask', buffered: true })
})()`

func open(t *testing.T, url string, s screen) *tab {
	t.Helper()
	options := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(tempdir.New(t)), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(int(s.width), int(s.height)),
	}, flags("disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-extensions", "disable-dev-shm-usage", "hide-scrollbars", "mute-audio")...)
	// The browser lives as long as the first context. The first context cannot be the test's context, because
	// the test's context ends before the browser is closed.
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	p := &tab{t: t, ctx: ctx, close: sync.OnceFunc(func() {
		_ = chromedp.Cancel(ctx) // waits until the browser has exited, so that its folder can be removed
		cancel()
	})}
	t.Cleanup(p.close)
	require.NoError(t, chromedp.Listen(ctx, p.listen(url)))
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: s.width, Height: s.height, DeviceScaleFactor: s.scale, Mobile: s.phone,
	})
	call(p, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: s.phone})
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watchRows})
	p.do(chromedp.Navigate(url))
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		require.Empty(t, p.problems, "problems that the page logged")
	})
	return p
}

// call sends a command of the DevTools protocol.
func call[P, R any](p *tab, cmd cdp.Command[P, R], params P) R {
	p.t.Helper()
	r, err := chromedp.Call(p.ctx, cmd, params)
	require.NoError(p.t, err)
	return r
}

func flags(names ...string) (all []chromedp.ExecAllocatorOption) {
	for _, name := range names {
		all = append(all, chromedp.Flag(name, true))
	}
	return all
}

func (p *tab) listen(url string) func(any) {
	origin := strings.Join(strings.SplitN(url, "/", 4)[:3], "/")
	problem := func(format string, a ...any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, fmt.Sprintf(format, a...))
	}
	return func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			problem("exception: %s %+v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception)
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.ConsoleAPICalledTypeError {
				problem("console: %s", ev.Args[0].Value)
			}
		case *log.EventEntryAdded:
			problem("log: %s %s", ev.Entry.Text, ev.Entry.URL)
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(ev.Request.URL, origin+"/") {
				problem("request to another server: %s", ev.Request.URL)
			}
		}
	}
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Do(p.ctx, steps...))
}

func (p *tab) press(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		p.do(chromedp.KeyEvent(key))
	}
}

// pressChar presses a character key as a user would. If the page handles the key itself, no
// character is entered.
func (p *tab) pressChar(key string) {
	p.t.Helper()
	call(p, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key})
	call(p, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: key})
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// js runs a statement in the page.
func (p *tab) js(statement string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](statement))
}

// eval evaluates an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	require.NoError(p.t, err, expression)
	return v
}

// The method "until" waits until an expression is true in the page. It polls from outside the page,
// because the page's policy forbids code that is made from text.
func (p *tab) until(expression string) {
	p.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !eval[bool](p, "!!("+expression+")") {
		if time.Now().After(deadline) {
			require.FailNow(p.t, "waited in vain for "+expression)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serve mounts the manager's page under a long prefix and returns its address.
func serve(t *testing.T, m *bgagent.BackgroundManager, cfg dashboard.Config) string {
	h := dashboard.New(m, cfg)
	mux := http.NewServeMux()
	mux.Handle("/some/host/of/ours/tasks/", h)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(h.Close)
	return srv.URL + "/some/host/of/ours/tasks/"
}

func newManager(t *testing.T, agents map[string]inproc.Agent, cfg bgagent.Config) *bgagent.BackgroundManager {
	m, err := bgagent.New(inproc.New(agents), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) }) // the error lists notices that have not been taken
	return m
}

func launch(t *testing.T, m *bgagent.BackgroundManager, session, agent, title string) string {
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: agent, Description: title, Prompt: title})
	require.NoError(t, err)
	return task.ID
}
