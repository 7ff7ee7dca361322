package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// leastContrast is the minimum contrast that WCAG 2 requires of text at level AA.
const leastContrast = 4.5

// measureContrast defines the function __contrast, which measures the contrast between each visible text in
// the document and the colours behind it. These texts include those that the style sheet adds, and the values
// and placeholders of fields. When a text is drawn on a canvas, the script also measures the contrast between
// the text and the pixel behind it.
const measureContrast = `(() => {
  const parse = c => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number); return { r, g, b, a } }
  const over = (top, under) => ({ r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a), b: top.b * top.a + under.b * (1 - top.a), a: 1 })
  const linear = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  const light = c => 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b)
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05) }
  const behind = e => {
    const layers = []
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor)
      if (c.a) layers.push(c)
      if (c.a === 1) break
    }
    return layers.reduceRight((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 })
  }
  const opacity = e => { let o = 1; for (; e; e = e.parentElement) o *= getComputedStyle(e).opacity; return o }
  const seen = e => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !e.closest('.hidden') && e.getClientRects().length > 0
  const drawn = { n: 0, bad: [] }
  window.__contrast = () => {
    const out = { n: drawn.n, bad: drawn.bad.splice(0) }
    drawn.n = 0
    const look = (e, colour, text) => {
      const ground = behind(e)
      const c = parse(colour)
      c.a *= opacity(e)
      const got = ratio(over(c, ground), ground)
      out.n++
      if (got < LEAST) out.bad.push(got.toFixed(2) + ' ' + (e.className || e.tagName) + ' ' + text.trim().slice(0, 40) + ' ' + colour + ' on ' + JSON.stringify(ground))
    }
    for (const e of document.body.querySelectorAll('*')) {
      if (!seen(e) || e.tagName === 'CANVAS') continue
      const own = [...e.childNodes].filter(n => n.nodeType === 3 && n.data.trim()).map(n => n.data).join(' ')
      if (own) look(e, getComputedStyle(e).color, own)
      if (e.value) look(e, getComputedStyle(e).color, e.value)
      else if (e.placeholder) look(e, getComputedStyle(e, '::placeholder').color, e.placeholder)
      for (const pseudo of ['::before', '::after']) {
        const s = getComputedStyle(e, pseudo)
        if (/^".*\S.*"$/.test(s.content)) look(e, s.color, s.content)
      }
    }
    return out
  }
  const getContext = HTMLCanvasElement.prototype.getContext
  HTMLCanvasElement.prototype.getContext = function (kind) { return getContext.call(this, kind, { willReadFrequently: true }) }
  const fillText = CanvasRenderingContext2D.prototype.fillText
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    const at = { left: x + 4, center: x, right: x - 4 }[this.textAlign]
    const { a: scale } = this.getTransform()
    const [r, g, b, a] = this.getImageData(Math.round(at * scale), Math.round(y * scale), 1, 1).data
    const ground = a ? { r, g, b, a: 1 } : behind(this.canvas)
    const hex = this.fillStyle
    const colour = { r: parseInt(hex.slice(1, 3), 16), g: parseInt(hex.slice(3, 5), 16), b: parseInt(hex.slice(5, 7), 16), a: 1 }
    drawn.n++
    if (at > 0 && y > 0 && y * scale < this.canvas.height && ratio(colour, ground) < LEAST) drawn.bad.push(ratio(colour, ground).toFixed(2) + ' drawn ' + text + ' ' + hex + ' on ' + JSON.stringify(ground))
    return fillText.call(this, text, x, y)
  }
})()`

// asksFor returns an agent that asks a question of the kind.
func asksFor(kind bgagent.QuestionKind) inproc.Agent {
	return func(ctx context.Context, turn *inproc.Turn) (string, error) {
		return turn.Ask(ctx, bgagent.Question{Kind: kind, Title: "Shall I?", Subject: "make all", Options: []string{"yes", "no"}})
	}
}

// The function "colourful" makes tasks in every state, with every kind of text. It returns their manager and
// their titles.
func colourful(t *testing.T) (*bgagent.BackgroundManager, []string) {
	parent := make(chan string, 1)
	var m *bgagent.BackgroundManager
	m = newManager(t, map[string]inproc.Agent{
		"wait": agents["wait"], "echo": agents["echo"], "fail": withFailing["fail"], "choice": asksFor(bgagent.QuestionChoice), "permission": asksFor(bgagent.QuestionPermission),
		"asks": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			turn.Asking("May I?")
			<-ctx.Done()
			return "", ctx.Err()
		},
		"boss": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			in := bgagent.LaunchInput{Agent: "wait", Description: "child", Prompt: "x"}
			_, err := m.Launch(ctx, bgagent.Caller{Session: turn.Session()}, in)
			parent <- turn.Session()
			return "that is all", err
		},
		"paints": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			var todos []bgagent.Todo
			for state := range bgagent.TodoCancelled + 1 {
				todos = append(todos, bgagent.Todo{Text: "a todo", State: state})
			}
			turn.Todos(todos)
			for i, state := range []bgagent.ToolState{bgagent.ToolDone, bgagent.ToolFailed, bgagent.ToolRunning} {
				turn.Tool(bgagent.MessageTool{ID: fmt.Sprint(i), Name: "read", State: state})
			}
			turn.Reasoning("hm")
			turn.Text("some text")
			turn.Usage(bgagent.Usage{InputTokens: 2000, Cost: 0.5})
			<-ctx.Done()
			return "", ctx.Err()
		},
	}, bgagent.Config{MaxDepth: 2, Ask: true, Limits: bgagent.Limits{Agent: map[string]int{"paints": 1}}})
	cancelled := launch(t, m, "main", "paints", "cancelled")
	titles := []string{"cancelled"}
	for _, agent := range []string{"echo", "fail", "asks", "boss", "paints", "paints", "wait", "choice", "permission"} {
		titles = append(titles, fmt.Sprint("a ", agent, " ", len(titles)))
		launch(t, m, "main", agent, titles[len(titles)-1])
	}
	_, err := m.Cancel(t.Context(), bgagent.Caller{}, cancelled, bgagent.CancelOptions{Reason: "no longer needed"})
	require.NoError(t, err)
	<-parent
	failed := m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Failed}})
	for len(failed) == 0 {
		failed = m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Failed}})
	}
	require.NoError(t, m.Quiet(t.Context(), failed[0].ID))
	_, err = m.Resume(t.Context(), bgagent.Caller{}, failed[0].ID, bgagent.ResumeInput{Prompt: "again"})
	require.NoError(t, err)
	return m, titles
}

func TestEveryTextHasEnoughContrast(t *testing.T) {
	m, titles := colourful(t)
	url := serve(t, m, dashboard.Config{AllowCancel: true, AllowResume: true, AllowAnswer: true, Silent: time.Millisecond,
		Log: func(_ context.Context, _ string, offset int64) (string, int64, error) {
			return "a line\n"[offset:], 7, nil
		}})
	for name, s := range map[string]screen{"light": desktop, "dark": {width: 1360, height: 820, scale: 1, dark: true}, "phone": phone} {
		t.Run(name, func(t *testing.T) {
			p := open(t, url, s)
			call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
				Source: fmt.Sprintf("{ const LEAST = %v; %s }", leastContrast, measureContrast)})
			p.do(chromedp.Reload())
			measure := func(what string, least int) {
				t.Helper()
				type result struct {
					N   int
					Bad []string
				}
				got := eval[result](p, `__contrast()`)
				require.Empty(t, got.Bad, what)
				require.GreaterOrEqual(t, got.N, least, what)
			}
			p.until(rowWith("child") + ` && ` + rowWith("a boss 4") + `.dataset.state === 'waiting' && ` + rowWith("a wait 7") + `.dataset.silent`)
			measure("tree", 40)
			for _, title := range titles {
				p.openTask(title)
				p.until(`!detail.textContent.includes('reading …')`)
				if asks := strings.HasPrefix(title, "a choice") || strings.HasPrefix(title, "a permission"); asks {
					p.until(question + `?.offsetHeight > 0`)
				}
				p.js(`for (const d of detail.querySelectorAll('details')) d.open = true`)
				measure(title, 60)
				if s.phone {
					p.click(".close")
				}
			}
			p.openTask("a wait 7")
			p.click(".danger")
			p.do(chromedp.SendKeys(chromedp.CSS("#ask-text"), "why"))
			p.js(`document.getElementById('ask-yes').disabled = true; document.getElementById('ask-error').hidden = false; document.getElementById('ask-error').textContent = 'an error'`)
			measure("dialog", 60)
			p.js(`document.getElementById('ask').close()`)
			p.click(".close")
			for y := 60; y < 300; y += 40 { // a row, a chip and a pool under the pointer
				call(p, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseMoved, X: 200, Y: float64(y)})
				measure("pointer", 40)
			}
			p.do(chromedp.SendKeys(chromedp.CSS("#search"), "nothing has this"))
			p.until(`!document.getElementById('empty').hidden`)
			measure("nothing found", 20)
			p.js(`search.value = ''; search.dispatchEvent(new Event('input'))`)
			p.click("#tab-time")
			p.until(`document.getElementById('time-size').offsetHeight > 100`)
			p.click("#spans button")
			p.js(`document.getElementById('timeline').focus()`)
			p.press("\r")
			measure("timeline", 40)
			for _, state := range []string{"connecting", "lost", "closed"} {
				p.js(`document.getElementById('link').dataset.state = '` + state + `'`)
				measure(state, 20)
			}
			// No task of this test can enter these states, so the script sets them on the rows.
			p.click("#tab-tree")
			p.js(`for (const [i, row] of [...document.querySelectorAll('#rows .row:not([data-state=session])')].entries()) row.dataset.state = ['parked', 'asking'][i % 2]`)
			measure("states", 40)
		})
	}
}
