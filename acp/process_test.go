//go:build unix

package acp

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// The function "alive" reports whether the process is running. A zombie or a process that is
// exiting is not running. After a kill, such a process stays in the process table for a moment.
func alive(t testing.TB, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	require.NoError(t, err)
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return syscall.Kill(n, 0) == nil && !os.IsNotExist(err)
	}
	// In this file, the name of the process is in brackets, and other fields follow it. Of these,
	// the state is the 1st, the flags are the 7th, and the number of threads is the 18th.
	const exiting = 0x4 // PF_EXITING
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	threads, _ := strconv.Atoi(fields[17])
	return fields[0] != "Z" && fields[0] != "X" && (flags&exiting == 0 || threads > 1)
}

func TestAnAgentThatEndsInterruptsItsTurns(t *testing.T) {
	for script, want := range map[string]string{
		"exit 3": "it ended (exit status 3)",
		"kill":   "it ended (signal: killed)",
	} {
		c := open(t, program(t, ""))
		other := run(t, c, create(t, c), bgagent.Prompt{Text: "wait"})
		<-other.said
		e := prompt(t, c, create(t, c), "stderr that was my last word\nsay half\n"+script)
		for _, e := range []ended{e, other.wait()} {
			require.Equal(t, bgagent.StopInterrupted, e.Stop)
			require.ErrorContains(t, e.err, want)
			require.ErrorContains(t, e.err, "that was my last word")
		}
		require.Equal(t, "half", e.Text)
	}
}

func TestASessionContinuesInAnotherProcess(t *testing.T) {
	store := tempdir.New(t)
	cfg := program(t, "", "FAKE_STORE="+store)
	c := open(t, cfg)
	id := create(t, c)
	require.Equal(t, "hello", prompt(t, c, id, "say hello").Text)
	require.Equal(t, bgagent.StopInterrupted, prompt(t, c, id, "kill").Stop)
	before, err := c.Messages(t.Context(), id, "", 0)
	require.NoError(t, err)

	e := prompt(t, c, id, "recall")
	require.NoError(t, e.err)
	require.Equal(t, "say hello", e.Text)
	require.Equal(t, "say hello", e.text(), "a replayed conversation is no answer")
	after, err := c.Messages(t.Context(), id, before.Next, 0)
	require.NoError(t, err)
	require.Len(t, after.Messages, 2, "a replayed conversation is not added to the one seen live")

	// After a restart, the host knows only the id of the session.
	next := open(t, cfg)
	require.Equal(t, "say hello", prompt(t, next, id, "recall").Text)
	page, err := next.Messages(t.Context(), id, "", 0)
	require.NoError(t, err)
	require.Equal(t, "say hello", page.Messages[0].Text)
	require.Equal(t, bgagent.RoleUser, page.Messages[0].Role)
	require.Equal(t, "hello", page.Messages[1].Text)
	require.Equal(t, bgagent.RoleAgent, page.Messages[1].Role)

	e = prompt(t, next, "00000000-nobody", "say hello")
	require.ErrorIs(t, e.err, bgagent.ErrNoSession)
	require.ErrorContains(t, e.err, "no such session here")
	_, err = next.FindSession(t.Context(), "00000000-nobody")
	require.ErrorIs(t, err, bgagent.ErrNoSession)
}

func TestALostSessionSaysHowItWasLost(t *testing.T) {
	c := open(t, program(t, ""))
	id := create(t, c)
	prompt(t, c, id, "exit 4")
	e := prompt(t, c, id, "say hello")
	require.ErrorIs(t, e.err, bgagent.ErrNoSession)
	require.ErrorContains(t, e.err, "exit status 4")
	require.ErrorContains(t, e.err, "cannot load sessions")
	require.Equal(t, "hello", prompt(t, c, create(t, c), "say hello").Text)
	require.ErrorIs(t, prompt(t, c, "never heard of", "say hello").err, bgagent.ErrNoSession)
}

func TestASessionThatTheAgentHadNotStoredSaysHowItWasLost(t *testing.T) {
	store := tempdir.New(t)
	c := open(t, program(t, "", "FAKE_STORE="+store))
	unstored := create(t, c)
	require.NoError(t, os.Remove(filepath.Join(store, unstored))) // Claude stores a session only after its first prompt
	require.Equal(t, bgagent.StopInterrupted, prompt(t, c, create(t, c), "kill").Stop)
	for range 2 {
		e := prompt(t, c, unstored, "say hello")
		require.ErrorIs(t, e.err, bgagent.ErrNoSession)
		require.ErrorContains(t, e.err, "was lost with the agent process that had it (it ended (signal: killed)")
		require.ErrorContains(t, e.err, "no such session here")
	}
	require.Equal(t, "hello", prompt(t, c, create(t, c), "say hello").Text)
}

func TestASessionCannotContinueWithoutItsDirectory(t *testing.T) {
	c := open(t, program(t, "", "FAKE_STORE="+tempdir.New(t)))
	dir := filepath.Join(tempdir.New(t), "here")
	require.NoError(t, os.Mkdir(dir, 0o700))
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Directory: dir})
	require.NoError(t, err)
	require.NoError(t, os.Remove(dir))
	require.ErrorContains(t, prompt(t, c, id, "say hello").err, "here cannot be used; create it")
}

func TestNothingOfAnAgentIsLeft(t *testing.T) {
	for _, end := range []string{"killed", "ended", "closed"} {
		c := open(t, program(t, ""))
		id := create(t, c)
		pid := prompt(t, c, id, "spawn").Text
		require.True(t, alive(t, pid))
		agent := strconv.Itoa(c.anyProcess().run.pid)
		switch end {
		case "killed":
			prompt(t, c, id, "kill")
		case "ended":
			prompt(t, c, id, "exit 0")
		}
		if end == "closed" {
			require.NoError(t, c.Close())
		}
		// Both processes have been killed, but a killed process might take a moment to disappear.
		require.Eventually(t, func() bool { return !alive(t, pid) && !alive(t, agent) }, time.Minute, time.Millisecond, "the agent or its child is alive after: %s", end)
	}
}

func TestCloseEndsWhatRuns(t *testing.T) {
	for _, script := range []string{"deaf", "wait"} { // unlike a "deaf" turn, a "wait" turn is cancelled when the agent's input ends
		cfg := program(t, "stubborn")
		cfg.CloseGrace = 200 * time.Millisecond
		c := open(t, cfg)
		id := create(t, c)
		l := run(t, c, id, bgagent.Prompt{Text: script})
		<-l.said
		agent := strconv.Itoa(c.anyProcess().run.pid)
		began := time.Now()
		require.NoError(t, c.Close())
		require.GreaterOrEqual(t, time.Since(began), cfg.CloseGrace)
		require.False(t, alive(t, agent))
		e := l.wait()
		require.Equal(t, bgagent.StopInterrupted, e.Stop)
		require.ErrorIs(t, e.err, errClosed)
		_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{})
		require.ErrorIs(t, err, errClosed)
		require.ErrorIs(t, prompt(t, c, id, "say hello").err, errClosed)
		require.NoError(t, c.Close())
	}
}

func TestCloseEndsAStart(t *testing.T) {
	c := open(t, program(t, "mute"))
	failed := make(chan error)
	go func() {
		_, err := c.CreateSession(context.Background(), bgagent.SessionSpec{})
		failed <- err
	}()
	require.Eventually(t, func() bool { return c.processes() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-failed, errClosed)
}

func TestAFloodOfUpdatesArrivesWhole(t *testing.T) {
	c := open(t, program(t, ""))
	id := create(t, c)
	e := prompt(t, c, id, "flood 20000\nsay the end")
	require.NoError(t, e.err)
	require.Equal(t, strings.Repeat("drip ", 20000)+"the end", e.text())
	require.Equal(t, e.text(), e.Text)
}

func TestAnAgentThatDoesNotReadItsInputHangsNothing(t *testing.T) {
	cfg := program(t, "")
	cfg.CancelGrace = 200 * time.Millisecond
	c := open(t, cfg)
	first, second := create(t, c), create(t, c)
	c.cfg.StartTimeout = 500 * time.Millisecond // the agent is running, so from now on the limit is only for requests
	plugged := run(t, c, first, bgagent.Prompt{Text: "plug\nwait"})
	<-plugged.said
	large := run(t, c, second, bgagent.Prompt{Text: strings.Repeat("say much\n", 1<<17)})
	var err error
	for range 3 { // the agent might still finish a read that it has begun, and answer the request in it
		if _, err = c.CreateSession(t.Context(), bgagent.SessionSpec{}); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "no answer to the request to create a session")
	large.cancel()
	plugged.cancel()
	require.Equal(t, bgagent.StopAborted, large.wait().Stop)
	require.Equal(t, bgagent.StopAborted, plugged.wait().Stop)
	c.cfg.StartTimeout = time.Minute // the next request starts another agent process
	require.Equal(t, "hello", prompt(t, c, create(t, c), "say hello").Text)
}

func TestTooMuchUnreadInputEndsTheAgent(t *testing.T) {
	c := open(t, program(t, ""))
	id := create(t, c)
	plugged := run(t, c, id, bgagent.Prompt{Text: "plug\nwait"})
	<-plugged.said
	text := strings.Repeat("x", maxUnsent/3)
	var turns []*live
	for range 5 { // each turn is in a different session, which the agent does not know
		c.mu.Lock()
		name := fmt.Sprintf("s%d", len(c.sessions))
		c.sessions[name] = &session{id: name, dir: c.cfg.Dir, proc: c.proc[""], conv: conversation{max: 100}}
		c.mu.Unlock()
		turns = append(turns, run(t, c, name, bgagent.Prompt{Text: text}))
	}
	for _, l := range append(turns, plugged) {
		e := l.wait()
		require.Equal(t, bgagent.StopInterrupted, e.Stop)
		require.ErrorContains(t, e.err, "does not read its input")
	}
}

func TestAForgottenSessionIsClosedInTheAgent(t *testing.T) {
	c := open(t, program(t, ""))
	id := create(t, c)
	prompt(t, c, id, "say hello")
	busy := create(t, c)
	l := run(t, c, busy, bgagent.Prompt{Text: "wait"})
	<-l.said
	c.ForgetSession(id)
	c.ForgetSession(id)
	c.ForgetSession("nobody")
	c.ForgetSession(busy) // has no effect, because a turn is running in the session
	_, err := c.FindSession(t.Context(), id)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
	_, err = c.FindSession(t.Context(), busy)
	require.NoError(t, err)
	c.wgCalls(t)
	require.ErrorIs(t, prompt(t, c, id, "say hello").err, bgagent.ErrNoSession)
	l.cancel()
	l.wait()
}

// wgCalls waits until the agent has answered all earlier requests.
func (c *Client) wgCalls(t *testing.T) {
	t.Helper()
	require.Equal(t, "hello", prompt(t, c, create(t, c), "say hello").Text)
}

func TestNothingOfAPromptIsLogged(t *testing.T) {
	var j journal
	cfg := program(t, "")
	cfg.Logger = j.logger()
	c := open(t, cfg)
	id := create(t, c)
	prompt(t, c, id, "say marzipan\npermit marzipan\nread /marzipan\nfail marzipan")
	prompt(t, c, id, "say marzipan\nexit 3")
	require.NoError(t, c.Close())
	require.Contains(t, j.String(), "exit status 3")
	require.Contains(t, j.String(), id)
	require.NotContains(t, j.String(), "marzipan")
}

func TestTheHostGetsTheStandardErrorOfAnAgent(t *testing.T) {
	printed := make(chan string, 100)
	cfg := program(t, "")
	cfg.Printed = func(task string, stream int, p []byte) {
		printed <- task + " " + strconv.Itoa(stream) + " " + string(p)
	}
	c := open(t, cfg)
	e := prompt(t, c, create(t, c), "stderr look \x1b[1mhere\nsay done")
	require.NoError(t, e.err)
	require.Equal(t, "bg_1 2 look \x1b[1mhere\n", <-printed)
}
