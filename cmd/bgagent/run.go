package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/display"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
	"github.com/charmbracelet/x/term"
)

// sample is the list that runs when the command line does not name one. It uses only the demo
// agents.
//
//go:embed tasks.jsonc
var sample []byte

// runCmd is the command "bgagent run".
type runCmd struct {
	List     string `arg:"" optional:"" help:"File with the tasks, or - for standard input. Without it a sample with demo agents runs."`
	Output   string `short:"o" type:"path" placeholder:"DIR" help:"New or empty folder for the results. Default: bgagent-results-<time> here, with -2 and so on if that exists. The sample uses a temporary folder."`
	Resume   string `type:"path" placeholder:"DIR" help:"Continue the tasks that were running or waiting when an earlier run was killed. Tasks whose results are missing or incomplete in its folder run again. Takes no list."`
	FailFast bool   `help:"Cancel all other tasks as soon as one ends without completing."`
	MaxTime  string `placeholder:"TIME" help:"Cancel the tasks that have not ended after this time, such as 90s, 10m or 2h."`
	MaxCost  string `placeholder:"USD" help:"Cancel all tasks when together they have cost this many US dollars, such as 2.50. Agents that report no cost are refused."`
	JSON     bool   `name:"json" xor:"format" help:"Print one JSON object per line."`
	Plain    bool   `xor:"format" help:"Print plain lines even in a terminal, as with NO_COLOR in the environment."`
	Schema   bool   `help:"Print the JSON Schema of a list, and run nothing."`
	copyFlags
}

// Help implements kong's help provider.
func (runCmd) Help() string {
	return `A list is JSON with comments: [ { "agent": "codex", "prompt": "…" }, … ]; description, model and directory are optional, and promptFile names a file to use instead of prompt.
The results go into a folder: one file per task, a log of what its program printed, and index.json.

Ctrl-C cancels all tasks that have not ended, waits until they have stopped, and writes the results so far. A second Ctrl-C ends everything immediately.

Exit codes: 0 all tasks completed; 1 some did not, or a result or the output could not be written; 2 invalid input; 130 interrupted.`
}

// Run implements the subcommand.
func (c *runCmd) Run(all *cli, stop stops) error {
	if c.Schema {
		_, err := os.Stdout.Write(tasklist.Schema)
		return err
	}
	limit, cost, err := c.check()
	if err != nil {
		return &exitError{exitInput, err}
	}
	children.Adopt()
	var set *settings.Settings
	job, err := untilStopped(stop.soft, func() (j *job, err error) {
		set, j, err = c.input(all)
		return j, err
	})
	if errors.Is(err, context.Canceled) {
		return &exitError{Code: exitInterrupted}
	}
	if err != nil {
		return err
	}
	kept := all.keeps() && (c.List != "" || c.Resume != "") // the sample's tasks are not kept
	life := begin("run", kept)
	defer life.end()
	crew, err := fleet.New(set, fleet.Options{Instance: life.id, KeepLogs: true, NobodyAnswers: true, MaxCost: cost})
	if err != nil {
		return errors.Join(&exitError{exitInput, err}, job.close())
	}
	r := &runner{stop: stop, tasks: job.tasks, began: time.Now(), failFast: c.FailFast, maxTime: limit, stale: staleTime(set)}
	r.begin(job)
	r.id, r.copies = life.id, c.copyFlags
	if kept {
		if err := r.keep(all.stateFlags); err != nil {
			return errors.Join(err, job.close())
		}
	}
	r.notify = notify.New(set.Notify, life.id, r.problem)
	return r.run(crew, job.open, func() display.Display { return c.display(len(job.tasks)) })
}

// The method "check" refuses invalid flags and invalid combinations of flags. It returns the limits on how
// long the run can take and how many US dollars it can cost; 0 means no limit.
func (c *runCmd) check() (limit time.Duration, cost float64, err error) {
	var errs []error
	if c.Resume != "" && c.List != "" {
		errs = append(errs, fmt.Errorf("--resume takes no list: %s contains the list that was run; leave %s out", c.Resume, c.List))
	}
	if c.Resume != "" && c.Output != "" {
		errs = append(errs, fmt.Errorf("--resume %s writes into that folder; leave --output out", c.Resume))
	}
	if c.AcceptCopy && c.Resume == "" {
		errs = append(errs, errors.New("--accept-copy needs --resume, because a new run has no kept tasks"))
	}
	if c.MaxTime != "" {
		if limit, err = time.ParseDuration(c.MaxTime); err != nil || limit <= 0 {
			errs = append(errs, fmt.Errorf("--max-time %q is not a time such as 90s, 10m or 2h", c.MaxTime))
		}
	}
	if c.MaxCost != "" {
		if cost, err = strconv.ParseFloat(c.MaxCost, 64); err != nil || !(cost > 0) || cost > 1e9 {
			errs = append(errs, fmt.Errorf("--max-cost %q is not a number of US dollars such as 2.50", c.MaxCost))
		}
	}
	return limit, cost, errors.Join(errs...)
}

// staleTime returns the time after which a silent task is cancelled; 0 means that silent tasks are never
// cancelled.
func staleTime(set *settings.Settings) time.Duration {
	var c bgagent.Config
	set.Limits.Apply(&c)
	return max(cmp.Or(c.StaleTimeout, bgagent.DefaultStaleTimeout), 0)
}

// The function "fits" returns an error if a list has more tasks than the configuration allows.
// Without this check, the tasks beyond the limit would fail.
func fits(tasks int, set *settings.Settings) error {
	for _, s := range set.Limits.Settings() {
		most, err := strconv.Atoi(s.Value)
		if s.Key == "maxTasksPerRoot" && s.Origin != (bgagent.Origin{}) && err == nil && most > 0 && tasks > most {
			return fileerror.At(s.Origin, "background_task."+s.Key, "is %d, but the list has %d tasks; raise it, or divide the list", most, tasks)
		}
	}
	return nil
}

// The method "display" returns the display that the flags, the environment and the kind of standard output
// require.
func (c *runCmd) display(tasks int) display.Display {
	switch {
	case c.JSON:
		return display.NewJSON(os.Stdout)
	case c.Plain, os.Getenv("NO_COLOR") != "", os.Getenv("TERM") == "dumb", !term.IsTerminal(os.Stdout.Fd()):
		return display.NewLines(os.Stdout)
	}
	return display.NewTable(os.Stdout, tasks)
}
