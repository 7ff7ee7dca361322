package bgagent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// The methods below are queries. All of them return copies.

// Get returns the task with the given id. If there is no such task, the error matches
// [ErrUnknownTask] or [ErrExpired].
func (m *BackgroundManager) Get(id string) (Task, error) {
	var s Task
	var err error
	m.view(func(st *state) {
		var t *task
		if t, err = st.find(id); err == nil {
			s = st.fullSnapshot(t)
		}
	})
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: get: %w", err)
	}
	m.showSource(&s)
	return s, nil
}

// Read is like [BackgroundManager.Get], but on behalf of a session. It fails with
// [ErrNotDescendant] if the task does not descend from the session. If the task has ended and the
// session is owed a notice about it, that notice counts as read. With [Config].Store, Read also
// finds ended tasks that only the store still contains, and results that were dropped from memory.
// If the store is lost and memory does not have the task, the error also matches [ErrStoreLost]. If
// memory has the task without its result, Read returns the task and an error that matches
// ErrStoreLost.
func (m *BackgroundManager) Read(by Caller, id string) (Task, error) {
	m.heard(by.Session)
	return m.readAttempt(by, id, 0, nil)
}

// readAttempt is like Read, but for a caller that shows one attempt of the task. The argument "no"
// is the number of that attempt; 0 means the latest one. Notices about other attempts do not count
// as read.
func (m *BackgroundManager) readAttempt(by Caller, id string, no int, out *handing) (s Task, err error) {
	thought := false
	m.fetchFor(m.base, id, func(st *state, now int64, _ error) { // if the record cannot be loaded, readAttempt fails as it would without a store
		var t *task
		if t, err = st.findOwn(by, id); err != nil {
			err = fmt.Errorf("bgagent: read: %w", err)
			return
		}
		if st.hasEnded(t) && t.up.session == by.Session && (no == 0 || no == int(t.no)) {
			st.read(t, out, now)
		}
		s = st.fullSnapshot(t)
		thought = t.fin != nil && t.fin.thought()
	})
	if err != nil {
		return s, m.orLost(err)
	}
	if s.Dropped && m.cfg.Store != nil {
		text, unread := m.text(m.base, s.ID, textOf("result", int32(s.Attempt)))
		switch {
		case unread == nil:
			s.Result, s.Dropped, s.Reasoning = text, false, thought
		case errors.Is(unread, ErrStoreLost):
			err = fmt.Errorf("bgagent: read: task %s: %w: %w", s.ID, ErrStore, unread)
		}
	}
	m.showSource(&s)
	return s, err
}

// List returns the tasks that the query selects, in launch order. List takes time proportional to
// the number of tasks below the session that the query names. Without a session, List takes time
// proportional to the number of all tasks.
func (m *BackgroundManager) List(q Query) (out []Task) {
	m.view(func(st *state) {
		found := st.list(q)
		out = make([]Task, len(found))
		for i, t := range found {
			out[i] = st.snapshot(t)
		}
	})
	return out
}

// runsTask reports whether the session runs a task. If so, the session gets its notices with the
// prompt of its next turn.
func (m *BackgroundManager) runsTask(session string) (is bool) {
	m.view(func(st *state) {
		s := st.sessions.find(session)
		is = s != nil && s.task != nil && s.task.live()
	})
	return is
}

// Outstanding returns the number of live tasks that descend from the session, and the number of
// ended attempts for which the session is still owed a notice. It reads both in one step, so if
// both numbers are zero, the host has not missed anything.
func (m *BackgroundManager) Outstanding(session string) (live, owed int) {
	m.view(func(st *state) {
		n := st.nodes[session]
		if n == nil {
			return
		}
		n.each(func(t *task) {
			if !st.hasEnded(t) {
				live++
			}
		})
		owed = n.outstanding()
	})
	return live, owed
}

// Messages reads the conversation of the task's session on behalf of the caller. See
// [MessageReader] for the meaning of the result and of the arguments "after" and "max". Messages
// calls the host and waits for at most [Config].CallTimeout. The error matches
// [errors.ErrUnsupported] if the task's client cannot read messages, and [ErrNoSession] if the task
// has no session. Otherwise it matches [ErrUnknownTask], [ErrExpired], [ErrNotDescendant] or
// [ErrClosed], or it is the context's error or the error from the host call.
func (m *BackgroundManager) Messages(ctx context.Context, by Caller, id string, after Cursor, max int) (Page, error) {
	if ctx == nil {
		return Page{}, fmt.Errorf("bgagent: messages: %w", errNoContext)
	}
	var cl *client
	var session string
	var err error
	m.update(func(st *state, _ int64) {
		t, e := st.findOwn(by, id)
		switch {
		case e != nil:
			err = e
		case st.closing:
			err = ErrClosed
		case t.sess == nil:
			err = fmt.Errorf("task %s has not started: %w", id, ErrNoSession)
		default:
			cl, session = t.kind.cl, t.sess.id
		}
	})
	if err == nil && !cl.reads {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: %w", err)
	}
	page, err := within(ctx, m, goCall, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
		return m.host(cl).reader.Messages(ctx, session, after, max)
	})
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: task %s: %w", id, err)
	}
	return page, nil
}

// Digest describes the session's tasks for a model whose context has been compacted. The text has
// at most max bytes.
func (m *BackgroundManager) Digest(session string, max int) string {
	tasks := m.List(Query{Under: session})
	live, owed := m.Outstanding(session)
	return m.words.digest(tasks, live, owed, max, time.Now())
}

// Figures holds a manager's counts at one moment. It marshals to JSON, so expvar can publish it:
//
//	expvar.Publish("bgagent", expvar.Func(func() any { return m.Figures() }))
//
// The counts of ended attempts start at the call to [New], and include the attempts of expired tasks.
type Figures struct {
	Live     int   `json:"live"`      // pending and running tasks
	Stopping int   `json:"stopping"`  // attempts that have ended but are not quiet yet
	Owed     int   `json:"owed"`      // attempts that have ended but have not yet been reported to their parents
	Kept     int   `json:"kept"`      // task records in memory: live tasks, and ended tasks that have not expired
	KeptText int64 `json:"kept_text"` // bytes of the results in memory

	Attempts  uint64           `json:"attempts"`   // attempts launched or resumed since New
	Completed uint64           `json:"completed"`  // attempts completed since New
	Failed    uint64           `json:"error"`      // attempts failed since New
	Cancelled uint64           `json:"cancelled"`  // attempts cancelled since New
	Causes    map[Cause]uint64 `json:"causes"`     // attempts ended since New, by cause; only causes that occurred
	OverLimit uint64           `json:"over_limit"` // sessions that missed their stopping deadline since New

	// Pools is the result of [ConcurrencyManager.Pools]. If other managers share Config.Concurrency,
	// the counts include their slots.
	Pools []PoolStats `json:"pools"`

	Budgets []TreeBudget `json:"budgets,omitempty"` // open tree accounts, oldest first; only with budgets
}

// endCounts counts the attempts that ended with each cause.
type endCounts [len(causes)]uint64

// Figures returns the counts. It reads all of them in one step, except that it reads the pools of
// Config.Slots right afterwards. It takes time proportional to the number of pools plus the number
// of sessions that have delegated. The number of tasks does not matter.
func (m *BackgroundManager) Figures() Figures {
	f := Figures{Causes: map[Cause]uint64{}}
	var ends endCounts
	m.view(func(st *state) {
		f.Live, f.Stopping, f.Kept, f.KeptText = st.live, st.unquiet, len(st.tasks), st.keep.text
		f.OverLimit, ends = uint64(st.over), st.ends
		if m.cfg.Slots == nil {
			f.Pools = m.cm.Pools()
		}
		f.Budgets = st.treeBudgets()
		for _, n := range st.nodes {
			f.Owed += n.outstanding()
		}
	})
	if m.cfg.Slots != nil { // the source must not be called under the lock, so its pools are read here
		f.Pools = m.cm.Pools()
	}
	if f.Pools == nil {
		f.Pools = []PoolStats{} // an empty list in JSON, not null
	}
	for i, n := range ends {
		if n == 0 {
			continue
		}
		c := Cause(i)
		f.Causes[c] = n
		switch c.Status() {
		case Completed:
			f.Completed += n
		case Failed:
			f.Failed += n
		case Cancelled:
			f.Cancelled += n
		default:
			panic("bgagent: bug: an attempt ended without a cause")
		}
	}
	f.Attempts = uint64(f.Live) + f.Completed + f.Failed + f.Cancelled
	return f
}

// With the methods below, the host takes a session's notices itself.

// TakeNotice returns one notice about everything that the session is owed now. It does not wait for
// the end of a batch. The notice counts as delivered. It also reports the tasks whose notices could
// not be delivered. If an earlier delivery failed, the first call returns the notice of that
// delivery unchanged, and the next call returns the rest. ok is false if nothing is owed.
//
// With [Config].Store, TakeNotice waits until the notice is durable in the store, but for at most
// Config.StoreTimeout. If the notice is not durable by then, ok is false, and everything stays
// owed. In the store, everything that the notice reports stays owed until the notice is
// acknowledged; see [BackgroundManager.Ack].
func (m *BackgroundManager) TakeNotice(session string) (n Notice, ok bool) {
	m.Start()
	m.heard(session)
	return m.takeNotice(session, m.words, nil)
}

// takeNotice does the work of TakeNotice. If the notice is part of a tool's answer, the argument
// "out" collects what that answer hands out. Otherwise, "out" is nil.
func (m *BackgroundManager) takeNotice(session string, w wording, out *handing) (n Notice, ok bool) {
	if m.storesNotices() {
		var node *node
		m.view(func(st *state) { node = st.nodes[session] })
		n, err := m.takeStored(m.base, m.cfg.StoreTimeout, node, w, out)
		return n, err == nil && n.ID != ""
	}
	m.update(func(st *state, now int64) {
		if node := st.nodes[session]; node != nil {
			n, ok = st.take(node, w.message != "", now)
		}
	})
	if ok {
		n = w.told(n)
	}
	return n, ok
}

// NextNotice waits until a notice for the session is due, and returns the notice. The notice counts
// as delivered. If [Config].Wake is [WakeEach], the rules of WakeEach decide when a notice is due.
// Otherwise, the rules of [WakeBatch] decide. A notice does not repeat ends that a tool's result
// has already reported.
//
// A program that calls NextNotice until it returns [ErrNothingOwed] does not miss anything: at that
// moment, no task that the session itself launched is live, and no notice is owed. If the manager
// is suspended, the error matches [ErrSuspended]. Without a store, any other error is the context's
// error.
//
// With [Config].Store, NextNotice waits until the notice is durable in the store. If ctx ends
// during this wait, the error matches both [ErrStore] and the context's error. If the manager
// is closed during this wait, the error matches [ErrStore] and [ErrClosed].
func (m *BackgroundManager) NextNotice(ctx context.Context, session string) (Notice, error) {
	if err := m.start(ctx); err != nil {
		return Notice{}, err
	}
	m.heard(session)
	w := newWaiter()
	defer m.update(func(st *state, _ int64) {
		if n := st.nodes[session]; n != nil {
			n.dropWaiter(&w)
			st.touchNode(n)
		}
	})
	for {
		var notice Notice
		var stored *node
		var ok, done, left bool
		var lost error
		var wait time.Duration = -1
		m.update(func(st *state, now int64) {
			n := st.nodes[session]
			if n == nil {
				done = true
				return
			}
			if st.isLost() {
				lost = st.storeFails()
				return
			}
			if left = st.leavesTasks(); left {
				return
			}
			at := st.dueAt(n)
			if n.env != nil && !n.env.flying || n.leftOver() > 0 || at > 0 && at <= now || n.nOwed > 0 && st.closing || n.live == 0 && n.reclaimable > 0 {
				if m.cfg.Store != nil && !st.closed {
					if stored = n; n.env != nil && !n.env.flying || n.leftOver() > 0 || n.nOwed > 0 || len(n.asks) > 0 || n.reclaimable > 0 && n.env == nil {
						return
					}
					stored = nil
				} else if notice, ok = st.take(n, m.words.message != "", now); ok {
					return
				}
			}
			if n.live == 0 && n.outstanding() == 0 && n.adrift == nil {
				done = true
				return
			}
			if at > 0 {
				wait = max(time.Duration(at-now), 0)
			}
			n.addWaiter(&w)
		})
		switch {
		case ok:
			return m.words.told(notice), nil
		case lost != nil:
			return Notice{}, fmt.Errorf("bgagent: next notice: %w", lost)
		case left:
			return Notice{}, ErrSuspended
		case done:
			return Notice{}, ErrNothingOwed
		case stored != nil:
			if n, err := m.takeStored(ctx, -1, stored, m.words, nil); err != nil || n.ID != "" {
				return n, err
			}
			continue
		}
		if err := waitFor(ctx, w.ch, wait); err != nil {
			return Notice{}, err
		}
	}
}

// Notices returns an iterator over the notices for the session, as [BackgroundManager.NextNotice]
// returns them. The loop ends when no task is live and no notice is owed. After any other error,
// such as the context's error, the loop gets the zero Notice and the error, and ends:
//
//	for notice, err := range m.Notices(ctx, session) {
//		if err != nil {
//			return err
//		}
//		// …
//	}
//
// A notice counts as delivered when the body of the loop gets it. While the body runs, no other
// notice is taken: tasks that end during this time are in the next notice. Therefore, a loop that
// is slow or ends early does not lose anything, and a later loop continues with the notices that
// are owed then. The iterator holds no resources between two notices. It can be used several times
// and concurrently; each notice is still returned only once.
func (m *BackgroundManager) Notices(ctx context.Context, session string) iter.Seq2[Notice, error] {
	return func(yield func(Notice, error) bool) {
		for {
			n, err := m.NextNotice(ctx, session)
			if errors.Is(err, ErrNothingOwed) || !yield(n, err) || err != nil {
				return
			}
		}
	}
}
