//go:build linux

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// lastSaved runs a turn of a manager with a store and returns the last saved state.
func lastSaved(t *testing.T, c *Client, session, id, prompt string) (data []byte) {
	t.Helper()
	_, err := c.RunTurn(t.Context(), session, bgagent.Prompt{ID: id, Text: prompt, Instance: firstLife}, bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportState {
			data = r.Saved
		}
	}))
	require.NoError(t, err)
	return data
}

func TestAConversationThatTheProgramDoesNotKeepIsRepeatedByTheNextProcess(t *testing.T) {
	a := fakeAgent(t, Lines("fake"))
	c := clientOf(t, a)
	id := create(t, c)
	const silent = "print {\"type\":\"message\",\"text\":\"forty-two\"}\n{\"type\":\"end\"}"
	data := lastSaved(t, c, id, "bg_1.1.1", silent)
	r := bgagent.SessionRestore{Spec: bgagent.SessionSpec{Agent: "a", Instance: secondLife}, Session: id, Saved: data, Instance: firstLife}
	next := clientOf(t, a)
	_, _, err := next.RestoreSession(t.Context(), r)
	require.NoError(t, err)
	end, err := play(t, next, id, "repeat")
	require.NoError(t, err)
	require.Contains(t, end.Text, "# You answered\n\nforty-two")
	require.Contains(t, end.Text, "# You are asked now\n\nrepeat")

	long := lastSaved(t, c, id, "bg_1.1.2", "print {\"type\":\"message\",\"text\":\""+strings.Repeat("x", maxSavedText)+"\"}\n{\"type\":\"end\"}")
	require.Less(t, len(long), 2000)
	r.Saved = long
	_, _, err = clientOf(t, a).RestoreSession(t.Context(), r)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
	require.ErrorContains(t, err, "too long to be repeated")
}

func TestAConversationThatIsLostStaysLostWhenTheRestoreIsRepeated(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := looking(t, func(Lookup) (Stored, error) {
		if ctx.Err() == nil {
			cancel()
			return Stored{}, ctx.Err()
		}
		return Stored{}, bgagent.ErrNoSession
	})
	r := asks("again", saved{Turns: 1, Lost: true})
	_, _, err := c.RestoreSession(ctx, r)
	require.ErrorIs(t, err, bgagent.ErrBusy)
	_, _, err = c.RestoreSession(t.Context(), r)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
	require.ErrorContains(t, err, "too long to be repeated")
}

func TestTheSavedStateHasWhatTheNextTurnNeeds(t *testing.T) {
	p := Lines("fake")
	p.Decode = func() Decoder {
		lines := DecodeLines()
		return func(line []byte, o *Output) {
			lines(line, o)
			o.TotalUsage(bgagent.Usage{InputTokens: 100 * int64(o.turn)})
		}
	}
	a := fakeAgent(t, p)
	a.Directory = tempdir.New(t)
	c := clientOf(t, a)
	id := create(t, c)
	data := lastSaved(t, c, id, "bg_1.1.1", "say hello")
	x, err := decodeSaved(data)
	require.NoError(t, err)
	own, err := c.ProgramSession(id)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), x.Now.Began, limit)
	require.Equal(t, saved{
		Version: savedVersion, Own: own, Directory: a.Directory, Turns: 1, Used: bgagent.Usage{InputTokens: 100}, Answered: true,
		Sent: []sent{{ID: "bg_1.1.1", Hash: hashOf("say hello")}}, Now: progress{Prompt: "bg_1.1.1", Instance: firstLife, Began: x.Now.Began, Wrote: true, Ended: true, Answer: "As you wish: hello", Used: bgagent.Usage{InputTokens: 100}},
	}, x)

	a.Directory = tempdir.New(t)
	next := clientOf(t, a)
	state, found, err := next.RestoreSession(t.Context(), bgagent.SessionRestore{Spec: bgagent.SessionSpec{Agent: "a"}, Session: id, Saved: data, Instance: firstLife, Last: bgagent.Prompt{ID: "bg_1.1.1", Text: "say hello"}})
	require.NoError(t, err)
	require.Equal(t, bgagent.PromptAnswered, state)
	require.Equal(t, bgagent.Usage{InputTokens: 100}, found.Usage, "the answer that is found has the usage of its turn")
	next = clientOf(t, a)
	_, _, err = next.RestoreSession(t.Context(), bgagent.SessionRestore{Spec: bgagent.SessionSpec{Agent: "a"}, Session: id, Saved: data, Instance: firstLife})
	require.NoError(t, err)
	var used int64
	end, err := next.RunTurn(t.Context(), id, bgagent.Prompt{Text: "describe"}, bgagent.NewReporter(func(r bgagent.Report) { used += r.Usage.InputTokens }))
	require.NoError(t, err)
	require.EqualValues(t, 100, used, "the tokens of the earlier process are not counted again")
	var d described
	require.NoError(t, json.Unmarshal([]byte(end.Text), &d))
	require.Contains(t, d.Args, "--session="+own)
	require.Equal(t, x.Directory, d.Dir, "the program finds its session only in that directory")
	page, err := next.Messages(t.Context(), id, "2", 0)
	require.NoError(t, err)
	require.Len(t, page.Messages, 2, "cursors of the earlier process stay valid")
}

func TestASessionKeepsItsDirectoryIfTheNextHostStartsElsewhere(t *testing.T) {
	at, err := filepath.EvalSymlinks(tempdir.New(t))
	require.NoError(t, err)
	for _, dir := range []string{"one", "two"} {
		require.NoError(t, os.Mkdir(filepath.Join(at, dir), 0o700))
	}
	link := filepath.Join(at, "current")
	require.NoError(t, os.Symlink("one", link))
	t.Chdir(at)
	for dir, want := range map[string]string{"one": "one", "./one/": "one", link: "one", "": ""} {
		a := fakeAgent(t, Lines("fake"))
		a.Directory = dir
		c := clientOf(t, a)
		id := create(t, c)
		data := lastSaved(t, c, id, "bg_1.1.1", "say hello")
		x, err := decodeSaved(data)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(at, want), x.Directory, dir)
		found, err := c.FindSession(t.Context(), id)
		require.NoError(t, err)
		require.True(t, dir == "" || filepath.IsAbs(found.Directory), found.Directory)
	}
}

func TestADirectoryIsNotKnownIfTheEarlierHostHasResolvedIt(t *testing.T) {
	for dir, want := range map[string]string{"": "", "here": "", "/src": "/src"} {
		c := looking(t, func(l Lookup) (Stored, error) {
			require.Equal(t, want, l.Directory)
			return Stored{}, bgagent.ErrNoSession
		})
		r := asks("x", saved{})
		r.Spec.Directory = dir
		_, _, err := c.RestoreSession(t.Context(), r)
		require.NoError(t, err)
	}
}

func TestPromptsThatTheProgramHasForgottenAreRepeatedByTheNextProcess(t *testing.T) {
	p := Lines("fake")
	p.ForgetsUnanswered = true
	a := fakeAgent(t, p)
	c := clientOf(t, a)
	id := create(t, c)
	data := lastSavedOfFailure(t, c, id, "bg_1.1.1", "fail first request")
	next := clientOf(t, a)
	_, _, err := next.RestoreSession(t.Context(), bgagent.SessionRestore{Spec: bgagent.SessionSpec{Agent: "a"}, Session: id, Saved: data, Instance: firstLife})
	require.NoError(t, err)
	next.mu.Lock()
	defer next.mu.Unlock()
	require.Equal(t, "fail first request\n\n", next.sessions[id].unanswered)
}

func lastSavedOfFailure(t *testing.T, c *Client, session, id, prompt string) (data []byte) {
	t.Helper()
	_, err := c.RunTurn(t.Context(), session, bgagent.Prompt{ID: id, Text: prompt, Instance: firstLife}, bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportState {
			data = r.Saved
		}
	}))
	require.Error(t, err)
	return data
}

func TestOnlyTheNewestPromptsAreRemembered(t *testing.T) {
	s := &session{agent: &Agent{}}
	for i := range maxSent + 10 {
		s.sendsLocked(fmt.Sprint(i), "again", false)
	}
	require.Len(t, s.sent, maxSent)
	require.True(t, s.sentCut)
	s.sendsLocked("10", "again", false)
	require.Len(t, s.sent, maxSent, "a repeated prompt is listed once")
	s.sendsLocked("x", "again", true)
	require.Len(t, s.sent, 1)
	require.False(t, s.sentCut)
}

func TestACostThatNoTurnCanHaveIsNotCounted(t *testing.T) {
	for _, cost := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, math.MaxFloat64} {
		for name, report := range map[string]func(*Output, bgagent.Usage){"Usage": (*Output).Usage, "TotalUsage": (*Output).TotalUsage} {
			p := Lines("fake")
			p.Decode = func() Decoder {
				lines := DecodeLines()
				return func(line []byte, o *Output) {
					lines(line, o)
					report(o, bgagent.Usage{InputTokens: 1, Cost: cost})
				}
			}
			c := clientOf(t, fakeAgent(t, p))
			x, err := decodeSaved(lastSaved(t, c, create(t, c), "bg_1.1.1", "say hello"))
			require.NoError(t, err)
			require.Equal(t, 1, x.Turns, "%s of %v: the state was not saved", name, cost)
			require.Zero(t, x.Now.Used.Cost)
		}
	}
}
