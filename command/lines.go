package command

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// readLines calls line for every line that is not empty, without its end, until
// there are no more or line says that it has seen enough. A line of more than
// most bytes is dropped, so that memory is bounded whatever a program prints;
// dropped counts those. What is dropped is told while it comes, in bytes: such a
// line need not end.
func readLines(r io.Reader, most int, line func([]byte) (enough bool), dropping func(n int) (enough bool)) (dropped int) {
	in := bufio.NewReaderSize(r, 32<<10)
	var long []byte // the beginning of a line that does not fit into in
	skip := false   // the line is too long
	for {
		piece, err := in.ReadSlice('\n')
		whole := !errors.Is(err, bufio.ErrBufferFull)
		switch {
		case skip:
			if dropping(len(piece)) {
				return dropped
			}
		case len(long)+len(piece) > most+1: // the end of the line is not counted
			dropped++
			if dropping(len(long) + len(piece)) {
				return dropped
			}
			skip, long = true, nil
		case !whole || len(long) > 0:
			long = append(long, piece...)
		}
		if !whole {
			continue
		}
		text := piece
		if len(long) > 0 {
			text = long
		}
		if text = bytes.TrimRight(text, "\r\n"); !skip && len(text) > 0 && line(text) {
			return dropped
		}
		if err != nil {
			return dropped
		}
		long, skip = nil, false
	}
}

// readText calls text for what can be read, in pieces that end with whole
// characters; what is no UTF-8 is replaced.
func readText(r io.Reader, text func(string)) {
	buf := make([]byte, 32<<10)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		n += kept
		kept = 0
		if err == nil {
			kept = halfRune(buf[:n])
		}
		if s := strings.ToValidUTF8(string(buf[:n-kept]), "\ufffd"); s != "" {
			text(s)
		}
		if err != nil {
			return
		}
		copy(buf, buf[n-kept:n])
	}
}

// halfRune returns how many bytes at the end begin a character that has not
// come whole.
func halfRune(b []byte) int {
	for i := 1; i <= min(len(b), utf8.UTFMax-1); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-i:]) {
				return i
			}
			return 0
		}
	}
	return 0
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

// maxStderr is how much of the end of standard error is kept.
const maxStderr = 8 << 10

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > maxStderr {
		p, t.cut = p[len(p)-maxStderr:], true
	}
	if over := len(t.buf) + len(p) - maxStderr; over > 0 {
		t.buf, t.cut = append(t.buf[:0], t.buf[over:]...), true
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// String returns what is kept, in whole lines, without what colours it.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	if t.cut {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return strings.TrimSpace(plain(strings.ToValidUTF8(string(b), "")))
}

// plain removes terminal escape sequences (ECMA-48: ESC, and with [ a sequence
// up to a byte from @ to ~) and control characters other than line ends.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == 0x1b && i+1 < len(s) && s[i+1] == '[':
			for i += 2; i < len(s) && (s[i] < '@' || s[i] > '~'); i++ {
			}
		case c == 0x1b:
			i++
		case c >= ' ' && c != 0x7f, c == '\n', c == '\t':
			b.WriteByte(c)
		}
	}
	return b.String()
}

// hint returns the part of a program's standard error that says most in one
// line: the last line that speaks of an error, else the last line.
func hint(stderr string) string {
	lines := strings.Split(stderr, "\n")
	last, best := "", ""
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "at ") || strings.HasPrefix(l, "}") { // a stack trace of JavaScript
			continue
		}
		last = l
		if low := strings.ToLower(l); strings.Contains(low, "error") || strings.Contains(low, "unknown") || strings.Contains(low, "invalid") {
			best = l
		}
	}
	if best == "" {
		best = last
	}
	return cut(best, 300)
}
