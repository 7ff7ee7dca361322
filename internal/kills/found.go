package kills

import (
	"context"
	"fmt"

	"github.com/bgagent/bgagent"
)

// Found contains the tasks of a store and their results.
type Found struct {
	Tasks   map[string]bgagent.Task
	Results map[string]string
}

// Reader reads a store from outside the manager.
type Reader interface {
	Live(context.Context) ([]bgagent.StoreRecord, error)
	History(context.Context, bgagent.StoreQuery) ([]bgagent.StoreRecord, error)
	Text(ctx context.Context, task, name string) (string, error)
}

// Read reads all tasks of a store.
func Read(ctx context.Context, r Reader) (f Found, err error) {
	records, err := r.Live(ctx)
	if err != nil {
		return f, err
	}
	for q := (bgagent.StoreQuery{Limit: 1000}); ; {
		page, err := r.History(ctx, q)
		if err != nil {
			return f, err
		}
		records = append(records, page...)
		if len(page) < q.Limit {
			break
		}
		q.Before = page[len(page)-1].Key
	}
	f = Found{map[string]bgagent.Task{}, map[string]string{}}
	for _, record := range records {
		if record.Kind != bgagent.StoreTask {
			continue
		}
		t, err := record.Task()
		if err != nil {
			return f, err
		}
		f.Tasks[t.ID] = t
		if t.Status == bgagent.Completed {
			if f.Results[t.ID], err = r.Text(ctx, t.ID, fmt.Sprint("result.", t.Attempt)); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}
