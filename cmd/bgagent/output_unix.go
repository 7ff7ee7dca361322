//go:build unix

package main

import "golang.org/x/sys/unix"

// outputGone reports whether standard output can no longer be read, for example because it is a pipe whose
// reader has exited.
func outputGone() bool {
	fds := []unix.PollFd{{Fd: 1, Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}

// mostConnections is the maximum result of maxConnections.
const mostConnections = 1024

// maxConnections returns the maximum number of connections that "bgagent serve" keeps open: a
// quarter of the number of files that this program is allowed to open, but at least 8 and at most
// mostConnections. The remaining files are for agents, each of which needs up to six.
func maxConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostConnections / 4
	}
	return int(min(max(limit.Cur/4, 8), mostConnections))
}
