package slots

import (
	"cmp"
	"math"
)

// Grantee is the owner of a waiter. SlotGranted reports that the waiter has been granted a slot. It is
// called by the goroutine that freed the slot. This goroutine does not hold the lock of the [Manager]
// during the call. The waiter may have called [Manager.Leave] before the call: [Manager.Holds] reports
// whether it still holds the slot.
type Grantee interface {
	SlotGranted(w *Waiter)
}

// Waiter waits for a slot or holds a slot. It is embedded by value in the object that
// needs the slot, so that waiting costs no additional allocation. The zero value with
// an Owner is ready for use. All fields except Owner and Root belong to the manager.
type Waiter struct {
	next, prev *Waiter // neighbours in the line of key.pool or of a lane; for the field "prev" of a holder, see the method "passes"
	key        *key    // key that counts the waiter; nil if it neither waits nor holds a slot
	order      uint64  // rank in line: the ticket, with or without notHead; 0 if the waiter does not wait
	Owner      Grantee // notified of a grant; must not change after the first Take
	Root       *Root   // root session of the waiter, for [Caps.Fair]; can be nil; must not change after the first Take
}

// notHead is set in the order of a waiter that does not join the head of the line.
const notHead = 1 << 63

func (w *Waiter) waits() bool { return w.order != 0 }
func (w *Waiter) holds() bool { return w.key != nil && w.order == 0 }

func byOrder(a, b *Waiter) int { return cmp.Compare(a.order, b.order) }

// pool counts the slots of one limit, and holds the line of waiters for them.
type pool struct {
	name    string
	limit   int
	open    int // while inUse is less than open, a slot can be granted without further checks
	inUse   int
	waiting int
	list    // the waiters; empty while there are caps
	capped  *cappedPool
	cool    *cool // nil while the pool is in its usual state
}

// list is a line of waiters, sorted by order.
type list struct{ first, last *Waiter }

// setLimit sets the limit. With caps or during a cool-down, it sets the field "open" to 0, so
// that every grant checks the caps or the cool-down.
func (p *pool) setLimit(n int, capped bool) {
	p.limit, p.open = n, n
	switch {
	case capped || p.cool != nil:
		p.open = 0
	case n == Unlimited:
		p.open = math.MaxInt
	}
}

func (p *pool) figures() Figures { return Figures{p.name, p.limit, p.inUse, p.waiting, p.coolDown()} }

// isPlain reports whether p can grant slots, and neither caps nor a cool-down apply to it.
func (p *pool) isPlain() bool { return p.open > 0 }

// isOpen reports whether p is plain and has a free slot.
func (p *pool) isOpen() bool { return p.inUse < p.open }

func (p *pool) hasRoom() bool { return p.isOpen() || p.cool != nil && p.hasRoomInCool() }

// hasRoomInCool is hasRoom for a pool with a cool-down.
func (p *pool) hasRoomInCool() bool {
	return p.capped == nil && !p.cool.isFull() && (p.limit == Unlimited || p.inUse < p.limit)
}

// insert puts w into the line at its rank, which is usually the end. It searches from both ends at the same
// time. A waiter with an old ticket belongs near the front, and a search only from the end could visit a
// million waiters.
func (l *list) insert(w *Waiter) {
	before, after := l.last, l.first // candidates: w goes after the first candidate or before the second
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

// link puts w after prev. If prev is nil, w becomes the first in line.
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

// takeAll empties the line, and appends its waiters to the slice.
func (l *list) takeAll(to []*Waiter) []*Waiter {
	for w := l.first; w != nil; {
		next := w.next
		w.next, w.prev = nil, nil
		to, w = append(to, w), next
	}
	l.first, l.last = nil, nil
	return to
}

// leaveAll empties the line, appends its waiters to the slice, and subtracts them from the
// counts.
func (p *pool) leaveAll(to []*Waiter) []*Waiter {
	n := len(to)
	to = p.takeAll(to)
	for _, w := range to[n:] {
		w.key.waiting--
		p.waiting--
	}
	return to
}

// grantFirst removes the first waiter from the line and grants a slot to that waiter. The caller must set
// the order of the returned waiter to 0, which marks it as the holder of a slot.
func (p *pool) grantFirst() *Waiter {
	w := p.first
	p.remove(w)
	p.waiting--
	w.key.waiting--
	grant(w, w.key)
	return w
}
