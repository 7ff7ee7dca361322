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

// MaxDepth is the maximum number of levels of brackets in a file. The limit exists because the parser is
// recursive: a megabyte of brackets would need gigabytes of stack.
const MaxDepth = 200

// Empty is the problem that is reported if a file contains only white space and comments. It
// is exported so that the caller, who knows what the file should contain, can add advice.
const Empty = "is empty"

const byteOrderMark = "\xef\xbb\xbf"

// ErrorFunc returns an error of a type that the caller chooses. The key is empty if the
// error is not about a key. The problem is one line without a full stop.
type ErrorFunc func(at Origin, key, problem string) error

// Parse parses the content of a file. The name of the file is used in origins and errors. A byte-order mark
// is skipped and does not count as a column. A carriage return ends a line even if no line feed follows. The
// function "fail" creates every error about the file, including the errors of [Value.Errorf] and
// [Member.Errorf]. The values refer to the bytes in data, so these bytes must not be changed after
// the call.
func Parse(name string, data []byte, fail ErrorFunc) (Value, error) {
	data = oneLineEnd(bytes.TrimPrefix(data, []byte(byteOrderMark)))
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
	// A line comment may end at the end of the file, but the parser requires a newline after it.
	v, err := hujson.Parse(append(data[:len(data):len(data)], '\n'))
	if err != nil {
		offset, what := syntaxError(data, v, err)
		return problem(offset, "%s", what)
	}
	return Value{f, v}, nil
}

// oneLineEnd replaces each carriage return with a line feed, unless a line feed follows it. Without this,
// the parser would treat the lines after a line comment as part of the comment. The replacement does not
// change any valid string, because a string with an unescaped line end is an error in any case.
func oneLineEnd(data []byte) []byte {
	copied := false
	for i, c := range data {
		if c != '\r' || i+1 < len(data) && data[i+1] == '\n' {
			continue
		}
		if !copied {
			data, copied = bytes.Clone(data), true
		}
		data[i] = '\n'
	}
	return data
}

// syntaxError returns the place and the description of a syntax error.
func syntaxError(data []byte, v hujson.Value, err error) (offset int, problem string) {
	if v.Value == nil && len(v.BeforeExtra) > len(data) { // the data contains only white space and comments
		return 0, Empty
	}
	end := len(bytes.TrimRight(data, " \t\r\n"))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return end, "ends too early; a bracket, a quotation mark or a comment is not closed"
	}
	// The parser reports the place of an error only in the text of the error, and its column counts bytes.
	var line, column int
	problem = err.Error()
	if _, scan := fmt.Sscanf(problem, "hujson: line %d, column %d:", &line, &column); scan == nil {
		if inner := errors.Unwrap(err); inner != nil {
			problem = inner.Error()
		}
	}
	if lit, ok := strings.CutPrefix(problem, "invalid literal: "); ok {
		problem = quote(lit) + " is not a value; it must be a number, true, false, null or a string in quotation marks; keys need quotation marks, too"
		if strings.HasPrefix(lit, `"`) {
			problem = "the string " + quote(lit) + " is broken; is a quotation mark missing, or a backslash not doubled?"
		}
	}
	return min(offsetOf(data, line, column), end), "is not JSON with comments: " + problem
}

// tooDeep returns the offset of the first bracket that is nested too deeply, or -1. It
// recognizes the same strings and comments as the parser up to the first syntax error, where
// the parser stops.
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

// commentEnd returns the distance in bytes from the slash at the beginning of b to the
// last byte of the comment that begins there. It returns 0 if there is no comment, and -1
// if the comment has no end.
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

// firstInvalid returns the offset of the first byte in b that is not valid UTF-8, or the
// length of b if all bytes are valid.
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
