package main

import (
	"bytes"
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

// hostWord occurs in a host's prompt, but not in any task's prompt.
const hostWord = "HOST"

var idIn = regexp.MustCompile(`Task ID: (bg_[0-9a-z]{16})`)

// kinds are the agents to which the host delegates, in this order. The last agent
// hangs.
var kinds = []string{"coder", "reader", "writer", "thinker"}

// heard is a host's progress, as seen in the results of its tool calls.
type heard struct {
	ids   []string // ids of the tasks that the host launched
	told  int      // number of tasks that ended according to the tool results
	after int      // number of tool results after the one that shows the ends of all tasks except the last
}

func hear(texts []string) (h heard) {
	for i, text := range texts {
		if i < len(kinds) {
			if m := idIn.FindStringSubmatch(text); m != nil {
				h.ids = append(h.ids, m[1])
			}
		}
		h.told = 0
		for _, id := range h.ids[:min(len(h.ids), len(kinds)-1)] {
			completed := regexp.MustCompile(id + `[^\n\\}]*completed`) // in a list, as text or as JSON
			if slices.ContainsFunc(texts[:i+1], completed.MatchString) {
				h.told++
			}
		}
		if h.told == len(kinds)-1 && i >= len(kinds)-1 {
			h.after = len(texts) - i - 1
			return h
		}
	}
	return h
}

// playHost returns a host's model. The model delegates a task to each agent in the variable "kinds", waits
// for tasks to end, cancels the last task and continues the first. The argument "prefix" is the prefix that
// the host adds to tool names.
func playHost(model *modelserver.Server, prefix string) func(modelserver.Request) modelserver.Reply {
	call := func(tool string, args map[string]any) modelserver.Reply {
		raw, err := json.Marshal(args)
		if err != nil {
			panic(err)
		}
		return modelserver.Reply{Calls: []modelserver.Call{{Name: prefix + tool, Args: string(raw)}}}
	}
	return func(r modelserver.Request) modelserver.Reply {
		if r.Kind != modelserver.Main || !strings.Contains(r.LastUser(), hostWord) {
			return r.Scripted()
		}
		texts := resultsOf(r)
		h := hear(texts)
		switch n := len(texts); {
		case n < len(kinds):
			prompt := "@say " + kinds[n] + " is done"
			if n == len(kinds)-1 {
				prompt = "@hang never"
			}
			return call("delegate_task", map[string]any{"subagent_type": kinds[n], "description": "for " + kinds[n], "prompt": prompt})
		case len(h.ids) < len(kinds):
			return modelserver.Refuse(400, "the host has not got all ids")
		case h.told < len(kinds)-1: // wait until the next task ends
			return call("background_output", map[string]any{"block": true, "timeout": 120_000})
		}
		switch h.after {
		case 0:
			return call("background_output", map[string]any{"task_id": h.ids[1]})
		case 1: // cancel the last task once it runs, or after 2 minutes
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Minute)
			defer cancel()
			_ = model.WaitFor(ctx, func(all []modelserver.Request) bool {
				return slices.ContainsFunc(all, func(r modelserver.Request) bool {
					return r.Kind == modelserver.Main && strings.HasPrefix(r.LastUser(), "@hang")
				})
			})
			return call("background_cancel", map[string]any{"task_id": h.ids[len(kinds)-1]})
		case 2:
			return call("delegate_task", map[string]any{"task_id": h.ids[0], "prompt": "@say coder went on"})
		case 3:
			return call("background_output", map[string]any{"task_id": h.ids[0], "block": true, "timeout": 120_000})
		}
		return modelserver.Say("the host is done")
	}
}

// resultsOf returns the results of tool calls after the last user message in a request.
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

// loop returns a world whose host uses this program as an MCP server.
func loop(t *testing.T, prefix string) *realagent.World {
	w := realagent.New(t, "opencode", "codex", "gemini", "claude")
	w.Model.Handle(playHost(w.Model, prefix))
	config, err := json.Marshal(map[string]any{"agents": map[string]any{
		"coder":   map[string]any{"kind": "command", "preset": "codex", "command": w.Codex(), "env": w.Env},
		"reader":  map[string]any{"kind": "command", "preset": "gemini", "command": w.Gemini(), "env": w.Env, "model": realagent.GeminiModel},
		"writer":  map[string]any{"kind": "command", "preset": "claude", "command": w.Claude(), "env": w.Env},
		"thinker": map[string]any{"kind": "acp", "command": w.Opencode("acp"), "env": w.Env},
	}, "background_task": map[string]any{"createTimeoutMs": 240_000}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".bgagent.jsonc"), config, 0o644))
	// The configuration in the README requires that the program is on PATH.
	w.Env = append(w.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	var lines map[string]any
	require.NoError(t, json.Unmarshal([]byte(readmeLines(t, "opencode, in", "json")), &lines))
	w.OpencodeConfig(t, func(c map[string]any) { maps.Copy(c, lines) })
	w.CodexConfig(t, readmeLines(t, "Codex, in", "toml"))
	return w
}

// readmeLines looks for a text in the README, and returns the first code block after it that is
// marked with the language.
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

// judge checks the tool results that the host got, and the tools that its tasks were offered.
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
			require.NotContains(t, tool.Name, "delegate_task", "a task must not delegate: %s", r.LastUser())
		}
	}
	require.Len(t, children, len(kinds), "codex, gemini, claude and opencode have worked")
	got := resultsOf(last)
	require.Equal(t, 4, hear(got).after)
	got = got[len(got)-4:]
	require.Contains(t, got[0], "reader is done")
	require.Contains(t, strings.ToLower(got[1]), "cancelled")
	require.Contains(t, got[3], "coder went on")
}

// The function "finished" waits until the model has sent its last answer to the host.
func finished(t *testing.T, w *realagent.World) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	err := w.Model.WaitFor(ctx, func(all []modelserver.Request) bool {
		for _, r := range all {
			if r.Kind == modelserver.Main && strings.Contains(r.LastUser(), hostWord) && hear(resultsOf(r)).after == 4 && r.Done {
				return true
			}
		}
		return false
	})
	if err != nil {
		logHost(t, w)
	}
	require.NoError(t, err)
}

func TestTheWholeLoopWithOpencodeAsTheHost(t *testing.T) {
	w := loop(t, "bgagent_")
	s := w.ServeOpencode(t)
	c, err := opencode.New(opencode.Config{URL: s.URL, Directory: w.Dir, Timeout: time.Minute})
	require.NoError(t, err)
	defer c.Close()
	root, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Title: "host", Agent: "build"})
	require.NoError(t, err)
	require.NoError(t, c.StartTurn(t.Context(), root, bgagent.Prompt{ID: "host", Agent: "build", Text: hostWord}))
	finished(t, w)
	judge(t, w, "bgagent_")
}

// The function "hosted" executes a host and returns its output.
func hosted(t *testing.T, w *realagent.World, argv []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := w.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		logHost(t, w)
	}
	require.NoError(t, err, string(out))
	return string(out)
}

// logHost logs the tool results that the host got.
func logHost(t *testing.T, w *realagent.World) {
	for _, r := range w.Model.Requests() {
		if strings.Contains(r.LastUser(), hostWord) {
			t.Logf("%s: %q", r.Kind, resultsOf(r))
		}
	}
}

func TestTheWholeLoopWithCodexAsTheHost(t *testing.T) {
	w := loop(t, "mcp__bgagent__")
	out := hosted(t, w, w.Codex("exec", "--json", "--skip-git-repo-check", hostWord))
	finished(t, w)
	judge(t, w, "mcp__bgagent__")
	require.Contains(t, out, "the host is done")
}

// addToClaude adds this program to Claude Code, using the command from the README.
func addToClaude(t *testing.T, w *realagent.World) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(readme), "\nClaude Code:\n\n    claude ")
	require.True(t, found, "README.md has no line for Claude Code")
	line, _, _ := strings.Cut(text, "\n")
	out, err := w.Command(t.Context(), w.Claude(strings.Fields(line)...)...).CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestTheWholeLoopWithClaudeAsTheHost(t *testing.T) {
	w := loop(t, "mcp__bgagent__")
	addToClaude(t, w)
	out := hosted(t, w, w.Claude("-p", "--allowedTools=mcp__bgagent", hostWord))
	finished(t, w)
	judge(t, w, "mcp__bgagent__")
	require.Contains(t, out, "the host is done")
}

// In a terminal, Claude Code supports the tasks extension of the protocol: a turn does not wait for a
// foreground delegation, and the result begins a new turn. With -p, Claude Code does not declare the
// extension, and a turn waits for the result.
func TestClaudeInATerminalTakesADelegationAsATaskOfTheProtocol(t *testing.T) {
	w := realagent.New(t, "claude")
	w.Env = append(w.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"), "TERM=xterm-256color")
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".bgagent.jsonc"), []byte(`{"agents": {"wait": {"kind": "inproc"}}}`), 0o644))
	addToClaude(t, w)
	w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if r.Kind == modelserver.Main && r.Turn() == 0 && strings.HasPrefix(r.LastUser(), hostWord) {
			return modelserver.Use("mcp__bgagent__delegate_task", `{"subagent_type":"wait","prompt":"2 s","run_in_background":false}`)
		}
		return modelserver.Say("fine")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := w.Command(ctx, "script", "-qec", w.Claude()[0]+" --allowedTools=mcp__bgagent "+hostWord, os.DevNull)
	keys, err := cmd.StdinPipe() // without this pipe, Claude Code's input would end, and Claude Code would exit
	require.NoError(t, err)
	defer keys.Close()
	var screen bytes.Buffer
	cmd.Stdout = &screen
	require.NoError(t, cmd.Start())
	err = w.Model.WaitFor(ctx, func(all []modelserver.Request) bool {
		return slices.ContainsFunc(all, func(r modelserver.Request) bool { return strings.Contains(string(r.Body), "I have waited for 2s") })
	})
	cancel()
	_ = cmd.Wait() // the error only reports that the program was killed
	if err != nil {
		logHost(t, w)
	}
	require.NoError(t, err, screen.String())
	require.True(t, slices.ContainsFunc(w.Model.Requests(), func(r modelserver.Request) bool {
		return strings.Contains(strings.Join(resultsOf(r), ""), "started server-side task bg_")
	}), "the call was answered with a handle")
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
