package acp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
	sdk "github.com/coder/acp-go-sdk"
)

// Client is the session client for an agent. All methods are safe for concurrent use.
type Client struct {
	cfg    Config
	env    []string
	names  []string                                // keys of cfg.Agents, sorted
	launch func(instance string) (*running, error) // starts the program
	left   procs.Earlier                           // terminates the processes that earlier hosts left running

	ctx    context.Context // ends when Close is called
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup         // counts the goroutines and the turns
	told   atomic.Pointer[string] // name that the agent reported, quoted

	// mu guards the fields below, and fields of other types whose comments name it. A goroutine
	// that holds mu must not call the host's functions and must not wait.
	mu       sync.Mutex
	closed   bool
	proc     map[string]*process   // processes that get new sessions, by the keys that Client.instance returns
	starting map[string]*start     // current starts of the program, by the same keys
	all      map[*process]struct{} // processes that have not ended
	sessions map[string]*session

	tellsUsage bool // whether the agent has ever reported the tokens of a turn
	repeatsIDs bool // whether the agent sends a message's id with each piece of the message
}

var (
	_ bgagent.TurnRunner       = (*Client)(nil)
	_ bgagent.MessageReader    = (*Client)(nil)
	_ bgagent.SessionFinder    = (*Client)(nil)
	_ bgagent.AgentLister      = (*Client)(nil)
	_ bgagent.SessionForgetter = (*Client)(nil)
)

// errClosed is the error of processes and turns that end because of Close.
var errClosed = errors.New("the client has been closed")

// New returns a client for the agent. It does not start the program. The client starts the program
// for the first session, and starts it again when it has ended and is needed again. If a field of
// cfg is invalid, the error is a [*bgagent.InputError]. The caller must close the client.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, env: environment(os.Environ(), cfg.Env), names: slices.Sorted(maps.Keys(cfg.Agents)),
		proc: map[string]*process{}, starting: map[string]*start{}, all: map[*process]struct{}{}, sessions: map[string]*session{},
	}
	c.cfg.Agents = maps.Clone(cfg.Agents)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.launch = c.spawn
	return c, nil
}

// Close terminates the agent processes, everything that they started, and the running turns. It
// returns when no process is left. This takes at most Config.CloseGrace plus a short time. A second
// call also waits. Close the manager first; otherwise, its running tasks are interrupted.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	procs := slices.Collect(maps.Keys(c.all))
	c.mu.Unlock()
	c.cancel(errClosed)
	for _, p := range procs {
		p.end(errClosed)
	}
	c.wg.Wait()
	return nil
}

// start is one start of the program. Several callers can wait for it.
type start struct {
	done chan struct{}
	p    *process
	err  error
}

// The method "ready" returns a process that belongs to the instance and accepts new sessions. If
// the client has no such process, the method starts one.
func (c *Client) ready(ctx context.Context, instance string) (*process, error) {
	for {
		c.mu.Lock()
		p, st := c.proc[instance], c.starting[instance]
		switch {
		case c.closed:
			c.mu.Unlock()
			return nil, fmt.Errorf("acp: %w", errClosed)
		case p != nil:
		case st == nil:
			st = &start{done: make(chan struct{})}
			c.starting[instance] = st
			c.wg.Go(func() { c.run(st, instance) })
		}
		c.mu.Unlock()
		var wait <-chan struct{}
		switch {
		case p == nil:
			wait = st.done
		case p.usable():
			return p, nil
		default:
			wait = p.dead
		}
		select {
		case <-wait:
			if p == nil {
				return st.p, st.err
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("acp: waiting for the agent to start: %w", context.Cause(ctx))
		}
	}
}

// The method "run" starts the program for the callers of the method "ready" that wait for the
// start. The start continues even if these callers stop waiting, because the next caller needs the
// program too.
func (c *Client) run(st *start, instance string) {
	ctx, cancel := context.WithTimeoutCause(c.ctx, c.cfg.StartTimeout, errSlowStart)
	defer cancel()
	p, err := c.startProcess(ctx, instance)
	c.mu.Lock()
	if st.p, st.err = p, err; err != nil {
		st.err = fmt.Errorf("acp: starting the agent %s: %w", c.program(), err)
	} else if _, alive := c.all[p]; alive {
		c.proc[instance] = p
	}
	delete(c.starting, instance)
	c.mu.Unlock()
	close(st.done)
}

// The method "program" returns the agent's name for use in messages. If the agent has not reported
// its name, the result is the name of the executable.
func (c *Client) program() string {
	if name := c.told.Load(); name != nil {
		return *name
	}
	return fmt.Sprintf("%q", filepath.Base(c.cfg.Command[0]))
}

// The method "agent" returns the entry of Config.Agents with this name.
func (c *Client) agent(name string) (Agent, error) {
	if len(c.names) == 0 {
		return Agent{}, nil
	}
	a, ok := c.cfg.Agents[name]
	if !ok {
		return Agent{}, &bgagent.NoSuchAgentError{Agent: name, Known: slices.Clone(c.names)}
	}
	return a, nil
}

// Agents implements [bgagent.AgentLister]. It returns the names in Config.Agents. If
// Config.Agents is empty, it returns [errors.ErrUnsupported].
func (c *Client) Agents(context.Context) ([]bgagent.AgentInfo, error) {
	if len(c.names) == 0 {
		return nil, fmt.Errorf("acp: Config.Agents is empty: %w", errors.ErrUnsupported)
	}
	list := make([]bgagent.AgentInfo, len(c.names))
	for i, name := range c.names {
		list[i] = bgagent.AgentInfo{Name: name, Description: c.cfg.Agents[name].Description}
	}
	return list, nil
}

// FindSession implements [bgagent.SessionFinder]. It finds the sessions that this client created or
// prompted, even if their process has ended.
func (c *Client) FindSession(_ context.Context, id string) (bgagent.SessionInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		return bgagent.SessionInfo{Parent: s.parent, Directory: s.dir}, nil
	}
	return bgagent.SessionInfo{}, noSession(id)
}

// Messages implements [bgagent.MessageReader]. It returns the messages of the
// conversation that this client has seen: the prompt of each turn and the agent's
// messages.
func (c *Client) Messages(_ context.Context, id string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil {
		return bgagent.Page{}, noSession(id)
	}
	page, err := s.conv.page(after, max)
	if err != nil {
		return page, fmt.Errorf("acp: session %q: %w", id, err)
	}
	return page, nil
}

// ForgetSession implements [bgagent.SessionForgetter]. If the agent supports it, the client also
// tells the agent to close the session. Files that the agent wrote stay on the disk.
func (c *Client) ForgetSession(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil || s.turn != nil {
		return
	}
	c.drop(s)
}

// The method "drop" forgets a session and tells the agent to close it. The caller must hold
// Client.mu.
func (c *Client) drop(s *session) {
	delete(c.sessions, s.id)
	if p := s.proc; p != nil && !c.closed && p.init.AgentCapabilities.SessionCapabilities.Close != nil {
		c.wg.Go(func() { p.closeSession(s.id) })
	}
}

// closeSession tells the agent to close a session.
func (p *process) closeSession(id string) {
	ctx, cancel := context.WithTimeout(p.c.ctx, 10*time.Second)
	defer cancel()
	req := sdk.CloseSessionRequest{SessionId: sdk.SessionId(id)}
	if err := p.conn.call(ctx, sdk.AgentMethodSessionClose, req, nil); err != nil && p.conn.ended() == nil {
		p.c.cfg.Logger.Warn("acp: the agent did not close a session", "session", id, "error", err)
	}
}

func noSession(id string) error { return fmt.Errorf("acp: session %q: %w", id, bgagent.ErrNoSession) }
