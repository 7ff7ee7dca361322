package bgagent_test

import (
	"context"
	"expvar"
	"fmt"

	"github.com/bgagent/bgagent"
)

// A program can publish the manager's figures under /debug/vars, next to its own figures.
func ExampleBackgroundManager_Figures() {
	ctx := context.Background()
	m, err := bgagent.New(&shouter{}, bgagent.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close(ctx)
	expvar.Publish("bgagent", expvar.Func(func() any { return m.Figures() }))

	_, err = m.Run(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "shouter", Prompt: "count me"})
	if err != nil {
		fmt.Println(err)
		return
	}
	f := m.Figures()
	fmt.Println(f.Attempts, "attempt,", f.Completed, "completed:", f.Causes)
	fmt.Println(expvar.Get("bgagent") != nil)
	// Output:
	// 1 attempt, 1 completed: map[turn ended:1]
	// true
}
