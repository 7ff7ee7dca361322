// Package calldigesttest checks the digests that clients report for tool calls.
package calldigesttest

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// CheckFour checks the digests of four calls. The second call is equal to the first, the third has
// another input, and the fourth has only another result.
func CheckFour(t testing.TB, calls []bgagent.MessageTool) {
	t.Helper()
	require.Len(t, calls, 4)
	for _, call := range calls {
		require.NotZero(t, call.Input)
		require.NotZero(t, call.Result)
	}
	require.Equal(t, calls[0].Input, calls[1].Input)
	require.Equal(t, calls[0].Result, calls[1].Result)
	require.NotEqual(t, calls[0].Input, calls[2].Input)
	require.Equal(t, calls[0].Input, calls[3].Input)
	require.NotEqual(t, calls[0].Result, calls[3].Result)
}
