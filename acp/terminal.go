package acp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
	"github.com/bgagent/bgagent/internal/procs"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/google/uuid"
)

const (
	maxTerminals      = 32      // maximum number of open terminals per turn
	maxTerminalOutput = 1 << 20 // maximum number of bytes of output kept per terminal
)

// TerminalRequest is a command that an agent wants to run.
type TerminalRequest struct {
	Session   string   // id of the session
	Task      string   // id of the task, bg_…
	Agent     string   // name of the agent, as the caller gave it
	Command   []string // program and arguments, which run without a shell
	Directory string   // working directory: the session's directory or, with symbolic links resolved, a directory inside it
	Env       []string // NAME=value, in addition to the agent's environment
}

// terminal is a command that the client runs for an agent. It is terminated when its turn ends.
type terminal struct {
	ch   *child
	out  *tail
	read chan struct{} // closed when all output has been read
	pipe *os.File      // read end of the pipe that receives the output
}

// createTerminal implements terminal/create.
func (p *process) createTerminal(t *turn, q sdk.CreateTerminalRequest) (_ any, err error) {
	c := p.c
	req := TerminalRequest{
		Session: t.s.id, Task: t.prompt.Task, Agent: t.prompt.Agent,
		Command: append([]string{q.Command}, q.Args...), Directory: t.s.dir,
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("running %.300q: %w", req.Command, err)
			c.refuse(t, err.Error())
		}
	}()
	for _, v := range q.Env {
		req.Env = append(req.Env, v.Name+"="+v.Value)
	}
	if cwd := value(q.Cwd); cwd != "" {
		if req.Directory, err = directoryInside(t.s.dir, cwd); err != nil {
			return nil, fmt.Errorf("the directory %.300q: %w", cwd, err)
		}
	}
	if err := c.mayRun(t, req); err != nil {
		return nil, err
	}
	limit := maxTerminalOutput
	if n := q.OutputByteLimit; n != nil && *n >= 0 && *n < limit {
		limit = *n
	}
	term, err := c.startTerminal(req, p.run.marks.Within(), limit)
	if err != nil {
		return nil, err
	}
	id := "term_" + uuid.NewString()
	c.mu.Lock()
	over, full := t.over, len(t.terms) >= maxTerminals
	if !over && !full {
		t.terms[id] = term
	}
	c.mu.Unlock()
	switch {
	case over:
		term.end()
		return nil, errOver
	case full:
		term.end()
		return nil, fmt.Errorf("%d terminals are open; release some first", maxTerminals)
	}
	return sdk.CreateTerminalResponse{TerminalId: id}, nil
}

// directoryInside returns cwd with its links resolved. It returns an error if the resolved directory is
// outside of dir.
func directoryInside(dir, cwd string) (string, error) {
	if !filepath.IsAbs(cwd) {
		cwd = filepath.Join(dir, cwd)
	}
	cwd = realPath(cwd)
	rel, err := filepath.Rel(realPath(dir), cwd)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("it is not in the working directory of the session, %s", dir)
	}
	return cwd, nil
}

// mayRun returns an error if the session's rules or the host forbid the command.
func (c *Client) mayRun(t *turn, req TerminalRequest) error {
	if c.cfg.Terminal == nil {
		return errors.New("the host does not run commands for agents")
	}
	command := commandOf(req.Command)
	about := subject{access: permission.Of(string(permission.Bash)), texts: []string{command.text}, wholes: []string{command.whole}, command: true, dir: t.s.dir}
	if ruling(t.prompt.Permissions, about) == bgagent.PermissionDeny {
		return errors.New("a rule of the host denies it")
	}
	no, err := await(t.ctx, func() error { return c.cfg.Terminal(t.ctx, req) })
	return errors.Join(err, no)
}

// startTerminal starts the command and begins to read its output.
func (c *Client) startTerminal(req TerminalRequest, marks procs.Marks, limit int) (*terminal, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	ch, err := startChild(procs.Spec{
		Command: req.Command, Dir: req.Directory, Env: slices.Concat(c.env, req.Env), Marks: marks, Stdout: w, Stderr: w,
	})
	closing(w)
	if err != nil {
		closing(r)
		return nil, err
	}
	term := &terminal{ch: ch, out: &tail{max: limit}, read: make(chan struct{}), pipe: r}
	go func() {
		defer close(term.read)
		copyTail(term.out, r)
	}()
	return term, nil
}

// The method "end" terminates the command. It returns when everything that the command started has
// ended.
func (t *terminal) end() {
	t.ch.stop(0)
	within(drainTime, t.read)
	closing(t.pipe)
	<-t.read
}

// useTerminal implements the protocol's methods for an existing terminal.
func (c *Client) useTerminal(t *turn, method, id string) (any, error) {
	c.mu.Lock()
	term := t.terms[id]
	if method == sdk.ClientMethodTerminalRelease {
		delete(t.terms, id)
	}
	c.mu.Unlock()
	if term == nil {
		return nil, fmt.Errorf("there is no terminal %.80q", id)
	}
	switch method {
	case sdk.ClientMethodTerminalOutput:
		text, cut := term.out.text()
		return sdk.TerminalOutputResponse{Output: text, Truncated: cut, ExitStatus: term.status()}, nil
	case sdk.ClientMethodTerminalWaitForExit:
		if err := term.wait(t.ctx); err != nil {
			return nil, err
		}
		s := term.status()
		return sdk.WaitForTerminalExitResponse{ExitCode: s.ExitCode, Signal: s.Signal}, nil
	case sdk.ClientMethodTerminalKill:
		term.ch.stop(0)
		return sdk.KillTerminalResponse{}, nil
	default:
		term.end()
		return sdk.ReleaseTerminalResponse{}, nil
	}
}

// The method "wait" returns when the command has ended and its output has been read.
func (t *terminal) wait(ctx context.Context) error {
	for _, ch := range []<-chan struct{}{t.ch.ended, t.read} {
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// status returns how the command ended, or nil while it runs.
func (t *terminal) status() *sdk.TerminalExitStatus {
	select {
	case <-t.ch.ended:
	default:
		return nil
	}
	s := &sdk.TerminalExitStatus{}
	if code := t.ch.State().ExitCode(); code >= 0 {
		s.ExitCode = &code
	} else {
		how := t.ch.State().String()
		s.Signal = &how
	}
	return s
}
