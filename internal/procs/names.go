package procs

import (
	"fmt"
	"strings"
	"unicode"
)

// CheckEnv returns an error if an entry in a list of environment variables is probably a mistake that would
// otherwise go unnoticed. Entries have the form NAME, NAME* or NAME=value.
func CheckEnv(entry string) error {
	name, _, sets := strings.Cut(entry, "=")
	stem := name
	if !sets {
		stem = strings.TrimSuffix(name, "*")
	}
	switch {
	case name == "" || strings.IndexByte(entry, 0) >= 0:
		return fmt.Errorf("has %q; write NAME=value, or NAME or NAME* to pass on the host's values", entry)
	case IsMark(name):
		return fmt.Errorf("sets %s, which the client sets itself; remove it", name)
	case strings.Contains(stem, "*"):
		return fmt.Errorf("has %q, but * can only be the end of a NAME without a value; name the variables one by one", name)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("has %q, but names of variables have no blanks or control characters; remove them", name)
	}
	return nil
}
