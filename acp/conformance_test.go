//go:build unix

package acp

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/tempdir"
)

func fakeHarness(fresh func(t bgagenttest.TB) bgagent.SessionClient) bgagenttest.Harness {
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	return bgagenttest.Harness{
		New: fresh, Agent: "fake",
		Say:  func(text string) string { return "say " + text },
		Slow: fixed("wait"), Fail: fixed("fail as told"), Tool: fixed("tool grep\nsay used"), Recall: fixed("recall"),
		Silent: fixed("think hm"), Cut: fixed("say half\nstop max_tokens"),
		Late:          func(text string) string { return "say the answer is \nlateraw 100ms " + piece(text, "") },
		Ask:           fixed("permit rm -r src"),
		KeepsPromptID: true,
	}
}

func TestConformanceOfTheFakeAgent(t *testing.T) {
	cfg := program(t, "", "FAKE_STORE="+tempdir.New(t))
	cfg.Agents = map[string]Agent{"fake": {Description: "does as it is told"}}
	bgagenttest.Conformance(t, fakeHarness(func(tb bgagenttest.TB) bgagent.SessionClient {
		c, err := New(cfg)
		if err != nil {
			tb.Fatalf("%v", err)
		}
		tb.Cleanup(func() { _ = c.Close() })
		return c
	}))
}

func TestConformanceOfTheFakeAgentThatCannotLoadSessions(t *testing.T) {
	h := fakeHarness(func(tb bgagenttest.TB) bgagent.SessionClient {
		c, err := New(Config{Command: []string{"fake"}, Agents: map[string]Agent{"fake": {}}})
		if err != nil {
			tb.Fatalf("%v", err)
		}
		c.launch = func(string) (*running, error) { return runPiped(&fakeAgent{}), nil }
		tb.Cleanup(func() { _ = c.Close() })
		return c
	})
	h.Virtual = true
	bgagenttest.Conformance(t, h)
}
