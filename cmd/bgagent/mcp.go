package main

import (
	"context"
	"errors"
	"os"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
)

// mcpCmd is the command "bgagent mcp".
type mcpCmd struct {
	copyFlags
	logFlags
}

// Help implements kong's help provider.
func (mcpCmd) Help() string {
	return `This command is for agent programs that start MCP servers: name "bgagent mcp" as one of them. Their model gets delegate_task, background_output and background_cancel.

When the program goes away, all tasks are cancelled. If this command is killed, the next one in the same directory ends the tasks as interrupted and says so in its first answer; the model can continue them. Problems are reported on standard error. -v also reports launches, starts and ends there, and --log in a file.

Exit codes: 0 the caller ended the connection, or a signal such as Ctrl-C asked the server to end; 1 the connection broke, or an agent program did not end well; 2 invalid input; 130 a second signal ended everything at once.`
}

// stdioScope is the scope of the only caller: the program that started "bgagent mcp".
const stdioScope = "mcp"

// Run implements the subcommand.
func (c *mcpCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	s, err := startServing(all, "mcp", c.copyFlags, c.logFlags, stop)
	if s == nil {
		return err
	}
	s.restore()
	err = s.server.Run(stop.soft, stdioScope, stdio(os.Stdin, os.Stdout))
	if errors.Is(err, context.Canceled) { // a signal has asked the server to stop
		err = nil
	}
	return errors.Join(err, s.end(stop))
}
