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

// The variable "keeps" states that rules with any name are enforced whenever an agent asks for permission.
var keeps = permission.All("the agent", permission.Asked)

// subject is the part of a tool call against which rules are matched.
type subject struct {
	access  permission.Access
	texts   []string // absolute paths, commands, addresses or a title; empty if they are unknown
	wholes  []string // commands in the field "texts", each with the shell that runs it; used only for rules that forbid
	command bool     // whether the texts are commands
	dir     string   // directory of the session
	real    string   // directory of the session with links resolved
}

// accessOf returns the access that a tool call needs. It uses the tool's name and kind. A known
// name can only narrow down the kind or add a second kind. It never replaces the kind, because the
// name can be a title that a model wrote.
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
		if own == is && own != permission.Read { // a name such as "web" does not show which kind of web access the tool uses
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

// kindsOf returns the kind of access for one of the protocol's tool kinds. It also returns, as
// "maybe", the more specific kinds that the access can have.
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

// ruling returns the decision of the rules. For each text, the last rule that matches it decides. If a
// command does not spell out the names of its programs, each rule that forbids some commands turns
// the permission from an earlier rule into a question. The subject is denied if one text is denied,
// and allowed only if all texts are allowed. If the texts are unknown, rulingOnAll decides.
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

// rulingOnAll returns the decision about a call whose texts are unknown. If a rule allows the
// call and a later rule forbids some of the possible texts, the decision is to ask.
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

// The method "is" reports whether the access has one of the kinds, or a part of one of them.
func (s *subject) is(kinds ...permission.Kind) bool {
	return slices.ContainsFunc(s.access.Kinds, func(k permission.Kind) bool {
		return slices.ContainsFunc(kinds, func(x permission.Kind) bool { return x.Covers(k) })
	})
}

// The method "matches" reports whether the rule matches the text. A text can contain several
// commands. A rule with a pattern never allows a text with several commands. It forbids the
// whole text if the pattern matches one of the commands.
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

// matchesPath reports whether the rule's pattern matches the text. A path is also matched relative
// to the directory. Paths and patterns can contain links. A rule that forbids applies if it matches
// the given path or the real path. A rule that allows applies only if it matches the real path.
func (s *subject) matchesPath(r bgagent.Permission, text string) bool {
	if !filepath.IsAbs(text) {
		return permission.Matches(r.Pattern, text)
	}
	told := filepath.Clean(text) // without this, a path with .. could evade a rule
	actual := realPath(text)
	if permission.Allows(r) {
		return s.covers(r.Pattern, actual)
	}
	return s.covers(r.Pattern, told) || s.covers(r.Pattern, actual) || s.within(r.Pattern, told) || s.within(r.Pattern, actual)
}

// The method "covers" reports whether the pattern matches the absolute path, or matches it
// relative to the session's directory. It also tries the cleaned pattern, and the pattern with
// its links resolved.
func (s *subject) covers(pattern, path string) bool {
	forms := []string{pattern, cleanPattern(pattern)}
	if strings.HasSuffix(pattern, "/") { // the pattern stands for everything in the folder
		forms = append(forms, cleanPattern(pattern)+"/*")
	}
	if last := forms[len(forms)-1]; filepath.IsAbs(last) {
		forms = append(forms, realPattern(last))
	}
	return slices.ContainsFunc(forms, func(p string) bool {
		return permission.Matches(p, path) || matchesBelow(p, path, s.dir) || matchesBelow(p, path, s.real)
	})
}

// The method "within" reports whether the pattern matches a folder that contains the path. If
// the pattern is not absolute, only folders below the session's directory count.
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

// cleanPattern cleans the pattern as if it were a path. The result contains neither ./ nor //, and
// ~ is replaced with the user's home directory.
func cleanPattern(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "~"); ok && (rest == "" || rest[0] == '/') {
		if home, err := os.UserHomeDir(); err == nil {
			pattern = home + rest
		}
	}
	return filepath.Clean(pattern)
}

// matchesBelow reports whether the path is in the directory and the pattern matches the
// path relative to the directory.
func matchesBelow(pattern, path, dir string) bool {
	if dir == "" {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) && permission.Matches(pattern, rel)
}

// realPath returns the path with its links resolved. The file does not have to exist. Parts of the
// path that cannot be read stay unchanged.
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

// maxLinks is the maximum number of steps that realPath takes along a path. The limit is
// needed because links can form a cycle.
const maxLinks = 1000

// realPattern returns the pattern with links resolved in the folders before the first
// wildcard.
func realPattern(pattern string) string {
	i := strings.IndexAny(pattern, "*?[")
	if i < 0 {
		return realPath(pattern)
	}
	i = strings.LastIndexByte(pattern[:i], filepath.Separator) + 1
	return filepath.Join(realPath(pattern[:i]), pattern[i:])
}
