package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// process is a program that runs for one turn.
type process struct {
	*procs.Program
	stdout *os.File
	stderr *os.File
	input  *os.File // writing end of standard input; nil for none

	feeding sync.WaitGroup
}

// drainTime is how long what is still in the pipes may take to be read once the
// program and what it started have ended. Only a process that could not be
// found and holds them open makes it matter.
const drainTime = time.Second

// start starts the program. What it prints must be read.
func start(spec procs.Spec, toStdin bool) (*process, error) {
	p := &process{}
	var in, out, errs *os.File // the program's ends
	var err error
	if p.stdout, out, err = os.Pipe(); err == nil {
		p.stderr, errs, err = os.Pipe()
	}
	if err == nil && toStdin {
		in, p.input, err = os.Pipe()
	}
	if err != nil {
		err = fmt.Errorf("making its pipes: %w", err)
	} else {
		spec.Stdin, spec.Stdout, spec.Stderr = in, out, errs
		p.Program, err = procs.Start(spec)
		err = startError(err)
	}
	closeAll(in, out, errs)
	if err != nil {
		closeAll(p.stdout, p.stderr, p.input)
		return nil, err
	}
	return p, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// startError says what to do about a program that could not be started.
func startError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("it is no program for this machine, or a script without #! in its first line: %w", err)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("its arguments and environment are longer than the system allows; shorten what the agent is given in them: the prompt and the system text, Agent.Args, Agent.Env: %w", err)
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

// finish ends what the program has left running, and waits until the readers
// are done with what is in the pipes. The error names what could not be ended.
func (p *process) finish(grace time.Duration, readers *sync.WaitGroup) error {
	left := p.Finish(grace)
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
	closeAll(p.stdout, p.stderr, p.input)
	p.feeding.Wait()
	return left
}
