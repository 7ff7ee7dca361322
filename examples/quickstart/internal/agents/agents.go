// Package agents holds the three agents of the quickstart. They work on a Go module. explore
// finds the places where something is implemented, librarian reads the documentation of the
// dependencies, and oracle measures the architecture. The agents need neither a model nor a
// network, and never write to the module.
package agents

import (
	"context"
	"fmt"

	"github.com/bgagent/bgagent"
)

// Agent works on one prompt and returns its answer.
type Agent func(ctx context.Context, t *Turn) (string, error)

// All returns the agents by name.
func All() map[string]Agent {
	return map[string]Agent{"explore": Explore, "librarian": Librarian, "oracle": Oracle}
}

// Turn is one turn of an agent.
type Turn struct {
	Dir     string            // top directory of the module
	Prompt  string            // prompt of the turn
	Earlier []string          // the agent's answers in earlier turns of the session, oldest first
	Report  *bgagent.Reporter // receives the agent's progress; may be nil

	calls int
	todos []bgagent.Todo
}

// The method "plan" reports the steps of the turn as todos, and starts the first step.
func (t *Turn) plan(steps ...string) {
	t.todos = nil
	for _, s := range steps {
		t.todos = append(t.todos, bgagent.Todo{Text: s})
	}
	t.done(-1)
}

// The method "done" reports that a step is completed and the next step starts.
func (t *Turn) done(step int) {
	for i := range t.todos {
		switch {
		case i <= step:
			t.todos[i].State = bgagent.TodoCompleted
		case i == step+1:
			t.todos[i].State = bgagent.TodoInProgress
		}
	}
	t.Report.Todos(t.todos)
}

func (t *Turn) say(format string, args ...any) { t.Report.Text(fmt.Sprintf(format, args...) + "\n") }

// The method "tool" runs f and reports it as a tool call with the given name.
func (t *Turn) tool(name string, f func() error) error {
	t.calls++
	// The id must be unique in the session, so it includes the number of the turn.
	id := fmt.Sprintf("call_%d.%d", len(t.Earlier)+1, t.calls)
	call := bgagent.MessageTool{ID: id, Name: name, State: bgagent.ToolRunning}
	t.Report.Tool(call)
	err := f()
	call.State = bgagent.ToolDone
	if err != nil {
		call.State = bgagent.ToolFailed
	}
	t.Report.Tool(call)
	return err
}
