package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// hostile is text that would change the page if the page treated it as markup.
const hostile = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>`

var agents = map[string]inproc.Agent{
	"echo": func(_ context.Context, t *inproc.Turn) (string, error) { return "you said: " + t.Prompt.Text, nil },
	"wait": func(ctx context.Context, t *inproc.Turn) (string, error) {
		t.Tool(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolRunning})
		<-ctx.Done()
		return "", ctx.Err()
	},
	"boss": func(ctx context.Context, t *inproc.Turn) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	},
}

// The constant "active" is an expression for the row that has the keyboard focus.
const active = `document.getElementById(document.getElementById('tree').getAttribute('aria-activedescendant'))`

func rowWith(text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll('#rows .row')].find(r => r.querySelector('.text').textContent === %q)`, text)
}

func TestTheTreeIsUsedWithTheKeyboard(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{MaxDepth: 2})
	launch(t, m, "main", "wait", "first")
	boss, err := m.Get(launch(t, m, "main", "boss", "second"))
	require.NoError(t, err)
	for boss.Session == "" {
		boss, err = m.Get(boss.ID)
		require.NoError(t, err)
	}
	launch(t, m, boss.Session, "wait", "child")
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("child"))
	p.do(chromedp.Focus(chromedp.CSS("#tree")), chromedp.KeyEvent(kb.Home))
	p.until(active + `?.querySelector('.text').textContent === 'main'`)
	require.Equal(t, "1 true", eval[string](p, active+`.getAttribute('aria-level') + ' ' + `+active+`.getAttribute('aria-expanded')`))
	p.press(kb.ArrowDown)
	p.until(active + `.querySelector('.text').textContent === 'second'`)
	require.Equal(t, "2 true 1 2", eval[string](p, `['level', 'expanded', 'posinset', 'setsize'].map(a => `+active+`.getAttribute('aria-' + a)).join(' ')`))
	p.press(kb.ArrowRight)
	p.until(active + `.querySelector('.text').textContent === 'child'`)
	p.press(kb.ArrowLeft)
	p.until(active + `.querySelector('.text').textContent === 'second'`)
	p.press(kb.ArrowLeft)
	p.until(active + `.getAttribute('aria-expanded') === 'false' && !` + rowWith("child"))
	p.press(kb.End, kb.Enter)
	p.until(`!detail.hidden && document.activeElement === detail && detail.querySelector('h2').textContent === 'first'`)
	p.press(kb.Escape)
	p.until(`detail.hidden && document.activeElement === tree`)
	p.pressChar("/")
	p.until(`document.activeElement === search`)
	p.press("chi")
	// The child is shown even though its parent is folded.
	p.until(rowWith("first") + ` === undefined && document.querySelectorAll('#rows .row').length === 3 && ` + rowWith("child"))
	require.Equal(t, "4", eval[string](p, `tree.getAttribute('aria-rowcount')`))
}

func TestTheTimelineIsUsedWithTheKeyboard(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{Limits: bgagent.Limits{Default: 2}})
	for i := range 4 {
		launch(t, m, "main", "wait", fmt.Sprint("task ", i))
	}
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("task 3"))
	p.do(chromedp.Focus(chromedp.CSS("#tab-tree")), chromedp.KeyEvent(kb.ArrowRight))
	p.until(`!document.getElementById('time-view').hidden && document.getElementById('tab-time').ariaSelected === 'true'`)
	p.until(`document.getElementById('time-size').offsetHeight > 60`)
	p.do(chromedp.Focus(chromedp.CSS("#timeline")), chromedp.KeyEvent(kb.ArrowDown))
	said := `document.getElementById('time-said').textContent`
	p.until(said + `.includes('agent wait, row')`)
	first := eval[string](p, said)
	p.press(kb.ArrowUp, kb.ArrowDown)
	p.until(said + ` !== ''`)
	require.Contains(t, first, "running")
	p.press(kb.Enter)
	p.until(`document.activeElement === detail`)
}

// laptop is a small screen on which the tree and a task are still shown side by side.
var laptop = screen{width: 1280, height: 720, scale: 1}

func TestTheTreeBesideATaskKeepsItsTitles(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	const title = "Review the migration of the orders table"
	id := launch(t, m, "main", "wait", title)
	launch(t, m, "main", "wait", "second")
	launch(t, m, "other", "wait", "third")
	_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
	require.NoError(t, err)
	p := open(t, serve(t, m, dashboard.Config{})+"#"+id, laptop)
	p.until(`detail.querySelector('.badge')?.textContent === 'cancelled by host'`)
	whole := rowWith(title) + `.querySelector('.text')`
	p.until(`(e => e.scrollWidth <= e.clientWidth)(` + whole + `)`)
	require.False(t, eval[bool](p, rowWith(title)+`.querySelector('.c-last').offsetWidth > 0`))
	require.Equal(t, "cancelled by host", eval[string](p, rowWith(title)+`.querySelector('.c-state').textContent`))
	require.Equal(t, "2 tasks", eval[string](p, rowWith("main")+`.querySelector('.c-time').textContent`))
	require.Equal(t, "1 task", eval[string](p, rowWith("other")+`.querySelector('.c-time').textContent`))
	require.Contains(t, eval[string](p, rowWith("main")+`.querySelector('.c-last').textContent`), "1 cancelled")
	require.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 1280)
}

func TestAPromptAndAResultAreShownOnce(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, "main", "echo", "what is it?")
	_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(t, err)
	p := open(t, serve(t, m, dashboard.Config{})+"#"+id, desktop)
	p.until(`document.querySelectorAll('.messages li').length === 2`)
	require.Equal(t, 1, eval[int](p, `[...detail.querySelectorAll('pre')].filter(e => e.textContent === 'what is it?').length`))
	require.Equal(t, "as above as above", eval[string](p, `[...detail.querySelectorAll('.messages .note')].map(e => e.textContent).join(' ')`))
	require.Equal(t, 1, eval[int](p, `[...detail.querySelectorAll('pre')].filter(e => e.textContent === 'you said: what is it?').length`))
	require.Equal(t, "0", eval[string](p, `String(detail.querySelector('.prompt pre').checkVisibility() ? 1 : 0)`), "the prompt is folded")
}

func TestWhatAnAgentWroteIsText(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, hostile, "echo", hostile)
	_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(t, err)
	p := open(t, serve(t, m, dashboard.Config{Title: hostile})+"#"+id, desktop)
	p.until(`document.querySelectorAll('.messages li').length === 2`)
	require.Equal(t, hostile, eval[string](p, `detail.querySelector('.prompt pre').textContent`))
	require.Equal(t, "you said: "+hostile, eval[string](p, result))
	require.Equal(t, hostile, eval[string](p, `document.querySelector('h1').textContent`))
	require.Zero(t, eval[int](p, `document.querySelectorAll('img, body script').length`))
	require.Equal(t, hostile, eval[string](p, `document.title`), "no script changed it")
}

func TestATaskIsCancelledAndResumed(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, "main", "wait", "first")
	p := open(t, serve(t, m, dashboard.Config{AllowCancel: true, AllowResume: true}), desktop)
	p.until(rowWith("first"))
	p.js(rowWith("first") + `.click()`)
	p.until(`detail.querySelector('.danger')?.hidden === false`)
	p.click(".danger")
	p.do(chromedp.SendKeys(chromedp.CSS("#ask-text"), "not needed"))
	p.click("#ask-yes")
	p.until(`!ask.open && detail.querySelector('.badge').textContent.startsWith('cancelled')`)
	task, err := m.Get(id)
	require.NoError(t, err)
	require.Equal(t, bgagent.CauseHost, task.Cause)
	require.Equal(t, "not needed", task.Reason)
	require.NoError(t, m.Quiet(t.Context(), id))

	p.until(`[...detail.querySelectorAll('button')].find(b => b.textContent === 'Resume' && !b.hidden)`)
	p.js(`[...detail.querySelectorAll('button')].find(b => b.textContent === 'Resume').click()`)
	p.click("#ask-yes")
	p.until(`!document.getElementById('ask-error').hidden`) // the prompt was empty
	p.do(chromedp.SendKeys(chromedp.CSS("#ask-text"), "go on"))
	p.click("#ask-yes")
	p.until(`!ask.open && detail.querySelector('.badge').textContent.startsWith('running')`)
	p.mu.Lock()
	p.problems = nil // the browser logs the answer with status 400
	p.mu.Unlock()
}

func TestWithoutLeaveThereIsNothingToPress(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	id := launch(t, m, "main", "wait", "first")
	p := open(t, serve(t, m, dashboard.Config{})+"#"+id, desktop)
	p.until(`detail.querySelector('.danger')`)
	require.Zero(t, eval[int](p, `[...detail.querySelectorAll('.detail-head button')].filter(b => b.offsetParent && b.className !== 'close').length`))
}

func TestOnAPhone(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	for i := range 30 {
		launch(t, m, "main", "wait", fmt.Sprint("a task with a title that is longer than a phone is wide, number ", i))
	}
	p := open(t, serve(t, m, dashboard.Config{AllowCancel: true}), phone)
	p.until(`document.querySelectorAll('#rows .row').length > 10`)
	require.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 390, "nothing overflows")
	require.LessOrEqual(t, eval[int](p, `Math.max(...[...document.querySelectorAll('#rows .row')].map(r => r.getBoundingClientRect().right))`), 390)
	require.GreaterOrEqual(t, eval[int](p, `document.querySelector('#rows .row').offsetHeight`), 44, "large enough for a finger")
	p.do(chromedp.Click("#rows .row:nth-child(3)"))
	p.until(`detail.offsetWidth === 390 && detail.querySelector('.danger').offsetHeight > 30`)
	p.click(".close")
	p.until(`detail.hidden`)
	p.click("#tab-time")
	p.until(`document.getElementById('time-size').offsetHeight > 60`)
	require.LessOrEqual(t, eval[int](p, `document.documentElement.scrollWidth`), 390)
}

func TestDarkAndLight(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	launch(t, m, "main", "wait", "first")
	url := serve(t, m, dashboard.Config{})
	// The JavaScript function "bright" returns the brightness of one of the page's colours, from 0
	// to 255: the mean of red, green and blue.
	bright := `(name => { const [r, g, b] = getComputedStyle(document.body)[name].match(/\d+/g); return (+r + +g + +b) / 3 | 0 })`
	for _, dark := range []bool{false, true} {
		s := desktop
		s.dark = dark
		p := open(t, url, s)
		p.until(rowWith("first"))
		background, text := eval[int](p, bright+`('backgroundColor')`), eval[int](p, bright+`('color')`)
		require.Equal(t, dark, background < 60, background)
		require.Equal(t, dark, text > 180, text)
	}
}

func TestTheEndOfTheManagerIsSaid(t *testing.T) {
	m := newManager(t, agents, bgagent.Config{})
	launch(t, m, "main", "wait", "first")
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("first"))
	_ = m.Close(context.Background()) // the error lists the notice that has not been taken
	p.until(`link.dataset.state === 'closed' && ` + rowWith("first") + `.dataset.state === 'cancelled'`)
}

func TestATaskWhoseServerIsAwaySaysSo(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{
		"away": func(context.Context, *inproc.Turn) (string, error) {
			return "", fmt.Errorf("connection refused: %w", bgagent.ErrUnreachable)
		},
	}, bgagent.Config{})
	launch(t, m, "main", "away", "held back")
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("held back") + `?.textContent.includes('out of reach') && ` + rowWith("held back") + `.textContent.includes('connection refused')`)
	p.js(rowWith("held back") + `.click()`)
	p.until(`document.getElementById('detail').textContent.includes('Out of reach since') && document.getElementById('detail').textContent.includes('Fails at')`)
}

func TestATaskThatWaitsForItsOwnSaysForHowMany(t *testing.T) {
	var m *bgagent.BackgroundManager
	made, over := make(chan struct{}), make(chan struct{})
	m = newManager(t, map[string]inproc.Agent{
		"wait": agents["wait"],
		"short": func(ctx context.Context, _ *inproc.Turn) (string, error) {
			select {
			case <-over:
				return "done", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		},
		"boss": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			<-made
			for _, agent := range []string{"short", "wait", "wait"} {
				in := bgagent.LaunchInput{Agent: agent, Description: "a " + agent, Prompt: "x"}
				if _, err := m.Launch(ctx, bgagent.Caller{Session: turn.Session()}, in); err != nil {
					return "", err
				}
			}
			return "that is all", nil
		},
	}, bgagent.Config{MaxDepth: 2})
	close(made)
	launch(t, m, "main", "boss", "first")
	p := open(t, serve(t, m, dashboard.Config{}), desktop)
	p.until(rowWith("first"))
	state := rowWith("first") + `.querySelector('.c-state').textContent`
	p.until(state + ` === 'waits for 3 tasks' && ` + rowWith("first") + `.dataset.state === 'waiting'`)
	close(over) // the parent is notified when all tasks have ended
	p.until(state + ` === 'waits for 2 tasks'`)
}
