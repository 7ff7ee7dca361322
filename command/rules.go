package command

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// The method "undone" returns an error if the agent's own arguments or variables would undo the
// arguments and variables from the rules.
func (p *Program) undone(ruleArgs, ruleEnv []string, t turnSpec) error {
	for _, e := range ruleEnv {
		name, _, _ := strings.Cut(e, "=")
		if slices.ContainsFunc(t.set, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			return fmt.Errorf("Agent.Env sets %s, through which %s gets the rules of the task; remove it there, and write it as rules", name, p.Executable)
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
				return fmt.Errorf("the agent's arguments have %s, which would undo the rules of the task; remove it there, and write it as rules", strconv.Quote(arg))
			}
		}
	}
	return nil
}

// isThe reports whether arg is the flag, with or without a value.
func isThe(arg, flag string) bool {
	rest, ok := strings.CutPrefix(arg, flag)
	short := !strings.HasPrefix(flag, "--") // a value can follow a short flag without a space or =
	return ok && (rest == "" || rest[0] == '=' || short)
}

// isSetting reports whether the command-line argument arg sets the key, a key above it or a key
// below it. If value is true, a flag for settings precedes arg, and arg is KEY=VALUE or the name of
// a feature. Otherwise, arg counts only if it contains both the flag and its value.
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

// noRules returns a [Program].Rules for a program that cannot enforce rules. The returned function
// refuses every rule that denies or asks.
func noRules(program string) func([]bgagent.Permission) (args, env []string, err error) {
	return func(rules []bgagent.Permission) (args, env []string, err error) {
		return nil, nil, permission.Client{Name: program}.Check(rules)
	}
}

// IgnoreRules is a [Program].Rules that accepts all rules and does not enforce them. Use it for a
// program that cannot do any harm, or if the rules are enforced in another way.
func IgnoreRules([]bgagent.Permission) (args, env []string, err error) { return nil, nil, nil }
