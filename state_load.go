package bgagent

import (
	"cmp"
	"slices"
	"time"
)

// The code in this file makes the state of a new manager from the records in a store. The loaded
// attempts do not run yet. The code in state_restore.go continues them.

// The method "at" converts a wall time from a record to a time on the state's clock. It is the
// inverse of wall.
func (st *state) at(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(int64(t.Sub(st.epoch)), 1)
}

// load adds the tasks and sessions of a store to the empty state.
func (st *state) load(tasks []*storedTask, nodes []*storedNode, now int64) {
	slices.SortFunc(tasks, func(a, b *storedTask) int {
		return cmp.Or(a.Queued.Compare(b.Queued), cmp.Compare(a.id, b.id))
	})
	loaded := make([]*task, len(tasks))
	for i, x := range tasks {
		loaded[i] = st.loadTask(x)
	}
	for i, t := range loaded { // at this point, all sessions are known, so st.node finds the tasks of the parents
		t.up = st.node(tasks[i].Parent)
		t.up.link(t)
	}
	for _, x := range nodes {
		st.loadNode(x)
	}
	packed := st.loadEnvelopes(tasks, nodes)
	ends := map[*node][]loadedEnd{}
	for i, t := range loaded {
		ends[t.up] = append(ends[t.up], t.endsOf(tasks[i], packed)...)
		st.loadStatus(t, tasks[i], now)
		if t.call != "" && t.live() && t.followed(1) == t.no { // the attempt was not opened by a resume
			if h := st.callHashOf(t); st.calls[h] == nil {
				st.calls[h] = t
			}
		}
	}
	for n, list := range ends {
		st.loadBatches(n, list, now)
	}
	for _, n := range st.nodes {
		st.loadAsks(n, now)
		st.touchNode(n)
	}
	st.peak = len(st.tasks)
}

// loadTask makes a task from its record. It sets neither the task's place in the tree nor its
// status.
func (st *state) loadTask(x *storedTask) *task {
	t := &task{
		st: st, ids: x.id, title: x.Title, text: x.texts[textOf("prompt", x.Attempt)], call: x.Call,
		queued: st.at(x.Queued), no: x.Attempt,
	}
	t.kind = st.kind(kindKey{agent: x.Agent, model: x.Model, client: x.Client, depth: x.Depth, named: !x.ModelChosen}, x.cl, x.Rules)
	if x.Metadata != nil || x.System != "" || x.Directory != "" || x.Past != nil || x.CallHash|x.ResumeHash != 0 || x.Unsaid != "" {
		m := t.extra()
		m.metadata, m.system, m.directory, m.past = x.Metadata, x.System, x.Directory, x.Past
		m.call, m.again, m.unsaid = x.CallHash, x.ResumeHash, x.texts[x.Unsaid]
	}
	if x.Budget != nil {
		t.extra().budget = x.Budget.budget()
		st.budgets = st.budgets || !x.Budget.Limits.isZero()
	}
	t.loadLetters(x)
	t.loadFallen(x.Fallen)
	t.wait.Owner = t
	num, _ := parseID(x.id)
	st.tasks[num] = t
	st.loadMark(t, x)
	if x.Foreground {
		t.flags |= flagForeground
	}
	if s := x.Session; s != nil {
		t.sess = &session{id: s.ID, task: t, cursor: s.Cursor, gone: s.Gone, stuck: s.Stuck, foreign: s.Instance != st.storing.instance}
		st.sessions.add(t.sess)
	}
	return t
}

// loadMark notes which of the task's record and texts are already in the store. These are written
// again only if they change.
func (st *state) loadMark(t *task, x *storedTask) {
	s := st.storing
	m := s.task(t)
	m.restarts, m.outlived, m.burnt, m.batch, m.past = x.Restarts, x.Outlived, x.Burnt, x.Batch, x.PastBatches
	m.last, m.taken = (&recorded{rec: x.rec}).image(), s.committed
	m.sessions = x.Sessions
	names, _ := x.textNames()
	for _, name := range names {
		m.texts[name] = s.committed
	}
	if x.Session != nil {
		m.saved, m.sessions, m.home = x.Session.Saved, x.Session.Number, x.Session.Home
		if x.Session.Instance != s.instance {
			m.instance = x.Session.Instance
		}
	}
}

// loadNode restores a session that delegates, along with its place in the tree.
func (st *state) loadNode(x *storedNode) {
	n := st.node(x.session)
	m := st.storing.node(n)
	m.saves, m.last, m.taken, m.batch = true, (&recorded{rec: x.rec}).image(), st.storing.committed, x.Batch
	n.dir, n.gone, n.lapsed, n.scope = x.Dir, x.Gone, x.Lapsed, x.Scope
	if x.Parent == "" && !x.Lapsed || n.of != nil || n.up != nil { // the parent of a lapsed node can be the session with the empty id
		st.loadAccount(n, x.Account)
		return
	}
	if up := st.node(x.Parent); !up.under(n.session) {
		n.up = up
		up.subs = append(up.subs, n)
	}
}

// loadStatus sets the status that the task's record describes.
func (st *state) loadStatus(t *task, x *storedTask, now int64) {
	if x.Status != Pending {
		t.transition(Running, CauseNone)
	}
	if x.Run != nil {
		st.loadRun(t, x, now)
	}
	st.loadQuestions(t, x)
	if x.Status.Terminal() {
		t.transition(x.Status, x.Cause)
		st.loadEnd(t, x)
		st.expirable(t, now)
		return
	}
	st.countLive(t, +1)
	t.set(flagAwaitsQuiet, x.Status == Pending && t.run != nil)
	st.recovery.tasks = append(st.recovery.tasks, t)
	st.storing.task(t).queueEnds = x.QueueEnds
}

// leaveEarlier replaces the task's state in the earlier process with its state in this one. Until
// leaveEarlier is called, the task's record does not change.
func (st *state) leaveEarlier(t *task, seen time.Time, now int64) {
	mark := st.storing.task(t)
	if ends := mark.queueEnds; t.status == Pending && !ends.IsZero() { // the time during which no process runs does not count as queue time
		t.extra().ttl = &alarm{}
		st.deadlines.queued.set(t.more.ttl, t, now+int64(max(ends.Sub(seen), 1)))
	}
	mark.queueEnds, mark.overrun = time.Time{}, false
	if t.live() {
		t.set(flagForeground, false)
	}
	if a := t.run; a != nil && a.live() && a.parkedFor == notParked {
		a.phase = PhaseStarting
		if mark.turnStart == 0 && a.turn > 0 { // the process ended before the start of the turn was recorded
			mark.turnStart = st.at(seen)
		}
		st.leaveQuestions(a, now)
	}
	st.changed(t)
}

// loadRun restores an attempt that was running or being stopped when the process ended.
func (st *state) loadRun(t *task, x *storedTask, now int64) {
	r := x.Run
	a := &attempt{
		t: t, no: r.Attempt, cl: t.kind.cl, started: st.at(r.Started), phase: PhaseStarting, activity: now, sight: &nothingSeen,
		ran: r.Ran, output: r.Output, openTodos: r.OpenTodos, text: x.texts[r.Text], turn: r.Turn, promptID: r.Prompt, heard: r.Heard,
	}
	t.run = a
	if r.ToolCalls > 0 {
		s := a.seen()
		s.prog.toolCalls, s.counted.calls, s.base.calls = r.ToolCalls, r.ToolCalls, r.ToolCalls // budgets have already counted the tool calls of earlier turns
	}
	mark := st.storing.task(t)
	mark.instance, mark.turnStart, mark.before, mark.overrun = r.Instance, st.at(r.TurnStart), r.Before, r.Overrun
	mark.since, mark.counted, mark.prompts[0] = st.at(r.Since), r.Counted.spent(), r.PromptOf
	if a.text == "" {
		mark.said = r.Text
	}
	a.refused = st.loadRefused(r.Refused, x.texts)
	a.prompt, a.endCause = joined(t.unsaid(), t.text), r.EndCause
	if r.PromptOf != "" {
		a.prompt = x.texts[r.PromptOf]
	}
	if f := a.refused; f != nil && f.kind != 0 {
		a.forgot = a.forgets(f.step, f.prompt)
	}
	switch {
	case r.Stopping:
		a.ended, a.phase = true, PhaseStopping // even if the session missed its stopping deadline, this process again tries to stop it
		st.unquiet++
		st.inStopTime++
		if x.Status.Terminal() { // loadStatus adds live tasks to the list
			st.recovery.tasks = append(st.recovery.tasks, t)
		}
		return
	case r.Waits:
		a.parkAgain(r.EndCause)
		return
	case r.Phase == PhaseTurn || r.Phase == PhaseAsking:
		a.phase = r.Phase
	}
	a.recovering = true
	a.stage = stageCreate
	if t.sess != nil {
		a.stage = stagePrompt
	}
	if own := t.ownNode(); own != nil && own.env != nil { // own.env holds the notice that is the prompt of the attempt
		a.notice, own.env.flying = own.env, true
	}
}

// ownNode returns the node of the tasks that the task has launched, or nil.
func (t *task) ownNode() *node {
	if t.sess == nil {
		return nil
	}
	return t.sess.own
}

// loadEnd restores the outcome of the task's latest attempt.
func (st *state) loadEnd(t *task, x *storedTask) {
	e := x.End
	f := &outcome{
		started: st.at(e.Started), ended: st.at(e.Ended), activity: st.at(e.Activity), reason: e.Reason, result: x.texts[e.Result],
		turns: e.Turns, todos: e.OpenTodos, partial: e.Partial, unsaid: e.Unsaid,
	}
	if e.Thought {
		f.is |= resultThought
	}
	if e.Cut {
		f.is |= resultCut
	}
	if e.ToolCalls > 0 || e.LastText != "" || e.Todos != nil || e.Usage != (Usage{}) {
		f.prog = &progress{
			toolCalls: e.ToolCalls, lastTool: e.LastTool, lastText: e.LastText, lastTextA: st.at(e.LastAt),
			todos: e.Todos, todosSeen: e.Todos != nil, usage: e.Usage,
		}
	}
	t.fin, t.notice = f, x.Notice
	t.set(flagDropped, e.Dropped || e.Result != "" && f.result == "")
	st.keep.text += int64(len(f.result))
}

// loadedEnd is the end of one loaded attempt.
type loadedEnd struct {
	member
	at    time.Time
	batch uint32
	owed  bool // the end is owed, but no envelope contains it
}

// endsOf returns the ends that the task's record describes. packed contains the ends that are
// already in an envelope.
func (t *task) endsOf(x *storedTask, packed map[member]bool) (ends []loadedEnd) {
	t.setReclaimable(x.Reclaimable)
	add := func(no int, notice NoticeState, at time.Time, batch uint32) {
		m := member{t, int32(no)}
		ends = append(ends, loadedEnd{m, at, batch, notice == NoticeOwed && !packed[m]})
	}
	for i, p := range x.Past {
		batch := uint32(0)
		if at := i - len(x.Past) + len(x.PastBatches); at >= 0 {
			batch = x.PastBatches[at]
		}
		if p.Notice == NoticeOwed {
			t.set(flagOldDebts, true)
		}
		if p.Notice != NoticeNone { // a superseded attempt is not a member of a batch
			add(p.Number, p.Notice, p.Ended, batch)
		}
	}
	if x.Status.Terminal() {
		add(int(x.Attempt), x.Notice, x.End.Ended, x.Batch)
	}
	return ends
}

// loadBatches restores the debts to a session and the session's batches. If a batch was closed but
// not reported, its ends form one notice. Settled members of such a batch might be missing.
func (st *state) loadBatches(n *node, ends []loadedEnd, now int64) {
	slices.SortStableFunc(ends, func(a, b loadedEnd) int { return a.at.Compare(b.at) })
	open := st.storing.batchOf(n)
	for _, e := range ends {
		open = max(open, e.batch) // the record of the session, which contains the number of the open batch, might be missing
	}
	owed := map[uint32]bool{}
	for _, e := range ends {
		if !e.owed {
			continue
		}
		owed[e.batch] = true
		at := max(min(st.at(e.at), now), 1) // the recorded time can be in the future, because the clock might have been set back
		if e.no == e.t.no {
			e.t.setDebt(len(n.owed))
		}
		n.owed = append(n.owed, debt{e.t, e.no, at})
		n.nOwed++
		n.oldest = cmp.Or(n.oldest, at)
		if waits := e.batch == open && n.live > 0 && e.no == e.t.no && e.t.status == Completed && st.cfg.Wake != WakeEach; !waits {
			n.urgent = cmp.Or(n.urgent, at)
		}
	}
	for _, e := range ends {
		switch {
		case e.batch == open && n.live > 0:
			n.members = append(n.members, e.member)
		case owed[e.batch]:
			n.closed = append(n.closed, e.member)
		}
	}
	if n.live == 0 && owed[open] { // the batch is open only because of live tasks that could not be loaded, so it is closed
		open++
	}
	st.storing.node(n).batch = open
}

// loadEnvelopes restores the notices that were being delivered or had been handed out. It returns
// the ends that these notices report.
func (st *state) loadEnvelopes(tasks []*storedTask, nodes []*storedNode) map[member]bool {
	packed, byID, bySession := map[member]bool{}, map[string]*storedTask{}, map[string]*storedTask{}
	for _, x := range tasks {
		byID[x.id] = x
		if x.Session != nil {
			bySession[x.Session.ID] = x
		}
	}
	for _, x := range nodes {
		n := st.nodes[x.session]
		load := func(e *envelopeRecord, handed bool) {
			if env := st.loadEnvelope(n, e, handed, byID, packed); env != nil {
				n.hold().again = append(n.hold().again, env)
			}
		}
		owner := bySession[x.session]
		switch e := x.Notice; {
		case e == nil:
		case owner == nil, owner.Run != nil && !owner.Run.Stopping && !owner.Run.Waits && owner.Run.Notice == e.Notice.ID:
			load(e, false)
		}
		// If the session does not belong to a task, the notices that were handed out are handed out
		// once more, unchanged. If the session belongs to a task, that task's next turn reports which
		// tasks have ended.
		for i := range x.Handed {
			if owner == nil {
				load(&x.Handed[i], true)
			}
		}
		n.env = n.nextAgain()
	}
	return packed
}

// loadEnvelope restores a notice. It returns nil if the records of the tasks show that nothing in
// it is owed. handed says whether the notice was handed out. If so, an end whose notice could not
// be delivered also counts as owed.
func (st *state) loadEnvelope(n *node, e *envelopeRecord, handed bool, tasks map[string]*storedTask, packed map[member]bool) *envelope {
	if e.Notice.ID == "" || e.Notice.Text == "" {
		return nil
	}
	// Count the envelope as tried, so that its contents no longer change: the host might have
	// received this notice.
	env := &envelope{notice: e.Notice, omitted: e.Omitted, tries: max(e.Tries, 1), pushes: e.Pushes, next: 1, since: max(min(st.at(e.Since), st.now), 1)}
	env.notice.Session = n.session
	find := func(r memberRecord) (m member, x *storedTask) {
		if x = tasks[r.Task]; x != nil {
			num, _ := parseID(r.Task)
			m = member{st.tasks[num], r.Attempt}
		}
		return m, x
	}
	pay := func(r memberRecord, given bool) {
		m, x := find(r)
		if x == nil || m.t.up != n || packed[m] || !x.owes(r.Attempt, given) {
			return
		}
		packed[m] = true
		env.debts = append(env.debts, debt{m.t, m.no, env.since})
	}
	for _, r := range e.Owed {
		pay(r, handed)
	}
	// An end that was read after the notice was packed is owed again if nobody acknowledged it.
	// This notice reports it anyway, so no other notice may report it.
	for _, it := range e.Notice.Items {
		pay(memberRecord{it.Task, int32(it.Attempt)}, false)
	}
	env.loading = slices.ContainsFunc(e.Notice.Questions, func(q NoticeQuestion) bool {
		x := tasks[q.Task]
		return x != nil && x.owesQuestion(q.Question.Key)
	})
	for _, r := range e.Closed {
		if m, x := find(r); x != nil {
			env.closed = append(env.closed, m)
		}
	}
	if env.empty() {
		return nil
	}
	return env
}

// The method "owes" reports whether, according to the record, the end of the attempt is owed. If
// given is true, the end of the latest attempt also counts as owed if its state is NoticeGivenUp.
func (x *storedTask) owes(no int32, given bool) bool {
	if no == x.Attempt {
		return x.Status.Terminal() && (x.Notice == NoticeOwed || given && x.Notice == NoticeGivenUp)
	}
	return slices.ContainsFunc(x.Past, func(p Attempt) bool { return p.Number == int(no) && p.Notice == NoticeOwed })
}
