package alloc

import (
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// maxOps is the largest number of ops in a message.
const maxOps = 256

// Member implements the protocol for a process that asks for slots. Its methods must not be called
// concurrently.
type Member struct {
	name         string
	lease        time.Duration
	term         uint64
	registration uint64
	registered   bool // the allocator knows the whole registration
	mustRegister bool
	leaving      bool
	acked        uint64
	done         uint64    // number of the op that completes the registration
	ops          []Op      // ops that the allocator does not know yet; the first has the number acked+1
	answered     time.Time // when the last answered message was sent
	beat         time.Time // when the last heartbeat was sent; zero if the last message was not answered
	last         uint64    // number of the last request
	requests     map[uint64]*request
	news         []News
}

type request struct {
	op         Op
	at         time.Time // time of the request
	held, lost bool
}

// News is a grant or a loss that a process must report to a holder.
type News struct {
	ID    uint64
	Lost  bool // the slot is lost; otherwise, it is granted
	Until time.Time
	Why   error
}

// NewMember returns the member for a process. The name must never have been used before.
func NewMember(name string, lease time.Duration) *Member {
	return &Member{name: name, lease: lease, requests: map[uint64]*request{}}
}

// Join is called when the process finds out that there is an allocator with the given term. If the term is
// new, the member will register with that allocator.
func (m *Member) Join(term uint64) {
	if term > m.term {
		m.term, m.mustRegister, m.registered = term, true, false
	}
}

// Request asks for a slot and returns the number of the request. If the work is already running, the slot
// is held from the start.
func (m *Member) Request(now time.Time, op Op, running bool) uint64 {
	m.last++
	op.ID, op.Kind = m.last, OpWant
	if running {
		op.Kind = OpHold
	}
	m.requests[op.ID] = &request{op: op, at: now, held: running}
	if running {
		m.news = append(m.news, News{ID: op.ID})
	}
	m.ops = append(m.ops, op)
	return op.ID
}

// Release gives up a slot, or a place in line.
func (m *Member) Release(id uint64) {
	if m.requests[id] != nil {
		delete(m.requests, id)
		m.ops = append(m.ops, Op{Kind: OpFree, ID: id})
	}
}

// MayBegin reports whether work may begin with the slot.
func (m *Member) MayBegin(now time.Time, id uint64) bool {
	m.Advance(now)
	r := m.requests[id]
	return r != nil && r.held && !r.lost && m.isFresh(now)
}

// isFresh reports whether the process is still allowed to take grants.
func (m *Member) isFresh(now time.Time) bool {
	return !m.answered.IsZero() && since(now, m.answered) < twoThirds(m.lease)
}

// Advance gives up all slots if two thirds of the lease have passed. If no message was ever answered, the
// process has slots only for work that was already running, and no other process knows about these slots.
// Their lease begins with the request.
func (m *Member) Advance(now time.Time) {
	if m.isFresh(now) {
		return
	}
	for id, r := range m.requests {
		from := m.answered
		if from.IsZero() {
			from = r.at
		}
		if r.held && !r.lost && since(now, from) >= twoThirds(m.lease) {
			r.lost = true
			m.news = append(m.news, News{ID: id, Lost: true, Until: from.Add(m.lease),
				Why: fmt.Errorf("%w: no allocator has answered for %v", bgagent.ErrSlotLost, since(now, from).Round(time.Millisecond))})
		}
	}
}

// Leave gives up all slots and requests, because the process is exiting. The holders learn that their slots
// are lost. A held slot still belongs to the process until it is released or the lease is over.
func (m *Member) Leave(now time.Time, why error) {
	until := now
	if !m.answered.IsZero() {
		until = m.answered.Add(m.lease)
	}
	for id, r := range m.requests {
		if !r.lost {
			m.news = append(m.news, News{ID: id, Lost: true, Until: until, Why: why})
		}
		if r.lost = true; !r.held {
			delete(m.requests, id) // OpLeave also ends the requests that are in line, so no other op is needed
		}
	}
	m.leaving = true
	m.ops = append(m.ops, Op{Kind: OpLeave})
}

// HasLeft reports whether the allocator knows that the process is exiting.
func (m *Member) HasLeft() bool { return m.leaving && len(m.ops) == 0 }

// Next returns the message that must be sent now, or false if there is none. Each message must be
// answered or abandoned before the next one is sent.
func (m *Member) Next(now time.Time) (up Up, ok bool) {
	if m.term == 0 || m.HasLeft() {
		return Up{}, false
	}
	if m.mustRegister {
		m.register()
	}
	beat := m.beat.IsZero() || since(now, m.beat) >= m.lease/6
	if !beat && len(m.ops) == 0 {
		return Up{}, false
	}
	if beat {
		m.beat = now
	}
	return Up{
		Process: m.name, Term: m.term, Registration: m.registration, First: m.acked + 1,
		Ops: slices.Clone(m.ops[:min(len(m.ops), maxOps)]), Figures: beat,
	}, true
}

// Failed is called if the last message was not answered. The message is then repeated immediately.
func (m *Member) Failed() { m.beat = time.Time{} }

// Term returns the term of the allocator, as far as the process knows it.
func (m *Member) Term() uint64 { return m.term }

// NextBeat returns the time at which the next heartbeat must be sent. A heartbeat is a message that asks for
// the figures.
func (m *Member) NextBeat() time.Time { return m.beat.Add(m.lease / 6) }

// register replaces all ops with a description of the slots that the process holds and waits for.
func (m *Member) register() {
	m.mustRegister, m.registered = false, false
	m.registration++
	m.acked, m.ops = 0, nil
	ids := make([]uint64, 0, len(m.requests))
	for id := range m.requests {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, held := range []bool{true, false} { // held slots come first, so that the allocator counts them before it grants slots to the other requests
		for _, id := range ids {
			if r := m.requests[id]; r.held == held {
				op := r.op
				if op.Kind = OpWant; held {
					op.Kind = OpHold
				}
				m.ops = append(m.ops, op)
			}
		}
	}
	m.ops = append(m.ops, Op{Kind: OpDone})
	m.done = uint64(len(m.ops))
	if m.leaving {
		m.ops = append(m.ops, Op{Kind: OpLeave})
	}
}

// Answered handles the answer to a message sent at the given time.
func (m *Member) Answered(sent, now time.Time, d *Down) {
	m.Advance(now)
	if !m.concerns(d) {
		return
	}
	m.answered = later(m.answered, sent)
	if d.Acked > m.acked {
		n := min(d.Acked-m.acked, uint64(len(m.ops)))
		m.ops = m.ops[n:]
		m.acked += n
	}
	m.registered = m.acked >= m.done
	m.take(now, d)
}

// Told handles a message that is not an answer.
func (m *Member) Told(now time.Time, d *Down) {
	m.Advance(now)
	if m.concerns(d) {
		m.take(now, d)
	}
}

// The method "concerns" reports whether the message comes from the allocator that the process knows, and
// is about its current registration. If the message asks the process to register, the method "concerns"
// starts a registration.
func (m *Member) concerns(d *Down) bool {
	switch {
	case d.Term > m.term:
		m.Join(d.Term)
		return false
	case d.Term < m.term || d.Registration != m.registration || m.mustRegister:
		return false
	case d.Register:
		m.mustRegister, m.registered = true, false
		return false
	}
	return true
}

// The method "take" takes the grants in a message, unless they might be out of date.
func (m *Member) take(now time.Time, d *Down) {
	if !m.registered || !m.isFresh(now) {
		return
	}
	for _, id := range d.Grants {
		if r := m.requests[id]; r != nil && !r.held && !r.lost {
			r.held = true
			m.ops = append(m.ops, Op{Kind: OpTake, ID: id})
			m.news = append(m.news, News{ID: id})
		}
	}
}

// News returns the grants and losses that must be reported to the holders, in order.
func (m *Member) News() []News {
	news := m.news
	m.news = nil
	return news
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
