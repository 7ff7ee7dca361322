package bgagent

import (
	"cmp"
	"slices"

	"github.com/bgagent/bgagent/internal/slots"
)

// oracle knows who waits and who holds, and what is to become of them.
type oracle struct {
	limits Limits
	clock  func() uint64
	all    []*oracleOne

	passed map[oracleLane]int    // slots of the pool that went to who is behind, since somebody of it had one
	kept   map[oracleLane]bool   // a slot of the pool is kept for it
	served map[oracleTurn]uint64 // when a root had a slot of a pool that it still waits for
}

// oracleLane is a pool, and the agent if that has a cap.
type oracleLane struct{ pool, cap string }

type oracleTurn struct {
	pool string
	root *slots.Root
}

func (o *oracle) setLimits(l Limits) {
	o.limits = l
	o.passed, o.kept, o.served = map[oracleLane]int{}, map[oracleLane]bool{}, map[oracleTurn]uint64{}
	o.settle()
}

func (o *oracle) pool(x *oracleOne) string {
	name, _ := oraclePool(o.limits, x.model, x.agent)
	return name
}

// cap names the cap of an agent, if it has one.
func (o *oracle) cap(x *oracleOne) string {
	if x.isTask() && oracleCap(o.limits, x.agent) > 0 {
		return "cap " + oracleName(x.agent)
	}
	return ""
}

func (o *oracle) lane(x *oracleOne) oracleLane { return oracleLane{o.pool(x), o.cap(x)} }

// isTask tells tasks from callers of Acquire, which count for no agent.
func (x *oracleOne) isTask() bool {
	_, ok := x.real.(*guest)
	return ok && oracleName(x.agent) != ""
}

// figures counts those that are meant.
func (o *oracle) figures(name string, limit int, meant func(*oracleOne) bool) PoolStats {
	s := PoolStats{Name: name, Limit: limit}
	for _, x := range o.all {
		switch {
		case !meant(x):
		case x.holds:
			s.InUse++
		default:
			s.Waiting++
		}
	}
	return s
}

func (o *oracle) poolStats(x *oracleOne) PoolStats {
	name, limit := oraclePool(o.limits, x.model, x.agent)
	return o.figures(name, limit, func(y *oracleOne) bool { return o.pool(y) == name })
}

func (o *oracle) capStats(x *oracleOne) PoolStats {
	return o.figures(o.cap(x), oracleCap(o.limits, x.agent), func(y *oracleOne) bool { return o.cap(y) == o.cap(x) })
}

func (o *oracle) total() PoolStats {
	return o.figures("total", o.limits.Total, func(*oracleOne) bool { return true })
}

// alone reports whether a cap decides in place of the default.
func (o *oracle) alone(x *oracleOne) bool { return oracleName(x.model) == "" && o.cap(x) != "" }

// shown are the figures of all pools and caps, by name.
func (o *oracle) shown() map[string]PoolStats {
	out := map[string]PoolStats{}
	for _, x := range o.all {
		if !o.alone(x) {
			out[o.pool(x)] = o.poolStats(x)
		}
		if o.cap(x) != "" {
			out[o.cap(x)] = o.capStats(x)
		}
		if o.limits.Total > 0 {
			out["total"] = o.total()
		}
	}
	return out
}

// keptIn counts the slots of a pool that are kept.
func (o *oracle) keptIn(pool string) (n int) {
	for l := range o.kept {
		if l.pool == pool {
			n++
		}
	}
	return n
}

func hasRoom(s PoolStats) bool { return s.Limit <= 0 || s.InUse < s.Limit }

// blocks returns what keeps x waiting and who else counts there; no name for
// nothing.
func (o *oracle) blocks(x *oracleOne) (PoolStats, func(*oracleOne) bool) {
	if s := o.poolStats(x); !o.kept[o.lane(x)] && s.Limit != -1 && s.InUse+o.keptIn(s.Name) >= s.Limit {
		return s, func(y *oracleOne) bool { return o.pool(y) == s.Name }
	}
	if o.cap(x) != "" && !hasRoom(o.capStats(x)) {
		return o.capStats(x), func(y *oracleOne) bool { return o.cap(y) == o.cap(x) }
	}
	if !hasRoom(o.total()) {
		return o.total(), func(*oracleOne) bool { return true }
	}
	return PoolStats{}, nil
}

// order is the place in line by arrival.
func order(a, b *oracleOne) int {
	switch {
	case a.head != b.head && a.head:
		return -1
	case a.head != b.head:
		return 1
	}
	return cmp.Compare(a.ticket, b.ticket)
}

// turns is the order of being served: with Fair a root has its next turn as if it
// had come when it had the last one.
func (o *oracle) turns(a, b *oracleOne) int {
	since := func(x *oracleOne) uint64 {
		if o.limits.Fair {
			return max(x.ticket, o.served[oracleTurn{o.pool(x), x.root}])
		}
		return x.ticket
	}
	if a.head != b.head {
		return order(a, b)
	}
	return cmp.Or(cmp.Compare(since(a), since(b)), order(a, b))
}

// place is the place among those who wait for the same, with Fair among those of
// the same root.
func (o *oracle) place(x *oracleOne) (int, PoolStats) {
	s, counts := o.blocks(x)
	place := 1
	for _, y := range o.all {
		if !y.holds && counts(y) && order(y, x) < 0 && (!o.limits.Fair || y.root == x.root) {
			place++
		}
	}
	return place, s
}

// waiting are those who wait, in the order of being served.
func (o *oracle) waiting() (all []*oracleOne) {
	for _, x := range o.all {
		if !x.holds {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, o.turns)
	return all
}

// headOf is the head of a pool's line: the first for whom no slot is kept.
func (o *oracle) headOf(pool string) *oracleOne {
	for _, x := range o.waiting() {
		if o.pool(x) == pool && !o.kept[o.lane(x)] {
			return x
		}
	}
	return nil
}

// keep keeps free slots for those who were passed over 100 times.
func (o *oracle) keep() {
	for again := true; again; {
		again = false
		for _, x := range o.waiting() {
			if o.passed[o.lane(x)] < 100 {
				continue
			}
			s := o.poolStats(x)
			free := s.Limit == -1 || s.InUse+o.keptIn(s.Name) < s.Limit
			by, _ := o.blocks(x)
			if x == o.headOf(s.Name) && free && by.Name != "" {
				o.kept[o.lane(x)] = true
				again = true
			}
		}
	}
}

// settle grants whatever can be granted.
func (o *oracle) settle() {
	for o.keep(); ; o.keep() {
		o.forget()
		all := o.waiting()
		i := slices.IndexFunc(all, func(x *oracleOne) bool { by, _ := o.blocks(x); return by.Name == "" })
		if i < 0 {
			return
		}
		o.grant(all[i])
	}
}

func (o *oracle) grant(x *oracleOne) {
	pool := o.pool(x)
	delete(o.kept, o.lane(x))
	delete(o.passed, o.lane(x))
	head := o.headOf(pool)
	passes := head != nil && head != x && o.turns(head, x) < 0
	x.holds = true
	if passes {
		o.passed[o.lane(head)]++
	}
	if o.limits.Fair {
		o.served[oracleTurn{pool, x.root}] = o.clock()
	}
}

// forget drops what is remembered of lanes and roots that nobody waits in.
func (o *oracle) forget() {
	lanes, turns := map[oracleLane]bool{}, map[oracleTurn]bool{}
	for _, x := range o.waiting() {
		lanes[o.lane(x)] = true
		turns[oracleTurn{o.pool(x), x.root}] = true
	}
	for l := range o.passed {
		if !lanes[l] {
			delete(o.passed, l)
		}
	}
	for l := range o.kept {
		if !lanes[l] {
			delete(o.kept, l)
		}
	}
	for t := range o.served {
		if !turns[t] {
			delete(o.served, t)
		}
	}
}

func (o *oracle) drop(x *oracleOne) {
	o.all = slices.DeleteFunc(o.all, func(y *oracleOne) bool { return y == x })
	o.forget()
	o.settle()
}
