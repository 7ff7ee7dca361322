// Command cluster demonstrates limits and tasks that span several processes. It starts three NATS
// servers and three worker processes on this machine. The workers share pools of 2, 3 and 5 slots,
// and each keeps its tasks on the servers. In the middle of the work, the program kills a worker
// and the server that leads the stream with the slots, both with SIGKILL, and restarts them.
// Finally, a judge checks from outside that no limit was exceeded and that no task was lost or
// ended twice. If the check fails, the program exits with code 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

// plan is what a run does.
type plan struct {
	tasks int // total number of tasks of all workers
	kills int // number of workers to kill, and number of servers to kill; with more kills, each task takes longer
}

const workers = 3

func main() {
	var err error
	switch os.Getenv(roleVariable) {
	case "server":
		err = runServer(os.Getenv(nameVariable))
	case "worker":
		err = runWorker(context.Background(), os.Getenv(nameVariable))
	default:
		var p plan
		flag.IntVar(&p.tasks, "tasks", 200, "number of tasks")
		flag.IntVar(&p.kills, "kills", 1, "number of workers to kill, and number of servers to kill")
		flag.Parse()
		err = run(context.Background(), os.Stdout, p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, p plan) (err error) {
	begun := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(w, "%5.1f s  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
	}
	c, err := startCluster(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	say("%d NATS servers are running.", len(c.servers))
	for i := range workers {
		if err := c.startWorker(i); err != nil {
			return err
		}
	}
	if err := c.until("all tasks are accepted", func() bool { return c.log.count("accepted") == p.tasks }); err != nil {
		return err
	}
	say("%d worker processes have accepted %d tasks.", workers, p.tasks)
	step := p.tasks / (2*p.kills + 2)
	for n := range p.kills {
		if err := c.untilEnded((2*n + 1) * step); err != nil {
			return err
		}
		if err := c.killWorker(say, n%2 == 1); err != nil {
			return err
		}
		if err := c.untilEnded((2*n + 2) * step); err != nil {
			return err
		}
		if err := c.killServer(ctx, say, step/2); err != nil {
			return err
		}
	}
	if err := c.until("all workers have finished", func() bool { return c.log.finished() == workers }); err != nil {
		return err
	}
	say("All workers report that their tasks have ended.")
	if err := c.endWorkers(); err != nil {
		return err
	}
	records, err := c.records(ctx)
	if err != nil {
		return err
	}
	return judge(w, c.log.all(), records)
}
