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
	Command []string // the program, looked up in PATH when it is no path, and its arguments
	Dir     string   // where it runs; empty means here
	Env     []string // all of its environment but the marks, which replace what is here of them
	Marks   Marks

	// Its files; nil means the null device. They stay the caller's to close.
	Stdin, Stdout, Stderr *os.File
}

// Program is a program that has been started. It is the first of a session of
// its own where there are such things, so that it has no terminal to hang on: it
// does not hear what is typed there either, and ends when it is told to.
//
// [Program.Finish] must be called when it has exited. All methods are safe for
// concurrent use.
type Program struct {
	cmd    *exec.Cmd
	turn   string
	exited chan struct{}

	mu   sync.Mutex
	over bool // it was waited for: its number may be another's
}

// Start starts a program.
func Start(s Spec) (*Program, error) {
	p := &Program{cmd: exec.Command(s.Command[0], s.Command[1:]...), turn: s.Marks.Turn, exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = s.Dir, append(slices.Clone(s.Env), s.Marks.Environ()...)
	// A nil *os.File in an interface would not be nil. With files, and not with
	// other writers, waiting for the program waits for nothing but its exit.
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

// PID is the number of the program's process.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the program itself has exited. What it has started may
// still run.
func (p *Program) Exited() <-chan struct{} { return p.exited }

// Stop asks the program to end, with the signal, or with SIGTERM when that is
// nil; it kills it after the grace time, at once when that is 0. It returns when
// the program has exited.
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

// Finish ends what the program has left running, once it has exited: it is asked
// to end, and killed after the grace time, at once when that is 0. On Linux that
// is all that is in the program's session or has the mark of its turn in its
// environment, elsewhere what is in its process group. The error names what
// could not be ended.
func (p *Program) Finish(grace time.Duration) error {
	<-p.exited
	err := p.endRest(grace)
	p.release()
	return err
}

// reap waits for the program's exit and takes it out of the table of processes.
func (p *Program) reap() {
	_ = p.cmd.Wait() // what it says is in ProcessState
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// State says how the program has ended, after Finish.
func (p *Program) State() *os.ProcessState { return p.cmd.ProcessState }
