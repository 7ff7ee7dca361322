package spell

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestADistanceIsCountedUpToItsBound(t *testing.T) {
	for _, c := range []struct {
		a, b        string
		bound, want int
	}{{"", "", 1, 0}, {"wake", "wake", 1, 0}, {"wak", "wake", 3, 1}, {"kitten", "sitting", 9, 3}, {"kitten", "sitting", 2, 2}, {"", "abc", 2, 2}, {strings.Repeat("a", 99), strings.Repeat("a", 98) + "b", 3, 1}} {
		require.Equal(t, c.want, Distance(c.a, c.b, c.bound), "%q and %q", c.a, c.b)
		require.Equal(t, c.want, Distance(c.b, c.a, c.bound), "%q and %q", c.b, c.a)
	}
}
