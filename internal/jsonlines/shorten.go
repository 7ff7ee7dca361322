package jsonlines

// shortener shortens long strings in a line of JSON. The line is passed in pieces.
type shortener struct {
	most     int  // maximum number of bytes of a string
	inside   bool // whether the current byte is within a string
	n        int  // number of bytes of the string so far
	escape   int  // number of further bytes in the current escape
	begun    bool // whether the previous byte was a backslash
	dropping bool // whether the rest of the string is dropped
}

// append appends src to dst without the dropped parts of strings. dst may be the beginning
// of src.
func (s *shortener) append(dst, src []byte) []byte {
	for _, c := range src {
		switch {
		case !s.inside:
			if c == '"' {
				s.inside, s.n, s.dropping = true, 0, false
			}
			dst = append(dst, c)
			continue
		case s.begun:
			if s.begun = false; c == 'u' {
				s.escape = 4
			}
		case c == '"':
			s.inside, s.escape = false, 0
			dst = append(dst, c)
			continue
		case s.escape > 0:
			s.escape--
		default: // strings are cut only between characters and escapes
			s.dropping = s.dropping || s.n >= s.most && c&0xc0 != 0x80
			s.begun = c == '\\'
		}
		if s.n++; !s.dropping {
			dst = append(dst, c)
		}
	}
	return dst
}
