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

type process struct {
	pid     int
	command string
	handle  *os.Process
}

// The method "kill" kills the process. On Linux, the handle ensures that the signal cannot reach
// another process that has been given the PID in the meantime.
func (p process) kill() { p.handle.Kill() }

// processesWith returns the processes that have the given variable (NAME=VALUE) in their
// environment. If folder is not empty, it also returns the processes whose working directory is in
// that folder. Child processes inherit both, even if they change their process group or session.
// The folder is needed because the environment of a process that is just starting cannot be read.
// Zombies are never returned.
func processesWith(variable, folder string) []process {
	found, _ := filepath.Glob("/proc/[0-9]*")
	var all []process
	for _, dir := range found {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		handle, err := os.FindProcess(pid) // opened before the environment is read, so that both belong to the same process
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil {
			handle.Release()
			continue // the process has ended or belongs to another user
		}
		in := bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00"))
		if cwd, err := os.Readlink(filepath.Join(dir, "cwd")); err == nil && folder != "" {
			in = in || cwd == folder || strings.HasPrefix(cwd, folder+"/")
		}
		if !in {
			handle.Release()
			continue
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		all = append(all, process{pid, string(bytes.ReplaceAll(bytes.TrimRight(line, "\x00"), []byte{0}, []byte(" "))), handle})
	}
	return all
}

// The function "watch" starts a process that cleans up if this process dies before it calls the
// returned function. The other process is needed because a test that reaches go test's time limit
// runs no cleanup. To clean up, the other process kills all processes that have the given variable
// (NAME=VALUE) in their environment, and removes the folder.
func watch(variable, folder string) (stop func(), err error) {
	const script = `read -r _
		for dir in /proc/[0-9]*; do
			if grep -qsaF -- "$0" "$dir/environ"; then kill -9 "${dir#/proc/}"; fi
		done
		rm -rf -- "$1"`
	cmd := exec.Command("/bin/sh", "-c", script, variable, folder)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH")}
	ownGroup(cmd)
	alive, err := cmd.StdinPipe() // the system closes the pipe when this process ends
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		killGroup(cmd.Process)
		cmd.Wait()
		alive.Close()
	}, nil
}

// ownGroup makes the command the leader of a new process group.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills the process group of a process. If the process has been reaped, another process group can
// have the same ID, so killGroup returns an error instead.
func killGroup(p *os.Process) error {
	if err := p.Signal(syscall.Signal(0)); err != nil {
		return err
	}
	return syscall.Kill(-p.Pid, syscall.SIGKILL)
}

// The function "terminate" sends SIGTERM to a process.
func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
