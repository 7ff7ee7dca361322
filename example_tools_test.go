package bgagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// The names, descriptions and schemas of the tools are part of the request to the model's API.
// When the model calls a tool, the harness passes the arguments to Call. The context contains the
// session that made the call.
func ExampleTools() {
	m, err := bgagent.New(working(10*time.Millisecond), bgagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close(context.Background())
	tools := map[string]bgagent.ToolDef{}
	for _, t := range bgagent.Tools(m, bgagent.ToolOptions{
		Names:  map[string]string{bgagent.ToolDelegateTask: "delegate"},
		Omit:   []string{bgagent.ToolBackgroundCancel},
		Agents: []bgagent.AgentInfo{{Name: "explore", Description: "searches the code"}},
	}) {
		tools[t.Name] = t
	}

	ctx := bgagent.WithCaller(context.Background(), bgagent.Caller{Session: "main", ToolCallID: "call_1"})
	call := func(name, args string) bgagent.ToolResult {
		r, err := tools[name].Call(ctx, json.RawMessage(args))
		if err != nil {
			panic(err) // an error is always the host's mistake, never the model's
		}
		return r
	}
	fmt.Println(call("delegate", `{"prompt":"find the login"}`).Text)
	r := call("delegate", `{"prompt":"find the login","subagent_type":"explore"}`)
	fmt.Println(strings.SplitN(r.Text, "\n", 2)[0])
	id := r.Value.(bgagent.DelegateTaskResult).Task.ID
	r = call("background_output", fmt.Sprintf(`{"task_id":%q,"block":true}`, id))
	fmt.Println(r.Text[strings.Index(r.Text, "---"):])
	// Output:
	// The argument subagent_type is missing. It must name the agent that is to do the work; or, to continue a task, give its session_id or task_id instead.
	// Background task launched successfully.
	// ---
	//
	// answer to find the login
}
