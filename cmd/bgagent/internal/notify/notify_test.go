//go:build unix

package notify

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func script(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "notify.sh")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755))
	return path
}

func TestTheProgramRunsForEachEventInTurn(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	n := New([]string{script(t, `echo "$BGAGENT_EVENT|$BGAGENT_TASK|$BGAGENT_FOLDER|$1|$2" >>`+out+"\n"), "first"}, "", func(err error) { t.Error(err) })
	n.Tell(Event{Kind: "failed", Text: "task 1 failed", Task: "bg_1", Folder: "out"})
	n.Tell(Event{Kind: "done", Text: "all done"})
	n.Close(t.Context())
	n.Tell(Event{Kind: "done"})
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "failed|bg_1|out|first|task 1 failed\ndone|||first|all done\n", string(b))
}

func TestProblemsOfTheProgramAreReported(t *testing.T) {
	for program, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"): "cannot be started",
		script(t, "exit 3\n"):              "failed (exit status 3)",
	} {
		problems := make(chan error, 10)
		n := New([]string{program}, "", func(err error) { problems <- err })
		n.Tell(Event{Kind: "done"})
		n.Close(t.Context())
		require.ErrorContains(t, <-problems, want)
	}
	(*Notifier)(nil).Tell(Event{})
	(*Notifier)(nil).Close(t.Context())
	require.Nil(t, New(nil, "", nil))
}

func TestAProgramThatHangsIsEnded(t *testing.T) {
	n := New([]string{script(t, "exec sleep 600\n")}, "", func(error) {})
	n.Tell(Event{Kind: "failed"})
	for range 2 * waiting {
		n.Tell(Event{Kind: "failed"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	n.Close(ctx)
	require.Less(t, time.Since(begin), 2*time.Minute)
}

func TestLostEventsAreReported(t *testing.T) {
	var lost []string
	n := New([]string{script(t, "exec sleep 600\n")}, "", func(err error) { lost = append(lost, err.Error()) })
	for range waiting + 2 {
		n.Tell(Event{Kind: "failed", Text: "x"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n.Close(ctx)
	require.NotEmpty(t, lost)
	require.True(t, strings.HasSuffix(lost[0], "this one is lost: x"), lost[0])
}
