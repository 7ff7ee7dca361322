package jsonlines

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Noise summarizes the input of a [Reader] that was not understood.
type Noise struct {
	Texts   int    // number of pieces of text: rejected objects, and lines and parts of lines that are not objects
	Bytes   int    // number of bytes in these pieces and in dropped lines
	First   string // first piece of text, as one line that is cut after 100 bytes
	Dropped int    // number of lines that were dropped because they were too long
}

// Any reports whether there was any noise.
func (n Noise) Any() bool { return n.Texts > 0 || n.Dropped > 0 }

// String describes the noise: `2 lines were not understood, the first: "…"`. It returns
// "" if there was no noise.
func (n Noise) String() string {
	s := ""
	if n.Texts > 0 {
		s = fmt.Sprintf("%s not understood, the first: %s", lines(n.Texts), n.Quoted())
	}
	if n.Dropped > 0 {
		if s != "" {
			s += "; "
		}
		s += lines(n.Dropped) + " too long to be read"
	}
	return s
}

// Quoted returns the first text in quotation marks. A text that contains quotation marks, such as an object,
// is in backquotes, because it is then easier to read.
func (n Noise) Quoted() string {
	if strings.ContainsRune(n.First, '"') && strconv.CanBackquote(n.First) {
		return "`" + n.First + "`"
	}
	return strconv.Quote(n.First)
}

func lines(n int) string {
	if n == 1 {
		return "1 line was"
	}
	return strconv.Itoa(n) + " lines were"
}

// mostShown is the maximum number of bytes in Noise.First, not counting the ellipsis of a line that
// was cut.
const mostShown = 100

// Add counts a piece of text. A piece without visible characters counts only if a piece with visible
// characters was added before it.
func (n *Noise) Add(text []byte) {
	if n.Texts == 0 {
		if n.First = brief(text, mostShown); n.First == "" {
			return
		}
	}
	n.Texts++
	n.Bytes += len(text) + 1
}

type noise struct {
	mu sync.Mutex
	n  Noise
}

func (n *noise) add(text []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n.Add(text)
}

// The method "dropping" adds the bytes of a dropped line to the count. first is true for the first
// bytes of that line.
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
