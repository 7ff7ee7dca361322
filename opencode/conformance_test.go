package opencode_test

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/opencode"
)

func TestConformanceOnTheFakeServer(t *testing.T) {
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	bgagenttest.Conformance(t, bgagenttest.Harness{
		New: func(t bgagenttest.TB) bgagent.SessionClient {
			f := newFake()
			t.Cleanup(f.stop)
			return newClient(t, opencode.Config{HTTPClient: f.client()})
		},
		Agent: "worker",
		Say:   func(text string) string { return "say " + text },
		Slow:  fixed("wait"), Fail: fixed("refuse"), Tool: fixed("use"), Recall: fixed("recall"),
		Silent: fixed("nothing"), Cut: fixed("length"), Late: func(text string) string { return "midway " + text },
		Notices: noticesIn, Directory: "/work", KeepsPromptID: true, Virtual: true,
	})
}
