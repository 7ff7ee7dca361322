package realagent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
)

// run runs a program to its end and returns what it printed.
func run(t *testing.T, w *realagent.World, argv []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := w.Command(ctx, argv...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "stdout: %s\nstderr: %s", &stdout, &stderr)
	return stdout.String()
}

// lines decodes JSON lines and leaves out others.
func lines(out string) []map[string]any {
	var all []map[string]any
	for line := range strings.Lines(out) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil {
			all = append(all, m)
		}
	}
	return all
}

// turns returns the requests that are an agent's own turns.
func turns(w *realagent.World) []modelserver.Request {
	return slices.DeleteFunc(w.Model.Requests(), func(r modelserver.Request) bool { return r.Kind != modelserver.Main })
}

// post asks an opencode server.
func post(t *testing.T, s *realagent.OpencodeServer, path string, body, answer any) {
	t.Helper()
	b, err := json.Marshal(body)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, bytes.NewReader(b))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	if s.Password != "" {
		req.SetBasicAuth("opencode", s.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
	require.NoError(t, json.Unmarshal(text, answer), "%s", text)
}

type opencodeAnswer struct {
	Info struct {
		Error  json.RawMessage
		Finish string
	}
	Parts []struct{ Type, Text string }
}

func (a opencodeAnswer) text() string {
	text := ""
	for _, p := range a.Parts {
		if p.Type == "text" {
			text += p.Text
		}
	}
	return text
}

func prompt(t *testing.T, s *realagent.OpencodeServer, session, text string) opencodeAnswer {
	t.Helper()
	var answer opencodeAnswer
	post(t, s, "/session/"+session+"/message", map[string]any{"parts": []any{map[string]any{"type": "text", "text": text}}}, &answer)
	return answer
}

func newSession(t *testing.T, s *realagent.OpencodeServer) string {
	t.Helper()
	var session struct{ ID string }
	post(t, s, "/session", map[string]any{}, &session)
	return session.ID
}

func TestOpencodePlaysAScriptWithATool(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := w.ServeOpencodeWith(t, realagent.OpencodeOptions{Password: "secret"})
	session := newSession(t, s)
	answer := prompt(t, s, session, "@tool bash {\"command\":\"echo made-$((40+2))\",\"description\":\"counts\"}\n@say it was ${re:made-(\\d+)}")
	require.Equal(t, "it was 42", answer.text())
	require.Equal(t, "stop", answer.Info.Finish)

	got := turns(w)
	require.Len(t, got, 2)
	for _, r := range got {
		require.Equal(t, modelserver.Chat, r.Protocol)
		require.Equal(t, "scripted", r.Model)
		require.Equal(t, session, r.Session)
		require.True(t, r.Offers("bash"))
	}
	require.Contains(t, got[1].LastResults()[0].Text, "made-42")
	require.Empty(t, w.Model.Unknown())
}

func TestCodexPlaysAScriptWithATool(t *testing.T) {
	w := realagent.New(t, "codex")
	out := run(t, w, w.Codex("exec", "--json", "--skip-git-repo-check",
		"@tool exec_command {\"cmd\":\"echo made-$((40+2))\"}\n@say it was ${re:made-(\\d+)}"))
	var texts []string
	for _, line := range lines(out) {
		if item, ok := line["item"].(map[string]any); ok && line["type"] == "item.completed" && item["type"] == "agent_message" {
			texts = append(texts, item["text"].(string))
		}
	}
	require.Equal(t, []string{"it was 42"}, texts, out)
	got := turns(w)
	require.Len(t, got, 2)
	require.Equal(t, modelserver.Responses, got[0].Protocol)
	require.Equal(t, lines(out)[0]["thread_id"], got[0].Session)
	require.Empty(t, w.Model.Unknown())
}

func TestGeminiPlaysAScriptWithATool(t *testing.T) {
	w := realagent.New(t, "gemini")
	out := run(t, w, w.Gemini("--yolo", "--output-format", "stream-json", "-p",
		"@tool run_shell_command {\"command\":\"expr 40 + 2 | sed s/^/made-/\"}\n@say it was ${re:made-(\\d+)}"))
	text := ""
	for _, line := range lines(out) {
		if line["type"] == "message" && line["role"] == "assistant" {
			text += line["content"].(string)
		}
	}
	require.Equal(t, "it was 42", text, out)
	got := turns(w)
	require.Len(t, got, 2)
	require.Equal(t, modelserver.Gemini, got[0].Protocol)
	require.Empty(t, w.Model.Unknown())
}
