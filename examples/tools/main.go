// Command tools lets models call the three tools through real SDKs, without a
// network: MCP, Anthropic, OpenAI, Eino and LangChainGo. One file per SDK holds all
// that a program needs to offer the tools through it. The models are scripted
// (script.go); everything else is real.
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

// sdks are the SDKs in order. Each plays the script to its end. An MCP server cannot
// wake its caller. The other models are called by this program.
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
	// The agent does not finish before the model knows its task. Otherwise the
	// answer to the launch could already report the end, and the output would vary.
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
		// Each conversation is a session of its own and does not see the tasks of
		// others.
		ctx := bgagent.WithCaller(ctx, bgagent.Caller{Session: "conversation with " + sdk.name})
		s := &script{w: w, defs: defs, launched: launched}
		if err := sdk.play(ctx, defs, s); err != nil {
			return fmt.Errorf("%s: %w", sdk.name, err)
		}
	}
	return nil
}

// callTool runs a tool that a model has called. ctx carries the caller with the
// session of the conversation; callTool adds the id of the call. If a launch is
// repeated with the same id while its task is live, for example after a lost
// connection, it launches nothing new.
func callTool(ctx context.Context, defs []bgagent.ToolDef, id, name string, args json.RawMessage) (bgagent.ToolResult, error) {
	by, _ := bgagent.CallerFrom(ctx)
	by.ToolCallID = id
	for _, d := range defs {
		if d.Name == name {
			return d.Call(bgagent.WithCaller(ctx, by), args)
		}
	}
	// Models do call unknown tools. The error of Call is for the host; this text is
	// for the model.
	return bgagent.ToolResult{Text: "There is no tool " + name + ".", IsError: true}, nil
}
