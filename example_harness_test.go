package bgagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// This is a small harness. The tool calls of its model are JSON. The harness gets notices about
// ended tasks and does not poll. It cancels one task and resumes another task with a second
// question.
func Example_harness() {
	ctx := context.Background()
	delegated := make(chan struct{}, 2)
	client := inproc.New(map[string]inproc.Agent{
		"count": func(_ context.Context, t *inproc.Turn) (string, error) {
			<-delegated // end only after both tasks are launched; otherwise, the second tool call's result could already report this task's end
			return fmt.Sprintf("%d words, turn %d", len(strings.Fields(t.Prompt.Text)), 1+len(t.History())/2), nil
		},
		"sleep": func(ctx context.Context, t *inproc.Turn) (string, error) {
			<-ctx.Done() // the task sleeps until it is cancelled
			return "", ctx.Err()
		},
	})
	m, err := bgagent.New(client, bgagent.Config{Limits: bgagent.Limits{Default: 2}})
	if err != nil {
		panic(err)
	}
	defer m.Close(ctx)
	tools := map[string]bgagent.ToolDef{}
	for _, tool := range bgagent.Tools(m, bgagent.ToolOptions{}) {
		tools[tool.Name] = tool
	}
	calls := 0
	call := func(name, args string) any { // makes a tool call on the model's behalf
		calls++
		by := bgagent.Caller{Session: "main", ToolCallID: fmt.Sprint("call_", calls)}
		result, err := tools[name].Call(bgagent.WithCaller(ctx, by), json.RawMessage(args))
		if err != nil {
			panic(err)
		}
		return result.Value // result.Text is the text for the model
	}
	delegate := func(args string) *bgagent.Task { return call("delegate_task", args).(bgagent.DelegateTaskResult).Task }

	first := delegate(`{"subagent_type": "count", "prompt": "one two three"}`)
	sleeper := delegate(`{"subagent_type": "sleep", "prompt": "forever"}`)
	call("background_cancel", fmt.Sprintf(`{"task_id": %q}`, sleeper.ID))
	delegated <- struct{}{}
	for told := 0; ; told++ {
		notice, err := m.NextNotice(ctx, "main")
		if errors.Is(err, bgagent.ErrNothingOwed) {
			break
		}
		for _, end := range notice.Items {
			out := call("background_output", fmt.Sprintf(`{"task_id": %q}`, end.Task)).(bgagent.BackgroundOutputResult)
			fmt.Println(end.Agent, end.Status, out.Tasks[0].Result)
		}
		if told == 0 {
			delegate(fmt.Sprintf(`{"task_id": %q, "prompt": "four five"}`, first.ID))
			delegated <- struct{}{}
		}
	}
	// Output:
	// count completed 3 words, turn 1
	// count completed 2 words, turn 2
}
