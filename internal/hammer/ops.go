package hammer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
)

func (h *hammer) caller() bgagent.Caller {
	var by bgagent.Caller
	switch x := h.r.IntN(20); {
	case x < 10:
		by.Session = roots[h.r.IntN(len(roots))]
	case x < 15:
		by.Session = h.session()
	case x < 16:
		by.Session = "stranger"
	}
	if h.r.IntN(5) == 0 {
		by.ToolCallID = fmt.Sprintf("call-%d", h.r.IntN(10))
	}
	return by
}

func (h *hammer) session() string {
	tasks := h.m.List(bgagent.Query{})
	if len(tasks) == 0 {
		return "root1"
	}
	if s := tasks[h.r.IntN(len(tasks))].Session; s != "" {
		return s
	}
	return "root2"
}

// target returns the id of a random task and a random caller. The caller is often allowed to
// act on the task. The operation is counted in the matrix under the task's state.
func (h *hammer) target(op string) (id string, by bgagent.Caller) {
	id = "bg_0000000000000000"
	h.mu.Lock()
	if len(h.ids) > 0 {
		id = h.ids[h.r.IntN(len(h.ids))]
		if h.r.IntN(2) == 0 { // a recent task
			id = h.ids[max(0, len(h.ids)-1-h.r.IntN(6))]
		}
	}
	h.mu.Unlock()
	if h.r.IntN(2) == 0 { // a live task
		if live := h.m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}}); len(live) > 0 {
			id = live[h.r.IntN(len(live))].ID
		}
	}
	t, err := h.m.Get(id)
	h.met.add(op, stateOf(t, err), 1)
	by = h.caller()
	if err == nil {
		switch h.r.IntN(4) {
		case 0:
			by.Session = t.Parent
		case 1:
			by.Session = t.Root
		case 2:
			by = bgagent.Caller{}
		}
	}
	return id, by
}

// The method "all" adds the operation to the matrix once for each existing task, under the state of that
// task.
func (h *hammer) all(op string) {
	for _, t := range h.m.List(bgagent.Query{}) {
		h.met.add(op, stateOf(t, nil), 1)
	}
}

func (h *hammer) input() bgagent.LaunchInput {
	in := bgagent.LaunchInput{
		Agent: agents[h.r.IntN(len(agents))], Model: models[h.r.IntN(len(models))],
		Prompt: fmt.Sprintf("p%d", h.n),
	}
	if h.r.IntN(30) == 0 {
		in.Prompt = ""
	}
	if h.r.IntN(5) == 0 {
		in.System, in.Metadata, in.Directory = "be good", map[string]string{"a": "b"}, "/tmp"
	}
	return in
}

// context returns a context that has a deadline, is cancelled later, or ends only when the run
// ends.
func (h *hammer) context() (context.Context, context.CancelFunc) {
	d := time.Duration(h.r.IntN([...]int{1, 2000, 60_000, 600_000}[h.r.IntN(4)])) * time.Millisecond
	switch h.r.IntN(3) {
	case 0:
		return context.WithTimeout(h.life.ctx, d)
	case 1:
		ctx, cancel := context.WithCancel(h.life.ctx)
		stop := time.AfterFunc(d, cancel)
		return ctx, func() { stop.Stop(); cancel() }
	}
	return context.WithCancel(h.life.ctx)
}

func (h *hammer) keep(t bgagent.Task, err error) {
	if t.ID == "" || errors.Is(err, bgagent.ErrStore) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.ids, t.ID) {
		h.ids = append(h.ids, t.ID)
	}
}

// The method "aside" runs a blocking operation concurrently with the other operations.
func (h *hammer) aside(f func(ctx context.Context)) {
	ctx, cancel := h.context()
	h.wg.Go(func() {
		defer cancel()
		f(ctx)
	})
}

// The method "look" finds and records the tasks that agents launched. It also checks that no task
// is live if its parent has failed or been cancelled.
func (h *hammer) look() {
	tasks := h.m.List(bgagent.Query{})
	by := map[string]bgagent.Task{}
	for _, t := range tasks {
		h.keep(t, nil)
		by[t.Session] = t
	}
	for _, t := range tasks {
		if p, ok := by[t.Parent]; ok && t.Parent != "" && !t.Status.Terminal() && p.Status.Terminal() && p.Status != bgagent.Completed {
			h.o.fault("%s is %s, and its parent %s is %s", t.ID, t.Status, p.ID, p.Status)
		}
	}
}

func (h *hammer) op() {
	h.look()
	m, o, n, l := h.m, h.o, h.n, h.life
	ops := []func(){
		h.launch, h.launch, h.launch, h.launch, h.launch, h.launch, // the repeated entries make launches more frequent
		func() {
			h.all("Run")
			by, in := h.caller(), h.input()
			h.aside(func(ctx context.Context) {
				t, err := m.Run(ctx, by, in)
				o.log("%d run by %q: %s %s %v", n, by.Session, t.ID, t.Status, err)
				h.keep(t, err)
				if err == nil && !t.Status.Terminal() && by.ToolCallID == "" && !l.over.Load() {
					o.fault("Run returned %s, which is %s", t.ID, t.Status)
				}
			})
		},
		func() { h.resume("Resume") }, func() { h.resume("Resume") }, func() { h.resume("RunResume") },
		func() {
			id, by := h.target("Wait")
			ids := []string{id}
			if h.r.IntN(2) == 0 {
				id, _ = h.target("Wait")
				ids = append(ids, id)
			}
			mode := bgagent.WaitMode(h.r.IntN(2))
			h.aside(func(ctx context.Context) {
				tasks, err := m.Wait(ctx, by, mode, ids...)
				o.log("%d wait for %v by %q: %v %v", n, ids, by.Session, statuses(tasks), err)
			})
		},
		func() {
			id, _ := h.target("Quiet")
			h.aside(func(ctx context.Context) { o.log("%d quiet %s: %v", n, id, m.Quiet(ctx, id)) })
		},
		func() {
			if h.r.IntN(4) > 0 {
				return
			}
			id, by := h.target("Forget")
			o.forgets(id)
			err := m.Forget(h.life.ctx, by, id, bgagent.ForgetOptions{Force: h.r.IntN(4) == 0})
			o.log("%d forget %s by %q: %v", n, id, by.Session, err)
			if err == nil && !l.over.Load() {
				o.forgot(id)
			}
		},
		func() {
			id, by := h.target("Cancel")
			t, err := m.Cancel(h.life.ctx, by, id, bgagent.CancelOptions{Reason: "why not"})
			o.log("%d cancel %s by %q: %s %v", n, id, by.Session, t.Status, err)
			if after, gone := m.Get(id); err == nil && gone == nil && !l.over.Load() && after.Attempt == t.Attempt && !after.Status.Terminal() {
				o.fault("%s is %s after Cancel", id, after.Status)
			}
		},
		func() {
			if h.r.IntN(3) > 0 {
				return
			}
			h.all("CancelAll")
			by := h.caller()
			tasks, err := m.CancelAll(h.life.ctx, by, bgagent.CancelOptions{})
			o.log("%d cancel all by %q: %d %v", n, by.Session, len(tasks), err)
		},
		func() {
			if h.r.IntN(3) > 0 {
				return
			}
			h.all("SessionDeleted")
			s := h.caller().Session
			o.log("%d session %q deleted", n, s)
			o.sessionDeleted(s)
			if h.r.IntN(2) == 0 {
				h.vanish(s)
			} else {
				h.lie(s)
			}
			m.SessionDeleted(s)
		},
		func() {
			h.all("vanished session")
			s := h.session()
			o.log("%d session %q vanishes", n, s)
			h.vanish(s)
		},
		func() {
			id, _ := h.target("Get")
			t, err := m.Get(id)
			o.log("%d get %s: %s %v", n, id, t.Status, err)
		},
		func() {
			id, by := h.target("Read")
			t, err := m.Read(by, id)
			o.log("%d read %s by %q: %s %v", n, id, by.Session, t.Status, err)
		},
		func() {
			h.all("List")
			q := bgagent.Query{Under: h.caller().Session, Limit: h.r.IntN(5)}
			if h.r.IntN(2) == 0 {
				q = bgagent.Query{Parent: h.caller().Session, Status: []bgagent.Status{bgagent.Status(h.r.IntN(5))}}
			}
			for _, t := range m.List(q) {
				if q.Parent != "" && t.Parent != q.Parent || len(q.Status) > 0 && t.Status != q.Status[0] {
					o.fault("List(%+v) has %s of %s, which is %s", q, t.ID, t.Parent, t.Status)
				}
			}
		},
		func() {
			h.all("Outstanding and Digest")
			s := h.caller().Session
			live, owed := m.Outstanding(s)
			if live < 0 || owed < 0 {
				o.fault("Outstanding(%q) is %d, %d", s, live, owed)
			}
			m.Digest(s, h.r.IntN(2000))
		},
		func() {
			h.all("NextNotice")
			s := h.caller().Session
			h.aside(func(ctx context.Context) {
				notice, err := m.NextNotice(ctx, s)
				o.log("%d next notice of %q: %v", n, s, err)
				if err == nil && !l.over.Load() {
					o.told(notice, "by NextNotice")
				}
			})
		},
		func() {
			h.all("TakeNotice")
			s := h.caller().Session
			if notice, ok := m.TakeNotice(s); ok && !l.over.Load() {
				o.told(notice, "by TakeNotice")
			}
		},
		func() {
			h.all("Subscribe")
			tasks, sub := m.Subscribe(1 + h.r.IntN(20))
			o.log("%d subscribe: %d tasks", n, len(tasks))
			h.aside(func(ctx context.Context) {
				last := uint64(0)
				for {
					e, err := sub.Next(ctx)
					if err != nil {
						break
					}
					if e.Seq <= last && e.Kind != bgagent.EventMissed {
						o.fault("a subscriber got event %d after %d", e.Seq, last)
					}
					last = e.Seq
				}
				sub.Close()
			})
		},
		h.observe, h.observe, h.send, h.send, h.answer, h.answer,
		func() {
			h.all("SetLimits")
			l := h.limits()
			o.mu.Lock()
			o.limits, o.limitsAt = l, time.Now()
			o.logLocked("%d limits %+v", n, l)
			o.mu.Unlock()
			if err := h.cm.SetLimits(l); err != nil {
				o.fault("SetLimits: %v", err)
			}
		},
		func() {
			h.all("busy root")
			s := roots[h.r.IntN(3)]
			f := h.host[1]
			f.mu.Lock()
			f.roots[s] = bgagent.SessionState(1 + h.r.IntN(3))
			o.log("%d %s is %s", n, s, f.roots[s])
			f.mu.Unlock()
		},
	}
	ops[h.r.IntN(len(ops))]()
}

func (h *hammer) launch() {
	h.all("Launch")
	by, in := h.caller(), h.input()
	t, err := h.m.Launch(h.life.ctx, by, in)
	h.o.log("%d launch of %s %s by %q: %s %s %v", h.n, in.Agent, in.Model, by.Session, t.ID, t.Status, err)
	h.keep(t, err)
	if err == nil && (h.closed || h.draining) {
		h.o.fault("launched %s after Close or Drain", t.ID)
	}
}

func (h *hammer) resume(op string) {
	ref, by := h.target(op)
	if t, err := h.m.Get(ref); err == nil && t.Session != "" && h.r.IntN(2) == 0 {
		ref = t.Session
	}
	var gone *bgagent.ExpiredError
	if _, err := h.m.Get(ref); errors.As(err, &gone) && gone.Session != "" && h.r.IntN(2) == 0 {
		ref = gone.Session
	}
	n, in := h.n, bgagent.ResumeInput{Prompt: fmt.Sprintf("more%d", h.n)}
	if h.r.IntN(3) == 0 {
		in.Model = models[h.r.IntN(len(models))]
	}
	if op == "Resume" {
		before, _ := h.m.Get(ref)
		h.o.mu.Lock()
		// A process that has given up on stopping the session must not resume the task. A later process first
		// tries to stop the session again, so it may resume the task.
		stuck := before.Status.Terminal() && !before.Quiet && h.o.overran[attemptKey{before.ID, before.Attempt}] == h.life
		h.o.mu.Unlock()
		t, err := h.m.Resume(h.life.ctx, by, ref, in)
		if after, _ := h.m.Get(t.ID); err == nil && stuck && after.Status == bgagent.Pending && after.Queue == nil {
			h.o.fault("%s was resumed, but its session has not stopped", ref)
		}
		h.o.log("%d resume %s by %q: %s %v", n, ref, by.Session, t.Status, err)
		h.keep(t, err)
		return
	}
	h.aside(func(ctx context.Context) {
		t, err := h.m.RunResume(ctx, by, ref, in)
		h.o.log("%d run resume %s by %q: %s %v", n, ref, by.Session, t.Status, err)
		h.keep(t, err)
	})
}

func (h *hammer) observe() {
	h.all("Observe")
	e := bgagent.HostEvent{Kind: bgagent.HostEventKind(h.r.IntN(12)), Client: "starter", Session: h.session()}
	if h.r.IntN(6) == 0 {
		e.Client = []string{"", "nobody"}[h.r.IntN(2)]
	}
	if h.r.IntN(8) == 0 {
		e.Session = h.caller().Session
	}
	e.Status.State = bgagent.SessionState(h.r.IntN(9))
	switch e.Kind {
	case bgagent.HostError:
		e.Error, e.Stop = "an error", bgagent.StopReason(h.r.IntN(9))
		h.lie(e.Session)
	case bgagent.HostDeleted:
		if e.Client != "nobody" { // the manager ignores events from a client that it does not have
			h.o.sessionDeleted(e.Session)
		}
		if h.r.IntN(2) == 0 {
			h.vanish(e.Session)
		}
		h.lie(e.Session)
	case bgagent.HostStatus:
		h.lie(e.Session)
	}
	h.o.log("%d observe %s %s of %q", h.n, e.Kind, e.Status.State, e.Session)
	h.m.Observe(e)
}

func (h *hammer) vanish(session string) { h.host[1].vanish(session) }

func (h *hammer) lie(session string) {
	for _, f := range h.host {
		f.lie(session)
	}
}

// someAgain resumes several tasks in some of the runs. Otherwise, a resumed task would rarely
// be waiting for a slot during a drain or a close.
func (h *hammer) someAgain() {
	if h.r.IntN(3) > 0 || h.draining || h.closed {
		return
	}
	for range 6 {
		h.resume("Resume")
	}
}

func (h *hammer) drain() {
	h.someAgain()
	h.all("Drain")
	h.draining = true
	h.o.log("%d drain", h.n)
	h.aside(func(ctx context.Context) { h.o.log("drained: %v", h.m.Drain(ctx)) })
	synctest.Wait()
}

// close makes two concurrent calls to Close while operations are running.
func (h *hammer) close() {
	h.someAgain()
	h.o.mu.Lock()
	if h.life.over.Load() { // there is nothing to close
		h.o.mu.Unlock()
		return
	}
	h.closed, h.o.closedAt = true, time.Now()
	h.o.logLocked("%d close", h.n)
	h.o.mu.Unlock()
	h.all("Close")
	for range 2 {
		h.aside(func(ctx context.Context) {
			if inside.Store != nil || h.crashes { // Close reports completions only after they have been written, and writing takes time
				ctx = context.Background()
			}
			err := h.m.Close(ctx)
			h.o.log("closed: %v", err)
		})
	}
	synctest.Wait()
}

func statuses(tasks []bgagent.Task) (out []bgagent.Status) {
	for _, t := range tasks {
		out = append(out, t.Status)
	}
	return out
}
