// Command standby shows that a second process takes over the tasks of a dead process. It runs a
// NATS server and starts two processes on one store. The first one accepts four tasks, while the
// second one waits. Then the program kills the first process with SIGKILL, and the second one
// continues the tasks. If a task is lost, the program exits with code 1.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/bgagent/bgagent/nats/embedded"
)

// urlVariable is set to the server's address for the processes that the program starts.
const urlVariable = "STANDBY_URL"

func main() {
	work := func() error { return run(context.Background(), os.Stdout) }
	if url := os.Getenv(urlVariable); url != "" {
		work = func() error { return worker(context.Background(), url) }
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "standby:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "standby-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := embedded.Start(embedded.Options{Dir: dir, Listen: "127.0.0.1:0"}) // in production, usually three servers on three machines
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()

	first, err := start(ctx, server.URL())
	if err != nil {
		return err
	}
	defer first.kill()
	if err := first.until(func(s seen) bool { return s["accepted"] == tasks && s["told"] == 2 && s["working"] == 2 }); err != nil {
		return fmt.Errorf("the first process: %w", err)
	}
	second, err := start(ctx, server.URL())
	if err != nil {
		return err
	}
	defer second.kill()
	if err := second.until(func(s seen) bool { return s["waiting"] > 0 }); err != nil {
		return fmt.Errorf("the second process: %w", err)
	}
	fmt.Fprintf(w, "The first process has accepted %d tasks. The second process waits.\n", tasks)

	first.kill() // SIGKILL: the process can neither finish nor save anything
	fmt.Fprintln(w, "The first process was killed. 2 tasks had ended, and 2 were running.")
	if err := second.until(func(s seen) bool { return s["done"] > 0 }); err != nil {
		return fmt.Errorf("the second process: %w", err)
	}
	fmt.Fprintln(w, "The second process has taken over the store.")
	return judge(w, first, second)
}

// The function "judge" compares the tasks that the first process accepted with the results and
// completions that the two processes reported.
func judge(w io.Writer, first, second *process) error {
	completed, told := 0, 0
	for id := range first.lines["accepted"] {
		if second.lines["completed"][id] {
			completed++
		}
		if first.lines["told"][id] || second.lines["told"][id] {
			told++
		}
	}
	fmt.Fprintf(w, "%d of %d tasks have completed with the right result, and %d ends were reported.\n", completed, tasks, told)
	if completed != tasks || told != tasks {
		return errors.New("a task was lost")
	}
	return nil
}

// The type "seen" maps the first word of a line to the number of distinct lines with this word that a
// process has written.
type seen map[string]int

// process is a running worker.
type process struct {
	cmd   *exec.Cmd
	out   *bufio.Scanner
	lines map[string]map[string]bool // ids in the lines that have been read, by the word before the id
}

func start(ctx context.Context, url string) (*process, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, path), lines: map[string]map[string]bool{}}
	p.cmd.Env = append(os.Environ(), urlVariable+"="+url)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	return p, p.cmd.Start()
}

// The method "until" reads the lines of the process until the function "enough" returns true.
func (p *process) until(enough func(seen) bool) error {
	s := seen{}
	for !enough(s) {
		if !p.out.Scan() {
			return errors.New("it has ended")
		}
		what, id, _ := strings.Cut(p.out.Text(), " ")
		if p.lines[what] == nil {
			p.lines[what] = map[string]bool{}
		}
		p.lines[what][id] = true
		s[what] = len(p.lines[what])
	}
	return nil
}

// The method "kill" kills the process. Later calls do nothing.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // the process may have ended already
	_ = p.cmd.Wait()         // the process was killed, or has already been waited for
}
