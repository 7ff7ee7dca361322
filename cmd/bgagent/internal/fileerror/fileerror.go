// Package fileerror makes the errors about the program's own files, in the form in
// which the library reports those about its section.
package fileerror

import (
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Of returns an error about a place in a file: what is wrong, and what would be
// right. It is what [jsonc.Parse] takes.
func Of(at jsonc.Origin, key, problem string) error {
	return At(bgagent.Origin(at), key, "%s", problem)
}

// At is Of for a place that the library names.
func At(at bgagent.Origin, key, format string, args ...any) error {
	return &bgagent.ConfigFileError{File: at.File, Line: at.Line, Column: at.Column, Key: key, Problem: fmt.Sprintf(format, args...)}
}
