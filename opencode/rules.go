package opencode

import (
	"cmp"
	"maps"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// words holds opencode's own names for kinds of access. opencode accepts a rule with
// any other name, but never applies the rule.
var words = map[permission.Kind][]string{
	permission.Read:      {"read"},
	permission.Glob:      {"glob"},
	permission.Grep:      {"grep"},
	permission.List:      {"list"},
	permission.Edit:      {"edit"},
	permission.Bash:      {"bash"},
	permission.WebFetch:  {"webfetch"},
	permission.WebSearch: {"websearch", "codesearch"},
	permission.Task:      {"task"},
	permission.Skill:     {"skill"},
	permission.Todo:      {"todowrite", "todoread"},
	permission.Question:  {"question"},
	permission.Mode:      {"plan_enter", "plan_exit"},
}

// rules returns the permission rules of a session with opencode's names. If several
// rules match, opencode applies the last one.
func (c *Client) rules(list []bgagent.Permission) []wireRule {
	var all []bgagent.Permission
	for _, tool := range slices.Sorted(maps.Keys(c.cfg.Tools)) {
		action := bgagent.PermissionDeny
		if c.cfg.Tools[tool] {
			action = bgagent.PermissionAllow
		}
		all = append(all, bgagent.Permission{Name: tool, Action: action})
	}
	var out []wireRule
	for _, p := range permission.Translate(append(all, list...), words) {
		out = append(out, wireRule{cmp.Or(p.Name, "*"), cmp.Or(p.Pattern, "*"), string(permission.Action(p))})
	}
	return out
}
