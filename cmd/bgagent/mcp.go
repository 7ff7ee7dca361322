package main

import (
	"context"
	"errors"
	"os"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
)

// mcpCmd is bgagent mcp.
type mcpCmd struct{ logFlags }

// Help implements kong's help provider.
func (mcpCmd) Help() string {
	return `For an agent program that starts MCP servers: name "bgagent mcp" as one of them. Its model gets delegate_task, background_output and background_cancel.

When the program goes away, what runs is stopped. Problems are told on standard error, and what happens with -v, or in the file that --log names.

Exit codes: 0 when the caller has ended the connection, or after Ctrl-C or another signal, which is how a server is asked to end; 1 the connection broke, or an agent program did not end well; 2 wrong input; 130 after a second signal, which ends everything at once.`
}

// stdioScope is the caller's scope: there is one caller, which has started this
// program.
const stdioScope = "mcp"

// Run implements the subcommand.
func (c *mcpCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	s, err := startServing(all, "mcp", c.logFlags)
	if err != nil {
		return err
	}
	err = s.server.Run(stop.soft, stdioScope, stdio(os.Stdin, os.Stdout))
	if errors.Is(err, context.Canceled) { // asked to stop, as it should be
		err = nil
	}
	return errors.Join(err, s.end(stop))
}
