package main

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
	"github.com/stretchr/testify/require"
)

// hostWord is what the prompt of a host has, and that of no task.
const hostWord = "HOST"

var idIn = regexp.MustCompile(`Task ID: (bg_[0-9a-z]{16})`)

// playHost is the model of an agent that delegates three tasks, learns of two
// ends, cancels the third, and follows up on the first. Names are those that the
// host knows the tools by.
func playHost(model *modelserver.Server, prefix string) func(modelserver.Request) modelserver.Reply {
	call := func(tool string, args map[string]any) modelserver.Call {
		raw, err := json.Marshal(args)
		if err != nil {
			panic(err)
		}
		return modelserver.Call{Name: prefix + tool, Args: string(raw)}
	}
	delegate := func(agent, prompt string) modelserver.Call {
		return call("delegate_task", map[string]any{"subagent_type": agent, "description": "for " + agent, "prompt": prompt})
	}
	return func(r modelserver.Request) modelserver.Reply {
		if r.Kind != modelserver.Main || !strings.Contains(r.LastUser(), hostWord) {
			return r.Scripted()
		}
		var ids []string
		for _, text := range resultsOf(r) {
			if m := idIn.FindStringSubmatch(text); m != nil && len(ids) < 3 {
				ids = append(ids, m[1])
			}
		}
		one := func(c modelserver.Call) modelserver.Reply { return modelserver.Reply{Calls: []modelserver.Call{c}} }
		switch n := len(resultsOf(r)); {
		case n == 0:
			return one(delegate("coder", "@say codex is done"))
		case n == 1:
			return one(delegate("reader", "@say gemini is done"))
		case n == 2:
			return one(delegate("thinker", "@hang never"))
		case len(ids) < 3:
			return modelserver.Refuse(400, "the host has not got three ids")
		case n < 5: // two ends, as they come
			return one(call("background_output", map[string]any{"block": true, "timeout": 120_000}))
		case n == 5:
			return one(call("background_output", map[string]any{"task_id": ids[1]}))
		case n == 6: // once it is at work
			_ = model.WaitFor(r.Context(), func(all []modelserver.Request) bool {
				return slices.ContainsFunc(all, func(r modelserver.Request) bool {
					return r.Kind == modelserver.Main && strings.HasPrefix(r.LastUser(), "@hang")
				})
			})
			return one(call("background_cancel", map[string]any{"task_id": ids[2]}))
		case n == 7:
			return one(call("delegate_task", map[string]any{"task_id": ids[0], "prompt": "@say codex went on"}))
		case n == 8:
			return one(call("background_output", map[string]any{"task_id": ids[0], "block": true, "timeout": 120_000}))
		}
		return modelserver.Say("the host is done")
	}
}

// resultsOf returns the results of tools since the last user message.
func resultsOf(r modelserver.Request) (out []string) {
	for _, m := range r.Messages {
		switch m.Role {
		case modelserver.User:
			out = nil
		case modelserver.Tool:
			for _, x := range m.Results {
				out = append(out, x.Text)
			}
		}
	}
	return out
}

// loop is a world in which a host has this program as an MCP server.
func loop(t *testing.T, prefix string) *realagent.World {
	w := realagent.New(t, "opencode", "codex", "gemini")
	w.Model.Handle(playHost(w.Model, prefix))
	config, err := json.Marshal(map[string]any{"agents": map[string]any{
		"coder":   map[string]any{"kind": "command", "preset": "codex", "command": w.Codex(), "env": w.Env},
		"reader":  map[string]any{"kind": "command", "preset": "gemini", "command": w.Gemini(), "env": w.Env, "model": realagent.GeminiModel},
		"thinker": map[string]any{"kind": "acp", "command": w.Opencode("acp"), "env": w.Env},
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".bgagent.jsonc"), config, 0o644))
	// The README's lines, with the program on PATH.
	w.Env = append(w.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	var lines map[string]any
	require.NoError(t, json.Unmarshal([]byte(readmeLines(t, "opencode, in", "json")), &lines))
	w.OpencodeConfig(t, func(c map[string]any) { maps.Copy(c, lines) })
	w.CodexConfig(t, readmeLines(t, "Codex, in", "toml"))
	return w
}

// readmeLines returns the lines that the README has for a program.
func readmeLines(t *testing.T, after, language string) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(readme), "\n"+after)
	require.True(t, found, "README.md does not say %q", after)
	_, text, found = strings.Cut(text, "```"+language+"\n")
	require.True(t, found)
	lines, _, _ := strings.Cut(text, "```")
	return lines
}

// judge looks at what the host was told, and at what its tasks were offered.
func judge(t *testing.T, w *realagent.World, prefix string) {
	var last modelserver.Request
	children := map[modelserver.Protocol]bool{}
	for _, r := range w.Model.Requests() {
		if r.Kind != modelserver.Main {
			continue
		}
		if strings.Contains(r.LastUser(), hostWord) {
			require.True(t, r.Offers(prefix+"delegate_task"))
			last = r
			continue
		}
		children[r.Protocol] = true
		for _, tool := range r.Tools {
			require.NotContains(t, tool.Name, "delegate_task", "a task is as deep as is allowed: %s", r.LastUser())
		}
	}
	require.Len(t, children, 3, "codex, gemini and opencode have worked")
	got := resultsOf(last)
	require.Len(t, got, 9)
	ends := got[3] + got[4]
	require.Contains(t, ends, "for coder")
	require.Contains(t, ends, "for reader")
	require.Contains(t, got[5], "gemini is done")
	require.Contains(t, strings.ToLower(got[6]), "cancelled")
	require.Contains(t, got[8], "codex went on")
}

// finished waits for the host's last turn.
func finished(t *testing.T, w *realagent.World) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	err := w.Model.WaitFor(ctx, func(all []modelserver.Request) bool {
		for _, r := range all {
			if r.Kind == modelserver.Main && strings.Contains(r.LastUser(), hostWord) && len(resultsOf(r)) == 9 && r.Done {
				return true
			}
		}
		return false
	})
	if err != nil {
		for _, r := range w.Model.Requests() {
			if strings.Contains(r.LastUser(), hostWord) {
				t.Logf("%s: %q", r.Kind, resultsOf(r))
			}
		}
	}
	require.NoError(t, err)
}

func TestTheWholeLoopWithOpencodeAsTheHost(t *testing.T) {
	w := loop(t, "bgagent_")
	s := w.ServeOpencode(t)
	c, err := opencode.New(opencode.Config{URL: s.URL, Directory: w.Dir})
	require.NoError(t, err)
	defer c.Close()
	root, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Title: "host", Agent: "build"})
	require.NoError(t, err)
	require.NoError(t, c.StartTurn(t.Context(), root, bgagent.Prompt{ID: "host", Agent: "build", Text: hostWord}))
	finished(t, w)
	judge(t, w, "bgagent_")
}

func TestTheWholeLoopWithCodexAsTheHost(t *testing.T) {
	w := loop(t, "mcp__bgagent__")
	cmd := w.Command(t.Context(), w.Codex("exec", "--json", "--skip-git-repo-check", hostWord)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	finished(t, w)
	judge(t, w, "mcp__bgagent__")
	require.Contains(t, string(out), "the host is done")
}

func TestGeminiTakesTheReadmesLines(t *testing.T) {
	w := realagent.New(t, "gemini")
	w.Env = append(w.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".bgagent.jsonc"), []byte(`{"agents": {"wait": {"kind": "inproc"}}}`), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(w.Dir, ".gemini"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".gemini", "settings.json"), []byte(readmeLines(t, "Gemini, in", "json")), 0o644))
	prompt := "@tool mcp_bgagent_delegate_task {\"subagent_type\":\"wait\",\"prompt\":\"1 ms\",\"run_in_background\":false}\n@say it was: ${re:I have waited for (\\w+)}"
	out, err := w.Command(t.Context(), w.Gemini("--yolo", "-p", prompt)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "it was: 1ms")
}
