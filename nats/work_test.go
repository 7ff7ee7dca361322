package bgnats

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestNothingBeginsAfterTheEndOfAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w work
		block := make(chan struct{})
		begun := 0
		require.True(t, w.begin(func() { begun++; <-block }))
		over := false
		go func() { w.end(); over = true }()
		synctest.Wait()
		require.False(t, over, "end waits")
		require.False(t, w.begin(func() { begun++ }), "end was called")
		close(block)
		synctest.Wait()
		require.True(t, over)
		require.False(t, w.begin(func() { begun++ }))
		synctest.Wait()
		require.Equal(t, 1, begun)
	})
}
