package procs

import (
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Spec says how a program is started.
type Spec struct {
	Command []string // the program and its arguments; a name without a slash is looked up in PATH
	Dir     string   // the working directory; empty means that of this process
	Env     []string // its whole environment except the marks, which override entries here
	Marks   Marks

	// Its files; nil means the null device. The caller closes them.
	Stdin, Stdout, Stderr *os.File
}

// Program is a program that has been started. On Unix, it leads a session of its
// own, so it has no terminal: it does not hang on one, hears nothing that is
// typed there, and ends when it is told to.
//
// [Program.Finish] must be called when it has exited. All methods are safe for
// concurrent use.
type Program struct {
	cmd    *exec.Cmd
	turn   string
	exited chan struct{}

	mu   sync.Mutex
	over bool // it was reaped: another process may have its number
}

// Start starts a program.
func Start(s Spec) (*Program, error) {
	p := &Program{cmd: exec.Command(s.Command[0], s.Command[1:]...), turn: s.Marks.Turn, exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = s.Dir, append(slices.Clone(s.Env), s.Marks.Environ()...)
	// A nil *os.File in an interface would not be nil. With files instead of other
	// writers, Wait waits only for the program's exit.
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

// PID returns the number of the program's process.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the program itself has exited. The processes that it has
// started may still run.
func (p *Program) Exited() <-chan struct{} { return p.exited }

// Stop sends sig to the program, or SIGTERM if sig is nil, and kills the program
// after the grace time. If that is 0, it kills at once. It returns when the
// program has exited.
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

// Finish waits for the program's exit and ends the processes that it has left: it
// asks them to end and kills them after the grace time. If that is 0, it kills at
// once. On Linux, these are the processes in the program's session and those with
// the mark of its turn in their environment. Elsewhere, they are the processes in
// its process group. The error names those that could not be ended.
func (p *Program) Finish(grace time.Duration) error {
	<-p.exited
	err := p.endRest(grace)
	p.release()
	return err
}

// reap waits for the program's exit and removes it from the table of processes.
func (p *Program) reap() {
	_ = p.cmd.Wait() // ProcessState holds the result
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// State returns how the program ended. It is valid after Finish.
func (p *Program) State() *os.ProcessState { return p.cmd.ProcessState }
