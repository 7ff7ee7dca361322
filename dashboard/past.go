package dashboard

import (
	"context"
	"errors"
	"slices"

	"github.com/bgagent/bgagent"
)

// pastRows is the maximum number of ended tasks that pages show although they are only in the
// manager's store and no longer in memory.
const pastRows = 1000

// The type "past" holds the tasks that have ended and are only in the store.
type past struct {
	stored bool            // the manager has a store
	ids    map[string]bool // ids of the tasks
	order  []string        // ids of the tasks, oldest first; also contains tasks that are in memory again
}

// loadPast returns the tasks in memory together with the latest tasks in the store that have
// ended, in launch order. If the store cannot be read, the result has fewer tasks.
func (f *feed) loadPast(ctx context.Context, s *feedState, tasks []bgagent.Task) []bgagent.Task {
	have := make(map[string]bool, len(tasks))
	for i := range tasks {
		have[tasks[i].ID] = true
	}
	var old []bgagent.Task
	before := ""
	for len(old) < pastRows {
		page, err := f.m.History(ctx, bgagent.Query{Limit: pageRows}, before)
		if errors.Is(err, errors.ErrUnsupported) {
			return tasks
		}
		if err != nil || len(page) == 0 {
			break
		}
		before = page[len(page)-1].ID
		for _, t := range page {
			if !have[t.ID] && len(old) < pastRows {
				old = append(old, t)
			}
		}
	}
	all := append(old, tasks...)
	slices.SortStableFunc(all, func(a, b bgagent.Task) int { return a.Queued.Compare(b.Queued) })
	f.mu.Lock()
	defer f.mu.Unlock()
	s.past = past{stored: true, ids: map[string]bool{}}
	for _, t := range all {
		if !have[t.ID] {
			s.past.ids[t.ID] = true
			s.past.order = append(s.past.order, t.ID)
		}
	}
	return all
}

// expired is called for a task that is no longer in memory. Without a store, it removes the task from the pages.
// With a store, it keeps the task on the pages until there are too many such tasks.
func (s *feedState) expired(id string) {
	p := &s.past
	if !p.stored {
		s.drop(id)
		return
	}
	if el := s.rows[id]; p.ids[id] || el == nil || el.Value.(*change).gone {
		return
	}
	p.ids[id] = true
	p.order = append(p.order, id)
	for len(p.ids) > pastRows {
		oldest := p.order[0]
		p.order = p.order[1:]
		if p.ids[oldest] {
			delete(p.ids, oldest)
			s.drop(oldest)
		}
	}
}
