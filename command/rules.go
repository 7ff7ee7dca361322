package command

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

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

// undone returns an error if the agent is called in a way that would undo what
// the rules have become.
func (p *Program) undone(ruleArgs, ruleEnv []string, t turnSpec) error {
	for _, e := range ruleEnv {
		name, _, _ := strings.Cut(e, "=")
		if slices.ContainsFunc(t.set, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			return fmt.Errorf("Agent.Env sets %s, in which %s is told the rules of the task; take it out there, and say it in rules", name, p.Executable)
		}
	}
	if len(ruleArgs)+len(ruleEnv) == 0 {
		return nil
	}
	args := slices.Concat(t.before, t.args)
	for i, arg := range args {
		value := i > 0 && (args[i-1] == "-c" || args[i-1] == "--config" || args[i-1] == "--enable" || args[i-1] == "--disable")
		for _, o := range p.Overrides {
			if isFlag := strings.HasPrefix(o, "-"); isFlag && !value && isThe(arg, o) || !isFlag && isSetting(arg, o, value) {
				return fmt.Errorf("the agent's arguments have %s, which would undo the rules of the task; take it out there, and say it in rules", strconv.Quote(arg))
			}
		}
	}
	return nil
}

// isThe reports whether an argument is the flag, alone or with its value.
func isThe(arg, flag string) bool {
	rest, ok := strings.CutPrefix(arg, flag)
	short := !strings.HasPrefix(flag, "--") // its value may follow without a sign
	return ok && (rest == "" || rest[0] == '=' || short)
}

// isSetting reports whether an argument sets the key, one above it or one below
// it: as KEY=VALUE after a flag, with that flag in one argument, or as the name of
// a feature.
func isSetting(arg, key string, value bool) bool {
	for _, prefix := range []string{"--config=", "--enable=", "--disable=", "-c"} {
		if rest, ok := strings.CutPrefix(arg, prefix); ok && !value {
			arg, value = strings.TrimPrefix(rest, "="), true
		}
	}
	name, _, _ := strings.Cut(arg, "=")
	name = strings.TrimSpace(name)
	return value && name != "" && (name == key || strings.HasPrefix(name, key+".") || strings.HasPrefix(key, name+".") || strings.HasSuffix(key, "."+name))
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
