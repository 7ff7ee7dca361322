package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/sqlite"
)

const (
	openLive  = 10_000
	openEnded = 100_000
)

// blocker is a client whose first turn ends immediately. The other turns last until they are
// stopped. RestoreSession makes the next process resend the stopped turn's prompt.
type blocker struct {
	runner
	begun chan time.Time
	first bool // the next turn ends immediately
}

func (b *blocker) RunTurn(ctx context.Context, _ string, _ bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
	b.begun <- time.Now()
	if b.first {
		b.first = false
		return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "done"}, nil
	}
	<-ctx.Done()
	return bgagent.TurnEnd{}, ctx.Err()
}

func (b *blocker) RestoreSession(context.Context, bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	return bgagent.PromptMissing, bgagent.TurnEnd{}, nil
}

func newBlocked(s bgagent.Store, first bool) (*bgagent.BackgroundManager, *blocker, error) {
	b := &blocker{begun: make(chan time.Time, 10), first: first}
	m, err := bgagent.New(b, bgagent.Config{
		Store: s, Limits: bgagent.Limits{Default: 1}, NoticeWindow: bgagent.Disabled,
		Notify: func(context.Context, string, bgagent.Notice) error { return nil },
	})
	return m, b, err
}

// The function "suspend" stops the manager, but its tasks stay live.
func suspend(m *bgagent.BackgroundManager) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := m.Suspend(ctx)
	if errors.Is(err, context.DeadlineExceeded) { // the running turn was stopped
		err = nil
	}
	return errors.Join(err, closeManager(m))
}

// fillStore makes a store with live tasks and tasks that have ended.
func fillStore(dir string, live, ended int) error {
	s := newKeptStore(dir, 0)
	m, b, err := newBlocked(s, true)
	if err != nil {
		return err
	}
	if err := InParallel(min(live, 1000), live+1, func(i int) error {
		_, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input)
		return err
	}); err != nil {
		return err
	}
	<-b.begun // the first turn, which ends immediately
	<-b.begun
	if err := suspend(m); err != nil {
		return err
	}
	var model bgagent.StoreRecord
	for _, batch := range s.take() {
		for _, r := range batch.Records {
			if r.Kind == bgagent.StoreTask && r.Status == bgagent.Completed {
				model = r
			}
		}
	}
	model.Due = false
	if model.Key == "" {
		return errors.New("no task has ended")
	}
	c, err := s.Open(context.Background(), bgagent.StoreOwner{Instance: "filler"})
	if err != nil {
		return err
	}
	for n := 0; n < ended; {
		c.Batch++
		batch := &bgagent.StoreBatch{Number: c.Batch}
		for ; n < ended && len(batch.Records) < 1000; n++ {
			model.Key = fmt.Sprintf("bg_%016d", n)
			batch.Records = append(batch.Records, model)
			batch.Texts = append(batch.Texts, bgagent.StoreText{Record: model.Key, Name: "result.1", Text: "done"})
		}
		if err := s.Store.Write(context.Background(), batch); err != nil {
			return err
		}
	}
	return s.Close()
}

// openToFirstTurn returns the time in nanoseconds from opening the store to the beginning of the
// first turn.
func openToFirstTurn(dir string) (float64, error) {
	start := time.Now()
	m, b, err := newBlocked(newKeptStore(dir, 0), false)
	if err != nil {
		return 0, err
	}
	m.Start()
	took := (<-b.begun).Sub(start)
	return float64(took.Nanoseconds()), suspend(m)
}

// scanLive returns the time in nanoseconds that a reader needs to decode the live records.
func scanLive(dir string, live int) (float64, error) {
	start := time.Now()
	r, err := sqlite.OpenReader(dir)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	records, err := r.Live(context.Background())
	if err != nil {
		return 0, err
	}
	n := 0
	for _, record := range records {
		if record.Kind != bgagent.StoreTask {
			continue
		}
		if _, err := record.Task(); err != nil {
			return 0, err
		}
		n++
	}
	if n != live {
		return 0, fmt.Errorf("%d tasks are live, not %d", n, live)
	}
	return float64(time.Since(start).Nanoseconds()), nil
}

func storeOpen(rounds, live, ended int) (p pair, err error) {
	err = InFolder(func(dir string) error {
		dir = filepath.Join(dir, "store")
		if err := fillStore(dir, live, ended); err != nil {
			return err
		}
		p, err = interleave(rounds, func() (float64, error) { return openToFirstTurn(dir) }, func() (float64, error) { return scanLive(dir, live) })
		return err
	})
	return p, err
}

func runStoreOpen(o Options) ([]Check, error) {
	live, ended := min(openLive, o.Most/10), min(openEnded, o.Most)
	p, err := storeOpen(o.Rounds, live, ended)
	if err != nil {
		return nil, err
	}
	return []Check{{"to the first turn", p.ratio, "x", 3, 1.5, p.beside()}}, nil
}
