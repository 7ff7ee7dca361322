package inproc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/inproc"
)

// obeys is an agent that executes the command in its prompt.
func obeys(ctx context.Context, t *inproc.Turn) (string, error) {
	verb, rest, _ := strings.Cut(t.Prompt.Text, " ")
	switch verb {
	case "say":
		return "As you wish: " + rest, nil
	case "wait":
		t.Text("I wait")
		<-ctx.Done()
		return "", ctx.Err()
	case "think":
		t.Reasoning("hm")
		return "", nil
	case "fail":
		return "", errors.New("the agent failed as asked")
	case "use":
		for _, state := range []bgagent.ToolState{bgagent.ToolPending, bgagent.ToolRunning, bgagent.ToolDone} {
			t.Tool(bgagent.MessageTool{ID: t.Prompt.ID, Name: "grep", State: state})
		}
		return "used", nil
	default:
		return t.History()[0].Text, nil
	}
}

func TestConformance(t *testing.T) {
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	bgagenttest.Conformance(t, bgagenttest.Harness{
		New: func(bgagenttest.TB) bgagent.SessionClient {
			return inproc.New(map[string]inproc.Agent{"obedient": obeys})
		},
		Agent: "obedient",
		Say:   func(text string) string { return "say " + text },
		Slow:  fixed("wait"), Fail: fixed("fail"), Tool: fixed("use"), Recall: fixed("recall"), Silent: fixed("think"),
		Parent: "root", Directory: "/work", Virtual: true,
	})
}
