package command

import (
	"strings"
	"testing"

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
