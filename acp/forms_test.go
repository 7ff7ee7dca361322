//go:build unix

package acp

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

func TestTheVersionIsReadInAnyForm(t *testing.T) {
	for answer, want := range map[string]string{
		`{"protocolVersion":1}`:     "",
		`{"protocolVersion":1.0}`:   "",
		`{"protocolVersion":"1"}`:   "",
		`{"protocolVersion":2}`:     "it speaks version 2 of",
		`{"protocolVersion":"2.1"}`: "it speaks version 2.1 of",
		`{"protocolVersion":"new"}`: "it speaks version new of",
		`{"protocolVersion":{}}`:    "it speaks version {} of",
		`{"protocolVersion":null}`:  "contains no version",
		`{"protocolVersion":""}`:    "contains no version",
		`{}`:                        "contains no version",
		`null`:                      "contains no version",
		`[]`:                        "contains no version",
		``:                          "contains no version",
	} {
		err := checkVersion(versionIn([]byte(answer)))
		if want == "" {
			require.NoError(t, err, answer)
		} else {
			require.ErrorContains(t, err, want, answer)
			require.ErrorContains(t, err, "this client speaks version 1", answer)
		}
	}
}

func TestStopReasonsAreReadInAnyForm(t *testing.T) {
	for text, want := range map[sdk.StopReason]sdk.StopReason{
		"end_turn": sdk.StopReasonEndTurn, "END_TURN": sdk.StopReasonEndTurn, "endTurn": sdk.StopReasonEndTurn, "end-turn ": sdk.StopReasonEndTurn,
		"MaxTurnRequests": sdk.StopReasonMaxTurnRequests, "Cancelled": sdk.StopReasonCancelled,
		"": "", "context_overflow": "context_overflow", "end": "end", "_": "_",
	} {
		require.Equal(t, want, stopReason(text), text)
	}
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "message m the\nlateraw 100ms "+`{"sessionUpdate":"agent_message_chunk","messageId":"m","content":{"type":"text","text":" answer"}}`+"\nstop endTurn")
		require.NoError(t, e.err)
		require.Equal(t, bgagent.StopEndOfTurn, e.Stop)
		require.Equal(t, "the answer", e.Text, "late pieces are awaited")
	})
}

func TestTextIsReadInAnyForm(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		for content, want := range map[string]string{
			`"the answer"`:      "the answer",
			`["the ","answer"]`: "the answer",
			`[{"type":"text","text":"the "},{"text":"answer"}]`: "the answer",
			`""`: "", `[]`: "", `null`: "", `7`: "", `[7]`: "", `[{"type":"image"}]`: "", `{"type":"text","text":["the answer"]}`: "",
		} {
			e := prompt(t, c, create(t, c), `update {"sessionUpdate":"agent_message_chunk","content":`+content+`}`)
			require.NoError(t, e.err, content)
			require.Equal(t, want, e.Text, content)
		}
		e := prompt(t, c, create(t, c), `update {"sessionUpdate":"agent_thought_chunk","content":"I think"}`)
		require.Len(t, e.of(bgagent.ReportReasoning), 1)
		require.Equal(t, "I think", e.of(bgagent.ReportReasoning)[0].Text)
	})
}

func TestAnAgentThatCannotReadARequestFailsIt(t *testing.T) {
	const unread = `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}` + "\n"
	written := make(told, 2)
	c := newConn(written, handlers{})
	asked := make(chan error, 2)
	ask := func() { asked <- c.call(context.Background(), "ask", nil, nil) }
	r, w := io.Pipe()
	go c.serve(r)
	go ask()
	<-written
	_, err := io.WriteString(w, strings.ReplaceAll(unread, `"error"`, `"result"`)+unread)
	require.NoError(t, err)
	require.ErrorContains(t, <-asked, "Parse error")

	// With two requests, it is unknown which of them the agent could not read.
	go ask()
	go ask()
	<-written
	<-written
	_, err = io.WriteString(w, unread)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for range 2 {
		require.ErrorIs(t, <-asked, errOutputEnded)
	}
}
