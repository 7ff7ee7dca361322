package hammer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
)

// disk is the content of the store in a run with crashes. It outlives the simulated processes of the run.
type disk interface {
	// process returns the store for the next process.
	process() process
	// records returns the records of all tasks after the last process has closed the store.
	records() ([]bgagent.StoreRecord, error)
	// use must be called before the method "process". The hammer h determines the faults of the writes.
	use(h *hammer)
}

// process is a store in a simulated process.
type process interface {
	bgagent.Store
	Crash()
}

// disk returns the content of a new store. It must be called outside of the synctest bubble.
func (o *Options) disk(t *testing.T) disk {
	if o.Content == nil {
		return &memoryDisk{}
	}
	return &realDisk{out: newOutside(t), content: o.Content(t)}
}

type memoryDisk struct{ storetest.Memory }

func (d *memoryDisk) process() process { return d.Process() }

func (d *memoryDisk) records() ([]bgagent.StoreRecord, error) { return d.Records(), nil }

func (d *memoryDisk) use(h *hammer) { d.SetFaults(h.strike) }

// realDisk is the content of a store outside of the synctest bubble; see the file outside.go.
type realDisk struct {
	out     outside
	content storetest.Content
	h       *hammer
}

func (d *realDisk) use(h *hammer) { d.h = h }

func (d *realDisk) process() process {
	p := &realProcess{d: d}
	p.do(context.Background(), func(context.Context) { p.s = d.content.Process() })
	return p
}

// pageSize is the size of the pages of history that are read at the end of a run. It is small, so that there
// are several pages.
const pageSize = 7

// records opens the store in another process, and returns the records that Open and History return.
func (d *realDisk) records() ([]bgagent.StoreRecord, error) {
	p, ctx := d.process(), context.Background()
	c, err := p.Open(ctx, bgagent.StoreOwner{Instance: "the judge"})
	switch {
	case err != nil:
		return nil, err
	case len(c.Damage) > 0 || c.Outdated != "":
		return nil, fmt.Errorf("damage: %v; outdated: %q", c.Damage, c.Outdated)
	}
	all := c.Records
	for before := ""; ; {
		page, err := p.History(ctx, bgagent.StoreQuery{Before: before, Limit: pageSize})
		if err != nil {
			return nil, err
		}
		all = append(all, page...) // some ended tasks are in the list twice, because Open has returned them, too
		if len(page) < pageSize {
			return all, p.Close()
		}
		before = page[pageSize-1].Key
	}
}

// A process dies at one of the first 1, 2, 4, … places of a Write. The limit is chosen at random among
// several limits, so that early places are likely, because most batches are small. The number of limits is
// "sizes".
const sizes = 7

// realProcess passes calls to a store outside of the bubble, and applies the faults of the run.
type realProcess struct {
	d *realDisk
	s bgagent.Store

	killing sync.Mutex // held during Crash

	mu   sync.Mutex
	dead bool
}

var _ bgagent.StoreReopener = (*realProcess)(nil)

func (p *realProcess) do(ctx context.Context, f func(context.Context)) { p.d.out.do(ctx, f) }

func (p *realProcess) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// ask makes a call that returns a value. A call by a dead process fails, even if the call began before the
// process died.
func ask[T any](ctx context.Context, p *realProcess, f func(context.Context) (T, error)) (value T, err error) {
	var none T
	if p.isDead() {
		return none, storetest.ErrDead
	}
	err = errors.New("hammer: the call has ended its goroutine")
	p.do(ctx, func(ctx context.Context) { value, err = f(ctx) })
	if p.isDead() {
		return none, storetest.ErrDead
	}
	return value, err
}

// Crash kills the process. When it returns, another process can open the store.
func (p *realProcess) Crash() {
	p.killing.Lock()
	defer p.killing.Unlock()
	p.mu.Lock()
	was := p.dead
	p.dead = true
	p.mu.Unlock()
	if was {
		return
	}
	p.do(context.Background(), func(context.Context) {
		p.d.content.Crash(p.s)
		_ = p.s.Close() // ends the goroutines of the store; an error does not matter, because a dead process cannot release the store
	})
}

func (p *realProcess) Open(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
	return ask(ctx, p, func(ctx context.Context) (bgagent.StoreContents, error) { return p.s.Open(ctx, owner) })
}

// Reopen implements [bgagent.StoreReopener]. The store outside of the bubble must also implement it.
func (p *realProcess) Reopen(ctx context.Context) (bgagent.StoreContents, error) {
	return ask(ctx, p, p.s.(bgagent.StoreReopener).Reopen)
}

func (p *realProcess) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	if p.isDead() {
		return storetest.ErrDead
	}
	fault := p.d.h.strike(b.Number, 0)
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	write := func() error {
		_, err := ask(ctx, p, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.s.Write(ctx, b) })
		return err
	}
	prepare := func(f func()) { p.do(context.Background(), func(context.Context) { f() }) }
	switch fault.Kind {
	case storetest.CrashBefore: // the process dies at a random place in the Write
		r := p.d.h.o.draw("place", "")
		place := r.IntN(1 << r.IntN(sizes))
		prepare(func() { p.d.content.CrashAt(p.s, place) })
		fallthrough
	case storetest.CrashAfter:
		_ = write()
		p.Crash()
		return storetest.ErrDead
	case storetest.Refused:
		return storetest.ErrRefused
	case storetest.LostWritten, storetest.LostUnwritten: // the store decides which of the two happens
		prepare(func() { p.d.content.LoseAnswer(p.s) })
	}
	return write()
}

func (p *realProcess) Text(ctx context.Context, record, name string) (string, error) {
	return ask(ctx, p, func(ctx context.Context) (string, error) { return p.s.Text(ctx, record, name) })
}

func (p *realProcess) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	return ask(ctx, p, func(ctx context.Context) ([]bgagent.StoreRecord, error) { return p.s.History(ctx, q) })
}

func (p *realProcess) Close() error {
	_, err := ask(context.Background(), p, func(context.Context) (struct{}, error) { return struct{}{}, p.s.Close() })
	return err
}
