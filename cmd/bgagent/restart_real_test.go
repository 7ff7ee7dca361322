//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

// The type "gated" is a model that holds back its answers until the test releases them. A conversation's
// key has the form AGENT-ANSWER, and the second part of the key selects the answer.
type gated struct {
	t    *testing.T
	w    *realagent.World
	free chan struct{} // closed when the answers are released

	mu   sync.Mutex
	said map[string]bool // keys of the conversations in which the model has sent the beginning of a text
}

func isMain(r modelserver.Request) bool { return r.Kind == modelserver.Main }

// file returns the path of a file that a conversation's command uses.
func (h *gated) file(key, name string) string { return filepath.Join(h.w.Dir, key+"."+name) }

func (h *gated) reply(r modelserver.Request) modelserver.Reply {
	agent, what, _ := strings.Cut(r.Key, "-")
	switch {
	case !isMain(r):
		return r.Scripted()
	case strings.Contains(r.LastUser(), "The request was:"):
		return modelserver.Say("continued " + r.Key)
	case what == "text":
		return modelserver.Reply{Pieces: func(yield func(string) bool) {
			if !yield("the an") {
				return
			}
			h.mu.Lock()
			h.said[r.Key] = true
			h.mu.Unlock()
			select {
			case <-h.free:
				yield("swer of " + r.Key)
			case <-r.Context().Done():
			}
		}}
	case what == "command" && len(r.LastResults()) == 0:
		args, err := json.Marshal(map[string]string{
			// Claude Code refuses a command that begins with sleep, so env runs sleep.
			"command": fmt.Sprintf("echo run >>%s; while [ ! -e %s ]; do env sleep 0.1; done", h.file(r.Key, "runs"), h.file(r.Key, "go")), "description": "waits",
		})
		if err != nil {
			panic(err)
		}
		return modelserver.Use(map[string]string{"claude": "Bash", "server": "bash"}[agent], string(args))
	}
	return modelserver.Say("the answer of " + r.Key)
}

// The method "asked" returns the requests of the conversation.
func (h *gated) asked(key string) (list []modelserver.Request) {
	for _, r := range h.w.Model.Requests() {
		if isMain(r) && r.Key == key {
			list = append(list, r)
		}
	}
	return list
}

// The method "begun" reports whether the model has sent the beginning of its text or the command is running.
func (h *gated) begun(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := os.Stat(h.file(key, "runs"))
	return h.said[key] || err == nil
}

// The method "until" waits until the condition is true.
func (h *gated) until(what string, ok func() bool) {
	h.t.Helper()
	require.Eventually(h.t, ok, 5*time.Minute, 200*time.Millisecond, what)
}

// savedWith reports whether any store contains the text in the saved state of a task that has not ended.
func (p *place) savedWith(text string) bool {
	return slices.ContainsFunc(p.saved(), func(state string) bool { return strings.Contains(state, text) })
}

// All tasks of a killed server complete with the right answers: the ended task, the tasks in the middle of an
// answer or of a command, and the waiting task. The turns of Claude Code are interrupted when the server is
// killed. The turns on the opencode server continue.
func TestAKilledServeGoesOnWithItsWorkOnRealPrograms(t *testing.T) {
	w := realagent.New(t, "opencode", "claude")
	h := &gated{t: t, w: w, free: make(chan struct{}), said: map[string]bool{}}
	w.Model.Handle(h.reply)
	server := w.ServeOpencode(t)
	config, err := json.Marshal(map[string]any{"agents": map[string]any{
		"claude": map[string]any{"kind": "command", "preset": "claude", "command": w.Claude(), "env": w.Env, "directory": w.Dir, "permissions": map[string]string{"*": "allow"}},
		"server": map[string]any{"kind": "opencode", "url": server.URL, "agent": "worker", "model": realagent.OpencodeModel, "directory": w.Dir},
	}, "background_task": map[string]any{"totalConcurrency": 4, "createTimeoutMs": 240_000}})
	require.NoError(t, err)
	p := newPlace(t)
	p.write(".bgagent.jsonc", string(config))
	t.Cleanup(func() { p.run("cleanup", "--yes") })
	url, cmd := startServe(t, p)
	cs, ids := dialServe(t, url), map[string]string{}
	launch := func(key string) {
		agent, _, _ := strings.Cut(key, "-")
		text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": agent, "prompt": prompt(key)})
		ids[key] = idIn.FindStringSubmatch(text)[1]
	}
	ended := func() (n int) {
		for _, k := range p.kept() {
			if k.Task.Status.Terminal() {
				n++
			}
		}
		return n
	}
	launch("claude-quick")
	h.until("the first task ends", func() bool { return ended() == 1 })
	running := []string{"claude-text", "claude-command", "server-text", "server-command"}
	for _, key := range append(running, "claude-waits") {
		launch(key)
	}
	for _, key := range running {
		h.until(key+" begins", func() bool { return h.begun(key) })
	}
	h.until("the store has Claude Code's call", func() bool { return p.savedWith(`"called":true`) })
	h.until("Claude Code stores its prompt", func() bool { return w.HasStored("@key claude-command") })
	require.Empty(t, h.asked("claude-waits"))
	kill(t, cmd)

	url, _ = startServe(t, p)
	close(h.free)
	require.NoError(t, os.WriteFile(h.file("server-command", "go"), nil, 0o644))
	h.until("all tasks end", func() bool { return ended() == len(ids) })
	all := p.kept()
	require.Len(t, all, len(ids), "no task was lost or duplicated")
	cs = dialServe(t, url)
	for key, id := range ids {
		got := all[id].Task
		require.Equal(t, bgagent.Completed, got.Status, "%s: %s", key, got.Reason)
		attempt, requests := 1, 1
		switch key {
		case "claude-command": // a new attempt continues the task, and does not run the command again
			attempt, requests = 2, 2
		case "claude-text": // Claude Code gets the prompt again if it had not stored the prompt
			attempt, requests = got.Attempt, len(h.asked(key))
			require.LessOrEqual(t, attempt, 2)
			require.LessOrEqual(t, requests, 2)
		case "server-command":
			requests = 2 // one request before the command, and one after it
		}
		require.Equal(t, attempt, got.Attempt, key)
		require.Len(t, h.asked(key), requests, key)
		answer := "the answer of " + key
		if attempt == 2 {
			answer = "continued " + key
		}
		require.Contains(t, callTool(t, cs, "background_output", map[string]any{"task_id": id}), answer)
		last, text := h.asked(key)[requests-1], ""
		for _, m := range last.Messages {
			text += m.Text + "\n"
		}
		require.Equal(t, attempt, strings.Count(text, prompt(key)), "%s: a prompt that continues a turn repeats the request: %s", key, text)
		if strings.HasSuffix(key, "command") {
			runs, err := os.ReadFile(h.file(key, "runs"))
			require.NoError(t, err)
			require.Equal(t, "run\n", string(runs), key)
		}
	}
}

// prompt returns the prompt of the task with the key.
func prompt(key string) string { return "@key " + key + "\nDo it." }
