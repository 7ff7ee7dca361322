package bgagenttest

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// questionChecks check how a client asks its agent's questions.
var questionChecks = []check{
	{name: "refused question", why: "an agent whose question is refused must continue without what it asked for", needs: []need{aRunner, harnessAsk}, run: checkRefusedQuestion},
	{name: "question", why: "if a question is not reported, or its answer does not arrive, its turn waits for a day", needs: []need{aStarter, anEventSource, anAnswerer, harnessAsk}, run: checkQuestion},
}

// checkRefusedQuestion uses a reporter that belongs to the suite and refuses every question.
func checkRefusedQuestion(c *checkContext) {
	d := c.begin(c.create(), c.h.Ask())
	o := d.await()
	d.mu.Lock()
	asked := slices.ContainsFunc(d.reports, func(r bgagent.Report) bool { return r.Kind == bgagent.ReportAsking && r.Text != "" })
	d.mu.Unlock()
	switch {
	case !asked:
		c.failf("the turn has not called Reporter.Ask")
	case o.failed():
		c.failf("the turn whose question was refused ended with %v", o)
	}
}

func checkQuestion(c *checkContext) {
	l := c.listen()
	if over, err := l.ended(); over && c.unsupported(err) {
		return
	}
	id := c.create()
	d := c.begin(id, c.h.Ask())
	var list []bgagent.Question
	asks := l.saw(func(e bgagent.HostEvent) bool {
		if e.Kind == bgagent.HostQuestion && e.Session == id && len(e.Questions) > 0 {
			list = e.Questions
		}
		return list != nil
	})
	switch {
	case !asks:
		c.endf("no HostQuestion event has come %v after the prompt", c.h.Settle)
	case len(list) > 1:
		c.failf("the agent asks one question, and the event contains %d", len(list))
	}
	q := list[0]
	switch {
	case q.ID == "" || q.Kind == 0 || q.Title == "":
		c.failf("the question needs an id, a kind and a title: %+v", q)
	case len(q.Options) == 0:
		c.endf("the question has no options")
	case slices.ContainsFunc(q.Options, func(o string) bool { return strings.Contains(strings.ToLower(o), "always") }):
		c.failf("the question offers %q; an answer that also covers later questions must be left out", q.Options)
	}
	q.State, q.Answer = bgagent.QuestionAnswered, q.Options[0]
	answer := func() error {
		return c.call("AnswerQuestion", func(ctx context.Context) error { return c.answerer.AnswerQuestion(ctx, id, q, nil) })
	}
	if err := answer(); err != nil {
		c.endf("AnswerQuestion: %v", err)
	}
	if o := d.await(); o.failed() {
		c.failf("the turn whose question was answered ended with %v", o)
	}
	if !l.saw(func(e bgagent.HostEvent) bool {
		return e.Kind == bgagent.HostQuestion && e.Session == id && len(e.Questions) == 0
	}) {
		c.failf("no HostQuestion event without questions has come %v after the answer", c.h.Settle)
	}
	if err := answer(); err != nil && !errors.Is(err, bgagent.ErrNoQuestion) {
		c.failf("AnswerQuestion for a question that is no longer asked: %v; the error should match ErrNoQuestion", err)
	}
}
