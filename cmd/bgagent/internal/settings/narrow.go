package settings

import (
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fileerror"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Narrowing is the part of a project's file that restricts what a server offers.
type Narrowing struct {
	NoAgents   bool                            // the file removes all agents
	Removed    []string                        // names of the agents that the project's file removes
	Rules      map[string][]bgagent.Permission // maps an agent's name to its rules, if one of them has the action "deny" or "ask"
	TaskBudget bgagent.Budget
	TreeBudget bgagent.Budget
	Unused     []string // keys that do not restrict anything on a server
}

// Narrow reads the part of a file that restricts what a server offers. It checks the whole file, and
// returns the same errors as [Load].
func Narrow(path string) (n Narrowing, err error) {
	s, err := Load(path)
	if err != nil {
		return n, err
	}
	var cfg bgagent.Config
	s.Limits.Apply(&cfg)
	n.TaskBudget, n.TreeBudget = cfg.TaskBudget, cfg.TreeBudget
	for _, limit := range s.Limits.Settings() {
		budget := strings.HasPrefix(limit.Entry, "task.") || strings.HasPrefix(limit.Entry, "tree.")
		if limit.Origin != (bgagent.Origin{}) && !budget && !slices.Contains(n.Unused, limit.Key) {
			n.Unused = append(n.Unused, limit.Key)
		}
	}
	n.Rules = map[string][]bgagent.Permission{}
	for _, a := range s.Agents {
		if slices.ContainsFunc(a.Permissions, func(p bgagent.Permission) bool { return p.Action != bgagent.PermissionAllow }) {
			n.Rules[a.Name] = a.Permissions
		}
	}
	return n, n.removed(path)
}

// The method "removed" finds the agents that the file removes. It reads the file again, because the result of
// Load does not contain these agents.
func (n *Narrowing) removed(path string) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	root, err := jsonc.Parse(path, data, fileerror.Of)
	if err != nil {
		return err
	}
	members, _ := root.Members()
	for _, m := range members {
		if m.Name != "agents" {
			continue
		}
		n.NoAgents = m.Value.IsNull()
		agents, _ := m.Value.Members()
		for _, a := range agents {
			if a.Value.IsNull() {
				n.Removed = append(n.Removed, a.Name)
			}
		}
	}
	return nil
}
