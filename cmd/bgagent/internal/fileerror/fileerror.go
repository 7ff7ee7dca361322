// Package fileerror makes errors about the program's own files, in the form that the
// library uses for its section.
package fileerror

import (
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Of returns an error about a place in a file. It says what is wrong and what would
// be right. [jsonc.Parse] takes it.
func Of(at jsonc.Origin, key, problem string) error {
	return At(bgagent.Origin(at), key, "%s", problem)
}

// At is Of for a place as the library names it.
func At(at bgagent.Origin, key, format string, args ...any) error {
	return &bgagent.ConfigFileError{File: at.File, Line: at.Line, Column: at.Column, Key: key, Problem: fmt.Sprintf(format, args...)}
}
