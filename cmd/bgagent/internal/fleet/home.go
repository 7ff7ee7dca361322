package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/procs"
)

// Home describes where the agents' sessions are kept, in one line for each agent. If two processes have equal
// homes, each can continue the other's sessions. Home returns "" if the place is unknown.
//
// A program that a process starts keeps its sessions in its user's files. Another process can use these
// sessions only if it sees the same files. Therefore, the home contains the name of the machine. On Linux, it
// also contains the boot and the mount namespace, because two containers can have the same name. A local
// address belongs to a different server on each machine, so the home of an agent with such an address also
// contains the machine. Agents of the kind inproc keep nothing, so every process can continue their tasks.
//
// Each line also contains a hash of the agent's settings. Therefore, the homes of two processes differ if
// they run different programs under the same name.
func (f *Fleet) Home() string {
	here := machine()
	var lines []string
	for _, a := range f.set.Agents {
		client := f.route[a.Name]
		line := a.Name + " " + client + " " + hashOf(a)
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

// filesFrom names the variables that decide where programs keep their user's files, apart from the variables
// named by a program's preset. It omits some variables with the prefix XDG_, because they differ between
// logins.
var filesFrom = []string{
	"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "CODEX_HOME", "CLAUDE_CONFIG_DIR", "USERPROFILE", "APPDATA", "LOCALAPPDATA",
}

// hashOf returns a hash of the settings that decide what the agent runs and where. For a local program, they
// include the program's file, its working directory and its variables. The hash does not depend on the values
// of secret variables.
func hashOf(a settings.Agent) string {
	var around []string
	if a.Kind == settings.Command || a.Kind == settings.ACP {
		names, executable := slices.Concat(filesFrom, a.Env), ""
		if a.Kind == settings.Command {
			p := program(a)
			names, executable = append(names, p.Environ...), p.Executable
		}
		if len(a.Command) > 0 {
			executable = a.Command[0]
		}
		around = public(environOf(names))
		slices.Sort(around)
		if path, err := exec.LookPath(executable); err == nil {
			around = append(around, path)
		}
		if here, err := os.Getwd(); err == nil && a.Directory == "" {
			around = append(around, here)
		}
	}
	a.Description, a.Env = "", public(a.Env)
	text, err := json.Marshal([]any{a, around})
	if err != nil {
		panic("fleet: bug: the settings of an agent cannot be written: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// The function "public" returns the entries without the values of secret variables.
func public(env []string) (out []string) {
	for _, v := range env {
		if name, _, _ := strings.Cut(v, "="); isSecret(name) {
			v = name
		}
		out = append(out, v)
	}
	return out
}

// isElsewhere reports whether the home is an address that leads to the same server on all machines. A name
// without a dot is not such an address, because two machines can resolve it differently.
func isElsewhere(home string) bool {
	u, err := url.Parse(home)
	if err != nil {
		return false
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		return !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsLinkLocalUnicast()
	}
	return strings.Contains(host, ".") && !strings.HasSuffix(host, ".localhost") && host != "localhost.localdomain"
}

// machine returns a string that identifies the files that this process sees. The string contains the user's
// id, the name of the machine and, on Linux, the boot and the mount namespace. It is empty if the machine has
// no name.
func machine() string {
	home := procs.Home()
	if home == "" {
		return ""
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // exists only on Linux
	mounts, _ := os.Readlink("/proc/self/ns/mnt")
	return strings.Join(strings.Fields(home+" "+string(boot)+" "+mounts), " ")
}
