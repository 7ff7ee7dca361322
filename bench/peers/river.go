package peers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/bgagent/bgagent/bench"
)

// riverJobs are River jobs. They have no arguments.
type riverJobs[Tx any] struct {
	client *river.Client[Tx]
	ended  <-chan *river.Event
}

// riverTasks are River jobs in SQLite.
type riverTasks struct {
	riverJobs[*sql.Tx]
	db *sql.DB
}

type riverArgs struct{}

func (riverArgs) Kind() string { return "task" }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
}

func (riverWorker) Work(context.Context, *river.Job[riverArgs]) error { return nil }

func openRiver(dir string, inFlight int) (system, error) {
	ctx := context.Background()
	db, err := database(filepath.Join(dir, "river.db"))
	if err != nil {
		return nil, err
	}
	driver := riversqlite.New(db)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	r := &riverTasks{db: db}
	if r.client, err = river.NewClient(driver, riverConfig(inFlight)); err != nil {
		return nil, err
	}
	r.ended, _ = r.client.SubscribeConfig(riverEnds())
	return r, r.client.Start(ctx)
}

func riverConfig(inFlight int) *river.Config {
	workers := river.NewWorkers()
	river.AddWorker(workers, riverWorker{})
	return &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: inFlight}}, Workers: workers, Logger: slog.New(slog.DiscardHandler),
		FetchCooldown: time.Millisecond, // the default of 100 ms would limit the number of jobs per second
	}
}

// riverEnds selects the events that report that a job has completed or failed.
func riverEnds() *river.SubscribeConfig {
	return &river.SubscribeConfig{ChanSize: 1 << 16, Kinds: []river.EventKind{river.EventKindJobCompleted, river.EventKindJobFailed}}
}

func (r *riverJobs[Tx]) run(n, submitters int) error {
	if err := bench.InParallel(submitters, n, func(int) error {
		_, err := r.client.Insert(context.Background(), riverArgs{}, nil)
		return err
	}); err != nil {
		return err
	}
	for range n {
		if e := <-r.ended; e.Kind != river.EventKindJobCompleted {
			return fmt.Errorf("a job ended as %s", e.Kind)
		}
	}
	return nil
}

func (r *riverTasks) close() error {
	return errors.Join(syncsFully(r.db), r.client.Stop(context.Background()), r.db.Close())
}
