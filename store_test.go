package bgagent_test

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
)

// withStore gives every manager in the tests a store. Every promise of a manager without a store
// must also hold with a store.
var withStore = flag.Bool("store", false, "give every manager a store")

func TestMain(m *testing.M) {
	flag.Parse()
	if *withStore {
		inside.Store = func() any { return &blankStore{} }
	}
	if *withSlots {
		useSlots()
	}
	m.Run()
}

// withoutStore makes sure that the test's managers have no store. It is for tests of limits on
// memory, because a store keeps the tasks and results that memory drops.
func withoutStore(t *testing.T) {
	t.Helper()
	before := inside.Store
	inside.Store = nil
	t.Cleanup(func() { inside.Store = before })
}

// blankStore is a store that does not keep anything. Each write takes the time in the field "takes".
type blankStore struct {
	last  uint64
	takes time.Duration
}

func (s *blankStore) Open(context.Context, bgagent.StoreOwner) (bgagent.StoreContents, error) {
	return bgagent.StoreContents{Batch: s.last}, nil
}

func (s *blankStore) Write(_ context.Context, b *bgagent.StoreBatch) error {
	if b.Number != s.last+1 {
		return fmt.Errorf("batch %d after %d", b.Number, s.last)
	}
	time.Sleep(s.takes)
	s.last = b.Number
	return nil
}

func (*blankStore) Text(context.Context, string, string) (string, error) {
	return "", bgagent.ErrNoText
}

func (*blankStore) History(context.Context, bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	return nil, nil
}

func (*blankStore) Close() error { return nil }
