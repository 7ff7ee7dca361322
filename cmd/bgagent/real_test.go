package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

func TestRealProgramsOfAllKindsRunOneList(t *testing.T) {
	w := realagent.New(t, "opencode", "codex", "gemini", "claude", "claude-acp", "codex-acp")
	w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if r.Kind != modelserver.Main {
			return r.Scripted()
		}
		return modelserver.Say("answered over " + string(r.Protocol))
	})
	server := w.ServeOpencodeWith(t, realagent.OpencodeOptions{Password: "secret"})
	agent := func(kind string, more map[string]any) map[string]any {
		more["kind"] = kind
		return more
	}
	config, err := json.Marshal(map[string]any{"agents": map[string]any{
		"codex":  agent("command", map[string]any{"preset": "codex", "command": w.Codex(), "env": w.Env, "directory": w.Dir}),
		"claude": agent("command", map[string]any{"preset": "claude", "command": w.Claude(), "env": w.Env, "directory": w.Dir}),
		"clacp":  agent("acp", map[string]any{"command": w.ClaudeACP(), "env": w.Env, "directory": w.Dir}),
		"coacp":  agent("acp", map[string]any{"command": w.CodexACP(), "env": w.Env, "directory": w.Dir}),
		"gemini": agent("acp", map[string]any{"command": w.Gemini("-m", realagent.GeminiModel, "--acp"), "env": w.Env, "directory": w.Dir, "auth": "gemini-api-key"}),
		"oc":     agent("acp", map[string]any{"command": w.Opencode("acp"), "env": w.Env, "directory": w.Dir}),
		"server": agent("opencode", map[string]any{"url": server.URL, "passwordEnv": "SERVER_PASSWORD", "agent": "oracle", "model": realagent.OpencodeModel, "directory": w.Dir}),
		"count":  agent("inproc", map[string]any{"directory": w.Dir}),
		"lost":   agent("command", map[string]any{"preset": "generic", "command": []string{"no-such-program"}}),
	}, "background_task": map[string]any{"createTimeoutMs": 240_000}}) // a long limit, because all programs start at the same time
	require.NoError(t, err)
	p := newPlace(t)
	p.env = append(p.env, "SERVER_PASSWORD=secret")
	p.write(".bgagent.jsonc", string(config))

	got := p.run("agents")
	require.Equal(t, 1, got.code, got.stderr)
	for _, want := range []string{
		`codex +command codex +- +ok: .*0\.171\.0`, `claude +command claude +- +ok: .*2\.1\.332`, `clacp +acp +- +ok: speaks ACP`, `coacp +acp +- +ok: speaks ACP`,
		`gemini +acp +- +ok: speaks ACP`, `oc +acp +- +ok: speaks ACP`,
		`server +opencode +scripted/scripted +ok: the server at ` + server.URL + ` has it`, `count +inproc +- +ok`,
		`lost +command generic +- +cannot start: there is no program no-such-program on PATH; install it, or name it in command`,
	} {
		require.Regexp(t, want, got.out)
	}
	require.False(t, slices.ContainsFunc(w.Model.Requests(), func(r modelserver.Request) bool { return r.Kind == modelserver.Main }), "no model is called")

	p.write("tasks.jsonc", `[
		{"agent": "codex", "prompt": "what is it?"}, {"agent": "gemini", "prompt": "what is it?"}, {"agent": "oc", "prompt": "what is it?"},
		{"agent": "server", "prompt": "what is it?"}, {"agent": "claude", "prompt": "what is it?"}, {"agent": "clacp", "prompt": "what is it?"},
		{"agent": "coacp", "prompt": "what is it?"}, {"agent": "count", "prompt": "count"},
	]`)
	got = p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	x := p.index("out")
	for i, want := range []string{"openai-responses", "gemini", "openai-chat", "openai-chat", "anthropic-messages", "anthropic-messages", "openai-responses"} {
		require.Equal(t, bgagent.Completed, x.Tasks[i].Status, got.out)
		b, err := os.ReadFile(filepath.Join(p.project, "out", x.Tasks[i].File))
		require.NoError(t, err)
		require.Equal(t, "answered over "+want+"\n", string(b))
	}
}

func TestAnUnreachableServerIsNamed(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"a": {"kind": "opencode", "url": "http://127.0.0.1:1"}}}`)
	got := p.run("agents")
	require.Equal(t, 1, got.code)
	require.Regexp(t, `a +opencode +- +cannot start: .*127\.0\.0\.1:1`, got.out)
}

func TestAProgramThatDoesNotStartIsNamed(t *testing.T) {
	p := newPlace(t)
	p.write("codex", "#!/bin/sh\necho it is broken >&2\nexit 3\n")
	p.write(".bgagent.jsonc", `{"agents": {
		"a": {"kind": "command", "preset": "codex", "command": ["`+p.project+`/codex"]},
		"b": {"kind": "acp", "command": ["`+p.project+`/codex"]},
		"c": {"kind": "acp", "command": ["no-such-program"]},
	}}`)
	got := p.run("agents")
	require.Equal(t, 1, got.code)
	require.Regexp(t, `a +command codex +- +cannot start: .*/codex --version fails: exit status 3: it is broken`, got.out)
	require.Regexp(t, `b +acp +- +cannot start: the program exists, but creates no session: .*it is broken`, got.out)
	require.Regexp(t, `c +acp +- +cannot start: there is no program no-such-program on PATH`, got.out)
}

func TestAgentsWithoutAnyAgentFails(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{}`)
	got := p.run("agents")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "no agent is configured")
}

func TestARunInsideATaskIsRefusedUnlessTheDepthAllowsIt(t *testing.T) {
	p := newPlace(t)
	p.env = append(p.env, "BGAGENT_DEPTH=1")
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "prompt": "1 ms"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "starting at depth 1 (BGAGENT_DEPTH): tasks may not delegate any further; background_task.maxDepth allows more")
	require.NoDirExists(t, filepath.Join(p.project, "out"))
	p.write(".bgagent.jsonc", `{"background_task": {"maxDepth": 2}, "agents": {"demo-wait": {"kind": "inproc", "agent": "wait"}}}`)
	require.Equal(t, 0, p.run("run", "tasks.jsonc", "-o", "out").code)
}
