package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/runs"
	"github.com/bgagent/bgagent/internal/cleantext"
	"github.com/bgagent/bgagent/internal/procs"
)

// cleanupCmd is the command "bgagent cleanup".
type cleanupCmd struct {
	Yes bool `help:"End the processes. Without this flag, they are only listed."`
}

// Help implements kong's help provider.
func (cleanupCmd) Help() string {
	return `If bgagent is killed, the programs of its agents keep running. This command lists them and, with --yes, ends them. Your next run, mcp, serve or agents command ends them as well. It never touches processes of a bgagent that still runs, of another user, or of other programs.

Exit codes: 0 nothing is left, or what is left was listed or ended; 1 something could not be examined or ended.`
}

// leftGrace is how long the processes of a dead run are given to exit on their own.
const leftGrace = 2 * time.Second

// Run implements the subcommand.
func (c cleanupCmd) Run() error {
	dir, err := runs.Dir()
	if err != nil {
		return err
	}
	left, problems := runs.Find(dir)
	if len(left) == 0 && len(problems) == 0 {
		fmt.Fprintln(&stdout, "no processes of killed runs are left")
	}
	for _, l := range left {
		if !c.Yes {
			fmt.Fprintln(&stdout, cleantext.Line(l.String())+" was killed and has left these processes:")
			for _, p := range l.Processes {
				fmt.Fprintln(&stdout, "  "+cleantext.Line(p.String()))
			}
			problems = append(problems, l.Leave())
			continue
		}
		text, err := end(l)
		if text != "" {
			fmt.Fprintln(&stdout, cleantext.Line(text))
		}
		problems = append(problems, err)
	}
	if len(left) > 0 && !c.Yes {
		fmt.Fprintln(&stdout, "bgagent cleanup --yes ends them")
	}
	return errors.Join(problems...)
}

// The function "end" terminates the processes that a dead run left behind. It returns a message that names
// the run and the processes. If no process was terminated, the message is empty.
func end(l runs.Left) (string, error) {
	grace := leftGrace
	if l.Info.Kept {
		// The next process might continue the sessions of these programs, so the programs are killed
		// immediately. If a program were asked to exit, it could first change its session or send another
		// request to its model.
		grace = 0
	}
	ended, err := l.End(grace)
	if err != nil {
		err = fmt.Errorf("%v: %w", l, err)
	}
	if len(ended) == 0 {
		return "", err
	}
	return fmt.Sprintf("ended the processes of %v, which was killed: %s", l, list(ended)), err
}

// The function "list" joins the descriptions of the processes.
func list(all []procs.Process) string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}

// life holds the id and the record of this run. If the run is killed, its agents' programs can be
// found by this id.
type life struct {
	id  string
	run *runs.Run // nil if this run could not be recorded
}

// The function "begin" terminates the processes that dead runs left behind, and records this run. If kept is
// true, this run's tasks are kept. Failures are printed as warnings, and the command continues.
func begin(command string, kept bool) life {
	l := life{id: runs.NewID()}
	dir, err := runs.Dir()
	if err == nil {
		endDead(dir)
		info := runs.Here(command)
		info.Kept = kept
		l.run, err = runs.Begin(dir, l.id, info)
	}
	if err != nil {
		warn("this run cannot be recorded (%v): if it is killed, the processes that it leaves cannot be found", err)
	}
	return l
}

// The method "end" removes this run's record.
func (l life) end() {
	if err := l.run.Close(); err != nil && !errors.Is(err, os.ErrNotExist) {
		warn("removing the record of this run: %v", err)
	}
}

// endDead terminates the processes that dead runs left behind. It handles all dead runs
// concurrently.
func endDead(dir string) {
	left, problems := runs.Find(dir)
	for _, p := range problems {
		if !errors.Is(p, errors.ErrUnsupported) {
			warn("looking for processes of killed runs: %v", p)
		}
	}
	var all sync.WaitGroup
	for _, l := range left {
		all.Go(func() {
			text, err := end(l)
			if text != "" {
				warn("%s", text)
			}
			if err != nil {
				warn("%v", err)
			}
		})
	}
	all.Wait()
}
