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

// Launch starts a task and returns at once with its first snapshot, pending or
// already running. It calls Config.PrepareLaunch, Config.Model, Config.ClientFor
// and Config.AgentPermissions, and looks up the parents of a session that is not
// a task's own; ctx bounds these and nothing else: the task lives on after it.
// The values of ctx are kept for the task's host calls.
//
// A repetition by the same caller with the same non-empty tool-call id, agent
// and prompt returns the same task while that is live: it is a retry. Afterwards
// it is another call, because model servers use ids again. The error is an [*InputError] for a missing
// agent or prompt, or matches [ErrClosed], [ErrDepth], [ErrTooManyTasks],
// [ErrSessionEnded] or [ErrParentCycle]; then nothing was launched.
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

// repeated returns the task that the same tool call has launched before, without
// asking the host anything again.
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

// plan is a launch that has been looked at and not been admitted yet.
type plan struct {
	in     LaunchInput
	values launchValues
	key    kindKey
	cl     *client
	own    []Permission // the agent's own rules
	chain  []SessionInfo
	asked  [2]string // agent and prompt, as the caller gave them
}

// prepare does what needs the host, before the lock is taken.
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
		p.own, err = within(ctx, m, goCall, "Config.AgentPermissions", m.cfg.CallTimeout, func(context.Context) ([]Permission, error) {
			return slices.Clone(m.cfg.AgentPermissions(in.Agent)), nil
		})
		if err != nil {
			return p, err
		}
	}
	p.chain, err = m.lookUpParents(ctx, by.Session)
	return p, err
}

// prepareLaunch lets the host complete the input. It is a function of its own so
// that the input escapes to the heap only where there is such a host.
func (m *BackgroundManager) prepareLaunch(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error) {
	in.Metadata = maps.Clone(in.Metadata)
	return within(ctx, m, goCall, "Config.PrepareLaunch", m.cfg.CallTimeout, func(ctx context.Context) (LaunchInput, error) {
		in, err := m.cfg.PrepareLaunch(ctx, by, in)
		return in, lookedAt(err)
	})
}

// modelFor returns the model that the agent uses when asked for one.
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

// lookUpParents returns what the clients know of a session that is not a
// task's own: its own entry first, then its parents'. It asks only for sessions
// that have no node yet.
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

// findSession asks the clients in turn for a session.
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
		s = strings.Clone(s) // it outlives the prompt that it may be a part of
	}
	return s
}
