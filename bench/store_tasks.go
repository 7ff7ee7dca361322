package bench

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/sqlite"
)

// storeManager is a manager with a store. Its notices close the channels of the tasks that have ended.
type storeManager struct {
	*bgagent.BackgroundManager
	told sync.Map // channels by task id
}

func newStoreManager(store bgagent.Store, inFlight int) (*storeManager, error) {
	return newStoreManagerWith(bgagent.Config{Store: store, Limits: bgagent.Limits{Default: inFlight}})
}

// newStoreManagerWith returns a manager with the given store and limits or slots.
func newStoreManagerWith(c bgagent.Config) (*storeManager, error) {
	s := &storeManager{}
	c.Notify, c.Wake, c.NoticeWindow, c.RetainTasks = s.notify, bgagent.WakeEach, bgagent.Disabled, 1000
	var err error
	s.BackgroundManager, err = bgagent.New(&runner{}, c)
	return s, err
}

func (s *storeManager) channel(id string) chan struct{} {
	c, _ := s.told.LoadOrStore(id, make(chan struct{}))
	return c.(chan struct{})
}

func (s *storeManager) notify(_ context.Context, _ string, n bgagent.Notice) error {
	for _, i := range n.Items {
		close(s.channel(i.Task))
	}
	return nil
}

// The method "launch" launches task i and returns its id.
func (s *storeManager) launch(i int) (id string, err error) {
	t, err := s.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input)
	return t.ID, err
}

// The method "await" waits until a notice reports that the task has ended.
func (s *storeManager) await(id string) {
	<-s.channel(id)
	s.told.Delete(id)
}

// The method "task" launches task i and waits until a notice reports that it has ended.
func (s *storeManager) task(i int) error {
	id, err := s.launch(i)
	if err == nil {
		s.await(id)
	}
	return err
}

// StoreTasks runs tasks of a manager that has a store. The module bench/peers compares it with other
// libraries.
type StoreTasks struct {
	m        *storeManager
	launched int
}

// OpenStoreTasks returns a manager with a store in the folder dir. At most inFlight of its tasks run
// at the same time.
func OpenStoreTasks(dir string, inFlight int) (*StoreTasks, error) {
	m, err := newStoreManager(sqlite.New(dir, sqlite.Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}), inFlight)
	return &StoreTasks{m: m}, err
}

// NewStoreTasks returns a manager that uses the store of c. The limits or slots of c determine how
// many of the manager's tasks can run at the same time.
func NewStoreTasks(c bgagent.Config) (*StoreTasks, error) {
	m, err := newStoreManagerWith(c)
	return &StoreTasks{m: m}, err
}

// Run launches n tasks from the given number of goroutines, and waits until notices have reported
// all of them.
func (t *StoreTasks) Run(n, launchers int) error {
	ids := make([]string, n)
	err := InParallel(launchers, n, func(i int) (err error) {
		ids[i], err = t.m.launch(t.launched + i)
		return err
	})
	t.launched += n
	for _, id := range ids {
		if err == nil {
			t.m.await(id)
		}
	}
	return err
}

// Close closes the manager and its store.
func (t *StoreTasks) Close() error { return closeManager(t.m.BackgroundManager) }

// InFolder calls f with a temporary folder in the working directory, because the folder for
// temporary files may be in memory.
func InFolder(f func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(".", ".store-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return f(dir)
}

// InParallel calls f for each number below n, with at most the given number of calls at the same
// time.
func InParallel(most, n int, f func(i int) error) error {
	var wg sync.WaitGroup
	next := make(chan int)
	failed := make(chan error, most)
	for range most {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < n && err == nil; i++ {
		select {
		case next <- i:
		case err = <-failed:
		}
	}
	close(next)
	wg.Wait()
	select {
	case err = <-failed:
	default:
	}
	return err
}
