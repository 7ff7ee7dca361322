//go:build !unix

package main

// outputGone always reports false. It is called after the signal SIGPIPE, but on systems other than Unix, a
// broken pipe does not cause a signal.
func outputGone() bool { return false }

// maxConnections returns the maximum number of connections that "bgagent serve" keeps open.
func maxConnections() int { return 1024 }
