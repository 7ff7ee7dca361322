//go:build unix

package realagent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// process is a live process.
type process struct {
	pid     int
	command string
}

func (p process) kill() { syscall.Kill(p.pid, syscall.SIGKILL) }

// processesWith returns the processes whose environment has this NAME=VALUE. A
// child inherits it, into whatever process group or session it goes. Zombies have
// no environment and are not among them.
func processesWith(variable string) []process {
	found, _ := filepath.Glob("/proc/[0-9]*/environ")
	var all []process
	for _, file := range found {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00")) {
			continue
		}
		dir := filepath.Dir(file)
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
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
