package jsonlines

import (
	"fmt"
	"strconv"
	"sync"
)

// Noise is what a [Reader] has not understood.
type Noise struct {
	Texts   int    // lines, and parts of lines, that are no object, and objects that were rejected
	Bytes   int    // of them, and of what was dropped
	First   string // the first of them, in one line of at most 100 bytes
	Dropped int    // lines that were too long
}

// Any reports whether there was something.
func (n Noise) Any() bool { return n.Texts > 0 || n.Dropped > 0 }

// String says it in words: `2 lines were not understood, the first: "…"`. It is
// empty when there was nothing.
func (n Noise) String() string {
	s := ""
	if n.Texts > 0 {
		s = fmt.Sprintf("%s not understood, the first: %s", lines(n.Texts), strconv.Quote(n.First))
	}
	if n.Dropped > 0 {
		if s != "" {
			s += "; "
		}
		s += lines(n.Dropped) + " too long to be read"
	}
	return s
}

func lines(n int) string {
	if n == 1 {
		return "1 line was"
	}
	return strconv.Itoa(n) + " lines were"
}

// mostShown is how many bytes of the first text are kept.
const mostShown = 100

type noise struct {
	mu sync.Mutex
	n  Noise
}

// add counts a text. What shows nothing, such as white space, is none.
func (n *noise) add(text []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.n.Texts == 0 {
		if n.n.First = brief(text, mostShown); n.n.First == "" {
			return
		}
	}
	n.n.Texts++
	n.n.Bytes += len(text) + 1
}

// dropping counts bytes of a line that is dropped.
func (n *noise) dropping(bytes int, first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n.Bytes += bytes
	if first {
		n.n.Dropped++
	}
}

func (n *noise) get() Noise {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.n
}

func (n *noise) bytes() int { return n.get().Bytes }
