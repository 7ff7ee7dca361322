// Command tools lets models call the three tools through the real SDKs of MCP, Anthropic,
// OpenAI, Eino and LangChainGo. For each SDK, one file contains all the code that a program
// needs to offer the tools through that SDK. The models are scripted (script.go), so the
// command needs no network. Everything else is real.
//
//	go run ./examples/tools
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "tools: %v\n", err)
		os.Exit(1)
	}
}

// sdks holds the SDKs in the order they are used. The function "play" runs the whole script through
// the SDK. noNotices is true for MCP, because an MCP server cannot start a turn of its caller.
var sdks = []struct {
	name      string
	noNotices bool
	play      func(context.Context, []bgagent.ToolDef, *script) error
}{
	{"MCP", true, playMCP},
	{"Anthropic", false, playAnthropic},
	{"OpenAI, Chat Completions", false, playOpenAI},
	{"OpenAI, Responses", false, playResponses},
	{"Eino", false, playEino},
	{"LangChainGo", false, playLangChain},
}

func run(ctx context.Context, w io.Writer) (err error) {
	// The agent's turn ends only after the model has received the answer to the launch.
	// Otherwise, the answer could already report that the task has ended, and the output would
	// vary.
	launched := make(chan struct{}, 1)
	client := inproc.New(map[string]inproc.Agent{
		"counter": func(ctx context.Context, t *inproc.Turn) (string, error) {
			select {
			case <-launched:
			case <-ctx.Done():
				return "", ctx.Err()
			}
			return fmt.Sprintf("%d words.", len(strings.Fields(t.Prompt.Text))), nil
		},
	})
	m, err := bgagent.New(client, bgagent.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()

	for _, sdk := range sdks {
		defs := bgagent.Tools(m, bgagent.ToolOptions{
			Agents:    []bgagent.AgentInfo{{Name: "counter", Description: "Counts the words of its prompt."}},
			NoNotices: sdk.noNotices,
		})
		fmt.Fprintf(w, "== %s\n", sdk.name)
		// Each conversation is a separate session. It cannot see the tasks of other conversations.
		ctx := bgagent.WithCaller(ctx, bgagent.Caller{Session: "conversation with " + sdk.name})
		s := &script{w: w, defs: defs, launched: launched}
		if err := sdk.play(ctx, defs, s); err != nil {
			return fmt.Errorf("%s: %w", sdk.name, err)
		}
	}
	return nil
}

// callTool runs a tool that a model has called. The context contains a caller with the
// conversation's session, and callTool adds the id of the tool call. The id lets the manager
// recognize a repeated call, for example after a lost connection. While the task of the first call
// is live, a call with the same id does not launch another task.
func callTool(ctx context.Context, defs []bgagent.ToolDef, id, name string, args json.RawMessage) (bgagent.ToolResult, error) {
	by, _ := bgagent.CallerFrom(ctx)
	by.ToolCallID = id
	for _, d := range defs {
		if d.Name == name {
			return d.Call(bgagent.WithCaller(ctx, by), args)
		}
	}
	// Models sometimes call unknown tools. The problem is returned as text for the model, because a
	// Go error would go to the host.
	return bgagent.ToolResult{Text: "There is no tool " + name + ".", IsError: true}, nil
}
