package bgagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Launch starts a task and returns its first snapshot at once; the task is pending or already
// running. Launch calls Config.PrepareLaunch, Config.Model, Config.ClientFor and
// Config.AgentPermissions, and looks up the parents of a session that does not belong to a task.
// ctx bounds only these calls: the task outlives it. The task's host calls get the values of ctx.
//
// If the same caller repeats a call with the same non-empty tool-call id, agent and prompt while
// the task is live, Launch returns the same task: the call is a retry. After the task has ended,
// the call launches a new task, because model servers reuse ids.
//
// The error is an [*InputError] if the agent or the prompt is missing, or matches [ErrClosed],
// [ErrDepth], [ErrTooManyTasks], [ErrSessionEnded] or [ErrParentCycle]. After an error, nothing was
// launched.
func (m *BackgroundManager) Launch(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	return m.launch(ctx, by, in, false)
}

func (m *BackgroundManager) launch(ctx context.Context, by Caller, in LaunchInput, foreground bool) (snap Task, err error) {
	if snap, ok := m.repeated(by, in, foreground); ok {
		return snap, nil
	}
	p, err := m.prepare(ctx, by, in)
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: launch: %w", err)
	}
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.admit(by, &p, foreground, now); err == nil {
			st.settle(now) // it may start at once
			snap = st.snapshot(t)
		} else if n := st.nodes[by.Session]; n != nil {
			st.touchNode(n)
		}
	})
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: launch: %w", err)
	}
	return snap, nil
}

// repeated returns the task that the same tool call has launched before. It does not call the host.
func (m *BackgroundManager) repeated(by Caller, in LaunchInput, foreground bool) (snap Task, ok bool) {
	if by.ToolCallID == "" {
		return snap, false
	}
	hash := callHash(m.seed, by, mdtext.Valid(strings.TrimSpace(in.Agent)), mdtext.Valid(in.Prompt))
	m.update(func(st *state, _ int64) {
		if st.closing || st.draining {
			return
		}
		if t := st.sameCall(by, hash, foreground); t != nil {
			snap, ok = st.snapshot(t), true
		}
	})
	return snap, ok
}

// plan is a prepared launch that is not admitted yet.
type plan struct {
	in         LaunchInput
	values     launchValues
	key        kindKey
	cl         *client
	agentRules []Permission // of Config.AgentPermissions
	chain      []SessionInfo
	asked      [2]string // agent and prompt as the caller gave them
}

// prepare makes the host calls of a launch, before the lock is taken.
func (m *BackgroundManager) prepare(ctx context.Context, by Caller, in LaunchInput) (p plan, err error) {
	if err := ctx.Err(); err != nil {
		return p, err
	}
	if m.isClosed() {
		return p, ErrClosed
	}
	in.Agent = mdtext.Valid(strings.TrimSpace(in.Agent))
	in.Prompt = mdtext.Valid(in.Prompt)
	p.asked = [2]string{in.Agent, in.Prompt}
	if m.cfg.PrepareLaunch != nil {
		if in, err = m.prepareLaunch(ctx, by, in); err != nil {
			return p, fmt.Errorf("preparing the launch: %w", err)
		}
		in.Agent = mdtext.Valid(strings.TrimSpace(in.Agent))
		in.Prompt = mdtext.Valid(in.Prompt)
	}
	if mdtext.Invisible(in.Agent) {
		return p, &InputError{"Agent", "is missing; it must name the agent that is to do the work"}
	}
	if mdtext.Invisible(in.Prompt) {
		return p, &InputError{"Prompt", "is missing; it must say what the agent is to do"}
	}
	in.Description = title(in.Description, in.Prompt)
	p.in, p.values = in, valuesOf(ctx)
	p.key = kindKey{agent: in.Agent, model: in.Model}
	if p.key.model, err = m.modelFor(ctx, in.Agent, in.Model); err != nil {
		return p, err
	}
	if p.cl, err = m.clientFor(ctx, in.Agent); err != nil {
		return p, err
	}
	p.key.client = p.cl.name
	if m.cfg.AgentPermissions != nil {
		p.agentRules, err = within(ctx, m, goCall, "Config.AgentPermissions", m.cfg.CallTimeout, func(context.Context) ([]Permission, error) {
			return slices.Clone(m.cfg.AgentPermissions(in.Agent)), nil
		})
		if err == nil {
			err = checkRules("Config.AgentPermissions", p.agentRules)
		}
		if err != nil {
			return p, err
		}
	}
	p.chain, err = m.lookUpParents(ctx, by.Session)
	return p, err
}

// prepareLaunch lets the host complete the input. It is separate so that in escapes only when
// PrepareLaunch is set.
func (m *BackgroundManager) prepareLaunch(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error) {
	in.Metadata = maps.Clone(in.Metadata)
	return within(ctx, m, goCall, "Config.PrepareLaunch", m.cfg.CallTimeout, func(ctx context.Context) (LaunchInput, error) {
		in, err := m.cfg.PrepareLaunch(ctx, by, in)
		return in, lookedAt(err)
	})
}

// modelFor returns the model for the agent, if the caller asked for the given one.
func (m *BackgroundManager) modelFor(ctx context.Context, agent, asked string) (string, error) {
	asked = mdtext.Valid(strings.TrimSpace(asked))
	if m.cfg.Model == nil {
		return asked, nil
	}
	model, err := within(ctx, m, goCall, "Config.Model", m.cfg.CallTimeout, func(context.Context) (string, error) {
		return m.cfg.Model(agent, asked)
	})
	if err != nil {
		return "", fmt.Errorf("choosing the model of agent %q: %w", agent, err)
	}
	return strings.TrimSpace(model), nil
}

// lookUpParents returns what the clients know about a session that does not belong to a task: first
// the session itself, then its parents. It stops at a session that has a node.
func (m *BackgroundManager) lookUpParents(ctx context.Context, s string) (chain []SessionInfo, err error) {
	if !slices.ContainsFunc(m.hosts, func(cl *hostClient) bool { return cl.finder != nil }) {
		return nil, nil
	}
	seen := map[string]bool(nil)
	for s != "" {
		known := false
		m.view(func(st *state) { known = st.nodes[s] != nil || st.sessions.find(s) != nil })
		if known {
			return chain, nil
		}
		if seen[s] {
			return nil, fmt.Errorf("session %q: %w", s, ErrParentCycle)
		}
		info, found, err := m.findSession(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("looking up the parent of session %q: %w", s, err)
		}
		if !found {
			return chain, nil
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[s] = true
		chain = append(chain, info)
		s = info.Parent
	}
	return chain, nil
}

// findSession asks the clients for a session, one after the other.
func (m *BackgroundManager) findSession(ctx context.Context, session string) (info SessionInfo, found bool, err error) {
	for _, cl := range m.hosts {
		if cl.finder == nil {
			continue
		}
		info, err = within(ctx, m, goCall, "FindSession", m.cfg.CallTimeout, func(ctx context.Context) (SessionInfo, error) {
			info, err := cl.finder.FindSession(ctx, session)
			return info, lookedAt(err)
		})
		switch {
		case err == nil:
			return info, true, nil
		case errors.Is(err, ErrNoSession) || errors.Is(err, errors.ErrUnsupported):
		default:
			return info, false, err
		}
	}
	return info, false, nil
}

// title returns the description, or the beginning of the prompt, as one line.
func title(description, prompt string) string {
	s := mdtext.Valid(description)
	if mdtext.Invisible(s) {
		s = strings.TrimSpace(prompt)
		if i := strings.IndexAny(s, "\r\n"); i >= 0 {
			s = s[:i]
		}
	}
	if s = mdtext.Joined(s, titleMax); len(prompt) > 2*titleMax {
		s = strings.Clone(s) // cloned: a slice would keep the whole prompt alive
	}
	return s
}

// Resume continues an ended task with another prompt in the same session. ref is the id of the task
// or of its session. Resume opens a new attempt, which queues like any other, and returns at once.
// ctx bounds only what Resume asks the host first: Config.Model, and the parents of a session that
// does not belong to a task.
//
// If the earlier attempt is still being stopped, the new one waits for that. If the earlier one
// does not stop in time, the new one fails. From now on, the session that resumed the task is told
// about its end.
//
// If the same caller repeats a call with the same non-empty tool-call id and prompt while the
// attempt is live, Resume opens no further attempt. If earlier prompts never reached the session,
// because the task was cancelled in line or could not start, they precede the new prompt in one
// text.
//
// The error matches [ErrStillLive] for a task that has not ended, [ErrNotStopped],
// [ErrUnknownTask], [ErrExpired], [ErrNotDescendant], [ErrNoSession] for a session that was
// deleted, [ErrTooManyTasks] or [ErrClosed].
func (m *BackgroundManager) Resume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	return m.resume(ctx, by, ref, in, false)
}

func (m *BackgroundManager) resume(ctx context.Context, by Caller, ref string, in ResumeInput, foreground bool) (s Task, err error) {
	if err := ctx.Err(); err != nil {
		return s, err
	}
	in.Prompt = mdtext.Valid(in.Prompt)
	if mdtext.Invisible(in.Prompt) {
		return s, fmt.Errorf("bgagent: resume: %w", &InputError{"Prompt", "is missing; it must say how the agent is to go on"})
	}
	ref = strings.TrimSpace(ref)
	model := ""
	if in.Model != "" {
		var agent string
		m.update(func(st *state, _ int64) {
			var k kindKey
			if k, err = st.kindOf(by, ref); err == nil {
				agent = k.agent
			}
		})
		if err == nil {
			model, err = m.modelFor(ctx, agent, in.Model)
		}
		if err != nil {
			return s, fmt.Errorf("bgagent: resume: %w", err)
		}
	}
	chain, err := m.lookUpParents(ctx, by.Session)
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	values := valuesOf(ctx)
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.resume(values, by, chain, ref, in.Prompt, model, foreground, now); err == nil {
			st.settle(now) // it may start at once
			s = st.snapshot(t)
		} else if n := st.nodes[by.Session]; n != nil {
			st.touchNode(n)
		}
	})
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	return s, nil
}

// joined joins two prompts with an empty line.
func joined(first, then string) string {
	if first == "" {
		return then
	}
	return first + "\n\n" + then
}
