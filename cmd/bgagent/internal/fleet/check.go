package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/internal/procs"
)

// Check is the result of checking whether an agent can start.
type Check struct {
	Agent settings.Agent
	Found string // what was found: a version, a path or a server
	Err   error  // why the agent cannot start; nil if it can
}

// checkTime limits how long an agent can take to answer. The supported programs need up to 4 s on a
// busy machine.
const checkTime = 30 * time.Second

func (f *Fleet) checkTime() time.Duration { return max(checkTime, f.createTimeout()) }

// Check checks whether each agent can start, without calling a model. A program is asked for its version. An
// agent that speaks ACP is asked for a session. A server is asked for the names of its agents. At most four
// agents are checked concurrently. Each agent has 30 s to answer, or createTimeoutMs if that is longer. Check
// sends each result as soon as it is known. The channel is closed after the last result.
func (f *Fleet) Check(ctx context.Context) <-chan Check {
	out := make(chan Check, len(f.set.Agents)) // buffered, so that no check waits for the reader
	places := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, a := range f.set.Agents {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, f.checkTime())
			defer cancel()
			found, err := f.check(ctx, a)
			out <- Check{a, found, inKeys(err)}
		})
	}
	go func() {
		wg.Wait()
		close(out)
	}()
	return out
}

func (f *Fleet) check(ctx context.Context, a settings.Agent) (string, error) {
	switch c := f.clients[f.route[a.Name]].(type) {
	case programs:
		return f.checkProgram(ctx, a)
	case speakers:
		if _, err := exec.LookPath(a.Command[0]); err != nil {
			return "", notFound(a.Command[0], err)
		}
		id, err := c.CreateSession(ctx, bgagent.SessionSpec{Agent: a.Name, Title: "check", Model: a.Model})
		if err != nil {
			return "", fmt.Errorf("the program exists, but creates no session: %w", err)
		}
		c.ForgetSession(id)
		return "speaks ACP", nil
	case remote:
		if _, err := c.Check(ctx); err != nil {
			return "", err
		}
		agents, err := c.Agents(ctx)
		if err != nil {
			return "", fmt.Errorf("the server answers, but does not name its agents: %w", err)
		}
		var names []string
		for _, info := range agents {
			names = append(names, info.Name)
		}
		if !slices.Contains(names, a.Remote) {
			return "", &bgagent.NoSuchAgentError{Agent: a.Remote, Known: names}
		}
		return "the server at " + a.URL + " has it", nil
	}
	return "part of this program", nil
}

// checkProgram searches for the program and asks for its version, in the same
// environment as in a turn. It does not ask a generic program for its version, because
// the program might not know the flag --version.
func (f *Fleet) checkProgram(ctx context.Context, a settings.Agent) (string, error) {
	p := program(a)
	line := a.Command
	if len(line) == 0 {
		line = []string{p.Executable}
	}
	path, err := exec.LookPath(line[0])
	if err != nil {
		return "", notFound(line[0], err)
	}
	if a.Preset == "generic" {
		return path, nil
	}
	out, problems, err := tell(ctx, procs.Spec{
		Command: slices.Concat([]string{path}, line[1:], []string{"--version"}), Dir: a.Directory,
		Env: environ(p, a), Marks: procs.NewMarks(1, f.options.Instance),
	})
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s --version does not answer within %v", line[0], f.checkTime())
	case err != nil:
		return "", fmt.Errorf("%s --version fails: %w: %s", line[0], err, lastLine(problems))
	}
	return strings.TrimSpace(path + " " + lastLine(out)), nil
}

// maxTold is the maximum number of bytes that the function "tell" keeps of each output stream.
const maxTold = 64 << 10

// drainTime is how long a program's pipes are read after the program has exited.
const drainTime = time.Second

// tell runs a program and waits until it exits. Then it returns the program's standard output and
// standard error. It also terminates the processes that the program left behind.
func tell(ctx context.Context, spec procs.Spec) (out, problems string, err error) {
	var texts [2]bytes.Buffer
	var ends, sources [2]*os.File
	var readers sync.WaitGroup
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			return "", "", err
		}
		defer r.Close()
		defer w.Close()
		ends[i], sources[i] = w, r
		readers.Go(func() {
			_, _ = io.CopyN(&texts[i], r, maxTold)
			_, _ = io.Copy(io.Discard, r)
		})
	}
	spec.Stdout, spec.Stderr = ends[0], ends[1]
	p, err := procs.Start(spec)
	if err == nil {
		select {
		case <-p.Exited():
		case <-ctx.Done():
			p.Stop(nil, grace)
		}
		err = p.Finish(grace)
		if !p.State().Success() {
			err = errors.Join(errors.New(p.State().String()), err)
		}
	}
	for i := range ends {
		_ = ends[i].Close()
		// The deadline is needed because a leftover process that was not found can still hold the
		// pipes open.
		_ = sources[i].SetReadDeadline(time.Now().Add(drainTime))
	}
	readers.Wait()
	return texts[0].String(), texts[1].String(), err
}

func notFound(program string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("there is no program %s on PATH; install it, or name it in command", program)
	}
	return fmt.Errorf("the program %s cannot be started: %w", program, err)
}

// environ returns the environment of an agent's program.
func environ(p command.Program, a settings.Agent) []string {
	return environOf(slices.Concat(command.DefaultEnviron(), p.Environ, a.Env))
}

// environOf returns the variables that the entries set, and those variables from this program's
// environment that the entries name.
func environOf(entries []string) []string {
	var out, names []string
	for _, v := range entries {
		if strings.Contains(v, "=") {
			out = append(out, v)
		} else {
			names = append(names, v)
		}
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if slices.ContainsFunc(names, func(n string) bool {
			prefix, star := strings.CutSuffix(n, "*")
			return n == name || star && strings.HasPrefix(name, prefix)
		}) {
			out = append([]string{v}, out...)
		}
	}
	return out
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex(s, "\n")+1:]
}
