package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/acp"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestFourKindsBehindOneManager(t *testing.T) {
	w := realagent.New(t, "opencode", "codex", "gemini", "claude")
	w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if r.Kind != modelserver.Main {
			return r.Scripted()
		}
		return modelserver.Say("answered over " + string(r.Protocol))
	})
	w.OpencodeConfig(t, func(cfg map[string]any) {
		cfg["agent"].(map[string]any)["reviewer"] = map[string]any{"mode": "subagent", "description": "reviews", "prompt": "You are a reviewer."}
	})
	s := w.ServeOpencode(t)
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, runtimes{
		codex:    command.Agent{Program: command.Codex(), Command: w.Codex(), Env: w.Env},
		claude:   command.Agent{Program: command.Claude(), Command: w.Claude(), Env: w.Env},
		acp:      acp.Config{Command: w.Gemini("-m", realagent.GeminiModel, "--acp"), Env: w.Env, Auth: "gemini-api-key", StartTimeout: time.Minute},
		opencode: opencode.Config{URL: s.URL},
		models:   map[string]string{"reviewer": realagent.OpencodeModel},
		dir:      w.Dir,
	}, "what is it?"))
	got := out.String()
	for _, want := range []string{
		"explore (completed", "answered over openai-responses",
		"writer (completed", "answered over anthropic-messages",
		"oracle (completed", "answered over gemini",
		"reviewer (completed", "answered over openai-chat",
		"librarian (completed", "0 documents at the top",
	} {
		require.Contains(t, got, want)
	}
}

func TestAServerThatIsNotThereIsNamedWithTheFlag(t *testing.T) {
	err := run(t.Context(), &strings.Builder{}, runtimes{
		codex: command.Agent{Program: command.Codex()}, claude: command.Agent{Program: command.Claude()}, acp: acp.Config{Command: []string{"gemini", "--acp"}}, opencode: opencode.Config{URL: "http://127.0.0.1:1"},
	}, "x")
	require.ErrorContains(t, err, "-url")
	require.NotContains(t, err.Error(), "Config")
}
