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

// cleanupCmd is bgagent cleanup.
type cleanupCmd struct {
	Yes bool `help:"End the processes. Without it they are only listed."`
}

// Help implements kong's help provider.
func (cleanupCmd) Help() string {
	return `When bgagent is killed, the programs of its agents go on. This lists them, and with --yes ends them; the next run, mcp, serve or agents of yours ends them by itself. Nothing else is touched: not what belongs to a bgagent that still runs, to another user, or to no bgagent.

Exit codes: 0 nothing is left, or it has been listed or ended; 1 something could not be looked at or ended.`
}

// leftGrace is how long the processes of a dead run may take to end by themselves.
const leftGrace = 2 * time.Second

// Run implements the subcommand.
func (c cleanupCmd) Run() error {
	dir, err := runs.Dir()
	if err != nil {
		return err
	}
	left, problems := runs.Find(dir)
	if len(left) == 0 && len(problems) == 0 {
		fmt.Println("nothing is left of runs that were killed")
	}
	for _, l := range left {
		if !c.Yes {
			fmt.Println(cleantext.Line(l.String()) + " was killed and has left")
			for _, p := range l.Processes {
				fmt.Println("  " + cleantext.Line(p.String()))
			}
			problems = append(problems, l.Leave())
			continue
		}
		text, err := end(l)
		if text != "" {
			fmt.Println(cleantext.Line(text))
		}
		problems = append(problems, err)
	}
	if len(left) > 0 && !c.Yes {
		fmt.Println("bgagent cleanup --yes ends them")
	}
	return errors.Join(problems...)
}

// end ends what a dead run has left, and says what that was.
func end(l runs.Left) (string, error) {
	ended, err := l.End(leftGrace)
	if err != nil {
		err = fmt.Errorf("%v: %w", l, err)
	}
	if len(ended) == 0 {
		return "", err
	}
	return fmt.Sprintf("ended what %v had left when it was killed: %s", l, list(ended)), err
}

// list names processes.
func list(all []procs.Process) string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}

// life is what the programs of this run's agents are known by once it was killed.
type life struct {
	id  string
	run *runs.Run // nil where it could not be noted
}

// begin ends what dead runs have left, and notes this one. What does not succeed
// is said, and keeps nobody from working.
func begin(command string) life {
	l := life{id: runs.NewID()}
	dir, err := runs.Dir()
	if err == nil {
		endDead(dir)
		l.run, err = runs.Begin(dir, l.id, runs.Here(command))
	}
	if err != nil {
		warn("this run cannot be noted (%v): if it is killed, nobody finds what it leaves", err)
	}
	return l
}

// end takes the note back.
func (l life) end() {
	if err := l.run.Close(); err != nil && !errors.Is(err, os.ErrNotExist) {
		warn("taking back the note of this run: %v", err)
	}
}

// endDead ends what dead runs have left, side by side.
func endDead(dir string) {
	left, problems := runs.Find(dir)
	for _, p := range problems {
		if !errors.Is(p, errors.ErrUnsupported) {
			warn("looking for what runs have left that were killed: %v", p)
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
