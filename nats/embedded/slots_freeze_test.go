//go:build unix

package embedded_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// freezeIt stops the process for longer than its lease.
func freezeIt(t *testing.T, j *judge, m *member) {
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGSTOP))
	j.die(m.pid, true)
	over := time.NewTimer(processLease * 2)
	<-over.C
	j.die(m.pid, false)
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGCONT))
}

func TestNeverMoreThanTheLimitIfAProcessFreezes(t *testing.T)     { faulty(t, false, freezeIt, true) }
func TestNeverMoreThanTheLimitIfTheAllocatorFreezes(t *testing.T) { faulty(t, true, freezeIt, true) }
