package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// These environment variables are set in the processes that the program starts.
const (
	roleVariable = "CLUSTER_ROLE" // "server" or "worker"
	nameVariable = "CLUSTER_NAME" // the configuration file of a server; the number of a worker
	urlVariable  = "CLUSTER_URL"  // the servers' addresses

	tasksVariable = "CLUSTER_TASKS" // the total number of tasks of all workers
	slowVariable  = "CLUSTER_SLOW"  // how many times longer than usual a task takes
)

// line is a line that a process wrote.
type line struct {
	life  *process
	words []string
}

// The type "lines" collects the lines of all processes.
type lines struct {
	mu  sync.Mutex
	log []line
}

func (l *lines) add(x line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, x)
}

func (l *lines) all() []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.log)
}

// The method "count" returns the number of tasks with a line that begins with the word.
func (l *lines) count(word string) int {
	tasks := map[string]bool{}
	for _, x := range l.all() {
		if x.words[0] == word {
			tasks[x.words[1]] = true
		}
	}
	return len(tasks)
}

// The method "finished" returns the number of living processes that have reported that all their
// tasks have ended.
func (l *lines) finished() (n int) {
	for _, x := range l.all() {
		if x.words[0] == "finished" && x.life.killed.IsZero() {
			n++
		}
	}
	return n
}

// process is a running server or worker.
type process struct {
	name   string
	cmd    *exec.Cmd
	in     io.Closer     // the process exits when its standard input ends
	ready  chan struct{} // closed when the process has written its first line
	ended  chan struct{} // closed when all its lines have been read
	killed time.Time     // when the process was known to be dead; zero if the process was not killed
}

// The function "start" runs this program in another role.
func start(log *lines, role, name string, env ...string) (*process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: exec.Command(path), ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), roleVariable+"="+role, nameVariable+"="+name), env...)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		first := true
		for s := bufio.NewScanner(out); s.Scan(); {
			if first {
				close(p.ready)
				first = false
			}
			log.add(line{p, strings.Fields(s.Text())})
		}
	}()
	return p, nil
}

// untilReady waits for the first line of the process.
func (p *process) untilReady() error {
	select {
	case <-p.ready:
		return nil
	case <-p.ended:
	case <-time.After(time.Minute):
	}
	return fmt.Errorf("%s does not start", p.name)
}

// The method "kill" kills the process with SIGKILL, so the process can neither finish nor save
// anything.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it might have exited already
	<-p.ended
	_ = p.cmd.Wait() // the process was killed, or has already been waited for
	p.killed = time.Now()
}

// The method "end" lets the process exit on its own.
func (p *process) end() error {
	err := p.in.Close()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.kill()
		err = errors.Join(err, errors.New("it did not exit"))
	}
	if err = errors.Join(err, p.cmd.Wait()); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}
