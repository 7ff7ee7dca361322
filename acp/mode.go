package acp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// askingModes are known names of modes that make agents ask before they act. The first mode
// is preferred.
var askingModes = []string{"default", "ask", "manual", "read-only"}

// freeModes lists parts of mode names. If the name of a mode contains one of them, the mode lets an
// agent do some or all things without asking.
var freeModes = []string{"bypass", "yolo", "auto", "full", "accept", "dontask", "danger"}

// asksNothing reports whether an agent in this mode does some or all things without
// asking. It reports false for an unknown mode.
func asksNothing(mode string) bool {
	mode = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(mode))
	return slices.ContainsFunc(freeModes, func(part string) bool { return strings.Contains(mode, part) })
}

// modeFor returns the mode for a turn with these rules: the mode that the host wants, or the
// agent's own mode if the host does not name one. If the rules forbid something and the agent does
// not ask in its own mode, modeFor returns a mode that makes it ask. If the agent has no such mode,
// or does not ask in the mode that the host wants, modeFor returns an error.
func (ch *choice) modeFor(wanted string, rules []bgagent.Permission) (string, error) {
	mode := wanted
	if mode == "" {
		mode = ch.own
	}
	if !asksNothing(mode) {
		return mode, nil
	}
	broken := permission.All("an agent in the mode "+mode, permission.None).Check(rules)
	if broken == nil {
		return mode, nil
	}
	for _, asking := range askingModes {
		if i := slices.IndexFunc(ch.known, func(m string) bool { return strings.EqualFold(m, asking) }); i >= 0 && wanted == "" {
			return ch.known[i], nil
		}
	}
	return "", fmt.Errorf("it never asks for permission: %w", broken)
}
