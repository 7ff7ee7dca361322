package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Queries. All of them return copies.

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
	return s, nil
}

// Read is [BackgroundManager.Get] on behalf of a session. It fails with [ErrNotDescendant] if the
// task does not descend from the session. If the task has ended and the session is owed a notice
// of the end, that notice counts as read.
func (m *BackgroundManager) Read(by Caller, id string) (Task, error) { return m.readAttempt(by, id, 0) }

// readAttempt is Read for a caller that shows one attempt of the task. The argument "no" is the
// number of that attempt; 0 means the latest attempt. The notice of another attempt does not count
// as read.
func (m *BackgroundManager) readAttempt(by Caller, id string, no int) (s Task, err error) {
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.findOwn(by, id); err != nil {
			err = fmt.Errorf("bgagent: read: %w", err)
			return
		}
		if !t.live() && t.up.session == by.Session && (no == 0 || no == int(t.no)) {
			st.settleTask(t, NoticeRead, now)
		}
		s = st.fullSnapshot(t)
	})
	return s, err
}

// List returns the tasks that the query selects, in launch order. The time it takes is proportional
// to the number of tasks below the session that the query names, or of all tasks if it names none.
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

// runsTask reports whether the session runs a task. The notices of such a session are delivered by
// its next turn.
func (m *BackgroundManager) runsTask(session string) (is bool) {
	m.view(func(st *state) {
		s := st.sessions.find(session)
		is = s != nil && s.task != nil && s.task.live()
	})
	return is
}

// Outstanding returns the number of live tasks that descend from the session, and the number of
// ended attempts of which the session is still owed a notice. It reads both in one step, so a host
// that sees two zeros has missed nothing.
func (m *BackgroundManager) Outstanding(session string) (live, owed int) {
	m.view(func(st *state) {
		n := st.nodes[session]
		if n == nil {
			return
		}
		n.each(func(t *task) {
			if t.live() {
				live++
			}
		})
		owed = n.outstanding()
	})
	return live, owed
}

// Messages reads the conversation of the task's session on behalf of the caller. The arguments
// after and max, and the result, are those of [MessageReader]. Messages calls the host and waits
// for at most [Config].CallTimeout. The error matches [errors.ErrUnsupported] if the task's client
// cannot read messages, and [ErrNoSession] if the task has no session.
func (m *BackgroundManager) Messages(ctx context.Context, by Caller, id string, after Cursor, max int) (Page, error) {
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

// Digest returns a description of the session's tasks of at most max bytes. It is meant for a model
// whose context has been compacted.
func (m *BackgroundManager) Digest(session string, max int) string {
	tasks := m.List(Query{Under: session})
	live, owed := m.Outstanding(session)
	return m.words.digest(tasks, live, owed, max, time.Now())
}

// Figures are the counts of a manager at one moment. They marshal to JSON, so expvar can publish
// them:
//
//	expvar.Publish("bgagent", expvar.Func(func() any { return m.Figures() }))
//
// Ended attempts are counted from the call of [New] on, whether or not their tasks have expired.
type Figures struct {
	Live     int   `json:"live"`      // pending and running tasks
	Stopping int   `json:"stopping"`  // ended attempts that are not quiet yet
	Owed     int   `json:"owed"`      // ended attempts that have not been reported to their parents yet
	Kept     int   `json:"kept"`      // task records in memory: live tasks, and ended tasks that have not expired
	KeptText int64 `json:"kept_text"` // bytes of the results in memory

	Attempts  uint64           `json:"attempts"`   // attempts launched or resumed since New
	Completed uint64           `json:"completed"`  // attempts completed since New
	Failed    uint64           `json:"error"`      // attempts failed since New
	Cancelled uint64           `json:"cancelled"`  // attempts cancelled since New
	Causes    map[Cause]uint64 `json:"causes"`     // attempts ended since New, by cause; only causes that occurred
	OverLimit uint64           `json:"over_limit"` // sessions that did not stop in time since New

	// Pools are the pools that have slots in use or tasks waiting, sorted by name. If other
	// managers share Config.Concurrency, the counts include their slots.
	Pools []PoolStats `json:"pools"`
}

// endCounts holds the number of ended attempts for each cause.
type endCounts [len(causes)]uint64

// Figures returns the counts, all read in one step. The time it takes is proportional to the number
// of pools and of sessions that have delegated, not to the number of tasks.
func (m *BackgroundManager) Figures() Figures {
	f := Figures{Causes: map[Cause]uint64{}}
	var ends endCounts
	m.view(func(st *state) {
		f.Live, f.Stopping, f.Kept, f.KeptText = st.live, st.unquiet, len(st.tasks), st.keep.text
		f.OverLimit, f.Pools, ends = uint64(st.over), m.cm.Pools(), st.ends
		for _, n := range st.nodes {
			f.Owed += n.outstanding()
		}
	})
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
			panic("bgagent: bug: an attempt ended for no cause")
		}
	}
	f.Attempts = uint64(f.Live) + f.Completed + f.Failed + f.Cancelled
	return f
}

// Methods with which a host takes the notices of a session itself.

// TakeNotice returns everything that the session is owed now as one notice, without waiting for a
// batch. The notice counts as delivered. It includes notices that were given up. If a delivery has
// failed before, the first call returns the notice of that delivery unchanged, and the next call
// returns the rest. ok is false if nothing is owed.
func (m *BackgroundManager) TakeNotice(session string) (n Notice, ok bool) {
	m.update(func(st *state, now int64) {
		if node := st.nodes[session]; node != nil {
			n, ok = st.take(node, now)
		}
	})
	if ok {
		n = m.words.told(n)
	}
	return n, ok
}

// NextNotice waits until a notice for the session is due and returns it. The notice counts as
// delivered. If [Config].Wake is [WakeEach], a notice is due by the rules of WakeEach, otherwise by
// those of [WakeBatch]. A notice does not repeat what a tool's result has already reported.
//
// A program that calls NextNotice until it returns [ErrNothingOwed] misses nothing: at that moment,
// no task that the session launched itself is live and no notice is owed. Any other error is the
// error of ctx.
func (m *BackgroundManager) NextNotice(ctx context.Context, session string) (Notice, error) {
	w := newWaiter()
	defer m.update(func(st *state, _ int64) {
		if n := st.nodes[session]; n != nil {
			n.dropWaiter(&w)
			st.touchNode(n)
		}
	})
	for {
		var notice Notice
		var ok, done bool
		var wait time.Duration = -1
		m.update(func(st *state, now int64) {
			n := st.nodes[session]
			if n == nil {
				done = true
				return
			}
			at := st.dueAt(n)
			if n.env != nil && !n.env.flying || at > 0 && at <= now || n.nOwed > 0 && st.closing || n.live == 0 && n.reclaimable > 0 {
				if notice, ok = st.take(n, now); ok {
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
		case done:
			return Notice{}, ErrNothingOwed
		}
		if err := waitFor(ctx, w.ch, wait); err != nil {
			return Notice{}, err
		}
	}
}
