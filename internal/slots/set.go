package slots

import (
	"iter"
	"math/bits"
)

// set is a set of small numbers. Each number is one bit.
type set []uint64

func (s *set) add(i int) {
	for i/64 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[i/64] |= 1 << (i % 64)
}

func (s set) remove(i int) {
	if i/64 < len(s) {
		s[i/64] &^= 1 << (i % 64)
	}
}

func (s set) has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

// common iterates over the numbers that are in both s and o. It compares 64 numbers per step.
// The loop body may remove the current number from the sets.
func (s set) common(o set) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range min(len(s), len(o)) {
			for both := s[i] & o[i]; both != 0; both &= both - 1 {
				if !yield(i*64 + bits.TrailingZeros64(both)) {
					return
				}
			}
		}
	}
}
