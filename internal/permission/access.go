package permission

import (
	"path"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// Access is something that an agent is about to do, as far as that is known.
type Access struct {
	Names []string // the agent's own names of the tool
	Kinds []Kind   // what it is; for all of them a rule must allow it
	Maybe []Kind   // what it may be besides: a rule against one of them is enough
}

// Of returns the access of a tool by its name alone.
func Of(name string) Access {
	a := Access{Names: []string{name}}
	if k, ok := KindOf(name); ok {
		a.Kinds = []Kind{k}
		if k == Search || k == Web { // words for several tools
			a.Maybe = k.Parts()
		}
	}
	return a
}

// Named reports whether a rule is about the access, by its name; the pattern is
// for the caller to look at. A rule that forbids is when it may be, one that
// allows only when it is about all that the access is known to be.
func (a Access) Named(r bgagent.Permission) bool {
	if r.Name == "" {
		return false
	}
	all, kinds := forAllNames(r), Named(r)
	covered := func(k Kind) bool {
		return all || slices.ContainsFunc(kinds, func(x Kind) bool { return x.Covers(k) })
	}
	called := all || slices.ContainsFunc(a.Names, func(n string) bool { return n != "" && wild(r.Name, n) })
	if Allows(r) {
		if len(a.Kinds) == 0 {
			return called
		}
		return !slices.ContainsFunc(a.Kinds, func(k Kind) bool { return !covered(k) })
	}
	return called || slices.ContainsFunc(a.Kinds, covered) || slices.ContainsFunc(a.Maybe, covered)
}

// wild matches a name with a pattern, in whatever case and with whatever hyphens
// both are written.
func wild(pattern, name string) bool {
	if Wildcard(fold(pattern), fold(name)) {
		return true
	}
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(name)) // classes of characters
	return ok && err == nil
}

// Matches reports whether the pattern of a rule matches the text: a path, a
// command, an address. An empty pattern matches all.
func Matches(pattern, text string) bool {
	if pattern == "" || Wildcard(pattern, text) {
		return true
	}
	ok, err := path.Match(pattern, text) // classes of characters
	return ok && err == nil
}

// Wildcard matches s with a pattern of characters, * for any of them and ? for
// one. "git *" is also for "git" alone.
func Wildcard(pattern, s string) bool {
	if command, ok := strings.CutSuffix(pattern, " *"); ok && wildcard(command, s) {
		return true
	}
	return wildcard(pattern, s)
}

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

// Verdict is what the rules say about kinds of access that have one switch. A
// program that can only be told yes or no is told no when something was denied
// and later allowed in part: stricter than the rules, never looser.
type Verdict uint8

// The verdicts.
const (
	Unsaid  Verdict = iota // no rule is about it
	Allowed                // all of it
	Denied
	Partly // not said or allowed, but for some patterns
)

// On returns what the rules say about the kinds taken together, with their
// parts, and the rule that forbids when there is one. Rules that the host keeps
// itself are left out.
func On(rules []bgagent.Permission, kinds ...Kind) (v Verdict, by bgagent.Permission) {
	var parts []Kind
	for _, k := range kinds {
		parts = append(parts, k.Parts()...)
	}
	all := Access{Kinds: kinds, Maybe: parts}
	for _, r := range rules {
		if r.Kept || !all.Named(r) {
			continue
		}
		switch forAll, yes := ForAll(r), Allows(r); {
		case forAll && yes:
			v, by = Allowed, bgagent.Permission{}
		case forAll:
			v, by = Denied, r
		case !yes && v != Denied:
			v, by = Partly, r
		}
	}
	return v, by
}
