package permission

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// Means describes how a client enforces rules about a kind of access.
type Means uint8

// The means.
const (
	None     Means = iota // rules cannot be enforced, so rules with the action "deny" or "ask" are refused
	Switch                // the program can only switch off a whole kind of access, so rules with patterns are refused
	Patterns              // the program accepts rules with patterns
	Asked                 // the agent asks the client for permission before each access, and the client applies the rules
	Handed                // the client passes the rules to a server, which enforces them
	Checked               // the agent is a Go function that checks the rules before each access
)

// String returns the word for m in the table in docs/clients.md.
func (m Means) String() string {
	return [...]string{"refused", "switch", "patterns", "asked", "handed on", "checked"}[m]
}

// Client declares which rules a client can enforce.
type Client struct {
	Name string // name of the program in messages

	// Keeps defines how rules about each kind are enforced. A missing kind is treated like the
	// kind that contains it.
	Keeps map[Kind]Means

	// Others defines how rules are enforced if their names are not in the vocabulary. Examples
	// are rules for the tools of an MCP server.
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

// Check returns an error if the client cannot enforce a rule. The error names the first such
// rule. Check ignores rules that a later rule revokes, and rules that the host enforces itself.
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

// Cannot returns the error for a rule that the client cannot enforce. The parameter "what"
// describes the access that the client cannot prevent.
func (c Client) Cannot(what string, by bgagent.Permission) error {
	rule := by.Name
	if !ForAll(by) {
		rule += " " + by.Pattern
	}
	return fmt.Errorf("%s cannot be kept from %s, as the rule %s (%s) requires; remove the rule, or use another agent", c.Name, what, strconv.Quote(rule), Action(by))
}

// Translate returns the rules in a server's words. For each rule about a kind, it returns one
// rule for each word that the server has for that kind. If the server has no word for the
// kind, a rule that forbids the kind gets the word for the kind that contains it, and a rule
// that allows the kind is dropped. Rules with names outside the vocabulary, rules for all
// names, and rules that the host enforces itself are left unchanged.
func Translate(rules []bgagent.Permission, words map[Kind][]string) (out []bgagent.Permission) {
	for _, r := range rules {
		kinds := Named(r)
		if r.Kept || forAllNames(r) || len(kinds) == 0 {
			out = append(out, r)
			continue
		}
		var names []string
		if strings.ContainsAny(r.Name, "*?") {
			names = append(names, r.Name) // the pattern may also match tools that only the server knows
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

// wordsFor returns the server's words for a kind and its parts. If the server has no such
// words and the rule forbids the kind, wordsFor returns the words for the nearest kind that
// contains k and has words.
func wordsFor(k Kind, words map[Kind][]string, allow bool) (list []string) {
	for _, part := range k.Parts() {
		list = append(list, words[part]...)
	}
	for up := k; len(list) == 0 && !allow && up != ""; up = lookup(up).within {
		list = words[up]
	}
	return list
}

// Header returns the header of the client table in the documents.
func Header() string {
	cells := make([]string, 0, len(vocabulary))
	for _, e := range vocabulary {
		if !e.minor {
			cells = append(cells, "`"+string(e.kind)+"`")
		}
	}
	return "| | " + strings.Join(cells, " | ") + " | any other name |"
}

// Row returns the client's row in the client table. The first cell of the row is the given name.
func (c Client) Row(name string) string {
	var cells []string
	for _, e := range vocabulary {
		if !e.minor {
			cells = append(cells, c.Means(e.kind).String())
		}
	}
	return "| " + name + " | " + strings.Join(cells, " | ") + " | " + c.Others.String() + " |"
}

// Words returns the rows of the vocabulary table in the documents.
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

// All returns the declaration of a client that uses m to enforce the rules for all names.
func All(name string, m Means) Client {
	c := Client{Name: name, Keeps: map[Kind]Means{}, Others: m}
	for _, k := range topKinds() {
		c.Keeps[k] = m
	}
	return c
}
