package procs

import (
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Spec describes a program to start.
type Spec struct {
	Command []string // program and arguments; a name without a slash is looked up in PATH
	Dir     string   // working directory; empty means the directory of this process
	Env     []string // environment without the marks; Marks override entries in Env
	Marks   Marks

	// Standard files of the program. Nil means the null device. The caller must close the files.
	Stdin, Stdout, Stderr *os.File
}

// Program is a started program. On Unix, it leads its own session without a terminal, so it cannot block on a
// terminal, and keys typed in a terminal send it neither input nor signals.
//
// [Program.Finish] must be called for every started program. All methods are safe for
// concurrent use.
type Program struct {
	cmd    *exec.Cmd
	turn   string
	exited chan struct{}

	mu   sync.Mutex
	over bool // whether the program was reaped; if so, another process may have its PID
}

// Start starts the program that s describes.
func Start(s Spec) (*Program, error) {
	p := &Program{cmd: exec.Command(s.Command[0], s.Command[1:]...), turn: s.Marks.Turn, exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = s.Dir, append(slices.Clone(s.Env), s.Marks.Environ()...)
	// A nil *os.File must not be assigned to the fields of cmd, because the interface value would then not be
	// nil. Stdout and Stderr are files, so Wait waits only for the exit.
	if s.Stdin != nil {
		p.cmd.Stdin = s.Stdin
	}
	if s.Stdout != nil {
		p.cmd.Stdout = s.Stdout
	}
	if s.Stderr != nil {
		p.cmd.Stderr = s.Stderr
	}
	ownSession(p.cmd)
	if err := running.start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.await()
		close(p.exited)
	}()
	return p, nil
}

// PID returns the process ID of the program.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Exited returns a channel that is closed when the program itself has exited. The processes
// that the program has started may still be running.
func (p *Program) Exited() <-chan struct{} { return p.exited }

// Stop sends the program the signal, or SIGTERM if the signal is nil, and kills the program after the grace
// period. If the grace period is 0, Stop kills the program immediately. It returns when the program has
// exited.
func (p *Program) Stop(sig os.Signal, grace time.Duration) {
	select {
	case <-p.exited:
		return
	default:
	}
	if grace > 0 && p.ask(sig) {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.exited:
			return
		case <-timer.C:
		}
	}
	p.kill()
	<-p.exited
}

// Finish waits for the program to exit and then terminates the remaining processes that the program has
// started. It asks them to terminate, and kills them after the grace period. If the grace period is 0, it
// kills them immediately. On Linux, Finish terminates the processes in the program's session and all
// processes with the turn's mark in their environment. On other Unix systems, it terminates the processes
// in the program's process group. On other systems, it does not terminate any other process. The error
// reports processes that could not be terminated.
func (p *Program) Finish(grace time.Duration) error {
	<-p.exited
	err := p.endRest(grace)
	p.release()
	return err
}

// reap waits for the program to exit and removes it from the process table.
func (p *Program) reap() {
	_ = p.cmd.Wait() // the result is in ProcessState
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// State returns the exit state of the program. It is valid after Finish.
func (p *Program) State() *os.ProcessState { return p.cmd.ProcessState }
