package acp

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// subject is what rules are asked about.
type subject struct {
	names   []string // of the tool, and of its kind
	texts   []string // absolute paths, a command, or a title; none when the files are not known
	command bool     // it is a command for a shell
	dir     string   // of the session
}

// ruling returns what the rules say: for each text the last rule that matches
// decides. All must be allowed, and one that is denied is enough. What is not
// known is not allowed while a rule is about some of it only.
func ruling(rules []bgagent.Permission, s subject) bgagent.PermissionAction {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r bgagent.Permission) bool { return !s.named(r.Name) })
	if len(s.texts) == 0 {
		return rulingOnAll(rules)
	}
	all := bgagent.PermissionAllow
	for _, text := range s.texts {
		action := bgagent.PermissionAsk
		for _, r := range rules {
			if s.matches(r, text) {
				action = r.Action
			}
		}
		switch action {
		case bgagent.PermissionDeny:
			return bgagent.PermissionDeny
		case bgagent.PermissionAllow:
		default:
			all = bgagent.PermissionAsk
		}
	}
	return all
}

// rulingOnAll returns what the rules say about what may be anything: a rule for
// some of it makes an allowed call one to ask about.
func rulingOnAll(rules []bgagent.Permission) bgagent.PermissionAction {
	action := bgagent.PermissionAsk
	for _, r := range rules {
		switch {
		case isAll(r.Pattern):
			action = r.Action
		case action == bgagent.PermissionAllow && r.Action != bgagent.PermissionAllow:
			action = bgagent.PermissionAsk
		}
	}
	return action
}

func isAll(pattern string) bool { return pattern == "" || pattern == "*" }

// named reports whether a rule of this name is about the tool. To delete and to
// move a file is to edit it, for rules on editing, though not the other way
// round.
func (s *subject) named(rule string) bool {
	if rule == "*" {
		return true
	}
	rule = alias(rule)
	return slices.ContainsFunc(s.names, func(n string) bool {
		if n = alias(n); n == "" {
			return false
		}
		edits := n == string(sdk.ToolKindDelete) || n == string(sdk.ToolKindMove)
		return rule == n || edits && rule == string(sdk.ToolKindEdit)
	})
}

// has reports whether the tool is of one of the kinds.
func (s *subject) has(kinds ...sdk.ToolKind) bool {
	return slices.ContainsFunc(s.names, func(n string) bool { return slices.Contains(kinds, sdk.ToolKind(alias(n))) })
}

// ofFiles reports whether the tool works on files.
func (s *subject) ofFiles() bool {
	return s.has(sdk.ToolKindRead, sdk.ToolKindEdit, sdk.ToolKindDelete, sdk.ToolKindMove, sdk.ToolKindSearch)
}

// alias returns the protocol's kind for the names that hosts use for it, in lower
// case.
func alias(name string) string {
	name = strings.ToLower(name)
	switch name {
	case "bash", "shell":
		return string(sdk.ToolKindExecute)
	case "write", "patch", "multiedit":
		return string(sdk.ToolKindEdit)
	case "webfetch":
		return string(sdk.ToolKindFetch)
	}
	return name
}

// matches reports whether the rule matches the text. Of a command that may be
// several, allowing one says nothing of the others: a pattern allows none of
// them, and forbids all when it matches one.
func (s *subject) matches(r bgagent.Permission, text string) bool {
	if isAll(r.Pattern) {
		return true
	}
	if !s.command || !isCompound(text) {
		return matches(r.Pattern, text, s.dir)
	}
	return r.Action != bgagent.PermissionAllow &&
		(wildcard(r.Pattern, text) || slices.ContainsFunc(commands(text), func(c string) bool { return wildcard(r.Pattern, c) }))
}

// joints are the characters by which a shell is given more than one command, or a
// file to write to. Inside quotation marks they are not, which is not looked at:
// to take a command for more than it is does no harm.
const joints = ";|&\n\r`<>"

// isCompound reports whether a shell might run more than the one command.
func isCompound(command string) bool {
	return strings.ContainsAny(command, joints) || strings.Contains(command, "$(")
}

// commands returns the parts of a command of which each might be one.
func commands(text string) []string {
	parts := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(joints+"(){}", r) })
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
	}
	return parts
}

// matches reports whether the pattern matches the subject: as it is, and, when
// it is a path, relative to the directory. A * stands for any characters, a ? for
// one.
func matches(pattern, subject, dir string) bool {
	if filepath.IsAbs(subject) {
		subject = filepath.Clean(subject) // no .. gets past a rule
		if rel, err := filepath.Rel(dir, subject); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) && wildcard(pattern, rel) {
			return true
		}
	}
	return wildcard(pattern, subject)
}

// wildcard matches s with a pattern of characters, * and ?.
func wildcard(pattern, s string) bool {
	p, star, mark, i := 0, -1, 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark, p = p, i, p+1
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
