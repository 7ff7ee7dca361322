package slots

import (
	"cmp"
	"math"
)

// Grantee is told that a waiter of it holds a slot. Whoever freed the slot calls
// it, with no lock of the [Manager] held. By then the waiter may have left again:
// [Manager.Holds] tells.
type Grantee interface {
	SlotGranted(w *Waiter)
}

// Waiter waits for a slot or holds one. It is embedded by value in what wants
// the slot, so that waiting costs no allocation of its own. The zero value with
// an Owner is ready for use. Everything but Owner and Root belongs to the manager.
type Waiter struct {
	next, prev *Waiter // in the line of key.pool, or in one of a lane
	key        *key    // what it is counted as; nil when it has nothing
	order      uint64  // place in line by ticket, notHead set or not; 0 when it does not wait
	Owner      Grantee // told when a slot is granted; only read after waiting began
	Root       *Root   // between which [Caps.Fair] shares; nil for none. The same
}

// notHead is set in the order of those who do not go to the head of the line.
const notHead = 1 << 63

func (w *Waiter) waits() bool { return w.order != 0 }
func (w *Waiter) holds() bool { return w.key != nil && w.order == 0 }

func byOrder(a, b *Waiter) int { return cmp.Compare(a.order, b.order) }

// pool is what one entry of the limits decides for, with its line.
type pool struct {
	name    string
	limit   int
	open    int // below it a slot may be granted without looking further
	inUse   int
	waiting int
	list    // who waits; empty while there are caps
	capped  *cappedPool
}

// list is a line, sorted by order.
type list struct{ first, last *Waiter }

// setLimit sets the limit. Where there are caps, every grant has to look at them.
func (p *pool) setLimit(n int, capped bool) {
	p.limit, p.open = n, n
	switch {
	case capped:
		p.open = 0
	case n == Unlimited:
		p.open = math.MaxInt
	}
}

func (p *pool) figures() Figures { return Figures{p.name, p.limit, p.inUse, p.waiting} }

func (p *pool) hasRoom() bool { return p.inUse < p.open }

// insert puts w into the line. Mostly that is at its end. Otherwise the place is
// looked for from both ends at once: what has an old ticket is near the front
// and must not walk past a million others.
func (l *list) insert(w *Waiter) {
	before, after := l.last, l.first // w goes behind the one, or in front of the other
	for {
		if before == nil || before.order <= w.order {
			l.link(w, before)
			return
		}
		if after.order > w.order {
			l.link(w, after.prev)
			return
		}
		before, after = before.prev, after.next
	}
}

// link puts w behind prev, or first when prev is nil.
func (l *list) link(w, prev *Waiter) {
	w.prev = prev
	if prev == nil {
		w.next, l.first = l.first, w
	} else {
		w.next, prev.next = prev.next, w
	}
	if w.next == nil {
		l.last = w
	} else {
		w.next.prev = w
	}
}

// remove takes w out of the line.
func (l *list) remove(w *Waiter) {
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// takeAll empties the line and appends who stood in it.
func (l *list) takeAll(to []*Waiter) []*Waiter {
	for w := l.first; w != nil; {
		next := w.next
		w.next, w.prev = nil, nil
		to, w = append(to, w), next
	}
	l.first, l.last = nil, nil
	return to
}

// leaveAll takes everybody out of the line, appends them and stops to count them.
func (p *pool) leaveAll(to []*Waiter) []*Waiter {
	n := len(to)
	to = p.takeAll(to)
	for _, w := range to[n:] {
		w.key.waiting--
		p.waiting--
	}
	return to
}

// grantFirst takes the first out of the line and counts a slot for it. The
// caller sets its order to 0; from then on it holds the slot.
func (p *pool) grantFirst() *Waiter {
	w := p.first
	p.remove(w)
	p.waiting--
	w.key.waiting--
	grant(w, w.key)
	return w
}
