package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// The function "asks" is an agent that asks two questions and answers with the chosen options.
func asks(ctx context.Context, turn *inproc.Turn) (string, error) {
	option, err := turn.Ask(ctx, bgagent.Question{Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main", hostile}})
	if err != nil {
		return "", err
	}
	permit, err := turn.Ask(ctx, bgagent.Question{Kind: bgagent.QuestionPermission, Title: "May I run it?", Subject: "make\n  " + hostile, Options: []string{"allow", "deny"}})
	return option + "|" + permit, err
}

const question = `document.querySelector('.question')`

// The function "press" returns a statement that presses the button for the option.
func press(option string) string {
	return fmt.Sprintf(question+`.querySelectorAll('.options button').forEach(b => { if (b.textContent === %q) b.click() })`, option)
}

func TestAQuestionIsAnsweredOnThePage(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{"ask": asks}, bgagent.Config{Ask: true})
	id := launch(t, m, "main", "ask", "release")
	p := open(t, serve(t, m, dashboard.Config{AllowAnswer: true, AllowPermit: true}), desktop)
	p.until(rowWith("release"))
	p.openTask("release")
	p.until(question + `?.querySelector('.asks').textContent === 'Which branch?'`)
	require.Contains(t, eval[string](p, question+`.textContent`), "Expires ")
	p.js(press(hostile))
	p.until(question + `?.querySelector('.asks').textContent === 'May I run it?'`)
	require.Equal(t, "make\n  "+hostile, eval[string](p, question+`.querySelector('pre').textContent`), "the subject is text, and whole")
	require.Equal(t, 0, eval[int](p, question+`.querySelectorAll('script, img').length`))
	p.js(press("deny"))
	p.until(result + fmt.Sprintf(` === %q`, hostile+"|deny") + ` && !` + question)
	task, err := m.Get(id)
	require.NoError(t, err)
	require.Equal(t, bgagent.Completed, task.Status)
}

// On a page without a password, permission cannot be granted.
func TestAPageThatMayNotPermitHasNoButtonsForIt(t *testing.T) {
	m := newManager(t, map[string]inproc.Agent{"ask": asks}, bgagent.Config{Ask: true})
	launch(t, m, "main", "ask", "release")
	p := open(t, serve(t, m, dashboard.Config{AllowAnswer: true}), desktop)
	p.until(rowWith("release"))
	p.openTask("release")
	p.until(question + `?.querySelectorAll('.options button').length === 2`)
	p.js(press("main"))
	p.until(question + `?.querySelector('.asks').textContent === 'May I run it?'`)
	require.Equal(t, 0, eval[int](p, question+`.querySelectorAll('button').length`))
	require.Contains(t, eval[string](p, question+`.textContent`), "The possible answers are: allow, deny. They cannot be given on this page.")
}
