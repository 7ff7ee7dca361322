package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/procs"
)

const (
	// DepthVariable is the environment variable that contains the depth of the program's task. A
	// task of a root session has depth 1. If the host itself was started with the variable, the
	// host's own depth is added. A program that uses this library can compute its Config.MaxDepth
	// from the variable.
	DepthVariable = procs.DepthVariable

	// TurnVariable is the environment variable that marks all processes of one turn, so that they
	// can be terminated with the turn. Its value has no other meaning. If a process must outlive
	// the turn, the program must start the process without the variable.
	TurnVariable = procs.TurnVariable

	// InstanceVariable is the environment variable that contains the Config.Instance of the host to
	// which a process belongs, so that processes of a killed host can be found and terminated. If
	// the manager has a store, the value also contains the manager's id, after a slash. A host that
	// runs inside a turn of another host appends its own instance after a slash, because its
	// processes belong to both hosts.
	InstanceVariable = procs.InstanceVariable
)

// DefaultEnviron returns the names of the host's environment variables that every program gets if
// they are set. They are variables for paths, language, time zone, proxies and certificates. None
// of them contains a key or a token. A name that ends with * stands for all names with that prefix.
func DefaultEnviron() []string { return slices.Clone(defaultEnviron) }

var defaultEnviron = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LC_*", "XDG_*",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
	// Windows programs do not start without some of these variables.
	"SystemRoot", "SystemDrive", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "ProgramData", "ProgramFiles*",
}

// environ returns a program's environment: the host's variables whose names match an entry in
// "through", plus the variables that the lists in "set" define. If a variable is set twice, the
// later value wins.
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

// splitEnv splits the entries of an Agent.Env into names of variables to pass on and entries that
// set variables.
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
		if err := procs.CheckEnv(e); err != nil {
			return fmt.Errorf("%s %w", "Env", err)
		}
	}
	return nil
}
