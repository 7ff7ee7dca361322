package dashboard_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// The function "asking" returns a manager whose task asks the question. It also returns the id of
// the task, and the question as the manager reports it.
func asking(t *testing.T, q bgagent.Question) (*bgagent.BackgroundManager, string, bgagent.Question) {
	t.Helper()
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"ask": func(ctx context.Context, turn *inproc.Turn) (string, error) { return turn.Ask(ctx, q) },
	}), bgagent.Config{Ask: true, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	id := launch(t, m, "s", "ask", "x").ID
	var asked bgagent.Question
	require.Eventually(t, func() bool {
		task, err := m.Get(id)
		require.NoError(t, err)
		if len(task.Questions) > 0 {
			asked = task.Questions[0]
		}
		return asked.Key != ""
	}, time.Minute, time.Millisecond)
	return m, id, asked
}

var (
	permission = bgagent.Question{Kind: bgagent.QuestionPermission, Title: "May I?", Subject: "rm \u202eelif\x1b[2J " + hostile, Options: []string{"allow", "deny"}}
	choice     = bgagent.Question{Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main", "next"}}
)

func TestThePageAnswersOnlyWhatTheHostAllows(t *testing.T) {
	for name, c := range map[string]struct {
		q    bgagent.Question
		cfg  dashboard.Config
		code int
	}{
		"nothing is allowed":          {choice, dashboard.Config{AllowCancel: true, AllowResume: true}, http.StatusForbidden},
		"a choice":                    {choice, dashboard.Config{AllowAnswer: true}, http.StatusOK},
		"a permission":                {permission, dashboard.Config{AllowPermit: true}, http.StatusOK},
		"a permission, only choices":  {permission, dashboard.Config{AllowAnswer: true}, http.StatusForbidden},
		"a choice, only permissions":  {choice, dashboard.Config{AllowPermit: true}, http.StatusForbidden},
		"a choice, where all is open": {choice, dashboard.Config{AllowAnswer: true, AllowPermit: true}, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			m, id, q := asking(t, c.q)
			h := dashboard.New(m, c.cfg)
			body, err := json.Marshal(map[string]string{"id": id, "key": q.Key, "option": q.Options[1]})
			require.NoError(t, err)
			w := post(h, "/answer", string(body))
			require.Equal(t, c.code, w.Code, w.Body)
			if c.code == http.StatusOK {
				require.Equal(t, q.Options[1], ended(t, m, id).Result)
				return
			}
			task, err := m.Get(id)
			require.NoError(t, err)
			require.Len(t, task.Questions, 1)
		})
	}
}

func TestAnAnswerThatIsWrongOrForgedIsRefused(t *testing.T) {
	m, id, q := asking(t, choice)
	h := dashboard.New(m, dashboard.Config{AllowAnswer: true, AllowPermit: true})
	good := `{"id":"` + id + `","key":"` + q.Key + `","option":"next"}`
	for name, c := range map[string]struct {
		body   string
		header []string
		code   int
		says   string
	}{
		"an option that is not offered": {`{"id":"` + id + `","key":"` + q.Key + `","option":"always"}`, nil, http.StatusBadRequest, "it must be one of: main, next"},
		"an unknown key":                {`{"id":"` + id + `","key":"q1.other","option":"next"}`, nil, http.StatusNotFound, "does not ask this question"},
		"no key":                        {`{"id":"` + id + `","option":"next"}`, nil, http.StatusNotFound, "does not ask this question"},
		"an unknown task":               {`{"id":"bg_none","key":"` + q.Key + `","option":"next"}`, nil, http.StatusNotFound, ""},
		"a further field":               {`{"id":"` + id + `","key":"` + q.Key + `","option":"next","by":"host"}`, nil, http.StatusBadRequest, "unknown field"},
		"another site":                  {good, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden, "another site"},
		"another origin":                {good, []string{"Sec-Fetch-Site", "", "Origin", "https://evil.example"}, http.StatusForbidden, "another site"},
		"a form":                        {good, []string{"Content-Type", "text/plain"}, http.StatusUnsupportedMediaType, "JSON"},
		"without the header":            {good, []string{"X-Bgagent-Dashboard", ""}, http.StatusForbidden, "is missing"},
	} {
		w := post(h, "/answer", c.body, c.header...)
		require.Equal(t, c.code, w.Code, "%s: %s", name, w.Body)
		require.Contains(t, w.Body.String(), c.says, name)
	}
	require.Equal(t, http.StatusMethodNotAllowed, get(h, "/answer").Code)
	require.Equal(t, http.StatusOK, post(h, "/answer", good).Code)
	require.Equal(t, "next", ended(t, m, id).Result)
	require.Equal(t, http.StatusNotFound, post(h, "/answer", good).Code, "the question is over")
}

func TestWhatAPersonDecidesAboutIsShownInItsOrder(t *testing.T) {
	m, id, q := asking(t, permission)
	var task struct {
		Questions []struct{ Key, Kind, Subject, Expires string }
	}
	w := get(dashboard.New(m, dashboard.Config{}), "/task?id="+id)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &task))
	require.Len(t, task.Questions, 1)
	require.Equal(t, q.Key, task.Questions[0].Key)
	require.Equal(t, "permission", task.Questions[0].Kind)
	require.Equal(t, "rm elif "+hostile, task.Questions[0].Subject)
	require.NotEmpty(t, task.Questions[0].Expires)
}
