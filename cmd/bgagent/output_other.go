//go:build !unix

package main

// outputGone reports false: where there are no pipes that break with a signal, a
// write fails.
func outputGone() bool { return false }

// maxConnections is how many connections serve takes at a time.
func maxConnections() int { return 1024 }
