package peers

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite" // registers the driver for both libraries

	"github.com/bgagent/bgagent/bench"
)

// dbosTasks are DBOS workflows without steps or a queue, so that each workflow needs only two
// commits.
type dbosTasks struct {
	db  *sql.DB
	ctx dbos.Context
}

func dbosTask(dbos.Context, int) (int, error) { return 0, nil }

func openDBOS(dir string, _ int) (system, error) {
	db, err := database(filepath.Join(dir, "dbos.db"))
	if err != nil {
		return nil, err
	}
	ctx, err := dbos.NewContext(context.Background(), dbos.Config{AppName: "peers", SQLiteSystemDB: db, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	dbos.RegisterWorkflow(ctx, dbosTask)
	return &dbosTasks{db, ctx}, dbos.Launch(ctx)
}

func (d *dbosTasks) run(n, submitters int) error {
	return bench.InParallel(submitters, n, func(int) error {
		w, err := dbos.RunWorkflow(d.ctx, dbosTask, 0)
		if err == nil {
			_, err = w.GetResult()
		}
		return err
	})
}

func (d *dbosTasks) close() error {
	return errors.Join(syncsFully(d.db), dbos.Shutdown(d.ctx, time.Minute), d.db.Close())
}
