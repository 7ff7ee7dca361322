package opencode_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault/recordings"
	"github.com/bgagent/bgagent/opencode"
)

// The method "refused" runs a turn that the provider refuses.
func (r *rig) refused(session string, p bgagent.Prompt) {
	r.t.Helper()
	require.NoError(r.t, r.c.StartTurn(r.t.Context(), session, p))
	seconds(5)
	require.Equal(r.t, bgagent.SessionIdle, r.state(session))
	messages := r.messages(session)
	require.NotNil(r.t, messages[len(messages)-1].Provider)
}

// The function "again" returns the prompt that continues the turn of an earlier prompt.
func again(id, earlier string) bgagent.Prompt {
	p := prompt(id, "say this must not be sent")
	p.Unanswered = earlier
	return p
}

func TestARefusedTurnNamesTheErrorOfTheProvider(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s := r.session("/work")
		began := time.Now()
		r.refused(s, prompt("p1", "limited 1 fine"))
		var statuses []*bgagent.ProviderError
		for _, e := range r.told(s, bgagent.HostStatus) {
			if e.Status.State == bgagent.SessionRetrying {
				require.WithinRange(t, e.Status.RetryAt, began.Add(time.Second), began.Add(2*time.Second))
				statuses = append(statuses, e.Status.Provider)
			}
		}
		next := bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Tries: 1, Next: bgagent.NextContinue, Message: limitText}
		require.Equal(t, []*bgagent.ProviderError{&next}, statuses)

		want := next
		want.Status, want.Tries = 429, 2
		told := []*bgagent.ProviderError{}
		for _, e := range r.told(s, bgagent.HostError) {
			require.Equal(t, bgagent.StopError, e.Stop)
			told = append(told, e.Provider)
		}
		for _, e := range r.told(s, bgagent.HostMessage) {
			if e.Message.Provider != nil {
				told = append(told, e.Message.Provider)
			}
		}
		messages := r.messages(s)
		told = append(told, messages[len(messages)-1].Provider)
		require.Len(t, told, 3, "in the error, in the event of the message, and in the message")
		for _, e := range told {
			require.WithinRange(t, e.RetryAt, began.Add(7*time.Second), began.Add(10*time.Second))
			got := *e
			got.RetryAt = time.Time{}
			require.Equal(t, want, got)
		}
	})
}

func TestTheServerContinuesARefusedTurnAndGetsThePromptOnce(t *testing.T) {
	for _, stream := range []bool{true, false} {
		bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
			s := r.session("/work")
			if !stream {
				r.f.do(func() { r.f.mute = true })
			}
			r.refused(s, prompt("p1", "limited 2 fine"))
			for range 2 { // the manager might repeat the call
				require.NoError(t, r.c.StartTurn(t.Context(), s, again("p2", "p1")))
			}
			seconds(5)
			require.NoError(t, r.c.StartTurn(t.Context(), s, again("p2", "p1")))
			require.NoError(t, r.c.StartTurn(t.Context(), s, again("p3", "p2"))) // the second refusal
			seconds(5)
			require.Equal(t, []string{"> limited 2 fine", "", "", "fine"}, r.texts(s))
			sent := r.f.sent()
			require.Len(t, sent, 3)
			for _, body := range sent[1:] {
				require.Equal(t, sent[0]["messageID"], body["messageID"])
				parts := body["parts"].([]any)
				require.Len(t, parts, 1)
				require.Equal(t, []any{"", true}, []any{parts[0].(map[string]any)["text"], parts[0].(map[string]any)["ignored"]})
			}
			require.Equal(t, "p3", r.messages(s)[0].PromptID)
			if stream {
				last := r.told(s, bgagent.HostMessage)
				require.Equal(t, "fine", last[len(last)-1].Message.Text)
				for _, e := range last {
					require.False(t, e.Message.Role == bgagent.RoleUser && e.Message.Text != "limited 2 fine", "the stream sends only the new part of the prompt")
				}
			}
		})
	}
}

func TestAnUnansweredPromptThatIsGoneOrAnsweredIsFollowedByText(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s := r.session("/work")
		require.NoError(t, r.c.StartTurn(t.Context(), s, again("p1", "never sent")))
		seconds(2)
		for range 2 {
			p := again("p2", "p1") // p1 already has an answer
			p.Text = "say go on"
			require.NoError(t, r.c.StartTurn(t.Context(), s, p))
			seconds(2)
		}
		require.Equal(t, []string{"> say this must not be sent", "this must not be sent", "> say go on", "go on"}, r.texts(s))
	})
}

func TestAContinuedTurnIsCountedAsOneWithItsPrompt(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s := r.session("/work")
		r.refused(s, prompt("p1", "limited 1 fine"))
		cursor := func() bgagent.Cursor {
			page, err := r.c.Messages(t.Context(), s, "", 1000)
			require.NoError(t, err)
			return page.Next
		}()
		require.NoError(t, r.c.StartTurn(t.Context(), s, again("p2", "p1")))
		seconds(2)
		page, err := r.c.Messages(t.Context(), s, cursor, 1000)
		require.NoError(t, err)
		var got []string
		for _, m := range page.Messages {
			got = append(got, m.PromptID+" "+m.Text)
		}
		require.Equal(t, []string{"p2 limited 1 fine", " fine"}, got)
	})
}

func TestANewProcessFindsTheContinuedTurn(t *testing.T) {
	for _, verb := range []string{"limited", "working"} { // the second turn has more messages than are read again
		bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
			s, err := r.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Directory: "/work", Title: "a task", Key: "a key"})
			require.NoError(t, err)
			r.refused(s, prompt("p1", verb+" 1 fine"))
			page, err := r.c.Messages(t.Context(), s, "", 1000)
			require.NoError(t, err)
			require.NoError(t, r.c.StartTurn(t.Context(), s, again("p2", "p1")))
			seconds(2)

			next := newClient(t, opencode.Config{HTTPClient: r.f.client()})
			for _, max := range []int{2, 1000} {
				page, err := next.Messages(t.Context(), s, page.Next, max)
				require.NoError(t, err)
				if max == 2 {
					require.Equal(t, "p2", page.Messages[0].PromptID)
					require.Equal(t, "fine", page.Messages[1].Text)
				}
			}
			require.NoError(t, next.StartTurn(t.Context(), s, again("p2", "p1")))
			require.Len(t, r.f.sent(), 2)
		})
	}
}

// A page can be lost on its way to the manager's state, so a second reading must return the same prompt.
func TestAContinuedPromptIsReturnedUntilACursorContainsIt(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s, err := r.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Directory: "/work", Title: "a task", Key: "a key"})
		require.NoError(t, err)
		r.refused(s, prompt("p1", "working 1 fine"))
		before, err := r.c.Messages(t.Context(), s, "", 1000)
		require.NoError(t, err)
		require.NoError(t, r.c.StartTurn(t.Context(), s, again("p2", "p1")))
		seconds(2)

		next := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		r.f.intercept(func(req *http.Request) *http.Response {
			if strings.Contains(req.URL.Path, "/message/") {
				return answer(http.StatusInternalServerError, "")
			}
			return nil
		})
		_, err = next.Messages(t.Context(), s, before.Next, 1000)
		require.Error(t, err, "the message of the prompt cannot be read")
		r.f.intercept(nil)
		var page bgagent.Page
		for _, c := range []*opencode.Client{next, next, r.c} {
			for _, most := range []int{1, 1000} {
				page, err = c.Messages(t.Context(), s, before.Next, most)
				require.NoError(t, err)
				require.Equal(t, "p2", page.Messages[0].PromptID)
				require.Equal(t, most == 1, page.More)
			}
		}
		page, err = next.Messages(t.Context(), s, page.Next, 1000)
		require.NoError(t, err)
		require.Empty(t, page.Messages)
	})
}

// Without the stream, the client does not see that the server made another request. Therefore, if an error is
// of a kind that the server never retries, the client assumes that the request was tried only once.
func TestWithoutTheStreamTheFirstTryOfALaterRequestIsTheFirst(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s := r.session("/work")
		c := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		require.NoError(t, c.StartTurn(t.Context(), s, prompt("p1", "delayed 3600 fine")))
		seconds(2)
		got, err := c.Statuses(t.Context(), []string{s})
		require.NoError(t, err)
		require.Equal(t, bgagent.SessionRetrying, got[s].State)
		for retryable, tries := range map[string]int{"false": 1, "true": 2} {
			r.serves(s, `[{"info":{"id":"msg_1","role":"assistant","time":{"created":1},"error":{"name":"APIError","data":{"message":"no","statusCode":401,"isRetryable":`+retryable+`}}},"parts":[]}]`)
			page, err := c.Messages(t.Context(), s, "", 10)
			require.NoError(t, err)
			require.Equal(t, tries, page.Messages[0].Provider.Tries, retryable)
		}
	})
}

func TestAnUnansweredPromptIsNotLookedForWithoutEnd(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s := r.session("/work")
		pages := 0
		r.f.intercept(func(req *http.Request) *http.Response {
			if req.URL.Path != "/session/"+s+"/message" {
				return nil
			}
			pages++
			var list []string
			for i := range 100 {
				list = append(list, fmt.Sprintf(`{"info":{"id":"msg_%d_%d","role":"assistant"}}`, pages, i))
			}
			out := answer(http.StatusOK, "["+strings.Join(list, ",")+"]")
			out.Header.Set("X-Next-Cursor", strconv.Itoa(pages))
			return out
		})
		p := again("p2", "p1")
		p.Text = "say go on"
		require.NoError(t, r.c.StartTurn(t.Context(), s, p))
		require.Less(t, pages, 250)
		require.Equal(t, "say go on", r.f.sent()[0]["parts"].([]any)[0].(map[string]any)["text"])
	})
}

func TestATurnThatIsAbortedBeforeARetryLeavesNoError(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		s := r.session("/work")
		require.NoError(t, r.c.StartTurn(t.Context(), s, prompt("p1", "delayed 3600 fine")))
		seconds(2)
		got, err := r.c.Statuses(t.Context(), []string{s})
		require.NoError(t, err)
		require.Equal(t, got[s].RetryAt, got[s].Provider.RetryAt, "only the provider can have told such a time")
		require.NoError(t, r.c.Abort(t.Context(), s))
		seconds(2)
		messages := r.messages(s)
		last := messages[len(messages)-1]
		require.True(t, last.Finished)
		require.Equal(t, bgagent.StopAborted, last.Stop)
		require.Nil(t, last.Provider)

		require.NoError(t, r.c.StartTurn(t.Context(), s, again("p2", "p1")))
		seconds(3700)
		require.Equal(t, []string{"> delayed 3600 fine", "", "fine"}, r.texts(s))
	})
}

// The key is reported as rejected only if the provider's message clearly says so. Otherwise, the manager
// would end the task although the server retries the request.
func TestAServerThatRepeatsARequestDoesNotEndTheTask(t *testing.T) {
	for message, kind := range map[string]bgagent.ProviderErrorKind{
		"Invalid API key":                      bgagent.ProviderBroken,
		"the gateway answered HTTP 403":        bgagent.ProviderBroken,
		`{"error":{"code":"invalid_api_key"}}`: bgagent.ProviderAuthentication,
		"Too Many Requests":                    bgagent.ProviderRateLimited,
	} {
		line, err := json.Marshal(map[string]any{"type": "retry", "attempt": 1, "message": message})
		require.NoError(t, err)
		got := opencode.ProviderErrorIn(line, time.Now())
		require.Equal(t, kind, got.Kind, message)
		require.Equal(t, kind == bgagent.ProviderAuthentication, got.Scope == bgagent.ScopeProvider, message)
	}
}

// TestRecordedErrors checks lines that a real server sent while its provider refused requests.
func TestRecordedErrors(t *testing.T) {
	raw, err := os.ReadFile("testdata/faults.jsonl")
	require.NoError(t, err)
	for line := range strings.Lines(string(raw)) {
		var x struct {
			Case   string
			Line   json.RawMessage
			Want   string
			Status int
			Tries  int
			Retry  string
			Scope  string
		}
		require.NoError(t, json.Unmarshal([]byte(line), &x), line)
		t.Run(x.Case, func(t *testing.T) {
			got := opencode.ProviderErrorIn(x.Line, time.Date(2026, 11, 28, 21, 50, 0, 0, time.UTC))
			kind, known := recordings.Kind("opencode", strings.TrimPrefix(x.Case, "retry "))
			require.True(t, known, "the recording needs a row in the package recordings")
			if x.Want == "" {
				require.Nil(t, got)
				lost := strings.HasPrefix(x.Case, "retry ") && kind == bgagent.ProviderBroken
				require.True(t, kind == 0 || lost, "only a retry after a lost connection names no provider")
				return
			}
			require.NotNil(t, got)
			require.Equal(t, x.Want, got.Kind.String())
			require.Equal(t, kind, got.Kind)
			require.Equal(t, x.Status, got.Status)
			require.Equal(t, x.Tries, got.Tries)
			require.Equal(t, x.Scope == "provider", got.Scope == bgagent.ScopeProvider)
			require.Equal(t, bgagent.NextContinue, got.Next)
			require.NotEmpty(t, got.Message)
			retry := ""
			if !got.RetryAt.IsZero() {
				retry = got.RetryAt.UTC().Format(time.RFC3339)
			}
			require.Equal(t, x.Retry, retry)
		})
	}
}
