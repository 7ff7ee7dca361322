package bgagent

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
	"github.com/google/uuid"
)

// # Invariants
//
// They are what every change must keep; checkInvariants verifies those about
// state after every update in tests.
//
//  1. A status changes only in task.transition, only under the lock.
//  2. A terminal status is final for its attempt; a resume opens a new attempt.
//  3. Whoever waits for an attempt is woken once it is terminal and its notice
//     is in the outbox. Get may show the end a moment before, never after.
//  4. An attempt owns at most one slot. When its agent ended the turn the slot
//     goes back in that update; when it was ended from outside, once nothing of
//     it runs or the stopping deadline has passed.
//  5. No attempt that could start waits while a slot of its pool is free.
//     Those that could not are marked flagUnstarted: their session is not quiet.
//  6. The indexes (by id, session, parent, tool call) hold exactly the tasks
//     they should. A session has at most one attempt that is live or not quiet.
//  7. Counts of live tasks, of a batch and of what is owed change only in
//     openLocked, where nodes are linked, and in notice.go.
//  8. Every task is live, or ended with its notice owed or settled in exactly
//     one way.
//  9. While the lock is held no host, logger or subscriber is called and nothing
//     blocks. Below it there is only the lock of the ConcurrencyManager.
//  10. Decide, then act: who wins a transition performs its side effect. Host
//     calls of one attempt other than Abort are made by one goroutine at a time.
//  11. An observation older than the last prompt or abort is dropped.
//  12. Events leave in the order of transitions, one EventEnded for an attempt.
//  13. Callers get copies.
//  14. Every goroutine starts in spawn and has ended before Close returns, or is
//     named in its error.
//  15. At most one sweep at a time per client; with nothing live and nothing owed
//     to a busy parent nothing periodic runs; one timer stands for all deadlines.
//  16. The update that begins Close ends everything pending; after it no attempt
//     and no turn starts.

// BackgroundManager owns background tasks: it starts them when a slot is free,
// finds out how they end, and tells the session that launched them. Make one
// with [New] and end it with [BackgroundManager.Close]. All methods are safe
// for concurrent use; none of them calls the host on the caller's goroutine,
// except Messages and those whose comment says so.
type BackgroundManager struct {
	cfg     Config
	words   wording // how notices speak of the tools
	cm      *ConcurrencyManager
	epoch   time.Time
	seed    maphash.Seed
	clients []*client // the one given to New first
	base    context.Context
	stop    context.CancelCauseFunc
	closed  chan struct{} // closed when Close begins
	check   func()        // in tests: called at the end of every update, with the lock held

	closeDone chan struct{} // closed when Close has ended, after closeErr was written
	closeErr  error

	running [goKinds]atomic.Int64 // goroutines by kind
	ended   chan struct{}         // one token when the last of them has ended

	// mu guards everything below and everything in record.go. While it is held
	// no host, logger or subscriber may be called and nothing may block; the
	// lock of the ConcurrencyManager may be taken below it.
	mu         sync.Mutex
	ids        *bufio.Reader
	tasks      map[uint64]*task // by the number in their id
	peak       int              // largest size of tasks since it was made
	calls      map[uint64]*task // by caller, tool call, agent and prompt
	sessions   sessionIndex
	nodes      map[string]*node
	kinds      map[kindKey]*kind
	lastKind   *kind
	watchers   map[*task][]*watcher
	live       int // pending and running tasks
	ends       endCounts
	waived     *task // is being cancelled by waiver, which may be its parent
	waiver     string
	drainers   []*watcher // wait for everything to come to rest
	unquiet    int        // ended attempts that are not quiet yet
	over       int        // sessions that did not stop in time, ever
	closing    bool
	draining   bool
	alarms     alarms
	timer      *time.Timer
	timerAt    int64
	timerOff   bool
	ticked     chan struct{} // closed by a tick that Close has to wait for
	keep       retention
	subs       []*Subscription
	seq        uint64 // of the last event
	logs       logQueue
	forget     []forgotten
	forgetting bool
	fx         effects
}

// effects is what an update wants done once the lock has been given back.
type effects struct {
	start, startEnd *attempt // have their slot and want a goroutine
	grants          []*slots.Waiter
	cancels         *attempt // their contexts are to end
}

type goKind uint8

// The kinds of goroutines, named for CloseError.Hung.
const (
	goWorker goKind = iota
	goCall
	goAbort
	goNotify
	goPoll
	goEvents
	goLog
	goForget
	goKinds
)

var goNames = [goKinds]string{"CreateSession, RunTurn or StartTurn", "another host call", "Abort", "Notify", "Statuses or Messages", "Events", "the logger", "ForgetSession"}

// New makes a manager that runs tasks on the client. The client must be a
// [TurnRunner] or a [TurnStarter], not both. Close must be called in the end.
func New(sc SessionClient, cfg Config) (m *BackgroundManager, err error) {
	defer func() {
		if wrong, ok := err.(*InputError); ok { // else it says already who found it
			err = fmt.Errorf("bgagent: new: %w", wrong)
		}
	}()
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	m = &BackgroundManager{
		cfg: cfg, cm: cfg.Concurrency, epoch: time.Now().Add(-1), seed: maphash.MakeSeed(),
		closed: make(chan struct{}), closeDone: make(chan struct{}), ended: make(chan struct{}, 1),
		ids:   bufio.NewReaderSize(rand.Reader, 1024),
		tasks: map[uint64]*task{}, calls: map[uint64]*task{}, sessions: sessionIndex{maphash.MakeSeed(), map[uint64]*session{}},
		nodes: map[string]*node{}, kinds: map[kindKey]*kind{}, watchers: map[*task][]*watcher{},
	}
	if m.words, err = wordingFor(cfg.ToolNames); err != nil {
		panic("bgagent: bug: names that were found right: " + err.Error())
	}
	if m.cm == nil {
		if m.cm, err = NewConcurrencyManager(cfg.Limits); err != nil {
			return nil, err
		}
	}
	if err := m.addClient("", sc); err != nil {
		return nil, err
	}
	for name, sc := range cfg.Clients {
		if strings.TrimSpace(name) == "" {
			return nil, &InputError{"Config.Clients", "has an entry without a name; the empty name belongs to the client given to New"}
		}
		if err := m.addClient(name, sc); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.clients, func(a, b *client) int { return cmp.Compare(a.name, b.name) })
	m.base, m.stop = context.WithCancelCause(context.Background())
	for _, cl := range m.clients {
		if cl.events != nil {
			m.spawn(goEvents, func() { m.follow(cl) })
		}
	}
	return m, nil
}

// Concurrency returns the manager of the slots, to read its figures or change
// its limits.
func (m *BackgroundManager) Concurrency() *ConcurrencyManager { return m.cm }

// update is the gate: the only way to change state.
func (m *BackgroundManager) update(f func(now int64)) {
	m.step(f, nil)
}

// step is update for a goroutine that can itself make the host call of the next
// attempt that has got a slot, which is prepared in the same update: letting a
// finishing worker take the next saves a quarter of the time of a goroutine
// each. It returns nil when there is none, or j is nil.
func (m *BackgroundManager) step(f func(now int64), j *job) (next *attempt) {
	m.mu.Lock()
	now := m.now()
	f(now)
	for j != nil && next == nil && m.fx.start != nil {
		a := m.fx.start
		m.fx.start, a.nextRun = a.nextRun, nil
		if m.beginCallLocked(a, j, now) {
			next = a
		}
	}
	m.armLocked(now)
	if m.check != nil {
		m.check()
	}
	fx := m.fx
	m.fx = effects{}
	m.mu.Unlock()

	for a := fx.cancels; a != nil; {
		rest := a.nextCancel
		a.nextCancel = nil
		a.ctx.end()
		a = rest
	}
	for _, w := range fx.grants {
		w.Owner.SlotGranted(w)
	}
	for a := fx.start; a != nil; {
		rest := a.nextRun
		a.nextRun = nil
		m.spawnWork(a)
		a = rest
	}
	return next
}

func (m *BackgroundManager) now() int64 { return int64(time.Since(m.epoch)) }

// spawn is the one place where goroutines start.
func (m *BackgroundManager) spawn(k goKind, f func()) {
	m.running[k].Add(1)
	go func() {
		defer func() {
			m.running[k].Add(-1)
			select {
			case m.ended <- struct{}{}:
			default:
			}
		}()
		f()
	}()
}

// each calls the host's f with from to n-1. A call that panics is the host's loss
// alone; after one that ends the goroutine another goes on with the rest, and with
// what its caller would do then.
func (m *BackgroundManager) each(k goKind, from, n int, f func(int), then func()) {
	for i := from; i < n; i++ {
		func() {
			returned := false
			defer func() {
				if !returned && recover() == nil {
					m.spawn(k, func() {
						m.each(k, i+1, n, f, then)
						then()
					})
				}
			}()
			f(i)
			returned = true
		}()
	}
}

func (m *BackgroundManager) spawnWork(a *attempt) {
	m.spawn(goWorker, func() { m.work(a) })
}

// busyGoroutines names the kinds of which some have not ended.
func (m *BackgroundManager) busyGoroutines() (names []string) {
	for k := range m.running {
		if m.running[k].Load() > 0 {
			names = append(names, goNames[k])
		}
	}
	return names
}

// idEncoding writes ids in lower case without the letters that are mistaken
// for digits.
var idEncoding = base32.NewEncoding(idLetters).WithPadding(base32.NoPadding)

const idLetters = "0123456789abcdefghjkmnpqrstvwxyz"

// idValues has 1 + the value of each letter, and 0 for what is none.
var idValues = func() (v [256]uint8) {
	for i, c := range []byte(idLetters) {
		v[c] = uint8(i + 1)
	}
	return v
}()

const (
	idRandom = 16                    // characters of an id after its prefix: 80 random bits of a version 4 UUID
	idLen    = len("bg_") + idRandom // length of a task's id
)

// newIDLocked returns an unguessable id, between a prefix and a suffix, and the
// number in it.
func (m *BackgroundManager) newIDLocked(prefix, suffix string) (id string, num uint64) {
	u, err := uuid.NewRandomFromReader(m.ids)
	if err != nil {
		panic("bgagent: no randomness: " + err.Error())
	}
	// Bytes 6 and 8 hold the version and the variant; the others are random.
	raw := [10]byte{u[0], u[1], u[2], u[3], u[4], u[5], u[7], u[9], u[10], u[11]}
	var buf [32]byte
	n := copy(buf[:], prefix)
	idEncoding.Encode(buf[n:n+idRandom], raw[:])
	n += idRandom
	n += copy(buf[n:], suffix)
	return string(buf[:n]), idNumber(raw)
}

func idNumber(raw [10]byte) (n uint64) {
	for _, b := range raw[:8] {
		n = n<<8 | uint64(b)
	}
	return n
}

// parseID returns the number in a task's id.
func parseID(id string) (num uint64, ok bool) {
	if len(id) != idLen || id[:3] != "bg_" {
		return 0, false
	}
	for i := range idRandom {
		v := idValues[id[3+i]]
		switch {
		case v == 0:
			return 0, false
		case i < 12: // 60 bits, and four more out of the next letter
			num = num<<5 | uint64(v-1)
		case i == 12:
			num = num<<4 | uint64(v-1)>>1
		}
	}
	return num, true
}

// findLocked returns the task with the id.
func (m *BackgroundManager) findLocked(id string) (*task, error) {
	num, ok := parseID(id)
	if !ok {
		return nil, fmt.Errorf("task %.40q: %w", id, ErrUnknownTask)
	}
	if t := m.tasks[num]; t != nil && t.id() == id {
		return t, nil
	}
	if tomb := m.keep.find(id); tomb != nil {
		return nil, &ExpiredError{ID: id, Status: tomb.status, Session: tomb.sessionID()}
	}
	return nil, fmt.Errorf("task %s: %w", id, ErrUnknownTask)
}

// ownLocked is findLocked for a caller that may only see what descends from it.
func (m *BackgroundManager) ownLocked(by Caller, id string) (*task, error) {
	t, err := m.findLocked(id)
	if err != nil {
		var gone *ExpiredError
		if by.Session != "" && errors.As(err, &gone) && !m.keep.descends(id, by.Session) {
			return nil, fmt.Errorf("task %s: %w", id, ErrNotDescendant)
		}
		return nil, err
	}
	if !descends(t, by) {
		return nil, fmt.Errorf("task %s: %w", id, ErrNotDescendant)
	}
	return t, nil
}

// descends reports whether the caller may see the task.
func descends(t *task, by Caller) bool {
	if by == (Caller{}) || by.Session == "" {
		return true
	}
	for n := t.up; n != nil; n = n.above() {
		if n.session == by.Session {
			return true
		}
	}
	return false
}
