package bgagent

import (
	"cmp"
	"slices"

	"github.com/bgagent/bgagent/internal/slots"
)

// The type "oracle" records all waiters and all holders of slots, and decides which waiter gets a
// slot.
type oracle struct {
	limits Limits
	clock  func() uint64
	all    []*oracleOne

	passed map[oracleLane]int    // number of slots that later waiters in the pool have received since the lane last got a slot
	kept   map[oracleLane]bool   // true if a slot in the pool is kept for the lane
	served map[oracleTurn]uint64 // when a waiting root last got a slot in the pool

	known map[[2]string]oracleRule // cached rules, because computing a rule takes a long time
}

// oracleRule holds the limits that apply to a model and an agent.
type oracleRule struct {
	pool    string
	limit   int    // limit of the pool
	cap     string // name of the cap, or "" if there is none
	most    int    // limit of the cap
	unnamed bool   // the model has no name
}

// oracleLane identifies the waiters in a pool that share a cap or that have none.
type oracleLane struct{ pool, cap string }

type oracleTurn struct {
	pool string
	root *slots.Root
}

func (o *oracle) setLimits(l Limits) {
	o.limits = l
	o.passed, o.kept, o.served = map[oracleLane]int{}, map[oracleLane]bool{}, map[oracleTurn]uint64{}
	o.known = map[[2]string]oracleRule{}
	o.settle()
}

func (o *oracle) rule(x *oracleOne) oracleRule {
	key := [2]string{x.model, x.agent}
	rule, ok := o.known[key]
	if !ok {
		rule.pool, rule.limit = oraclePool(o.limits, x.model, x.agent)
		rule.unnamed = oracleName(x.model) == ""
		if name := oracleName(x.agent); name != "" && oracleCap(o.limits, x.agent) > 0 {
			rule.cap, rule.most = "cap "+name, oracleCap(o.limits, x.agent)
		}
		o.known[key] = rule
	}
	return rule
}

func (o *oracle) pool(x *oracleOne) string { return o.rule(x).pool }

// The method "cap" returns the name of the cap that applies to x, or "" if there is none. A caller
// of Acquire is not a task and does not count towards an agent's cap.
func (o *oracle) cap(x *oracleOne) string {
	if _, task := x.real.(*guest); !task {
		return ""
	}
	return o.rule(x).cap
}

func (o *oracle) lane(x *oracleOne) oracleLane { return oracleLane{o.pool(x), o.cap(x)} }

// The method "figures" returns the figures for a pool or cap. The function "meant" reports whether
// a waiter or holder belongs to the pool or cap.
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
	r := o.rule(x)
	return o.figures(r.pool, r.limit, func(y *oracleOne) bool { return o.pool(y) == r.pool })
}

func (o *oracle) capStats(x *oracleOne) PoolStats {
	r := o.rule(x)
	return o.figures(r.cap, r.most, func(y *oracleOne) bool { return o.cap(y) == r.cap })
}

func (o *oracle) total() PoolStats {
	return o.figures("total", o.limits.Total, func(*oracleOne) bool { return true })
}

// The method "alone" reports whether the agent's cap replaces the default limit for x.
func (o *oracle) alone(x *oracleOne) bool { return o.rule(x).unnamed && o.cap(x) != "" }

// The method "shown" returns the figures for all pools and caps by name.
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

// keptIn returns how many slots are kept for lanes in a pool.
func (o *oracle) keptIn(pool string) (n int) {
	for l := range o.kept {
		if l.pool == pool {
			n++
		}
	}
	return n
}

func hasRoom(s PoolStats) bool { return s.Limit <= 0 || s.InUse < s.Limit }

// The method "blocks" returns the figures for the pool or cap that keeps x waiting, and a function
// that reports whether another waiter belongs to the same pool or cap. If nothing keeps x waiting,
// the figures have no name.
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

// The function "order" compares two waiters by their arrival. A waiter whose field "head" is set
// comes before all others.
func order(a, b *oracleOne) int {
	switch {
	case a.head != b.head && a.head:
		return -1
	case a.head != b.head:
		return 1
	}
	return cmp.Compare(a.ticket, b.ticket)
}

// The method "turns" compares two waiters. The waiter that is served first sorts first. With Fair,
// if a waiter arrived before its root last got a slot, it is treated as if it had arrived at that
// moment.
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

// The method "place" returns x's place among the waiters for the same pool or cap. With Fair, only
// the waiters of the same root are counted.
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

// The method "waiting" returns all waiters. The next waiter to be served comes first.
func (o *oracle) waiting() (all []*oracleOne) {
	for _, x := range o.all {
		if !x.holds {
			all = append(all, x)
		}
	}
	slices.SortFunc(all, o.turns)
	return all
}

// headOf returns the head of a pool's line: the first waiter for which no slot is kept.
func (o *oracle) headOf(pool string) *oracleOne {
	for _, x := range o.waiting() {
		if o.pool(x) == pool && !o.kept[o.lane(x)] {
			return x
		}
	}
	return nil
}

// The method "keep" reserves a free slot for the head of each line if later waiters have overtaken
// the head's lane 100 times.
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

// The method "settle" grants slots until no waiter can get a slot.
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

// The method "forget" drops the records of lanes and roots that have no waiters.
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
