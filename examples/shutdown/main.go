// Command shutdown shows how a host goes down: Drain lets what was accepted come
// to its end for a while, Close stops what is left, and its error tells what did
// not stop and what nobody has been told of.
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
			<-ctx.Done() // stops as soon as it is told to
			return "", ctx.Err()
		},
		"stubborn": func(context.Context, *inproc.Turn) (string, error) {
			<-release // ignores its context, which no agent should
			return "", nil
		},
	}), bgagent.Config{StopTimeout: 200 * time.Millisecond}) // how long a session may take to stop
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

	// From here on nothing new is accepted; what there is gets a moment.
	draining, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	err = m.Drain(draining)
	fmt.Fprintln(w, "drained in time:", !errors.Is(err, context.DeadlineExceeded))
	_, err = m.Launch(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "quick", Prompt: "one more"})
	fmt.Fprintln(w, "one more is refused:", errors.Is(err, bgagent.ErrClosed))

	// What is left is cancelled and stopped. The deadline is for Close itself; it
	// is longer than StopTimeout, so that Close can say what did not stop.
	closing, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var left *bgagent.CloseError
	if err := m.Close(closing); !errors.As(err, &left) {
		return fmt.Errorf("one agent does not stop, and closing says only: %v", err)
	}
	for _, id := range left.NotStopped {
		fmt.Fprintln(w, "did not stop:", names[id])
	}
	fmt.Fprintln(w, "ends that nobody was told of:", len(left.Owed))

	// They can still be taken, to be written down for the next start.
	n, _ := m.TakeNotice("main")
	slices.SortFunc(n.Items, func(a, b bgagent.NoticeItem) int { return strings.Compare(a.Agent, b.Agent) })
	for _, item := range n.Items {
		fmt.Fprintf(w, "%s: %s, %s\n", item.Agent, item.Status, item.Cause)
	}
	return nil
}
