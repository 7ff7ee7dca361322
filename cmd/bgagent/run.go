package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/display"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/jsonc"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
	"github.com/charmbracelet/x/term"
)

// sample is the list that runs when none is named. It takes the demo agents
// only.
//
//go:embed tasks.jsonc
var sample []byte

// runCmd is bgagent run.
type runCmd struct {
	List   string `arg:"" optional:"" help:"File with the tasks, or - for standard input. Without one a sample runs, with demo agents."`
	Output string `short:"o" type:"path" placeholder:"DIR" help:"New or empty folder for the results. Default: bgagent-results-<time> here, with -2 and so on where that is taken; for the sample a temporary one."`
	JSON   bool   `name:"json" xor:"format" help:"Print one JSON object a line."`
	Plain  bool   `xor:"format" help:"Print plain lines even in a terminal, as with NO_COLOR in the environment."`
}

// Help implements kong's help provider.
func (runCmd) Help() string {
	return `A list is JSON with comments: [ { "agent": "codex", "prompt": "…" }, … ]; description, model and directory are optional.
The results go into a folder: one file a task, and index.json.

Ctrl-C cancels what has not ended, waits until nothing of it runs, and writes what there is. Ctrl-C again ends everything at once.

Exit codes: 0 all tasks completed; 1 some did not, or a result or the output could not be written; 2 wrong input; 130 interrupted.`
}

// Run implements the subcommand.
func (c *runCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	set, err := all.settings()
	if err != nil {
		return err
	}
	sayFiles(set)
	if c.List == "" {
		set.Agents = settings.Demo()
	}
	tasks, err := c.tasks(stop.soft, set)
	if err != nil {
		return err
	}
	if err := fits(len(tasks), set); err != nil {
		return &exitError{exitInput, err}
	}
	life := begin("run")
	defer life.end()
	crew, err := fleet.New(set, fleet.Options{Instance: life.id, KeepLogs: true})
	if err != nil {
		return &exitError{exitInput, err}
	}
	r := &runner{stop: stop, tasks: tasks, index: results.Index{Began: time.Now()}}
	return r.run(crew, c.folder, func() display.Display { return c.display(len(tasks)) })
}

// fits refuses a list that is longer than a file allows: the rest of it would
// fail.
func fits(tasks int, set *settings.Settings) error {
	for _, s := range set.Limits.Settings() {
		most, err := strconv.Atoi(s.Value)
		if s.Key == "maxTasksPerRoot" && s.Origin != (bgagent.Origin{}) && err == nil && most > 0 && tasks > most {
			return jsonc.ErrorAt(s.Origin, "background_task."+s.Key, "is %d, but the list has %d tasks; raise it, or divide the list", most, tasks)
		}
	}
	return nil
}

// tasks reads the list. Waiting for standard input ends with the first signal.
func (c *runCmd) tasks(ctx context.Context, set *settings.Settings) ([]tasklist.Task, error) {
	name, base, data := c.List, ".", sample
	switch c.List {
	case "":
		name = "tasks.jsonc"
	case "-":
		name = "standard input"
		in := make(chan error, 1)
		go func() {
			var err error
			data, err = io.ReadAll(io.LimitReader(os.Stdin, tasklist.MaxSize+1))
			in <- err
		}()
		select {
		case err := <-in:
			if err != nil {
				return nil, &exitError{exitInput, fmt.Errorf("reading standard input: %w", err)}
			}
		case <-ctx.Done():
			return nil, &exitError{Code: exitInterrupted}
		}
	default:
		var err error
		base = filepath.Dir(c.List)
		if data, err = readList(c.List); err != nil {
			return nil, &exitError{exitInput, fmt.Errorf("reading the list of tasks: %w", err)}
		}
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return nil, err
	}
	tasks, err := tasklist.Parse(name, data, base, set.Names())
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	return tasks, nil
}

// readList reads no more than a list may have; the parser tells that it is too
// large.
func readList(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, tasklist.MaxSize+1))
}

// folder opens the folder for the results.
func (c *runCmd) folder() (*results.Folder, error) {
	dir := c.Output
	switch {
	case dir != "":
	case c.List == "":
		var err error
		if dir, err = os.MkdirTemp("", "bgagent-results-"); err != nil {
			return nil, fmt.Errorf("making the folder for the results: %w", err)
		}
	default:
		folder, err := results.OpenNew("bgagent-results-" + time.Now().Format("20060102-150405"))
		if err != nil {
			return nil, &exitError{exitInput, err}
		}
		return folder, nil
	}
	folder, err := results.Open(dir)
	if err != nil {
		return nil, &exitError{exitInput, err}
	}
	return folder, nil
}

// display chooses how the tasks are shown.
func (c *runCmd) display(tasks int) display.Display {
	switch {
	case c.JSON:
		return display.NewJSON(os.Stdout)
	case c.Plain, os.Getenv("NO_COLOR") != "", os.Getenv("TERM") == "dumb", !term.IsTerminal(os.Stdout.Fd()):
		return display.NewLines(os.Stdout)
	}
	return display.NewTable(os.Stdout, tasks)
}
