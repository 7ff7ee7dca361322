// Command budget limits what tasks may cost. One task reaches its own budget, and continues
// after its budget has been raised. Later, a tree of tasks reaches the budget that the tasks
// share.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	ctx := context.Background()
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"reader": reader}), bgagent.Config{
		TaskBudget:   bgagent.Budget{Cost: 1.00, ToolCalls: 100},
		TreeBudget:   bgagent.Budget{Cost: 2.50},
		BudgetPeriod: 24 * time.Hour, // the tree's budget is for a day
	})
	if err != nil {
		log.Fatal(err)
	}
	_, events := m.Subscribe(0)
	defer events.Close()

	me := bgagent.Caller{Session: "main"}
	task, err := m.Run(ctx, me, bgagent.LaunchInput{Agent: "reader", Prompt: "read 50 files"})
	show("read 50 files", task, err)

	// The host raises the task's budget, and the agent continues where it stopped.
	task, err = m.RunResume(ctx, me, task.ID, bgagent.ResumeInput{Prompt: "read 3 more", Budget: bgagent.Budget{Cost: 1.50}})
	show("read 3 more", task, err)

	// A launch can give a task a lower budget than other tasks have, but never a higher one than
	// Config allows.
	task, err = m.Run(ctx, me, bgagent.LaunchInput{Agent: "reader", Prompt: "read 50 files again", Budget: bgagent.Budget{Cost: 0.40}})
	show("read 50 files again", task, err)

	// The tasks together now reach the budget of the tree.
	task, err = m.Run(ctx, me, bgagent.LaunchInput{Agent: "reader", Prompt: "read 80 files"})
	show("read 80 files", task, err)
	_, err = m.Run(ctx, me, bgagent.LaunchInput{Agent: "reader", Prompt: "read 1 file"})
	var used *bgagent.BudgetError
	if errors.As(err, &used) {
		fmt.Println("read 1 file: refused:", used.Limit)
	}

	fmt.Println("\nwarnings:")
	m.Close(ctx) // no more events follow
	for e := range events.Events(ctx) {
		if e.Kind == bgagent.EventBudget {
			whose := "the task"
			if e.Budget.Task == "" {
				whose = "all tasks"
			}
			fmt.Printf("%s: %v\n", whose, *e.Budget)
		}
	}
}

func show(what string, t bgagent.Task, err error) {
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %v (%v), %q\n   the task has used %v\n", what, t.Status, t.Cause, t.Result, t.Budget)
}

// reader is an agent that asks its model about one file after another. Every request costs 10
// cents. The last request also brings the answer, so its cost is reported when the turn ends.
func reader(ctx context.Context, t *inproc.Turn) (string, error) {
	files := 0
	if _, err := fmt.Sscanf(t.Prompt.Text, "read %d", &files); err != nil {
		return "", err
	}
	cost := bgagent.Usage{InputTokens: 2000, OutputTokens: 100, Cost: 0.10}
	for i := range files - 1 {
		t.Tool(bgagent.MessageTool{ID: fmt.Sprint(i), Name: "read", State: bgagent.ToolDone})
		t.Text(fmt.Sprintf("file %d is read", i+1))
		t.Usage(cost)
		select {
		case <-time.After(20 * time.Millisecond): // the duration of a request
		case <-ctx.Done(): // the budget is used up
			return "", ctx.Err()
		}
	}
	t.FinalUsage(cost)
	return "all files are read", nil
}
