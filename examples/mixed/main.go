// Command mixed runs agents of four kinds behind one manager. "explore" is codex and "writer"
// is Claude Code; both are command-line programs. "oracle" is a program that speaks ACP.
// "reviewer" works in sessions of an opencode server. "librarian" is a Go function. All agents
// are used in the same way. The limits apply to models, no matter which kind of agent uses
// them.
//
//	go run . -acp "gemini --acp" -url http://127.0.0.1:4096
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
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/acp"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/opencode"
)

// runtimes holds the settings that are needed to start the programs or to reach the servers.
type runtimes struct {
	codex    command.Agent
	claude   command.Agent
	acp      acp.Config
	opencode opencode.Config
	models   map[string]string // model of each agent; an agent without an entry uses its program's default model
	dir      string            // project directory that the agents work in
}

func main() {
	r := runtimes{codex: command.Agent{Program: command.Codex()}, claude: command.Agent{Program: command.Claude()}}
	acpCommand := flag.String("acp", "gemini --acp", "the agent that speaks ACP, with its arguments")
	flag.StringVar(&r.acp.Auth, "acp-auth", "", "id of the authentication method that the agent needs")
	flag.StringVar(&r.opencode.URL, "url", "http://127.0.0.1:4096", "where the opencode server listens")
	flag.StringVar(&r.dir, "dir", ".", "project to work in")
	flag.Parse()
	r.acp.Command = strings.Fields(*acpCommand)
	r.opencode.Password = os.Getenv("OPENCODE_SERVER_PASSWORD")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, r, "Say in one sentence what this project is."); err != nil {
		fmt.Fprintln(os.Stderr, "mixed:", err)
		os.Exit(1)
	}
}

// kind maps each agent to the name of its client. The client that is passed to New has an empty
// name.
var kind = map[string]string{"explore": "commands", "writer": "commands", "oracle": "acp", "reviewer": "opencode", "librarian": ""}

func run(ctx context.Context, w io.Writer, r runtimes, question string) (err error) {
	if r.dir, err = filepath.Abs(r.dir); err != nil {
		return err
	}
	r.acp.Dir, r.opencode.Directory = r.dir, r.dir
	oracle, err := acp.New(r.acp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, oracle.Close()) }()
	commands, err := command.New(command.Config{Directory: r.dir, Agents: map[string]command.Agent{"explore": r.codex, "writer": r.claude}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, commands.Close(context.Background())) }()
	reviewer, err := opencode.New(r.opencode)
	if err != nil {
		return err
	}
	defer reviewer.Close()
	if _, err := reviewer.Check(ctx); err != nil {
		return inFlags(err)
	}
	librarian := inproc.New(map[string]inproc.Agent{"librarian": func(_ context.Context, t *inproc.Turn) (string, error) {
		names, err := filepath.Glob(filepath.Join(r.dir, "*.md"))
		return fmt.Sprintf("%d documents at the top", len(names)), err
	}})

	m, err := bgagent.New(librarian, bgagent.Config{
		Clients:   map[string]bgagent.SessionClient{"commands": commands, "acp": oracle, "opencode": reviewer},
		ClientFor: func(agent string) string { return kind[agent] },
		Model:     func(agent, _ string) (string, error) { return r.models[agent], nil },
		Limits:    bgagent.Limits{Default: 2},
	})
	if err != nil {
		return err
	}
	defer func() { // deferred last, so the manager is closed before the clients
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if left := m.Close(ctx); ctx.Err() != nil {
			err = errors.Join(err, left)
		}
	}()

	me := bgagent.Caller{Session: "main"}
	for _, agent := range []string{"explore", "writer", "oracle", "reviewer", "librarian"} {
		if _, err := m.Launch(ctx, me, bgagent.LaunchInput{Agent: agent, Description: agent, Prompt: question}); err != nil {
			return err
		}
	}
	for notice, err := range m.Notices(ctx, me.Session) {
		if err != nil {
			return err
		}
		for _, end := range notice.Items {
			task, err := m.Read(me, end.Task)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s (%s, %s): %s%s\n", task.Agent, task.Status, task.Duration(time.Now()).Round(time.Second/10), task.Result, task.Reason)
		}
	}
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
