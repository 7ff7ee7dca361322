// Package cleantext makes untrusted output of programs safe for files and
// terminals. It removes escape sequences and control characters, turns all line endings into
// "\n", and produces valid UTF-8.
package cleantext

import (
	"io"
	"strings"
	"unicode/utf8"
)

// String returns s cleaned by a [Writer].
func String(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	w := NewWriter(&b)
	_, _ = io.WriteString(w, s) // a strings.Builder never fails
	_ = w.Flush()
	return b.String()
}

// Line returns the cleaned text as one line, with single spaces between the words.
func Line(s string) string { return strings.Join(strings.Fields(String(s)), " ") }

// isClean reports whether s needs no change.
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

// The function "unwanted" reports whether a character controls the terminal or the display of other
// text. The unwanted characters are control characters except tabs and newlines, the byte-order
// mark, and characters that change the direction of the surrounding text.
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

// maxSequence is the maximum length of an escape sequence that contains text, such as a window title. A
// longer sequence is treated as if it ended at that length.
const maxSequence = 4 << 10

// The type "state" is the writer's position within escape sequences.
type state uint8

const (
	plain    state = iota
	escape         // after ESC
	shift          // after ESC and an intermediate byte; one more byte follows
	control        // within a control sequence
	text           // within a sequence that contains text
	textExit       // within a sequence that contains text, after an ESC that may close the sequence
)

// Writer cleans text and writes the result to another writer. The text may be written in
// pieces of any size. A Writer is not safe for concurrent use.
type Writer struct {
	w     io.Writer
	state state
	size  int    // number of characters read so far in a sequence that contains text
	cr    bool   // whether the last character was a carriage return
	half  []byte // beginning of an incomplete character
	out   []byte
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements [io.Writer]. It returns the error from the underlying writer.
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

// Flush writes U+FFFD if the text ends in the middle of a character. An unfinished escape sequence
// is dropped.
func (w *Writer) Flush() error {
	if len(w.half) == 0 {
		return nil
	}
	w.half, w.out = nil, w.out[:0]
	w.take(utf8.RuneError)
	_, err := w.w.Write(w.out)
	return err
}

// The method "take" processes the next character.
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
	case r == '\n' && after: // the preceding carriage return was already written as a newline
	case !unwanted(r):
		w.out = utf8.AppendRune(w.out, r)
	}
}

// The method "inside" handles a character that is read within a sequence. It reports whether
// the character belongs to the sequence. A character that does not belong to the sequence ends
// it.
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

// insideText is like inside, but for sequences that contain text. A sequence that is not closed ends at the
// end of the line or after maxSequence characters, so it cannot hide the text that follows.
func (w *Writer) insideText(r rune) bool {
	w.size++
	switch {
	case w.state == textExit && r == '\\', r == '\a', r == 0x9c:
		w.state = plain
		return true
	case r == 0x1b && w.state == text:
		w.state = textExit
		return true
	case w.state == textExit: // the ESC begins a new sequence
		w.state = escape
		return w.inside(r)
	case r == '\n', r == '\r', w.size > maxSequence:
		w.state = plain
		return false
	}
	return true
}
