//go:build unix

package main

import "golang.org/x/sys/unix"

// outputGone reports whether nobody can read standard output any more.
func outputGone() bool {
	fds := []unix.PollFd{{Fd: 1, Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}

// mostConnections bounds the connections if many files may be open.
const mostConnections = 1024

// maxConnections is how many connections serve accepts at a time: a quarter of the
// files that this program may have open. An agent needs up to six files.
func maxConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostConnections / 4
	}
	return int(min(max(limit.Cur/4, 8), mostConnections))
}
