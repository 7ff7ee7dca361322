package procs

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

func TestAProcessOfAnotherUserIsNamedAndNotWaitedFor(t *testing.T) {
	dir := tempdir.New(t)
	p := shell(t, dir, `sleep 300 & echo $! >>"$dir/pids"`)
	<-p.Exited()
	t.Cleanup(func() { require.NoError(t, p.Finish(0)) })
	pids := written(t, dir)
	require.Len(t, pids, 1)
	signals := 0
	began := time.Now()
	look := func() look { return new(table).scan() }
	ended, err := end(ending{
		is:    func(s seen) bool { return within(s.turn, p.turn) },
		since: func() uint64 { return 0 },
		first: look, again: look, grace: time.Hour,
		send: func(int, uint64, os.Signal) error { // returns the system's error for another user's process
			signals++
			return &os.SyscallError{Syscall: "pidfd_send_signal", Err: syscall.EPERM}
		},
	})
	require.ErrorContains(t, err, fmt.Sprintf("could not be ended: %d (", pids[0]))
	require.ErrorContains(t, err, "), which belongs to another user")
	require.Empty(t, ended)
	require.Equal(t, 1, signals)
	require.Less(t, time.Since(began), time.Minute, "it waited for the grace time of an hour")
	st, there := readStat(pids[0])
	require.True(t, there && !st.over())
}
