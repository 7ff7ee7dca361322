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
	sdk "github.com/coder/acp-go-sdk"
	"github.com/google/uuid"
)

const (
	maxTerminals      = 32      // at a time in a turn
	maxTerminalOutput = 1 << 20 // bytes that are kept of each
)

// TerminalRequest is a command that an agent wants to have run.
type TerminalRequest struct {
	Session   string
	Task      string   // id of the task, bg_…
	Agent     string   // name of the agent, as the caller gave it
	Command   []string // program and arguments; it is run as it is, without a shell
	Directory string   // where it is to run: the session's directory or one below it, without links when the agent named it
	Env       []string // NAME=value: what it gets besides the agent's environment
}

// terminal is a command that runs for an agent. It ends with its turn.
type terminal struct {
	ch   *child
	out  *tail
	read chan struct{} // closed when its output has been read
	pipe *os.File
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
	term, err := c.startTerminal(req, p.run.mark, limit)
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

// directoryInside returns the directory without links, by which it might be
// somewhere else.
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

// mayRun asks the rules of the session and the host.
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

// startTerminal runs the command.
func (c *Client) startTerminal(req TerminalRequest, mark string, limit int) (*terminal, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	ch, err := startChild(req.Command, req.Directory, slices.Concat(c.env, req.Env), newMark(mark), nil, w, w)
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

// end ends the command. It returns when nothing of it is left.
func (t *terminal) end() {
	t.ch.kill()
	within(drainTime, t.read)
	closing(t.pipe)
	<-t.read
}

// useTerminal implements what can be done with a terminal that there is.
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
		term.ch.kill()
		return sdk.KillTerminalResponse{}, nil
	default:
		term.end()
		return sdk.ReleaseTerminalResponse{}, nil
	}
}

// wait returns when the command has ended and its output has been read.
func (t *terminal) wait(ctx context.Context) error {
	for _, ch := range []<-chan struct{}{t.ch.exited, t.read} {
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// status returns how the command has ended, nil while it runs.
func (t *terminal) status() *sdk.TerminalExitStatus {
	select {
	case <-t.ch.exited:
	default:
		return nil
	}
	s := &sdk.TerminalExitStatus{}
	if code := t.ch.cmd.ProcessState.ExitCode(); code >= 0 {
		s.ExitCode = &code
	} else {
		how := t.ch.how()
		s.Signal = &how
	}
	return s
}
