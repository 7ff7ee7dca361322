// Package rulename checks the names of permission rules. If no tool can have the name in a rule, the rule
// never applies, so the access that the rule is meant to forbid would be allowed.
package rulename

import (
	"fmt"
	"strconv"
	"strings"
)

// Problem describes what is wrong with the name of a rule. It returns "" if the name is
// valid.
func Problem(name string) string {
	if strings.TrimSpace(name) == "" {
		return `has no name; name a tool, a kind of access, or "*"`
	}
	if word, rest, ok := strings.Cut(name, "("); ok {
		pattern := strings.ReplaceAll(strings.TrimSuffix(rest, ")"), ":*", " *")
		return fmt.Sprintf("is named %q; use %q as the name, and %q as the pattern", name, word, pattern)
	}
	for _, r := range name {
		switch {
		case r > '~' || r < ' ':
			return fmt.Sprintf("is named %s, but no tool has %s in its name", strconv.QuoteToASCII(name), strconv.QuoteToASCII(string(r)))
		case strings.ContainsRune(",|;&", r):
			return fmt.Sprintf("is named %q; a rule has one name, so write one rule for each", name)
		case strings.ContainsRune("){}$\"'`<>\\=+", r), r == '^' && !strings.Contains(name, "["), r == '!' && !strings.Contains(name, "["):
			return fmt.Sprintf("is named %q, but no tool has %q in its name; * and ? stand for any characters", name, string(r))
		}
	}
	return ""
}
