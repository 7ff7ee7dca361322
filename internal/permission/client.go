package permission

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// Means is how a client keeps rules about a kind of access.
type Means uint8

// The means.
const (
	None     Means = iota // not at all: a rule that denies, or asks, is refused
	Switch                // the program has a switch for all of it: a rule for a part is refused
	Patterns              // the program takes rules with patterns
	Asked                 // the client is asked before it is done, and answers by the rules
	Handed                // the rule is handed to a server, which keeps it
	Checked               // the agent is a function that asks before it does it
)

// String returns the word for the table in the documents.
func (m Means) String() string {
	return [...]string{"refused", "switch", "patterns", "asked", "handed on", "checked"}[m]
}

// Client declares what a client can hold an agent to.
type Client struct {
	Name string // of the program, for messages

	// Keeps has how rules about a kind are kept. For a kind that is missing, that
	// which it is part of counts.
	Keeps map[Kind]Means

	// Others is how rules are kept whose names are not in the vocabulary, such as
	// the names of the tools of an MCP server.
	Others Means
}

// Means returns how rules about the kind are kept.
func (c Client) Means(k Kind) Means {
	for ; k != ""; k = lookup(k).within {
		if m, ok := c.Keeps[k]; ok {
			return m
		}
	}
	return None
}

// Check returns an error that names the first rule that the client cannot hold
// the agent to, or nil. A rule that a later one takes back, and one that the host
// keeps itself, need not be kept.
func (c Client) Check(rules []bgagent.Permission) error {
	for _, e := range vocabulary {
		v, by := On(rules, e.kind)
		if v != Denied && v != Partly || e.minor && forAllNames(by) {
			continue
		}
		switch m := c.Means(e.kind); {
		case m == None:
			return c.Cannot(e.what, by)
		case m == Switch && v == Partly:
			return c.Cannot(e.some, by)
		}
	}
	return c.checkOthers(rules)
}

// checkOthers checks the rules with names that are not in the vocabulary.
func (c Client) checkOthers(rules []bgagent.Permission) error {
	if c.Others >= Patterns {
		return nil
	}
	for i, r := range rules {
		if r.Kept || Allows(r) || len(Named(r)) > 0 {
			continue
		}
		back := func(later bgagent.Permission) bool {
			return Allows(later) && ForAll(later) && (forAllNames(later) || fold(later.Name) == fold(r.Name))
		}
		if slices.ContainsFunc(rules[i+1:], back) || c.Others == Switch && ForAll(r) {
			continue
		}
		return c.Cannot("what it does not know by that name", r)
	}
	return nil
}

// Cannot is the error for a rule that an agent cannot be held to; what says what
// it would have to be kept from.
func (c Client) Cannot(what string, by bgagent.Permission) error {
	rule := by.Name
	if !ForAll(by) {
		rule += " " + by.Pattern
	}
	return fmt.Errorf("%s cannot be kept from %s, as the rule %s %s asks; take the rule out, or use another agent", c.Name, what, strconv.Quote(rule), Action(by))
}

// Translate returns the rules in the words of a server, each kind by all the
// words that the server has for it. A kind without a word is forbidden by that
// which it is part of, and not allowed at all. Names that are not in the
// vocabulary, rules for all, and those that the host keeps stay as they are.
func Translate(rules []bgagent.Permission, words map[Kind][]string) (out []bgagent.Permission) {
	for _, r := range rules {
		kinds := Named(r)
		if r.Kept || forAllNames(r) || len(kinds) == 0 {
			out = append(out, r)
			continue
		}
		var names []string
		if strings.ContainsAny(r.Name, "*?") {
			names = append(names, r.Name) // tools that only the server knows
		}
		for _, k := range kinds {
			names = append(names, wordsFor(k, words, Allows(r))...)
		}
		for i, name := range names {
			if slices.Contains(names[:i], name) {
				continue
			}
			one := r
			one.Name = name
			out = append(out, one)
		}
	}
	return out
}

// wordsFor returns the words for a kind and its parts.
func wordsFor(k Kind, words map[Kind][]string, allow bool) (list []string) {
	for _, part := range k.Parts() {
		list = append(list, words[part]...)
	}
	for up := k; len(list) == 0 && !allow && up != ""; up = lookup(up).within {
		list = words[up]
	}
	return list
}

// Header returns the head of the table of clients in the documents, and Row the
// row of one.
func Header() string {
	cells := make([]string, 0, len(vocabulary))
	for _, e := range vocabulary {
		if !e.minor {
			cells = append(cells, "`"+string(e.kind)+"`")
		}
	}
	return "| | " + strings.Join(cells, " | ") + " | any other name |"
}

// Row returns the client's row of the table in the documents, under this name.
func (c Client) Row(name string) string {
	var cells []string
	for _, e := range vocabulary {
		if !e.minor {
			cells = append(cells, c.Means(e.kind).String())
		}
	}
	return "| " + name + " | " + strings.Join(cells, " | ") + " | " + c.Others.String() + " |"
}

// Words returns the table of the vocabulary for the documents.
func Words() (rows []string) {
	for _, e := range vocabulary {
		var parts []string
		for _, p := range e.kind.Parts()[1:] {
			parts = append(parts, "`"+string(p)+"`")
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", e.kind, e.words, strings.Join(parts, ", ")))
	}
	return rows
}

// All returns the declaration of a client that keeps rules of every name in one
// way.
func All(name string, m Means) Client {
	c := Client{Name: name, Keeps: map[Kind]Means{}, Others: m}
	for _, k := range topKinds() {
		c.Keeps[k] = m
	}
	return c
}
