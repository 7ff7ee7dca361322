//go:build unix

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/stretchr/testify/require"
)

// Granting permission on the page requires its password, even on loopback. Everybody who is allowed to act on
// the page can answer other questions.
func TestAPermissionTakesThePasswordOfThePage(t *testing.T) {
	const password = "a password of the page"
	for name, c := range map[string]struct {
		kind  bgagent.QuestionKind
		flags pageFlags
		sent  string // password
		code  int
	}{
		"a choice without a password":              {bgagent.QuestionChoice, pageFlags{PageActs: true}, "", http.StatusOK},
		"a permission without a password":          {bgagent.QuestionPermission, pageFlags{PageActs: true}, "", http.StatusForbidden},
		"a permission with the password":           {bgagent.QuestionPermission, pageFlags{PageActs: true, Page: "PAGE_PASSWORD"}, password, http.StatusOK},
		"a permission with a wrong password":       {bgagent.QuestionPermission, pageFlags{PageActs: true, Page: "PAGE_PASSWORD"}, "another", http.StatusUnauthorized},
		"a permission on a page that only shows":   {bgagent.QuestionPermission, pageFlags{Page: "PAGE_PASSWORD"}, password, http.StatusForbidden},
		"a choice on a page that only shows tasks": {bgagent.QuestionChoice, pageFlags{}, "", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PAGE_PASSWORD", password)
			q := bgagent.Question{Kind: c.kind, Title: "May I?", Options: []string{"allow", "deny"}}
			m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": asker(q)}), bgagent.Config{Ask: true, Wake: bgagent.WakeNever})
			require.NoError(t, err)
			defer m.Close(context.Background())
			task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "a", Prompt: "x"})
			require.NoError(t, err)
			q = untilAsked(t, m, task.ID)
			_, page, err := c.flags.page(t.Context(), &serving{manager: m}, false, &secrets{})
			require.NoError(t, err)
			body, err := json.Marshal(map[string]string{"id": task.ID, "key": q.Key, "option": "allow"})
			require.NoError(t, err)
			server := httptest.NewServer(page)
			defer server.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/answer", strings.NewReader(string(body)))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Bgagent-Dashboard", "1")
			if c.sent != "" {
				r.SetBasicAuth("anybody", c.sent)
			}
			answer, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			require.Equal(t, c.code, answer.StatusCode)
			now, err := m.Get(task.ID)
			require.NoError(t, err)
			require.Equal(t, c.code == http.StatusOK, len(now.Questions) == 0)
		})
	}
}
