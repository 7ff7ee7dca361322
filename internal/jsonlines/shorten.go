package jsonlines

// shortener cuts long strings out of a line of JSON, as it comes.
type shortener struct {
	most     int  // bytes of a string that stay
	inside   bool // a string is read
	n        int  // bytes of it so far
	escape   int  // bytes that belong to the escape which is read
	begun    bool // the byte before was a backslash
	dropping bool // the rest of the string goes
}

// append appends what stays of src to dst, which may be the beginning of src.
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
		default: // neither a character nor an escape is cut in the middle
			s.dropping = s.dropping || s.n >= s.most && c&0xc0 != 0x80
			s.begun = c == '\\'
		}
		if s.n++; !s.dropping {
			dst = append(dst, c)
		}
	}
	return dst
}
