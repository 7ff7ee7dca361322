package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/bgagent/bgagent"
)

// Memory is the content of a store for tests. It outlives the simulated processes that use it:
// after a process dies, [Memory.Process] returns the store for the next process. All methods are
// safe for concurrent use. The zero value is a new store without faults.
type Memory struct {
	mu       sync.Mutex
	batch    uint64
	records  map[string]bgagent.StoreRecord
	texts    map[string]map[string]string // texts by record and name
	damaged  map[string]bool              // keys of damaged records
	unread   map[[2]string]bool           // record and name of each damaged text
	outdated string
	faults   func(batch uint64, try int) Fault
	tried    uint64 // batch number of the last Write
	tries    int    // number of attempts to write this batch
	owner    *Process
}

// Fault determines the result of one Write.
type Fault struct {
	Kind  FaultKind
	Delay time.Duration // duration of the Write; if its context ends first, nothing is written
}

// FaultKind determines how a Write ends.
type FaultKind uint8

// The kinds of faults.
const (
	NoFault       FaultKind = iota // the batch is written
	CrashBefore                    // the process dies, and nothing is written
	CrashAfter                     // the batch is written, and the process dies before Write returns
	CrashTorn                      // the process dies, and half of the batch is written, which a correct store never does
	Refused                        // Write returns an error, and nothing is written
	Full                           // like Refused, but the error matches syscall.ENOSPC, as it does if the disk is full
	LostWritten                    // the batch is written, but the error matches bgagent.ErrUncertain
	LostUnwritten                  // nothing is written, and the error matches bgagent.ErrUncertain
)

var (
	// ErrDead is returned by every call that a dead process makes.
	ErrDead = errors.New("storetest: the process is dead")

	// ErrRefused is returned by a Write with the fault [Refused].
	ErrRefused = errors.New("storetest: refused on purpose")

	errClosed = errors.New("storetest: the store is not open")
)

// SetFaults sets a function that is called before each Write and returns the fault for that Write. The
// function gets the number of the batch, and the number of earlier attempts to write this batch, so that a
// fault can disappear after some attempts. A nil function means no faults.
func (m *Memory) SetFaults(f func(batch uint64, try int) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
}

// SetOutdated sets the value of [bgagent.StoreContents].Outdated that Open returns until another
// batch is written.
func (m *Memory) SetOutdated(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outdated = why
}

// Damage makes the record with this key unreadable until the record is written again.
func (m *Memory) Damage(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.damaged == nil {
		m.damaged = map[string]bool{}
	}
	m.damaged[key] = true
}

// DamageText makes the record's text with this name unreadable.
func (m *Memory) DamageText(record, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unread == nil {
		m.unread = map[[2]string]bool{}
	}
	m.unread[[2]string{record, name}] = true
}

// Batch returns the number of the last batch that the store contains.
func (m *Memory) Batch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.batch
}

// Records returns all records that are not damaged, in the order of their keys.
func (m *Memory) Records() []bgagent.StoreRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sorted(func(bgagent.StoreRecord) bool { return true })
}

// The method "sorted" returns copies of the records that can be read and for which the function
// "want" returns true.
func (m *Memory) sorted(want func(bgagent.StoreRecord) bool) (out []bgagent.StoreRecord) {
	for _, key := range slices.Sorted(maps.Keys(m.records)) {
		if r := m.records[key]; want(r) && !m.damaged[key] {
			out = append(out, copyOf(r))
		}
	}
	return out
}

func copyOf(r bgagent.StoreRecord) bgagent.StoreRecord {
	r.Data = bytes.Clone(r.Data)
	return r
}

// Process returns the store for a new simulated process. The store is not open yet.
func (m *Memory) Process() *Process { return &Process{mem: m, written: sync.NewCond(&m.mu)} }

// Process is an in-memory store in one simulated process. It implements [bgagent.Store]. Its methods are safe
// for concurrent use.
type Process struct {
	mem *Memory

	// The following fields are guarded by mem.mu.
	dead      bool
	uncertain bool // a Write returned bgagent.ErrUncertain, so the store must be opened again
	closing   bool
	writes    int        // number of Writes that have begun but not ended
	written   *sync.Cond // signals that the field "writes" has changed
	who       bgagent.StoreOwner
}

var _ bgagent.Store = (*Process)(nil)

// Crash kills the process. Changes that were not written are lost, and another process can open the store
// immediately. All calls that the dead process makes return [ErrDead], including calls that are in
// progress.
func (p *Process) Crash() {
	p.mem.mu.Lock()
	defer p.mem.mu.Unlock()
	p.crash()
}

func (p *Process) crash() {
	p.dead = true
	if p.mem.owner == p {
		p.mem.owner = nil
	}
}

// The method "begin" returns an error if the process is not allowed to make a call. The caller
// holds the lock.
func (p *Process) begin() error {
	switch {
	case p.dead:
		return ErrDead
	case p.mem.owner != p || p.closing:
		return errClosed
	}
	return nil
}

// Open opens the store. It implements [bgagent.Store]. If the process is dead, it returns
// [ErrDead].
func (p *Process) Open(ctx context.Context, owner bgagent.StoreOwner) (c bgagent.StoreContents, err error) {
	if err := ctx.Err(); err != nil {
		return c, err
	}
	m := p.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case p.dead:
		return c, ErrDead
	case m.owner != nil:
		return c, &bgagent.StoreOwnedError{Owner: m.owner.who}
	}
	m.owner, p.who, p.uncertain = p, owner, false
	c.Batch, c.Outdated = m.batch, m.outdated
	c.Records = m.sorted(func(r bgagent.StoreRecord) bool { return r.Due })
	for _, key := range slices.Sorted(maps.Keys(m.damaged)) {
		if _, is := m.records[key]; is {
			c.Damage = append(c.Damage, bgagent.StoreDamage{Key: key, Problem: "its checksum is wrong"})
		}
	}
	return c, nil
}

// Write writes the batch, unless the function given to SetFaults returns a fault. It implements
// [bgagent.Store].
func (p *Process) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fault, err := p.faultOf(b.Number)
	if err != nil {
		return err
	}
	defer p.end()
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m := p.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.dead {
		return ErrDead
	}
	if err := m.check(b); err != nil {
		return err
	}
	switch fault.Kind {
	case CrashBefore:
		p.crash()
		return ErrDead
	case CrashAfter:
		m.apply(b)
		p.crash()
		return ErrDead
	case CrashTorn:
		half := *b
		half.Records, half.Texts, half.Delete = b.Records[:(len(b.Records)+1)/2], b.Texts[:len(b.Texts)/2], nil
		m.apply(&half)
		p.crash()
		return ErrDead
	case Refused:
		return ErrRefused
	case Full:
		return fmt.Errorf("storetest: full on purpose: %w", syscall.ENOSPC)
	case LostWritten, LostUnwritten:
		if fault.Kind == LostWritten {
			m.apply(b)
		}
		p.uncertain = true
		return fmt.Errorf("storetest: the answer is lost on purpose: %w", bgagent.ErrUncertain)
	}
	m.apply(b)
	return nil
}

// faultOf begins a Write and returns its fault. It releases the lock while it calls the
// function given to SetFaults.
func (p *Process) faultOf(batch uint64) (Fault, error) {
	m := p.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := p.begin(); err != nil {
		return Fault{}, err
	}
	if p.uncertain {
		return Fault{}, errors.New("storetest: the outcome of the last write is unknown; the store must be closed and opened again")
	}
	if m.tried != batch {
		m.tried, m.tries = batch, 0
	}
	try, choose := m.tries, m.faults
	m.tries++
	p.writes++
	if choose == nil {
		return Fault{}, nil
	}
	m.mu.Unlock()
	defer m.mu.Lock()
	return choose(batch, try), nil
}

func (p *Process) end() {
	p.mem.mu.Lock()
	defer p.mem.mu.Unlock()
	p.writes--
	p.written.Broadcast()
}

// The method "check" returns an error if the batch breaks a rule of [bgagent.StoreBatch].
func (m *Memory) check(b *bgagent.StoreBatch) error {
	if b.Number != m.batch+1 {
		return fmt.Errorf("storetest: the batch has the number %d; the next one is %d", b.Number, m.batch+1)
	}
	keys := map[string]bool{}
	for _, r := range b.Records {
		if keys[r.Key] {
			return fmt.Errorf("storetest: the record %q is in the batch twice", r.Key)
		}
		keys[r.Key] = true
	}
	for _, key := range b.Delete {
		if keys[key] {
			return fmt.Errorf("storetest: the record %q is written and deleted in one batch", key)
		}
	}
	texts := map[[2]string]string{}
	for _, t := range b.Texts {
		if _, is := m.records[t.Record]; !is && !keys[t.Record] || slices.Contains(b.Delete, t.Record) {
			return fmt.Errorf("storetest: the text %q belongs to the record %q, which does not exist", t.Name, t.Record)
		}
		old, is := m.texts[t.Record][t.Name]
		if !is {
			old, is = texts[[2]string{t.Record, t.Name}]
		}
		if is && old != t.Text {
			return fmt.Errorf("storetest: the record %q already has another text %q", t.Record, t.Name)
		}
		texts[[2]string{t.Record, t.Name}] = t.Text
	}
	return nil
}

func (m *Memory) apply(b *bgagent.StoreBatch) {
	if m.records == nil {
		m.records, m.texts = map[string]bgagent.StoreRecord{}, map[string]map[string]string{}
	}
	for _, key := range b.Delete {
		delete(m.records, key)
		delete(m.texts, key)
		delete(m.damaged, key)
	}
	for _, r := range b.Records {
		m.records[r.Key] = copyOf(r)
		delete(m.damaged, r.Key)
	}
	for _, t := range b.Texts {
		if m.texts[t.Record] == nil {
			m.texts[t.Record] = map[string]string{}
		}
		m.texts[t.Record][t.Name] = t.Text
	}
	m.batch, m.outdated = b.Number, ""
}

// Text returns one of a record's texts. It implements [bgagent.Store].
func (p *Process) Text(ctx context.Context, record, name string) (string, error) {
	m := p.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(ctx.Err(), p.begin()); err != nil {
		return "", err
	}
	text, is := m.texts[record][name]
	switch {
	case !is:
		return "", fmt.Errorf("storetest: the text %q of %q: %w", name, record, bgagent.ErrNoText)
	case m.unread[[2]string{record, name}]:
		return "", fmt.Errorf("storetest: the text %q of %q: its checksum is wrong", name, record)
	}
	return text, nil
}

// History returns a page of tasks that have ended. It implements [bgagent.Store].
func (p *Process) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	m := p.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(ctx.Err(), p.begin()); err != nil {
		return nil, err
	}
	before, is := m.records[q.Before]
	if q.Before != "" && !is {
		return nil, fmt.Errorf("storetest: history before %q: %w", q.Before, bgagent.ErrNoRecord)
	}
	found := m.sorted(func(r bgagent.StoreRecord) bool {
		return r.Kind == bgagent.StoreTask && !r.Ended.IsZero() &&
			(q.Ref == "" || r.Key == q.Ref || r.Session == q.Ref) &&
			(q.Parent == "" || r.Parent == q.Parent) && (q.Root == "" || r.Root == q.Root) &&
			(len(q.Status) == 0 || slices.Contains(q.Status, r.Status)) &&
			(q.Before == "" || later(r, before) > 0)
	})
	slices.SortFunc(found, later)
	return found[:min(len(found), q.Limit)], nil
}

// The function "later" compares two records. Tasks that were launched later come first. Among tasks
// launched at the same time, the task with the greater key comes first.
func later(a, b bgagent.StoreRecord) int {
	return cmp.Or(b.Launched.Compare(a.Launched), cmp.Compare(b.Key, a.Key))
}

// Close closes the store. It implements [bgagent.Store]. It waits for Writes that have begun. If
// the process is dead, it returns [ErrDead].
func (p *Process) Close() error {
	m := p.mem
	m.mu.Lock()
	defer m.mu.Unlock()
	p.closing = true
	for p.writes > 0 {
		p.written.Wait()
	}
	p.closing = false
	if m.owner == p {
		m.owner = nil
	}
	if p.dead {
		return ErrDead
	}
	return nil
}
