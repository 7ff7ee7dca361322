package jsonc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// maxDepth is how deep brackets may stand in one another: the parser recurses.
const maxDepth = 100

// Parse reads a whole file of at most size bytes; a byte-order mark before it is
// read past, and counts for no column. The name is what errors and origins call
// it. The error is a *bgagent.ConfigFileError with the place.
func Parse(name string, data []byte, size int) (Value, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	f := newFile(name, data)
	fail := func(offset int, format string, args ...any) (Value, error) {
		return Value{}, ErrorAt(f.origin(offset), "", format, args...)
	}
	switch {
	case len(data) > size:
		return fail(0, "is larger than %d bytes, which is the most; divide it", size)
	case !utf8.Valid(data):
		return fail(firstInvalid(data), "is not valid UTF-8 from here on; save the file as UTF-8")
	case len(bytes.TrimSpace(data)) == 0:
		return fail(0, "is empty")
	}
	if i := tooDeep(data); i >= 0 {
		return fail(i, "is nested more than %d levels deep", maxDepth)
	}
	// A line comment may end with the file, which the parser does not know.
	v, err := hujson.Parse(append(data[:len(data):len(data)], '\n'))
	switch {
	case err == nil:
		return Value{f, v}, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fail(len(bytes.TrimRight(data, " \t\r\n")), "ends too early; a bracket, a quotation mark or a comment is not closed")
	}
	// The parser tells the place in its text only, the column in bytes.
	var line, column int
	problem := err.Error()
	if _, scan := fmt.Sscanf(problem, "hujson: line %d, column %d:", &line, &column); scan == nil {
		if inner := errors.Unwrap(err); inner != nil {
			problem = inner.Error()
		}
	}
	offset := 0
	if line >= 1 && line <= len(f.lines) {
		offset = f.lines[line-1] + max(column-1, 0)
	}
	return fail(offset, "is not JSON with comments: %s", problem)
}

// tooDeep returns where brackets first stand too deep, or -1.
func tooDeep(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return i
			}
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '/':
			end := commentEnd(b[i:])
			if end < 0 {
				return -1
			}
			i += end
		}
	}
	return -1
}

// commentEnd returns how many bytes to go on from the slash at the beginning of
// b to the end of a comment: 0 where there is none, -1 where it has no end.
func commentEnd(b []byte) int {
	end := ""
	switch {
	case bytes.HasPrefix(b, []byte("//")):
		end = "\n"
	case bytes.HasPrefix(b, []byte("/*")):
		end = "*/"
	default:
		return 0
	}
	n := bytes.Index(b[2:], []byte(end))
	if n < 0 {
		return -1
	}
	return 1 + n + len(end)
}

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}
