package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a program that runs for one turn, in a process group of its own
// where there are such things.
type process struct {
	cmd    *exec.Cmd
	mark   string // value of TurnVariable
	stdout *os.File
	stderr *os.File
	input  *os.File // writing end of standard input; nil for none

	feeding sync.WaitGroup
	exited  chan struct{} // closed when the program has exited and was waited for
	state   *os.ProcessState
}

// drainTime is how long what is still in the pipes may take to be read once the
// program and what it started have ended. Only a process that could not be
// found and holds them open makes it matter.
const drainTime = time.Second

// start starts the program. What it prints must be read.
func start(path string, args, env []string, dir, mark string, toStdin bool) (p *process, err error) {
	p = &process{cmd: exec.Command(path, args...), mark: mark, exited: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = env, dir
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close() // the child has its own
		}
		if err != nil {
			p.closePipes()
		}
	}()
	pipe := func(ours, their **os.File, swap bool) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		if swap {
			r, w = w, r
		}
		*ours, *their = r, w
		theirs = append(theirs, w)
		return nil
	}
	var out, errs, in *os.File
	if err = pipe(&p.stdout, &out, false); err == nil {
		err = pipe(&p.stderr, &errs, false)
	}
	if err == nil && toStdin {
		err = pipe(&p.input, &in, true)
		p.cmd.Stdin = in
	} // a nil Stdin is the null device
	if err != nil {
		return nil, fmt.Errorf("making its pipes: %w", err)
	}
	// With files, and not with other writers, Wait waits for nothing but the
	// exit of the program.
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	ownGroup(p.cmd)
	if err = p.cmd.Start(); err != nil {
		return nil, startError(err)
	}
	go func() {
		_ = p.cmd.Wait() // what it says is in ProcessState
		p.state = p.cmd.ProcessState
		close(p.exited)
	}()
	return p, nil
}

// startError says what to do about a program that could not be started.
func startError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("it is no program for this machine, or a script without #! in its first line: %w", err)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("its arguments and environment are longer than the system allows; shorten the prompt: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("it must not be executed; make it executable: %w", err)
	}
	return err
}

// feed begins to write the prompt to standard input. A program need not read it.
func (p *process) feed(text string) {
	p.feeding.Go(func() {
		_, _ = io.WriteString(p.input, text)
		_ = p.input.Close()
	})
}

// stop asks the program to end, waits, and ends it. It returns when the program
// has exited.
func (p *process) stop(sig os.Signal, grace time.Duration) {
	if p.interrupt(sig) {
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

// finish ends what the program has left running, and waits until the readers
// are done with what is in the pipes.
func (p *process) finish(grace time.Duration, readers *sync.WaitGroup) {
	p.endLeftovers(grace)
	done := make(chan struct{})
	go func() {
		readers.Wait()
		close(done)
	}()
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		// Who holds them is not ours to end; their readers must not wait.
		past := time.Now().Add(-time.Second)
		for _, f := range []*os.File{p.stdout, p.stderr} {
			if f.SetReadDeadline(past) != nil {
				_ = f.Close()
			}
		}
		<-done
	}
	p.closePipes()
	p.feeding.Wait()
}

func (p *process) closePipes() {
	for _, f := range []*os.File{p.stdout, p.stderr, p.input} {
		if f != nil {
			_ = f.Close()
		}
	}
}
