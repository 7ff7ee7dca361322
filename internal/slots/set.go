package slots

import (
	"cmp"
	"iter"
	"math/bits"
	"slices"
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

// sparse is a set of numbers that stores only the nonzero words, in ascending order, so its size
// does not depend on the greatest number.
type sparse []word

// word holds the bits of the 64 numbers that begin with 64*at.
type word struct {
	at   int
	bits uint64
}

// find returns the index of the word for the number i, or the index at which to insert that word.
func (s sparse) find(i int) (at int, ok bool) {
	return slices.BinarySearchFunc(s, i/64, func(w word, at int) int { return cmp.Compare(w.at, at) })
}

func (s *sparse) add(i int) {
	at, ok := s.find(i)
	if !ok {
		*s = slices.Insert(*s, at, word{at: i / 64})
	}
	(*s)[at].bits |= 1 << (i % 64)
}

func (s *sparse) remove(i int) {
	at, ok := s.find(i)
	if !ok {
		return
	}
	if (*s)[at].bits &^= 1 << (i % 64); (*s)[at].bits == 0 {
		*s = slices.Delete(*s, at, at+1)
	}
}

func (s sparse) has(i int) bool {
	at, ok := s.find(i)
	return ok && s[at].bits&(1<<(i%64)) != 0
}

func (s sparse) len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w.bits)
	}
	return n
}

// next returns the least number that is at least i and is in both s and o, or -1. It compares 64
// numbers per step. The number of steps is at most the number of words in s.
func (s sparse) next(o set, i int) int {
	at, _ := s.find(i)
	mask := ^uint64(0) // the bits of the current word whose numbers are at least i
	for ; at < len(s) && s[at].at < len(o); at++ {
		if s[at].at == i/64 {
			mask = ^uint64(0) << (i % 64)
		}
		if both := s[at].bits & o[s[at].at] & mask; both != 0 {
			return s[at].at*64 + bits.TrailingZeros64(both)
		}
		mask = ^uint64(0)
	}
	return -1
}

// common iterates over the numbers that are in both s and o. The loop body may remove the current
// number from s.
func (s *sparse) common(o set) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := s.next(o, 0); i >= 0; i = s.next(o, i+1) {
			if !yield(i) {
				return
			}
		}
	}
}
