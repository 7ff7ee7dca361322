// Command opencode runs three agents on an opencode server: explore, librarian and oracle. They
// examine a project concurrently, each in a separate session. Whenever tasks have ended, the
// command prints their results.
//
//	opencode serve --port 4096
//	go run ./examples/opencode -url http://127.0.0.1:4096 -dir . -model provider/model
//
// The server's password is read from the environment variable OPENCODE_SERVER_PASSWORD. If the
// server does not have one of the agents, the agent named by -fallback is used instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

// scene holds the prompts of the three agents.
var scene = []bgagent.LaunchInput{
	{Agent: "explore", Description: "Explore: find the main parts", Prompt: "Which packages does this project have, and what is each for? Answer in a few lines."},
	{Agent: "librarian", Description: "Librarian: read the documents", Prompt: "What do the documents of this project promise to its users? Answer in a few lines."},
	{Agent: "oracle", Description: "Oracle: judge the design", Prompt: "What would you change first in the design of this project, and why? Answer in a few lines."},
}

type options struct {
	server   opencode.Config
	fallback string
	limit    int
}

func main() {
	var o options
	flag.StringVar(&o.server.URL, "url", "http://127.0.0.1:4096", "where the server listens")
	flag.StringVar(&o.server.Directory, "dir", ".", "project to look at, on the server's machine")
	flag.StringVar(&o.server.Model, "model", "", "provider/model; empty means the agents' own")
	flag.StringVar(&o.fallback, "fallback", "general", "agent to use in place of those that the server does not have")
	flag.IntVar(&o.limit, "limit", 2, "maximum number of tasks that run at the same time")
	flag.Parse()
	o.server.Password = os.Getenv("OPENCODE_SERVER_PASSWORD")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "opencode:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, o options) (err error) {
	if o.server.Directory, err = filepath.Abs(o.server.Directory); err != nil {
		return err
	}
	client, err := opencode.New(o.server)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Check(ctx); err != nil {
		return inFlags(err)
	}
	m, err := bgagent.New(client, bgagent.Config{
		Limits: bgagent.Limits{Default: o.limit},
		// All agents use one model, so that the limit counts them together.
		Model: func(_, asked string) (string, error) { return o.server.Model, nil },
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if left := m.Close(ctx); ctx.Err() != nil {
			err = errors.Join(err, left)
		}
	}()
	agents, err := client.Agents(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	me := bgagent.Caller{Session: "tutorial"}
	for _, in := range scene {
		if !has(agents, in.Agent) {
			in.Agent = o.fallback
		}
		if _, err := m.Launch(ctx, me, in); err != nil {
			return err
		}
	}
	var alone time.Duration
	for notice, err := range m.Notices(ctx, me.Session) {
		if err != nil {
			return err
		}
		for _, end := range notice.Items {
			task, err := m.Read(me, end.Task)
			if err != nil {
				return err
			}
			alone += task.Duration(time.Now())
			fmt.Fprintf(w, "## %s\n\n%s after %v, %d tool calls, session %s\n\n%s%s\n\n", task.Description, task.Status,
				task.Duration(time.Now()).Round(time.Second/10), task.Progress.ToolCalls, task.Session, task.Result, task.Reason)
		}
	}
	fmt.Fprintf(w, "All together took %v; one after the other, they would have taken %v.\n", time.Since(began).Round(time.Second/10), alone.Round(time.Second/10))
	return nil
}

// inFlags replaces the advice in the client's error. The client's advice names fields of its Config,
// but the new advice names the flags of this program.
func inFlags(err error) error {
	var server *opencode.ServerError
	if !errors.As(err, &server) {
		return err
	}
	told := *server
	told.Advice = `start it with "opencode serve", or set -url to its address; if the server has a password, set OPENCODE_SERVER_PASSWORD`
	return &told
}

func has(agents []bgagent.AgentInfo, name string) bool {
	for _, a := range agents {
		if a.Name == name {
			return true
		}
	}
	return false
}
