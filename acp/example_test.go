//go:build unix

package acp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/acp"
)

// Two agent names stand for opencode. The first agent only plans. The second agent is also allowed
// to run tests.
func Example() {
	client, err := acp.New(acp.Config{
		Command: []string{"opencode", "acp"},
		Dir:     "/home/me/project",
		Env:     []string{"ANTHROPIC_API_KEY", "OPENCODE_DISABLE_AUTOUPDATE=1"},
		Agents: map[string]acp.Agent{
			"oracle": {Mode: "plan", Model: "anthropic/claude-opus-4-5", Description: "thinks hard, changes nothing"},
			"worker": {Description: "does one piece of work"},
		},
		Logger: slog.Default(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	m, err := bgagent.New(client, bgagent.Config{
		Limits: bgagent.Limits{Default: 2},
		Permissions: []bgagent.Permission{
			{Name: "read", Pattern: "*", Action: bgagent.PermissionAllow},
			{Name: "bash", Pattern: "go test *", Action: bgagent.PermissionAllow},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close(context.Background())
	task, err := m.Run(context.Background(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "oracle", Prompt: "Why does the build take so long?"})
	fmt.Println(task.Result, err)
}

// Gemini needs an authentication method. It asks before it runs a command or changes a
// file.
func ExampleConfig_gemini() {
	client, err := acp.New(acp.Config{
		Command: []string{"gemini", "--acp"},
		Env:     []string{"GEMINI_API_KEY"},
		Auth:    "gemini-api-key",
		Model:   "gemini-2.5-pro",
		Permit: func(_ context.Context, q acp.PermissionRequest) acp.PermissionAnswer {
			for _, path := range q.Paths {
				if !filepath.IsLocal(path) && filepath.Dir(path) != q.Directory {
					return acp.PermissionAnswer{Reason: "only files of the project may be changed"}
				}
			}
			return acp.PermissionAnswer{Allow: q.Kind == "edit", Reason: "commands are not run here"}
		},
		StartTimeout: time.Minute, // for a slow machine
	})
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// A host such as an editor gives the agent files, terminals and MCP servers.
func ExampleConfig_services() {
	client, err := acp.New(acp.Config{
		Command: []string{"some-agent"},
		Files:   acp.FilesReadWrite,
		Terminal: func(_ context.Context, q acp.TerminalRequest) error {
			if q.Command[0] != "go" {
				return errors.New("only the go command is run")
			}
			return nil
		},
		MCPServers: func(s bgagent.SessionSpec) []acp.MCPServer {
			return []acp.MCPServer{
				{Name: "docs", Command: []string{"docs-server"}, Env: map[string]string{"ROOT": s.Directory}},
				{Name: "tickets", URL: "https://tickets.example/mcp", Headers: map[string]string{"Authorization": "Bearer " + os.Getenv("TICKETS_TOKEN")}},
			}
		},
		CancelGrace: 2 * time.Second,
		CloseGrace:  time.Second,
		MaxHistory:  64 << 10,
	})
	fmt.Println(client != nil, err)
	// Output: true <nil>
}
