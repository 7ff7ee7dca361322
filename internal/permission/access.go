package permission

import (
	"path"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// Access describes an action of an agent that is checked against the rules.
type Access struct {
	Names []string // the agent's own names for the tool
	Kinds []Kind   // kinds of the action; an allowing rule applies only if it covers all of them
	Maybe []Kind   // further kinds that the action might have; a forbidding rule applies if it covers any of them
}

// Of returns the access for a tool when only its name is known.
func Of(name string) Access {
	a := Access{Names: []string{name}}
	if k, ok := KindOf(name); ok {
		a.Kinds = []Kind{k}
		if k == Search || k == Web { // each of these words covers several tools
			a.Maybe = k.Parts()
		}
	}
	return a
}

// Named reports whether the name of a rule applies to the access. The name of a forbidding rule applies if it
// matches one of Names or covers any kind in Kinds or Maybe. The name of an allowing rule applies only if it
// covers every kind in Kinds or, if there are no Kinds, if it matches one of Names. The caller must check the
// pattern of the rule.
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

// The function "wild" reports whether the pattern matches the name. Case, hyphens and underscores
// are ignored.
func wild(pattern, name string) bool {
	if Wildcard(fold(pattern), fold(name)) {
		return true
	}
	ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(name)) // Wildcard does not support character classes
	return ok && err == nil
}

// Matches reports whether the pattern of a rule matches the text, which is a path, a
// command or an address. An empty pattern matches everything.
func Matches(pattern, text string) bool {
	if pattern == "" || Wildcard(pattern, text) {
		return true
	}
	ok, err := path.Match(pattern, text) // Wildcard does not support character classes
	return ok && err == nil
}

// Wildcard reports whether the pattern matches s. In a pattern, * stands for any number of
// characters, and ? stands for one character. "git *" also matches "git" alone.
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

// Verdict is what the rules decide about kinds of access that a single switch turns on or off. If a
// rule denies an access and a later rule allows part of it, the verdict is still Denied: a switch
// may be stricter than the rules, but must not be less strict.
type Verdict uint8

// The verdicts.
const (
	Unsaid  Verdict = iota // no rule applies
	Allowed                // everything is allowed
	Denied                 // everything is denied
	Partly                 // some patterns are denied
)

// On returns the rules' verdict on the given kinds and all their parts. The second result is the
// rule that forbids them, if there is such a rule. Rules that the host enforces itself are ignored.
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
