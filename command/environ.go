package command

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/procs"
)

const (
	// DepthVariable is the environment variable that tells a program how deep
	// the task is that it works for: 1 for a task of a root session. When the
	// host was itself started with it, its own depth is added, so that a program
	// that uses this library can set its Config.MaxDepth by it.
	DepthVariable = procs.DepthVariable

	// TurnVariable is the environment variable that marks all processes of one
	// turn, so that none is left when it is over. Its value means nothing to
	// others. A program that wants a process to outlive the turn must start it
	// without the variable.
	TurnVariable = procs.TurnVariable

	// InstanceVariable is the environment variable that names the life of a host
	// that a process belongs to: all processes of all its turns have its
	// Config.Instance, so that what a host has left that was killed can be found
	// and ended. A host that runs in a turn of another's puts its own behind the
	// other's, with a slash between them: the processes belong to both.
	InstanceVariable = procs.InstanceVariable
)

// DefaultEnviron returns the names of the variables of the host's environment
// that every program is given when they are set: where things are, the language
// and the time zone, proxies and certificates. A name that ends with * stands
// for all that begin so. Nothing that is meant for a key or a token is among
// them.
func DefaultEnviron() []string { return slices.Clone(defaultEnviron) }

var defaultEnviron = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "XDG_*",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
	// Windows programs do not start without some of these.
	"SystemRoot", "SystemDrive", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles*",
}

// environ puts an environment together: what is let through of the host's, then
// what is set. Later entries win.
func environ(host []string, through []string, set ...[]string) []string {
	var env []string
	for _, kv := range host {
		if name, _, ok := strings.Cut(kv, "="); ok && !procs.IsMark(name) && lets(through, name) {
			env = append(env, kv)
		}
	}
	for _, list := range set {
		for _, kv := range list {
			name, _, _ := strings.Cut(kv, "=")
			env = slices.DeleteFunc(env, func(x string) bool { return strings.HasPrefix(x, name+"=") })
			env = append(env, kv)
		}
	}
	return env
}

func lets(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		prefix, all := strings.CutSuffix(n, "*")
		return n == name || all && strings.HasPrefix(name, prefix)
	})
}

// splitEnv tells the entries of an Agent.Env that let variables through from
// those that set them.
func splitEnv(list []string) (through, set []string) {
	for _, e := range list {
		if strings.Contains(e, "=") {
			set = append(set, e)
		} else {
			through = append(through, e)
		}
	}
	return through, set
}

func checkEnv(list []string) error {
	for _, e := range list {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case name == "" || strings.IndexByte(e, 0) >= 0:
			return errors.New("Env has " + strconv.Quote(e) + "; it must be NAME=value, or NAME to pass on the host's")
		case procs.IsMark(name):
			return errors.New("Env sets " + name + ", which the client sets itself")
		}
	}
	return nil
}
