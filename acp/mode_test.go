package acp

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestRulesPutAnAgentIntoAModeThatAsks(t *testing.T) {
	deny := []bgagent.Permission{{Name: "*", Pattern: "*", Action: bgagent.PermissionDeny}}
	kept := []bgagent.Permission{{Name: "delegate_task", Pattern: "*", Action: bgagent.PermissionDeny, Kept: true}}
	claude := []string{"auto", "default", "acceptEdits", "plan", "bypassPermissions"}
	for name, test := range map[string]struct {
		own, wanted string
		known       []string
		rules       []bgagent.Permission
		want        string // expected mode; empty if the turn is refused
	}{
		"no rules":                 {"bypassPermissions", "", claude, nil, "bypassPermissions"},
		"a rule of the host's own": {"auto", "", claude, kept, "auto"},
		"claude":                   {"bypassPermissions", "", claude, deny, "default"},
		"codex":                    {"auto", "", []string{"read-only", "auto", "full-access"}, deny, "read-only"},
		"qwen":                     {"yolo", "", []string{"plan", "default", "auto-edit", "yolo"}, deny, "default"},
		"it asks already":          {"default", "", claude, deny, "default"},
		"nobody knows":             {"build", "", []string{"build", "plan"}, deny, "build"},
		"no mode":                  {"", "", nil, deny, "none"},
		"wanted":                   {"default", "acceptEdits", claude, deny, ""},
		"none is offered":          {"yolo", "", []string{"yolo"}, deny, ""},
	} {
		ch := choice{own: test.own, known: test.known}
		got, err := ch.modeFor(test.wanted, test.rules)
		switch test.want {
		case "":
			require.ErrorContains(t, err, `cannot be kept from reading, as the rule "*" (deny) requires`, name)
		case "none":
			require.NoError(t, err, name)
			require.Empty(t, got, name)
		default:
			require.NoError(t, err, name)
			require.Equal(t, test.want, got, name)
		}
	}
}
