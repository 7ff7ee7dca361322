//go:build unix

package command

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestARefusedTurnReturnsWhatTheProviderDid(t *testing.T) {
	c := linesClient(t)
	id := create(t, c)
	end, err := play(t, c, id, "refused I begin")
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopError, Text: "I begin"}, end, "partial text is kept")
	want := &bgagent.ProviderError{Kind: limited, Status: 429, Next: goOn, Message: "slow down"}
	var got *bgagent.ProviderError
	require.ErrorAs(t, err, &got)
	require.Equal(t, want, got)
	require.Equal(t, want, failure(t, err).Provider)
	require.EqualError(t, err, "command: fake: the provider refused")
	page, err := c.Messages(t.Context(), id, "", 0)
	require.NoError(t, err)
	require.Equal(t, want, page.Messages[1].Provider)

	end, err = c.RunTurn(t.Context(), id, bgagent.Prompt{ID: "2", Text: "recall", Unanswered: "1"}, nil)
	require.NoError(t, err)
	require.Equal(t, "refused I begin", end.Text, "the program's session has the unanswered prompt")
}

func TestATurnThatFailsForAnotherReasonHasNoProviderError(t *testing.T) {
	c := linesClient(t)
	_, err := play(t, c, create(t, c), "fail")
	var got *bgagent.ProviderError
	require.Error(t, err)
	require.NotErrorAs(t, err, &got)
	require.Nil(t, failure(t, err).Provider)
}

func TestAPlainTextProgramIsNeverClassified(t *testing.T) {
	c := clientOf(t, fakeAgent(t, Text("fake")))
	_, err := play(t, c, create(t, c), "print exceeded retry limit, last status: 429 Too Many Requests")
	require.NoError(t, err)
	_, err = play(t, c, create(t, c), "exit 1")
	require.Nil(t, failure(t, err).Provider)
}

func TestAHalfAnswerDoesNotKeepASessionThatIsLost(t *testing.T) {
	p := Lines("fake")
	p.ForgetsUnanswered = true
	c := clientOf(t, fakeAgent(t, p))
	id := create(t, c)
	next := func(prompt string) bgagent.ProviderNextStep {
		_, err := play(t, c, id, prompt)
		return failure(t, err).Provider.Next
	}
	require.Equal(t, anew, next("refused half"))
	first, err := c.ProgramSession(id)
	require.NoError(t, err)
	require.Equal(t, goOn, next("Go on."), "the client gives the earlier prompt again, in front of this one")
	now, err := c.ProgramSession(id)
	require.NoError(t, err)
	require.NotEqual(t, first, now)

	id = create(t, c)
	_, err = play(t, c, id, "say something")
	require.NoError(t, err)
	require.Equal(t, goOn, next("refused half"), "the session has an answer")
}

func TestRetriesReachTheManagerAsTheyAreShown(t *testing.T) {
	c := linesClient(t)
	var got []bgagent.Report
	_, err := c.RunTurn(t.Context(), create(t, c), bgagent.Prompt{Text: `print {"type":"session","id":"s"}
{"type":"retrying","status":503,"tries":1,"at":"2026-11-29T10:00:00Z","next":"continue","text":"busy"}
{"type":"retrying","kind":"rate limit","tries":2}
{"type":"message","text":"done"}
{"type":"end"}
{"type":"retrying","status":503,"tries":3}`}, bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportRetrying {
			got = append(got, r)
		}
	}))
	require.NoError(t, err)
	require.Equal(t, []bgagent.Report{
		{Kind: bgagent.ReportRetrying, Provider: &bgagent.ProviderError{Kind: overloaded, Status: 503, Tries: 1, Next: goOn, Message: "busy"}, RetryAt: time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)},
		{Kind: bgagent.ReportRetrying, Provider: &bgagent.ProviderError{Kind: limited, Tries: 2}},
	}, got)
}

func TestAPromptThatIsGivenAgainIsToldOnce(t *testing.T) {
	const refused = `print {"type":"error","status":429,"next":"repeat"}` + "\n" + `{"type":"end","stop":"error"}`
	for _, forgets := range []bool{false, true} {
		p := Lines("fake")
		p.ForgetsUnanswered = forgets
		var stored []byte
		home := bgagent.NewReporter(func(r bgagent.Report) {
			if r.Kind == bgagent.ReportState {
				stored = r.Saved
			}
		})
		c := clientOf(t, fakeAgent(t, p))
		id := create(t, c)
		for range 2 { // the program never reports its session
			_, err := c.RunTurn(t.Context(), id, bgagent.Prompt{Text: refused, Instance: "i"}, home)
			require.Equal(t, bgagent.NextRepeat, failure(t, err).Provider.Next)
			require.NotContains(t, string(stored), "next")
		}
		end, err := play(t, c, id, "repeat this")
		require.NoError(t, err)
		require.Equal(t, "repeat this", end.Text, "the program gets only the prompt")
		page, err := c.Messages(t.Context(), id, "", 0)
		require.NoError(t, err)
		require.Len(t, page.Messages, 6, "the messages still show what happened")
	}
}
