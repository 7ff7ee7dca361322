package modelserver_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/modelserver"
)

func newServer(t *testing.T, h modelserver.Handler) *modelserver.Server {
	s := modelserver.New(h)
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, s *modelserver.Server, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(b)
}

// events decodes the data lines of a stream.
func events(t *testing.T, body string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for sc := bufio.NewScanner(strings.NewReader(body)); sc.Scan(); {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(data), &m), data)
		all = append(all, m)
	}
	return all
}

func TestAScriptIsPlayedOverChatCompletions(t *testing.T) {
	s := newServer(t, nil)
	_, body := ask(t, s, "/v1/chat/completions", `{"model":"m","stream":true,"messages":[{"role":"user","content":"@say hello"}]}`)
	text := ""
	for _, e := range events(t, body) {
		for _, c := range e["choices"].([]any) {
			if piece, ok := c.(map[string]any)["delta"].(map[string]any)["content"]; ok {
				text += piece.(string)
			}
		}
	}
	require.Equal(t, "hello", text)
}
