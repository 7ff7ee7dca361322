package bgagent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/inside"
)

// The code in this file chooses the slot source, makes the calls to the source, and passes the
// source's answers to the state.

// chooseSlots sets m.cm and m.cfg.Slots. If the ConcurrencyManager m.cm itself hands out the slots,
// m.cfg.Slots is nil. Otherwise, m.cfg.Slots is the source that hands out the slots, and m.cm shows
// the figures of this source.
func (m *BackgroundManager) chooseSlots() (err error) {
	if m.cfg.Slots == nil && m.cm == nil && inside.Slots != nil {
		own, err := NewConcurrencyManager(m.cfg.Limits)
		if err != nil {
			return err
		}
		m.cfg.Slots = inside.Slots(own).(SlotSource)
	}
	if own, ok := m.cfg.Slots.(*ConcurrencyManager); ok {
		if own == nil {
			return &InputError{"Config.Slots", "is a nil *ConcurrencyManager; leave the field empty, or make one with NewConcurrencyManager"}
		}
		m.cm, m.cfg.Slots = own, nil
	}
	switch {
	case m.cm != nil: // if m.cm shows the slots of another manager's source, both managers ask that source
		m.cfg.Slots = m.cm.from
	case m.cfg.Slots != nil:
		m.cm, err = front(m.cfg.Slots)
	default:
		m.cm, err = NewConcurrencyManager(m.cfg.Limits)
	}
	return err
}

// joinSlots registers the manager as a user of its slots. If other processes might use the slots
// too, it logs that each process applies tree budgets separately.
func (m *BackgroundManager) joinSlots() {
	m.cm.join(m)
	if m.cfg.Slots != nil && !m.cfg.TreeBudget.isZero() {
		m.update(func(st *state, _ int64) { st.logText(logTreeHere, "Config.TreeBudget", "") })
	}
}

// Concurrency returns the ConcurrencyManager that hands out the slots. Use it to read the pools'
// figures or to change the limits. With Config.Slots, the ConcurrencyManager only shows the figures
// and limits of that source. Its method Acquire then returns an error. Its method SetLimits calls
// the source's method SetLimits(Limits) error, or returns an error if the source has no such method.
func (m *BackgroundManager) Concurrency() *ConcurrencyManager { return m.cm }

// sourceSlot is the part of a claim that goroutines outside the state use.
type sourceSlot struct {
	mu    sync.Mutex
	claim SlotClaim // nil until Request has returned a claim
	early []func()  // answers that came before Request returned; they are processed once it has returned
}

// get returns the claim, or nil if Request has not returned one yet.
func (s *sourceSlot) get() SlotClaim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim
}

// mayBegin reports whether the host call that is prepared in j may begin. It returns false if the
// source has lost the slot for the call.
func (m *BackgroundManager) mayBegin(j *job) bool {
	if j.slot == nil {
		return true
	}
	k := j.slot.get()
	return k != nil && k.MayBegin()
}

// mayPrompt returns an error if the slot for the turn is lost or the attempt has ended. The session must then
// not get the prompt that is prepared in j. The slot must come from a [SlotSource].
func (m *BackgroundManager) mayPrompt(a *attempt, j *job) error {
	if !m.mayBegin(j) {
		return m.slotGone(a)
	}
	hands := false
	m.update(func(st *state, now int64) { hands = st.handsOverWithSlot(a, now) })
	if !hands {
		return context.Canceled
	}
	return nil
}

// If the task waits for a slot, showSource replaces the figures for its pool. The new figures come
// from the source and count all users of the source.
func (m *BackgroundManager) showSource(s *Task) {
	if m.cfg.Slots != nil && s.Queue != nil {
		s.Queue.Pool = m.cm.statsOf(m.cm.look(), s.Queue.Pool.Name)
	}
}

// errSlotGone is the result of a host call that was not made because its slot is lost.
var errSlotGone = fmt.Errorf("the call was not made: %w", ErrSlotLost)

// slotGone ends the attempt because mayBegin returned false.
func (m *BackgroundManager) slotGone(a *attempt) error {
	m.update(func(st *state, now int64) { st.slotGone(a, reasonSlotLost(ErrSlotLost.Error()), now) })
	return errSlotGone
}

// askSlots calls the source until no call is left to make.
func (m *BackgroundManager) askSlots() {
	for {
		var calls []claimCall
		m.update(func(st *state, _ int64) { calls = st.nextClaimCalls() })
		if len(calls) == 0 {
			return
		}
		m.each(goSlots, 0, len(calls), func(i int) { m.callSource(&calls[i]) }, m.askSlots)
	}
}

func (m *BackgroundManager) callSource(x *claimCall) {
	if x.cool != nil {
		m.cm.tell(x.cool)
		return
	}
	s := x.c.slot
	if x.release {
		if k := s.get(); k != nil { // k is nil if Request has failed
			k.Release()
		}
		return
	}
	h := &slotHolder{m, x.c}
	returned := false
	defer func() {
		if !returned {
			h.lost(time.Now(), errors.New("SlotSource.Request panicked"))
		}
	}()
	m.cm.look() // update the pools first, because the limits of the source might have changed
	k := m.cfg.Slots.Request(x.request, h)
	if returned = true; k == nil {
		h.lost(time.Now(), errNoClaim)
		return
	}
	s.mu.Lock()
	early := s.early
	s.claim, s.early = k, nil
	s.mu.Unlock()
	for _, f := range early {
		f()
	}
}

// If Request returns nil, errNoClaim is the reason why the task has no slot. In that case, the
// source is faulty or no longer grants slots.
var errNoClaim = errors.New("SlotSource.Request returned no claim")

// slotHolder passes the source's answers about one claim to the state.
type slotHolder struct {
	m *BackgroundManager
	c *claim
}

// SlotGranted implements [SlotHolder].
func (h *slotHolder) SlotGranted() {
	h.after(func() { h.m.update(func(st *state, _ int64) { st.sourceGranted(h.c) }) })
}

// SlotLost implements [SlotHolder].
func (h *slotHolder) SlotLost(until time.Time, why error) {
	h.after(func() { h.lost(until, why) })
}

func (h *slotHolder) lost(until time.Time, why error) {
	if why == nil {
		why = ErrSlotLost
	}
	reason := reasonSlotLost(why.Error())
	h.m.update(func(st *state, now int64) {
		st.slotLost(h.c, now+int64(time.Until(until)), reason, now)
	})
}

// The method "after" executes f once Request has returned, so that the claim is known when the task starts.
func (h *slotHolder) after(f func()) {
	s := h.c.slot
	s.mu.Lock()
	if s.claim == nil {
		s.early = append(s.early, f)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	f()
}
