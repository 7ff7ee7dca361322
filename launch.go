package bgagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Launch launches a task and returns a snapshot of the task, which is pending or already running.
// Launch does not wait for the task to end. First, it calls Config.PrepareLaunch, Config.Model,
// Config.ClientFor and Config.AgentPermissions. If the caller's session does not belong to a task,
// Launch also looks up the parents of that session. ctx bounds only these calls: if ctx ends later,
// the task continues. The host calls of the task get the values of ctx.
//
// A call is a retry if it has the same caller, agent, prompt and non-empty tool-call id as an
// earlier call, and if the task of the earlier call is live. For a retry, Launch returns that task.
// After that task has ended, Launch launches a new task, because model servers reuse tool-call ids.
//
// The error is an [*InputError] in four cases: the agent or the prompt is missing, Config.ClientFor
// names a client that does not exist, Config.AgentPermissions returns an invalid rule, or a budget
// is invalid or limits usage that the client does not report correctly. The error is a
// [*BudgetError] if a budget of the tree is used up. Otherwise it matches [ErrClosed], [ErrDepth],
// [ErrTooManyTasks], [ErrSessionEnded] or [ErrParentCycle], or it is the context's error or the
// error from a host call. If Launch returns an error, it has not launched a task.
//
// With [Config].Store, Launch waits until the task is durable in the store. It stops waiting when
// ctx ends or after Config.StoreTimeout. If the task has not been written by then, or cannot be
// written, Launch withdraws the task and returns an error that matches [ErrStore]. If earlier
// writes have failed and no write has succeeded since then, Launch returns this error immediately.
// If the error also matches [ErrUncertain], the store might contain the task. The manager does not
// run the task and deletes it from the store later.
func (m *BackgroundManager) Launch(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	m.heard(by.Session)
	return m.launch(ctx, by, &in, nil)
}

// The method "launch" does the work of Launch and Run. w is nil for Launch. For Run, w waits for the
// end of the task from the moment of the launch, because the task can end and be resumed before the
// launch is durable.
func (m *BackgroundManager) launch(ctx context.Context, by Caller, in *LaunchInput, w *waiter) (snap Task, err error) {
	if err := m.start(ctx); err != nil {
		return Task{}, fmt.Errorf("bgagent: launch: %w", err)
	}
	t, snap := m.repeated(by, in, w)
	if t == nil {
		var p plan
		if err := m.prepare(ctx, by, in, &p); err != nil {
			return Task{}, fmt.Errorf("bgagent: launch: %w", err)
		}
		m.update(func(st *state, now int64) {
			if t, err = st.admit(by, &p, w != nil, now); err == nil {
				st.settle(now) // settling can start the task
				st.awaitEnd(t, w)
				snap = st.snapshot(t)
			} else if n := st.nodes[by.Session]; n != nil {
				st.touchNode(n)
			}
		})
		if err != nil {
			return Task{}, fmt.Errorf("bgagent: launch: %w", err)
		}
	}
	if err := m.accepted(ctx, t, snap.Attempt); err != nil {
		return Task{}, fmt.Errorf("bgagent: launch: %w", err)
	}
	return snap, nil
}

// The method "repeated" returns the live task that an earlier copy of the same tool call launched,
// if any. It does not call the host.
func (m *BackgroundManager) repeated(by Caller, in *LaunchInput, w *waiter) (t *task, snap Task) {
	if by.ToolCallID == "" {
		return nil, snap
	}
	hash := callHash(m.callSeed, by, mdtext.Valid(strings.TrimSpace(in.Agent)), mdtext.Valid(in.Prompt))
	m.update(func(st *state, _ int64) {
		if st.closing || st.draining {
			return
		}
		if t = st.sameCall(by, hash, w != nil); t != nil {
			st.awaitEnd(t, w)
			snap = st.snapshot(t)
		}
	})
	return t, snap
}

// plan is a launch that has been prepared but not yet admitted.
type plan struct {
	in         LaunchInput
	values     launchValues
	key        kindKey
	cl         *client
	agentRules []Permission // result of Config.AgentPermissions
	chain      []SessionInfo
	asked      [2]string // agent and prompt before Config.PrepareLaunch could change them
}

// prepare makes the host calls that precede a launch, and fills in the plan. The lock must not be held.
func (m *BackgroundManager) prepare(ctx context.Context, by Caller, launch *LaunchInput, p *plan) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.isClosed() {
		return ErrClosed
	}
	p.in = *launch
	in := &p.in
	in.Agent = mdtext.Valid(strings.TrimSpace(in.Agent))
	in.Prompt = mdtext.Valid(in.Prompt)
	p.asked = [2]string{in.Agent, in.Prompt}
	named := strings.TrimSpace(in.Model)
	if m.cfg.PrepareLaunch != nil {
		if p.in, err = m.prepareLaunch(ctx, by, p.in); err != nil {
			return fmt.Errorf("preparing the launch: %w", err)
		}
		in.Agent = mdtext.Valid(strings.TrimSpace(in.Agent))
		in.Prompt = mdtext.Valid(in.Prompt)
	}
	if mdtext.Invisible(in.Agent) {
		return &InputError{"Agent", "is missing; it must name the agent that is to do the work"}
	}
	if mdtext.Invisible(in.Prompt) {
		return &InputError{"Prompt", "is missing; it must say what the agent is to do"}
	}
	in.Description = title(in.Description, in.Prompt)
	p.values = valuesOf(ctx)
	p.key = kindKey{agent: in.Agent, model: in.Model, named: named != "" && strings.TrimSpace(in.Model) == named}
	if p.key.model, err = m.modelFor(ctx, in.Agent, in.Model); err != nil {
		return err
	}
	if p.cl, err = m.clientFor(ctx, in.Agent); err != nil {
		return err
	}
	p.key.client = p.cl.name
	m.learnFallback(p.cl, in.Agent)
	if err := m.checkBudgets(ctx, by.Session, in, p.cl); err != nil {
		return err
	}
	if agent := in.Agent; m.cfg.AgentPermissions != nil { // the closure gets a copy, so that the plan does not escape to the heap
		p.agentRules, err = within(ctx, m, goCall, "Config.AgentPermissions", m.cfg.CallTimeout, func(context.Context) ([]Permission, error) {
			return slices.Clone(m.cfg.AgentPermissions(agent)), nil
		})
		if err == nil {
			err = checkRules("Config.AgentPermissions", p.agentRules)
		}
		if err != nil {
			return err
		}
	}
	p.chain, err = m.lookUpParents(ctx, by.Session)
	return err
}

// prepareLaunch calls Config.PrepareLaunch. It is a separate function so that its argument escapes
// to the heap only if PrepareLaunch is set.
func (m *BackgroundManager) prepareLaunch(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error) {
	in.Metadata = maps.Clone(in.Metadata)
	return within(ctx, m, goCall, "Config.PrepareLaunch", m.cfg.CallTimeout, func(ctx context.Context) (LaunchInput, error) {
		in, err := m.cfg.PrepareLaunch(ctx, by, in)
		return in, lookedAt(err)
	})
}

// modelFor returns the model for the agent. "asked" is the model that the caller requested, or
// empty.
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

// lookUpParents asks the clients for the session s, for its parent, for the parent's parent, and so
// on. It returns a SessionInfo for each of them, in this order. It stops at a session that the
// state already knows or that no client knows.
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

// findSession asks the clients for a session, one client after another. The result "found" reports
// whether a client knows the session.
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

// title returns the description as one line, or the first line of the prompt if there is no
// description. The result is cut to titleMax bytes.
func title(description, prompt string) string {
	s := mdtext.Valid(description)
	if mdtext.Invisible(s) {
		s = strings.TrimSpace(prompt)
		if i := strings.IndexAny(s, "\r\n"); i >= 0 {
			s = s[:i]
		}
	}
	if s = mdtext.Joined(s, titleMax); len(prompt) > 2*titleMax {
		s = strings.Clone(s) // clone s, because a substring would keep the whole prompt in memory
	}
	return s
}

// Resume continues a task that has ended, with another prompt in the same session. ref is the id of
// the task or of its session. Resume opens a new attempt and does not wait for it to end. The new
// attempt waits for a slot like any other. ctx bounds only the host calls that Resume makes first:
// Config.Model if in.Model is set, and the calls that look up the parents if the caller's session
// does not belong to a task.
//
// If the session of the earlier attempt is still being stopped, the new attempt waits until the
// session has stopped. If the session does not stop in time, the new attempt fails. If a session
// resumes the task, that session is notified when the new attempt ends.
//
// A call is a retry if it has the same caller, prompt and non-empty tool-call id as an earlier call,
// and if the attempt of the earlier call is live. For a retry, Resume does not open another attempt.
//
// If the task was cancelled while it was pending, or could not start, its prompt has not reached
// the session. Resume then sends a single prompt: first all earlier prompts that have not reached
// the session, then the new prompt. If the new prompt is the same as the last earlier prompt, it is
// sent only once.
//
// The error is an [*InputError] if the prompt is missing. It matches [ErrStillLive] if the task has
// not ended, and [ErrNoSession] if the session of the task was deleted. Otherwise it matches
// [ErrNotStopped], [ErrUnknownTask], [ErrExpired], [ErrNotDescendant], [ErrTooManyTasks],
// [ErrSessionEnded], [ErrParentCycle] or [ErrClosed], or it is the context's error or the error
// from a host call.
//
// With [Config].Store, Resume waits for the store as Launch does, and returns the same errors. If
// Resume withdraws the attempt, the task is in the same state as before the call. If the store might
// contain the withdrawn attempt, later attempts do not reuse its number. If the store has the task
// but cannot read it, Resume does not open an attempt, and the error matches [ErrStore].
func (m *BackgroundManager) Resume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	m.heard(by.Session)
	return m.resume(ctx, by, ref, in, nil)
}

// The method "resume" does the work of Resume and RunResume. For w, see the method "launch".
func (m *BackgroundManager) resume(ctx context.Context, by Caller, ref string, in ResumeInput, w *waiter) (s Task, err error) {
	if err := m.start(ctx); err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	in.Prompt = mdtext.Valid(in.Prompt)
	if mdtext.Invisible(in.Prompt) {
		return s, fmt.Errorf("bgagent: resume: %w", &InputError{"Prompt", "is missing; it must say how the agent is to go on"})
	}
	ref = strings.TrimSpace(ref)
	if in.Model != "" || !in.Budget.isZero() || len(m.cfg.Fallback) > 0 {
		_ = m.fetch(ctx, ref) // fetchFor below returns the error again
		if in.Model, err = m.prepareResume(ctx, by, ref, in.Model, in.Budget); err != nil {
			return s, fmt.Errorf("bgagent: resume: %w", err)
		}
	}
	chain, err := m.lookUpParents(ctx, by.Session)
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	values := valuesOf(ctx)
	var t *task
	m.fetchFor(ctx, ref, func(st *state, now int64, unread error) {
		if unread != nil && !st.closing && !st.inMemory(ref) { // resuming the task without the data in its unreadable record would overwrite this record
			err = fmt.Errorf("%w: %w", ErrStore, unread)
			return
		}
		if t, err = st.resume(values, by, chain, ref, in, w != nil, now); err == nil {
			st.settle(now) // the attempt might start immediately
			st.awaitEnd(t, w)
			s = st.snapshot(t)
		} else if n := st.nodes[by.Session]; n != nil {
			st.touchNode(n)
		}
	})
	if err == nil {
		err = m.accepted(ctx, t, s.Attempt)
	}
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: resume: %w", err)
	}
	return s, nil
}

// prepareResume makes the host calls for the model and the budget of a resume, and returns the model.
// The lock must not be held.
func (m *BackgroundManager) prepareResume(ctx context.Context, by Caller, ref, asked string, budget Budget) (model string, err error) {
	if err := budget.check("Budget"); err != nil {
		return "", err
	}
	var k kindKey
	m.update(func(st *state, _ int64) { k, err = st.kindOf(by, ref) })
	if err != nil {
		return "", m.orLost(err)
	}
	if asked != "" {
		if model, err = m.modelFor(ctx, k.agent, asked); err != nil {
			return "", err
		}
	}
	if cl := m.client(k.client); cl != nil {
		m.learnFallback(cl, k.agent)
		err = m.reports(ctx, cl, k.agent, budgetOf{"Budget", budget})
	}
	return model, err
}

// The function "joined" combines two prompts with an empty line between them. If the first is
// empty, it returns the second. If the first already ends with the second, it returns the first.
func joined(first, then string) string {
	switch {
	case first == "":
		return then
	case first == then || strings.HasSuffix(first, "\n\n"+then):
		return first
	}
	return first + "\n\n" + then
}

// checkBudgets returns an error if the budgets of a launch are invalid, or if the client does not
// correctly report the usage that they limit. The lock must not be held.
func (m *BackgroundManager) checkBudgets(ctx context.Context, session string, in *LaunchInput, cl *client) error {
	if err := cmp.Or(in.Budget.check("Budget"), in.TreeBudget.check("TreeBudget")); err != nil {
		return err
	}
	task, tree := in.Budget, in.TreeBudget
	m.view(func(st *state) {
		if st.budgets || !task.isZero() || !tree.isZero() {
			task, tree = st.limitsFor(session, task, tree)
		}
	})
	if task.isZero() && tree.isZero() {
		return nil
	}
	return m.reports(ctx, cl, in.Agent, budgetOf{"budget of the task", task}, budgetOf{"budget of the tree", tree})
}

// budgetOf is a budget and the words that describe it in errors.
type budgetOf struct {
	field  string
	budget Budget
}

// The method "reports" returns an error if a budget limits usage that the client does not report
// correctly for the agent.
func (m *BackgroundManager) reports(ctx context.Context, cl *client, agent string, budgets ...budgetOf) error {
	h := m.host(cl)
	ask := func(what string, f func(agent string) bool) (bool, error) {
		return within(ctx, m, goCall, what, m.cfg.CallTimeout, func(context.Context) (bool, error) { return f(agent), nil })
	}
	for _, b := range budgets {
		problem, reports, err := "", true, error(nil)
		if h.costs != nil && b.budget.Cost > 0 {
			problem = "limits the cost, but the client of agent %q reports no cost; limit tokens or tool calls instead"
			reports, err = ask("ReportsCost", h.costs.ReportsCost)
		}
		if h.tokens != nil && reports && err == nil && b.budget.countsTokens() {
			problem = "limits tokens, but the client of agent %q does not report all tokens; limit tool calls instead"
			reports, err = ask("ReportsTokens", h.tokens.ReportsTokens)
		}
		switch {
		case err != nil:
			return err
		case !reports:
			return &InputError{b.field, fmt.Sprintf(problem, agent)}
		}
	}
	return nil
}
