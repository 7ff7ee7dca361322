//go:build unix

package acp

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestWhatTheProgramWritesItselfIsNoPartOfTheAnswer(t *testing.T) {
	const whole = "message m0 so-\nmessage m0 it-is" // a turn with an id in each piece of a message
	tool := `update {"sessionUpdate":"tool_call","toolCallId":"1","title":"grep","kind":"search","status":"completed"}` + "\n"
	for name, test := range map[string]struct {
		before, prompt string // prompts of two turns
		want           string
	}{
		"a warning before the answer, at first":    {"", "say Warning: metadata not found\nmessage m1 the-answer", "the-answer"},
		"the same, in pieces":                      {"", "say Warning: \nsay not found\nmessage m1 the-\nmessage m1 answer", "the-answer"},
		"a warning before the answer":              {whole, "say Warning\nmessage m1 the-answer", "the-answer"},
		"a warning in the middle":                  {whole, "message m1 the-\nsay Warning\nmessage m1 answer", "the-answer"},
		"a warning after the answer":               {whole, "message m1 the-answer\nsay Tip: upgrade", "the-answer"},
		"a warning that comes late":                {whole, "message m1 the-\nlateraw 100ms " + piece("Tip", "") + "\nlateraw 200ms " + piece("answer", "m1"), "the-answer"},
		"a warning before a tool call":             {whole, "say Warning\n" + tool + "message m1 the-answer", "the-answer"},
		"a warning between thoughts":               {whole, "think hm\nsay Warning\nthink hm\nmessage m1 the-answer", "the-answer"},
		"no other words":                           {whole, "say the-answer", "the-answer"},
		"no other words, in pieces":                {whole, "say the-\nsay answer", "the-answer"},
		"no other words but space":                 {whole, "say the-answer\nmessage m1  ", "the-answer"},
		"no ids at all":                            {"say so-it-is", "say the-\nsay answer", "the-answer"},
		"an id with the first piece of each alone": {"message m0 so-\nsay it-is", "message m1 the-\nsay answer", "the-answer"},
		"a message of one piece":                   {"message m0 so-it-is", "message m1 the-answer", "the-answer"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				if test.before != "" {
					e := prompt(t, c, create(t, c), test.before)
					require.NoError(t, e.err)
					require.Equal(t, "so-it-is", e.Text)
				}
				e := prompt(t, c, create(t, c), test.prompt)
				require.NoError(t, e.err)
				require.Equal(t, test.want, e.Text)
				require.Contains(t, e.text(), test.want, "the manager hears of it")
			})
		})
	}
}

func TestWhatTheProgramWritesOfItsFailureIsTheReason(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		require.NoError(t, prompt(t, c, create(t, c), "message m0 so-\nmessage m0 it-is").err)
		e := prompt(t, c, create(t, c), "say stream disconnected\n"+`update {"sessionUpdate":"session_info_update","_meta":{"codex":{"threadStatus":{"type":"systemError"}}}}`)
		require.ErrorContains(t, e.err, "failed: stream disconnected")
		require.Empty(t, e.Text)
	})
}

func TestWordsThatAreHeldBackAreActivityAndNotLostWithTheTurn(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		require.NoError(t, prompt(t, c, create(t, c), "message m0 so-\nmessage m0 it-is").err)
		id := create(t, c)
		l := run(t, c, id, bgagent.Prompt{Text: "say half of an answer\nwait"})
		<-l.said
		time.Sleep(time.Second)
		require.NoError(t, c.Abort(t.Context(), id))
		require.Contains(t, l.wait().Text, "half of an answer")
	})
}
