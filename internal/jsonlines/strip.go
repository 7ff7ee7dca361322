package jsonlines

import "strings"

// stripper removes terminal escape sequences (ECMA-48) and control characters other than line
// endings and tabs.
type stripper struct {
	// The field "text" is true if people or models read the output. In that case, the stripper also
	// removes DEL, control characters above 127 and byte-order marks, and turns line endings into
	// \n. It is false for JSON, because strings in JSON may contain these characters.
	text bool

	state state
	held  []byte // bytes of the current command string or character while its end is unknown
	cr    bool   // whether the last byte was a carriage return
}

type state uint8

const (
	ground state = iota
	escape
	control       // after ESC [
	intermediate  // after ESC and a byte from space to /
	command       // within a command string, such as ESC ] title BEL
	commandEscape // after ESC within a command string
	character     // within a character that may have to be removed
)

// mostHeld is the maximum length of a command string. A longer command string counts as
// text.
const mostHeld = 64 << 10

const (
	esc = 0x1b
	bel = 0x07
	bom = "\ufeff"
)

// The method "append" adds src to dst without the bytes that are removed or held back.
func (s *stripper) append(dst, src []byte) []byte {
	for _, c := range src {
		dst = s.next(dst, c)
	}
	return dst
}

func (s *stripper) next(dst []byte, c byte) []byte {
	final := c >= 0x30 && c <= 0x7e && c != '{' // a brace never ends a sequence, so that the brace of an object is kept
	switch s.state {
	case escape:
		return s.afterEscape(dst, c, final)
	case control, intermediate:
		if c >= 0x20 && c <= 0x2f || s.state == control && c >= 0x30 && c <= 0x3f {
			return dst
		}
		if s.state = ground; final {
			return dst
		}
	case command:
		switch {
		case c == bel:
			s.state, s.held = ground, s.held[:0]
		case c == esc:
			s.state = commandEscape
		case c == '\n' || c == '\r' || len(s.held) >= mostHeld:
			return s.next(s.flush(dst), c)
		default:
			s.held = append(s.held, c)
		}
		return dst
	case commandEscape:
		if c == '\\' {
			s.state, s.held = ground, s.held[:0]
			return dst
		}
		dst, s.state = s.flush(dst), escape // the string has no end, and another sequence begins
		return s.next(dst, c)
	case character:
		if s.held = append(s.held, c); !isDoubtful(s.held) {
			dst = append(dst, s.held[:len(s.held)-1]...)
			s.state, s.held = ground, s.held[:0]
			return s.next(dst, c)
		}
		if len(s.held) == len(bom) || len(s.held) == 2 && s.held[0] == 0xc2 {
			s.state, s.held = ground, s.held[:0]
		}
		return dst
	}
	return s.plain(dst, c)
}

// isDoubtful reports whether b is a character that is removed from text, or the beginning
// of such a character. These characters are U+0080 to U+009F and U+FEFF.
func isDoubtful(b []byte) bool {
	if b[0] == 0xc2 {
		return len(b) == 1 || b[1] < 0xa0 && b[1] >= 0x80
	}
	return strings.HasPrefix(bom, string(b))
}

// The method "plain" processes a byte outside of sequences.
func (s *stripper) plain(dst []byte, c byte) []byte {
	after := s.cr
	s.cr = c == '\r'
	switch {
	case c == esc:
		s.state = escape
	case s.text && (c == 0xc2 || c == bom[0]):
		s.state, s.held = character, append(s.held[:0], c)
	case s.text && c == '\r':
		return append(dst, '\n')
	case s.text && (c == '\n' && after || c == 0x7f):
	case c >= ' ', c == '\n', c == '\r', c == '\t':
		return append(dst, c)
	}
	return dst
}

func (s *stripper) afterEscape(dst []byte, c byte, final bool) []byte {
	s.state = ground
	switch {
	case c == '[':
		s.state = control
	case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
		s.state, s.held = command, s.held[:0]
	case c >= 0x20 && c <= 0x2f:
		s.state = intermediate
	case !final:
		return s.plain(dst, c)
	}
	return dst
}

// flush appends the bytes that were held back: the beginning of a character, or a command
// string without an end.
func (s *stripper) flush(dst []byte) []byte {
	was, held := s.state, s.held
	if s.state, s.held = ground, nil; was == character {
		return append(dst, held...)
	}
	for _, c := range held {
		dst = s.next(dst, c)
	}
	if s.state == character { // the string ended within a character
		return s.flush(dst)
	}
	return dst
}
