// Command hello delegates two tasks to an agent that is a Go function, and waits
// until both notices have arrived.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	ctx := context.Background()
	echo := func(ctx context.Context, t *inproc.Turn) (string, error) {
		return "you said: " + t.Prompt.Text, nil
	}
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"echo": echo}), bgagent.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)

	me := bgagent.Caller{Session: "main"} // the session that delegates and gets the notices
	for _, text := range []string{"hello", "good bye"} {
		if _, err := m.Launch(ctx, me, bgagent.LaunchInput{Agent: "echo", Prompt: text}); err != nil {
			log.Fatal(err)
		}
	}
	for notice, err := range m.Notices(ctx, me.Session) { // until nothing is live and all notices are taken
		if err != nil {
			log.Fatal(err)
		}
		for _, end := range notice.Items {
			task, _ := m.Get(end.Task)
			fmt.Printf("%s: %s\n", task.Status, task.Result)
		}
	}
}
