package permission

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// Means is how a client enforces rules about a kind of access.
type Means uint8

// The means.
const (
	None     Means = iota // not at all: a rule that denies or asks is refused
	Switch                // the program can switch the whole kind off: a rule for a part is refused
	Patterns              // the program takes rules with patterns
	Asked                 // the agent asks the client first, which answers by the rules
	Handed                // the rule is handed to a server, which enforces it
	Checked               // the agent is a function that checks the rules first
)

// String returns the word for the table in the documents.
func (m Means) String() string {
	return [...]string{"refused", "switch", "patterns", "asked", "handed on", "checked"}[m]
}

// Client declares what a client can hold an agent to.
type Client struct {
	Name string // name of the program in messages

	// Keeps says how rules about a kind are enforced. A kind that is missing is
	// treated like the kind that it is part of.
	Keeps map[Kind]Means

	// Others says how rules with names outside the vocabulary are enforced, such as
	// the tool names of an MCP server.
	Others Means
}

// Means returns how rules about the kind are enforced.
func (c Client) Means(k Kind) Means {
	for ; k != ""; k = lookup(k).within {
		if m, ok := c.Keeps[k]; ok {
			return m
		}
	}
	return None
}

// Check returns an error that names the first rule that the client cannot enforce, or
// nil. It ignores rules that a later rule takes back and rules that the host enforces
// itself.
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
		return c.Cannot("a tool that it does not know", r)
	}
	return nil
}

// Cannot returns the error for a rule that cannot be enforced. what names the thing that
// the agent cannot be kept from.
func (c Client) Cannot(what string, by bgagent.Permission) error {
	rule := by.Name
	if !ForAll(by) {
		rule += " " + by.Pattern
	}
	return fmt.Errorf("%s cannot be kept from %s, as the rule %s (%s) requires; remove the rule, or use another agent", c.Name, what, strconv.Quote(rule), Action(by))
}

// Translate returns the rules in the words of a server, with one rule for each word
// that the server has for a kind. If the server has no word for a kind, a rule that
// forbids it uses the word for the kind that it is part of, and a rule that allows it
// is dropped. Rules with names outside the vocabulary, rules for all names, and rules
// that the host enforces itself stay as they are.
func Translate(rules []bgagent.Permission, words map[Kind][]string) (out []bgagent.Permission) {
	for _, r := range rules {
		kinds := Named(r)
		if r.Kept || forAllNames(r) || len(kinds) == 0 {
			out = append(out, r)
			continue
		}
		var names []string
		if strings.ContainsAny(r.Name, "*?") {
			names = append(names, r.Name) // for tools that only the server knows
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

// wordsFor returns the words for a kind and its parts. If there are none and the rule
// forbids, it returns the words for the kind that this one is part of.
func wordsFor(k Kind, words map[Kind][]string, allow bool) (list []string) {
	for _, part := range k.Parts() {
		list = append(list, words[part]...)
	}
	for up := k; len(list) == 0 && !allow && up != ""; up = lookup(up).within {
		list = words[up]
	}
	return list
}

// Header returns the header of the table of clients in the documents.
func Header() string {
	cells := make([]string, 0, len(vocabulary))
	for _, e := range vocabulary {
		if !e.minor {
			cells = append(cells, "`"+string(e.kind)+"`")
		}
	}
	return "| | " + strings.Join(cells, " | ") + " | any other name |"
}

// Row returns the client's row in that table, under the given name.
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

// All returns the declaration of a client that enforces rules of every name in the
// same way.
func All(name string, m Means) Client {
	c := Client{Name: name, Keeps: map[Kind]Means{}, Others: m}
	for _, k := range topKinds() {
		c.Keeps[k] = m
	}
	return c
}
