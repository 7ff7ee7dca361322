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
another launch is refused: true
did not stop: stubborn
ends that were not reported: 3
obedient: cancelled, manager closed
quick: completed, turn ended
stubborn: cancelled, manager closed
`, b.String())
}
