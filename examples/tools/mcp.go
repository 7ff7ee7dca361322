package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// addMCPTools adds the tools to a server. MCP does not identify the caller, so the function
// "session" must return the caller's name. With HTTP, the name can be the ID of the request's
// session. On stdio, there is only one client and no ID, so any fixed name works. Two clients
// must never have the same name, because each could then read and cancel the other's tasks.
//
// addMCPTools uses Server.AddTool instead of mcp.AddTool, because the tools check their arguments
// themselves and describe errors in text for a model.
func addMCPTools(s *mcp.Server, defs []bgagent.ToolDef, session func(*mcp.CallToolRequest) string) {
	for _, d := range defs {
		t := &mcp.Tool{Name: d.Name, Description: d.Description, InputSchema: d.Schema}
		s.AddTool(t, func(ctx context.Context, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			by := bgagent.Caller{Session: session(req)} // MCP defines no id for a tool call, so ToolCallID stays empty
			r, err := d.Call(bgagent.WithCaller(ctx, by), req.Params.Arguments)
			if err != nil {
				return nil, err
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: r.Text}}, IsError: r.IsError}, nil
		})
	}
}

// playMCP serves the tools to a client in the same process, and runs the script with this client.
func playMCP(ctx context.Context, defs []bgagent.ToolDef, s *script) (err error) {
	by, _ := bgagent.CallerFrom(ctx)
	server := mcp.NewServer(&mcp.Implementation{Name: "bgagent", Version: "1"}, nil)
	addMCPTools(server, defs, func(*mcp.CallToolRequest) string { return by.Session })

	serverSide, clientSide := mcp.NewInMemoryTransports()
	ss, err := server.Connect(ctx, serverSide, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ss.Wait()) }()
	cs, err := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(ctx, clientSide, nil)
	if err != nil {
		return errors.Join(err, ss.Close())
	}
	defer func() { err = errors.Join(err, cs.Close()) }()

	for t, err := range cs.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		schema, err := json.Marshal(t.InputSchema)
		if err != nil {
			return err
		}
		if err := s.offer(t.Name, t.Description, schema); err != nil {
			return err
		}
	}
	for c, ok := s.begin(), true; ok; {
		r, err := cs.CallTool(ctx, &mcp.CallToolParams{Name: c.name, Arguments: json.RawMessage(c.args)})
		if err != nil {
			return err
		}
		text, isText := r.Content[0].(*mcp.TextContent)
		if !isText {
			return fmt.Errorf("content of type %T", r.Content[0])
		}
		if err := s.flag(r.IsError); err != nil {
			return err
		}
		if c, ok, err = s.answer(c.id, text.Text); err != nil {
			return err
		}
	}
	return s.end(lastWord)
}
