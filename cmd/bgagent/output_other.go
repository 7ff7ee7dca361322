//go:build !unix

package main

// outputGone reports false: where there are no pipes that break with a signal, a
// write fails.
func outputGone() bool { return false }
