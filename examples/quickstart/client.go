package main

import (
	"context"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/examples/quickstart/internal/agents"
	"github.com/bgagent/bgagent/inproc"
)

// newClient returns a session client that runs the three agents on the module in dir.
func newClient(dir string) *inproc.Client {
	all := map[string]inproc.Agent{}
	for name, work := range agents.All() {
		all[name] = func(ctx context.Context, t *inproc.Turn) (string, error) {
			return work(ctx, &agents.Turn{
				Dir: dir, Prompt: t.Prompt.Text, Earlier: answers(t.History()), Report: reporter(t),
			})
		}
	}
	return inproc.New(all)
}

// The function "answers" returns the texts of the agent's messages in the history.
func answers(history []bgagent.Message) []string {
	var said []string
	for _, m := range history {
		if m.Role == bgagent.RoleAgent && m.Text != "" {
			said = append(said, m.Text)
		}
	}
	return said
}

// reporter returns a Reporter that forwards an agent's reports to t.
func reporter(t *inproc.Turn) *bgagent.Reporter {
	return bgagent.NewReporter(func(r bgagent.Report) {
		switch r.Kind {
		case bgagent.ReportText:
			t.Text(r.Text)
		case bgagent.ReportTool:
			t.Tool(r.Tool)
		case bgagent.ReportTodos:
			t.Todos(r.Todos)
		}
	})
}

// modelOf maps every agent to a model of one provider, "local", so that one limit counts the
// tasks of all agents.
func modelOf(agent, asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	return "local/" + agent, nil
}
