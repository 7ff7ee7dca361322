package e2e

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// secondProcess simulates another process. Its manager is in this process.
type secondProcess struct {
	m *bgagent.BackgroundManager

	mu      sync.Mutex
	problem string
}

func (p *secondProcess) Processes(context.Context, int) ([]dashboard.Process, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []dashboard.Process{{Name: "m2" + hostile, Problem: p.problem, Tasks: p.m.List(bgagent.Query{})}}, nil
}

func (p *secondProcess) Read(_ context.Context, id string) (bgagent.Task, error) { return p.m.Get(id) }

func (p *secondProcess) Cancel(ctx context.Context, id, reason string) (bgagent.Task, error) {
	return p.m.Cancel(ctx, bgagent.Caller{}, id, bgagent.CancelOptions{Reason: reason})
}

func (p *secondProcess) Answer(ctx context.Context, id string, in bgagent.AnswerInput) (bgagent.Question, error) {
	return p.m.Answer(ctx, bgagent.Caller{}, id, in)
}

func (p *secondProcess) dies(problem string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problem = problem
}

func TestTasksOfAnotherProcessAreOnThePage(t *testing.T) {
	there := newManager(t, map[string]inproc.Agent{"ask": asks}, bgagent.Config{Ask: true})
	far := launch(t, there, "main", "ask", "release")
	second := &secondProcess{m: there}
	here := newManager(t, agents, bgagent.Config{})
	p := open(t, serve(t, here, dashboard.Config{Process: "m1", Others: second, AllowCancel: true, AllowResume: true, AllowAnswer: true}), desktop)
	const process = `[...document.querySelectorAll('#rows .row')].find(r => r.querySelector('.text').textContent === 'release')?.querySelector('.process').textContent`
	p.until(process + ` === ` + strconv.Quote("m2"+hostile))
	p.openTask("release")
	p.until(question + `?.querySelector('.asks').textContent === 'Which branch?'`)
	p.js(press("main"))
	p.until(question + `?.querySelector('.asks').textContent === 'May I run it?'`)
	require.Equal(t, 0, eval[int](p, question+`.querySelectorAll('button').length`), "permissions cannot be granted on this page")

	second.dies("does not answer")
	p.until(process + ` === ` + strconv.Quote("m2"+hostile+": does not answer"))
	p.until(`document.querySelector('#processes').textContent === ` + strconv.Quote("m2"+hostile+": does not answer"))
	require.Equal(t, 0, eval[int](p, `document.querySelectorAll('#rows script, #rows img, header script, header img').length`))
	second.dies("")
	p.until(`document.querySelector('#processes').textContent === ''`)

	p.js(`[...document.querySelectorAll('#detail button')].find(b => b.textContent === 'Cancel').click()`)
	p.js(`document.querySelector('#ask-yes').click()`)
	require.Eventually(t, func() bool { now, err := there.Get(far); return err == nil && now.Status == bgagent.Cancelled }, time.Minute, 10*time.Millisecond)
	p.until(`document.querySelector('#detail .badge').textContent.includes('cancelled')`)
	require.True(t, eval[bool](p, `[...document.querySelectorAll('#detail button')].filter(b => b.textContent === 'Resume' || b.textContent === 'Retry').every(b => b.hidden)`), "only its own process resumes it")
}
