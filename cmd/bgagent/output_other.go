//go:build !unix

package main

// outputGone reports false: this system sends no signal for a broken pipe, so the
// write fails.
func outputGone() bool { return false }

// maxConnections is how many connections serve accepts at a time.
func maxConnections() int { return 1024 }
