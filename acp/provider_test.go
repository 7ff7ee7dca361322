//go:build unix

package acp

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault/recordings"
	"github.com/stretchr/testify/require"
)

// recorded is a turn of a real agent during which the model provider refused requests.
type recorded struct {
	Case, Program string
	Updates       []json.RawMessage
	Error         json.RawMessage // answer to the prompt; null if the turn ended normally

	Want    string // kind of the provider error; empty if there is none
	Status  int
	Tries   int
	Scope   string
	Retries int    // number of reports that the program is retrying a request
	Kind    string // kind of the error in these reports
	Text    string // the model's text
}

// script returns the prompt that makes the fake agent replay the turn.
func (r recorded) script() string {
	var b strings.Builder
	b.WriteString("free\n")
	for _, u := range r.Updates {
		b.WriteString("update " + string(u) + "\n")
	}
	if len(r.Error) > 0 {
		b.WriteString("error " + string(r.Error) + "\n")
	}
	return b.String()
}

// The function "playing" makes the client treat its agent as the named program.
func playing(c *Client, program string) {
	c.cfg.Command = []string{program}
	name := program
	c.told.Store(&name)
}

func TestRecordedErrorsOfProvidersAreRecognized(t *testing.T) {
	raw, err := os.ReadFile("testdata/faults.jsonl")
	require.NoError(t, err)
	for line := range strings.Lines(string(raw)) {
		var r recorded
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		t.Run(r.Case, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				s := create(t, c)
				playing(c, r.Program)
				e := prompt(t, c, s, r.script())
				require.Equal(t, r.Text, e.Text, "an error is neither result nor partial text")
				_, recording, _ := strings.Cut(strings.TrimPrefix(r.Case, "claude-agent"), "acp-")
				kind, known := recordings.Kind(r.Program, cmp.Or(recording, strings.TrimPrefix(r.Case, "gemini-")))
				require.True(t, known, "the recording needs a row in the package recordings")
				retries := e.of(bgagent.ReportRetrying)
				require.Len(t, retries, r.Retries)
				for i, x := range retries {
					require.Equal(t, kind, x.Provider.Kind)
					require.Equal(t, r.Kind, x.Provider.Kind.String())
					require.Equal(t, i+1, x.Provider.Tries)
					require.True(t, x.RetryAt.IsZero())
				}
				var p *bgagent.ProviderError
				found := errors.As(e.err, &p)
				require.Equal(t, r.Want != "", found, "%v", e.err)
				if !found {
					require.True(t, kind == 0 || e.err == nil, "%v", e.err)
					return
				}
				require.Equal(t, bgagent.StopError, e.Stop)
				require.Equal(t, r.Want, p.Kind.String())
				require.Equal(t, kind, p.Kind)
				require.Equal(t, r.Status, p.Status)
				require.Equal(t, r.Tries, p.Tries)
				require.Equal(t, r.Scope == "provider", p.Scope == bgagent.ScopeProvider)
				require.True(t, p.RetryAt.IsZero(), "agents report the time only in prose")
				require.NotEmpty(t, p.Message)
				require.NotContains(t, p.Message, "\n")
				want := bgagent.NextContinue
				if r.Program == "gemini" {
					want = bgagent.NextRepeat
				}
				require.Equal(t, want, p.Next)
			})
		})
	}
}

func TestErrorsThatDoNotConcernTheProviderNameNone(t *testing.T) {
	const systemError = `update {"sessionUpdate":"session_info_update","_meta":{"codex":{"threadStatus":{"type":"systemError"}}}}` + "\n"
	for name, script := range map[string]string{
		"an error without a field for its kind": "fail rate limit",
		"a bad request, from Claude":            `error {"code":-32603,"message":"Internal error: overloaded image","data":{"errorKind":"invalid_request"}}`,
		"an error of opencode itself":           `error {"code":-32603,"message":"Internal error: Agent not found","data":{"errorName":"UnknownError"}}`,
		"a file of opencode":                    `error {"code":-32603,"message":"Internal error: ENOENT: no such file \"docs/rate limit.md\"","data":{"errorName":"UnknownError"}}`,
		"an MCP server of codex":                `error {"code":-32603,"message":"Internal error","data":{"message":"MCP server github failed: HTTP 401 Unauthorized","codexErrorInfo":"other"}}`,
		"an MCP server of codex, as text":       systemError + "say required MCP servers failed to initialize: github: HTTP 503",
		"a code that is no status":              `error {"code":429,"message":"no"}`,
		"a failure of codex itself":             systemError + "say the sandbox cannot be started",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				e := prompt(t, c, create(t, c), script)
				require.Error(t, e.err)
				require.False(t, errors.As(e.err, new(*bgagent.ProviderError)), "%v", e.err)
			})
		})
	}
}

func TestAnAnswerThatNamesALimitIsNoFailure(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "say exceeded retry limit, last status: 429 Too Many Requests")
		require.NoError(t, e.err)
	})
}

func TestGeminiKeepsAPromptOnceItsModelHasCalledATool(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		s := create(t, c)
		playing(c, "gemini")
		run := func(text string) ended {
			return run(t, c, s, bgagent.Prompt{ID: "p", Agent: "fake", System: "nap 1ms", Text: text}).wait()
		}
		const refuse = `error {"code":429,"message":"Resource has been exhausted"}`
		var p *bgagent.ProviderError
		require.ErrorAs(t, run(refuse).err, &p)
		require.Equal(t, bgagent.NextRepeat, p.Next)
		require.Equal(t, "2", run("heard nap 1ms").Text, "the system text is gone with the prompt")
		require.ErrorAs(t, run("tool grep\n"+refuse).err, &p)
		require.Equal(t, bgagent.NextContinue, p.Next)
	})
}

func TestAnAnswerOfGeminiThatBrokeOffIsAFailure(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		s := create(t, c)
		require.NoError(t, prompt(t, c, s, "say whole").err)
		require.NoError(t, prompt(t, c, s, "free\nsay no tokens").err, "other agents do not have to report tokens in each turn")
		playing(c, "gemini")
		require.NoError(t, prompt(t, c, s, "free\nsay no field").err, "without its field, tokens are unknown")
		e := prompt(t, c, s, "zero\nsay half of")
		var p *bgagent.ProviderError
		require.ErrorAs(t, e.err, &p)
		require.Equal(t, bgagent.ProviderBroken, p.Kind)
		require.Equal(t, bgagent.NextNone, p.Next, "the answer might be whole")
		require.Equal(t, "half of", e.Text)
	})
}

func TestAnAnswerAboutAnErrorBlamesNoProvider(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		s := create(t, c)
		require.NoError(t, prompt(t, c, s, "say whole").err)
		e := prompt(t, c, s, "free\nsay 503 Service unavailable means that the server is overloaded")
		require.ErrorContains(t, e.err, "503 Service unavailable")
		require.False(t, errors.As(e.err, new(*bgagent.ProviderError)), "%v", e.err)
	})
}

// The manager ends a task for which a rejected key is reported. Status 403 alone does not show that the key
// was rejected, because a proxy can refuse a single request with this status.
func TestOnlyARejectedKeyIsReportedBeforeCodexGivesUp(t *testing.T) {
	for details, reported := range map[string]bool{
		"unexpected status 403 Forbidden: <html>blocked</html>":                       false,
		`unexpected status 403 Forbidden: {\"error\":{\"code\":\"invalid_api_key\"}}`: true,
		"unexpected status 401 Unauthorized: no":                                      true,
	} {
		bubble(t, Config{}, false, func(t *testing.T, c *Client) {
			s := create(t, c)
			playing(c, "codex")
			status := details[len("unexpected status "):len("unexpected status 403")]
			e := prompt(t, c, s, `update {"sessionUpdate":"session_info_update","_meta":{"codex":{"error":{"message":"Reconnecting... 1/5","codexErrorInfo":{"responseStreamDisconnected":{"httpStatusCode":`+
				status+`}},"additionalDetails":"`+details+`","willRetry":true}}}}`+"\nsay fine")
			require.NoError(t, e.err)
			require.Equal(t, reported, len(e.of(bgagent.ReportRetrying)) == 1, details)
		})
	}
}

// A fault that the agent has overcome must not become the reason for a later failure.
func TestAFaultIsForgottenWhenTheAgentGoesOn(t *testing.T) {
	const (
		fault = `update {"sessionUpdate":"session_info_update","_meta":{"codex":{"error":{"message":"Reconnecting... 1/5","codexErrorInfo":{"responseStreamDisconnected":{"httpStatusCode":529}},"additionalDetails":"unexpected status 529: Overloaded","willRetry":true}}}}` + "\n"
		fails = `update {"sessionUpdate":"session_info_update","_meta":{"codex":{"threadStatus":{"type":"systemError"}}}}` + "\n"
		call  = `update {"sessionUpdate":"tool_call","toolCallId":"x","title":"x"}` + "\n"
		more  = `update {"sessionUpdate":"tool_call_update","toolCallId":"x","status":"completed"}` + "\n"
	)
	for script, blamed := range map[string]bool{
		fault + fails: true,
		fault + fails + "say unexpected status 529: Overloaded": true,
		fault + fails + "say the sandbox cannot be started":     false,
		fault + "think so\n" + fails:                            false,
		call + fault + more + fails:                             false,
	} {
		bubble(t, Config{}, false, func(t *testing.T, c *Client) {
			s := create(t, c)
			playing(c, "codex")
			e := prompt(t, c, s, script)
			require.Error(t, e.err)
			require.Equal(t, blamed, errors.As(e.err, new(*bgagent.ProviderError)), "%s: %v", script, e.err)
		})
	}
}

func TestAPromptThatGeminiHasDroppedIsNotRemembered(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		s := create(t, c)
		playing(c, "gemini")
		for script, want := range map[string]int{"tool grep\n": 1, "": 0} {
			e := run(t, c, s, bgagent.Prompt{ID: "p", Agent: "fake", Instance: "one", Text: script + `error {"code":429,"message":"no"}`}).wait()
			require.Error(t, e.err)
			c.mu.Lock()
			m := c.sessions[s].memory
			c.mu.Unlock()
			require.Equal(t, want == 1, m.Now.Prompt == "p", script)
		}
	})
}

func TestAContinuedTurnSendsTheText(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		s := create(t, c)
		playing(c, "claude")
		const refuse = `error {"code":-32603,"message":"Internal error: overloaded","data":{"errorKind":"overloaded"}}`
		var p *bgagent.ProviderError
		require.ErrorAs(t, prompt(t, c, s, refuse).err, &p)
		require.Equal(t, bgagent.NextContinue, p.Next)
		e := run(t, c, s, bgagent.Prompt{ID: "p2", Unanswered: "p", Agent: "fake", Text: "say go on"}).wait()
		require.NoError(t, e.err)
		require.Equal(t, "go on", e.Text)
	})
}
