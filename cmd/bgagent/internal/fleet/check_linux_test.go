package fleet

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// The function "scripted" returns an agent whose preset is "codex" and whose program is a script.
func scripted(t *testing.T, script string) settings.Agent {
	path := filepath.Join(tempdir.New(t), "codex")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
	return settings.Agent{Name: "a", Kind: settings.Command, Preset: "codex", Command: []string{path}}
}

func TestACheckLeavesNothingOfTheProgram(t *testing.T) {
	dir := tempdir.New(t)
	a := scripted(t, "setsid sleep 600 & echo $! >"+dir+"/pid\necho codex 1.2\n")
	f, _ := crewOf(t, a)
	begin := time.Now()
	check := <-f.Check(t.Context())
	require.NoError(t, check.Err)
	require.True(t, strings.HasSuffix(check.Found, " codex 1.2"), check.Found)
	require.Less(t, time.Since(begin), time.Minute, "a process that it has left holds its output open")
	pid, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err)
	require.NoDirExists(t, "/proc/"+strings.TrimSpace(string(pid)))
}

func TestACheckSaysHowAProgramFails(t *testing.T) {
	f, _ := crewOf(t, scripted(t, "echo no licence >&2; exit 3\n"))
	check := <-f.Check(t.Context())
	require.ErrorContains(t, check.Err, "codex --version fails: exit status 3: no licence")

	f, _ = crewOf(t, scripted(t, "exec sleep 600\n"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check = <-f.Check(ctx)
	require.ErrorContains(t, check.Err, "--version does not answer within 30s")
}

func TestACheckDoesNotWaitForHiddenProcesses(t *testing.T) {
	dir := tempdir.New(t)
	f, _ := crewOf(t, scripted(t, "setsid env -i sleep 600 & echo $! >"+dir+"/pid\necho codex 1.2\nsleep 0.3\n"))
	begin := time.Now()
	check := <-f.Check(t.Context())
	require.NoError(t, check.Err)
	require.Less(t, time.Since(begin), time.Minute)
	text, err := os.ReadFile(dir + "/pid")
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL), "the hidden process continues")
}

func TestAnACPAgentHasLessTimeToStartThanItsSession(t *testing.T) {
	limits, err := bgagent.ParseConfig("f", []byte(`{"background_task": {"createTimeoutMs": 4500}}`))
	require.NoError(t, err)
	a := scripted(t, "exec sleep 600\n")
	a.Kind, a.Preset = settings.ACP, ""
	f, err := New(&settings.Settings{Agents: []settings.Agent{a}, Limits: limits}, Options{})
	require.NoError(t, err)
	m, err := f.Manager(bgagent.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = m.Close(context.Background()) // the error names tasks whose notices have not been delivered
		require.NoError(t, f.Close(context.Background()))
	})
	task, err := m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "a", Prompt: "hello"})
	require.NoError(t, err)
	require.Contains(t, task.Reason, "the limit is 3s")
}
