package bgagent

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// storing is the state's view of the store. It contains the changes since the last write, and the
// callers and workers that wait until a change is durable. It is nil without a store.
//
// A change becomes part of the open batch. When the previous batch has been written, the writer
// takes the open batch and opens the next one. Therefore, a batch contains all changes that were
// made during the previous write.
//
//	changed -> open -> taken: the records are made -> written -> committed: ends become visible,
//	                                                  events are sent, waiters wake
//
// A change is urgent if something waits for it. An urgent change causes the batch to be written
// immediately. Any other change is written together with the next urgent change, but no later than
// storeLaterBy after it was made.
type storing struct {
	open      uint64 // number of the open batch
	committed uint64 // number of the last batch that is durable
	writing   bool   // the writer has taken a batch
	urgent    bool   // something waits for the open batch

	tasks   map[*task]*mark
	nodes   map[*node]*mark
	handed  map[member]*hand // ends that were handed out and are not acknowledged
	dirty   []*mark          // marks whose records might have changed since they were last made
	ended   []*task          // ended tasks that can expire once their last changes are durable
	last    []*mark          // marks of expired tasks, until the last records of these tasks are durable
	dead    []string         // keys of records to delete
	fetches int              // number of running reads of the store that can load an ended task into memory
	deleted []string         // ids of the tasks that were deleted on request during such reads

	events  []heldEvent          // events that are held back until a change is durable, in order
	waiters map[uint64][]*waiter // callers and workers that wait for a commit, by the number of the batch that they need

	refused   []*mark // marks whose records the store refuses
	retryAt   int64   // when the first refused record is retried
	lastTries int     // number of refused records that are tried once more before the store is closed
	retrying  *mark   // mark of the record that the current batch retries

	crashed time.Time // when an earlier process last crashed; zero if none did, or if a suspension followed

	aside    map[string]bool // keys of records that a newer version of the library wrote; these records are not changed
	instance string          // id of this run of the manager
	seen     int64           // when the manager's own record was last made
	clean    bool            // the manager is being suspended

	failing bool       // the last write failed or takes too long
	why     string     // why writes fail
	since   int64      // when the first write since the last successful one failed; 0 if writes do not fail
	over    bool       // the manager no longer writes, because it closes the store or the store is lost
	lost    *lostError // why the store is lost; nil if it is not
}

// The type "mark" holds what the state knows about the stored record of one task or node.
type mark struct {
	t       *task
	n       *node
	dirty   bool
	must    uint64            // number of the batch that contains the last urgent change
	taken   uint64            // number of the last batch that contains the record
	last    string            // image of the record as it was last made
	texts   map[string]uint64 // number of the batch of each written text; for a loaded task, the texts that its record names
	final   *recorded         // for an expired task, its last record
	fresh   bool              // for a task, whether it must stay hidden, because its launch is not durable yet
	undo    *unresumed        // for a task, its state before its last resume, until that resume is durable
	asked   *asking           // for a task, the callers of its launch or resume; nil if none of them is waiting
	batch   uint32            // for a node, the number of its open batch of tasks (see Wake); for a task, the number of the batch that contains its latest end
	past    []uint32          // for a task, the numbers of the batches that contain the ends of its earlier attempts, oldest first
	gone    bool              // the record must be deleted, or has been deleted
	refused bool              // the store refuses the record, so nothing waits for it
	saves   bool              // for a node, whether the store might contain its record
	burnt   int32             // for a task, the highest number of a withdrawn attempt that the store might contain

	// The following fields are set only for tasks. The client needs them to continue the session in
	// another process.
	saved     []byte    // data that the client saved
	savedAt   int64     // when new data last made the next write urgent
	hurried   uint8     // how often new data has made a write urgent since the turn began; at most urgentSaves
	sessions  int32     // number of sessions that the task had before its current session
	before    Cursor    // position in the session before the last prompt
	restarts  int32     // number of crashes of the process since the task last made progress
	outlived  int32     // number of other crashes, which the task probably did not cause; see maxOutlived
	instance  string    // id of the manager that handed over the last prompt; empty for this manager
	home      string    // where the session lives; see SessionHome
	turnStart int64     // start of the turn during which the process ended
	since     int64     // for a start that an earlier process began, when its time to live began; otherwise 0
	queueEnds time.Time // until beginRecovery, the end of the queue time to live
	overrun   bool      // the attempt missed its stopping deadline in the earlier process
	noValues  string    // why the context values could not be restored
	said      string    // name of the text of the last turn, if the text cannot be read
	prompts   [2]string // names of the texts of the last two turns' prompts, latest first
	counted   spent     // for a starter, the part of the interrupted turn's usage that was already counted
}

// heldEvent is an event that waits for a batch.
type heldEvent struct {
	batch uint64
	task  *task
	event Event
}

func newStoring(committed uint64) *storing {
	return &storing{open: committed + 1, committed: committed, tasks: map[*task]*mark{}, nodes: map[*node]*mark{}, handed: map[member]*hand{}, waiters: map[uint64][]*waiter{}}
}

func (s *storing) task(t *task) *mark {
	m := s.tasks[t]
	if m == nil {
		m = &mark{t: t, texts: map[string]uint64{}}
		s.tasks[t] = m
	}
	return m
}

func (s *storing) node(n *node) *mark {
	m := s.nodes[n]
	if m == nil {
		m = &mark{n: n}
		s.nodes[n] = m
	}
	return m
}

// keyOf returns the key that the manager gives to the client for the task's session.
func (s *storing) keyOf(t *task) string {
	return t.id() + "." + strconv.Itoa(int(s.task(t).sessions)+1)
}

func (s *storing) change(m *mark) {
	if !m.dirty {
		m.dirty = true
		s.dirty = append(s.dirty, m)
	}
}

// changed is called when the task's record might have changed. Nothing waits for the change. A call
// without a real change costs little, because a record is written only if it differs from the last
// record. Therefore, the leaf methods that most transitions call (emit, set, setDeadline, wantCall,
// rest and others) call the method "changed". A transition that calls none of these leaf methods must
// call "changed" itself. In tests, the invariant check finds changes that were not recorded.
func (st *state) changed(t *task) {
	if st.storing != nil {
		st.noteChange(t)
	}
}

// noteChange is the part of the method "changed" that only a manager with a store needs. It is a function of
// its own, so that the calls to the method "changed" are inlined.
func (st *state) noteChange(t *task) {
	if s := st.storing; t.hasRecord() {
		s.change(s.task(t))
		st.storeLater()
	}
}

// hasRecord reports whether the task still has a record that can change. The record of a task no
// longer changes once the task has expired or its launch has been withdrawn.
func (t *task) hasRecord() bool { return !t.is(flagForgotten) && t.no > 0 }

// changedBelow is called when the records of all tasks below the node might have changed.
func (st *state) changedBelow(n *node) {
	if st.storing != nil {
		n.each(st.changed)
	}
}

// mustKeep records an urgent change to the task.
func (st *state) mustKeep(t *task) {
	if s := st.storing; s != nil && t.hasRecord() {
		s.mustChange(s.task(t))
	}
}

// mustChange records an urgent change to the mark's record. If the store refuses the record, the
// change is not urgent, because nothing waits for it.
func (s *storing) mustChange(m *mark) {
	s.change(m)
	if !m.refused {
		m.must, s.urgent = s.open, true
	}
}

// nodeChanged records that the node's record might have changed. Nothing waits for the change.
func (st *state) nodeChanged(n *node) {
	if s := st.storing; s != nil {
		s.change(s.node(n))
		st.storeLater()
	}
}

// mustKeepNode records an urgent change to the node.
func (st *state) mustKeepNode(n *node) {
	if s := st.storing; s != nil {
		s.mustChange(s.node(n))
	}
}

// urgentSaves is how many saves of a turn, counted from its first one, are always urgent. A client can
// save before it hands over the prompt, and again when its program reports the session's id.
const urgentSaves = 2

// The method "saved" stores data that the client has passed to SaveState. After the first saves of a
// turn, a save is urgent only if the last urgent one is at least storeLaterBy old, so that a client can
// save often. Data that is too long is not kept, so the next process gets no data.
func (st *state) saved(a *attempt, data []byte, now int64) {
	s := st.storing
	if s == nil {
		return
	}
	if len(data) > maxSaved {
		st.logText(logSavedTooLong, a.t.id(), strconv.Itoa(len(data)))
		data = nil
	}
	m := s.task(a.t)
	m.saved = data
	st.changed(a.t)
	if m.savedAt < a.turnStart {
		m.hurried = 0
	}
	if m.hurried < urgentSaves || now-m.savedAt >= int64(storeLaterBy) {
		m.savedAt, m.hurried, s.urgent = now, min(m.hurried+1, urgentSaves), true
	}
}

// storeLater makes sure that the open batch is written within storeLaterBy. If the manager is being
// closed or suspended, it waits for all changes, so the batch is written immediately.
func (st *state) storeLater() {
	if st.closing && !st.recovery.due {
		st.storing.urgent = true
	}
	if by := st.now + int64(storeLaterBy); st.deadlines.store == 0 || st.deadlines.store > by {
		st.deadlines.store = by
	}
}

// The method "durable" reports whether the last urgent change of the mark is durable.
func (s *storing) durable(m *mark) bool { return m == nil || m.refused || m.must <= s.committed }

// The method "kept" reports whether the task's last urgent change is durable. For a deleted task,
// it returns true, because the end of the task was durable before the deletion.
func (st *state) kept(t *task) bool {
	if st.storing == nil {
		return true
	}
	m := st.storing.tasks[t]
	return st.storing.durable(m) || m.gone
}

// keptNode reports whether the node's last urgent change is durable.
func (st *state) keptNode(n *node) bool {
	return st.storing == nil || st.storing.durable(st.storing.nodes[n])
}

// askWriter starts the writer if something waits for the open batch and the writer is not running.
// Until the earlier process's tasks have been continued, nothing is written, because New must not
// change the store.
func (st *state) askWriter() {
	if s := st.storing; s != nil && s.urgent && !s.writing && !s.over && !st.recovery.due {
		s.writing = true
		st.rare().now.write = true
	}
}

// nextBatch returns the next batch to write. wall is the current wall time. If nothing waits to be
// written, nextBatch returns nil, and the writer stops.
func (st *state) nextBatch(wall time.Time, now int64) *StoreBatch {
	s := st.storing
	for s.urgent && !s.over {
		b := &StoreBatch{Number: s.open, Delete: s.dead}
		dirty := s.dirty
		s.dirty, s.dead, s.urgent, st.deadlines.store = nil, nil, false, 0
		for _, m := range dirty {
			m.dirty = false
			st.putRecord(b, m)
		}
		b.once()
		st.retryLater()
		if len(b.Records)+len(b.Texts)+len(b.Delete) > 0 || s.clean && s.seen == 0 || st.beats() || s.failing {
			s.open++
			st.putManager(b, wall)
			st.beatLater()
			st.expectAnswer(now)
			return b
		}
		st.beatLater()
		for _, m := range dirty { // no record differs from its last version, so the changes that callers wait for are already durable
			m.must = min(m.must, s.committed)
		}
		st.lowerEvents(s.committed)
		st.wakeStoring(anyBatch)
		st.committedTo(s.committed, now)
	}
	if b := st.retryRefused(now); b != nil { // nothing urgent waits, so the batch contains only a record that the store has already refused
		return b
	}
	s.writing = false
	return nil
}

// putManager puts the manager's own record into the batch if the last such record is old.
func (st *state) putManager(b *StoreBatch, wall time.Time) {
	s := st.storing
	if s.seen != 0 && st.now-s.seen < int64(storeLaterBy) {
		return
	}
	s.seen = st.now
	b.Records = append(b.Records, st.recordManager(wall))
}

// recordManager makes the manager's own record. wall is the current wall time.
func (st *state) recordManager(wall time.Time) StoreRecord {
	s := st.storing
	r := recorded{rec: StoreRecord{Key: managerKey, Kind: StoreManager, Due: true}}
	r.data(&managerRecord{Version: recordVersion, Instance: s.instance, Seen: wall, Clock: st.wall(st.now), Clean: s.clean, Crashed: s.crashed, Careful: st.careful.isCareful()})
	return r.rec
}

// The method "once" makes sure that each key occurs only once in the batch. If an expired task was
// revived, its new record replaces its last record. If a session is needed again, its record is not
// deleted.
func (b *StoreBatch) once() {
	if len(b.Delete) == 0 && !slices.ContainsFunc(b.Records, func(r StoreRecord) bool { return !r.Due }) {
		return
	}
	at := map[string]int{}
	for i, r := range b.Records {
		if j, twice := at[r.Key]; !twice || r.Due || !b.Records[j].Due {
			at[r.Key] = i
		}
	}
	kept := b.Records[:0]
	for i, r := range b.Records {
		if at[r.Key] == i {
			kept = append(kept, r)
		}
	}
	b.Records = kept
	slices.Sort(b.Delete)
	b.Delete = slices.DeleteFunc(slices.Compact(b.Delete), func(key string) bool { _, is := at[key]; return is })
}

// putRecord puts the record of a task or node into the batch if it differs from the last record.
func (st *state) putRecord(b *StoreBatch, m *mark) {
	var r recorded
	switch {
	case m.gone || m.refused || m.n != nil && st.storing.aside[nodeKey(m.n.session)]:
		return
	case m.final != nil:
		r = *m.final
	case m.t != nil:
		r = st.recordTask(m.t)
	default:
		var keep bool
		if r, keep = st.recordNode(m.n); !keep {
			if m.saves {
				b.Delete = append(b.Delete, r.rec.Key)
				m.last, m.taken, m.saves = "", b.Number, false
			}
			return
		}
	}
	m.notePrompt(r.prompt)
	if is := r.image(); is != m.last {
		m.last, m.taken, m.saves = is, b.Number, true
		b.Records = append(b.Records, r.rec)
	}
	for _, text := range r.texts {
		if _, has := m.texts[text.Name]; !has {
			m.texts[text.Name], m.taken = b.Number, b.Number
			b.Texts = append(b.Texts, text)
		}
	}
}

// committedTo is called when the given batch and all earlier batches are durable. It sends the
// events that waited for these batches and wakes the waiters.
func (st *state) committedTo(number uint64, now int64) {
	s := st.storing
	s.committed, s.open, s.failing, s.since = number, max(s.open, number+1), false, 0
	st.deadlines.trouble = 0
	st.retryEnds(false)
	rest := s.events[:0]
	for _, e := range s.events {
		if e.batch > number {
			rest = append(rest, e)
			continue
		}
		st.sendEvent(e.event)
		switch e.event.Kind {
		case EventLaunched:
			s.task(e.task).fresh = false
		case EventResumed:
			s.task(e.task).undo = nil
		case EventEnded:
			st.wakeTask(e.task)
			st.wakeNode(e.task.up)
		}
	}
	clear(s.events[len(rest):])
	s.events = rest
	ended := s.ended
	s.ended = nil
	for _, t := range ended {
		st.expirable(t, now)
	}
	s.last = slices.DeleteFunc(s.last, func(m *mark) bool {
		over := !m.dirty && m.taken <= number
		if over {
			delete(s.tasks, m.t)
		}
		return over
	})
	st.wakeStoring(number)
	st.wakeDrainers()
}

// writeFailed is called when a write has failed and the store contains no part of the batch. The
// records in the batch become part of the open batch, which gets the number of the failed batch.
func (st *state) writeFailed(b *StoreBatch) {
	s := st.storing
	s.open, s.urgent = b.Number, true
	st.retryEnds(true)
	s.seen = 0 // the failed batch might have contained the manager's own record, so the record is made again
	s.dead = append(s.dead, b.Delete...)
	redo := func(m *mark) {
		m.must = min(m.must, b.Number)
		if m.taken == b.Number {
			m.last, m.taken = "", 0
			maps.DeleteFunc(m.texts, func(_ string, in uint64) bool { return in == b.Number })
			s.change(m)
		}
	}
	for _, m := range s.tasks {
		redo(m)
	}
	for _, m := range s.nodes {
		redo(m)
	}
	st.lowerEvents(b.Number)
	st.wakeStoring(anyBatch)
}

// lowerEvents makes sure that no event waits for a batch with a higher number than the given one.
func (st *state) lowerEvents(number uint64) {
	for i := range st.storing.events {
		e := &st.storing.events[i]
		e.batch = min(e.batch, number)
	}
}

// noteBatch records the number of the parent's batch that contains the end of the task.
func (st *state) noteBatch(t *task) {
	if s := st.storing; s != nil {
		s.task(t).batch = s.batchOf(t.up)
	}
}

// batchOf returns the number of the node's open batch.
func (s *storing) batchOf(n *node) uint32 {
	if m := s.nodes[n]; m != nil {
		return m.batch
	}
	return 0
}

// forgetNode deletes the record of a node that is no longer needed.
func (st *state) forgetNode(n *node) {
	s := st.storing
	if s == nil || s.nodes[n] == nil {
		return
	}
	m := s.nodes[n]
	m.gone = true
	delete(s.nodes, n)
	if m.saves && !s.aside[nodeKey(n.session)] {
		s.dead = append(s.dead, nodeKey(n.session))
		st.storeLater()
	}
}

// allKept reports whether every change is durable.
func (st *state) allKept() bool {
	s := st.storing
	return s == nil || st.recovery.due || !s.urgent && s.lastTries == 0 && len(s.dirty)+len(s.dead) == 0 && s.open == s.committed+1
}

// flush causes every change to be written immediately.
func (st *state) flush() {
	if s := st.storing; s != nil && len(s.dirty)+len(s.dead) > 0 {
		s.urgent = true
	}
}
