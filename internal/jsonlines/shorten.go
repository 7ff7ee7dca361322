package jsonlines

import "fmt"

// shortener shortens long strings in a line of JSON. The line is passed in pieces. A shortened
// string ends with a note, so that its reader does not mistake it for the whole text.
type shortener struct {
	most     int  // maximum number of bytes of a string
	inside   bool // whether the current byte is within a string
	n        int  // number of bytes of the string so far
	escape   int  // number of further bytes in the current escape
	begun    bool // whether the previous byte was a backslash
	dropping bool // whether the rest of the string is dropped
	dropped  int  // number of bytes of the string that were dropped
}

// The method "append" adds src to dst without the dropped parts of strings. dst must not be part of
// src, because a note can be longer than the part that it replaces.
func (s *shortener) append(dst, src []byte) []byte {
	for _, c := range src {
		switch {
		case !s.inside:
			if c == '"' {
				s.inside, s.n, s.dropping, s.dropped = true, 0, false, 0
			}
			dst = append(dst, c)
			continue
		case s.begun:
			if s.begun = false; c == 'u' {
				s.escape = 4
			}
		case c == '"':
			s.inside, s.escape = false, 0
			if s.dropped > 0 {
				dst = fmt.Appendf(dst, " [cut: %d more bytes]", s.dropped)
			}
			dst = append(dst, c)
			continue
		case s.escape > 0:
			s.escape--
		default: // strings are cut only between characters and escapes
			s.dropping = s.dropping || s.n >= s.most && c&0xc0 != 0x80
			s.begun = c == '\\'
		}
		if s.n++; s.dropping {
			s.dropped++
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}
