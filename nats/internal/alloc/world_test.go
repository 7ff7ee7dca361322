package alloc

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// world simulates processes, the key and the messages between them. Messages are late and can be
// lost. Processes are frozen, thawed, killed and cut off. A judge counts what is running.
type world struct {
	rand   *rand.Rand
	now    time.Time
	events events
	n      int
	procs  []*proc
	limits bgagent.Limits
	lease  time.Duration
	keyFor time.Duration
	loss   float64 // probability that a message is lost
	outage bool    // the key can be neither read nor written

	key Key
	rev uint64

	limit   int
	most    int
	started int
	ended   int
	faults  []string
}

type event struct {
	at   time.Time
	n    int
	tick bool  // the event is a tick, which a frozen process skips
	p    *proc // the process that handles the event; nil for the world itself
	f    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	x := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return x
}

// proc is a simulated process.
type proc struct {
	w       *world
	name    string
	m       *Member
	a       *Allocator
	watch   Watch
	rev     uint64 // revision of the key, while the process is the allocator
	kept    time.Time
	joining map[string]bool
	writing bool
	reading bool
	dirty   bool
	request int // number of the unanswered message; 0 if there is none
	frozen  bool
	dead    bool
	cut     bool
	stopped bool    // the process was frozen when it should have ticked
	late    []event // what happened while the process was frozen
	bodies  map[uint64]*body
	waiting map[uint64]bool
}

// body is work that runs with a slot.
type body struct {
	over time.Time // time by which the body must have stopped, because its slot is lost
}

const step = 5 * time.Millisecond

func newWorld(seed uint64, limit int) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_800_000_000, 0), lease: time.Second, keyFor: 200 * time.Millisecond,
		limits: bgagent.Limits{Default: limit}, limit: limit,
	}
	w.key = Key{Version: KeyVersion, Limits: w.limits}
	return w
}

func (w *world) after(d time.Duration, p *proc, f func()) {
	w.n++
	heap.Push(&w.events, event{at: w.now.Add(d), n: w.n, p: p, f: f})
}

// delay returns how long a message takes. Only a few messages take long.
func (w *world) delay() time.Duration {
	d := time.Duration(w.rand.Int64N(int64(3 * time.Millisecond)))
	if w.rand.IntN(20) == 0 {
		d += time.Duration(w.rand.Int64N(int64(2 * w.lease)))
	}
	return d
}

// run handles the events of the given period.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		w.handle(e)
	}
	w.now = end
}

func (w *world) handle(e event) {
	switch {
	case e.p == nil:
		e.f()
	case e.p.dead:
	case e.p.frozen && e.tick:
		e.p.stopped = true
	case e.p.frozen:
		e.p.late = append(e.p.late, e)
	default:
		e.f()
		w.judge()
	}
}

// judge counts the bodies in unfrozen processes, except those that should already have stopped.
func (w *world) judge() {
	n := 0
	for _, p := range w.procs {
		if p.frozen || p.dead {
			continue
		}
		for _, b := range p.bodies {
			if b.over.IsZero() || w.now.Before(b.over) {
				n++
			}
		}
	}
	if w.most = max(w.most, n); n > w.limit {
		w.fault("%d bodies run; the limit is %d", n, w.limit)
	}
}

func (w *world) fault(f string, args ...any) {
	if len(w.faults) < 10 {
		w.faults = append(w.faults, fmt.Sprintf("%v: ", w.now.Sub(time.Unix(1_800_000_000, 0)))+fmt.Sprintf(f, args...))
	}
}

// start adds a process.
func (w *world) start() *proc {
	p := &proc{w: w, name: fmt.Sprint("process ", len(w.procs)), watch: Watch{Time: w.keyFor}, joining: map[string]bool{}, bodies: map[uint64]*body{}, waiting: map[uint64]bool{}}
	p.m = NewMember(p.name, w.lease)
	w.procs = append(w.procs, p)
	p.tickIn(0)
	return p
}

func (p *proc) freeze() { p.frozen = true }

// thaw handles what happened while the process was frozen. The order is random, because a process
// has many goroutines.
func (p *proc) thaw() {
	p.frozen = false
	for _, b := range p.bodies { // the judge has treated them as dead since the freeze
		if over := p.m.answered.Add(p.w.lease); b.over.IsZero() && !p.w.now.Before(over) {
			b.over = over
		}
	}
	late := p.late
	p.late = nil
	p.w.rand.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
	for _, e := range late {
		p.w.after(p.w.delay(), p, e.f)
	}
	if p.stopped { // the tick that the freeze suppressed comes now; unlike a message, it is not delayed further
		p.stopped = false
		p.tickIn(time.Duration(p.w.rand.Int64N(int64(step))))
	}
}

// tickIn makes the process tick after the given time.
func (p *proc) tickIn(d time.Duration) {
	p.w.n++
	heap.Push(&p.w.events, event{at: p.w.now.Add(d), n: p.w.n, p: p, f: p.tick, tick: true})
}

// ask requests n slots.
func (p *proc) ask(n int) {
	for range n {
		id := p.m.Request(p.w.now, Op{Agent: "worker", Queued: p.w.now}, false)
		p.waiting[id] = true
	}
	p.pump()
}

func (p *proc) tick() {
	w := p.w
	p.tickIn(step)
	p.m.Advance(w.now)
	if p.a != nil {
		p.dirty = p.a.Tick(w.now) || p.dirty
		p.tell()
		if !p.writing && (p.dirty || len(p.joining) > 0 || w.now.Sub(p.kept) >= w.keyFor/4) {
			p.write(Key{Version: KeyVersion, Term: p.a.Term(), Holder: p.name, Members: p.members(), Limits: w.limits}, p.rev, nil)
		}
	}
	if !p.reading && w.rand.IntN(10) == 0 {
		p.read()
	}
	p.pump()
}

func (p *proc) members() []string {
	all := p.a.Members()
	for name := range p.joining {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// write replaces the value of the key. If the write succeeds, write calls the function "then", unless
// that is nil.
func (p *proc) write(k Key, rev uint64, then func(sent time.Time)) {
	w := p.w
	p.writing, p.dirty = true, false
	sent, joined := w.now, maps.Clone(p.joining)
	answered := false
	w.after(w.delay(), nil, func() {
		if w.outage || p.cut {
			return
		}
		ok := w.rev == rev
		if ok {
			w.rev++
			w.key = k
		}
		now := w.rev
		w.after(w.delay(), p, func() {
			if answered || p.cut {
				return
			}
			answered, p.writing = true, false
			switch {
			case !ok:
				p.read()
			case then != nil:
				p.rev = now
				then(sent)
			case p.a != nil && p.a.Term() == k.Term:
				p.rev, p.kept = now, w.now
				p.a.Keep(sent, w.keyFor)
				for name := range joined {
					p.a.Admit(w.now, name)
					delete(p.joining, name)
				}
			}
		})
	})
	w.after(w.lease/6, p, func() {
		if !answered {
			answered, p.writing = true, false
			p.read()
		}
	})
}

func (p *proc) read() {
	w := p.w
	p.reading = true
	done := false
	w.after(w.delay(), nil, func() {
		if w.outage || p.cut {
			return
		}
		k, rev := w.key, w.rev
		w.after(w.delay(), p, func() {
			if !done && !p.cut {
				done, p.reading = true, false
				p.seen(k, rev)
			}
		})
	})
	w.after(w.lease/6, p, func() {
		if !done {
			done, p.reading = true, false
			p.watch.Forget()
		}
	})
}

func (p *proc) seen(k Key, rev uint64) {
	w := p.w
	if p.a != nil {
		switch {
		case k.Term > p.a.Term():
			p.a = nil
		case rev > p.rev && k.Holder == p.name && k.Term == p.a.Term():
			p.rev = rev // an earlier write succeeded, but its answer was lost
		}
	}
	if k.Holder != "" {
		p.m.Join(k.Term)
	}
	if take := p.watch.See(w.now, rev, &k); p.a != nil || !take || p.writing {
		return
	}
	next := Key{Version: KeyVersion, Term: k.Term + 1, Holder: p.name, Members: k.Members, Limits: k.Limits}
	p.write(next, rev, func(sent time.Time) {
		a, err := NewAllocator(next.Term, next.Limits, w.lease, sent, next.Members)
		if err != nil {
			panic(err)
		}
		p.a, p.kept, p.joining = a, w.now, map[string]bool{}
		a.Keep(sent, w.keyFor)
		p.m.Join(next.Term)
	})
}

func (w *world) lost() bool { return w.rand.Float64() < w.loss }

// tell sends grants that are not answers.
func (p *proc) tell() {
	for name, d := range p.a.Tell(p.w.now) {
		to := p.w.proc(name)
		p.w.message(p, to, func() { to.m.Told(p.w.now, &d); to.pump() })
	}
}

func (w *world) proc(name string) *proc {
	return w.procs[slices.IndexFunc(w.procs, func(p *proc) bool { return p.name == name })]
}

// message delivers a message if it is not lost.
func (w *world) message(from, to *proc, f func()) {
	if from.cut || w.lost() {
		return
	}
	w.after(w.delay(), to, func() {
		if !to.cut {
			f()
		}
	})
}

// pump sends the member's next message, and handles the member's news.
func (p *proc) pump() {
	w := p.w
	for news := p.m.News(); len(news) > 0; news = p.m.News() {
		for _, n := range news {
			p.hear(n)
		}
	}
	if p.request != 0 {
		return
	}
	up, ok := p.m.Next(w.now)
	if !ok {
		return
	}
	w.n++
	number, sent := w.n, w.now
	p.request = number
	w.after(w.lease/6, p, func() {
		if p.request == number {
			p.request = 0
			p.pump()
		}
	})
	for _, to := range w.procs {
		w.message(p, to, func() {
			if to.a == nil || to.a.Term() != up.Term {
				return
			}
			if !to.a.Knows(up.Process) {
				to.joining[up.Process] = true
				return
			}
			d, ok := to.a.Handle(w.now, &up)
			to.tell()
			if !ok {
				return
			}
			w.message(to, p, func() {
				if p.request == number {
					p.request = 0
					p.m.Answered(sent, w.now, &d)
					p.pump()
				}
			})
		})
	}
}

func (p *proc) hear(n News) {
	w := p.w
	if n.Lost {
		delete(p.waiting, n.ID)
		b := p.bodies[n.ID]
		if b == nil {
			p.m.Release(n.ID)
			return
		}
		b.over = n.Until
		w.after(time.Duration(w.rand.Int64N(int64(max(n.Until.Sub(w.now), 1)))), p, func() { p.end(n.ID) })
		return
	}
	if !p.waiting[n.ID] {
		w.fault("%s: the slot %d was granted, and nobody waits for it", p.name, n.ID)
	}
	delete(p.waiting, n.ID)
	if !p.m.MayBegin(w.now, n.ID) {
		p.bodies[n.ID] = &body{over: w.now}
		return // the member reports the loss with its next news
	}
	p.bodies[n.ID] = &body{}
	w.started++
	long := w.lease / 5
	if w.rand.IntN(2) == 0 {
		long = 3 * w.lease
	}
	w.after(time.Duration(w.rand.Int64N(int64(long))), p, func() { p.end(n.ID) })
}

func (p *proc) end(id uint64) {
	if p.bodies[id] != nil {
		delete(p.bodies, id)
		p.m.Release(id)
		p.w.ended++
		p.pump()
	}
}
