package bgagent_test

import (
	"context"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// A message to a running task becomes the prompt of the task's next turn.
func ExampleBackgroundManager_Send() {
	ctx := context.Background()
	sent := make(chan struct{})
	client := inproc.New(map[string]inproc.Agent{"reviewer": func(_ context.Context, t *inproc.Turn) (string, error) {
		<-sent // the review lasts until the message is sent
		return "I have done this: " + t.Prompt.Text, nil
	}})
	m, err := bgagent.New(client, bgagent.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close(ctx)
	by := bgagent.Caller{Session: "main"}
	task, err := m.Launch(ctx, by, bgagent.LaunchInput{Agent: "reviewer", Prompt: "Review the patch."})
	if err != nil {
		fmt.Println(err)
		return
	}
	message := bgagent.SendInput{Key: "tests", Text: "Review the tests, too."}
	for range 2 { // the second call does not send the message again
		r, err := m.Send(ctx, by, task.ID, message)
		fmt.Println(r.State, err)
	}
	close(sent)
	tasks, err := m.Wait(ctx, by, bgagent.WaitAll, task.ID)
	fmt.Println(tasks[0].Status, err)
	fmt.Println(tasks[0].Result)
	// Output:
	// accepted <nil>
	// accepted <nil>
	// completed <nil>
	// I have done this: Review the patch.
	//
	// ## Answer to message 1: Review the tests, too.
	//
	// I have done this: Review the tests, too.
}
