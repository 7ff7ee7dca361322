package bgnats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent"
)

const (
	pruneEvery = 64               // number of ended tasks after which the limits are checked again
	pruneStep  = 100              // maximum number of tasks that one batch deletes
	prunePause = 10 * time.Minute // time after which the limits are checked again even if few tasks end
	retryFirst = time.Second      // first pause after upkeep has failed; each later pause is twice as long as the one before
	retryLast  = time.Minute      // longest pause after upkeep has failed
)

// grave is a deleted record whose texts might still be in the stream.
type grave struct {
	key string
	seq uint64 // sequence number of the message that marks the record as deleted
}

// upkeep performs a store's work outside of the manager's calls. It deletes ended tasks that exceed
// the limits, and the texts of deleted records.
type upkeep struct {
	s     *Store
	ctx   context.Context
	wake  chan struct{}
	gone  chan struct{}
	ended atomic.Int64 // number of tasks that have ended since the limits were last checked
}

func newUpkeep(s *Store) *upkeep {
	return &upkeep{s: s, ctx: s.ctx, wake: make(chan struct{}, 1), gone: make(chan struct{})}
}

// wrote is called after a batch is written. It counts the tasks that ended, and wakes the upkeep if there is
// work.
func (u *upkeep) wrote(b *bgagent.StoreBatch) {
	ended := int64(0)
	for i := range b.Records {
		if !b.Records[i].Ended.IsZero() {
			ended++
		}
	}
	if u.ended.Add(ended) >= pruneEvery || len(b.Delete) > 0 {
		select {
		case u.wake <- struct{}{}:
		default:
		}
	}
}

func (u *upkeep) run() {
	defer close(u.gone)
	wait, checked := retryFirst, time.Time{}
	for {
		var err error
		if u.ended.Load() >= pruneEvery || time.Since(checked) >= prunePause {
			u.ended.Store(0)
			if err = u.prune(); err == nil {
				checked = time.Now()
			}
		}
		err = errors.Join(err, u.bury())
		if u.ctx.Err() != nil {
			return
		}
		again := prunePause
		if err != nil {
			u.s.options.Warn(fmt.Errorf("bgnats: upkeep: %w", err))
			again, wait = wait, min(2*wait, retryLast)
		} else {
			wait = retryFirst
		}
		t := time.NewTimer(again)
		select {
		case <-u.ctx.Done():
		case <-t.C:
		case <-u.wake:
		}
		t.Stop()
	}
}

// prune deletes the ended tasks that exceed the limits.
func (u *upkeep) prune() error {
	o := u.s.options
	for u.ctx.Err() == nil {
		large := false
		if o.KeepBytes > 0 {
			var info streamInfo
			if err := u.s.w.call(u.ctx, "STREAM.INFO."+u.s.w.stream, nil, &info); err != nil {
				return err
			}
			large = info.State.Bytes > o.KeepBytes
		}
		more, err := u.pruneSome(large)
		if err != nil || !more {
			return err
		}
		if err := u.bury(); err != nil {
			return err
		}
	}
	return nil
}

// pruneSome deletes some of the tasks that ended first. It returns false if there is nothing left to
// delete.
func (u *upkeep) pruneSome(large bool) (more bool, err error) {
	s := u.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open || s.doubt || s.lost != nil {
		return false, nil
	}
	victims := s.victims(time.Now(), large)
	if len(victims) == 0 {
		return false, nil
	}
	p := &plan{s: s, next: s.meta}
	for _, e := range victims {
		p.remove(e.key)
	}
	all, err := p.messages()
	if err != nil {
		return false, err
	}
	next := p.next
	if err := s.commit(u.ctx, all, &next); err != nil {
		if moved(err) {
			err = errors.Join(s.mine(u.ctx), err)
		}
		s.failed(err)
		return false, err
	}
	s.done(p, all, next)
	return true, nil
}

// victims returns at most pruneStep ended tasks that exceed the limits. large says whether the stream is
// larger than KeepBytes.
func (s *Store) victims(now time.Time, large bool) []*entry {
	var all []*entry
	s.index.mu.RLock()
	for e := range intact(s.index.entries) {
		if e.isEnded() && !e.due {
			all = append(all, e)
		}
	}
	s.index.mu.RUnlock()
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Or(a.ended.Compare(b.ended), cmp.Compare(a.key, b.key)) })
	n := 0
	if large {
		n = min(len(all), pruneStep)
	}
	if o := s.options; o.KeepTasks > 0 {
		n = max(n, len(all)-o.KeepTasks)
	}
	if o := s.options; o.KeepFor > 0 {
		old := now.Add(-o.KeepFor)
		for n < len(all) && all[n].ended.Before(old) {
			n++
		}
	}
	return all[:min(n, pruneStep)]
}

// bury deletes the texts of deleted records.
func (u *upkeep) bury() error {
	s := u.s
	for u.ctx.Err() == nil {
		s.mu.Lock()
		var next grave
		more := len(s.graves) > 0
		if more {
			next = s.graves[0]
		}
		s.mu.Unlock()
		if !more {
			return nil
		}
		if err := s.w.purge(u.ctx, s.w.allParts(next.key), next.seq); err != nil {
			return err
		}
		s.mu.Lock()
		s.graves = s.graves[1:]
		s.meta.Swept = max(s.meta.Swept, next.seq)
		s.mu.Unlock()
	}
	return nil
}
