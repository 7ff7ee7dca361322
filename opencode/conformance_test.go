package opencode_test

import (
	"sync"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/opencode"
)

func TestConformanceOnTheFakeServer(t *testing.T) {
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	var servers sync.Map // fake server of each client
	connect := func(t bgagenttest.TB, f *fakeServer) bgagent.SessionClient {
		c := newClient(t, opencode.Config{HTTPClient: f.client()})
		servers.Store(c, f)
		return c
	}
	bgagenttest.Conformance(t, bgagenttest.Harness{
		New: func(t bgagenttest.TB) bgagent.SessionClient {
			f := newFake()
			t.Cleanup(f.stop)
			return connect(t, f)
		},
		Restart: bgagenttest.Restart{Next: func(t bgagenttest.TB, old bgagent.SessionClient, death bgagenttest.Death) bgagent.SessionClient {
			if death != bgagenttest.DeathAlone {
				return nil
			}
			f, _ := servers.Load(old)
			return connect(t, f.(*fakeServer))
		}},
		Agent: "worker",
		Say:   func(text string) string { return "say " + text },
		Slow:  fixed("wait"), Fail: fixed("refuse"), Tool: fixed("use"), Recall: fixed("recall"),
		Silent: fixed("nothing"), Cut: fixed("length"), Late: func(text string) string { return "midway " + text },
		Nap: fixed("nap awake"), Ask: fixed("ask"),
		Notices: noticesIn, Directory: "/work", KeepsPromptID: true, Virtual: true,
	})
}
