//go:build unix

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

func TestWhatAProgramPrintedIsKeptBesideItsResult(t *testing.T) {
	p := newPlace(t)
	p.write("agent.sh", `#!/bin/sh
cat >/dev/null
printf '\033[31mlooking\033[0m\n'
echo "one of $API_TOKEN" >&2
echo two >&2
echo "three: $API_TOKEN is refused" >&2
exit 3
`)
	p.write(".bgagent.jsonc", `{"agents": {
		"a": {"kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"], "env": ["API_TOKEN"]},
		"wait": {"kind": "inproc"},
	}}`)
	p.env = append(p.env, "API_TOKEN=0123456789abcdef")
	p.write("tasks.jsonc", `[{"agent": "a", "prompt": "x", "description": "review"}, {"agent": "wait", "prompt": "1 ms"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 1, got.code, got.stderr)

	rows := p.rows("out")
	require.Equal(t, "001-review.log", rows[0]["log"])
	require.NotContains(t, rows[1], "log", "it has printed nothing")
	path := filepath.Join(p.project, "out", "001-review.log")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(b), "bytes ==\none of [API_TOKEN]\ntwo\nthree: [API_TOKEN] is refused\n== standard output, ")
	require.True(t, strings.HasSuffix(string(b), "bytes ==\nlooking\n"), string(b))

	const reason = "agent.sh: it exited with code 3: three: [API_TOKEN] is refused; the end of its standard error: one of [API_TOKEN] | two | three: [API_TOKEN] is refused"
	require.Equal(t, reason, rows[0]["reason"])
	require.NotContains(t, got.out+got.stderr, "0123456789abcdef")
}

func TestTheLogOfALongOutputHasItsBeginningAndItsEnd(t *testing.T) {
	p := withAgent(t, `cat >/dev/null
printed() { echo first $1; head -c 10000000 /dev/zero | tr '\0' $1; echo; echo last $1; }
printed x & printed y >&2; wait
`)
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	b, err := os.ReadFile(filepath.Join(p.project, "out", "001-review.log"))
	require.NoError(t, err)
	require.Less(t, len(b), 4<<20+1000)
	problems, answer, found := strings.Cut(string(b), "== standard output, 10000016 bytes ==\n")
	require.True(t, found)
	for char, text := range map[string]string{"x": answer, "y": strings.TrimPrefix(problems, "== standard error, 10000016 bytes ==\n")} {
		head, tail, found := strings.Cut(text, "\n[… 7902864 bytes are left out here …]\n")
		require.True(t, found, char)
		require.Equal(t, "first "+char+"\n"+strings.Repeat(char, 1<<20-8), head)
		require.Equal(t, strings.Repeat(char, 1<<20-8)+"\nlast "+char+"\n", tail)
	}
}

// A task's programs can print after the task ends, until they have stopped.
func TestALogEndsWhenTheProgramsOfItsTaskHaveStopped(t *testing.T) {
	t.Parallel()
	dir := tempdir.New(t)
	s := &serving{follow: make(chan struct{}), files: transcript.NewFiles(dir, &transcript.Secrets{}, func(err error) { t.Error(err) })}
	s.ending.Store(&time.Time{}) // every end then counts as later than the shutdown, so the user is not notified
	stop := make(chan struct{})
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(ctx context.Context, _ *inproc.Turn) (string, error) {
		<-ctx.Done()
		<-stop
		return "", ctx.Err()
	}}), bgagent.Config{Wake: bgagent.WakeNever})
	require.NoError(t, err)
	known, events := m.Subscribe(100)
	go s.watch(known, events)
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "a", Prompt: "x"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		now, err := m.Get(task.ID)
		return err == nil && now.Phase == bgagent.PhaseTurn
	}, 2*time.Minute, time.Millisecond)
	log := func() string {
		text, _, err := s.files.Read(task.ID, 0)
		require.NoError(t, err)
		return text
	}
	s.files.Printed(task.ID, 1, []byte("the task ends"))
	_, err = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return log() == "the task ends\n" }, 2*time.Minute, time.Millisecond)
	s.files.Printed(task.ID, 1, []byte("the last words"))
	close(stop)
	var left *bgagent.CloseError // this error says that no caller was notified of the end
	require.ErrorAs(t, m.Close(t.Context()), &left)
	require.Empty(t, left.NotStopped)
	<-s.follow
	require.Equal(t, "the task ends\nthe last words\n", log())
}
