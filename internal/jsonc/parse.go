package jsonc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// MaxDepth is how deep brackets may stand in one another. The parser recurses,
// and a megabyte of brackets would cost it gigabytes of stack.
const MaxDepth = 200

// Empty is the problem of a file that holds white space and comments alone. The
// caller knows what to write instead.
const Empty = "is empty"

const byteOrderMark = "\xef\xbb\xbf"

// ErrorFunc makes an error of the caller's own type. The key is empty when the
// error is not about one. The problem is one line without a full stop.
type ErrorFunc func(at Origin, key, problem string) error

// Parse reads a whole file. The name is what origins and errors call it. A
// byte-order mark is read past and counts for no column. Every error about the
// file, those of [Value.Errorf] and [Member.Errorf] included, is made by fail.
// The values keep data, which must not be changed afterwards.
func Parse(name string, data []byte, fail ErrorFunc) (Value, error) {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	f := &file{name: name, lines: newLines(data), fail: fail}
	problem := func(offset int, format string, args ...any) (Value, error) {
		return Value{}, fail(f.origin(offset), "", fmt.Sprintf(format, args...))
	}
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")):
		return problem(0, "is UTF-16; save the file as UTF-8")
	case !utf8.Valid(data):
		return problem(firstInvalid(data), "is not valid UTF-8 from here on; save the file as UTF-8")
	}
	if i := tooDeep(data); i >= 0 {
		return problem(i, "is nested more than %d levels deep", MaxDepth)
	}
	// A line comment may end with the file, which the parser does not know.
	v, err := hujson.Parse(append(data[:len(data):len(data)], '\n'))
	if err != nil {
		offset, what := syntaxError(data, v, err)
		return problem(offset, "%s", what)
	}
	return Value{f, v}, nil
}

// syntaxError returns what the parser found wrong, and where.
func syntaxError(data []byte, v hujson.Value, err error) (offset int, problem string) {
	if v.Value == nil && len(v.BeforeExtra) > len(data) { // white space and comments only
		return 0, Empty
	}
	end := len(bytes.TrimRight(data, " \t\r\n"))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return end, "ends too early; a bracket, a quotation mark or a comment is not closed"
	}
	// The parser tells the place in its text only, the column in bytes.
	var line, column int
	problem = err.Error()
	if _, scan := fmt.Sscanf(problem, "hujson: line %d, column %d:", &line, &column); scan == nil {
		if inner := errors.Unwrap(err); inner != nil {
			problem = inner.Error()
		}
	}
	if lit, ok := strings.CutPrefix(problem, "invalid literal: "); ok {
		problem = quote(lit) + " is not a value; it must be a number, true, false, null or a string in quotation marks; keys stand in quotation marks, too"
		if strings.HasPrefix(lit, `"`) {
			problem = "the string " + quote(lit) + " is broken; is a quotation mark missing, or a backslash not doubled?"
		}
	}
	return min(offsetOf(data, line, column), end), "is not JSON with comments: " + problem
}

// tooDeep returns where brackets first stand too deep, or -1. Up to the first
// syntax error, where the parser stops, it sees the same strings and comments
// as the parser does.
func tooDeep(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if depth++; depth > MaxDepth {
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
			n := commentEnd(b[i:])
			if n < 0 {
				return -1
			}
			i += n
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

// firstInvalid returns where b first is not UTF-8, or its length.
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
