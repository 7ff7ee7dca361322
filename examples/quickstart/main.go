// Command quickstart runs a typical scene of background tasks on a real Go module, without a model
// or a network. It gives three agents more tasks than there are slots, cancels one task, gets the
// notices and reads the results. Then it runs the same tasks one after another and compares the
// times. With -v, it also prints the text that a model would read, and asks one agent a follow-up
// question.
//
//	go run ./examples/quickstart [-v] [-dir DIR] [-find WORDS] [-limit N] [-plain] [-timeout D]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/examples/quickstart/internal/agents"
	"github.com/charmbracelet/x/term"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // an error occurred, or the timeout expired
	exitUsage       = 2 // the command line is invalid
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills the program
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options holds the settings from the command line.
type options struct {
	dir     string // top directory of the module
	find    string
	limit   int
	plain   bool
	verbose bool // whether to print the text that a model would read
	timeout time.Duration
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return exitUsage
	}
	timed, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err = play(timed, o, stdout)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "quickstart: interrupted; "+stopped(err))
		return exitInterrupted
	case timed.Err() != nil:
		fmt.Fprintf(stderr, "quickstart: not done after %v; %s (a longer -timeout gives it more time)\n", o.timeout, stopped(err))
		return exitFailed
	default:
		fmt.Fprintf(stderr, "quickstart: %v\n", err)
		return exitFailed
	}
}

// The function "stopped" describes the tasks that were still running; err is the error that the
// function "play" returned.
func stopped(err error) string {
	var c *bgagent.CloseError
	if errors.As(err, &c) && len(c.NotStopped) > 0 {
		return "these cancelled tasks did not stop: " + strings.Join(c.NotStopped, ", ")
	}
	return "the tasks that were still running have been cancelled"
}

// The function "parse" parses the command line. Its errors describe what a valid command line looks
// like.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.dir, "dir", ".", "a `directory` of the Go module to work on")
	flags.StringVar(&o.find, "find", "session", "the `words` whose implementation explore looks for")
	flags.IntVar(&o.limit, "limit", 3, "how many tasks run side by side, 1 or more")
	flags.BoolVar(&o.plain, "plain", false, "plain lines even in a terminal, as with NO_COLOR in the environment")
	flags.BoolVar(&o.verbose, "v", false, "show every change of a task, and everything that a model reads")
	flags.DurationVar(&o.timeout, "timeout", 5*time.Minute, "time limit for the whole program")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(stderr)
			fmt.Fprintln(stderr, "Usage: quickstart [flags]")
			flags.PrintDefaults()
		}
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("there are no arguments besides the flags, but %q was given; a module is named with -dir", flags.Arg(0))
	case o.limit < 1:
		return o, fmt.Errorf("-limit is %d, but at least one task must be able to run; give 1 or more", o.limit)
	case o.timeout <= 0:
		return o, fmt.Errorf("-timeout is %v, but it must be positive; for example, give 5m", o.timeout)
	}
	o.find = strings.ReplaceAll(o.find, `"`, " ")
	if len(agents.Words(quoted(o.find))) == 0 {
		return o, fmt.Errorf("-find is %q, which contains no words to look for; give words such as session or authentication", o.find)
	}
	var err error
	o.dir, err = agents.FindModule(o.dir)
	return o, err
}

func quoted(s string) string { return `"` + s + `"` }

// The function "live" reports whether w is a terminal on which a display can be redrawn.
func live(o options, w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && !o.plain && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(f.Fd())
}
