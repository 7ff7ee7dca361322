package modelserver_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

// errorBody has the fields of errors in all protocols.
type errorBody struct {
	Error struct {
		Type, Status string
		Code         any
		Message      string
		ResetsAt     int64 `json:"resets_at"`
		Details      []struct {
			Type       string `json:"@type"`
			Reason     string
			RetryDelay string
		}
	}
}

func TestEveryReasonHasTheFormOfItsProtocol(t *testing.T) {
	for script, want := range map[string]map[ms.Protocol]string{ // the type or the status of the error, and its code
		"@error 429 slow":                          {ms.Chat: "rate_limit_error rate_limit_exceeded", ms.Messages: "rate_limit_error", ms.Gemini: "RESOURCE_EXHAUSTED"},
		"@error 500 oops":                          {ms.Chat: "server_error", ms.Messages: "api_error", ms.Gemini: "INTERNAL"},
		"@error 503 oops":                          {ms.Chat: "server_error", ms.Messages: "api_error", ms.Gemini: "UNAVAILABLE"},
		"@error 529 busy":                          {ms.Chat: "overloaded_error", ms.Messages: "overloaded_error", ms.Gemini: "UNAVAILABLE"},
		"@error 401 no":                            {ms.Chat: "invalid_request_error invalid_api_key", ms.Messages: "authentication_error", ms.Gemini: "UNAUTHENTICATED"},
		"@error 403 no":                            {ms.Chat: "invalid_request_error", ms.Messages: "permission_error", ms.Gemini: "PERMISSION_DENIED"},
		"@error 503 reason=overload":               {ms.Chat: "service_unavailable_error server_is_overloaded", ms.Messages: "overloaded_error", ms.Gemini: "UNAVAILABLE"},
		"@error 429 reason=quota":                  {ms.Chat: "insufficient_quota insufficient_quota", ms.Messages: "invalid_request_error", ms.Gemini: "RESOURCE_EXHAUSTED"},
		"@error 400 reason=too-long":               {ms.Chat: "invalid_request_error context_length_exceeded", ms.Messages: "invalid_request_error", ms.Gemini: "INVALID_ARGUMENT"},
		"@error 400 reason=key":                    {ms.Chat: "invalid_request_error invalid_api_key", ms.Messages: "authentication_error", ms.Gemini: "INVALID_ARGUMENT"},
		"@error 404 reason=model":                  {ms.Chat: "invalid_request_error model_not_found", ms.Messages: "not_found_error", ms.Gemini: "NOT_FOUND"},
		"@error 429 reason=usage-limit reset=5400": {ms.Chat: "usage_limit_reached", ms.Messages: "rate_limit_error", ms.Gemini: "RESOURCE_EXHAUSTED"},
	} {
		for _, w := range wires {
			t.Run(script+"/"+string(w.name), func(t *testing.T) {
				_, body := ask(t, newServer(t, nil), w.path(true), w.encode("", true, user(script), nil))
				e := parse[errorBody]([]byte(body)).Error
				got := e.Status
				if w.name != ms.Gemini {
					got = e.Type
				}
				if code, ok := e.Code.(string); ok {
					got += " " + code
				}
				name := w.name
				if name == ms.Responses {
					name = ms.Chat
				}
				require.Equal(t, want[name], got)
				require.NotEmpty(t, e.Message)
			})
		}
	}
}

func TestAUsageLimitSaysWhenItIsReset(t *testing.T) {
	headers := map[ms.Protocol]string{ms.Chat: "X-Codex-Primary-Reset-At", ms.Responses: "X-Codex-Primary-Reset-At", ms.Messages: "Anthropic-Ratelimit-Unified-Reset"}
	for _, w := range wires {
		at := time.Now().Add(5400 * time.Second)
		resp, body := ask(t, newServer(t, nil), w.path(true), w.encode("", true, user("@error 429 reason=usage-limit reset=5400"), nil))
		e := parse[errorBody]([]byte(body)).Error
		if w.name == ms.Gemini {
			require.Equal(t, "type.googleapis.com/google.rpc.QuotaFailure", e.Details[0].Type)
			require.Equal(t, "5400s", e.Details[1].RetryDelay)
			continue
		}
		told, err := strconv.ParseInt(resp.Header.Get(headers[w.name]), 10, 64)
		require.NoError(t, err, w.name)
		require.WithinDuration(t, at, time.Unix(told, 0), time.Minute)
		if w.name != ms.Messages {
			require.WithinDuration(t, at, time.Unix(e.ResetsAt, 0), time.Minute)
		}
	}
}

func TestRetryAfterCanBeADate(t *testing.T) {
	for _, w := range wires {
		resp, _ := ask(t, newServer(t, nil), w.path(true), w.encode("", true, user("@error 429 retry-date=40 slow"), nil))
		at, err := http.ParseTime(resp.Header.Get("Retry-After"))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(40*time.Second), at, 20*time.Second)
	}
}

func TestAnErrorCanComeInTheStreamWithoutAText(t *testing.T) {
	for _, w := range wires {
		t.Run(string(w.name), func(t *testing.T) {
			resp, body := ask(t, newServer(t, nil), w.path(true), w.encode("", true, user("@error 529 in-stream=1 busy"), nil))
			require.Equal(t, http.StatusOK, resp.StatusCode)
			h := w.hear(true, body)
			require.Empty(t, h.Text)
			require.Contains(t, h.Problem, "busy")
			resp, _ = ask(t, newServer(t, nil), w.path(false), w.encode("", false, user("@error 529 in-stream=1 busy"), nil))
			require.Equal(t, 529, resp.StatusCode, "without streaming, the error is the answer")
		})
	}
}

func TestAnUnknownReasonIsNamed(t *testing.T) {
	got := play(user("@error 429 reason=mood x")...)
	require.Equal(t, 400, got.Error.Status)
	require.Contains(t, got.Error.Message, `"mood" is not a reason`)
}
