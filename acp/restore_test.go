//go:build unix

package acp

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// The function "kept" launches a host whose fake agent stores its sessions in files. It returns the
// host and the last of its prompts.
func kept(t *testing.T, fault string, prompts ...string) (h *host, last bgagent.Prompt) {
	t.Helper()
	cfg := program(t, fault, "FAKE_STORE="+tempdir.New(t))
	o := order{Command: cfg.Command, Dir: cfg.Dir, Env: cfg.Env, Spec: bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Instance: uuid.NewString()}}
	for i, text := range prompts {
		last = bgagent.Prompt{ID: uuid.NewString(), Task: "bg_1", Attempt: 1, Turn: i + 1, Agent: "fake", Text: text, Instance: o.Spec.Instance}
		o.Prompts = append(o.Prompts, last)
	}
	return startHost(t, o), last
}

// The method "store" returns the path of a file in the directory where the fake agent stores its
// sessions.
func (h *host) store(name string) string {
	return filepath.Join(strings.TrimPrefix(h.o.Env[1], "FAKE_STORE="), name)
}

// The method "saves" returns when the saved state contains the text.
func (h *host) saves(text string) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return strings.Contains(h.read("saved"), text) }, time.Minute, 5*time.Millisecond)
}

// The function "states" checks that RestoreSession returns the wanted state and no error. It
// returns how the turn ended.
func states(t *testing.T, c *Client, in bgagent.SessionRestore, want bgagent.PromptState) bgagent.TurnEnd {
	t.Helper()
	state, end, err := c.RestoreSession(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, want.String(), state.String())
	return end
}

// goesOn runs the next turn of a restored session and returns its answer.
func goesOn(t *testing.T, c *Client, in bgagent.SessionRestore, text string) string {
	t.Helper()
	e := run(t, c, in.Session, bgagent.Prompt{ID: "next", Task: "bg_1", Agent: "fake", Text: text, Instance: in.Spec.Instance}).wait()
	require.NoError(t, e.err)
	return e.Text
}

func TestAnAnswerThatTheHostHasSeenIsNotLost(t *testing.T) {
	for name, answer := range map[string]string{"short": "hello", "longer than the saved state": strings.Repeat("hello ", maxSavedText/6) + "you"} {
		t.Run(name, func(t *testing.T) {
			h, last := kept(t, "", "say "+answer)
			require.Equal(t, answer, h.read("end0"))
			h.killWithAgent(true)
			in := h.restore(last)
			require.Less(t, len(in.Saved), maxSavedText+1000)
			c := open(t, h.o.config())
			end := bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: answer, Usage: bgagent.Usage{InputTokens: 10, OutputTokens: 5}}
			require.Equal(t, end, states(t, c, in, bgagent.PromptAnswered))
			require.Equal(t, "say "+answer, goesOn(t, c, in, "recall"))
		})
	}
}

func TestAnAnswerCountsFromTheMomentThatTheAgentHasEndedItsTurn(t *testing.T) {
	h, last := kept(t, "", "say hello\nlate 100ms") // the host waits for late pieces after the answer
	h.saves(`"answered":true`)
	in := h.restore(last)
	h.killWithAgent(true)
	var m memory
	require.NoError(t, json.Unmarshal(in.Saved, &m))
	m.Now.End = nil // the state must lack the end even if the turn ended before the host was killed
	in.Saved, _ = json.Marshal(m)
	require.Equal(t, "hello", states(t, open(t, h.o.config()), in, bgagent.PromptAnswered).Text)
}

func TestATurnThatBrokeOffIsInterruptedAndItsSessionGoesOn(t *testing.T) {
	for _, prompts := range [][]string{{"wait"}, {"say it", "wait"}, {"half a call\nwait"}, {"/wait\nwait"}} {
		t.Run(strings.Join(prompts, ", "), func(t *testing.T) {
			h, last := kept(t, "", prompts...)
			require.Eventually(t, func() bool { return h.read("text") == "I wait" }, time.Minute, time.Millisecond)
			in := h.restore(last)
			h.killWithAgent(true)
			c := open(t, h.o.config())
			require.Empty(t, states(t, c, in, bgagent.PromptInterrupted))
			require.Contains(t, goesOn(t, c, in, "recall"), prompts[0])
		})
	}
}

func TestAPartOfAnAnswerIsNoAnswer(t *testing.T) {
	h, last := kept(t, "", "wait")
	h.read("text")
	in := h.restore(last)
	h.killWithAgent(true)
	text, err := os.ReadFile(h.store(in.Session))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(h.store(in.Session), []byte(strings.Replace(string(text), `"Agent":null`, `"Agent":["I wait"]`, 1)), 0o600))
	require.Empty(t, states(t, open(t, h.o.config()), in, bgagent.PromptInterrupted))
}

func TestAPromptThatTheAgentHasNotStoredIsMissing(t *testing.T) {
	for _, prompts := range [][]string{{"wait"}, {"say first", "wait"}, {"say first", "say first", "say second", "wait"}} {
		t.Run(strings.Join(prompts, ", "), func(t *testing.T) {
			h, last := kept(t, "late store", prompts...)
			require.Eventually(t, func() bool { return h.read("text") == "I wait" }, time.Minute, time.Millisecond)
			in := h.restore(last)
			h.killWithAgent(true)
			c := open(t, h.o.config())
			require.Empty(t, states(t, c, in, bgagent.PromptMissing))
			goesOn(t, c, in, "say on we go")
			c.mu.Lock()
			defer c.mu.Unlock()
			require.Len(t, c.sessions[in.Session].memory.Sent, len(prompts), "the missing prompt counts as sent")
		})
	}
}

// Codex's replay can lack a prompt that codex nevertheless puts into the next request to the model.
func TestAPromptThatTheModelMightHaveIsNotSentAgain(t *testing.T) {
	for name, test := range map[string]struct {
		prompts []string
		until   string // part of the saved state before the kill
		want    bgagent.PromptState
	}{
		"the first":                  {[]string{"wait"}, `"now"`, bgagent.PromptMissing},
		"a later one":                {[]string{"say first", "wait"}, `"now"`, bgagent.PromptUnknown},
		"the first, which has begun": {[]string{"tool look\nwait"}, `"called":true`, bgagent.PromptUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			h, last := kept(t, "half store", test.prompts...)
			require.Eventually(t, func() bool { return h.read("text") == "I wait" }, time.Minute, time.Millisecond)
			h.saves(test.until)
			in := h.restore(last)
			h.killWithAgent(true)
			c := open(t, h.o.config())
			state, end, err := c.RestoreSession(t.Context(), in)
			require.Equal(t, test.want.String(), state.String())
			require.Empty(t, end)
			if test.want != bgagent.PromptMissing {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, bgagent.ErrNoSession, "the prompt would be sent into the same session again")
			require.Zero(t, c.known())
			closed := h.store("closed " + in.Session)
			require.Eventually(t, func() bool { _, err := os.Stat(closed); return err == nil }, time.Minute, time.Millisecond, "the agent still has the session open")
			in.Session, err = c.CreateSession(t.Context(), in.Spec)
			require.NoError(t, err)
			require.Equal(t, "hello", goesOn(t, c, in, "say hello"))
		})
	}
}

func TestASessionThatDoesNotExistIsMissing(t *testing.T) {
	h, last := kept(t, "", "wait")
	h.read("text")
	in := h.restore(last)
	h.killWithAgent(true)
	require.NoError(t, os.Remove(h.store(in.Session)))
	c := open(t, h.o.config())
	for _, last := range []bgagent.Prompt{last, {}} { // the zero prompt stands for a session that was never prompted
		in.Last = last
		state, _, err := c.RestoreSession(t.Context(), in)
		require.ErrorIs(t, err, bgagent.ErrNoSession)
		require.Equal(t, bgagent.PromptMissing, state)
		require.Zero(t, c.known())
	}
	// The file of the next session is removed, as if the agent stored a session only after its first
	// prompt. Therefore, no other process can load the session.
	id, err := c.CreateSession(t.Context(), in.Spec)
	require.NoError(t, err)
	require.NoError(t, os.Remove(h.store(id)))
	next := in
	next.Session = id
	require.Equal(t, "hello", goesOn(t, c, next, "say hello"))
	in.Session = "" // it is unknown whether the session was created
	states(t, c, in, bgagent.PromptMissing)
}

func TestWorkThatHadBegunIsNotRepeatedInANewSession(t *testing.T) {
	for _, script := range []string{"tool look\nwait", "read /nothing\nwait"} {
		t.Run(script, func(t *testing.T) {
			h, last := kept(t, "", script)
			h.saves(`"called":true`)
			in := h.restore(last)
			h.killWithAgent(true)
			require.NoError(t, os.Remove(h.store(in.Session)))
			state, _, err := open(t, h.o.config()).RestoreSession(t.Context(), in)
			require.ErrorContains(t, err, "had begun to work")
			require.NotErrorIs(t, err, bgagent.ErrNoSession)
			require.Equal(t, bgagent.PromptUnknown, state)
		})
	}
}

func TestASessionThatCannotBeJudgedIsUnknown(t *testing.T) {
	h, last := kept(t, "summary", "say it", "wait")
	require.Eventually(t, func() bool { return h.read("text") == "I wait" }, time.Minute, time.Millisecond)
	in := h.restore(last)
	h.killWithAgent(true)
	states(t, open(t, h.o.config()), in, bgagent.PromptUnknown)
}

func TestAnAgentThatCannotLoadSessionsLeavesTheLastPromptUnknown(t *testing.T) {
	h, last := kept(t, "", "wait")
	h.read("text")
	in := h.restore(last)
	h.killWithAgent(true)
	cfg := h.o.config()
	cfg.Env = cfg.Env[:1]
	c := open(t, cfg)
	state, _, err := c.RestoreSession(t.Context(), in)
	require.ErrorContains(t, err, "cannot load sessions")
	require.NotErrorIs(t, err, bgagent.ErrNoSession)
	require.ErrorIs(t, err, bgagent.ErrUnreadable, "nothing is running")
	require.Equal(t, bgagent.PromptUnknown, state)
	in.Last = bgagent.Prompt{}
	_, _, err = c.RestoreSession(t.Context(), in)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
}

func TestASessionThatAnotherProcessHasIsBusy(t *testing.T) {
	h, last := kept(t, "", "wait")
	h.read("text")
	in := h.restore(last)
	h.killWithAgent(true)
	require.NoError(t, os.WriteFile(h.store("in use"), nil, 0o600))
	c := open(t, h.o.config())
	_, _, err := c.RestoreSession(t.Context(), in)
	require.ErrorIs(t, err, bgagent.ErrBusy)
	require.NotErrorIs(t, err, bgagent.ErrNoSession)
	require.NoError(t, os.Remove(h.store("in use")))
	states(t, c, in, bgagent.PromptInterrupted)
}

func TestAnAgentThatFailsToLoadASessionHasNotLostIt(t *testing.T) {
	h, last := kept(t, "", "say hello")
	h.read("end0")
	in := h.restore(last)
	h.killWithAgent(true)
	require.NoError(t, os.WriteFile(h.store("broken"), nil, 0o600))
	c := open(t, h.o.config())
	never := in
	never.Last = bgagent.Prompt{}
	state, _, err := c.RestoreSession(t.Context(), never)
	require.ErrorContains(t, err, "the agent's executable was not found")
	require.NotErrorIs(t, err, bgagent.ErrNoSession)
	require.Equal(t, bgagent.PromptUnknown, state)

	states(t, c, in, bgagent.PromptAnswered)
	e := run(t, c, in.Session, bgagent.Prompt{ID: "next", Task: "bg_1", Agent: "fake", Text: "recall", Instance: in.Spec.Instance}).wait()
	require.ErrorContains(t, e.err, "the agent's executable was not found")
	require.NotErrorIs(t, e.err, bgagent.ErrNoSession)
	require.NoError(t, os.Remove(h.store("broken")))
	require.Equal(t, "say hello", goesOn(t, c, in, "recall"))
}

func TestAnAgentThatDoesNotStartIsUnreachable(t *testing.T) {
	h, last := kept(t, "", "wait")
	h.read("text")
	in := h.restore(last)
	h.killWithAgent(true)
	cfg := h.o.config()
	cfg.Env = []string{"FAKE_AGENT=exit"}
	_, _, err := open(t, cfg).RestoreSession(t.Context(), in)
	require.ErrorIs(t, err, bgagent.ErrUnreachable)
	require.ErrorContains(t, err, "cannot find my configuration")
}

func TestWhatTheDeadHostHasLeftIsEndedAndNothingElse(t *testing.T) {
	dead, last := kept(t, "", "spawn\nwait")
	other, _ := kept(t, "", "spawn\nwait")
	spawned := func(h *host) (pid string) {
		require.Eventually(t, func() bool { pid = h.read("first"); return pid != "" }, time.Minute, time.Millisecond)
		return pid
	}
	left, stays := spawned(dead), spawned(other)
	in := dead.restore(last)
	dead.killWithAgent(false)
	require.True(t, alive(t, left))
	cfg := dead.o.config()
	c := open(t, cfg)
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Task: "bg_2", Agent: "fake", Instance: in.Spec.Instance})
	require.NoError(t, err)
	in.Spec.Task = "bg_1"
	child := goesOn(t, c, bgagent.SessionRestore{Session: id, Spec: in.Spec}, "spawn")
	states(t, c, in, bgagent.PromptInterrupted)
	require.False(t, alive(t, left), "a process of the dead host is still running")
	require.True(t, alive(t, stays), "a process of another host was terminated")
	require.True(t, alive(t, child), "a process of this host was terminated")
	require.Contains(t, goesOn(t, c, in, "env BGAGENT_INSTANCE"), "BGAGENT_INSTANCE="+in.Spec.Instance)
	require.Equal(t, 1, c.processes())
}

func TestTheInstanceOfThisHostIsNeverEnded(t *testing.T) {
	h, last := kept(t, "", "wait")
	h.read("text")
	in := h.restore(last)
	pid := h.read("agent")
	for _, edit := range []func(*Config, *bgagent.SessionRestore){
		func(cfg *Config, _ *bgagent.SessionRestore) { cfg.Instance = in.Instance },
		func(_ *Config, in *bgagent.SessionRestore) { in.Spec.Instance = in.Instance },
		func(_ *Config, in *bgagent.SessionRestore) { in.Instance = "" },
	} {
		cfg, in := h.o.config(), in
		edit(&cfg, &in)
		state, _, err := open(t, cfg).RestoreSession(t.Context(), in)
		require.ErrorContains(t, err, "give every run of the host another Config.Instance")
		require.Equal(t, bgagent.PromptUnknown, state)
		require.True(t, alive(t, pid))
	}
}

func TestAClientThatAManagerHasLeftServesTheNextOne(t *testing.T) {
	cfg := program(t, "", "FAKE_STORE="+tempdir.New(t))
	c := open(t, cfg)
	spec := bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Directory: tempdir.New(t), Instance: "one"}
	id, err := c.CreateSession(t.Context(), spec)
	require.NoError(t, err)
	p := bgagent.Prompt{ID: "p", Task: "bg_1", Attempt: 1, Turn: 1, Agent: "fake", Text: "env BGAGENT_INSTANCE", Instance: "one"}
	e := run(t, c, id, p).wait()
	require.Equal(t, "BGAGENT_INSTANCE=one", e.Text)
	saved := e.of(bgagent.ReportState)
	require.NotEmpty(t, saved)
	in := bgagent.SessionRestore{Spec: spec, Session: id, Saved: saved[0].Saved, Last: p, Instance: "one"}
	in.Spec.Instance = "two"
	require.Equal(t, "BGAGENT_INSTANCE=one", states(t, c, in, bgagent.PromptAnswered).Text)
	require.Equal(t, "BGAGENT_INSTANCE=two", goesOn(t, c, in, "env BGAGENT_INSTANCE"))
	require.Equal(t, 1, c.processes())
}

func TestASessionIsInOneProcessOfTheAgentAtATime(t *testing.T) {
	for name, restores := range map[string]bool{"restored": true, "only prompted": false} {
		t.Run(name, func(t *testing.T) {
			c := open(t, program(t, "exclusive", "FAKE_STORE="+tempdir.New(t)))
			spec := bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Directory: tempdir.New(t), Instance: "one"}
			id, err := c.CreateSession(t.Context(), spec)
			require.NoError(t, err)
			in := bgagent.SessionRestore{Spec: spec, Session: id}
			require.Equal(t, "BGAGENT_INSTANCE=one", goesOn(t, c, in, "env BGAGENT_INSTANCE"))
			in.Spec.Instance = "two"
			if restores { // the task had ended, so there is no last prompt
				states(t, c, in, bgagent.PromptMissing)
			}
			require.Equal(t, "BGAGENT_INSTANCE=two", goesOn(t, c, in, "env BGAGENT_INSTANCE"))
			require.Equal(t, 1, c.processes())
		})
	}
}

func TestAnotherSessionOfTheEarlierManagerCanBeInATurn(t *testing.T) {
	c := open(t, program(t, "exclusive", "FAKE_STORE="+tempdir.New(t)))
	spec := bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Directory: tempdir.New(t), Instance: "one"}
	id, err := c.CreateSession(t.Context(), spec)
	require.NoError(t, err)
	busy, err := c.CreateSession(t.Context(), spec)
	require.NoError(t, err)
	in := bgagent.SessionRestore{Spec: spec, Session: id}
	goesOn(t, c, in, "say first")
	l := run(t, c, busy, bgagent.Prompt{ID: "p", Task: "bg_2", Agent: "fake", Text: "wait", Instance: "one"})
	<-l.said
	in.Spec.Instance = "two"
	require.Equal(t, "say first", goesOn(t, c, in, "recall"))
	require.Equal(t, 2, c.processes())
	l.cancel()
	l.wait()
}

func TestASavedDirectoryDoesNotChangeWithALink(t *testing.T) {
	dir, err := filepath.EvalSymlinks(tempdir.New(t))
	require.NoError(t, err)
	link := filepath.Join(tempdir.New(t), "current")
	require.NoError(t, os.Symlink(dir, link))
	c := open(t, program(t, "", "FAKE_STORE="+tempdir.New(t)))
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Directory: link, Instance: "one"})
	require.NoError(t, err)
	e := run(t, c, id, bgagent.Prompt{ID: "p", Task: "bg_1", Agent: "fake", Text: "say hello", Instance: "one"}).wait()
	saved := e.of(bgagent.ReportState)
	require.NotEmpty(t, saved)
	m, err := recall(saved[0].Saved)
	require.NoError(t, err)
	require.Equal(t, dir, m.Directory)
}

func TestASavedEndHasTheUsageOfItsTurn(t *testing.T) {
	c := open(t, program(t, ""))
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Directory: tempdir.New(t), Instance: "one"})
	require.NoError(t, err)
	e := run(t, c, id, bgagent.Prompt{ID: "p", Task: "bg_1", Agent: "fake", Text: "cost 0.25\nsay a\ncost 1", Instance: "one"}).wait()
	require.Equal(t, 0.75, e.TurnEnd.Usage.Cost, "the first cost was reported in the turn")
	saved := e.of(bgagent.ReportState)
	m, err := recall(saved[len(saved)-1].Saved)
	require.NoError(t, err)
	end, ok := m.Now.turnEnd()
	require.True(t, ok)
	require.Equal(t, 1.0, end.Usage.Cost)
}

func TestASavedStateThatCannotBeReadIsAnError(t *testing.T) {
	c := open(t, program(t, ""))
	for want, saved := range map[string]string{"cannot be read": "{", "has version 2": `{"v":2}`} {
		state, _, err := c.RestoreSession(t.Context(), bgagent.SessionRestore{Session: "s", Saved: []byte(saved), Instance: uuid.NewString()})
		require.ErrorContains(t, err, want)
		require.Equal(t, bgagent.PromptUnknown, state)
	}
	require.Zero(t, c.known())
	require.NotEmpty(t, c.Home())
}

func TestWithoutAStoreNothingIsSaved(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		require.Empty(t, prompt(t, c, create(t, c), "tool look\nsay hello").of(bgagent.ReportState))
	})
}

func TestASessionOfGeminiIsNotLoadedInTheMinuteOfItsCreation(t *testing.T) {
	for name, made := range map[string]string{"known": `,"made":"2000-01-01T00:00:20Z"`, "not known": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the clock in the bubble starts at midnight
				dir := tempdir.New(t)
				c := piped(t, Config{Dir: dir}, func() *fakeAgent { return &fakeAgent{store: dir} })
				c.cfg.Command = []string{"gemini"}
				require.NoError(t, os.WriteFile(filepath.Join(dir, "s"), []byte(`{"Dir":"/","User":["wait"]}`), 0o600))
				time.Sleep(30 * time.Second)
				in := bgagent.SessionRestore{Session: "s", Last: bgagent.Prompt{ID: "p", Attempt: 1, Turn: 1, Text: "wait"}, Instance: uuid.NewString()}
				in.Saved = []byte(`{"v":1,"directory":"` + dir + `"` + made + `}`)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				_, _, err := c.RestoreSession(ctx, in)
				cancel()
				require.ErrorIs(t, err, bgagent.ErrUnreachable)
				require.ErrorContains(t, err, "cannot load it before 00:01:00")
				states(t, c, in, bgagent.PromptInterrupted)
				require.WithinRange(t, time.Now().UTC(), time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC), time.Date(2000, 1, 1, 0, 1, 2, 0, time.UTC))
			})
		})
	}
}
