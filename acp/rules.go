package acp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
	sdk "github.com/coder/acp-go-sdk"
)

// keeps declares how agents are held to rules: by the questions that they ask.
var keeps = permission.All("the agent", permission.Asked)

// subject is what rules are matched against.
type subject struct {
	access  permission.Access
	texts   []string // absolute paths, commands, addresses or a title; none if they are unknown
	wholes  []string // the commands with their shells; only for rules that forbid
	command bool     // texts are commands
	dir     string   // directory of the session
	real    string   // the same with links resolved
}

// accessOf returns the access of a tool call, by the name and the kind of the tool. The
// name may be a title that a model has written. So a name in the vocabulary can narrow
// a kind down, but never replaces one.
func accessOf(name, kind string) permission.Access {
	a := permission.Access{Names: []string{name}}
	if kind != name {
		a.Names = append(a.Names, kind)
	}
	own, known := permission.KindOf(name)
	known = known && name != kind
	is, maybe := kindsOf(sdk.ToolKind(strings.ToLower(kind)))
	switch {
	case known && (is == "" || is.Covers(own)):
		a.Kinds = []permission.Kind{own}
		if own == is && own != permission.Read { // a word such as web does not say which part of it
			a.Maybe = maybe
		}
	case is != "":
		a.Kinds, a.Maybe = []permission.Kind{is}, maybe
		if known {
			a.Kinds = append(a.Kinds, own)
		}
	}
	return a
}

// kindsOf returns the kind of access for a kind of the protocol, and the more exact
// kinds that it may be.
func kindsOf(kind sdk.ToolKind) (is permission.Kind, maybe []permission.Kind) {
	switch kind {
	case sdk.ToolKindRead:
		return permission.Read, []permission.Kind{permission.List}
	case sdk.ToolKindSearch:
		return permission.Search, permission.Search.Parts()
	case sdk.ToolKindFetch:
		return permission.Web, permission.Web.Parts()
	}
	is, _ = permission.KindOf(string(kind))
	return is, nil
}

// ruling returns the decision of the rules. The last rule that matches a text decides
// about it. The subject is denied if one text is denied, and allowed only if all are
// allowed. If the texts are unknown, rulingOnAll decides.
func ruling(rules []bgagent.Permission, s subject) bgagent.PermissionAction {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r bgagent.Permission) bool { return !s.access.Named(r) })
	if len(s.texts) == 0 {
		return rulingOnAll(rules)
	}
	all := bgagent.PermissionAllow
	for i, text := range s.texts {
		action := bgagent.PermissionAsk
		for _, r := range rules {
			if s.matches(r, text) || i < len(s.wholes) && !permission.Allows(r) && s.matches(r, s.wholes[i]) {
				action = permission.Action(r)
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

// rulingOnAll returns the decision about a call with unknown texts. If the call would
// be allowed, a later rule that forbids some texts turns that into a question.
func rulingOnAll(rules []bgagent.Permission) bgagent.PermissionAction {
	action := bgagent.PermissionAsk
	for _, r := range rules {
		switch {
		case permission.ForAll(r):
			action = permission.Action(r)
		case action == bgagent.PermissionAllow && !permission.Allows(r):
			action = bgagent.PermissionAsk
		}
	}
	return action
}

// is reports whether the access is one of the kinds, or part of one.
func (s *subject) is(kinds ...permission.Kind) bool {
	return slices.ContainsFunc(s.access.Kinds, func(k permission.Kind) bool {
		return slices.ContainsFunc(kinds, func(x permission.Kind) bool { return x.Covers(k) })
	})
}

// matches reports whether the rule matches the text. A text may hold several commands,
// and a pattern may match only one of them. So a rule with a pattern never allows such
// a text, and forbids all of it if it matches one command.
func (s *subject) matches(r bgagent.Permission, text string) bool {
	switch {
	case permission.ForAll(r):
		return true
	case !s.command:
		return s.matchesPath(r, text)
	case permission.Allows(r):
		return !isCompound(text) && permission.Matches(r.Pattern, text)
	}
	return slices.ContainsFunc(append(partsOf(text), text), func(c string) bool { return permission.Matches(r.Pattern, c) })
}

// matchesPath reports whether the pattern of a rule matches the text. A path is also
// matched relative to the directory. Paths and rules may contain links. A rule that
// forbids matches if either the given or the real path does; a rule that allows must
// match the real path.
func (s *subject) matchesPath(r bgagent.Permission, text string) bool {
	if !filepath.IsAbs(text) {
		return permission.Matches(r.Pattern, text)
	}
	told := filepath.Clean(text) // so that .. cannot get past a rule
	actual := realPath(text)
	pattern := r.Pattern
	if filepath.IsAbs(pattern) {
		pattern = realPattern(pattern)
	}
	matches := func(path string) bool {
		return permission.Matches(r.Pattern, path) || permission.Matches(pattern, path) ||
			matchesBelow(r.Pattern, path, s.dir) || matchesBelow(r.Pattern, path, s.real)
	}
	if permission.Allows(r) {
		return matches(actual)
	}
	return matches(told) || matches(actual)
}

// matchesBelow reports whether the path is below the directory and the pattern matches
// it relative to that.
func matchesBelow(pattern, path, dir string) bool {
	if dir == "" {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) && permission.Matches(pattern, rel)
}

// realPath returns the path with its links resolved. The end of the path need not
// exist. Parts that cannot be read stay as they are.
func realPath(path string) string {
	const sep = string(filepath.Separator)
	volume := filepath.VolumeName(path)
	done := volume + sep
	for rest, hops := strings.Split(path[len(volume):], sep), 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			done = filepath.Dir(done)
			continue
		}
		next := filepath.Join(done, name)
		to, err := os.Readlink(next)
		if hops++; err != nil || hops > maxLinks {
			done = next
			continue
		}
		if filepath.IsAbs(to) {
			volume = filepath.VolumeName(to)
			done, to = volume+sep, to[len(volume):]
		}
		rest = append(strings.Split(to, sep), rest...)
	}
	return done
}

// maxLinks bounds the steps along a path, because its links may form a cycle.
const maxLinks = 1000

// realPattern returns the pattern with the links resolved in the folders before its
// first wildcard.
func realPattern(pattern string) string {
	i := strings.IndexAny(pattern, "*?[")
	if i < 0 {
		return realPath(pattern)
	}
	i = strings.LastIndexByte(pattern[:i], filepath.Separator) + 1
	return filepath.Join(realPath(pattern[:i]), pattern[i:])
}
