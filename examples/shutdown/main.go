// Command shutdown shows how a host shuts down. Drain gives accepted tasks some time to end. Close
// stops the remaining tasks. The error from Close lists the tasks that did not stop and the tasks
// whose completion was never reported.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "shutdown:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) error {
	release := make(chan struct{})
	defer close(release) // the stubborn agent's goroutine ends with the program
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"quick": func(context.Context, *inproc.Turn) (string, error) { return "done", nil },
		"obedient": func(ctx context.Context, _ *inproc.Turn) (string, error) {
			<-ctx.Done() // this agent stops immediately
			return "", ctx.Err()
		},
		"stubborn": func(context.Context, *inproc.Turn) (string, error) {
			<-release // this agent ignores its context, which an agent should never do
			return "", nil
		},
	}), bgagent.Config{StopTimeout: 200 * time.Millisecond}) // maximum time that a task gets to stop
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, agent := range []string{"quick", "obedient", "stubborn"} {
		t, err := m.Launch(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: agent, Prompt: "work"})
		if err != nil {
			return err
		}
		names[t.ID] = agent
	}

	// Drain makes the manager refuse new tasks. Live tasks get 200 ms to end.
	draining, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	err = m.Drain(draining)
	fmt.Fprintln(w, "drained in time:", !errors.Is(err, context.DeadlineExceeded))
	_, err = m.Launch(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "quick", Prompt: "one more"})
	fmt.Fprintln(w, "another launch is refused:", errors.Is(err, bgagent.ErrClosed))

	// Close cancels and stops the remaining tasks. Close's deadline is longer than StopTimeout, so
	// that Close can report the tasks that did not stop.
	closing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var left *bgagent.CloseError
	if err := m.Close(closing); !errors.As(err, &left) {
		return fmt.Errorf("one agent does not stop, but Close reports only: %v", err)
	}
	for _, id := range left.NotStopped {
		fmt.Fprintln(w, "did not stop:", names[id])
	}
	fmt.Fprintln(w, "ends that were not reported:", len(left.Owed))

	// Undelivered notices can still be taken, for example to store them for the next start.
	n, _ := m.TakeNotice("main")
	slices.SortFunc(n.Items, func(a, b bgagent.NoticeItem) int { return strings.Compare(a.Agent, b.Agent) })
	for _, item := range n.Items {
		fmt.Fprintf(w, "%s: %s, %s\n", item.Agent, item.Status, item.Cause)
	}
	return nil
}
