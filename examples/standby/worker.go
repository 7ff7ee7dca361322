package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

const tasks = 4

func answer(title string) string { return "The summary of " + title + "." }

// worker is one of the two processes. Both run the same code. The process that finds an empty store
// launches the tasks; the other process continues the tasks that it finds.
func worker(ctx context.Context, url string) error {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer nc.Close()
	a := &agent{}
	m, err := openManager(ctx, nc, a)
	if err != nil {
		return err
	}
	a.slow = m.Restored().Tasks == 0
	for i := range tasks {
		if !a.slow {
			break
		}
		title := fmt.Sprint("chapter ", i+1)
		t, err := m.Launch(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "summary", Description: title, Prompt: "Summarize " + title + "."})
		if err != nil {
			return err
		}
		fmt.Println("accepted", t.ID)
	}
	m.Start()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := m.Drain(ctx); err != nil { // Drain waits until everything has ended and been reported
		return err
	}
	ended, err := m.History(ctx, bgagent.Query{}, "")
	if err != nil {
		return err
	}
	for _, t := range ended {
		r, err := m.Read(bgagent.Caller{Session: "main"}, t.ID)
		if err != nil {
			return err
		}
		if r.Result == answer(t.Description) {
			fmt.Println("completed", t.ID)
		}
	}
	fmt.Println("done")
	return m.Close(ctx)
}

// openManager creates the manager. While another process owns the store, openManager keeps
// retrying.
func openManager(ctx context.Context, nc *nats.Conn, a *agent) (*bgagent.BackgroundManager, error) {
	client := inproc.New(map[string]inproc.Agent{"summary": a.summarize})
	client.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		return inproc.Restored{Prompt: bgagent.PromptInterrupted}, nil // the agent gets a prompt that asks it to continue
	}
	for {
		m, err := bgagent.New(client, bgagent.Config{
			// Grace is short, because a lost connection to a server on the same machine is restored quickly.
			Store:  bgnats.NewStore(nc, "tasks", bgnats.StoreOptions{Grace: time.Second}),
			Limits: bgagent.Limits{Default: 2},
			Wake:   bgagent.WakeEach,
			Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
				for _, item := range n.Items {
					fmt.Println("told", item.Task)
				}
				return nil
			},
		})
		var owned *bgagent.StoreOwnedError
		if !errors.As(err, &owned) {
			return m, err
		}
		fmt.Println("waiting for process", owned.Owner.PID)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// The type "agent" writes summaries.
type agent struct {
	slow bool // whether chapters 3 and 4 take forever, so that the process is killed during their turns
}

func (a *agent) summarize(ctx context.Context, t *inproc.Turn) (string, error) {
	title := t.Title()
	if a.slow && (title == "chapter 3" || title == "chapter 4") {
		fmt.Println("working", title)
		<-ctx.Done()
		return "", ctx.Err()
	}
	return answer(title), nil
}
