package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
)

// agentsCmd is bgagent agents.
type agentsCmd struct{}

// Help implements kong's help provider.
func (agentsCmd) Help() string {
	return `No model is called: programs are asked for their version, agents that speak ACP for a session, servers for the names of their agents.

Exit codes: 0 all agents can start; 1 some cannot; 2 wrong input; 130 interrupted.`
}

// Run implements the subcommand.
func (agentsCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	set, err := all.settings()
	if err != nil {
		return err
	}
	crew, err := fleet.New(set)
	if err != nil {
		return &exitError{exitInput, err}
	}
	defer context.AfterFunc(stop.hard, leave)()
	checks := crew.Check(stop.soft)
	closed := crew.Close(stop.hard)
	if stop.soft.Err() != nil {
		return &exitError{exitInterrupted, closed}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	bad := 0
	for _, c := range checks {
		state := "ok: " + c.Found
		if c.Err != nil {
			bad++
			state = "cannot start: " + strings.Join(strings.Fields(c.Err.Error()), " ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Agent.Name, kindOf(c.Agent), dash(c.Agent.Model), state)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	switch {
	case closed != nil:
		return fmt.Errorf("ending the agent programs: %w", closed)
	case len(checks) == 0:
		warn(`no agent is configured; write { "agents": { … } } into a configuration file`)
		return &exitError{Code: exitFailed}
	case bad > 0:
		return &exitError{Code: exitFailed}
	}
	return nil
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
