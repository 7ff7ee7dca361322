package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/acp"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/demo"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/opencode"
)

// grace is how long a program is given to exit on its own before it is killed.
const grace = 2 * time.Second

func (f *Fleet) addInProc() error {
	agents := f.of(settings.InProc)
	if len(agents) == 0 {
		return nil
	}
	all := map[string]inproc.Agent{}
	for _, a := range agents {
		i := slices.Index(demo.Names(), a.Remote)
		if i < 0 {
			return a.Errorf("agent", "is %q, which is not a demo agent", a.Remote)
		}
		all[a.Name] = demo.Agents()[i].Run
	}
	c := inproc.New(all)
	// A demo agent has no side effects, so an interrupted turn can be repeated.
	c.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
	}
	f.add("inproc", demos{c, f}, agents)
	return nil
}

// demos is the client for demo agents. If a session has no directory, it gets the directory from
// its agent's settings.
type demos struct {
	*inproc.Client
	f *Fleet
}

// CreateSession implements [bgagent.SessionClient].
func (d demos) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	s.Directory = cmp.Or(s.Directory, d.f.agents[s.Agent].Directory)
	return d.Client.CreateSession(ctx, s)
}

// RestoreSession implements [bgagent.SessionRestorer].
func (d demos) RestoreSession(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	r.Spec.Directory = cmp.Or(r.Spec.Directory, d.f.agents[r.Spec.Agent].Directory)
	return d.Client.RestoreSession(ctx, r)
}

// RunTurn implements [bgagent.TurnRunner].
func (d demos) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return d.f.recorded(p, r, func(r *bgagent.Reporter) (bgagent.TurnEnd, error) { return d.Client.RunTurn(ctx, session, p, r) })
}

// The method "recorded" executes a turn by calling the function "run", and keeps the turn's text. The
// returned error and the remark about the turn are worded for users and do not contain secrets.
func (f *Fleet) recorded(p bgagent.Prompt, r *bgagent.Reporter, run func(*bgagent.Reporter) (bgagent.TurnEnd, error)) (bgagent.TurnEnd, error) {
	r, ended := f.answers.Record(p, r)
	end, err := run(r)
	ended(end)
	end.Remark = f.secrets.Mask(InKeys(end.Remark))
	return end, f.turnError(err)
}

// The function "program" returns the program of an agent's preset.
func program(a settings.Agent) command.Program {
	switch a.Preset {
	case "codex":
		return command.Codex()
	case "claude":
		return command.Claude()
	case "gemini":
		return command.Gemini()
	case "opencode":
		return command.Opencode()
	}
	if a.Format == "lines" {
		return command.Lines(a.Command[0])
	}
	return command.Text(a.Command[0])
}

// programFor returns the program that runs an agent. For Claude Code, the program asks questions only if the
// settings allow questions and somebody can answer them.
func (f *Fleet) programFor(a settings.Agent) command.Program {
	var cfg bgagent.Config
	f.set.Limits.Apply(&cfg)
	if a.Preset == "claude" && cfg.Ask && !f.options.NobodyAnswers {
		return command.ClaudeAsking()
	}
	return program(a)
}

func (f *Fleet) addCommands() error {
	agents := f.of(settings.Command)
	if len(agents) == 0 {
		return nil
	}
	cfg := command.Config{Agents: map[string]command.Agent{}, Grace: grace, Instance: f.options.Instance, Logger: f.options.Logger, Printed: f.printed}
	var errs []error
	for _, a := range agents {
		one := command.Agent{
			Program: f.programFor(a), Command: a.Command, Args: a.Args, Env: a.Env, Model: a.Model,
			Profile: a.Profile, Directory: a.Directory, Description: a.Description, LeaveRetries: a.LeaveRetries,
		}
		cfg.Agents[a.Name] = one
		// Each agent is checked alone, so that the error names the agent that is refused.
		if _, err := command.New(command.Config{Agents: map[string]command.Agent{a.Name: one}}); err != nil {
			errs = append(errs, a.Errorf(keyAt(err), "is refused: %s", problemOf(err)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c, err := command.New(cfg)
	if err != nil {
		return fmt.Errorf("the agents that are command lines: %w", inKeys(err))
	}
	f.add("command", programs{c, f}, agents)
	f.inTurn = c.TaskInTurn
	f.closers = append(f.closers, c.Close)
	return nil
}

// group is a set of agents that share a client.
type group struct {
	name   string // name of the client
	agents []settings.Agent
}

// The function "groups" returns groups of agents that can share a client, in a fixed order. The function
// "common" returns the settings that must be equal for all agents of a client.
//
// The records of kept tasks contain the name of their client. Therefore, the name depends on these
// settings and on nothing else. It does not change if other agents are added or if the order of the
// agents changes. A client with different settings has a different name, so it never continues
// these tasks.
func groups(kind string, agents []settings.Agent, common func(settings.Agent) []string) []group {
	by := map[string][]settings.Agent{}
	for _, a := range agents {
		key := strings.Join(common(a), "\x00")
		by[key] = append(by[key], a)
	}
	var out []group
	for _, key := range slices.Sorted(maps.Keys(by)) {
		sum := sha256.Sum256([]byte(key))
		out = append(out, group{kind + "-" + hex.EncodeToString(sum[:8]), by[key]})
	}
	return out
}

// createTimeout returns how long creating a session can take, or 0 if no time is configured. Clients get less
// time to start a program or make a request, so that they can report an error before the creation times out.
func (f *Fleet) createTimeout() time.Duration {
	var cfg bgagent.Config
	f.set.Limits.Apply(&cfg)
	return cfg.CreateTimeout
}

// requestTimeout returns how long an opencode server can take to answer. This limit depends on the limit for
// creating a session, because the first request for a directory is slow and is part of that creation.
func (f *Fleet) requestTimeout() time.Duration {
	if half := f.createTimeout() / 2; half > 15*time.Second {
		return half
	}
	return 0 // the client's default
}

func (f *Fleet) addACP() error {
	files := map[string]acp.FileAccess{"read": acp.FilesRead, "write": acp.FilesReadWrite}
	all := groups("acp", f.of(settings.ACP), func(a settings.Agent) []string {
		return append(slices.Concat(a.Command, []string{"\x01"}, a.Env), "\x01", a.Directory, a.Auth, a.Files, fmt.Sprint(a.Terminals))
	})
	var errs []error
	for _, g := range all {
		first := g.agents[0]
		cfg := acp.Config{Command: first.Command, Dir: first.Directory, Env: first.Env, Auth: first.Auth, Files: files[first.Files], Instance: f.options.Instance, Logger: f.options.Logger, Printed: f.printed, StartTimeout: f.createTimeout() / 3 * 2, Agents: map[string]acp.Agent{}}
		if first.Terminals {
			cfg.Terminal = func(context.Context, acp.TerminalRequest) error { return nil }
		}
		for _, a := range g.agents {
			cfg.Agents[a.Name] = acp.Agent{Description: a.Description, Mode: a.Mode, Model: a.Model}
		}
		c, err := acp.New(cfg)
		if err != nil {
			errs = append(errs, first.Errorf(keyAt(err), "is refused: %s", problemOf(err)))
			continue
		}
		f.add(g.name, speakers{c, f}, g.agents)
		f.closers = append(f.closers, func(context.Context) error { return c.Close() })
	}
	return errors.Join(errs...)
}

func (f *Fleet) addOpencode() error {
	all := groups("opencode", f.of(settings.Opencode), func(a settings.Agent) []string {
		return []string{a.URL, a.Username, a.PasswordEnv, a.Directory}
	})
	var errs []error
	for _, g := range all {
		first := g.agents[0]
		cfg := opencode.Config{Timeout: f.requestTimeout(), URL: first.URL, Username: first.Username, Directory: first.Directory, Tools: withheld()}
		if first.PasswordEnv != "" {
			cfg.Password = os.Getenv(first.PasswordEnv)
		}
		c, err := opencode.New(cfg)
		if err != nil {
			errs = append(errs, first.Errorf(cmp.Or(keyAt(err), "url"), "is refused: %s", problemOf(err)))
			continue
		}
		f.add(g.name, remote{c, f}, g.agents)
		f.closers = append(f.closers, func(context.Context) error { return c.Close() })
	}
	return errors.Join(errs...)
}

// The function "withheld" returns settings that switch off this program's own tools on a server, whatever
// prefix the server gives them. A task's depth cannot be passed to a server's agents, so agents with these
// tools could launch agents without limit.
func withheld() map[string]bool {
	out := map[string]bool{}
	for _, name := range []string{bgagent.ToolDelegateTask, bgagent.ToolBackgroundOutput, bgagent.ToolBackgroundCancel} {
		out["*"+name] = false
	}
	return out
}

// remote is a client for agents of the kind "opencode". These agents can have different names on
// their server.
type remote struct {
	*opencode.Client
	f *Fleet
}

// CreateSession implements [bgagent.SessionClient].
func (r remote) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	s.Agent = r.f.agents[s.Agent].Remote
	id, err := r.Client.CreateSession(ctx, s)
	return id, inKeys(err)
}

// StartTurn implements [bgagent.TurnStarter].
func (r remote) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	p.Agent = r.f.agents[p.Agent].Remote
	return r.f.turnError(r.Client.StartTurn(ctx, session, p))
}
