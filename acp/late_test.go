//go:build unix

package acp

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// piece returns an update with a piece of a message, as JSON.
func piece(text, id string) string {
	u := `{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"` + text + `"}`
	if id != "" {
		u += `,"messageId":"` + id + `"`
	}
	return u + "}"
}

func TestLatePiecesBelongToTheAnswer(t *testing.T) {
	tool := `{"sessionUpdate":"tool_call","toolCallId":"9","title":"t","kind":"read","status":"pending"}`
	for name, test := range map[string]struct {
		prompt string
		want   string
		took   time.Duration
	}{
		"nothing more":        {"say done", "done", 250 * time.Millisecond},
		"at once":             {"say the \nlateraw 0s " + piece(" answer", ""), "the answer", 250 * time.Millisecond},
		"soon":                {"say the \nlateraw 200ms " + piece(" answer", ""), "the answer", 450 * time.Millisecond},
		"too late":            {"say the\nlateraw 300ms " + piece("answer", ""), "the", 250 * time.Millisecond},
		"all of it":           {"think hm\nlateraw 200ms " + piece("answer", ""), "answer", 450 * time.Millisecond},
		"after a tool call":   {"say I look\ntool grep\nlateraw 100ms " + piece("answer", "m2"), "answer", 350 * time.Millisecond},
		"of its message":      {"message m1 the \nlateraw 100ms " + piece(" answer", "m1"), "the answer", 350 * time.Millisecond},
		"of another message":  {"message m1 the\nlateraw 100ms " + piece("Tip: upgrade", "m2"), "the", 100 * time.Millisecond},
		"behind a tool call":  {"say the\nlateraw 100ms " + tool + "\nlateraw 200ms " + piece("answer", ""), "the", 100 * time.Millisecond},
		"beside what is said": {"say the \nlateraw 100ms {\"sessionUpdate\":\"usage_update\",\"used\":1,\"size\":2}\nlateraw 200ms " + piece(" answer", ""), "the answer", 450 * time.Millisecond},
		"without an end": {"say the\nlateraw 200ms " + piece(" 1", "") + "\nlateraw 400ms " + piece(" 2", "") + "\nlateraw 600ms " + piece(" 3", "") +
			"\nlateraw 800ms " + piece(" 4", "") + "\nlateraw 1100ms " + piece(" 5", ""), "the 1 2 3 4", time.Second},
		"of a turn that was cut off": {"say the\nstop max_tokens\nlateraw 100ms " + piece("answer", ""), "the", 0},
		"of a turn that failed":      {"say the\nlateraw 100ms " + piece("answer", "") + "\nfail", "the", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				id := create(t, c)
				began := time.Now()
				e := prompt(t, c, id, test.prompt)
				require.Equal(t, test.took, time.Since(began))
				require.Equal(t, test.want, e.Text)
				time.Sleep(3 * time.Second)
				page, err := c.Messages(t.Context(), id, "", 0)
				require.NoError(t, err)
				require.Equal(t, test.want, page.Messages[len(page.Messages)-1].Text)
			})
		})
	}
}

func TestAStoppedTurnDoesNotWaitForLatePieces(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		began := time.Now()
		l := run(t, c, id, bgagent.Prompt{Text: "say done\nnap 1s"})
		time.Sleep(time.Second + 100*time.Millisecond) // the agent has answered the prompt, and the client waits for late pieces
		require.NoError(t, c.Abort(t.Context(), id))
		require.Equal(t, bgagent.StopAborted, l.wait().Stop)
		require.Equal(t, 1100*time.Millisecond, time.Since(began))
	})
}

func TestAnAbortedTurnIsAbortedWhateverTheAgentSays(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		l := run(t, c, id, bgagent.Prompt{Text: "blind\nwait"})
		<-l.said
		require.NoError(t, c.Abort(t.Context(), id))
		require.Equal(t, bgagent.StopAborted, l.wait().Stop)
	})
}

func TestAnErrorWrittenAsTextIsNoAnswer(t *testing.T) {
	status := func(kind string) string {
		return `update {"sessionUpdate":"session_info_update","_meta":{"codex":{"threadStatus":{"type":"` + kind + `"}}}}` + "\n"
	}
	half := "message m1 half of an\nmessage m2 half of an\n"
	for name, test := range map[string]struct {
		prompt string
		text   string
		reason string // empty if the turn succeeds
	}{
		"codex: refused":             {status("systemError") + "say exceeded retry limit", "", "failed: exceeded retry limit"},
		"codex: without a word":      {status("systemError"), "", "failed, and gave no reason"},
		"codex: a broken stream":     {half + status("systemError") + "say stream disconnected", "half of an", "failed: stream disconnected"},
		"codex: went on":             {status("systemError") + "say no\n" + status("active") + "say fine", "fine", ""},
		"codex: broken, then whole":  {half + "message m3 half of an answer", "half of an answer", ""},
		"claude: refused":            {"message u1 API Error: 429\nfail API Error: 429", "", "API Error: 429"},
		"claude: a broken stream":    {half + "message u1 API Error: 429\nfail API Error: 429", "half of an", "API Error: 429"},
		"an error beside the answer": {"say half\nfail overloaded", "half", "overloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				e := prompt(t, c, create(t, c), test.prompt)
				require.Equal(t, test.text, e.Text)
				if test.reason == "" {
					require.NoError(t, e.err)
					require.Equal(t, bgagent.StopEndOfTurn, e.Stop)
					return
				}
				require.ErrorContains(t, e.err, test.reason)
				require.Equal(t, bgagent.StopError, e.Stop)
				require.Equal(t, test.text == "" && e.text() != "", e.NoText)
			})
		})
	}
}

func TestAnIDReusedAfterItsCallHasEndedIsAnotherCall(t *testing.T) {
	call := func(kind, status string) string {
		return `update {"sessionUpdate":"` + kind + `","toolCallId":"call_0","title":"grep","kind":"search","status":"` + status + `"}` + "\n"
	}
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		text := ""
		for range 3 {
			text += call("tool_call", "pending") + call("tool_call_update", "completed") + call("tool_call_update", "in_progress")
		}
		e := prompt(t, c, id, text+call("tool_call", "completed")+"say done")
		ids := map[string]bgagent.ToolState{}
		for _, r := range e.of(bgagent.ReportTool) {
			ids[r.Tool.ID] = r.Tool.State
		}
		require.Len(t, ids, 4)
		for _, state := range ids {
			require.Equal(t, bgagent.ToolDone, state)
		}
	})
}

func TestReasoningAloneIsNoAnswer(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "think hm")
		require.NoError(t, e.err)
		require.Empty(t, e.Text)
		require.Empty(t, e.text())
		require.Len(t, e.of(bgagent.ReportReasoning), 1)
	})
}

func TestAServerErrorWrittenAsTheAnswerFailsTheTurn(t *testing.T) {
	const call = `update {"sessionUpdate":"tool_call","toolCallId":"1","title":"grep","kind":"search","status":"completed"}` + "\n"
	for name, test := range map[string]struct {
		before, prompt string
		fails          bool
	}{
		"an error":            {"say fine", "free\nsay Error: 400 no such model", true},
		"another error":       {"say fine", "free\nsay Execution failed: the request failed with status code 503", true},
		"the code first":      {"say fine", `free` + "\n" + `say 429 {"error":{"message":"slow down"}}`, true},
		"half, then an error": {"say fine", "message m1 half of an\nmessage m2 half of an answer\nfree\nmessage m3 API Error: 529 overloaded", true},
		"tokens were used":    {"say fine", "say Error: 400 is what a server says to a bad request", false},
		"a tool was used":     {"say fine", call + "free\nsay Error: 404 is what it says", false},
		"tokens never told":   {"free\nsay fine", "free\nsay Error: 400 no such model", false}, // a turn without tokens is normal for this agent
		"about an error":      {"say fine", "free\nsay The tests fail, and the log has Error: 400 in it", false},
		"an answer":           {"say fine", "free\nsay 450 files were changed", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				require.NoError(t, prompt(t, c, create(t, c), test.before).err)
				e := prompt(t, c, create(t, c), test.prompt)
				if !test.fails {
					require.NoError(t, e.err)
					require.NotEmpty(t, e.Text)
					return
				}
				require.ErrorContains(t, e.err, `the agent "fake" failed: `)
				require.Equal(t, bgagent.StopError, e.Stop)
				require.NotContains(t, e.Text, "rror")
				require.Equal(t, e.Text == "", e.NoText)
			})
		})
	}
}
