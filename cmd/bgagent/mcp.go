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
	viaFlags
}

// Help implements kong's help provider.
func (mcpCmd) Help() string {
	return `This command is for agent programs that start MCP servers: name "bgagent mcp" as one of them. Their model gets delegate_task, background_output and background_cancel, and with "backgroundMessage": true also background_message.

When the program exits, all tasks are cancelled. If this command is killed, the next one in the same directory ends the tasks as interrupted and says so in its first answer; the model can continue them. With --via, the tasks run in a bgagent serve, whose limits apply to all its callers; they continue after the program exits, and the next bridge of the same program in the same directory finds them. The server must accept the directory (serve --root). The project's file can only restrict what the server allows.

Problems are reported on standard error. -v also reports launches, starts and ends there, and --log writes them to a file.

Exit codes: 0 the caller ended the connection, or a signal such as Ctrl-C asked the server to end; 1 the connection broke, or an agent program did not end well; 2 invalid input, or there is no server at --via; 130 a second signal ended everything immediately.`
}

// stdioScope is the scope of the only caller: the program that started "bgagent mcp".
const stdioScope = "mcp"

// Run implements the subcommand.
func (c *mcpCmd) Run(all *cli, stop stops) error {
	switch {
	case c.Via != "" && (c.Log != "" || c.Verbose || c.AcceptCopy):
		return &exitError{exitInput, errors.New("--via runs no tasks here, so --log, --verbose and --accept-copy have no effect; leave them out")}
	case c.Via != "":
		return c.bridge(all, stop)
	case c.TokenFile != "":
		return &exitError{exitInput, errors.New("--token-file is the token for a server; name the server with --via URL, or leave it out")}
	}
	children.Adopt()
	s, err := startServing(all, "mcp", false, "", c.copyFlags, c.logFlags, stop)
	if s == nil {
		return err
	}
	s.restore()
	err = s.server.Run(stop.soft, stdioScope, stdio("standard input", os.Stdin, os.Stdout))
	if errors.Is(err, context.Canceled) { // a signal asked the server to stop
		err = nil
	}
	return errors.Join(err, s.end(stop))
}
