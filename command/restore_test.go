//go:build linux

package command

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// fakeHost starts a host that runs a turn of the fake program.
func fakeHost(t *testing.T, kind, prompt string) *host {
	t.Helper()
	p := Lines("fake")
	if kind == "text" {
		p = Text("fake")
	}
	a := fakeAgent(t, p)
	return startHost(t, hostPlan{Preset: kind, Command: a.Command, Env: a.Env, Prompt: bgagent.Prompt{ID: "bg_1.1.1", Text: prompt}})
}

func TestRestoreEndsWhatAKilledHostHasLeft(t *testing.T) {
	t.Parallel()
	h := fakeHost(t, "", "childslow away stubborn")
	var pid int
	require.True(t, until(limit, func() bool {
		pid, _ = strconv.Atoi(strings.TrimSpace(string(h.read("text"))))
		return pid > 0
	}))
	h.waits("saved", `"wrote":true`)
	h.kill()
	require.True(t, runs(pid))
	c, state, _, err := h.restored()
	require.NoError(t, err)
	require.False(t, runs(pid))
	require.Equal(t, bgagent.PromptInterrupted, state, "the agent had begun to answer")
	end, err := h.next(c, "bg_1.2.1", "recall")
	require.NoError(t, err)
	require.Equal(t, "childslow away stubborn", end.Text, "the program continues its session")
}

func TestAnAnswerThatAKilledHostHasReadIsNotLost(t *testing.T) {
	t.Parallel()
	h := fakeHost(t, "", "linger for you")
	h.waits("saved", `"ended":true`)
	h.kill()
	c, state, end, err := h.restored()
	require.NoError(t, err)
	require.Equal(t, bgagent.PromptAnswered, state)
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "done, and for you"}, end)
	end, err = h.next(c, "bg_1.2.1", "recall")
	require.NoError(t, err)
	require.Equal(t, "linger for you", end.Text)
}

func TestWhatCannotBeKnownIsUnknown(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]*host{
		"plain text":      fakeHost(t, "text", "slow"),
		"nothing printed": fakeHost(t, "", "muteblock"),
	} {
		require.True(t, until(limit, func() bool { return h.program() > 0 && len(h.read("saved")) > 0 }))
		pid := h.program()
		h.kill()
		_, state, _, err := h.restored()
		require.NoError(t, err, name)
		require.Equal(t, bgagent.PromptUnknown, state, name)
		require.False(t, runs(pid), name)
	}
}

// The function "looking" returns a client for a program whose stored session is whatever the
// function "look" returns.
func looking(t *testing.T, look func(Lookup) (Stored, error)) *Client {
	t.Helper()
	p := Lines("fake")
	p.Choose = []string{"--new={session}"}
	p.Look = func(_ context.Context, l Lookup) (Stored, error) { return look(l) }
	return clientOf(t, fakeAgent(t, p))
}

func TestTheProgramsRecordsSayWhatTheSessionHas(t *testing.T) {
	answer := bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "the answer"}
	earlier := []sent{{ID: "bg_1.1.1", Hash: hashOf("first")}}
	doubtful := []sent{{ID: "bg_1.1.1", Hash: hashOf("second"), Doubt: true}}
	damaged := errors.New("the disk is on fire")
	for name, x := range map[string]struct {
		stored Stored
		err    error
		saved  saved
		state  bgagent.PromptState
		gone   bool
	}{
		"answered":                          {Stored{Prompts: []string{"first", "second\n"}, Ended: true, End: answer}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptAnswered, false},
		"answered, of a session's first":    {Stored{Prompts: []string{"system\n\nsecond"}, Ended: true, End: answer}, nil, saved{}, bgagent.PromptAnswered, false},
		"answered, but not understood":      {Stored{Prompts: []string{"second"}, Ended: true, End: answer, Unclear: true}, nil, saved{}, bgagent.PromptInterrupted, false},
		"no answer":                         {Stored{Prompts: []string{"first", "second"}}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptInterrupted, false},
		"behind a line that is a command":   {Stored{Prompts: []string{"first", lead + "second"}}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptInterrupted, false},
		"another prompt came after it":      {Stored{Prompts: []string{"second", "other"}, Ended: true, End: answer}, nil, saved{}, bgagent.PromptInterrupted, false},
		"missing":                           {Stored{Prompts: []string{"first"}, Ended: true, End: answer}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptMissing, false},
		"missing, with a text like another": {Stored{Prompts: []string{"first"}}, nil, saved{Own: "s", Sent: []sent{{ID: "bg_1.1.1", Hash: hashOf("first")}, {ID: "bg_1.1.2", Hash: hashOf("second"), Doubt: true}}}, bgagent.PromptMissing, false},
		"a prompt that is changed":          {Stored{Prompts: []string{"first", "SECOND"}}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptUnknown, false},
		"a file that is not understood":     {Stored{Prompts: []string{"first"}, Unclear: true}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptUnknown, false},
		"an earlier prompt is not there":    {Stored{}, nil, saved{Own: "s", Sent: earlier}, bgagent.PromptUnknown, false},
		"an earlier one may be this one":    {Stored{Prompts: []string{"second"}}, nil, saved{Own: "s", Sent: doubtful}, bgagent.PromptUnknown, false},
		"too many prompts to be remembered": {Stored{Prompts: []string{"first"}}, nil, saved{Own: "s", Sent: earlier, Cut: true}, bgagent.PromptUnknown, false},
		"missing, but its agent has worked": {Stored{Prompts: []string{"first"}}, nil, saved{Own: "s", Sent: earlier, Now: progress{Prompt: "bg_1.1.2", Instance: earlierLife, Called: true}}, bgagent.PromptInterrupted, false},
		"no session":                        {Stored{}, bgagent.ErrNoSession, saved{}, bgagent.PromptMissing, false},
		"no session, but a tool was called": {Stored{}, bgagent.ErrNoSession, saved{Own: "s", Now: progress{Prompt: "bg_1.1.2", Instance: earlierLife, Called: true}}, bgagent.PromptInterrupted, false},
		"the session was lost":              {Stored{}, bgagent.ErrNoSession, saved{Own: "s", Sent: earlier, Turns: 2, Answered: true}, bgagent.PromptMissing, true},
		"the records cannot be read":        {Stored{}, damaged, saved{Own: "s"}, bgagent.PromptUnknown, false},
		"the host has read the answer":      {Stored{}, damaged, saved{Own: "s", Now: progress{Prompt: "bg_1.1.2", Instance: earlierLife, Ended: true, Answer: "the answer"}}, bgagent.PromptAnswered, false},
		"the answer of another prompt":      {Stored{Prompts: []string{"second"}}, nil, saved{Own: "s", Now: progress{Prompt: "bg_1.1.1", Instance: earlierLife, Ended: true, Answer: "the answer"}}, bgagent.PromptInterrupted, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := looking(t, func(Lookup) (Stored, error) { x.stored.Session = "s"; return x.stored, x.err })
			state, end, err := c.RestoreSession(t.Context(), asks("second", x.saved))
			require.Equal(t, x.state, state)
			switch {
			case x.gone:
				require.ErrorIs(t, err, bgagent.ErrNoSession)
			case x.state == bgagent.PromptUnknown && x.err != nil:
				require.ErrorIs(t, err, damaged)
				require.ErrorIs(t, err, bgagent.ErrUnreadable, "nothing is running")
			default:
				require.NoError(t, err)
			}
			if state == bgagent.PromptAnswered {
				require.Equal(t, answer, end)
			} else {
				require.Zero(t, end)
			}
			_, err = c.FindSession(t.Context(), "cmd_x")
			require.Equal(t, x.gone, errors.Is(err, bgagent.ErrNoSession))
		})
	}
}

func TestAMissingPromptIsGivenToAnotherSessionOfTheProgram(t *testing.T) {
	var first, second Lookup
	c := looking(t, func(l Lookup) (Stored, error) { first = l; return Stored{}, bgagent.ErrNoSession })
	state, _, err := c.RestoreSession(t.Context(), asks("describe", saved{Turns: 1}))
	require.NoError(t, err)
	require.Equal(t, bgagent.PromptMissing, state)
	require.NotEmpty(t, first.Chosen)
	var state2 saved
	end, err := c.RunTurn(t.Context(), "cmd_x", bgagent.Prompt{ID: "bg_1.1.2", Text: "describe", Instance: secondLife}, bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportState {
			state2, _ = decodeSaved(r.Saved)
		}
	}))
	require.NoError(t, err)
	var d described
	require.NoError(t, json.Unmarshal([]byte(end.Text), &d))
	require.Contains(t, d.Env, InstanceVariable+"="+secondLife)

	// The next process computes the id with which the program was called in this turn.
	next := looking(t, func(l Lookup) (Stored, error) { second = l; return Stored{}, bgagent.ErrNoSession })
	r := asks("describe", saved{})
	r.Instance = secondLife
	r.Spec.Instance = "life-three"
	_, _, err = next.RestoreSession(t.Context(), r)
	require.NoError(t, err)
	require.NotEqual(t, first.Chosen, second.Chosen)
	require.Contains(t, d.Args, "--new="+second.Chosen)
	require.Equal(t, 2, state2.Turns)
	require.True(t, state2.Now.Ended, "the host can die before the manager has stored the answer")
	require.Equal(t, end.Text, state2.Now.Answer)
}

// The first manager sent the prompt to the program and died. The second manager sent the same
// prompt again. The saved state comes from the first manager.
func TestAStateFromBeforeTheRepetitionOfAPromptHidesNoSession(t *testing.T) {
	chosen := chosenID("cmd_x", "bg_1.1.2", earlierLife)
	answer := bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "the answer"}
	damaged := errors.New("the disk is on fire")
	has := func(id string, prompts ...string) Stored { return Stored{Session: id, Prompts: prompts} }
	type result struct {
		stored Stored
		err    error
	}
	none := result{err: bgagent.ErrNoSession}
	for name, x := range map[string]struct {
		first, second result // results for the session in the saved state, and for the other session
		sent          []sent
		state         bgagent.PromptState
		own           string
	}{
		"in the second session":                 {none, result{stored: has(chosen, "second")}, nil, bgagent.PromptInterrupted, chosen},
		"in the second session, and answered":   {none, result{stored: Stored{Session: chosen, Prompts: []string{"second"}, Ended: true, End: answer}}, nil, bgagent.PromptAnswered, chosen},
		"in the second, and the first is empty": {result{stored: has("s")}, result{stored: has(chosen, "second")}, nil, bgagent.PromptInterrupted, chosen},
		"in the first session":                  {result{stored: has("s", "second")}, none, nil, bgagent.PromptInterrupted, "s"},
		"in none":                               {none, none, nil, bgagent.PromptMissing, ""},
		"in none, but the first exists":         {result{stored: has("s", "first")}, none, []sent{{ID: "bg_1.1.1", Hash: hashOf("first")}}, bgagent.PromptMissing, "s"},
		"the second cannot be read":             {none, result{err: damaged}, nil, bgagent.PromptUnknown, "s"},
		"the second is not understood":          {none, result{stored: Stored{Session: chosen, Unclear: true}}, nil, bgagent.PromptUnknown, chosen},
	} {
		t.Run(name, func(t *testing.T) {
			c := looking(t, func(l Lookup) (Stored, error) {
				if l.Session == "s" {
					return x.first.stored, x.first.err
				}
				require.Empty(t, l.Session)
				require.Equal(t, chosen, l.Chosen)
				return x.second.stored, x.second.err
			})
			old := progress{Prompt: "bg_1.1.2", Instance: "life-zero", Called: true}
			state, end, err := c.RestoreSession(t.Context(), asks("second", saved{Own: "s", Sent: x.sent, Now: old}))
			require.Equal(t, x.second.err == damaged, errors.Is(err, damaged))
			require.Equal(t, err == nil, !errors.Is(err, damaged))
			require.Equal(t, x.state, state)
			require.Equal(t, state == bgagent.PromptAnswered, end == answer)
			own, err := c.ProgramSession("cmd_x")
			require.NoError(t, err)
			require.Equal(t, x.own, own)
		})
	}
}

func TestASessionGetsAChosenIDOnlyIfTheManagerHasAStore(t *testing.T) {
	c := looking(t, nil)
	end, err := play(t, c, create(t, c), "describe")
	require.NoError(t, err)
	require.NotContains(t, end.Text, "--new=")
	require.NotContains(t, end.Text, InstanceVariable)
}

func TestProcessesCanBeFoundByTheHostAndByItsManager(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.Instance = "the-host" })
	end, err := c.RunTurn(t.Context(), create(t, c), bgagent.Prompt{Text: "describe", Instance: "the-manager"}, nil)
	require.NoError(t, err)
	require.Contains(t, end.Text, InstanceVariable+"=the-host/the-manager")
}

func TestASessionInATurnIsBusyUntilTheTurnHasStopped(t *testing.T) {
	c := linesClient(t)
	id := create(t, c)
	turn := begin(t.Context(), c, id, "slow")
	<-turn.texts
	r := asks("slow", saved{})
	r.Session = id
	_, _, err := c.RestoreSession(t.Context(), r)
	require.ErrorIs(t, err, bgagent.ErrBusy)
	<-turn.done
	require.Equal(t, bgagent.StopAborted, turn.end.Stop)
	_, _, err = c.RestoreSession(t.Context(), r)
	require.NoError(t, err)
}

func TestARestoreThatHasNoTimeIsBusy(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := linesClient(t).RestoreSession(ctx, asks("slow", saved{}))
	require.ErrorIs(t, err, bgagent.ErrBusy)
}

func TestRestoreEndsNothingOfALivingHost(t *testing.T) {
	for _, instance := range []string{secondLife, "other-life", "life-without-processes-2", "host"} {
		cmd := exec.Command("sleep", "300")
		cmd.Env = append(os.Environ(), InstanceVariable+"="+instance)
		require.NoError(t, cmd.Start())
		defer func() { _ = cmd.Wait() }()
		defer func() { _ = cmd.Process.Kill() }()
		c := linesClient(t, func(cfg *Config) { cfg.Instance = "host" })
		for _, of := range []string{secondLife, earlierLife, "host"} {
			r := asks("slow", saved{})
			r.Instance = of
			state, _, err := c.RestoreSession(t.Context(), r)
			require.Equal(t, bgagent.PromptUnknown, state)
			if of == earlierLife {
				require.NoError(t, err)
				continue
			}
			require.ErrorContains(t, err, "give every run of the host another Config.Instance")
			require.NotErrorIs(t, err, bgagent.ErrNoSession)
			r.Last = bgagent.Prompt{}
			_, _, err = c.RestoreSession(t.Context(), r)
			require.NoError(t, err)
		}
		require.True(t, runs(cmd.Process.Pid), instance)
	}
}

func TestAnEarlierHostWithoutAnIDDecidesNothing(t *testing.T) {
	r := asks("slow", saved{})
	r.Instance, r.Spec.Instance = "", ""
	_, _, err := linesClient(t).RestoreSession(t.Context(), r)
	require.ErrorContains(t, err, "cannot be distinguished from those of this host")
}

func TestASessionThatWasNeverPromptedIsThere(t *testing.T) {
	c := linesClient(t)
	r := asks("", saved{})
	r.Saved, r.Last = nil, bgagent.Prompt{}
	_, _, err := c.RestoreSession(t.Context(), r)
	require.NoError(t, err)
	end, err := play(t, c, "cmd_x", "say hello")
	require.NoError(t, err)
	require.Equal(t, "As you wish: hello", end.Text)
	r.Session = ""
	state, _, err := c.RestoreSession(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, bgagent.PromptMissing, state)
}

func TestAnUnknownAgentAndAnUnreadableStateAreErrors(t *testing.T) {
	c := linesClient(t)
	r := asks("x", saved{})
	r.Spec.Agent = "nobody"
	_, _, err := c.RestoreSession(t.Context(), r)
	var unknown *bgagent.NoSuchAgentError
	require.ErrorAs(t, err, &unknown)
	for text, want := range map[string]string{"{": "cannot be read", `{"v":2}`: "has version 2", `[]`: "cannot be read", `{}`: "has version 0"} {
		r = asks("x", saved{})
		r.Saved = []byte(text)
		_, _, err = c.RestoreSession(t.Context(), r)
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, c.Close(context.Background()))
	_, _, err = c.RestoreSession(t.Context(), asks("x", saved{}))
	require.ErrorIs(t, err, ErrClosed)
}

func TestTheTodoListOfClaudeOutlivesTheProcess(t *testing.T) {
	list := &claudeTodos{}
	list.set("1", "look", "completed")
	list.set("2", "write", "pending")
	data, err := json.Marshal(list.saved())
	require.NoError(t, err)
	var back []savedTodo
	require.NoError(t, json.Unmarshal(data, &back))
	again := restoredTodos(back)
	require.Equal(t, list.todos(), again.todos())
	require.True(t, again.set("2", "", "completed"))
	require.Len(t, again.todos(), 2)
}

func TestHomeIsTheMachineAndTheUser(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(os.Getuid())+"@"+host, linesClient(t).Home())
}

func TestALookupMayRunTheProgram(t *testing.T) {
	p := Text("sh")
	p.Resume = Form{Prompt: []string{"{session}"}}
	dir := tempdir.New(t)
	var out []byte
	var failed, stopped error
	p.Look = func(ctx context.Context, l Lookup) (Stored, error) {
		out, _ = l.Run(ctx, "-c", "pwd; echo $"+InstanceVariable)
		_, failed = l.Run(ctx, "-c", "echo broken >&2; exit 3")
		short, cancel := context.WithTimeoutCause(ctx, 50*time.Millisecond, context.DeadlineExceeded)
		defer cancel()
		_, stopped = l.Run(short, "-c", "sleep 300")
		return Stored{}, bgagent.ErrNoSession
	}
	c := clientOf(t, Agent{Program: p, Directory: dir})
	_, _, err := c.RestoreSession(t.Context(), asks("x", saved{}))
	require.NoError(t, err)
	require.Equal(t, dir+"\n"+secondLife+"\n", string(out))
	require.EqualError(t, failed, "it exited with code 3: broken")
	require.ErrorIs(t, stopped, context.DeadlineExceeded)
}
