package bgagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
)

// The code in this file opens and closes the store, and waits for the writer.

// storeLaterBy is how long a change may stay unwritten if nothing waits for it.
const storeLaterBy = 5 * time.Second

// storeAsideEvery is the pause between two attempts to write a record that the store refuses.
const storeAsideEvery = time.Minute

// maxSaved is the maximum number of bytes that can be passed to Reporter.SaveState.
const maxSaved = 1 << 20

// storeLife contains the context for calls to the store.
type storeLife struct {
	ctx  context.Context // context of the writer; ends when the manager closes the store
	stop context.CancelFunc

	// Only the writer uses the following field.
	named bool // the store contains a record of this manager
}

// openStore opens the store and loads its contents. Without a store, it does nothing.
func (m *BackgroundManager) openStore() error {
	if m.cfg.Store == nil {
		return nil
	}
	host, _ := os.Hostname()
	m.owner = StoreOwner{Instance: cmp.Or(m.cfg.Instance, uuid.NewString()), PID: os.Getpid(), Host: host, Program: filepath.Base(os.Args[0]), Since: time.Now()}
	m.store.ctx, m.store.stop = context.WithCancel(context.Background())
	c, err := within(m.store.ctx, m, goStore, "Store.Open", m.cfg.StoreTimeout, func(ctx context.Context) (StoreContents, error) {
		c, err := m.cfg.Store.Open(ctx, m.owner)
		if err == nil && ctx.Err() != nil { // New no longer waits for the store
			return c, cmp.Or(storeError(m.cfg.Store.Close()), errTookTooLong)
		}
		return c, storeError(err)
	})
	if err != nil {
		m.store.stop()
		return fmt.Errorf("bgagent: new: %w: %w", ErrStore, err)
	}
	m.startEpoch()
	if err := m.load(c); err != nil {
		m.store.stop()
		_, _ = within(context.Background(), m, goStore, "Store.Close", m.cfg.StoreTimeout, func(context.Context) (struct{}, error) {
			return struct{}{}, storeError(m.cfg.Store.Close())
		})
		if wrong := new(InputError); errors.As(err, &wrong) {
			return err
		}
		return fmt.Errorf("bgagent: new: %w: %w", ErrStore, err)
	}
	return nil
}

// epochBefore is the time between the epoch of a manager with a store and the creation of the manager.
// All times in records are after the epoch, even those of tasks that another manager reads years
// later.
const epochBefore = 100 * 365 * 24 * time.Hour

// startEpoch moves the epoch to a time before all tasks in the store, so that the times of their
// records are positive.
func (m *BackgroundManager) startEpoch() {
	m.epoch = m.epoch.Add(-epochBefore)
	m.update(func(st *state, _ int64) { st.epoch, st.slotsFrom = m.epoch, int64(m.epoch.Sub(m.cm.epoch)) })
}

// storeFailed returns an error that states why nothing can be written.
func storeFailed(why string) error { return fmt.Errorf("%w: %s", ErrStore, why) }

// errStoreSlow is returned if the store has not answered within Config.StoreTimeout.
var errStoreSlow = errors.New("no answer in time")

// The method "accepted" returns when the launch or resume that opened the attempt is durable. If
// this takes too long or is impossible, the method "accepted" withdraws the launch or resume and
// returns an error. There is one exception: if another caller still waits for the same launch or
// resume and writes do not fail, the method "accepted" does not withdraw anything, and the error
// matches [ErrUncertain].
func (m *BackgroundManager) accepted(ctx context.Context, t *task, no int) error {
	if m.cfg.Store == nil {
		return nil
	}
	attempt := int32(no)
	var x *asking
	m.update(func(st *state, _ int64) { x = st.ask(t, attempt) })
	if x == nil {
		return nil
	}
	err := m.untilBatch(ctx, m.cfg.StoreTimeout, func(st *state) (bool, uint64) {
		return st.storing.failing || x.withdrawn || st.accepted(t, attempt), st.batchOfTask(t)
	})
	kept, uncertain := false, false
	m.update(func(st *state, now int64) {
		kept, uncertain = st.answer(x, t, attempt, now)
		if err == nil && st.isLost() {
			err = st.storing.lost
		}
	})
	if kept {
		return nil
	}
	if err == nil {
		err = errors.New(x.why)
	}
	if uncertain {
		return fmt.Errorf("%w: %w: %w", ErrStore, ErrUncertain, err)
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

// notStored returns err wrapped as a store error if the end of one of the tasks is not durable. If
// err is nil, notStored returns an error only if the end will never be written.
func (st *state) notStored(err error, tasks ...*task) error {
	if st.storing == nil || err == nil && !st.storing.over {
		return err
	}
	for _, t := range tasks {
		if !t.live() && !st.kept(t) {
			return fmt.Errorf("%w: %w", ErrStore, cmp.Or(err, st.overError()))
		}
	}
	return err
}

// The method "ended" returns when the tasks' ends are durable.
func (m *BackgroundManager) ended(ctx context.Context, tasks ...*task) error {
	if m.cfg.Store == nil {
		return nil
	}
	err := m.untilBatch(ctx, -1, func(st *state) (bool, uint64) {
		if i := slices.IndexFunc(tasks, func(t *task) bool { return !st.kept(t) }); i >= 0 {
			return false, st.batchOfTask(tasks[i])
		}
		return true, 0
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	return nil
}

// storeGrace is the time limit for closing the store if the context of Close has already ended. It
// is also the time limit for the writer to end after the store is closed.
const storeGrace = time.Second

// closeStore closes the store.
func (m *BackgroundManager) closeStore(ctx context.Context) {
	m.update(func(st *state, _ int64) { st.leaveStore() })
	m.store.stop()
	most := m.cfg.StoreTimeout
	if ctx.Err() != nil { // the store must still be closed, so that another manager can open it
		ctx, most = context.WithoutCancel(ctx), min(most, storeGrace)
	}
	_, err := within(ctx, m, goStore, "Store.Close", most, func(context.Context) (struct{}, error) {
		return struct{}{}, storeError(m.cfg.Store.Close())
	})
	if err != nil {
		detail := err.Error()
		m.update(func(st *state, _ int64) { st.logText(logStoreFailed, "", detail) })
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeGrace)
	defer cancel()
	for m.running[goStore].Load() > 0 && waitFor(ctx, m.exited, -1) == nil { // wait for the writer to end
		continue
	}
}

// overError returns the error for a wait that ended because the manager no longer writes to the
// store.
func (st *state) overError() error {
	if st.isLost() {
		return st.storing.lost
	}
	return ErrClosed
}

// untilKept waits until the function "kept" returns true. It returns an error if ctx ends first, if
// the given duration passes first, or if the manager no longer writes to the store. A negative
// duration means no limit.
func (m *BackgroundManager) untilKept(ctx context.Context, most time.Duration, kept func(st *state) bool) error {
	return m.untilBatch(ctx, most, func(st *state) (bool, uint64) { return kept(st), 0 })
}

// untilBatch is like untilKept, but the function "kept" has a second result: the number of the
// batch that must be durable before the first result can be true. Until this batch is durable, kept
// is called again only after events that concern all waiters, such as a failed write. The number 0
// means that kept is called after every write.
func (m *BackgroundManager) untilBatch(ctx context.Context, most time.Duration, kept func(st *state) (bool, uint64)) (err error) {
	w := newWaiter()
	end := time.Now().Add(most)
	batch, left := uint64(0), most
	for {
		is, over := false, error(nil)
		m.update(func(st *state, _ int64) {
			st.storing.forget(&w, batch)
			if is, batch = kept(st); is {
				return
			}
			switch {
			case st.storing.over:
				over = st.overError()
			case err == nil && left != 0:
				st.storing.await(&w, batch)
			}
		})
		switch {
		case is:
			return nil
		case over != nil:
			return over
		case err != nil:
			return err
		case left == 0:
			return errStoreSlow
		}
		err = waitFor(ctx, w.ch, left)
		if most >= 0 {
			left = max(time.Until(end), 0)
		}
	}
}

// awaitKept waits until the changes before the attempt's next call are durable, or until the
// attempt has ended.
func (m *BackgroundManager) awaitKept(a *attempt) {
	var ctx context.Context = a.callContext()
	m.view(func(*state) {
		if a.ended { // the attempt's own context has ended
			ctx = m.base
		}
	})
	_ = m.untilBatch(ctx, -1, func(st *state) (bool, uint64) {
		switch {
		case st.mustCount(a):
			return false, a.countedIn
		case !a.live():
			return true, 0
		case !st.kept(a.t):
			return false, st.batchOfTask(a.t)
		case a.notice != nil && !st.keptNode(a.t.sess.own):
			return false, st.batchOfNode(a.t.sess.own)
		}
		return true, 0
	})
}

// seal writes the text of the notice that is the attempt's next prompt.
func (m *BackgroundManager) seal(a *attempt, j *job) *attempt {
	text := m.words.notice(*j.prompt.Notice)
	j.prompt = Prompt{}
	return m.step(func(st *state, _ int64) {
		if env := a.notice; env != nil && a.live() {
			a.prompt = text
			st.seal(a.t.sess.own, env, text)
			st.mustKeep(a.t)
		}
		st.wantCall(a)
	}, j)
}

// sealNotice sets the text of the notice and waits until the text is durable. It returns false if
// the manager closes the store first.
func (m *BackgroundManager) sealNotice(n *node, env *envelope, text string) bool {
	m.update(func(st *state, _ int64) { st.sealPush(n, env, text) })
	return m.untilBatch(m.base, -1, func(st *state) (bool, uint64) { return st.keptNode(n), st.batchOfNode(n) }) == nil
}
