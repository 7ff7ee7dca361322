package command

import (
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// outputOf joins the lines of a program's output.
func outputOf(lines ...string) []byte { return []byte(strings.Join(lines, "\n")) }

func TestCodexRepeatsARequestAfterABare403(t *testing.T) {
	const bare, named, wrong = `(unexpected status 403 Forbidden: <html>blocked</html>)`, `(unexpected status 403 Forbidden: {\"error\":{\"code\":\"invalid_api_key\"}})`, `(unexpected status 401 Unauthorized: no)`
	for text, ends := range map[string]bool{bare: false, named: true, wrong: true} {
		got := playRecorded(Codex(), outputOf(`{"type":"thread.started","thread_id":"t"}`, `{"type":"error","message":"Reconnecting... 1/5 `+text+`"}`), 1)
		require.Equal(t, ends, got.said.end != nil, text)
		require.Empty(t, got.retries, "the manager would end the task")
	}
	got := playRecorded(Codex(), outputOf(`{"type":"error","message":"Reconnecting... 1/5 `+bare+`"}`, item("completed", "1", "fine"), codexDone), 0)
	require.NoError(t, got.err)
	got = playRecorded(Codex(), outputOf(`{"type":"thread.started","thread_id":"t"}`, `{"type":"turn.failed","error":{"message":"unexpected status 403 Forbidden: no"}}`), 1)
	require.Equal(t, &bgagent.ProviderError{Kind: authentication, Status: 403, Tries: 1, Scope: allModels, Next: goOn, Message: "unexpected status 403 Forbidden: no"}, got.failure)
}

func TestAFailureOfTheMachineBlamesNoProvider(t *testing.T) {
	for _, text := range []string{
		"required MCP servers failed to initialize: github: handshake failed: HTTP 503 Service Unavailable",
		"plugin marketplace: GitHub API rate limit exceeded",
		"failed to load config: connection reset by peer",
		"MCP server github failed: HTTP 401 Unauthorized",
		`ENOENT: no such file "docs/rate limit.md"`,
		`cannot read {"error":{"code":429}}`,
	} {
		quoted := jsonString(text)
		for program, output := range map[string][]byte{
			"codex":         outputOf(`{"type":"thread.started","thread_id":"t"}`, `{"type":"turn.failed","error":{"message":`+quoted+`}}`),
			"codex, error":  outputOf(`{"type":"error","message":` + quoted + `}`),
			"codex, before": outputOf(`{"type":"error","message":"exceeded retry limit, last status: 429"}`, `{"type":"turn.failed","error":{"message":`+quoted+`}}`),
			"opencode":      outputOf(`{"type":"error","error":{"name":"UnknownError","data":{"message":` + quoted + `}}}`),
		} {
			name, _, _ := strings.Cut(program, ",")
			got := playRecorded(presets[name], output, 1)
			require.ErrorContains(t, got.err, text, program)
			require.Nil(t, got.failure, "%s: %s", program, text)
		}
	}
}

func TestARetryEndsTheTaskOnlyIfTheKeyIsCertainlyRejected(t *testing.T) {
	claude := func(status, word string) []byte {
		return outputOf(claudeStarted, `{"type":"system","subtype":"api_retry","attempt":1,"error_status":`+status+`,"error":"`+word+`"}`)
	}
	gemini := func(status, answer string) []byte {
		return outputOf(`{"stderr":` + jsonString("Attempt 1 failed with status "+status+". Retrying with backoff... _ApiError: "+answer) + `}`)
	}
	for _, x := range []struct {
		program string
		output  []byte
		want    bgagent.ProviderErrorKind // kind in the report; 0 if there is none
	}{
		{"claude", claude("403", "unknown"), 0},
		{"claude", claude("401", "unknown"), authentication},
		{"claude", claude("429", "rate_limit"), limited},
		{"gemini", gemini("403", "{}"), 0},
		{"gemini", gemini("400", `{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}`), authentication},
		{"gemini", gemini("503", "{}"), overloaded},
	} {
		got := playRecorded(presets[x.program], x.output, 0)
		if x.want == 0 {
			require.Empty(t, got.retries, "%s", x.output)
			continue
		}
		require.Len(t, got.retries, 1, "%s", x.output)
		require.Equal(t, x.want, got.retries[0].Provider.Kind, "%s", x.output)
	}
}

func TestGeminisExitCodeDoesNotHideAnEarlierFailure(t *testing.T) {
	const daily = `{"type":"error","severity":"error","message":"[API Error: You have exhausted your daily quota on this model.]"}`
	const boom = `{"type":"result","status":"error","error":{"message":"boom"}}`
	got := playRecorded(Gemini(), outputOf(daily, boom), 173).failure
	require.Equal(t, quota, got.Kind)
	require.Equal(t, 429, got.Status)
	const gateway = `{"type":"result","status":"error","error":{"message":"[API Error: Bad Gateway]\nPlease wait [and] see"}}`
	require.Equal(t, broken, playRecorded(Gemini(), outputOf(strings.Replace(gateway, "[and]", "and", 1)), -1).failure.Kind, "the message is a status in words")
}

// Lines that opencode prints around a compaction.
const (
	opencodeStep     = `{"type":"step_start","sessionID":"s"}`
	opencodeStop     = `{"type":"step_finish","sessionID":"s","part":{"reason":"stop"}}`
	opencodeSummary  = `{"type":"text","sessionID":"s","part":{"text":"the summary"}}`
	opencodeAnswer   = `{"type":"text","sessionID":"s","part":{"text":"the answer"}}`
	opencodeContinue = `{"type":"text","sessionID":"s","part":{"text":"Continue","metadata":{"compaction_continue":true}}}`
	opencodeOverflow = `{"type":"error","sessionID":"s","error":{"name":"ContextOverflowError","data":{"message":"too long"}}}`
)

func TestOpencodesSummaryIsNotTheEndOfTheTurn(t *testing.T) {
	for name, begin := range map[string][]string{
		"compacted":                      {opencodeStep, opencodeSummary, opencodeStop, opencodeContinue},
		"too long":                       {opencodeOverflow},
		"too long, summary":              {opencodeOverflow, opencodeStep, opencodeSummary, opencodeStop},
		"too long, summary, continued":   {opencodeOverflow, opencodeStep, opencodeSummary, opencodeStop, opencodeContinue},
		"too long after an end":          {opencodeStep, opencodeAnswer, opencodeStop, opencodeOverflow, opencodeStep, opencodeSummary, opencodeStop},
		"too long after another attempt": {opencodeOverflow, opencodeStep, opencodeSummary, opencodeStop, opencodeOverflow, opencodeStep, opencodeSummary, opencodeStop},
	} {
		got := playRecorded(Opencode(), outputOf(begin...), 0)
		require.Nil(t, got.said.end, name)
		if name == "too long" {
			begin = append(begin, opencodeStep, opencodeSummary, opencodeStop)
		}
		got = playRecorded(Opencode(), outputOf(append(begin, opencodeStep, opencodeAnswer, opencodeStop)...), 0)
		require.NoError(t, got.err, name)
		require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "the answer"}, got.end, name)
	}
}

func TestOpencodeThatExitsAfterAnInputThatIsTooLongHasFailed(t *testing.T) {
	want := &bgagent.ProviderError{Kind: inputTooLong, Next: goOn}
	for code := range 2 {
		for _, lines := range [][]string{{opencodeOverflow}, {opencodeStep, opencodeAnswer, opencodeStop, opencodeOverflow}, {opencodeOverflow, opencodeStep}} {
			got := playRecorded(Opencode(), outputOf(lines...), code)
			require.Equal(t, bgagent.StopError, got.end.Stop, lines)
			require.ErrorContains(t, got.err, "too long", lines)
			require.NotNil(t, got.failure, lines)
			got.failure.Message = ""
			require.Equal(t, want, got.failure, lines)
		}
	}
}

func TestATurnWithToolCallsIsNotBegunAgain(t *testing.T) {
	const call = `{"type":"tool","id":"1","name":"x","state":"done"}`
	for next, want := range map[string]bgagent.ProviderNextStep{"repeat": bgagent.NextRepeat, "new session": anew, "continue": goOn} {
		lines := []string{`{"type":"session","id":"s"}`, `{"type":"error","status":429,"next":"` + next + `"}`, `{"type":"end","stop":"error"}`}
		require.Equal(t, want, playRecorded(Lines("x"), outputOf(lines...), 1).failure.Next)
		if want != goOn {
			want = bgagent.NextNone
		}
		require.Equal(t, want, playRecorded(Lines("x"), outputOf(append([]string{call}, lines...)...), 1).failure.Next)
	}
}

func TestADraftDoesNotHideTheFailureAfterIt(t *testing.T) {
	const retry, limit = `{"type":"error","message":"Reconnecting... 2/5 (exceeded retry limit, last status: 429 Too Many Requests)"}`, `{"message":"exceeded retry limit, last status: 429 Too Many Requests"}`
	want := &bgagent.ProviderError{Kind: limited, Status: 429, Tries: 3, Next: goOn, Message: "exceeded retry limit, last status: 429 Too Many Requests"}
	for _, end := range []string{`{"type":"turn.failed","error":` + limit + `}`, strings.Replace(limit, "{", `{"type":"error",`, 1) + "\n" + codexDone} {
		got := playRecorded(Codex(), outputOf(`{"type":"thread.started","thread_id":"t"}`, item("updated", "1", "half"), retry, end), 1)
		require.Equal(t, want, got.failure, end)
		require.Equal(t, "half", got.end.Text)
	}
}

func TestAnAnswerOfCodexThatWasCutIsNoFailureOfTheProvider(t *testing.T) {
	for reason, want := range map[string]bgagent.StopReason{"content_filter": bgagent.StopRefused, "max_output_tokens": bgagent.StopLength, "mood": bgagent.StopError} {
		text := "stream disconnected before completion: Incomplete response returned, reason: " + reason
		got := playRecorded(Codex(), outputOf(item("completed", "1", "half"), `{"type":"error","message":"Reconnecting... 1/5 (`+text+`)"}`,
			`{"type":"error","message":"`+text+`"}`, `{"type":"turn.failed","error":{"message":"`+text+`"}}`), 1)
		require.Equal(t, bgagent.TurnEnd{Stop: want, Text: "half"}, got.end)
		require.ErrorContains(t, got.err, text)
		require.Nil(t, got.failure)
		require.Empty(t, got.retries)
	}
}

func TestGeminiThatDoesNotExitHasTheStatusOfItsLastTry(t *testing.T) {
	const busy = `{"stderr":"Attempt 1 failed with status 503. Retrying with backoff... _ApiError: {}"}`
	const failed = `{"type":"result","status":"error","error":{"message":"[API Error: The model is overloaded.]"}}`
	play := func(code int, lines ...string) *bgagent.ProviderError {
		return playRecorded(Gemini(), outputOf(append([]string{`{"type":"init","session_id":"s"}`}, lines...)...), code).failure
	}
	require.Equal(t, &bgagent.ProviderError{Kind: overloaded, Status: 503, Tries: 1, Next: anew, Message: "[API Error: The model is overloaded.]"}, play(-1, busy, failed))
	require.Equal(t, limited, play(-1, busy, `{"stderr":"Attempt 2 failed: slow. Retrying after 99999999999999999999ms..."}`, failed).Kind)
	require.Equal(t, limited, play(173, busy, failed).Kind, "the exit code is certain")
	const odd = `{"type":"result","status":"error","error":{"message":"[API Error: odd]"}}`
	require.Equal(t, overloaded, play(-1, busy, odd).Kind, "the status of the last try")
	require.Nil(t, play(-1, busy, `{"type":"message","role":"assistant","content":"here again","delta":true}`, odd))
	require.Nil(t, play(-1, odd))
	require.Equal(t, &bgagent.ProviderError{Kind: overloaded, Next: anew, Message: "[API Error: The model is overloaded.]"}, play(-1, failed), "the message alone says it")
	require.Equal(t, limited, play(173, odd).Kind)
}

func TestOnlyAnErrorOfGeminisAPIIsClassified(t *testing.T) {
	for text, want := range map[string]bool{`[API Error: {\"error\":{\"code\":503}}]`: true, `the tool printed {\"error\":{\"code\":503}}`: false} {
		for _, line := range []string{`{"type":"error","severity":"error","message":"` + text + `"}`, `{"type":"result","status":"error","error":{"message":"` + text + `"}}`} {
			got := playRecorded(Gemini(), outputOf(line, `{"type":"result","status":"error","error":{"message":"boom"}}`), 1)
			require.Equal(t, want, got.said.failed != nil, line)
		}
	}
}

func TestARefusalDuringBackgroundWorkIsARefusal(t *testing.T) {
	got := playRecorded(Claude(), outputOf(claudeStarted, `{"type":"assistant","message":{"model":"<synthetic>","content":"API Error"},"error":"rate_limit","is_api_error_message":true,"api_error_status":429}`,
		`{"type":"result","subtype":"success","is_error":true,"result":"API Error"}`), 1)
	require.Equal(t, bgagent.StopError, got.end.Stop)
	require.EqualError(t, got.err, "command: claude: API Error")
	require.Equal(t, limited, got.failure.Kind)
}

func TestATimeThatCannotBeAResetIsDropped(t *testing.T) {
	const day = 24 * time.Hour
	for wait, kept := range map[time.Duration]bool{time.Hour: true, 365 * day: true, 367 * day: false, -time.Hour: false, 99 * 366 * day: false} {
		at := time.Now().Add(wait).UTC().Truncate(time.Second)
		told := `"status":429,"retry_at":"` + at.Format(time.RFC3339) + `"}`
		got := playRecorded(Lines("x"), outputOf(`{"type":"retrying",`+told, `{"type":"error",`+told, `{"type":"end","stop":"error"}`), 1)
		if !kept {
			at = time.Time{}
		}
		require.Equal(t, at, got.failure.RetryAt, wait)
		require.Equal(t, at, got.retries[0].Provider.RetryAt, wait)
	}
}

func TestTheLastFailureSaysWhetherItWasTheProvider(t *testing.T) {
	for program, lines := range map[string][]string{
		"codex":    {`{"type":"error","message":"exceeded retry limit, last status: 429 Too Many Requests"}`, `{"type":"turn.failed","error":{"message":"boom"}}`},
		"opencode": {`{"type":"error","error":{"name":"APIError","data":{"message":"slow","statusCode":429}}}`, `{"type":"error","error":{"name":"Odd","data":{"message":"boom"}}}`},
		"lines":    {`{"type":"error","status":429}`, `{"type":"end","stop":"error","error":"boom"}`},
	} {
		got := playRecorded(presets[program], outputOf(lines...), 1)
		require.ErrorContains(t, got.err, "boom")
		require.Equal(t, program == "lines", got.failure != nil, program)
	}
}

func TestAnAbsurdNumberOfTriesIsBounded(t *testing.T) {
	const many = "99999999999999999999"
	got := playRecorded(Codex(), outputOf(`{"type":"error","message":"Reconnecting... `+many+`/5 (unexpected status 503 Service Unavailable: no)"}`), 1)
	require.Equal(t, 1_000_000, got.retries[0].Provider.Tries)
	for _, line := range []string{"Attempt " + many + " failed with status 503. Retrying with backoff...", "Attempt " + many + " failed: slow. Retrying after 1ms..."} {
		got = playRecorded(Gemini(), outputOf(`{"stderr":"`+line+`"}`), 1)
		require.Equal(t, 1_000_000, got.retries[0].Provider.Tries, line)
	}
}
