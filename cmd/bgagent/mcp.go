package main

import (
	"context"
	"errors"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// mcpCmd is bgagent mcp.
type mcpCmd struct{}

// Help implements kong's help provider.
func (mcpCmd) Help() string {
	return `For an agent program that starts MCP servers: name "bgagent mcp" as one of them. Its model gets delegate_task, background_output and background_cancel.

When the program goes away, what runs is stopped. Problems are told on standard error.`
}

// stdioScope is the caller's scope: there is one caller, which has started this
// program.
const stdioScope = "mcp"

// Run implements the subcommand.
func (mcpCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	s, err := startServing(all)
	if err != nil {
		return err
	}
	err = s.server.Run(stop.soft, stdioScope, &mcp.StdioTransport{})
	if errors.Is(err, context.Canceled) { // asked to stop, as it should be
		err = nil
	}
	return errors.Join(err, s.end(stop))
}
