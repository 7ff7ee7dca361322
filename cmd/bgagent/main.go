// Command bgagent runs background agent tasks. It makes the library of the same name
// available as a program.
//
//	bgagent run [tasks.jsonc|-]   runs a list of tasks side by side
//	bgagent agents                lists the agents and checks that each can start
//	bgagent init                  writes a configuration file with the agents on PATH
//	bgagent completion SHELL      prints a script that completes command lines
//	bgagent config                shows the configuration and the origin of each value
//	bgagent mcp                   serves the tools to the program that starts it
//	bgagent serve                 serves the tools over HTTP
//	bgagent status                shows what runs and waits now, and what has failed
//	bgagent tasks                 lists the kept tasks
//	bgagent show ID               prints a kept task
//	bgagent logs [-f] ID          prints what the program of a task has printed
//	bgagent cancel ID             cancels a task of a running serve
//	bgagent resume ID PROMPT      continues a task that has ended, on a running serve
//	bgagent send ID TEXT          sends a message to a task of a running serve
//	bgagent answer ID [KEY] OPTION  answers a question from a task of a running serve
//	bgagent prune [ID]            deletes kept tasks
//	bgagent cleanup               lists or ends the processes that killed runs have left behind
//	bgagent version               prints the version
//
// The program exits with 0 if all went well, 1 if something failed, 2 if the command line or a file is wrong,
// and 130 if it was interrupted. A signal is the normal way to stop "bgagent mcp" and "bgagent serve", so
// after the first signal they exit with 0. A second signal stops them immediately, with exit code 130.
//
// The package kong parses the command line. It was chosen because it does not depend on other modules. Each
// subcommand is a struct with its flags and a Run method.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tty"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// Exit codes.
const (
	exitFailed      = 1
	exitInput       = 2
	exitInterrupted = 130
)

// cli is the command line. A new subcommand needs a file with its struct, and a field
// here.
type cli struct {
	Config  string           `short:"c" placeholder:"FILE" type:"path" help:"Read only this configuration file, not the user's and the project's."`
	Version kong.VersionFlag `help:"Print the version."`
	stateFlags

	Run    runCmd    `cmd:"" help:"Run a list of tasks side by side."`
	Agents agentsCmd `cmd:"" help:"List the agents, and check that each can start."`
	Values configCmd `cmd:"" name:"config" help:"Print the configuration, and where each value comes from."`
	MCP    mcpCmd    `cmd:"" name:"mcp" help:"Serve the tools over MCP to the program that starts this one."`
	Serve  serveCmd  `cmd:"" help:"Serve the tools over MCP on HTTP."`

	Status statusCmd `cmd:"" help:"Show which tasks run and wait now, and which have failed."`
	Tasks  tasksCmd  `cmd:"" help:"List the kept tasks of dead and running commands."`
	Show   showCmd   `cmd:"" help:"Print a task that is kept, with its result."`
	Logs   logsCmd   `cmd:"" help:"Print what the program of a task has printed."`
	Cancel cancelCmd `cmd:"" help:"Cancel a task of a running serve."`
	Resume resumeCmd `cmd:"" help:"Continue a task that has ended, on a running serve."`
	Send   sendCmd   `cmd:"" help:"Send a message to a task of a running serve."`
	Answer answerCmd `cmd:"" help:"Answer a question of a task of a running serve."`
	Prune  pruneCmd  `cmd:"" help:"Delete tasks that are kept, with their prompts and results."`

	Init       initCmd       `cmd:"" help:"Write a configuration file with the agent programs on PATH."`
	Completion completionCmd `cmd:"" help:"Print a script that completes command lines in a shell."`

	Cleanup cleanupCmd `cmd:"" help:"List or end the processes that killed runs of this program have left."`
	About   versionCmd `cmd:"" name:"version" help:"Print the version."`
}

// The method "settings" loads the configuration that the command line asks for. The error reports all
// problems. If there is an error, the settings are returned only if the agents' names are known.
func (c *cli) settings() (*settings.Settings, error) {
	files := []string{c.Config}
	if c.Config == "" {
		var err error
		if files, err = settings.Find("."); err != nil {
			return nil, &exitError{exitInput, err}
		}
	}
	s, err := settings.Load(files...)
	if s != nil {
		// fleet.New does not start anything here. It is called only for its errors, so that all
		// subcommands refuse the same settings.
		_, refused := fleet.New(s, fleet.Options{})
		err = errors.Join(err, refused)
	}
	if err != nil {
		return s, &exitError{exitInput, err}
	}
	for _, text := range limitsOfNobody(s) {
		warn("%s", text)
	}
	for _, k := range s.Limits.Ignored() {
		if k.Key != "" { // empty if the file has no limits, which is not a problem
			warn("%v", k)
		}
	}
	if s.Detected {
		warn("there is no configuration file; %s", found(s))
	}
	return s, nil
}

// limitsOfNobody returns a message for each limit on an agent that does not exist. Such a limit is not an
// error, because the user's file can also apply to other projects with other agents.
func limitsOfNobody(s *settings.Settings) (texts []string) {
	for _, x := range s.Limits.Settings() {
		exists := func(a settings.Agent) bool { return strings.EqualFold(a.Name, x.Entry) }
		if x.Key == "agentConcurrency" && x.Entry != "" && !slices.ContainsFunc(s.Agents, exists) {
			texts = append(texts, fmt.Sprintf("%v: background_task.%s: there is no agent of this name, so the limit has no effect", x.Origin, x.Name()))
		}
	}
	return texts
}

// sayFiles prints the names of the configuration files that were read. The user should see these names,
// because the files name programs that will run, and a file in a parent folder is easily overlooked.
func sayFiles(s *settings.Settings) {
	if len(s.Files) > 0 {
		warn("configuration: %s", strings.Join(s.Files, ", later over earlier: "))
	}
}

// The function "found" returns a sentence that lists the agents that are available without a configuration
// file.
func found(s *settings.Settings) string {
	list := ""
	for _, a := range s.Agents {
		if a.Kind == settings.Command {
			list += ", " + a.Name
		}
	}
	if list == "" {
		return "no agent program was found on PATH (codex, claude, gemini, opencode), so only the demo agents are available"
	}
	return "found on PATH: " + list[2:] + "; the demo agents are available as well"
}

// exitError is an error with an exit code. If Err is nil, everything has been
// reported.
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

// Unwrap returns the error without its exit code.
func (e *exitError) Unwrap() error { return e.Err }

func main() {
	if len(os.Args) == 2 && os.Args[1] == tty.GuardArgument {
		tty.Guard()
		return
	}
	var c cli
	parser := kong.Must(&c,
		kong.Name("bgagent"),
		kong.Description("Background agents: tasks for agents, side by side, within limits."),
		kong.Vars{"version": version()},
		kong.UsageOnError(),
		kong.Writers(&stdout, os.Stderr),
		kong.Exit(func(code int) { os.Exit(max(code, exitCode(stdout.with(nil)))) }), // after --help and --version
	)
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"help"}
	}
	if args[0] == "help" { // many users try this first
		args = append(args[1:], "--help")
	}
	if problem := emptyArgument(args); problem != "" {
		warn("%s", problem)
		os.Exit(exitInput)
	}
	command, err := parser.Parse(args)
	if stdout.err != nil { // the help could not be written
		os.Exit(exitCode(stdout.err))
	}
	if err != nil {
		warn("%s", misread(parser, err))
		os.Exit(exitInput)
	}
	os.Exit(exitCode(stdout.with(command.Run(&c, watchSignals()))))
}

// emptyArgument describes the problem if an argument is empty or has an empty value;
// otherwise it returns "". Such arguments are refused because they usually come from
// a shell variable that is not set.
func emptyArgument(args []string) string {
	for i, a := range args {
		name, value, set := strings.Cut(a, "=")
		switch {
		case strings.HasPrefix(a, "-") && set && value == "":
			return fmt.Sprintf("%s is empty; write a value, or leave it out", name)
		case a == "" && i > 0:
			return fmt.Sprintf("the argument after %s is empty; write a value, or leave it out", args[i-1])
		case a == "":
			return "the name of the command is empty; see bgagent help"
		}
	}
	return ""
}

// The function "misread" describes what is wrong with the command line. It points to the command's help or,
// if no command was named, lists the commands.
func misread(parser *kong.Kong, err error) string {
	text := strings.TrimSuffix(err.Error(), ` but got "EOL" (<EOL>)`)
	if text != err.Error() { // kong's wording for a flag at the end of the command line
		flag, _, _ := strings.Cut(text, ":")
		text = flag + " needs a value"
	}
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		if command := wrong.Context.Selected(); command != nil && command.Type == kong.CommandNode {
			return fmt.Sprintf("%s; see bgagent %s --help", text, command.Name)
		}
	}
	text += "; the commands are\n"
	for _, c := range parser.Model.Children {
		text += fmt.Sprintf("  %-10s %s\n", c.Name, c.Help)
	}
	return text + "see bgagent --help, or bgagent run --help"
}

// exitCode prints an error and returns its exit code.
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

// The function "flat" splits joined errors, so that each error is printed on a separate line.
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

// warn prints a message to standard error. The message can contain text from agents and files, so the
// function "warn" removes escape sequences and control characters.
func warn(format string, args ...any) {
	fmt.Fprintln(os.Stderr, cleantext.String("bgagent: "+fmt.Sprintf(format, args...)))
}

// versionCmd is the command "bgagent version".
type versionCmd struct{}

// Run implements the subcommand.
func (versionCmd) Run() error {
	_, err := fmt.Println(version())
	return err
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "bgagent (unknown version)"
	}
	return "bgagent " + info.Main.Version + " " + info.GoVersion
}
