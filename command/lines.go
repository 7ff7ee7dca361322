package command

import (
	"bytes"
	"cmp"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/jsonlines"
)

// readText reads r and passes the text to the function "text" in pieces that do not split a
// character. It replaces invalid UTF-8 and decodes UTF-16 with a byte-order mark. It reports
// whether the input contained invalid UTF-8 or NUL bytes.
func readText(r io.Reader, text func(string)) (garbled bool) {
	r = jsonlines.UTF8(r)
	buf := make([]byte, 32<<10)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		n += kept
		kept = 0
		if err == nil {
			kept = halfRune(buf[:n])
		}
		piece := buf[:n-kept]
		garbled = garbled || !utf8.Valid(piece) || bytes.IndexByte(piece, 0) >= 0
		if s := strings.ToValidUTF8(string(piece), "\ufffd"); s != "" {
			text(s)
		}
		if err != nil {
			return garbled
		}
		copy(buf, buf[n-kept:n])
	}
}

// halfRune returns the number of bytes at the end of b that belong to an incomplete
// character.
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

// tail keeps the last maxStderr bytes that are written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

// maxStderr is the number of bytes at the end of standard error that are kept.
const maxStderr = 8 << 10

// Write implements [io.Writer]. It never fails.
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

// String returns the kept text in whole lines, without escape sequences.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	if t.cut {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return strings.TrimSpace(jsonlines.Clean(strings.ToValidUTF8(string(b), "")))
}

// hint returns the line of standard error that most likely explains a failure: the last line about
// a refused permission; if there is none, the last line about an error; otherwise the last line.
func hint(stderr string) string {
	lines := strings.Split(stderr, "\n")
	last, best, rejected := "", "", ""
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "at ") || strings.HasPrefix(l, "}") { // part of a JavaScript stack trace
			continue
		}
		last = l
		if low := strings.ToLower(l); strings.Contains(low, "error") || strings.Contains(low, "unknown") || strings.Contains(low, "invalid") {
			best = l
		}
		if strings.Contains(l, "auto-rejecting") { // opencode prints this word if nobody can grant a permission
			rejected = l
		}
	}
	return cut(cmp.Or(rejected, best, last), 300)
}

// lineWriter calls a function with each line that is written to it. If a line is longer than
// maxErrorLine, the function gets only its beginning.
type lineWriter struct {
	line func(string)
	buf  []byte
}

const maxErrorLine = 16 << 10

// Write implements [io.Writer]. It never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		part, rest, ended := bytes.Cut(p, []byte{'\n'})
		w.buf = append(w.buf, part[:min(len(part), max(0, maxErrorLine-len(w.buf)))]...)
		if !ended {
			return n, nil
		}
		w.line(strings.TrimSpace(jsonlines.Clean(strings.ToValidUTF8(string(w.buf), ""))))
		w.buf, p = w.buf[:0], rest
	}
}
