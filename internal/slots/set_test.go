package slots

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASparseSetHoldsWhatWasAdded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s sparse
	var open set
	want, other := map[int]bool{}, map[int]bool{}
	for range 5_000 {
		switch i := r.IntN(1_000); r.IntN(4) {
		case 0:
			s.add(i)
			want[i] = true
		case 1:
			s.remove(i)
			delete(want, i)
		case 2:
			open.add(i)
			other[i] = true
		case 3:
			open.remove(i)
			delete(other, i)
		}
		i := r.IntN(1_000)
		require.Equal(t, want[i], s.has(i))
		require.Equal(t, len(want), s.len())
	}
	var both []int
	for i := range want {
		if other[i] {
			both = append(both, i)
		}
	}
	slices.Sort(both)
	require.NotEmpty(t, both)
	require.Equal(t, both, slices.Collect(s.common(open)))
	for i := range s.common(open) {
		s.remove(i)
	}
	require.Empty(t, slices.Collect(s.common(open)))
	require.Equal(t, len(want)-len(both), s.len())
	for i := range want {
		s.remove(i)
	}
	require.Empty(t, s, "no word is left")
}
