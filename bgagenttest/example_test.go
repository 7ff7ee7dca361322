package bgagenttest_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
)

// The function "review" is the host's code. It launches a background task for each file and returns
// the tasks' results.
func review(ctx context.Context, m *bgagent.BackgroundManager, files ...string) ([]string, error) {
	by := bgagent.Caller{Session: "user"}
	var ids []string
	for _, file := range files {
		task, err := m.Launch(ctx, by, bgagent.LaunchInput{Agent: "reviewer", Prompt: "review " + file, Description: file})
		if err != nil {
			return nil, err
		}
		ids = append(ids, task.ID)
	}
	tasks, err := m.Wait(ctx, by, bgagent.WaitAll, ids...)
	var found []string
	for _, task := range tasks {
		if task.Status != bgagent.Completed {
			found = append(found, fmt.Sprintf("%s: %s (%s)", task.Description, task.Status, task.Cause))
			continue
		}
		found = append(found, fmt.Sprintf("%s: %s", task.Description, task.Result))
	}
	return found, err
}

// The test uses a fake client that runs a script and needs no model. One of the client's calls
// fails on purpose. At the end, the test prints the maximum number of concurrent turns and the
// number of violations.
func Example() {
	client := bgagenttest.NewRunner(func(t *bgagenttest.Turn) {
		t.Call(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolDone})
		t.Say("nothing wrong with " + strings.TrimPrefix(t.Prompt.Text, "review "))
	})
	client.Root("user")
	client.Faults = func(c bgagenttest.Call) (f bgagenttest.Fault) {
		if c.Kind == bgagenttest.CallTurn && c.Title == "b.go" {
			f.Panic = "the model's library has a bug"
		}
		return f
	}
	defer client.Close()
	m, err := bgagent.New(client, bgagent.Config{Limits: bgagent.Limits{Default: 1}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close(context.Background())

	found, err := review(context.Background(), m, "a.go", "b.go", "c.go")
	fmt.Println(strings.Join(found, "\n"), err)
	fmt.Println("at the same time:", client.Peak(""), "violations:", len(client.Violations()))
	// Output:
	// a.go: nothing wrong with a.go
	// b.go: error (session error)
	// c.go: nothing wrong with c.go <nil>
	// at the same time: 1 violations: 0
}
