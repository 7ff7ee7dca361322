package slottest

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "sharing" returns n sources that share the slots of one ConcurrencyManager.
func sharing(t TB, n int, l bgagent.Limits) (all []bgagent.SlotSource) {
	c, err := bgagent.NewConcurrencyManager(l)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for range n {
		all = append(all, c)
	}
	return all
}

func TestAConcurrencyManagerIsASlotSource(t *testing.T) {
	Conformance(t, Harness{New: sharing})
}

// The type "leased" is a source whose slots can be lost.
type leased struct {
	bgagent.SlotSource
	mu      sync.Mutex
	held    []*leasedClaim
	lateBy  time.Duration // delay before holders are notified
	early   bool          // a lost slot is granted to others while its holder may still use it
	always  bool          // MayBegin always returns true
	silent  bool          // holders are not notified
	forever bool          // a lost slot is never granted to others
}

const lease = 100 * time.Millisecond

type leasedClaim struct {
	bgagent.SlotClaim
	s    *leased
	h    bgagent.SlotHolder
	lost bool
}

func (s *leased) Request(r bgagent.SlotRequest, h bgagent.SlotHolder) bgagent.SlotClaim {
	k := &leasedClaim{s: s, h: h}
	k.SlotClaim = s.SlotSource.Request(r, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, k)
	return k
}

func (k *leasedClaim) MayBegin() bool {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	return k.s.always || !k.lost && k.SlotClaim.MayBegin()
}

func (s *leased) lose() (repair func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.held {
		k.lost = true
		until := time.Now().Add(lease)
		if !s.silent {
			time.AfterFunc(s.lateBy, func() { k.h.SlotLost(until, bgagent.ErrSlotLost) })
		}
		over := 2 * lease
		if s.early {
			over = lease / 2
		}
		if !s.forever {
			time.AfterFunc(over, k.SlotClaim.Release)
		}
	}
	s.held = nil
	return func() {}
}

func leasing(change func(*leased)) Harness {
	return Harness{
		New: func(t TB, n int, l bgagent.Limits) (all []bgagent.SlotSource) {
			for _, s := range sharing(t, n, l) {
				x := &leased{SlotSource: s}
				change(x)
				all = append(all, x)
			}
			return all
		},
		Cut: func(s bgagent.SlotSource) func() { return s.(*leased).lose() },
	}
}

func TestASourceWithLeasesPasses(t *testing.T) {
	Conformance(t, leasing(func(*leased) {}))
}

// liar is a source that changes requests and claims.
type liar struct {
	bgagent.SlotSource
	request func(r *bgagent.SlotRequest)
	holder  func(h bgagent.SlotHolder) bgagent.SlotHolder
	claim   func(k bgagent.SlotClaim, s bgagent.SlotSource, r bgagent.SlotRequest) bgagent.SlotClaim
	pools   func([]bgagent.PoolStats) []bgagent.PoolStats
	limits  func(bgagent.Limits) bgagent.Limits
}

func (l *liar) Request(r bgagent.SlotRequest, h bgagent.SlotHolder) bgagent.SlotClaim {
	if l.request != nil {
		l.request(&r)
	}
	if l.holder != nil {
		h = l.holder(h)
	}
	k := l.SlotSource.Request(r, h)
	if l.claim != nil {
		k = l.claim(k, l.SlotSource, r)
	}
	return k
}

func (l *liar) Pools() []bgagent.PoolStats {
	if l.pools == nil {
		return l.SlotSource.Pools()
	}
	return l.pools(l.SlotSource.Pools())
}

func (l *liar) Limits() bgagent.Limits {
	if l.limits == nil {
		return l.SlotSource.Limits()
	}
	return l.limits(l.SlotSource.Limits())
}

// claimOf is a claim with some replaced methods.
type claimOf struct {
	release  func()
	mayBegin func() bool
}

func (k claimOf) Release()       { k.release() }
func (k claimOf) MayBegin() bool { return k.mayBegin() }

// The type "twice" is a holder that is notified of each grant twice.
type twice struct{ bgagent.SlotHolder }

func (h twice) SlotGranted() {
	h.SlotHolder.SlotGranted()
	h.SlotHolder.SlotGranted()
}

// insideOf is a holder that records whether a call to SlotGranted is in progress.
type insideOf struct {
	bgagent.SlotHolder
	inside *atomic.Bool
}

func (h insideOf) SlotGranted() {
	h.inside.Store(true)
	defer h.inside.Store(false)
	h.SlotHolder.SlotGranted()
}

// The type "nobody" is a holder that is not notified of grants.
type nobody struct{ bgagent.SlotHolder }

func (nobody) SlotGranted() {}

// The function "lying" returns a harness for sources with the faults that the function "change"
// sets.
func lying(change func(*liar)) Harness {
	return Harness{New: func(t TB, n int, l bgagent.Limits) (all []bgagent.SlotSource) {
		for _, s := range sharing(t, n, l) {
			x := &liar{SlotSource: s}
			change(x)
			all = append(all, x)
		}
		return all
	}}
}

// The variable "latest" is the latest claim of an adversary.
var latest atomic.Value

// adversary is a source that must fail one check.
type adversary struct {
	check, how string
	h          Harness
}

var adversaries = []adversary{
	{"limit", "each process has its own limit", Harness{New: func(t TB, n int, l bgagent.Limits) (all []bgagent.SlotSource) {
		for range n {
			all = append(all, sharing(t, 1, l)...)
		}
		return all
	}}},
	{"limit", "grants are reported twice", lying(func(l *liar) {
		l.holder = func(h bgagent.SlotHolder) bgagent.SlotHolder { return twice{h} }
	})},
	{"every slot", "some releases are lost", lying(func(l *liar) {
		n := 0
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			n++
			if n%6 == 0 {
				return claimOf{func() {}, k.MayBegin}
			}
			return k
		}
	})},
	{"every slot", "grants are not reported", lying(func(l *liar) {
		l.holder = func(h bgagent.SlotHolder) bgagent.SlotHolder { return nobody{h} }
	})},
	{"order", "requests are sorted by arrival", lying(func(l *liar) { l.request = func(r *bgagent.SlotRequest) { r.Queued = time.Time{} } })},
	{"head", "the head counts as the end", lying(func(l *liar) { l.request = func(r *bgagent.SlotRequest) { r.Head = false } })},
	{"withdrawn", "withdrawn requests stay in line", lying(func(l *liar) {
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			return claimOf{func() {
				if k.MayBegin() {
					k.Release()
				}
			}, k.MayBegin}
		}
	})},
	{"released once", "each release frees a slot", lying(func(l *liar) {
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			latest.Store(k)
			return claimOf{func() {
				k.Release()
				latest.Load().(bgagent.SlotClaim).Release()
			}, k.MayBegin}
		}
	})},
	{"running", "running work waits in line", lying(func(l *liar) { l.request = func(r *bgagent.SlotRequest) { r.Running = false } })},
	{"running", "running work does not count", lying(func(l *liar) {
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, r bgagent.SlotRequest) bgagent.SlotClaim {
			if r.Running {
				k.Release()
			}
			return k
		}
	})},
	{"total", "only the limits of pools apply", Harness{New: func(t TB, n int, l bgagent.Limits) []bgagent.SlotSource {
		l.Total = 0
		return sharing(t, n, l)
	}}},
	{"agent", "agents are ignored", lying(func(l *liar) { l.request = func(r *bgagent.SlotRequest) { r.Agent = "" } })},
	{"may begin", "MayBegin always returns true", lying(func(l *liar) {
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			return claimOf{k.Release, func() bool { return true }}
		}
	})},
	{"may begin", "MayBegin always returns false", lying(func(l *liar) {
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			return claimOf{k.Release, func() bool { return false }}
		}
	})},
	{"rounds", "roots take no turns", Harness{New: func(t TB, n int, l bgagent.Limits) []bgagent.SlotSource {
		l.Fair = false
		return sharing(t, n, l)
	}}},
	{"queued now", "a request without a queue time is first in line", lying(func(l *liar) {
		l.request = func(r *bgagent.SlotRequest) {
			if r.Queued.IsZero() {
				r.Queued = time.Unix(1, 0)
			}
		}
	})},
	{"release at once", "a release during a grant is lost", lying(func(l *liar) {
		var inside atomic.Bool
		l.holder = func(h bgagent.SlotHolder) bgagent.SlotHolder { return insideOf{h, &inside} }
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			return claimOf{func() {
				if !inside.Load() {
					k.Release()
				}
			}, k.MayBegin}
		}
	})},
	{"many at once", "grants are reported twice", lying(func(l *liar) {
		l.holder = func(h bgagent.SlotHolder) bgagent.SlotHolder { return twice{h} }
	})},
	{"many at once", "some slots are lost", lying(func(l *liar) {
		var n atomic.Int32
		l.claim = func(k bgagent.SlotClaim, _ bgagent.SlotSource, _ bgagent.SlotRequest) bgagent.SlotClaim {
			return claimOf{func() {
				if n.Add(1)%5 != 0 {
					k.Release()
				}
			}, k.MayBegin}
		}
	})},
	{"limits and figures", "the limits are empty", lying(func(l *liar) { l.limits = func(bgagent.Limits) bgagent.Limits { return bgagent.Limits{} } })},
	{"limits and figures", "the figures are empty", lying(func(l *liar) { l.pools = func([]bgagent.PoolStats) []bgagent.PoolStats { return nil } })},
	{"lost", "the loss is reported too late", leasing(func(s *leased) { s.lateBy = lease * 3 / 2 })},
	{"lost", "the loss is not reported", leasing(func(s *leased) { s.silent = true })},
	{"lost", "the lost slot is granted too early", leasing(func(s *leased) { s.early = true })},
	{"lost", "the lost slot is never granted", leasing(func(s *leased) { s.forever = true })},
	{"lost", "MayBegin returns true for the lost slot", leasing(func(s *leased) { s.always = true })},
}

// recorder is a TB that records failures.
type recorder struct {
	TB
	mu     sync.Mutex
	failed []string
}

func (r *recorder) Helper()             {}
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Fatalf(f string, args ...any) {
	r.mu.Lock()
	r.failed = append(r.failed, fmt.Sprintf(f, args...))
	r.mu.Unlock()
	runtime.Goexit()
}

func TestTheSuiteFindsEveryAdversary(t *testing.T) {
	tried := map[string]bool{}
	for _, a := range adversaries {
		tried[a.check] = true
		t.Run(a.check+": "+a.how, func(t *testing.T) {
			t.Parallel()
			r := &recorder{TB: t}
			a.h.Within = time.Second
			for i := range checks {
				if checks[i].name == a.check {
					done := make(chan struct{})
					go func() { defer close(done); checks[i].hold(r, a.h) }()
					<-done
				}
			}
			require.NotEmpty(t, r.failed, "the check %q did not notice: %s", a.check, a.how)
		})
	}
	for _, ck := range checks {
		require.True(t, tried[ck.name], "the check %q has no adversary", ck.name)
	}
}
