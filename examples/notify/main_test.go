package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	require.Equal(t, `launched: where is it made?
launched: where is it used?
the session is in a turn and gets its notice later
notified of 2 ends
where is it made?: completed
where is it used?: completed
`, b.String())
}
