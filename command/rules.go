package command

import (
	"fmt"
	"path"
	"strconv"

	"github.com/bgagent/bgagent"
)

// Kinds of access that rules speak of, by the names that agents give their
// tools. A rule with another name is about a tool that these programs do not
// have, and says nothing to them.
var (
	readNames  = []string{"read", "glob", "grep", "list"}
	editNames  = []string{"edit", "write", "patch", "multiedit"}
	shellNames = []string{"bash", "shell"}
	webNames   = []string{"webfetch", "websearch"}
)

// verdict is what the rules say about one kind of access. A program that can
// only be told yes or no is told no when something was denied and later allowed
// in part: stricter than the rules, never looser.
type verdict uint8

const (
	unsaid verdict = iota // no rule is about it
	allowed
	denied
	partly // allowed, but for some patterns
)

// verdictOn returns what the rules say about tools of these names. "Ask" is no:
// nobody is there to be asked.
func verdictOn(rules []bgagent.Permission, names []string) (v verdict, by bgagent.Permission) {
	for _, r := range rules {
		if !matchesAny(r.Name, names) {
			continue
		}
		switch all, yes := r.Pattern == "*" || r.Pattern == "", r.Action == bgagent.PermissionAllow; {
		case all && yes:
			v = allowed
		case all:
			v, by = denied, r
		case !yes && v != denied:
			v, by = partly, r
		}
	}
	return v, by
}

func matchesAny(pattern string, names []string) bool {
	for _, name := range names {
		if pattern == name || pattern == "*" {
			return true
		}
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// cannot is the error for a rule that a program cannot be held to.
func cannot(program, what string, by bgagent.Permission) error {
	rule := by.Name
	if by.Pattern != "" && by.Pattern != "*" {
		rule += " " + by.Pattern
	}
	return fmt.Errorf("%s cannot be kept from %s, as the rule %s %s asks; take the rule out, or use another agent", program, what, strconv.Quote(rule), by.Action)
}

// noRules is for programs that cannot be told any rules.
func noRules(program string) func([]bgagent.Permission) (args, env []string, err error) {
	return func(rules []bgagent.Permission) (args, env []string, err error) {
		for _, kind := range []struct {
			what  string
			names []string
		}{{"reading", readNames}, {"editing", editNames}, {"running commands", shellNames}, {"the web", webNames}} {
			if v, by := verdictOn(rules, kind.names); v == denied || v == partly {
				return nil, nil, cannot(program, kind.what, by)
			}
		}
		return nil, nil, nil
	}
}

// IgnoreRules is a [Program].Rules for a program that is harmless whatever the
// rules are, or that is held to them by other means.
func IgnoreRules([]bgagent.Permission) (args, env []string, err error) { return nil, nil, nil }
