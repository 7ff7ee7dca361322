package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// The code in this file reads ended tasks from the store.

// historyPage is the number of tasks on a page of History if the query has no limit.
const historyPage = 100

// History returns a page of the ended tasks that the store keeps, including tasks that the manager
// no longer holds in memory. The most recently launched task comes first. In the snapshots,
// Task.Prompt and Task.Result are empty. Call [BackgroundManager.Read] to get these texts.
//
// The query selects tasks as in [BackgroundManager.List], except that Query.Under must be a root
// session. Query.Limit is the size of the page; 0 means 100. For the first page, "before" is empty.
// For any other page, it is the id of the last task on the previous page.
//
// History waits for the store for at most Config.StoreTimeout. If ctx is nil, the error is an
// [*InputError]. If the manager has no store, the error matches [errors.ErrUnsupported]. Any
// other error matches [ErrStore]. If the store has no task with that id, the error also matches
// [ErrNoRecord]. If the store is lost, the error also matches [ErrStoreLost]. History is safe
// for concurrent use.
func (m *BackgroundManager) History(ctx context.Context, q Query, before string) ([]Task, error) {
	if ctx == nil {
		return nil, fmt.Errorf("bgagent: history: %w", errNoContext)
	}
	if m.cfg.Store == nil {
		return nil, fmt.Errorf("bgagent: history: the manager has no store: %w", errors.ErrUnsupported)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = historyPage
	}
	found, err := m.history(ctx, StoreQuery{Parent: q.Parent, Root: q.Under, Status: q.Status, Before: before, Limit: limit})
	if err != nil {
		return nil, fmt.Errorf("bgagent: history: %w: %w", ErrStore, err)
	}
	tasks := make([]Task, 0, len(found))
	for i := range found {
		if x, err := decodeTask(&found[i]); err == nil { // like the store, the page leaves out a record that cannot be read
			tasks = append(tasks, x.task(&found[i]))
		}
	}
	return tasks, nil
}

// The method "task" returns a snapshot of the recorded task, without its texts. It sets only the
// fields that an ended task has. [StoreRecord.Task] adds the others for a task that has not ended.
func (x *storedTask) task(r *StoreRecord) Task {
	t := Task{
		ID: x.id, Parent: x.Parent, Root: r.Root, Session: r.Session, Description: x.Title, Agent: x.Agent, Model: x.Model,
		ToolCallID: x.Call, Client: x.Client, Depth: x.Depth, Metadata: x.Metadata, Status: x.Status, Cause: x.Cause,
		Attempt: int(x.Attempt), Attempts: x.Past, Queued: x.Queued, Notice: x.Notice, Quiet: x.Run == nil,
		Messages: x.waiting(), Unconsumed: x.unconsumed(),
	}
	if f := x.Fallen; f != nil {
		t.Fallback = f.Why
	}
	if b := x.Budget; b != nil && !b.Limits.isZero() {
		t.Budget = BudgetUse{b.Limits, b.Used.spent().asBudget(), b.CostUnknown}
	}
	if e := x.End; e != nil {
		t.Started, t.Ended, t.Reason = e.Started, e.Ended, e.Reason
		t.Partial, t.Reasoning, t.Cut, t.Dropped, t.OpenTodos = e.Partial, e.Thought, e.Cut, e.Dropped, int(e.OpenTodos)
		t.Progress = Progress{
			Turns: int(e.Turns), ToolCalls: e.ToolCalls, LastTool: e.LastTool, LastMessage: e.LastText, LastMessageAt: e.LastAt,
			LastActivity: e.Activity, Todos: e.Todos, Usage: e.Usage,
		}
	}
	return t
}

// fetch loads an ended task from the store if memory does not contain the task. ref is the id of
// the task or of its session. If the store does not contain the task either, fetch does not load
// anything. If the store might have the task but the task cannot be loaded, fetch returns an error.
func (m *BackgroundManager) fetch(ctx context.Context, ref string) (unread error) {
	m.fetchFor(ctx, ref, func(_ *state, _ int64, err error) { unread = err })
	return unread
}

// fetchFor is like fetch, and then calls f with the error that fetch would return. It calls f in the
// update that loads the task, because the task can expire from memory again in the next update. If
// f is called without an error, the task is either in memory or not in the store.
func (m *BackgroundManager) fetchFor(ctx context.Context, ref string, f func(st *state, now int64, unread error)) {
	known, last := m.cfg.Store == nil || ref == "", false
	m.update(func(st *state, now int64) {
		if known = known || st.inMemory(ref) || st.forgotten(ref) != nil; known {
			f(st, now, nil)
			return
		}
		last = st.unwritten(ref) && !st.recovery.due
		st.storing.fetches++
	})
	if known {
		return
	}
	x, err := m.stored(ctx, ref, last)
	m.update(func(st *state, now int64) {
		if x != nil && !st.inMemory(x.id) && !st.unwritten(x.id) && !slices.Contains(st.storing.deleted, x.id) {
			st.remember(x, now)
		}
		if st.storing.fetches--; st.storing.fetches == 0 {
			st.storing.deleted = nil
		}
		f(st, now, err)
	})
}

// The method "stored" reads the record of an ended task from the store. It returns nil without an error
// if the store has no such record. If "last" is true, it first waits until the last record of the task
// is written.
func (m *BackgroundManager) stored(ctx context.Context, ref string, last bool) (*storedTask, error) {
	if last { // the record in the store is older than the record that was in memory
		m.update(func(st *state, _ int64) { st.flush() })
		if err := m.untilKept(ctx, m.cfg.StoreTimeout, func(st *state) bool { return !st.unwritten(ref) }); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.StoreTimeout)
	defer cancel()
	found, err := m.history(ctx, StoreQuery{Ref: ref, Limit: 1})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	x, err := m.loadTask(ctx, found[0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("task %s: %w", found[0].Key, err)
	case !x.Status.Terminal() || x.Run != nil || !x.Notice.Settled() || slices.ContainsFunc(x.Past, func(p Attempt) bool { return p.Notice == NoticeOwed }):
		return nil, fmt.Errorf("task %s was not loaded when the store was opened", x.id)
	}
	return x, nil
}

// The method "history" reads records of ended tasks.
func (m *BackgroundManager) history(ctx context.Context, q StoreQuery) ([]StoreRecord, error) {
	return readStore(ctx, m, "Store.History", func(ctx context.Context) ([]StoreRecord, error) { return m.cfg.Store.History(ctx, q) })
}

// The method "text" reads a text from the store.
func (m *BackgroundManager) text(ctx context.Context, record, name string) (string, error) {
	return readStore(ctx, m, "Store.Text", func(ctx context.Context) (string, error) { return m.cfg.Store.Text(ctx, record, name) })
}

// readStore calls a method that reads from the store, and waits for at most Config.StoreTimeout. It
// fails if the store is lost before or during the call, because another manager can then continue the
// tasks and change what is read.
func readStore[T any](ctx context.Context, m *BackgroundManager, what string, read func(context.Context) (T, error)) (T, error) {
	var zero T
	if err := m.storeLost(); err != nil {
		return zero, err
	}
	found, err := within(ctx, m, goStore, what, m.cfg.StoreTimeout, func(ctx context.Context) (T, error) {
		found, err := read(ctx)
		return found, storeError(err)
	})
	if lost := m.storeLost(); lost != nil {
		return zero, lost
	}
	return found, err
}

// storeLost returns the reason why the store is lost, or nil. The lock must not be held.
func (m *BackgroundManager) storeLost() (err error) {
	m.view(func(st *state) {
		if st.isLost() {
			err = st.storing.lost
		}
	})
	return err
}

// orLost returns err, the error from a search for a task in memory. If the task was not found and
// the store is lost, the result also says that the store cannot be read, although it might have the
// task. The lock must not be held.
func (m *BackgroundManager) orLost(err error) error {
	if !errors.Is(err, ErrUnknownTask) && !errors.Is(err, ErrExpired) && !errors.Is(err, ErrNotDescendant) {
		return err
	}
	if lost := m.storeLost(); lost != nil {
		return fmt.Errorf("%w; %w: %w", err, ErrStore, lost)
	}
	return err
}

// inMemory reports whether memory has a record of the task with this id, or of the task whose
// session has this id.
func (st *state) inMemory(ref string) bool {
	num, ok := parseID(ref)
	return ok && st.tasks[num] != nil || st.session(ref) != nil
}

// The method "unwritten" reports whether the task has expired from memory but its last record is
// not durable yet.
func (st *state) unwritten(ref string) bool {
	s := st.storing
	return slices.ContainsFunc(s.last, func(m *mark) bool {
		return !m.refused && (m.t.id() == ref || sessionOf(m.t) == ref) && (m.taken > s.committed || m.final.image() != m.last)
	})
}

// remember puts the record of an ended task from the store back into memory.
func (st *state) remember(x *storedTask, now int64) {
	if tomb := st.tomb(x.id); tomb != nil {
		if tomb.no != max(x.Attempt, x.Burnt) { // since the record was read, the task was resumed and expired again
			return
		}
		if s := tomb.sess; s != nil {
			delete(st.keep.unsaid, s) // the task's record contains the prompts that never reached the session
			st.sessions.remove(s)
		}
		st.releaseKind(tomb.kind)
		*tomb = tombstone{}
	}
	if x.Session != nil && st.sessions.find(x.Session.ID) != nil {
		return
	}
	t := st.loadTask(x)
	t.up = st.node(x.Parent)
	if root := x.rec.Root; root != x.Parent && !t.up.needed() && t.up.above() == nil {
		if top := st.node(root); top.under(x.Parent) {
			st.touchNode(top)
		} else { // the tasks between the root and this task have expired
			top.adopt(t.up, Completed)
			st.nodeChanged(t.up)
		}
	}
	t.up.link(t)
	if n := st.nodes[sessionOf(t)]; n != nil && n.of == nil && n.up != nil && !t.up.under(n.session) {
		st.rejoin(n, t)
	}
	st.loadStatus(t, x, now)
	st.touchNode(t.up)
}

// sessionOf returns the id of the task's session, or "" if the task has none.
func sessionOf(t *task) string {
	if t.sess == nil {
		return ""
	}
	return t.sess.id
}
