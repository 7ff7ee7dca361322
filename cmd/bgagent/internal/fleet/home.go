package fleet

import (
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
)

// Home says where the sessions of the agents live, in one line for each agent. If the homes of two
// processes are equal, each of them can continue the sessions of the other. Home returns "" if the
// place is unknown.
//
// A program that a process starts keeps its sessions in the files of its user, which another process can
// use only if it sees the same files. Therefore, the home contains the machine, and the boot and the mount
// namespace on Linux, because the names of containers can be equal. A loopback address is a different
// server on each machine. Agents of the kind inproc keep nothing, so every process can continue them.
func (f *Fleet) Home() string {
	here := machine()
	var lines []string
	for _, a := range f.set.Agents {
		client := f.route[a.Name]
		line := a.Name + " " + client
		if c, ok := f.clients[client].(bgagent.SessionHome); ok {
			at := c.Home()
			if here == "" || at == "" {
				return ""
			}
			line += " " + at
			if !isElsewhere(at) {
				line += " " + here
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// isElsewhere reports whether the home is the address of a server that is the same on all machines.
func isElsewhere(home string) bool {
	u, err := url.Parse(home)
	if err != nil || u.Hostname() == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return !strings.EqualFold(u.Hostname(), "localhost") && (ip == nil || !ip.IsLoopback())
}

// machine identifies the files that this process sees. It returns "" if the machine has no name.
func machine() string {
	home := procs.Home()
	if home == "" {
		return ""
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // exists only on Linux
	mounts, _ := os.Readlink("/proc/self/ns/mnt")
	return strings.Join(strings.Fields(home+" "+string(boot)+" "+mounts), " ")
}
