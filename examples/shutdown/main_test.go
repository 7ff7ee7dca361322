package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	require.Equal(t, `drained in time: false
one more is refused: true
did not stop: stubborn
ends that nobody was notified of: 3
obedient: cancelled, manager closed
quick: completed, turn ended
stubborn: cancelled, manager closed
`, b.String())
}
