package procs

import (
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatAnEarlierRunHasLeftIsEndedOnce(t *testing.T) {
	id := "test-" + strconv.Itoa(os.Getpid()) + "-earlier"
	mine := InstanceVariable + "=" + id
	left := []string{sh(t, "setsid sh -c 'echo $$; exec sleep 600'", mine), sh(t, "trap '' TERM; echo $$; while :; do sleep 600; done", mine+"/inner")}
	stays := sh(t, "echo $$; exec sleep 600", InstanceVariable+"="+id+"x")
	var e Earlier
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() { require.NoError(t, e.End(t.Context(), id)) })
	}
	callers.Wait()
	for _, pid := range left {
		require.False(t, runs(number(t, pid)))
	}
	require.True(t, runs(number(t, stays)))

	late := sh(t, "echo $$; exec sleep 600", mine)
	require.NoError(t, e.End(t.Context(), id), "a run that is over starts nothing")
	require.True(t, runs(number(t, late)), "the processes of a cleared run were searched again")
}

func TestAProcessOfALivingRunIsNotEndedWithTheEarlierRun(t *testing.T) {
	id := "test-" + strconv.Itoa(os.Getpid()) + "-outer"
	within := sh(t, "echo $$; exec sleep 600", InstanceVariable+"="+id+"/living")
	var e Earlier
	require.Error(t, e.End(t.Context(), id, "living"))
	require.True(t, runs(number(t, within)))
	require.NoError(t, e.End(t.Context(), id), "the error was remembered as a cleared run")
}

func TestTheSearchForAnEarlierRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var e Earlier
	require.ErrorIs(t, e.End(ctx, "nobody"), ErrLeft)
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, e.End(ctx, "nobody"))
}
