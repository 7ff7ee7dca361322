package jsonlines

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Cleaner turns terminal output into plain text. The output is passed in pieces. The text
// has no escape sequences and no control characters, and its lines end with \n. The zero
// value is ready for use.
type Cleaner struct{ s stripper }

// Clean returns the text of the next piece. If the piece ends within a sequence, Clean
// holds the incomplete sequence back until the next call.
func (c *Cleaner) Clean(piece string) string {
	c.s.text = true
	if c.s.state == ground && !c.s.cr && isClean(piece) {
		return piece
	}
	return string(c.s.append(make([]byte, 0, len(piece)), []byte(piece)))
}

// Rest returns the text that is held back.
func (c *Cleaner) Rest() string {
	c.s.text = true
	return string(c.s.flush(nil))
}

// Clean returns the text without escape sequences and control characters. The lines of the
// result end with \n.
func Clean(text string) string {
	if isClean(text) {
		return text
	}
	var c Cleaner
	return c.Clean(text) + c.Rest()
}

// isClean reports whether s has no byte that Clean might remove.
func isClean(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\n' && c != '\t' || c == 0x7f || c == 0xc2 || c == bom[0] {
			return false
		}
	}
	return true
}

// brief returns the text as one line. A line of more than n bytes is cut and ends with an ellipsis.
func brief(b []byte, n int) string {
	s := strings.ToValidUTF8(Clean(string(b[:min(len(b), 8*n)])), "\ufffd")
	if s = strings.Join(strings.Fields(s), " "); len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// UTF8 returns a reader that decodes UTF-16 from r if the input begins with a UTF-16 byte-order
// mark. It does not change other input.
func UTF8(r io.Reader) io.Reader { return &utf8Reader{in: bufio.NewReader(r)} }

type utf8Reader struct {
	in    *bufio.Reader
	begun bool
	order binary.ByteOrder // byte order of UTF-16; nil if the input is not decoded
	out   []byte           // decoded bytes that have not been read yet
	high  rune             // first half of a surrogate pair; 0 if there is none
	err   error
}

// Read implements [io.Reader].
func (u *utf8Reader) Read(p []byte) (int, error) {
	if !u.begun {
		u.begun = true
		switch b, _ := u.in.Peek(2); string(b) {
		case "\xff\xfe":
			u.order = binary.LittleEndian
		case "\xfe\xff":
			u.order = binary.BigEndian
		}
	}
	if u.order == nil {
		return u.in.Read(p)
	}
	for len(u.out) == 0 && u.err == nil {
		u.decode()
	}
	n := copy(p, u.out)
	if u.out = u.out[n:]; n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, u.err
}

// decode decodes the buffered input. It first waits until at least one 16-bit unit is
// buffered.
func (u *utf8Reader) decode() {
	out := u.out[:0]
	for first := true; first || u.in.Buffered() >= 2 && len(out) < 4096; first = false {
		var unit [2]byte
		if _, err := io.ReadFull(u.in, unit[:]); err != nil {
			if u.err = err; err == io.ErrUnexpectedEOF {
				u.err = io.EOF // half of a unit at the end of the input is ignored
			}
			break
		}
		c := rune(u.order.Uint16(unit[:]))
		if u.high != 0 {
			pair := utf16.DecodeRune(u.high, c)
			out = utf8.AppendRune(out, pair)
			if u.high = 0; pair != utf8.RuneError {
				continue
			}
		}
		switch {
		case c >= 0xd800 && c < 0xdc00:
			u.high = c
		case c == 0xfeff:
		default:
			out = utf8.AppendRune(out, c)
		}
	}
	u.out = out
}
