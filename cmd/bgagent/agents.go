package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// patience is how long the command "bgagent agents" waits for answers before it names the agents that have
// not answered.
const patience = 3 * time.Second

// agentsCmd is the command "bgagent agents".
type agentsCmd struct{}

// Help implements kong's help provider.
func (agentsCmd) Help() string {
	return `No model is called: programs are asked for their version, agents that speak ACP for a session, and servers for the names of their agents. Logins are not checked: an agent that can start may still be refused by its provider.

Each line is printed when its answer arrives, which can take 30 s.

Exit codes: 0 all agents can start; 1 some cannot; 2 invalid input; 130 interrupted.`
}

// Run implements the subcommand.
func (agentsCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	set, err := all.settings()
	if err != nil {
		return err
	}
	sayFiles(set)
	life := begin("agents", false)
	defer life.end()
	crew, err := fleet.New(set, fleet.Options{Instance: life.id})
	if err != nil {
		return &exitError{exitInput, err}
	}
	defer context.AfterFunc(stop.hard, leave)()
	outside, bad, err := report(os.Stdout, set.Agents, crew.Check(stop.soft))
	closed := crew.Close(stop.hard)
	switch {
	case stop.soft.Err() != nil:
		return &exitError{exitInterrupted, closed}
	case err != nil:
		return fmt.Errorf("writing the list: %w", err)
	case outside:
		warn("logins are not checked, and no model was called")
	}
	switch {
	case closed != nil:
		return fmt.Errorf("ending the agent programs: %w", closed)
	case len(set.Agents) == 0:
		warn(`no agent is configured; write { "agents": { … } } into a configuration file`)
		return &exitError{Code: exitFailed}
	case bad > 0:
		return &exitError{Code: exitFailed}
	}
	return nil
}

// report prints a line for each agent, in the order in which the answers arrive, and names the agents that
// are slow to answer. It returns whether any agent other than a demo agent can start, and how many agents
// cannot start.
func report(w io.Writer, agents []settings.Agent, answers <-chan fleet.Check) (outside bool, bad int, err error) {
	var names, kinds, models int
	var awaited []string
	for _, a := range agents {
		names = max(names, utf8.RuneCountInString(a.Name))
		kinds = max(kinds, utf8.RuneCountInString(kindOf(a)))
		models = max(models, utf8.RuneCountInString(dash(a.Model)))
		awaited = append(awaited, a.Name)
	}
	late := time.After(patience)
	for {
		select {
		case <-late:
			warn("no answer yet from %s", strings.Join(awaited, ", "))
		case c, more := <-answers:
			if !more {
				return outside, bad, err
			}
			awaited = slices.DeleteFunc(awaited, func(name string) bool { return name == c.Agent.Name })
			state := "ok: " + c.Found
			if c.Err != nil {
				bad++
				state = "cannot start: " + c.Err.Error()
			}
			outside = outside || c.Err == nil && c.Agent.Kind != settings.InProc
			if _, e := fmt.Fprintf(w, "%-*s  %-*s  %-*s  %s\n", names, c.Agent.Name, kinds, kindOf(c.Agent), models, dash(c.Agent.Model), cleantext.Line(state)); err == nil {
				err = e
			}
		}
	}
}

func kindOf(a settings.Agent) string {
	if a.Preset != "" {
		return string(a.Kind) + " " + a.Preset
	}
	return string(a.Kind)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
