package embedded_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// Two managers share their limits. Usually, they are in different processes, and the server is one of three
// on other machines.
func Example_slots() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "slots-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	server, err := embedded.Start(embedded.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	upper := func(_ context.Context, t *inproc.Turn) (string, error) { return strings.ToUpper(t.Prompt.Text), nil }
	for _, prompt := range []string{"one", "two"} {
		nc, err := nats.Connect("", server.Connection(), nats.MaxReconnects(-1))
		if err != nil {
			log.Fatal(err)
		}
		defer nc.Close()
		slots, err := bgnats.NewSlots(ctx, nc, "agents", bgnats.SlotOptions{Limits: bgagent.Limits{Default: 1}})
		if err != nil {
			log.Fatal(err)
		}
		defer slots.Close(ctx)
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"upper": upper}), bgagent.Config{Slots: slots})
		if err != nil {
			log.Fatal(err)
		}
		defer m.Close(ctx)
		task, err := m.Run(ctx, bgagent.Caller{}, bgagent.LaunchInput{Agent: "upper", Prompt: prompt, Description: prompt})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(task.Status, task.Result)
	}
	// Output:
	// completed ONE
	// completed TWO
}
