// Package cleantext makes text of a program that nobody controls fit for a file
// and for a terminal: without escape sequences and control characters, with
// line ends that are all "\n", and as valid UTF-8.
package cleantext

import (
	"io"
	"strings"
	"unicode/utf8"
)

// String returns s cleaned, as a [Writer] does.
func String(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	w := NewWriter(&b)
	_, _ = io.WriteString(w, s) // a strings.Builder takes everything
	_ = w.Flush()
	return b.String()
}

// Line returns s cleaned and as one line, with single spaces between its words.
func Line(s string) string { return strings.Join(strings.Fields(String(s)), " ") }

// isClean reports whether nothing of s has to change.
func isClean(s string) bool {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
		if unwanted(r) || r == '\r' {
			return false
		}
	}
	return true
}

// unwanted reports whether a character acts on a terminal instead of being
// shown: the control characters other than tab and the line ends, and those that
// turn the direction of the text around them.
func unwanted(r rune) bool {
	switch {
	case r == '\n', r == '\t', r == '\r':
		return false
	case r < ' ', r >= 0x7f && r <= 0x9f:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
		return true
	}
	return false
}

// maxSequence bounds an escape sequence that carries a text, such as a window
// title. A longer one is taken for one that was never closed.
const maxSequence = 4 << 10

// state says what the writer is in the middle of.
type state uint8

const (
	plain    state = iota
	escape         // after ESC
	shift          // after ESC and an intermediate byte: one more byte belongs to it
	control        // in a control sequence, up to its final byte
	text           // in a sequence that carries a text
	textExit       // the same, after an ESC that may close it
)

// Writer cleans what is written to it, in pieces of any size, and passes it on.
// It is not safe for concurrent use.
type Writer struct {
	w     io.Writer
	state state
	size  int    // of the sequence with a text
	cr    bool   // the last character was a carriage return
	half  []byte // of a character that has not come whole
	out   []byte
}

// NewWriter returns a Writer that passes on to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements [io.Writer]. The error is that of the writer behind it.
func (w *Writer) Write(p []byte) (int, error) {
	w.out = w.out[:0]
	b := p
	if len(w.half) > 0 {
		b = append(w.half, p...)
	}
	for len(b) > 0 {
		if !utf8.FullRune(b) {
			break
		}
		r, n := utf8.DecodeRune(b)
		w.take(r)
		b = b[n:]
	}
	w.half = append(make([]byte, 0, utf8.UTFMax), b...)
	if len(w.out) == 0 {
		return len(p), nil
	}
	if _, err := w.w.Write(w.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush passes on what waited for the rest of a character. A sequence that has
// not ended is dropped.
func (w *Writer) Flush() error {
	if len(w.half) == 0 {
		return nil
	}
	w.half, w.out = nil, w.out[:0]
	w.take(utf8.RuneError)
	_, err := w.w.Write(w.out)
	return err
}

// take takes the next character.
func (w *Writer) take(r rune) {
	after := w.cr
	w.cr = false
	if w.state != plain && w.inside(r) {
		return
	}
	switch {
	case r == 0x1b:
		w.state = escape
	case r == 0x9b:
		w.state = control
	case r == 0x90, r == 0x98, r >= 0x9d && r <= 0x9f:
		w.state, w.size = text, 0
	case r == '\r':
		w.cr = true
		w.out = append(w.out, '\n')
	case r == '\n' && after: // it has been written
	case !unwanted(r):
		w.out = utf8.AppendRune(w.out, r)
	}
}

// inside takes a character in the middle of a sequence. It reports whether it
// belongs to the sequence: what cannot stand in one ends it.
func (w *Writer) inside(r rune) bool {
	switch w.state {
	case escape:
		switch {
		case r == '[':
			w.state = control
		case r == ']', r == 'P', r == 'X', r == '^', r == '_':
			w.state, w.size = text, 0
		case r >= ' ' && r <= '/':
			w.state = shift
		default:
			w.state = plain
			return r > ' ' && r <= '~'
		}
		return true
	case shift:
		if r < ' ' || r > '/' {
			w.state = plain
		}
		return r >= ' ' && r <= '~'
	case control:
		if r < ' ' || r > '?' {
			w.state = plain
		}
		return r >= ' ' && r <= '~'
	}
	return w.insideText(r)
}

// insideText is inside for sequences that carry a text. One that is not closed in
// its line, or is too long, ends there: it must not swallow an answer.
func (w *Writer) insideText(r rune) bool {
	w.size++
	switch {
	case w.state == textExit && r == '\\', r == '\a', r == 0x9c:
		w.state = plain
		return true
	case r == 0x1b && w.state == text:
		w.state = textExit
		return true
	case w.state == textExit: // another sequence
		w.state = escape
		return w.inside(r)
	case r == '\n', r == '\r', w.size > maxSequence:
		w.state = plain
		return false
	}
	return true
}
