package mdtext

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestEndsKeepsBothEndsOfWhatDoesNotFit(t *testing.T) {
	require.Equal(t, "a b", Ends(" a\nb ", 3))
	long := "the turn: " + strings.Repeat("npm warn, ", 500) + "Error: cannot find module 'x'"
	for max := 40; max < 200; max++ {
		short := Ends(long, max)
		require.LessOrEqual(t, len(short), max)
		require.True(t, strings.HasPrefix(short, "the turn:"), short)
		require.True(t, strings.HasSuffix(short, "module 'x'"), short)
	}
	require.True(t, utf8.ValidString(Ends(strings.Repeat("é", 100), 51)))
}
