package main

import (
	"errors"
	"os"
)

// stdout is standard output for the commands that print several lines. It keeps the first error,
// and the function "main" reports it, so that these commands do not need to check every line.
var stdout printed

// The type "printed" is a writer that writes to standard output and keeps the first error.
type printed struct{ err error }

// Write implements [io.Writer].
func (p *printed) Write(b []byte) (int, error) {
	n, err := os.Stdout.Write(b)
	if p.err == nil {
		p.err = err
	}
	return n, err
}

// The method "with" adds the kept error to a command's error, unless that error already contains it.
func (p *printed) with(err error) error {
	if p.err == nil || errors.Is(err, p.err) {
		return err
	}
	return errors.Join(err, p.err)
}
