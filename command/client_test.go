//go:build unix

package command

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

func TestConformance(t *testing.T) {
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	for name, program := range map[string]Program{"lines": Lines("fake"), "text": Text("fake")} {
		t.Run(name, func(t *testing.T) {
			dir := tempdir.New(t)
			h := bgagenttest.Harness{
				New: func(tb bgagenttest.TB) bgagent.SessionClient {
					c, err := New(Config{Agents: map[string]Agent{"obedient": fakeAgent(t, program)}, Grace: 5 * time.Second})
					if err != nil {
						tb.Fatalf("New: %v", err)
					}
					tb.Cleanup(func() { _ = c.Close(context.Background()) })
					return c
				},
				Agent: "obedient",
				Say:   func(text string) string { return "say " + text },
				Slow:  fixed("slow"), Fail: fixed("exit 3 it failed"),
				Parent: "root", Directory: dir, MayRepeat: true, Soon: time.Minute,
			}
			if name == "lines" {
				h.Fail, h.Tool, h.Recall = fixed("fail"), fixed("use"), fixed("recall")
				h.Silent, h.Cut = fixed(`print {"type":"end"}`), fixed("stops length")
			}
			bgagenttest.Conformance(t, h)
		})
	}
}

func TestAFollowUpContinuesTheProgramsSession(t *testing.T) {
	c := linesClient(t)
	id := create(t, c)
	_, err := play(t, c, id, "say one")
	require.NoError(t, err)
	own, err := c.ProgramSession(id)
	require.NoError(t, err)
	require.Contains(t, own, "fake_")
	end, err := play(t, c, id, "recall")
	require.NoError(t, err)
	require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "say one"}, end)
}

func TestAProgramThatLosesItsSessionIsAnError(t *testing.T) {
	home := tempdir.New(t)
	a := fakeAgent(t, Lines("fake"))
	a.Env = append(a.Env, fakeHome+"="+home)
	c := clientOf(t, a)
	id := create(t, c)
	_, err := play(t, c, id, "say one")
	require.NoError(t, err)
	own, _ := c.ProgramSession(id)
	require.NoError(t, os.Remove(filepath.Join(home, own)))
	end, err := play(t, c, id, "say two")
	require.Contains(t, failure(t, err).Problem, "did not continue its session "+own)
	require.Equal(t, bgagent.StopError, end.Stop)
	now, _ := c.ProgramSession(id)
	require.Equal(t, own, now, "the session that it began instead does not replace it")
}

func TestALostSessionBeginsAgainWithItsPrompts(t *testing.T) {
	p := Lines("fake")
	p.ForgetsUnanswered = true
	c := clientOf(t, fakeAgent(t, p))
	id := create(t, c)
	for _, prompt := range []string{"fail", "and again"} {
		_, err := play(t, c, id, prompt)
		require.ErrorContains(t, err, "as I was told")
	}
	page, err := c.Messages(t.Context(), id, "", 10)
	require.NoError(t, err)
	require.Equal(t, "and again", page.Messages[2].Text, "only the new prompt is shown")

	id = create(t, c)
	_, err = play(t, c, id, "say something")
	require.NoError(t, err)
	first, err := c.ProgramSession(id)
	require.NoError(t, err)
	_, err = play(t, c, id, "fail")
	require.Error(t, err)
	end, err := play(t, c, id, "recall")
	require.NoError(t, err)
	require.Equal(t, "say something", end.Text)
	now, err := c.ProgramSession(id)
	require.NoError(t, err)
	require.Equal(t, first, now)
}

func TestAProgramWithoutResumeBeginsAnewEachTurn(t *testing.T) {
	p := Lines("fake")
	p.Resume = Form{}
	c := clientOf(t, fakeAgent(t, p))
	id := create(t, c)
	_, err := play(t, c, id, "say one")
	require.NoError(t, err)
	end, err := play(t, c, id, "recall")
	require.NoError(t, err)
	require.Equal(t, "recall", end.Text)
}

func TestAProgramGetsItsArgumentsEnvironmentAndDirectory(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "hidden")
	t.Setenv("OWN_ONE", "1")
	t.Setenv("OWN_TWO", "2")
	t.Setenv("LC_TIME", "C")
	dir, err := filepath.EvalSymlinks(tempdir.New(t))
	require.NoError(t, err)
	p := Lines("fake")
	p.Model, p.Profile, p.System = []string{"--model={model}"}, []string{"--profile", "{profile}"}, []string{"--system={system|json}"}
	p.Environ = []string{"OWN_O*"}
	a := fakeAgent(t, p)
	a.Profile, a.Args, a.Env = "worker", []string{"-v", "{model}"}, append(a.Env, "COLOUR=red", "OWN_TWO")
	c := clientOf(t, a)
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "a", Directory: dir, Depth: 2})
	require.NoError(t, err)
	end, err := c.RunTurn(t.Context(), id, bgagent.Prompt{Text: "describe", Model: "big/one", System: "be \"brief\"\n"}, nil)
	require.NoError(t, err)
	var got described
	require.NoError(t, json.Unmarshal([]byte(end.Text), &got))
	require.Equal(t, dir, got.Dir)
	require.Equal(t, []string{"--model=big/one", "--profile", "worker", `--system="be \"brief\"\n"`, "-v", "{model}"}, got.Args)
	for _, want := range []string{"OWN_ONE=1", "OWN_TWO=2", "COLOUR=red", "LC_TIME=C", "PATH=" + os.Getenv("PATH"), DepthVariable + "=2"} {
		require.Contains(t, got.Env, want)
	}
	require.NotContains(t, strings.Join(got.Env, "\n"), "SECRET_TOKEN")
	require.Equal(t, bgagent.StopEndOfTurn, end.Stop)
}

func TestEveryProcessCarriesTheInstanceOfItsHost(t *testing.T) {
	t.Setenv(InstanceVariable, "outer")
	a := fakeAgent(t, Lines("fake"))
	c, err := New(Config{Agents: map[string]Agent{"a": a}, Instance: "this-life"})
	require.NoError(t, err)
	end, err := play(t, c, create(t, c), "describe")
	require.NoError(t, err)
	require.Contains(t, end.Text, InstanceVariable+"=outer/this-life")
}

func TestUnusualPromptsArriveUnchanged(t *testing.T) {
	byArgument := Lines("fake")
	byArgument.Start = Form{Prompt: []string{"--", "{prompt}"}, Stdin: []string{}}
	long := strings.Repeat("a", 200<<10)
	for name, p := range map[string]Program{"stdin": Lines("fake"), "argument": byArgument} {
		t.Run(name, func(t *testing.T) {
			c := clientOf(t, fakeAgent(t, p))
			for _, words := range []string{"-rf --help", "a 'b' \"c\" $(d) `e` \\f * ~", "línea\nzwei\t三", long} {
				end, err := play(t, c, create(t, c), "say "+words)
				require.NoError(t, err)
				require.Equal(t, "As you wish: "+words, end.Text)
			}
			_, err := play(t, c, create(t, c), "say \x00")
			require.ErrorContains(t, err, "NUL byte")
		})
	}
	byArgument.Start.Stdin = nil
	c := clientOf(t, fakeAgent(t, byArgument))
	_, err := play(t, c, create(t, c), "say "+long)
	require.ErrorContains(t, err, "shorten it, or put it into a file")
}

func TestAnImpossibleStartSaysWhatToDo(t *testing.T) {
	dir := tempdir.New(t)
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, []byte("no program"), 0o600))
	script := filepath.Join(dir, "script")
	require.NoError(t, os.WriteFile(script, []byte("no program"), 0o700))
	for _, tc := range []struct {
		name string
		a    Agent
		spec bgagent.SessionSpec
		want string
		is   error
	}{
		{"not installed", Agent{Program: Text("no-such-program-here")}, bgagent.SessionSpec{}, "not in PATH; install it", nil},
		{"wrong path", Agent{Program: Text("x"), Command: []string{dir + "/none"}}, bgagent.SessionSpec{}, "install it, or correct the path", fs.ErrNotExist},
		{"not executable", Agent{Program: Text("x"), Command: []string{plain}}, bgagent.SessionSpec{}, "make it executable", fs.ErrPermission},
		{"no directory", fakeAgent(t, Text("x")), bgagent.SessionSpec{Directory: dir + "/gone"}, "the working directory " + dir + "/gone", fs.ErrNotExist},
		{"a file for a directory", fakeAgent(t, Text("x")), bgagent.SessionSpec{Directory: plain}, "is a file; name a directory", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := clientOf(t, tc.a)
			tc.spec.Agent = "a"
			_, err := c.CreateSession(t.Context(), tc.spec)
			require.ErrorContains(t, err, tc.want)
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
			}
		})
	}
	c := clientOf(t, Agent{Program: Text("x"), Command: []string{script}})
	_, err := play(t, c, create(t, c), "say x")
	require.ErrorContains(t, err, "a script without #!")

	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "b"})
	require.ErrorContains(t, err, `there is no agent "b"; there are: a`)
}

func TestAVanishedDirectoryIsNamed(t *testing.T) {
	dir := filepath.Join(tempdir.New(t), "tree")
	require.NoError(t, os.Mkdir(dir, 0o700))
	c := linesClient(t, func(cfg *Config) { cfg.Directory = dir })
	id := create(t, c)
	_, err := play(t, c, id, "say x")
	require.NoError(t, err)
	require.NoError(t, os.Remove(dir))
	_, err = play(t, c, id, "say x")
	require.ErrorContains(t, err, "the working directory "+dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestATurnEndsAsTheProgramEnds(t *testing.T) {
	c := linesClient(t)
	for _, tc := range []struct {
		prompt  string
		stop    bgagent.StopReason
		text    string
		problem string // expected problem; empty if no problem is expected
		code    int
		stderr  string
	}{
		{prompt: "say x", stop: bgagent.StopEndOfTurn, text: "As you wish: x"},
		{prompt: "halfline", stop: bgagent.StopEndOfTurn},
		{prompt: "fail", stop: bgagent.StopError, problem: "as I was told", code: 1},
		{prompt: "stops length", stop: bgagent.StopLength, text: "half an answer"},
		{prompt: "stops turn limit", stop: bgagent.StopTurnLimit, text: "half an answer"},
		{prompt: "stops refused", stop: bgagent.StopRefused, text: "half an answer"},
		{prompt: "stops aborted", stop: bgagent.StopAborted, text: "half an answer"},
		{prompt: "stops interrupted", stop: bgagent.StopInterrupted, text: "half an answer", problem: "it reported that the turn failed"},
		{prompt: "quit", stop: bgagent.StopInterrupted, text: "and then", problem: "it exited with code 0 in the middle of the turn"},
		{prompt: "killed", stop: bgagent.StopInterrupted, text: "ah", problem: "it was terminated by a signal from outside (killed)", code: -1},
		{prompt: "exit 143 bye", stop: bgagent.StopInterrupted, problem: "it exited with code 143: bye", code: 143, stderr: "log: begin\nbye"},
		{prompt: "exit 2 error: no account\n  see the manual", stop: bgagent.StopError, problem: "it exited with code 2: error: no account", code: 2, stderr: "log: begin\nerror: no account\n  see the manual"},
		{prompt: "mute 7 Unknown argument: --x", stop: bgagent.StopError, problem: "it exited with code 7: Unknown argument: --x", code: 7, stderr: "log: begin\nUnknown argument: --x"},
		{prompt: "mute 0 hello", stop: bgagent.StopError, problem: "it printed nothing; check that the program and its version match the agent's Program", stderr: "log: begin\nhello"},
		{prompt: "mutegarbage", stop: bgagent.StopError, problem: `it printed nothing that its decoder knows, first "Welcome to another program!"; check that the program and its version match the agent's Program`},
	} {
		t.Run(tc.prompt, func(t *testing.T) {
			end, err := play(t, c, create(t, c), tc.prompt)
			require.Equal(t, bgagent.TurnEnd{Stop: tc.stop, Text: tc.text}, end)
			if tc.problem == "" {
				require.NoError(t, err)
				return
			}
			e := failure(t, err)
			require.Equal(t, TurnError{Program: "fake", Problem: tc.problem, Code: tc.code, Signal: e.Signal, Stderr: tc.stderr}, *e)
			require.Equal(t, tc.code == -1, e.Signal == syscall.SIGKILL)
			require.Equal(t, "command: fake: "+tc.problem, err.Error())
		})
	}
}

func TestAProgramThatEndsItsTurnWithoutExitingSucceeds(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.Grace = 50 * time.Millisecond })
	for prompt, want := range map[string]string{"linger there": "done, and there", "lingerpolite": "done"} {
		end, err := play(t, c, create(t, c), prompt)
		require.NoError(t, err, prompt)
		require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: want}, end)
	}
}

func TestAnEndCanBeTakenBackUntilItIsSealed(t *testing.T) {
	var o Output
	require.False(t, o.seal(), "no end was reported")
	o.End(bgagent.StopEndOfTurn, "", "")
	o.GoesOn()
	require.False(t, o.seal())
	o.End(bgagent.StopEndOfTurn, "", "")
	require.True(t, o.seal())
	o.GoesOn()
	o.End(bgagent.StopError, "", "too late")
	require.Equal(t, &ending{stop: bgagent.StopEndOfTurn}, o.said().end)
}

func TestAProgramOfPlainTextEndsByItsExitCode(t *testing.T) {
	c := clientOf(t, fakeAgent(t, Text("fake")))
	end, err := play(t, c, create(t, c), "say x")
	require.NoError(t, err)
	require.Equal(t, bgagent.TurnEnd{Text: "As you wish: x"}, end)
	end, err = play(t, c, create(t, c), "exit 3 it broke")
	require.Equal(t, "it exited with code 3: it broke", failure(t, err).Problem)
	require.Equal(t, bgagent.StopError, end.Stop)
}

func TestNothingOfATurnIsLeftRunning(t *testing.T) {
	places := []string{"group", "group stubborn"}
	if runtime.GOOS == "linux" {
		places = append(places, "session", "session stubborn")
	}
	for _, place := range places {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			grace := 5 * time.Second
			if strings.Contains(place, "stubborn") {
				grace = 50 * time.Millisecond
			}
			c := linesClient(t, func(cfg *Config) { cfg.Grace = grace })
			end, err := play(t, c, create(t, c), "child "+place)
			require.NoError(t, err, "the turn ends even though a child holds the pipes open")
			pid, err := strconv.Atoi(end.Text)
			require.NoError(t, err)
			require.False(t, runs(pid), "process %d is still running", pid)

			id := create(t, c)
			turn := begin(t.Context(), c, id, "childslow "+place)
			pid, err = strconv.Atoi(<-turn.texts)
			require.NoError(t, err)
			require.True(t, runs(pid))
			require.NoError(t, c.Abort(t.Context(), id))
			<-turn.done
			require.False(t, runs(pid), "process %d is still running", pid)
		})
	}
}

func TestAProcessThatEscapesDoesNotDelayTheTurn(t *testing.T) {
	c := linesClient(t)
	end, err := play(t, c, create(t, c), "child escape stubborn")
	require.NoError(t, err)
	require.Equal(t, bgagent.StopEndOfTurn, end.Stop)
	pid, err := strconv.Atoi(end.Text)
	require.NoError(t, err)
	require.True(t, runs(pid), "a program may start a process that outlives it")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

func TestAnAbortedSessionCanContinue(t *testing.T) {
	c := linesClient(t)
	id := create(t, c)
	for _, prompt := range []string{"slow", "polite"} {
		turn := begin(t.Context(), c, id, prompt)
		require.Equal(t, "I wait", <-turn.texts)
		require.NoError(t, c.Abort(t.Context(), id))
		<-turn.done
		require.NoError(t, turn.err)
		require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopAborted, Text: "I wait"}, turn.end)
	}
	end, err := play(t, c, id, "recall")
	require.NoError(t, err)
	require.Equal(t, "slow", end.Text, "the session of the aborted turn continues")
}

func TestATurnEndedByItsContextReturnsTheCause(t *testing.T) {
	c := linesClient(t)
	why := errors.New("the user went home")
	ctx, cancel := context.WithCancelCause(t.Context())
	turn := begin(ctx, c, create(t, c), "polite")
	<-turn.texts
	cancel(why)
	<-turn.done
	require.ErrorIs(t, turn.err, why)
	require.Equal(t, bgagent.StopAborted, turn.end.Stop)
	_, err := c.RunTurn(ctx, create(t, c), bgagent.Prompt{Text: "say x"}, nil)
	require.ErrorIs(t, err, why, "no program is started if the context has ended")
}

func TestAProgramThatIgnoresSignalsIsKilledAfterTheGraceTime(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.Grace = 20 * time.Millisecond })
	id := create(t, c)
	turn := begin(t.Context(), c, id, "stubborn")
	require.Equal(t, "I stay", <-turn.texts)
	require.NoError(t, c.Abort(t.Context(), id))
	<-turn.done
	require.Equal(t, bgagent.StopAborted, turn.end.Stop)
}

func TestCloseEndsAllPrograms(t *testing.T) {
	c := linesClient(t)
	var turns []*begun
	for range 3 {
		turn := begin(t.Context(), c, create(t, c), "childslow group")
		turns = append(turns, turn)
	}
	var pids []int
	for _, turn := range turns {
		pid, err := strconv.Atoi(<-turn.texts)
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	id := create(t, c)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { require.NoError(t, c.Close(context.Background())) })
	}
	all.Wait()
	for i, turn := range turns {
		<-turn.done
		require.ErrorIs(t, turn.err, ErrClosed)
		require.False(t, runs(pids[i]))
	}
	_, err := play(t, c, id, "say x")
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "a"})
	require.ErrorIs(t, err, ErrClosed)
}

func TestCloseWaitsNoLongerThanItsContext(t *testing.T) {
	c := linesClient(t, func(cfg *Config) { cfg.Grace = time.Second })
	turn := begin(t.Context(), c, create(t, c), "stubborn")
	<-turn.texts
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no time")
	cancel(why)
	require.ErrorIs(t, c.Close(ctx), why)
	<-turn.done
}

func TestAForgottenSessionIsGone(t *testing.T) {
	c := linesClient(t)
	id := create(t, c)
	c.ForgetSession(id)
	_, err := play(t, c, id, "say x")
	require.ErrorIs(t, err, bgagent.ErrNoSession)
	_, err = c.ProgramSession(id)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
	_, err = c.Messages(t.Context(), id, "", 10)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
}

func TestAgentsAreListedWithoutTheFallback(t *testing.T) {
	a := fakeAgent(t, Lines("fake"))
	a.Description = "does as it is told"
	c := clientOf(t, a, func(cfg *Config) { cfg.Agents[Fallback] = a })
	list, err := c.Agents(t.Context())
	require.NoError(t, err)
	require.Equal(t, []bgagent.AgentInfo{{Name: "a", Description: "does as it is told"}}, list)
	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "anybody"})
	require.NoError(t, err)
}

func TestATaskEndsAsItsProgramDoes(t *testing.T) {
	c := linesClient(t)
	m, err := bgagent.New(c, bgagent.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(context.Background())) })
	root := bgagent.Caller{Session: "root"}
	run := func(prompt string) bgagent.Task {
		t.Helper()
		task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: prompt})
		require.NoError(t, err)
		return task
	}
	task := run("use")
	require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	require.Equal(t, "used", task.Result)
	require.Equal(t, 1, task.Progress.ToolCalls)
	task = run("pieces 5")
	require.Equal(t, "0 1 2 3 4 ", task.Result)
	task = run("exit 3 error: no account")
	require.Equal(t, bgagent.Failed, task.Status)
	require.Contains(t, task.Reason, "command: fake: it exited with code 3: error: no account")
	task = run("stops refused")
	require.Equal(t, bgagent.CauseRefused, task.Cause)
}

func TestAProgramThatFallsBackByItselfSaysSo(t *testing.T) {
	for _, own := range [][]string{nil, {"--fallback-model", "sonnet"}, {"--fallback-model=sonnet"}} {
		for _, inCommand := range []bool{false, true} {
			a := Agent{Program: Claude(), Args: own}
			if inCommand {
				a.Args, a.Command = nil, append([]string{"claude"}, own...)
			}
			c, err := New(Config{Agents: map[string]Agent{"a": a}})
			require.NoError(t, err)
			want := bgagent.FallbackInSession
			if own != nil {
				want = bgagent.FallbackByItself
			}
			require.Equal(t, want, c.Fallback("a"))
			require.Equal(t, bgagent.FallbackInSession, c.Fallback("unknown"))
		}
	}
}
