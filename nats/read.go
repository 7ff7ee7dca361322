package bgnats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/bgagent/bgagent"
)

// index contains the entries of all records. The entries themselves never change. Its methods are safe
// for concurrent use.
type index struct {
	life context.Context // ends when the store is closed; nil while the store is closed; guarded by Store.use

	mu      sync.RWMutex
	entries map[string]*entry
}

func (x *index) install(entries map[string]*entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.entries = entries
}

func (x *index) get(key string) *entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.entries[key]
}

// The method "change" replaces the entries of the written records, and removes those of the deleted records.
func (x *index) change(written []*entry, deleted []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, key := range deleted {
		delete(x.entries, key)
	}
	for _, e := range written {
		x.entries[e.key] = e
	}
}

// page returns the entries on one page of the history.
func (x *index) page(q bgagent.StoreQuery) ([]*entry, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	before := x.entries[q.Before]
	if q.Before != "" && before == nil {
		return nil, fmt.Errorf("the record %q: %w", q.Before, bgagent.ErrNoRecord)
	}
	var page []*entry
	for e := range intact(x.entries) {
		if e.isEnded() &&
			(q.Ref == "" || e.key == q.Ref || e.session == q.Ref) &&
			(q.Parent == "" || e.parent == q.Parent) && (q.Root == "" || e.root == q.Root) &&
			(len(q.Status) == 0 || slices.Contains(q.Status, e.status)) &&
			(before == nil || later(e, before) > 0) {
			page = append(page, e)
		}
	}
	slices.SortFunc(page, later)
	return slices.Clip(page[:min(len(page), q.Limit)]), nil
}

// The function "later" compares the positions of two entries in the history.
func later(a, b *entry) int {
	return cmp.Or(b.launched.Compare(a.launched), cmp.Compare(b.key, a.key))
}

// The method "history" returns a page of history. A write can replace a record after the page was chosen. If
// that happens twice, the method blocks the writer while it reads.
func (s *Store) history(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	for range 2 {
		page, err := s.tryPage(ctx, q)
		if !errors.Is(err, errGone) {
			return page, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubt {
		return nil, fmt.Errorf("the result of the last write is unknown: %w", bgagent.ErrUncertain)
	}
	page, err := s.tryPage(ctx, q)
	if errors.Is(err, errGone) {
		err = nil
	}
	return page, err
}

// tryPage reads a page of history. It omits records that cannot be read. If the message of a record no longer
// exists, it also returns errGone.
func (s *Store) tryPage(ctx context.Context, q bgagent.StoreQuery) (page []bgagent.StoreRecord, err error) {
	entries, err := s.index.page(q)
	if err != nil {
		return nil, err
	}
	all, err := s.records(ctx, entries)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		switch {
		case r.err == nil:
			page = append(page, r.record)
		case errors.Is(r.err, errGone):
			err = errGone
		}
	}
	return page, err
}

// text returns one of a record's texts.
func (s *Store) text(ctx context.Context, record, name string) (string, error) {
	e := s.index.get(record)
	if e == nil {
		return "", bgagent.ErrNoText
	}
	text, found, err := s.w.whole(ctx, s.w.parts(record, textName+token(name)), part{key: record, name: name, of: e.born})
	if err == nil && !found {
		err = bgagent.ErrNoText
	}
	return text, err
}
