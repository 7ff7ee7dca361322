package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// process is the running program of one turn.
type process struct {
	*procs.Program
	stdout *os.File
	stderr *os.File
	input  *os.File // write end of standard input; nil if standard input is empty

	feeding sync.WaitGroup
}

// drainTime limits how long the pipes are read after the program and everything that it started
// have ended. Reading takes that long only if a process that was not found keeps the pipes open.
const drainTime = time.Second

// The function "start" starts the program. The caller must read its output.
func start(spec procs.Spec, toStdin bool) (*process, error) {
	p := &process{}
	var in, out, errs *os.File // the program's ends of the pipes
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

// startError adds advice to an error from starting a program.
func startError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("it is not a program for this machine, or it is a script without #! in its first line: %w", err)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("its arguments and environment are longer than the system allows; shorten the prompt, the system text, Agent.Args or Agent.Env: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("it is not executable; make it executable: %w", err)
	case errors.Is(err, fs.ErrNotExist):
		if line := firstLine(err); line != "" {
			return fmt.Errorf("the program in its first line, %q, does not exist; correct the line, or save the script with LF instead of CR LF: %w", line, err)
		}
	}
	return err
}

// firstLine returns a script's shebang line if the interpreter that the line names does not exist;
// otherwise "". err is the error from starting the script.
func firstLine(err error) string {
	var path *fs.PathError
	if !errors.As(err, &path) {
		return ""
	}
	f, err := os.Open(path.Path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	named, script := strings.CutPrefix(line, "#!")
	words := strings.FieldsFunc(named, func(r rune) bool { return r == ' ' || r == '\t' }) // the operating system splits the line only at these characters
	if !script || len(words) == 0 {
		return ""
	}
	if _, err := os.Stat(words[0]); err == nil {
		return ""
	}
	return line
}

// The method "feed" starts to write the prompt to standard input. It does not wait for the program
// to read the prompt.
func (p *process) feed(text string) {
	p.feeding.Go(func() {
		_, _ = io.WriteString(p.input, text)
		_ = p.input.Close()
	})
}

// The method "finish" terminates the processes that the program left running, and waits until the
// readers have emptied the pipes. The error names the processes that could not be terminated.
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
		// A process that was not found keeps the pipes open, but the readers must stop
		// nevertheless.
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
