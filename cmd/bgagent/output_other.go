//go:build !unix

package main

// outputGone reports false. Systems whose broken pipes send no signal let the write
// fail.
func outputGone() bool { return false }

// maxConnections is how many connections serve accepts at a time.
func maxConnections() int { return 1024 }
