package hammer

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
)

// In a run with crashes, the manager has a store. From time to time, the manager's process ends, either
// between two operations or during a write to the store, and a new manager opens the store. The hosts and the
// oracle outlive the process. The content of the store is on a disk; see the file disk.go.

// life is one simulated process of the manager.
type life struct {
	h     *hammer
	m     *bgagent.BackgroundManager
	store process
	began time.Time
	over  atomic.Bool     // whether the process has ended; its calls then have no effect
	dead  chan struct{}   // closed when the field "over" becomes true
	ctx   context.Context // context of the process's callers; ends with the process
	die   context.CancelFunc
}

// errDead is returned by calls that a dead process makes.
var errDead = errors.New("the process is dead")

// The method "never" blocks a call from a dead process, because such a call must not get an answer. It
// returns an error when the context has ended or healAll has been called.
func (l *life) never(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.h.o.heal:
		return errDead
	}
}

// newLife starts a process with a new manager.
func (h *hammer) newLife() {
	l := &life{h: h, began: time.Now(), dead: make(chan struct{})}
	l.ctx, l.die = context.WithCancel(h.ctx)
	cfg := h.cfg
	cfg.Clients = map[string]bgagent.SessionClient{"starter": &starterHost{h.host[1], l}}
	if cfg.Notify != nil {
		cfg.Notify = l.notify
	}
	if h.crashes {
		l.store = h.disk.process()
		cfg.Store = l.store
	}
	h.o.mu.Lock()
	limits := h.o.limits
	h.o.seq, h.o.life = 0, l
	h.o.mu.Unlock()
	cfg.Limits = limits
	var err error
	if h.shared { // use a concurrency manager that could be shared with other managers
		if h.cm, err = bgagent.NewConcurrencyManager(limits); err != nil {
			h.t.Fatal(err)
		}
		cfg.Concurrency, cfg.Limits = h.cm, bgagent.Limits{}
	}
	h.life = l
	if l.m, err = bgagent.New(&runnerHost{h.host[0], l}, cfg); err != nil {
		h.t.Fatal(err)
	}
	h.m, h.cm = l.m, l.m.Concurrency()
	h.o.mu.Lock()
	h.o.m = l.m
	h.o.mu.Unlock()
	found := l.m.Restored()
	for _, d := range found.Damage {
		h.o.fault("the record %s cannot be read: %s", d.Key, d.Problem)
	}
	if found.Outdated != "" {
		h.o.fault("the store claims to be outdated: %s", found.Outdated)
	}
	if h.checks {
		inside.CheckAlways(l.m, h.o.invariant)
	}
	tasks, sub := l.m.Subscribe(1 << 20)
	h.o.opens(tasks)
	h.sub = sub
	h.wg.Go(func() {
		for {
			e, err := sub.Next(context.Background())
			if err != nil {
				return
			}
			h.o.event(l, e)
		}
	})
	l.m.Start()
}

// strike returns the fault for one write to the store. If the fault is a crash, the method "strike"
// also ends the process.
func (h *hammer) strike(batch uint64, try int) storetest.Fault {
	l := h.life
	r := h.o.draw("write", "")
	f := storetest.Fault{Delay: time.Duration(r.IntN(3)) * time.Millisecond}
	switch x := r.Float64(); {
	case h.o.isHealed() || l.over.Load():
	case x < h.o.rate/20:
		f.Kind = storetest.CrashBefore
	case x < h.o.rate/10:
		f.Kind = storetest.CrashAfter
	case x < h.o.rate/8:
		f.Kind = storetest.Refused
	case x < h.o.rate/7:
		f.Kind = storetest.LostWritten
	case x < h.o.rate/6:
		f.Kind = storetest.LostUnwritten
	}
	if (f.Kind == storetest.CrashBefore || f.Kind == storetest.CrashAfter) && !l.end(r) {
		f.Kind = storetest.NoFault
	}
	return f
}

// The method "end" marks the process as ended and ends its turns at the hosts. If the process has already
// ended or Close has begun, the method "end" does nothing and returns false. After Close has begun, the
// process must not end, because the next process would continue the tasks that Close is about to end.
func (l *life) end(r *rand.Rand) bool {
	h := l.h
	h.o.mu.Lock()
	ends := h.o.closedAt.IsZero() && !l.over.Swap(true)
	if ends {
		h.o.logLocked("the process ends")
		h.o.deaths = append(h.o.deaths, time.Now())
	}
	h.o.mu.Unlock()
	if !ends {
		return false
	}
	for _, f := range h.host {
		f.processEnds(r)
	}
	close(l.dead)
	l.die()
	return true
}

// The method "crash" ends the process between two operations and starts another one.
func (h *hammer) crash() {
	if !h.crashes || h.closed {
		return
	}
	h.all("Crash")
	h.o.log("%d crash", h.n)
	h.life.end(h.r)
	h.life.store.Crash()
	h.reopen()
}

// reopen starts another process if the last one has ended.
func (h *hammer) reopen() {
	if !h.life.over.Load() {
		return
	}
	synctest.Wait()
	gone := h.life
	closeNow(gone.m)
	h.gone = append(h.gone, gone)
	synctest.Wait()
	h.o.clear()
	h.draining = false
	h.met.add("lives", "", 1)
	h.o.newProcess()
	h.o.log("%d starts another process", h.n)
	h.newLife()
}

// closeNow closes the manager of a dead process, so that the manager's goroutines end.
func closeNow(m *bgagent.BackgroundManager) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_ = m.Close(ctx)
}

// nothingLost checks the store at the end of a run. The store must contain every accepted task that was not
// deleted, and all of these tasks must have ended.
func (h *hammer) nothingLost() {
	if !h.crashes {
		return
	}
	records, err := h.disk.records()
	if err != nil {
		h.o.fault("the store cannot be read at the end: %v", err)
		return
	}
	states := map[string]bgagent.Status{}
	for _, r := range records {
		if r.Kind == bgagent.StoreTask {
			var x struct{ Status bgagent.Status }
			if err := json.Unmarshal(r.Data, &x); err != nil {
				h.o.fault("the record of %s: %v", r.Key, err)
			}
			states[r.Key] = x.Status
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range h.ids {
		s, is := states[id]
		may, must := h.o.lacks(id)
		switch {
		case is && must:
			h.o.fault("%s was deleted, but the store still has it", id)
		case is && !s.Terminal() || !is && !may:
			h.o.fault("%s was accepted; the store has it: %v, %s", id, is, s)
		}
	}
}

// onlyOrphans reports whether, in a run with crashes, Close finished everything except tasks that missed
// their stopping deadlines. A turn of an earlier process may continue beyond its deadline, because the
// manager stops checking the turn at the deadline.
func (h *hammer) onlyOrphans(e *bgagent.CloseError) bool {
	if !h.crashes || len(e.Owed)+len(e.Hung) > 0 || e.Err != nil {
		return false
	}
	return !slices.ContainsFunc(e.NotStopped, func(id string) bool {
		t, err := h.m.Get(id)
		return err != nil || !h.o.isOver(t)
	})
}

// processEnds must be called when the manager's process ends. It decides at random which of the
// host's running turns end with the process and which continue.
func (f *host) processEnds(r *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emit = nil
	f.loseCalls()
	for _, id := range f.order {
		s := f.sessions[id]
		a := s.run
		if a == nil || a.orphan {
			continue
		}
		runner := f.name == "r"
		fate := r.IntN(8)
		switch {
		case fate == 0 || fate < 5 && !runner: // the turn continues
			a.orphan = true
			continue
		case fate == 1 && runner: // the session loses the prompt
			delete(s.has, a.prompt)
			f.o.lose(a.prompt)
		case fate == 2 && runner:
			s.has[a.prompt] = received{bgagent.PromptAnswered, bgagent.TurnEnd{Text: "answer to " + a.prompt + ";"}}
		case fate == 3 && runner:
			s.has[a.prompt] = received{state: bgagent.PromptUnknown}
		}
		s.run = nil
		if s.stop != nil {
			select {
			case <-s.stop:
			default:
				close(s.stop)
			}
		}
		f.o.end(a)
	}
}

// loseCalls records which prompts did not arrive at the host. The manager may send these prompts
// again. host.mu must be held.
func (f *host) loseCalls() {
	arrived := func(prompt string) bool {
		return slices.ContainsFunc(f.order, func(id string) bool {
			s := f.sessions[id]
			_, has := s.has[prompt]
			return has || s.prompts[prompt]
		})
	}
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	for prompt, at := range f.o.calls {
		if at != f {
			continue
		}
		if !arrived(prompt) {
			f.o.loseLocked(prompt)
		}
		delete(f.o.calls, prompt)
	}
}

// received is the state of a prompt in a runner's session.
type received struct {
	state bgagent.PromptState
	end   bgagent.TurnEnd
}

// RestoreSession implements [bgagent.SessionRestorer].
func (f *runnerHost) RestoreSession(ctx context.Context, in bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	var end bgagent.TurnEnd
	if f.life.over.Load() {
		return bgagent.PromptUnknown, end, f.life.never(ctx)
	}
	f.o.abort(in.Session) // the call must also end a turn that is still running in the session
	if err := f.mishap(ctx, f.o.draw("restore", in.Session)); err != nil {
		return bgagent.PromptUnknown, end, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[in.Session]
	f.o.log("restore %s: %s", in.Session, in.Last.ID)
	switch {
	case s == nil || s.gone:
		return bgagent.PromptMissing, end, bgagent.ErrNoSession
	case s.run != nil:
		return bgagent.PromptUnknown, end, bgagent.ErrBusy
	}
	x, is := s.has[in.Last.ID]
	if !is {
		return bgagent.PromptMissing, end, nil
	}
	return x.state, x.end, nil
}
