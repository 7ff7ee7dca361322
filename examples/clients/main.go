// Command clients runs several agent runtimes behind one manager. Config.ClientFor maps each
// agent to its runtime. Config.Model maps each agent to its model, because limits apply to
// models. All three runtimes are Go functions here, but each could also be a server or a
// command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

// runtimes maps agents to the names of their clients. The client that is passed to New has an
// empty name.
var runtimes = map[string]string{"librarian": "docs", "oracle": "big"}

// models maps agents to the model that they use by default.
var models = map[string]string{"librarian": "openai/gpt-5", "oracle": "anthropic/claude-opus-4-5"}

func modelOf(agent, asked string) (string, error) {
	switch {
	case asked != "" && agent == "oracle":
		return "", fmt.Errorf("%s always runs on %s; leave the model out", agent, models[agent])
	case asked != "":
		return asked, nil
	}
	return models[agent], nil // the agent explore has no model, so its tasks count towards the limit for its name
}

// newRuntime returns a client whose agents answer with the name of the runtime and the model.
func newRuntime(name string) *inproc.Client {
	return inproc.New(map[string]inproc.Agent{
		inproc.Fallback: func(_ context.Context, t *inproc.Turn) (string, error) {
			return fmt.Sprintf("ran on %s with model %q", name, t.Prompt.Model), nil
		},
	})
}

func run(ctx context.Context, w io.Writer) (err error) {
	m, err := bgagent.New(newRuntime("the first"), bgagent.Config{
		Clients:   map[string]bgagent.SessionClient{"docs": newRuntime("docs"), "big": newRuntime("big")},
		ClientFor: func(agent string) string { return runtimes[agent] },
		Model:     modelOf,
		Limits:    bgagent.Limits{Provider: map[string]int{"anthropic": 3, "openai": 2}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(context.Background())) }()

	caller := bgagent.Caller{Session: "main"}
	for _, agent := range []string{"explore", "librarian", "oracle"} {
		t, err := m.Run(ctx, caller, bgagent.LaunchInput{Agent: agent, Prompt: "where are you?"})
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s %s (client %q)\n", agent, t.Result, t.Client)
	}
	_, err = m.Launch(ctx, caller, bgagent.LaunchInput{Agent: "oracle", Model: "openai/gpt-5", Prompt: "and now?"})
	fmt.Fprintln(w, "refused:", err)
	for _, model := range []string{"anthropic/claude-opus-4-5", "openai/gpt-5"} {
		s := m.Concurrency().Stats(model)
		fmt.Fprintf(w, "%s: limit %d, %d in use\n", s.Name, s.Limit, s.InUse)
	}
	return nil
}
