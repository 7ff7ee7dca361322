package jsonlines

// shortener shortens long strings in a line of JSON, piece by piece.
type shortener struct {
	most     int  // how many bytes of a string are kept
	inside   bool // within a string
	n        int  // bytes of the string so far
	escape   int  // bytes that are missing from the current escape
	begun    bool // the byte before was a backslash
	dropping bool // the rest of the string is dropped
}

// append appends what is kept of src to dst, which may be the beginning of src.
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
		default: // cut only between characters and escapes
			s.dropping = s.dropping || s.n >= s.most && c&0xc0 != 0x80
			s.begun = c == '\\'
		}
		if s.n++; !s.dropping {
			dst = append(dst, c)
		}
	}
	return dst
}
