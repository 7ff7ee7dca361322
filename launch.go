package bgagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
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
	m.update(func(now int64) {
		var t *task
		if t, err = m.admitLocked(by, &p, foreground, now); err == nil {
			snap = m.snapshotLocked(t)
		} else if n := m.nodes[by.Session]; n != nil {
			m.dropNodeLocked(n)
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
	hash := m.callHash(by, clean(strings.TrimSpace(in.Agent)), clean(in.Prompt))
	m.update(func(int64) {
		if m.closing || m.draining {
			return
		}
		if t := m.sameCallLocked(by, hash, foreground); t != nil {
			snap, ok = m.snapshotLocked(t), true
		}
	})
	return snap, ok
}

// sameCallLocked returns the task that the call launched before, or nil.
func (m *BackgroundManager) sameCallLocked(by Caller, hash uint64, foreground bool) *task {
	t := m.calls[hash]
	if t == nil || t.call != by.ToolCallID || m.callHashOf(t) != hash {
		return nil
	}
	m.awaitLocked(t, foreground)
	return t
}

// awaitLocked notes that a repeated call waits for the task, which may have gone
// on in the background.
func (m *BackgroundManager) awaitLocked(t *task, foreground bool) {
	if foreground && t.live() {
		t.set(flagForeground|flagUnanswered, true)
	}
}

// forgetCallLocked is called when the task's latest attempt has ended and nobody
// is left to be handed its end: the id of the tool call that began it guards
// against a retry, which cannot come any more. What comes under it is new.
func (m *BackgroundManager) forgetCallLocked(t *task) {
	if t.live() || t.is(flagUnanswered) {
		return
	}
	if t.call != "" {
		if h := m.callHashOf(t); m.calls[h] == t {
			delete(m.calls, h)
		}
	}
	if t.more != nil {
		t.more.again = 0
	}
}

// plan is a launch that has been looked at and not been admitted yet.
type plan struct {
	in    LaunchInput
	ctx   context.Context
	key   kindKey
	cl    *client
	own   []Permission // the agent's own rules
	chain []SessionInfo
	asked [2]string // agent and prompt, as the caller gave them
}

// prepare does what needs the host, before the lock is taken.
func (m *BackgroundManager) prepare(ctx context.Context, by Caller, in LaunchInput) (p plan, err error) {
	if err := ctx.Err(); err != nil {
		return p, err
	}
	if m.isClosed() {
		return p, ErrClosed
	}
	in.Agent = clean(strings.TrimSpace(in.Agent))
	in.Prompt = clean(in.Prompt)
	p.asked = [2]string{in.Agent, in.Prompt}
	if m.cfg.PrepareLaunch != nil {
		if in, err = m.prepareLaunch(ctx, by, in); err != nil {
			return p, fmt.Errorf("preparing the launch: %w", err)
		}
		in.Agent = clean(strings.TrimSpace(in.Agent))
		in.Prompt = clean(in.Prompt)
	}
	if invisible(in.Agent) {
		return p, &InputError{"Agent", "is missing; it must name the agent that is to do the work"}
	}
	if invisible(in.Prompt) {
		return p, &InputError{"Prompt", "is missing; it must say what the agent is to do"}
	}
	in.Description = title(in.Description, in.Prompt)
	p.in, p.ctx = in, ctx
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

// prepareLaunch lets the host complete the input. It is a function of its own lest
// the input be put on the heap where there is no such host.
func (m *BackgroundManager) prepareLaunch(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error) {
	in.Metadata = maps.Clone(in.Metadata)
	return within(ctx, m, goCall, "Config.PrepareLaunch", m.cfg.CallTimeout, func(ctx context.Context) (LaunchInput, error) {
		in, err := m.cfg.PrepareLaunch(ctx, by, in)
		return in, lookedAt(err)
	})
}

// modelFor returns the model that the agent uses when asked for one.
func (m *BackgroundManager) modelFor(ctx context.Context, agent, asked string) (string, error) {
	asked = clean(strings.TrimSpace(asked))
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
	if !slices.ContainsFunc(m.clients, func(cl *client) bool { return cl.finder != nil }) {
		return nil, nil
	}
	seen := map[string]bool(nil)
	for s != "" {
		m.mu.Lock()
		known := m.nodes[s] != nil || m.sessions.find(s) != nil
		m.mu.Unlock()
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
	for _, cl := range m.clients {
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

// admitLocked makes the task, or says why not.
func (m *BackgroundManager) admitLocked(by Caller, p *plan, foreground bool, now int64) (*task, error) {
	if m.closing || m.draining {
		return nil, ErrClosed
	}
	var hash uint64
	if by.ToolCallID != "" {
		hash = m.callHash(by, p.asked[0], p.asked[1])
		if t := m.sameCallLocked(by, hash, foreground); t != nil {
			return t, nil
		}
	}
	n, err := m.launchNodeLocked(by.Session, p.chain)
	if err != nil {
		return nil, err
	}
	top, depth := n.root()
	if depth >= m.cfg.MaxDepth {
		return nil, fmt.Errorf("%w: the session is at depth %d of at most %d; do the work in the session itself", ErrDepth, depth, m.cfg.MaxDepth)
	}
	if err := m.roomLocked(top); err != nil {
		return nil, err
	}

	t := &task{m: m, up: n, title: p.in.Description, text: p.in.Prompt, call: by.ToolCallID, queued: now, no: 1, debt: -1}
	for {
		id, num := m.newIDLocked("bg_", firstPrompt)
		if m.tasks[num] == nil && num != 0 {
			t.ids = id
			m.tasks[num] = t
			break
		}
	}
	m.peak = max(m.peak, len(m.tasks))
	if hash != 0 && m.calls[hash] == nil {
		m.calls[hash] = t
	}
	p.key.depth = depth + 1
	t.kind = m.kindLocked(p.key, p.cl, p.own)
	if hash != 0 && m.callHashOf(t) != hash { // it was launched with something else than was asked for
		t.extra().call = hash
	}
	t.set(flagForeground|flagUnanswered, foreground)
	if p.ctx != context.Background() {
		t.extra().values = context.WithoutCancel(p.ctx)
	}
	if len(p.in.Metadata) > 0 {
		t.extra().metadata = maps.Clone(p.in.Metadata)
	}
	if dir := cmp.Or(p.in.Directory, n.directory()); dir != "" {
		t.extra().directory = dir
	}
	if p.in.System != "" {
		t.extra().system = p.in.System
	}
	n.link(t)
	m.openLocked(t, +1)
	m.emitLocked(EventLaunched, t)
	m.logLocked(logLaunched, t)
	m.queueLocked(t, now)
	return t, nil
}

// roomLocked checks the number of live tasks under a root.
func (m *BackgroundManager) roomLocked(top *node) error {
	if limit := m.cfg.MaxTasksPerRoot; limit != Unlimited && top.tree >= limit {
		return fmt.Errorf("%w: session %q has %d of at most %d; wait for some to end or cancel them", ErrTooManyTasks, top.session, top.tree, limit)
	}
	return nil
}

// launchNodeLocked returns the node of the launching session, linked to its
// parents.
func (m *BackgroundManager) launchNodeLocked(session string, chain []SessionInfo) (*node, error) {
	n := m.nodeLocked(session)
	if n.gone {
		return nil, fmt.Errorf("%w: session %q is gone", ErrSessionEnded, session)
	}
	switch t := n.parentTask(); {
	case t == nil:
	case !t.live() && t.status != Completed:
		return nil, fmt.Errorf("%w: task %s was ended (%s)", ErrSessionEnded, t.id(), t.cause)
	case t.is(flagUnstarted): // the turn that asks is still the earlier attempt's
		return nil, fmt.Errorf("%w: task %s was ended, and its next attempt has not begun", ErrSessionEnded, t.id())
	}
	for at := n; len(chain) > 0 && at.of == nil && at.up == nil; chain = chain[1:] {
		at.dir = chain[0].Directory
		if chain[0].Parent == "" {
			break
		}
		up := m.nodeLocked(chain[0].Parent)
		if up.under(at.session) {
			return nil, fmt.Errorf("session %q: %w", session, ErrParentCycle)
		}
		at.up = up
		up.subs = append(up.subs, at)
		top, _ := up.root()
		top.tree += at.tree
		at.tree = 0
		at = up
	}
	return n, nil
}

func (m *BackgroundManager) callHash(by Caller, agent, prompt string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, s := range [...]string{by.Session, by.ToolCallID, agent, prompt} {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return max(h.Sum64(), 1)
}

// callHashOf returns the hash that the task's launch had.
func (m *BackgroundManager) callHashOf(t *task) uint64 {
	if t.more != nil && t.more.call != 0 {
		return t.more.call
	}
	return m.callHash(Caller{t.up.session, t.call}, t.kind.key.agent, t.text)
}

// queueLocked puts a pending task in line for a slot.
func (m *BackgroundManager) queueLocked(t *task, now int64) {
	if d := m.cfg.QueueTimeToLive; d > 0 && t.extra().ttl == nil {
		t.more.ttl = &alarm{}
		m.alarmLocked(t.more.ttl, (*queueTTL)(t), now+int64(d))
	}
	if t.is(flagUnstarted) {
		return
	}
	t.wait.owner = t
	if m.cm.take(&t.wait, t.kind.key.model, t.kind.key.agent, false, m.cm.ticket()) {
		m.grantedLocked(t, now)
	}
}

// queueTTL rings when a pending task has waited for too long.
type queueTTL task

func (q *queueTTL) ringLocked(m *BackgroundManager, now int64) {
	t := (*task)(q)
	if t.status == Pending {
		m.endLocked(t, CauseQueueTimeToLive, fmt.Sprintf("waited %s for a slot; Config.QueueTimeToLive (queueTtlMs) decides how long a task may", setting(m.cfg.QueueTimeToLive)), now)
	}
}

// slotGranted is called, without locks, when somebody else's release gave a
// slot to the task.
func (t *task) slotGranted(w *waiter) {
	m := t.m
	m.update(func(now int64) {
		// Meanwhile the task may have left, and even have got another slot.
		if m.cm.holds(w) && (t.status == Pending && !t.is(flagUnstarted) || t.run != nil && t.run.wantTurn) {
			m.grantedLocked(t, now)
		}
	})
}

// grantedLocked goes on with the task that has just got its slot: it starts, or
// has its next turn.
func (m *BackgroundManager) grantedLocked(t *task, now int64) {
	t.set(flagSlot, true)
	switch {
	case t.status == Pending:
		m.startLocked(t, now)
	case t.status == Running && t.run != nil && t.run.wantTurn:
		m.nextTurnLocked(t.run, now)
	default:
		panic("bgagent: bug: a slot for task " + t.id() + ", which is " + t.status.String() + " and wants none")
	}
}

// releaseLocked gives the slot of t back, or its place in line, and lets the
// next in line start.
func (m *BackgroundManager) releaseLocked(t *task, now int64) {
	t.set(flagSlot, false)
	next := m.cm.leave(&t.wait)
	if next == nil {
		return
	}
	if t, ok := next.owner.(*task); ok && t.m == m { // of another's nothing else may be read here
		m.grantedLocked(t, now)
		return
	}
	m.fx.grants = append(m.fx.grants, next)
}

// startLocked makes the attempt of a pending task that has got its slot.
func (m *BackgroundManager) startLocked(t *task, now int64) {
	t.transition(Running, CauseNone)
	if x := t.more; x != nil && x.ttl != nil {
		m.alarmLocked(x.ttl, (*queueTTL)(t), 0)
		x.ttl = nil
	}
	a := &attempt{t: t, no: t.no, m: m, cl: t.kind.cl, started: now, phase: PhaseStarting, prompt: t.text, stage: stageCreate, w: &nothingSeen}
	if t.more != nil {
		a.ctx.values = t.more.values
		a.prompt = joined(t.more.unsaid, t.text)
	}
	if t.sess != nil {
		a.stage = stagePrompt
	}
	a.activity = now
	t.run = a
	m.emitLocked(EventStarted, t)
	m.logLocked(logStarted, t)
	m.pokeLocked(t)
	m.runLocked(a)
}

// runLocked wants a goroutine for the attempt once the lock has been given back.
func (m *BackgroundManager) runLocked(a *attempt) {
	if m.fx.start == nil {
		m.fx.start = a
	} else {
		m.fx.startEnd.nextRun = a
	}
	m.fx.startEnd = a
}
