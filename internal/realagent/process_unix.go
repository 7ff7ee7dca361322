//go:build unix

package realagent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// process is a live process.
type process struct {
	pid     int
	command string
}

func (p process) kill() { syscall.Kill(p.pid, syscall.SIGKILL) }

// processesWith returns the processes whose environment has this NAME=VALUE, or
// whose working directory is in a folder, unless that is "". A child inherits both,
// into whatever process group or session it goes; one that is just being started
// has its directory before its environment can be read. Zombies have neither.
func processesWith(variable, folder string) []process {
	found, _ := filepath.Glob("/proc/[0-9]*")
	var all []process
	for _, dir := range found {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil {
			continue // it has ended, or is another user's
		}
		in := bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00"))
		if cwd, err := os.Readlink(filepath.Join(dir, "cwd")); err == nil && folder != "" {
			in = in || cwd == folder || strings.HasPrefix(cwd, folder+"/")
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !in {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		all = append(all, process{pid, string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte(" ")))})
	}
	return all
}

// ownGroup makes the command the leader of a process group.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup ends a process group at once.
func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// terminate asks a process to end.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
