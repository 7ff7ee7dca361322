// Package fileerror creates errors about bgagent's files, in the form that the library uses for its
// section of the configuration file.
package fileerror

import (
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonc"
)

// Of returns an error about a place in a file. The text of the problem should say how to correct the file.
// The function Of can be passed to [jsonc.Parse].
func Of(at jsonc.Origin, key, problem string) error {
	return At(bgagent.Origin(at), key, "%s", problem)
}

// At is like [Of], but takes the place as a [bgagent.Origin] and the problem as a
// format string.
func At(at bgagent.Origin, key, format string, args ...any) error {
	return &bgagent.ConfigFileError{File: at.File, Line: at.Line, Column: at.Column, Key: key, Problem: fmt.Sprintf(format, args...)}
}
