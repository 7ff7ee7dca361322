// Command drain shows a host that takes notices whenever it chooses. Between two steps of its
// loop, the host calls TakeNotice, which never waits. Finally, it ranges over Notices until
// no notice is owed and no task is live.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "drain:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) (err error) {
	finish := make(chan struct{}) // closed to make the slow agent finish
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"quick": func(context.Context, *inproc.Turn) (string, error) { return "done at once", nil },
		"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) {
			select {
			case <-finish:
				return "done in the end", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		},
	}), bgagent.Config{Wake: bgagent.WakeNever}) // the host takes the notices
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(context.Background())) }()

	// "loop" is not a session but a scope: a name under which the manager keeps notices.
	caller := bgagent.Caller{Session: "loop"}
	var ids []string
	for _, agent := range []string{"quick", "slow"} {
		t, err := m.Launch(ctx, caller, bgagent.LaunchInput{Agent: agent, Prompt: "work"})
		if err != nil {
			return err
		}
		ids = append(ids, t.ID)
	}

	// This wait represents a step of the host's own work.
	if _, err := m.Wait(ctx, caller, bgagent.WaitAny, ids...); err != nil {
		return err
	}
	// Then the host checks, without waiting, whether a task has ended.
	if n, ok := m.TakeNotice(caller.Session); ok {
		show(w, "between two steps", m, n)
	}
	live, owed := m.Outstanding(caller.Session)
	fmt.Fprintf(w, "%d live, %d owed\n", live, owed)

	// The host has nothing else to do, so it waits for the remaining tasks.
	close(finish)
	for n, err := range m.Notices(ctx, caller.Session) {
		if err != nil {
			return err
		}
		show(w, "at the end", m, n)
	}
	fmt.Fprintln(w, "nothing is live, nothing is owed")
	return nil
}

func show(w io.Writer, when string, m *bgagent.BackgroundManager, n bgagent.Notice) {
	for _, item := range n.Items {
		if t, err := m.Get(item.Task); err == nil {
			fmt.Fprintf(w, "%s: %s %s: %s\n", when, t.Agent, t.Status, t.Result)
		}
	}
}
