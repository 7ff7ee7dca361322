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
			switch {
			case s.matches(r, text) || i < len(s.wholes) && !permission.Allows(r) && s.matches(r, s.wholes[i]):
				action = permission.Action(r)
			case s.command && !permission.Allows(r) && action == bgagent.PermissionAllow && isOpaque(text):
				action = bgagent.PermissionAsk
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
	if permission.Allows(r) {
		return s.covers(r.Pattern, actual)
	}
	return s.covers(r.Pattern, told) || s.covers(r.Pattern, actual) || s.within(r.Pattern, told) || s.within(r.Pattern, actual)
}

// covers reports whether the pattern, in one of the forms in which paths are
// written, matches the absolute path.
func (s *subject) covers(pattern, path string) bool {
	forms := []string{pattern, cleanPattern(pattern)}
	if strings.HasSuffix(pattern, "/") { // what is in the folder
		forms = append(forms, cleanPattern(pattern)+"/*")
	}
	if last := forms[len(forms)-1]; filepath.IsAbs(last) {
		forms = append(forms, realPattern(last))
	}
	return slices.ContainsFunc(forms, func(p string) bool {
		return permission.Matches(p, path) || matchesBelow(p, path, s.dir) || matchesBelow(p, path, s.real)
	})
}

// within reports whether the pattern matches a folder that the path is in: one
// below the session's directory, or any when the pattern begins at the root.
func (s *subject) within(pattern, path string) bool {
	anywhere := filepath.IsAbs(cleanPattern(pattern))
	below := func(path, dir string) bool {
		return dir != "" && strings.HasPrefix(path, dir+string(filepath.Separator))
	}
	for up := filepath.Dir(path); up != path; path, up = up, filepath.Dir(up) {
		switch {
		case !anywhere && !below(up, s.dir) && !below(up, s.real):
			return false
		case s.covers(pattern, up):
			return true
		}
	}
	return false
}

// cleanPattern returns the pattern as paths are written once they are cleaned:
// without ./ and //, and with the user's home for ~.
func cleanPattern(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "~"); ok && (rest == "" || rest[0] == '/') {
		if home, err := os.UserHomeDir(); err == nil {
			pattern = home + rest
		}
	}
	return filepath.Clean(pattern)
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
