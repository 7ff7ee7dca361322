// Command tools lets models call the three tools through real SDKs, without a
// network: MCP, Anthropic, OpenAI, Eino and LangChainGo. There is a file for
// each of them with what a program needs to offer the tools through it. The
// models are scripted, see script.go; everything else is what it would be.
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

// sdks are the SDKs in turn. Each plays the script to its end.
var sdks = []struct {
	name string
	play func(context.Context, []bgagent.ToolDef, *script) error
}{
	{"MCP", playMCP},
	{"Anthropic", playAnthropic},
	{"OpenAI, Chat Completions", playOpenAI},
	{"OpenAI, Responses", playResponses},
	{"Eino", playEino},
	{"LangChainGo", playLangChain},
}

func run(ctx context.Context, w io.Writer) (err error) {
	// The agent is not done before the model knows of its task, so that the output
	// is the same every time: a task that has ended by then is told of at once.
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

	defs := bgagent.Tools(m, bgagent.ToolOptions{
		Agents: []bgagent.AgentInfo{{Name: "counter", Description: "Counts the words of its prompt."}},
	})
	for _, sdk := range sdks {
		fmt.Fprintf(w, "== %s\n", sdk.name)
		// Each conversation is a session of its own: none sees the tasks of another.
		ctx := bgagent.WithCaller(ctx, bgagent.Caller{Session: "conversation with " + sdk.name})
		s := &script{w: w, defs: defs, launched: launched}
		if err := sdk.play(ctx, defs, s); err != nil {
			return fmt.Errorf("%s: %w", sdk.name, err)
		}
	}
	return nil
}

// callTool runs a tool that a model has called. ctx carries the caller with the
// session of the conversation. The id of the call is added to it: a launch that
// is repeated with the same id, as after a lost connection, launches nothing
// twice.
func callTool(ctx context.Context, defs []bgagent.ToolDef, id, name string, args json.RawMessage) (bgagent.ToolResult, error) {
	by, _ := bgagent.CallerFrom(ctx)
	by.ToolCallID = id
	for _, d := range defs {
		if d.Name == name {
			return d.Call(bgagent.WithCaller(ctx, by), args)
		}
	}
	// Models do that. The error of Call is for the host; this is for the model.
	return bgagent.ToolResult{Text: "There is no tool " + name + ".", IsError: true}, nil
}
