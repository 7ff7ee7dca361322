package acp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// askingModes are known names of modes that make agents ask before they act, the best
// first.
var askingModes = []string{"default", "ask", "manual", "read-only"}

// freeModes are parts of the names of modes that let agents do some or all things
// without asking.
var freeModes = []string{"bypass", "yolo", "auto", "full", "accept", "dontask", "danger"}

// asksNothing reports whether an agent in this mode acts without asking. An unknown
// mode counts as one that asks.
func asksNothing(mode string) bool {
	mode = strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(mode))
	return slices.ContainsFunc(freeModes, func(part string) bool { return strings.Contains(mode, part) })
}

// modeFor returns the mode for a turn with these rules: the one that the host wants,
// else the agent's own. If rules forbid something and the agent would not ask in that
// mode, it returns a mode that asks, or an error if the host wants the other.
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
	return "", fmt.Errorf("it asks nothing: %w", broken)
}
