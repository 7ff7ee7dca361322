package acp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
	sdk "github.com/coder/acp-go-sdk"
)

// session is one of the agent's sessions.
type session struct {
	id     string
	parent string
	dir    string // absolute
	place  string // the field "dir" with its links resolved, because the links might lead to a different directory when the next host follows them
	mcp    []MCPServer

	// Client.mu guards the fields below.
	proc    *process // process that has the session open; nil if the session must be loaded
	lost    error    // why the session's last process ended
	turn    *turn    // current turn; nil if no turn is running
	by      string   // id of the manager that last used the session through this client; empty if it has no store
	loading bool     // whether the agent is replaying the conversation
	heard   int      // number of updates that arrived while the session was loading
	opts    options
	conv    conversation
	made    time.Time // when the session was created; zero if unknown
	cost    float64   // cost of the session so far, in US dollars
	system  string    // last system text that the client sent

	memory    memory  // the fields that session.remember does not set are kept up to date, but only if the manager has a store
	restoring bool    // whether RestoreSession is restoring the session
	replay    *replay // replay of the session while RestoreSession runs; else nil
}

// options are the settings of a session that the client can choose.
type options struct {
	mode, model choice
}

// choice is one option of a session with its values.
type choice struct {
	what    string   // name of the option in error messages
	config  string   // id of the configuration option; empty if the agent has none
	own     string   // value that the agent itself chose
	current string   // value that is set in the session
	known   []string // values that the agent offers
}

// CreateSession implements [bgagent.SessionClient]. It starts the agent if the agent is
// not running.
func (c *Client) CreateSession(ctx context.Context, spec bgagent.SessionSpec) (string, error) {
	agent, err := c.agent(spec.Agent)
	if err != nil {
		return "", err
	}
	s := &session{parent: spec.Parent, by: spec.Instance, conv: conversation{max: c.cfg.MaxHistory}}
	if s.dir, err = c.directory(spec.Directory); err != nil {
		return "", err
	}
	if s.place, err = filepath.EvalSymlinks(s.dir); err != nil {
		return "", fmt.Errorf("acp: %w", err)
	}
	p, err := c.ready(ctx, procs.Instances(c.cfg.Instance, spec.Instance))
	if err != nil {
		return "", err
	}
	s.mcp = c.mcpServers(spec)
	servers, err := p.mcpServers(s.mcp)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.StartTimeout, errSlowStart)
	defer cancel()
	var made sdk.NewSessionResponse
	req := sdk.NewSessionRequest{Cwd: s.dir, McpServers: servers}
	if err := p.conn.call(ctx, sdk.AgentMethodSessionNew, req, &made); err != nil {
		return "", fmt.Errorf("acp: creating a session: the agent %s: %w", c.program(), p.failed(ctx, during("create a session", err)))
	}
	s.id, s.made = string(made.SessionId), time.Now()
	s.opts = optionsOf(made.ConfigOptions, made.Modes, made.Models)
	if err := c.add(s, p); err != nil {
		return "", err
	}
	if err := c.choose(ctx, p, s, agent, spec.Model, spec.Permissions); err != nil {
		c.ForgetSession(s.id)
		return "", err
	}
	return s.id, nil
}

// directory returns the directory of a session as an absolute path. If dir is empty, Config.Dir is
// used. If the directory does not exist, the result is an error.
func (c *Client) directory(dir string) (string, error) {
	if dir == "" {
		dir = c.cfg.Dir
	}
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = isDirectory(abs)
	}
	if err != nil {
		return "", fmt.Errorf("acp: %w", err)
	}
	return abs, nil
}

// The method "add" registers a new session.
func (c *Client) add(s *session, p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.id == "":
		return errors.New("acp: creating a session: the agent gave it no id")
	case c.sessions[s.id] != nil:
		return fmt.Errorf("acp: creating a session: the agent gave it the id %q, which another session has", s.id)
	}
	if _, alive := c.all[p]; alive {
		s.proc = p
	} else {
		s.lost = p.why
	}
	c.sessions[s.id] = s
	return nil
}

// The method "attach" returns a live process that has the session open. If the session's previous process
// has ended, is retired or has another instance, a process of the given instance loads the session. If the
// agent cannot load sessions, the session stays in its process. If that process has ended, the method
// returns an error.
func (c *Client) attach(ctx context.Context, s *session, instance string) (*process, error) {
	if err := isDirectory(s.dir); err != nil {
		return nil, fmt.Errorf("acp: session %q: %w", s.id, err)
	}
	c.mu.Lock()
	p := s.proc
	stay := p != nil && (!p.retired && p.instance == instance || !p.init.AgentCapabilities.LoadSession)
	c.mu.Unlock()
	if stay {
		if p.usable() {
			return p, nil
		}
		select { // once the process is dead, s.lost states how it ended
		case <-p.dead:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	c.mu.Lock()
	lost := s.lost
	c.mu.Unlock()
	p, err := c.ready(ctx, instance)
	if err != nil {
		return nil, err
	}
	if !p.init.AgentCapabilities.LoadSession {
		if lost != nil {
			return nil, fmt.Errorf("acp: session %q was lost with the agent process that had it (%w), and this agent cannot load sessions: %w", s.id, lost, bgagent.ErrNoSession)
		}
		return nil, noSession(s.id)
	}
	servers, err := p.mcpServers(s.mcp)
	if err != nil {
		return nil, err
	}
	if err := c.load(ctx, p, s, servers); err != nil {
		return nil, c.lostWith(s, err)
	}
	return p, nil
}

// lostWith adds an explanation to an error from the method "load" if the agent does not have the session
// because the session's process ended. The explanation states how that process ended. Some agents store a
// session only after its first prompt.
func (c *Client) lostWith(s *session, err error) error {
	c.mu.Lock()
	lost := s.lost
	c.mu.Unlock()
	if lost == nil || !errors.Is(err, bgagent.ErrNoSession) {
		return err
	}
	return fmt.Errorf("acp: session %q was lost with the agent process that had it (%w): %w", s.id, lost, err)
}

// The method "release" closes the session in the agent process of an earlier manager in this host,
// because some agents do not load a session that is open in another process. If that process has no
// turns, or only turns that do not stop, the method terminates it. The earlier manager has been
// closed; otherwise, no other manager could use the session.
func (c *Client) release(ctx context.Context, p *process, s *session) error {
	c.mu.Lock()
	old := s.proc
	if old == nil || old.instance == p.instance {
		c.mu.Unlock()
		return nil
	}
	idle := len(old.turns) == old.stuck
	if idle {
		old.end(errEarlierManager)
	}
	c.mu.Unlock()
	switch {
	case idle:
		select {
		case <-old.dead:
		case <-ctx.Done():
			return fmt.Errorf("acp: loading session %q: %w", s.id, context.Cause(ctx))
		}
	case old.init.AgentCapabilities.SessionCapabilities.Close != nil:
		old.closeSession(s.id)
	}
	return nil
}

// errEarlierManager is the reason for terminating a process whose manager has been closed.
var errEarlierManager = errors.New("the manager of its sessions has been closed")

// The method "load" makes the agent load the session and connect it to the MCP servers.
func (c *Client) load(ctx context.Context, p *process, s *session, servers []sdk.McpServer) error {
	if err := c.release(ctx, p, s); err != nil {
		return err
	}
	if err := c.awaitMinute(ctx, s); err != nil {
		return err
	}
	c.mu.Lock()
	s.loading = true
	s.conv.replay = s.conv.empty() // a conversation seen live is more complete than a replay
	c.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.StartTimeout, errSlowStart)
	defer cancel()
	var loaded sdk.LoadSessionResponse
	req := sdk.LoadSessionRequest{SessionId: sdk.SessionId(s.id), Cwd: s.dir, McpServers: servers}
	err := p.conn.call(ctx, sdk.AgentMethodSessionLoad, req, &loaded)
	var re *sdk.RequestError
	switch {
	case err == nil:
	case errors.As(err, &re) && re.Code != codeAuth:
		err = c.notLoaded(s, re)
	default:
		err = fmt.Errorf("acp: loading session %q: the agent %s: %w", s.id, c.program(), p.failed(ctx, during("load the session", err)))
	}
	if err == nil {
		c.settleReplay(ctx, p, s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.loading = false
	s.conv.finish(bgagent.StopUntold, "")
	if err != nil {
		return err
	}
	if _, alive := c.all[p]; !alive {
		return fmt.Errorf("acp: loading session %q: the agent %s: %w", s.id, c.program(), p.why)
	}
	own := s.opts
	s.opts = optionsOf(loaded.ConfigOptions, loaded.Modes, loaded.Models)
	s.opts.mode.own = cmp.Or(own.mode.own, s.opts.mode.own)
	s.opts.model.own = cmp.Or(own.model.own, s.opts.model.own)
	s.proc, s.lost, s.system = p, nil, ""
	return nil
}

// minuteLeft returns the time until the end of the clock minute in which the session was created.
// If the agent is not gemini, it returns 0. gemini empties a session that it loads within that
// minute, because the names of its session files contain only the minute.
func (c *Client) minuteLeft(s *session) time.Duration {
	wait := time.Until(s.made.Truncate(time.Minute).Add(time.Minute))
	// If more than a minute is left, the clock was set back. In this case, the session was not
	// created in the current minute.
	if s.made.IsZero() || wait > time.Minute || !strings.Contains(strings.ToLower(c.program()), "gemini") {
		return 0
	}
	return max(wait, 0)
}

// awaitMinute waits for the time that minuteLeft returns.
func (c *Client) awaitMinute(ctx context.Context, s *session) error {
	wait := c.minuteLeft(s)
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("acp: loading session %q: %w", s.id, context.Cause(ctx))
	}
}

// replayPause is how long a loaded session must be without updates before its replay is treated as
// finished.
const replayPause = 200 * time.Millisecond

// settleReplay waits until the agent has replayed the conversation. Agents should end the replay
// before they answer the request, but gemini begins only after its answer. A replay during a turn
// would be treated as the turn's answer.
func (c *Client) settleReplay(ctx context.Context, p *process, s *session) {
	pause := time.NewTicker(replayPause)
	defer pause.Stop()
	for heard := -1; ; {
		c.mu.Lock()
		before := heard
		heard = s.heard
		c.mu.Unlock()
		if heard == before {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		case <-p.dead:
			return
		}
	}
}

// optionsOf returns a session's options. Agents report them as configuration options, or, in an
// older form, as modes and models. Configuration options take precedence.
func optionsOf(config []sdk.SessionConfigOption, modes *sdk.SessionModeState, models *sdk.SessionModelState) options {
	o := options{mode: choice{what: "mode"}, model: choice{what: "model"}}
	if modes != nil {
		o.mode.current = string(modes.CurrentModeId)
		for _, m := range modes.AvailableModes {
			o.mode.known = append(o.mode.known, string(m.Id))
		}
	}
	if models != nil {
		o.model.current = string(models.CurrentModelId)
		for _, m := range models.AvailableModels {
			o.model.known = append(o.model.known, string(m.ModelId))
		}
	}
	o.configured(config)
	o.mode.own, o.model.own = o.mode.current, o.model.current
	return o
}

// The method "configured" applies the configuration options that the agent reported.
func (o *options) configured(config []sdk.SessionConfigOption) {
	for _, opt := range config {
		sel := opt.Select
		if sel == nil || sel.Category == nil {
			continue
		}
		var ch *choice
		switch *sel.Category {
		case sdk.SessionConfigOptionCategoryMode:
			ch = &o.mode
		case sdk.SessionConfigOptionCategoryModel:
			ch = &o.model
		default:
			continue
		}
		ch.config, ch.current, ch.known = string(sel.Id), string(sel.CurrentValue), nil
		if list := sel.Options.Ungrouped; list != nil {
			for _, v := range *list {
				ch.known = append(ch.known, string(v.Value))
			}
		}
		if groups := sel.Options.Grouped; groups != nil {
			for _, g := range *groups {
				for _, v := range g.Options {
					ch.known = append(ch.known, string(v.Value))
				}
			}
		}
	}
}

// The method "find" returns the agent's name for the wanted value. The wanted name of a model can
// begin with the name of a provider, even if the agent's own name for the model does not.
func (ch *choice) find(want string) (string, bool) {
	// The current value does not have to be in the list. gemini's list does not contain the model
	// that its command line names.
	names := []string{want}
	if _, bare, ok := strings.Cut(want, "/"); ok {
		names = append(names, bare)
	}
	for _, name := range names {
		if name == ch.current || slices.Contains(ch.known, name) {
			return name, true
		}
	}
	return "", false
}

// The method "choose" sets the mode and the model of a session. If the agent does not offer any
// values for an option, the option stays unchanged.
func (c *Client) choose(ctx context.Context, p *process, s *session, a Agent, model string, rules []bgagent.Permission) error {
	c.mu.Lock()
	mode, models := s.opts.mode, s.opts.model
	c.mu.Unlock()
	wanted, err := mode.modeFor(a.Mode, rules)
	if err != nil {
		return fmt.Errorf("acp: session %q: the agent %s: %w", s.id, c.program(), err)
	}
	for _, x := range []struct {
		ch   choice
		want string
	}{
		{mode, wanted},
		{models, cmp.Or(model, a.Model, c.cfg.Model, models.own)},
	} {
		if len(x.ch.known) == 0 || x.want == "" {
			continue
		}
		value, ok := x.ch.find(x.want)
		if !ok {
			err := fmt.Errorf("acp: session %q: the agent %s has no %s %q; there are: %s", s.id, c.program(), x.ch.what, x.want, strings.Join(x.ch.known, ", "))
			if x.ch.what != mode.what { // the model does not exist; the session has not received the prompt, so the turn can be repeated
				err = &bgagent.ProviderError{Kind: bgagent.ProviderUnknownModel, Next: bgagent.NextRepeat, Message: err.Error()}
			}
			return err
		}
		if value == x.ch.current {
			continue
		}
		if err := c.set(ctx, p, s, x.ch, value); err != nil {
			return fmt.Errorf("acp: session %q: setting the %s: the agent %s: %w", s.id, x.ch.what, c.program(), p.failed(ctx, during("set it to "+value, err)))
		}
	}
	return nil
}

// The method "set" changes one option of a session.
func (c *Client) set(ctx context.Context, p *process, s *session, ch choice, value string) error {
	id := sdk.SessionId(s.id)
	var answer sdk.SetSessionConfigOptionResponse
	var err error
	switch {
	case ch.config != "":
		err = p.conn.call(ctx, sdk.AgentMethodSessionSetConfigOption, sdk.SetSessionConfigOptionRequest{
			ValueId: &sdk.SetSessionConfigOptionValueId{ConfigId: sdk.SessionConfigId(ch.config), SessionId: id, Value: sdk.SessionConfigValueId(value)},
		}, &answer)
	case ch.what == "mode":
		err = p.conn.call(ctx, sdk.AgentMethodSessionSetMode, sdk.SetSessionModeRequest{SessionId: id, ModeId: sdk.SessionModeId(value)}, nil)
	default:
		err = p.conn.call(ctx, sdk.AgentMethodSessionSetModel, sdk.UnstableSetSessionModelRequest{SessionId: id, ModelId: sdk.UnstableModelId(value)}, nil)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.what == "mode" {
		s.opts.mode.current = value
	} else {
		s.opts.model.current = value
	}
	s.opts.configured(answer.ConfigOptions)
	return nil
}
