// Command bgagent runs background agent tasks: the library of the same name as
// one program.
//
//	bgagent run [tasks.jsonc|-]   runs a list of tasks side by side
//	bgagent agents                lists the agents and checks that each can start
//	bgagent config                shows the configuration and where it comes from
//	bgagent mcp                   serves the tools to the program that starts it
//	bgagent serve                 serves them over HTTP
//
// It exits with 0 when all went well, 1 when something did not, 2 when the
// command line or a file is wrong, and 130 when it was interrupted. A signal is
// how mcp and serve are ended, so that they exit with 0 then; with 130 only when
// a second one ends them at once.
//
// The command line is read by kong: a subcommand is a struct with its flags and
// a Run method, so that it is one file and one field here, and kong needs no
// other module.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
)

// Exit codes.
const (
	exitFailed      = 1
	exitInput       = 2
	exitInterrupted = 130
)

// cli is the command line. A further subcommand is one file with its struct, and
// one field here.
type cli struct {
	Config  string           `short:"c" placeholder:"FILE" type:"path" help:"Read only this configuration file, not the user's and the project's."`
	Version kong.VersionFlag `help:"Print the version."`

	Run    runCmd    `cmd:"" help:"Run a list of tasks side by side."`
	Agents agentsCmd `cmd:"" help:"List the agents, and check that each can start."`
	Show   configCmd `cmd:"" name:"config" help:"Print the configuration, and where each value comes from."`
	MCP    mcpCmd    `cmd:"" name:"mcp" help:"Serve the tools over MCP to the program that starts this one."`
	Serve  serveCmd  `cmd:"" help:"Serve the tools over MCP on HTTP."`
}

// settings loads the configuration that the command line asks for.
func (c *cli) settings() (*settings.Settings, error) {
	files := []string{c.Config}
	if c.Config == "" {
		var err error
		if files, err = settings.Find("."); err != nil {
			return nil, &exitError{exitInput, err}
		}
	}
	s, err := settings.Load(files...)
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	// Made for its errors: it starts nothing, and all subcommands refuse the same.
	if _, err := fleet.New(s); err != nil {
		return nil, &exitError{exitInput, err}
	}
	for _, k := range s.Limits.Ignored() {
		if k.Key != "" { // a file of agents need not have limits
			warn("%v", k)
		}
	}
	if s.Detected {
		warn("there is no configuration file; %s", found(s))
	}
	return s, nil
}

// found says which agent programs there are when there is no file.
func found(s *settings.Settings) string {
	list := ""
	for _, a := range s.Agents {
		if a.Kind == settings.Command {
			list += ", " + a.Name
		}
	}
	if list == "" {
		return "no agent program was found on PATH (codex, claude, gemini, opencode), so there are the demo agents only"
	}
	return "found on PATH: " + list[2:] + "; the demo agents are there as well"
}

// exitError is an error with the code to exit with. Without an Err everything
// has been said.
type exitError struct {
	Code int
	Err  error
}

// Error implements error.
func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns what went wrong.
func (e *exitError) Unwrap() error { return e.Err }

func main() {
	var c cli
	parser := kong.Must(&c,
		kong.Name("bgagent"),
		kong.Description("Background agents: tasks for agents, side by side, within limits."),
		kong.Vars{"version": version()},
		kong.UsageOnError(),
	)
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "help" { // what people try first
		args = append(args[1:], "--help")
	}
	command, err := parser.Parse(args)
	if err != nil {
		warn("%s", misread(parser, err))
		os.Exit(exitInput)
	}
	os.Exit(exitCode(command.Run(&c, watchSignals())))
}

// misread says what is wrong with the command line, and where to read on: in the
// help of the command, or, where none was named, in a list of them.
func misread(parser *kong.Kong, err error) string {
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		if command := wrong.Context.Selected(); command != nil && command.Type == kong.CommandNode {
			return fmt.Sprintf("%v; see bgagent %s --help", err, command.Name)
		}
	}
	text := fmt.Sprintf("%v; the commands are\n", err)
	for _, c := range parser.Model.Children {
		text += fmt.Sprintf("  %-8s %s\n", c.Name, c.Help)
	}
	return text + "see bgagent --help, or bgagent run --help"
}

// exitCode reports what went wrong, and returns the code for it.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var e *exitError
	if errors.As(err, &e) {
		code, err = e.Code, e.Err
	}
	for _, one := range flat(err) {
		warn("%v", one)
	}
	if errors.Is(err, context.Canceled) {
		code = exitInterrupted
	}
	return code
}

// flat takes joined errors apart, so that each has a line.
func flat(err error) []error {
	if err == nil {
		return nil
	}
	var file *bgagent.ConfigFileError
	if errors.As(err, &file) && error(file) == err {
		return []error{err}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flat(e)...)
	}
	return out
}

// warn tells the person at the screen something that is no result.
func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bgagent: "+format+"\n", args...)
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "bgagent (unknown version)"
	}
	return "bgagent " + info.Main.Version + " " + info.GoVersion
}
