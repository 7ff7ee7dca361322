package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	require.Equal(t, `between two steps: quick completed: done at once
1 live, 0 owed
at the end: slow completed: done in the end
nothing is live, nothing is owed
`, b.String())
}
