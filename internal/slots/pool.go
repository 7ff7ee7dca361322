package slots

import "cmp"

// Grantee is notified when its waiter gets a slot. The goroutine that freed the
// slot calls it, with no lock of the [Manager] held. The waiter may have left again
// by then; [Manager.Holds] tells.
type Grantee interface {
	SlotGranted(w *Waiter)
}

// Waiter waits for a slot or holds one. It is embedded by value in the record that
// wants the slot, so that waiting costs no allocation. The zero value with an Owner
// is ready to use. All fields but Owner belong to the manager.
type Waiter struct {
	next, prev *Waiter // in the line of key.pool
	key        *key    // the key that counts it; nil if it neither waits nor holds a slot
	order      uint64  // sorts the line: the ticket, with notHead or without; 0 if it does not wait
	Owner      Grantee // notified when a slot is granted; only read after waiting begins
}

// notHead is set in the order of waiters that do not go to the head of the line.
const notHead = 1 << 63

func (w *Waiter) waits() bool { return w.order != 0 }
func (w *Waiter) holds() bool { return w.key != nil && w.order == 0 }

func byOrder(a, b *Waiter) int { return cmp.Compare(a.order, b.order) }

// pool is one entry of the limits, with its line of waiters sorted by order.
type pool struct {
	name        string
	limit       int
	inUse       int
	waiting     int
	first, last *Waiter
}

func (p *pool) figures() Figures { return Figures{p.name, p.limit, p.inUse, p.waiting} }

func (p *pool) hasRoom() bool { return p.inUse < p.limit || p.limit == Unlimited }

// insert puts w into the line, usually at the end. Otherwise it searches from both
// ends at once: a waiter with an old ticket belongs near the front and must not
// pass a million others.
func (p *pool) insert(w *Waiter) {
	p.waiting++
	before, after := p.last, p.first // w goes behind before or in front of after
	for {
		if before == nil || before.order <= w.order {
			p.link(w, before)
			return
		}
		if after.order > w.order {
			p.link(w, after.prev)
			return
		}
		before, after = before.prev, after.next
	}
}

// link puts w behind prev, or first if prev is nil.
func (p *pool) link(w, prev *Waiter) {
	w.prev = prev
	if prev == nil {
		w.next, p.first = p.first, w
	} else {
		w.next, prev.next = prev.next, w
	}
	if w.next == nil {
		p.last = w
	} else {
		w.next.prev = w
	}
}

// remove removes w from the line.
func (p *pool) remove(w *Waiter) {
	p.waiting--
	if w.prev == nil {
		p.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		p.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// takeAll empties the line and appends its waiters to the given slice.
func (p *pool) takeAll(to []*Waiter) []*Waiter {
	for w := p.first; w != nil; {
		next := w.next
		w.next, w.prev = nil, nil
		to, w = append(to, w), next
	}
	p.first, p.last, p.waiting = nil, nil, 0
	return to
}

// grantFirst removes the first waiter from the line and counts a slot for it. It
// holds the slot once the caller sets its order to 0.
func (p *pool) grantFirst() *Waiter {
	w := p.first
	p.remove(w)
	w.key.waiting--
	grant(w, w.key)
	return w
}
