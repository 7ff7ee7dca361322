package bgagent

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The code in this file handles the waiters for the store, and writes that fail or take too long.

// anyBatch is a number that no batch has. It stands for all batches.
const anyBatch = math.MaxUint64

// The method "await" makes the waiter wait for the batch with the given number. The number 0 stands
// for the next batch that becomes durable. A waiter that has been woken waits again only if the
// method "await" is called again.
func (s *storing) await(w *waiter, batch uint64) {
	w.place = len(s.waiters[batch])
	s.waiters[batch] = append(s.waiters[batch], w)
}

// The method "forget" removes the waiter from the list for the batch. It leaves a gap in the list,
// because closing the gap would take time proportional to the number of other waiters.
func (s *storing) forget(w *waiter, batch uint64) {
	if all := s.waiters[batch]; w.place < len(all) && all[w.place] == w {
		all[w.place] = nil
	}
}

// wakeStoring wakes the waiters for the given batch and for all earlier batches, in the order of the
// batches. Waiters for the same batch are woken in the order they began to wait. Waiters for
// later batches are not woken. Otherwise, the number of wake-ups would grow with the square of the
// number of waiters.
func (st *state) wakeStoring(batch uint64) {
	s := st.storing
	for _, number := range slices.Sorted(maps.Keys(s.waiters)) { // sorting takes little time, because the map has few keys
		if number > batch {
			break
		}
		for _, w := range s.waiters[number] {
			if w != nil {
				st.fx.after.wakes.add(w)
			}
		}
		delete(s.waiters, number)
	}
}

// batchOfTask returns the number of the batch that contains the task's last urgent change.
func (st *state) batchOfTask(t *task) uint64 {
	if m := st.storing.tasks[t]; m != nil {
		return m.must
	}
	return 0
}

// batchOfNode is like batchOfTask, but for a node.
func (st *state) batchOfNode(n *node) uint64 {
	if m := st.storing.nodes[n]; m != nil {
		return m.must
	}
	return 0
}

// The type "asking" is a launch or resume whose callers wait until it is durable. It has several
// callers if a tool call was repeated.
type asking struct {
	callers   int
	withdrawn bool
	uncertain bool   // the launch or resume was withdrawn, but the store might contain it
	why       string // why the launch or resume was withdrawn
}

// The method "ask" is called when a caller waits for the launch or resume that opened the attempt.
// If the launch or resume is already durable, the method "ask" returns nil.
func (st *state) ask(t *task, no int32) *asking {
	switch m := st.storing.tasks[t]; {
	case st.accepted(t, no):
		return nil
	case m == nil || st.withdrawn(t, no): // the launch or resume was withdrawn after the caller had found the task
		return &asking{callers: 1, withdrawn: true, uncertain: true, why: st.storing.why}
	default:
		if m.asked == nil {
			m.asked = &asking{}
		}
		m.asked.callers++
		return m.asked
	}
}

// The method "answer" is called when a caller no longer waits. It withdraws a launch or resume that
// is not durable, if writes fail or if no other caller waits for it.
func (st *state) answer(x *asking, t *task, no int32, now int64) (kept, uncertain bool) {
	x.callers--
	s := st.storing
	if m := s.tasks[t]; m != nil && m.asked == x && x.callers == 0 {
		defer func() { m.asked = nil }()
	}
	switch {
	case x.withdrawn:
	case st.accepted(t, no):
		return true, false
	case x.callers > 0 && !s.failing && !s.over: // keep the task, because another caller is still waiting for it
		return false, true
	default:
		st.withdraw(t, no, now)
	}
	return false, x.uncertain
}

// The method "withdrew" is called when the launch or resume of the mark's task was withdrawn, and
// wakes everything that waits for it.
func (st *state) withdrew(m *mark, uncertain bool) {
	if x := m.asked; x != nil {
		x.withdrawn, x.uncertain, x.why = true, uncertain, st.storing.why
		m.asked = nil
	}
	st.wakeStoring(anyBatch)
}

// expectAnswer makes sure that a write that does not return is reported.
func (st *state) expectAnswer(now int64) {
	if st.deadlines.trouble == 0 && !st.storing.failing {
		st.deadlines.trouble = now + int64(st.limit(limitStoreTimeout))
	}
}

// storeTrouble records that a write failed.
func (st *state) storeTrouble(number uint64, detail string, now int64) {
	s := st.storing
	s.failing, s.why = true, mdtext.Joined(mdtext.Valid(detail), titleMax)
	if s.since == 0 {
		s.since = now
		st.deadlines.trouble = now + int64(st.limit(limitStoreTimeout))
	}
	st.logText(logStoreFailed, strconv.FormatUint(number, 10), detail)
	st.wakeStoring(anyBatch)
}

// ringTrouble reports that writes have failed for Config.StoreTimeout, or that a write has not
// returned for that long.
func (st *state) ringTrouble() {
	s := st.storing
	st.deadlines.trouble = 0
	if !s.failing {
		s.failing, s.why = true, reasonNoAnswerOfStore(st.limit(limitStoreTimeout))
		st.logText(logStoreFailed, strconv.FormatUint(s.committed+1, 10), s.why)
		st.wakeStoring(anyBatch)
	}
	st.sendEvent(Event{Kind: EventStoreTrouble})
}

// storeFails returns an error while writes fail. The manager then does not accept launches or
// resumes.
func (st *state) storeFails() error {
	switch s := st.storing; {
	case s == nil || !s.failing:
		return nil
	case s.lost != nil:
		return storeIsLost(s.lost)
	default:
		return storeFailed(s.why)
	}
}

// leaveStore ends every wait for the store, because the manager no longer writes.
func (st *state) leaveStore() {
	st.storing.over = true
	st.wakeAll()
}

// loseStore is called when the store no longer belongs to this manager. Another manager might continue
// the tasks. Therefore, every attempt ends in this process, without a notice. That these attempts
// have ended never becomes durable, so it is never shown. A session on a server is not aborted,
// because another manager might be following the session.
func (st *state) loseStore(lost *lostError, now int64) {
	s := st.storing
	if s.lost != nil || s.over {
		return
	}
	s.lost, s.failing, s.why = lost, true, mdtext.Joined(mdtext.Valid(lost.why), titleMax)
	st.deadlines.trouble = 0
	st.logText(logStoreLost, s.why, lost.why)
	st.sendEvent(Event{Kind: EventStoreTrouble})
	if !st.recovery.due { // if recovery is due, this manager has not continued the tasks yet
		for _, status := range [...]Status{Pending, Running} {
			for _, t := range st.tasks {
				if t.status == status {
					st.endLost(t, now)
				}
			}
		}
	}
	for _, n := range st.nodes {
		st.touchNode(n)
	}
	st.leaveStore()
}

func (st *state) endLost(t *task, now int64) {
	if a := t.run; a != nil && a.cl.starter {
		a.turnStart, a.recovering, a.loose = 0, false, false
	} else if a != nil && a.postponed { // this process has not started anything for the attempt, so there is nothing to stop
		a.recovering = false
	}
	st.end(t, CauseInterrupted, reasonStoreLost, now)
	st.settleTask(t, NoticeWaived, now)
}

// isLost reports whether the store is lost.
func (st *state) isLost() bool { return st.storing != nil && st.storing.lost != nil }

// asidePause returns the pause between two tries to write records that the store refuses. Each
// record is retried every storeAsideEvery, but no more than one record per second is retried in
// total.
func (s *storing) asidePause() int64 {
	return max(int64(storeAsideEvery)/int64(max(len(s.refused), 1)), int64(time.Second))
}

// refusal describes a record that the store refuses although it writes other records.
type refusal struct {
	key, why string
	deletion bool // the store refuses the deletion of the record; if false, it refuses the record
}

// writtenApart is called after the store has refused the whole batch and the manager has written it in
// parts. last is the number of the last part. The records in bad are set aside: nothing waits for them
// to become durable. If such a record contains a launch or resume that is not durable yet, the launch
// or resume is withdrawn.
func (st *state) writtenApart(b *StoreBatch, last uint64, bad []refusal, now int64) {
	st.moveBatch(b, last)
	for _, x := range bad {
		st.setAside(x, now)
	}
	st.committedTo(last, now)
}

// moveBatch gives a greater number to the batch that is being written. The open batch gets the next
// number.
func (st *state) moveBatch(b *StoreBatch, number uint64) {
	s := st.storing
	move := func(m *mark) {
		if m.taken == b.Number {
			m.taken = number
			for name, in := range m.texts {
				if in == b.Number {
					m.texts[name] = number
				}
			}
		}
		if m.must > b.Number { // the change is part of the open batch
			m.must = number + 1
		}
	}
	for _, m := range s.tasks {
		move(m)
	}
	for _, m := range s.nodes {
		move(m)
	}
	for i := range s.events {
		if e := &s.events[i]; e.batch > b.Number {
			e.batch = number + 1
		}
	}
	b.Number, s.open = number, number+1
	st.wakeStoring(anyBatch)
}

// setAside sets aside the record that the store refuses, and reports it.
func (st *state) setAside(x refusal, now int64) {
	s := st.storing
	e := Event{Kind: EventStoreTrouble}
	m := st.markOf(x.key)
	switch {
	case m != nil && m.t != nil && m.gone && !x.deletion:
		return // the next batch deletes the record
	case m != nil && m.t != nil && m.gone:
		st.notDeleted(m)
	case m == nil: // the session is no longer needed, and its record cannot be deleted
	case m.t != nil && (m.fresh || m.undo != nil):
		s.why = mdtext.Joined(mdtext.Valid(x.why), titleMax)
		maps.DeleteFunc(m.texts, func(_ string, in uint64) bool { return in > s.committed })
		m.taken = 0
		st.withdraw(m.t, m.t.no, now)
		return // the caller of the launch or resume gets the reason
	default:
		maps.DeleteFunc(m.texts, func(_ string, in uint64) bool { return in > s.committed })
		m.refused, m.last, m.taken, m.must = true, "", 0, s.committed
		if m.final == nil { // if the task has expired, it is no longer in memory, so its record cannot be retried
			s.refused = append(s.refused, m)
			s.retryAt = max(s.retryAt, now+s.asidePause())
		}
		if m.t != nil {
			st.refuseLetters(m.t)
			e.Task = st.truth(m.t)
		}
	}
	st.logText(logStoreAside, x.key, x.why)
	st.sendEvent(e)
}

// isRefused reports whether the store refuses the task's record.
func (st *state) isRefused(t *task) bool {
	if st.storing == nil {
		return false
	}
	m := st.storing.tasks[t]
	return m != nil && m.refused
}

// markOf returns the mark whose record has the key, or nil.
func (st *state) markOf(key string) *mark {
	s := st.storing
	if session, is := strings.CutPrefix(key, sessionKey); is {
		if n := st.nodes[session]; n != nil {
			return s.nodes[n]
		}
		return nil
	}
	if num, ok := parseID(key); ok && st.tasks[num] != nil {
		return s.tasks[st.tasks[num]]
	}
	for _, m := range s.last {
		if m.t.id() == key {
			return m
		}
	}
	return nil
}

// retryRefused returns a batch with one of the records that were set aside. It returns nil if none is
// due. All of them are due once when the manager is about to close the store.
func (st *state) retryRefused(now int64) *StoreBatch {
	s := st.storing
	s.refused = slices.DeleteFunc(s.refused, func(m *mark) bool { return m.gone || m.t != nil && s.tasks[m.t] != m })
	if s.lastTries > len(s.refused) {
		s.lastTries = len(s.refused)
		st.wakeStoring(anyBatch)
	}
	for len(s.refused) > 0 && !s.over && (now >= s.retryAt || s.lastTries > 0) {
		m := s.refused[0]
		s.refused = append(s.refused[1:], m)
		s.retryAt, s.lastTries = now+s.asidePause(), max(s.lastTries-1, 0)
		b := &StoreBatch{Number: s.open}
		m.refused = false
		if st.putRecord(b, m); len(b.Records)+len(b.Delete) == 0 {
			m.refused = true
			st.wakeStoring(anyBatch)
			continue
		}
		s.retrying = m
		s.open++
		st.retryLater()
		st.expectAnswer(now)
		return b
	}
	return nil
}

// flushLast is like flush, but is called right before the store is closed. Each record that the
// store refuses is tried once more.
func (st *state) flushLast() {
	st.flush()
	if s := st.storing; s != nil && len(s.refused) > 0 {
		s.lastTries, s.urgent = len(s.refused), true
	}
}

// retryLater makes sure that the records that were set aside are retried.
func (st *state) retryLater() {
	if s := st.storing; len(s.refused) > 0 && st.deadlines.store == 0 {
		st.deadlines.store = s.retryAt
	}
}

// retryEnds records whether the store refused the record that the last batch retried.
func (st *state) retryEnds(refused bool) {
	s := st.storing
	m := s.retrying
	if m == nil {
		return
	}
	s.retrying = nil
	if m.gone {
		return
	}
	switch m.refused = refused; {
	case !refused:
		s.refused = slices.DeleteFunc(s.refused, func(x *mark) bool { return x == m })
	case m.t != nil:
		st.refuseLetters(m.t)
	}
}

// stillRefused is called when the store has refused a batch. If the batch contained only a record
// that had been set aside, the record stays set aside, and stillRefused returns true.
func (st *state) stillRefused(b *StoreBatch) bool {
	if st.storing.retrying == nil {
		return false
	}
	st.writeFailed(b)
	return true
}
