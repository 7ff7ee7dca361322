//go:build unix

package embedded_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAFrozenProcessChangesNothingAfterItsTasksWereTakenOver(t *testing.T) {
	t.Parallel()
	g, reader := newGroup(t, memberLease)
	x := g.start("x", "home")
	g.start("y", "home")
	names := g.launch(x, "t", 4, 3*time.Second)
	until(t, func() bool { return g.begun("x", names) == 4 })
	require.NoError(t, x.cmd.Process.Signal(syscall.SIGSTOP))
	frozen := len(g.all("told"))
	until(t, func() bool { return g.begun("y", names) == 4 })
	require.NoError(t, x.cmd.Process.Signal(syscall.SIGCONT))
	g.requireEnds(reader, names)
	require.Zero(t, frozen)
	for _, h := range g.all("told") {
		require.Equal(t, "y", h.process)
	}
	for _, name := range names {
		got, _, err := reader.Read(t.Context(), g.task(name))
		require.NoError(t, err)
		require.Equal(t, name+" by y", got.Result)
	}
	_, err := x.in.Write([]byte("launch late 1s\n"))
	require.NoError(t, err)
	require.Contains(t, g.await("refused").words, "lost")
}
