package realagent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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

// The function "run" runs a program, waits for it to exit and returns its output.
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

// The function "lines" decodes JSON lines and skips other lines.
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

// The function "turns" returns the requests that are an agent's turns.
func turns(w *realagent.World) []modelserver.Request {
	return slices.DeleteFunc(w.Model.Requests(), func(r modelserver.Request) bool { return r.Kind != modelserver.Main })
}

// The function "ask" sends a request to an opencode server and returns the response body.
func ask(ctx context.Context, s *realagent.OpencodeServer, path string, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if s.Password != "" {
		req.SetBasicAuth("opencode", s.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return text, err
}

func post(t *testing.T, s *realagent.OpencodeServer, path string, body, answer any) {
	t.Helper()
	text, err := ask(t.Context(), s, path, body)
	require.NoError(t, err)
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

func promptBody(agent, text string) any {
	body := map[string]any{"parts": []any{map[string]any{"type": "text", "text": text}}}
	if agent != "" {
		body["agent"] = agent
	}
	return body
}

func prompt(t *testing.T, s *realagent.OpencodeServer, session, text string) opencodeAnswer {
	t.Helper()
	return promptAgent(t, s, session, "", text)
}

func promptAgent(t *testing.T, s *realagent.OpencodeServer, session, agent, text string) opencodeAnswer {
	t.Helper()
	var answer opencodeAnswer
	post(t, s, "/session/"+session+"/message", promptBody(agent, text), &answer)
	return answer
}

func newSession(t *testing.T, s *realagent.OpencodeServer, body map[string]any) string {
	t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	var session struct{ ID string }
	post(t, s, "/session", body, &session)
	return session.ID
}

// All subtests share one server, because a server takes seconds to start.
func TestOpencodeRunsOffline(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := w.ServeOpencodeWith(t, realagent.OpencodeOptions{Password: "secret"})
	of := func(session string) []modelserver.Request {
		return slices.DeleteFunc(turns(w), func(r modelserver.Request) bool { return r.Session != session })
	}

	t.Run("it plays a script with a tool", func(t *testing.T) {
		session := newSession(t, s, nil)
		answer := prompt(t, s, session, "@tool bash {\"command\":\"echo made-$((40+2))\",\"description\":\"counts\"}\n@say it was ${re:made-(\\d+)}")
		require.Equal(t, "it was 42", answer.text())
		require.Equal(t, "stop", answer.Info.Finish)
		got := of(session)
		require.Len(t, got, 2)
		for _, r := range got {
			require.Equal(t, modelserver.Chat, r.Protocol)
			require.Equal(t, "scripted", r.Model)
			require.True(t, r.Offers("bash"))
		}
		require.Contains(t, got[1].LastResults()[0].Text, "made-42")
		require.NoError(t, w.Model.WaitFor(t.Context(), func(all []modelserver.Request) bool {
			return slices.ContainsFunc(all, func(r modelserver.Request) bool { return r.Kind == modelserver.Title && r.Session == session })
		}))
	})

	t.Run("a child names its parent and has its agent's prompt", func(t *testing.T) {
		parent := newSession(t, s, nil)
		child := newSession(t, s, map[string]any{"parentID": parent})
		require.Equal(t, "found", promptAgent(t, s, child, "explore", "@say found").text())
		got := of(child)
		require.Len(t, got, 1)
		require.Equal(t, parent, got[0].Parent)
		require.Contains(t, got[0].System, "You are an explorer.")
	})

	t.Run("it waits as long as a rate limit says", func(t *testing.T) {
		session := newSession(t, s, nil)
		require.Equal(t, "fine", prompt(t, s, session, "@error 429 times=1 retry-after=1 slow down\n@say fine").text())
		got := of(session)
		require.Len(t, got, 2)
		require.Equal(t, 2, got[1].Attempt)
		require.GreaterOrEqual(t, got[1].Arrived.Sub(got[0].Arrived), time.Second)
	})

	t.Run("it shows what the model refuses", func(t *testing.T) {
		answer := prompt(t, s, newSession(t, s, nil), "@error 400 not with me")
		require.Contains(t, string(answer.Info.Error), "not with me")
	})

	t.Run("it is killed in a turn and started again", func(t *testing.T) {
		session := newSession(t, s, nil)
		over := make(chan error, 1)
		go func() {
			_, err := ask(t.Context(), s, "/session/"+session+"/message", promptBody("", "@tool bash {\"command\":\"sleep 1000\",\"description\":\"waits\"}"))
			over <- err
		}()
		for !slices.ContainsFunc(w.Processes(), func(p string) bool { return strings.Contains(p, "sleep 1000") }) {
			time.Sleep(20 * time.Millisecond) // nothing signals that a process has started, so the test polls
		}
		s.Kill()
		require.Error(t, <-over)
		require.Empty(t, w.Processes(), "the processes of its tools are gone too")
		s.Restart()
		require.Equal(t, "still here", prompt(t, s, session, "@say still here").text())
	})
	require.Empty(t, w.Model.Unknown())
}

func TestCodexRunsOffline(t *testing.T) {
	w := realagent.New(t, "codex")
	out := run(t, w, w.Codex("exec", "--json", "--skip-git-repo-check",
		"@error 500 times=1 not now\n@tool exec_command {\"cmd\":\"echo made-$((40+2))\"}\n@say it was ${re:made-(\\d+)}"))
	var texts []string
	for _, line := range lines(out) {
		if item, ok := line["item"].(map[string]any); ok && line["type"] == "item.completed" && item["type"] == "agent_message" {
			texts = append(texts, item["text"].(string))
		}
	}
	require.Equal(t, []string{"it was 42"}, texts, out)
	got := turns(w)
	require.Len(t, got, 3, "one request is a repetition")
	require.Equal(t, modelserver.Responses, got[0].Protocol)
	require.Equal(t, lines(out)[0]["thread_id"], got[0].Session)
	require.Empty(t, w.Model.Unknown())
}

func TestGeminiRunsOffline(t *testing.T) {
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

func TestClaudeRunsOffline(t *testing.T) {
	w := realagent.New(t, "claude")
	out := run(t, w, w.Claude("-p", "--output-format", "stream-json", "--verbose", "--allowedTools=Bash", "--",
		"@error 500 times=1 not now\n@tool Bash {\"command\":\"echo made-$((40+2))\",\"description\":\"counts\"}\n@say it was ${re:made-(\\d+)}"))
	all := lines(out)
	last := all[len(all)-1]
	require.Equal(t, "result", last["type"], out)
	require.Equal(t, "it was 42", last["result"], out)
	got := turns(w)
	require.Len(t, got, 3, "one is a repetition")
	require.Equal(t, modelserver.Messages, got[0].Protocol)
	require.Equal(t, realagent.ClaudeModel, got[0].Model)
	require.Equal(t, last["session_id"], got[0].Session)
	require.True(t, got[0].Offers("Bash"))
	require.Empty(t, w.Model.Unknown())
}
