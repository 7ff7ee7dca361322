package acp

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

// replayOf returns a replay of the items. An item that begins with > is a piece of the user's text,
// one that begins with # is a tool call, and any other item is text from the agent.
func replayOf(items ...string) *replay {
	r := &replay{}
	for _, item := range items {
		switch {
		case strings.HasPrefix(item, ">"):
			r.add(sdk.UpdateUserMessageText(item[1:]))
		case item == "#":
			r.add(sdk.StartToolCall("call", "look"))
		default:
			r.add(sdk.UpdateAgentMessageText(item))
		}
	}
	return r
}

// sentBefore returns the memory of a session that got the texts. If last is true, the last text is
// the prompt "p".
func sentBefore(last bool, texts ...string) *memory {
	m := &memory{}
	for _, text := range texts {
		m.sends("earlier", text)
	}
	if last {
		m.Now.Prompt = "p"
	}
	return m
}

func TestAPromptIsRecognisedByItsText(t *testing.T) {
	const unknown, missing, interrupted = bgagent.PromptUnknown, bgagent.PromptMissing, bgagent.PromptInterrupted
	for name, test := range map[string]struct {
		items []string
		m     *memory
		want  bgagent.PromptState
	}{
		"it is there":                              {[]string{">do it"}, sentBefore(true, "do it"), interrupted},
		"in pieces":                                {[]string{">do ", ">it", "well"}, sentBefore(true, "do it"), interrupted},
		"with other white space":                   {[]string{">do\n  it\n"}, sentBefore(true, "do it"), interrupted},
		"next to the prompt before":                {[]string{">first", ">do it"}, sentBefore(true, "first", "do it"), interrupted},
		"before a text of the program":             {[]string{">do it", "#", ">interrupted on purpose"}, sentBefore(true, "do it"), interrupted},
		"without a memory":                         {[]string{">do it"}, sentBefore(false), interrupted},
		"behind a system text":                     {[]string{">be brief\n\ndo it"}, sentBefore(false), interrupted},
		"behind the line that hides a command":     {[]string{">" + lead + "do it"}, sentBefore(false), interrupted},
		"without its hidden part":                  {[]string{">do it"}, sentBefore(true, "do it\n<system-reminder>\nnow\n</system-reminder>"), interrupted},
		"a second time":                            {[]string{">do it", "done", ">do it"}, sentBefore(true, "do it", "do it"), interrupted},
		"nothing is there":                         {nil, sentBefore(true, "do it"), missing},
		"only a text of gemini is there":           {[]string{"><session_context>\nhere\n</session_context>"}, sentBefore(true, "do it"), missing},
		"the prompt before is the last":            {[]string{">first", "done"}, sentBefore(true, "first", "do it"), missing},
		"the same, and the last is not remembered": {[]string{">first", "done"}, sentBefore(false, "first"), missing},
		"the one before is hidden":                 {[]string{">first", "done", "told"}, sentBefore(true, "first", "<system-reminder>x</system-reminder>", "do it"), missing},
		"the same text came before":                {[]string{">do it", "done"}, sentBefore(true, "do it", "do it"), unknown},
		"only a summary is there":                  {[]string{">a summary", "done"}, sentBefore(true, "first", "do it"), unknown},
		"only the agent's text is there":           {[]string{"done"}, sentBefore(true, "do it"), unknown},
		"nothing is there, but something was":      {nil, sentBefore(true, "first", "do it"), unknown},
		"something else is there":                  {[]string{">who knows"}, sentBefore(false), unknown},
		"it may be hidden":                         {[]string{">first", "done"}, sentBefore(true, "first", "<system-reminder>do it</system-reminder>"), unknown},
		"it is part of another text":               {[]string{">do it not"}, sentBefore(true, "do it"), unknown},
	} {
		t.Run(name, func(t *testing.T) {
			got := replayOf(test.items...).judge(test.m, bgagent.Prompt{ID: "p", Text: "do it"})
			require.Equal(t, test.want.String(), got.String())
		})
	}
	many := sentBefore(false)
	for range maxSent + 1 {
		many.sends("earlier", "do it")
	}
	require.Len(t, many.Sent, maxSent)
	require.Equal(t, unknown, replayOf(">do it").judge(many, bgagent.Prompt{ID: "p", Text: "do it"}))
}

func TestAReplayHasNoMoreThanItsLimits(t *testing.T) {
	p := bgagent.Prompt{ID: "p", Text: "do it"}
	long := replayOf(">do it", ">"+strings.Repeat("x", maxRun), "done")
	require.Equal(t, bgagent.PromptUnknown, long.judge(sentBefore(true, "do it"), p))
	pieces := replayOf(">do it")
	for range maxPieces {
		pieces.asked("x")
	}
	require.Equal(t, bgagent.PromptUnknown, pieces.judge(sentBefore(true, "do it"), p))
	require.Empty(t, pieces.runs)
}

func TestTheLastTextOfAReplayIsTheAnswer(t *testing.T) {
	for _, test := range []struct {
		items []string
		want  string
	}{
		{[]string{">do it", "do", "ne"}, "done"}, {[]string{">do it", "I look", "#", "done"}, "done"},
		{[]string{">do it", "I look", "#"}, ""}, {[]string{">do it"}, ""}, {[]string{">first", "done", ">do it"}, ""},
	} {
		got, whole := replayOf(test.items...).answered()
		require.Equal(t, test.want, got)
		require.Equal(t, test.want != "", whole)
	}
}
