package hammer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
)

// realDisk holds the content of a store outside of the synctest bubble; see the file outside.go.
type realDisk struct {
	out     outside
	content Content
	h       *hammer

	mu     sync.Mutex
	ghosts []*ghost
}

func (d *realDisk) use(h *hammer) { d.h = h }

// The method "process" returns the store for the next process. Before making this store, the method
// sometimes starts another process, which dies while it opens the content.
func (d *realDisk) process() process {
	if r := d.h.o.draw("open", ""); d.h.o.broken(r) {
		place := placeOf(r)
		d.do(func() {
			s := d.content.Process()
			d.content.CrashAt(s, place)
			_, _ = s.Open(context.Background(), bgagent.StoreOwner{Instance: "a doomed process"}) // fails if the process dies before the call returns
			d.kill(s)
		})
	}
	p := &realProcess{d: d}
	d.do(func() { p.s, p.over = d.content.Process(), make(chan struct{}) })
	return p
}

// The method "do" calls f outside of the bubble.
func (d *realDisk) do(f func()) { d.out.do(context.Background(), func(context.Context) { f() }) }

// The method "kill" must be called outside of the bubble.
func (d *realDisk) kill(s bgagent.Store) {
	d.content.Crash(s)
	_ = s.Close() // ends the goroutines of the store; an error does not matter, because a dead process cannot release the store
}

// pageSize is the size of the pages of history that are read at the end of a run. It is small, so that there
// are several pages.
const pageSize = 7

// records opens the store in another process, and returns the records that Open and History return.
func (d *realDisk) records() ([]bgagent.StoreRecord, error) {
	d.haunt(true)
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
			break
		}
		before = page[pageSize-1].Key
	}
	if slices.ContainsFunc(all, func(r bgagent.StoreRecord) bool { return r.Key == ghostKey }) {
		return nil, errors.New("it contains the record of a process that had lost it")
	}
	return all, p.Close()
}

// The place in a Write at which a process dies is chosen in two steps: first a random power of two, n, and
// then one of the first n places. Therefore, the early places are the most likely ones. They matter most,
// because most batches are small. The constant "sizes" is the number of powers to choose from: 1, 2, 4, and
// so on.
const sizes = 7

func placeOf(r *rand.Rand) int { return r.IntN(1 << r.IntN(sizes)) }

// realProcess passes calls to a store outside of the bubble, and applies the faults of the run.
type realProcess struct {
	d    *realDisk
	s    bgagent.Store
	over chan struct{} // made outside of the bubble; closed when the process ends

	killing sync.Mutex // held during Crash

	mu   sync.Mutex
	dead bool
	last uint64 // number of the last batch that the process knows to be in the store
}

var _ bgagent.StoreReopener = (*realProcess)(nil)

func (p *realProcess) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// The function "ask" makes a call outside of the bubble, and returns the value and the error of the call. A
// call by a dead process fails, even if the call began before the process died.
func ask[T any](ctx context.Context, p *realProcess, f func(context.Context) (T, error)) (value T, err error) {
	var none T
	if p.isDead() {
		return none, storetest.ErrDead
	}
	err = errors.New("hammer: the call has ended its goroutine")
	p.d.out.do(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-p.over:
				cancel()
			case <-ctx.Done():
			}
		}()
		value, err = f(ctx)
	})
	if p.isDead() {
		return none, storetest.ErrDead
	}
	return value, err
}

// The method "knows" returns err. If err is nil, the method also records that batch is the number
// of the last batch in the store.
func (p *realProcess) knows(batch uint64, err error) error {
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = batch
	}
	return err
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
	close(p.over)
	if p.d.content.Cut == nil || p.d.h.o.draw("ghost", "").IntN(3) > 0 {
		p.d.do(func() { p.d.kill(p.s) })
		return
	}
	g := &ghost{s: p.s}
	p.d.do(func() { g.heal = p.d.content.Cut(p.s) })
	p.mu.Lock()
	g.last = p.last
	p.mu.Unlock()
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.d.ghosts = append(p.d.ghosts, g)
}

func (p *realProcess) Open(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
	c, err := ask(ctx, p, func(ctx context.Context) (bgagent.StoreContents, error) { return p.s.Open(ctx, owner) })
	return c, p.knows(c.Batch, err)
}

// Reopen implements [bgagent.StoreReopener]. The store outside of the bubble must also implement it.
func (p *realProcess) Reopen(ctx context.Context) (bgagent.StoreContents, error) {
	c, err := ask(ctx, p, p.s.(bgagent.StoreReopener).Reopen)
	p.d.h.o.log("reopen: batch %d, %v", c.Batch, err)
	return c, p.knows(c.Batch, err)
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
		return p.knows(b.Number, err)
	}
	switch fault.Kind {
	case storetest.CrashBefore: // the process dies at a random place in the Write
		place := placeOf(p.d.h.o.draw("place", ""))
		p.d.do(func() { p.d.content.CrashAt(p.s, place) })
		fallthrough
	case storetest.CrashAfter:
		_ = write()
		p.Crash()
		return storetest.ErrDead
	case storetest.Refused:
		return storetest.ErrRefused
	case storetest.LostWritten, storetest.LostUnwritten: // the store decides which of the two happens
		p.d.do(func() { p.d.content.LoseAnswer(p.s) })
	}
	err := write()
	if err == nil {
		p.d.haunt(false)
	} else {
		p.d.h.o.log("write %d: %v", b.Number, err)
	}
	return err
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
