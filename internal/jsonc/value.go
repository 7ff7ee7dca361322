// Package jsonc reads JSON with comments and trailing commas. It keeps the place of each
// value, so that errors can name the place.
//
// The parser is [hujson]. This package adds places that are counted in characters, a maximum
// depth, byte-order marks, comments at the end of the file, and errors that suggest a
// correction.
//
// [hujson]: https://pkg.go.dev/github.com/tailscale/hujson
package jsonc

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// Value is a value in a file, together with its place. It is safe for concurrent use.
type Value struct {
	file *file
	v    hujson.Value
}

// Member is one entry of an object.
type Member struct {
	Name  string
	Value Value
	name  int // offset of the name
}

// At returns the place where the name begins.
func (m Member) At() Origin { return m.Value.file.origin(m.name) }

// Errorf returns an error at the place of the name.
func (m Member) Errorf(key, format string, args ...any) error {
	return m.Value.file.fail(m.At(), key, fmt.Sprintf(format, args...))
}

// Origin returns the place where the value begins.
func (v Value) Origin() Origin { return v.file.origin(v.v.StartOffset) }

// Errorf returns an error at the place of the value. The error names the value by the given key.
func (v Value) Errorf(key, format string, args ...any) error {
	return v.file.fail(v.Origin(), key, fmt.Sprintf(format, args...))
}

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return v.v.Value.Kind() == 'n' }

// Members returns the entries of an object in order. It returns false if the value is not
// an object. A name may occur twice.
func (v Value) Members() ([]Member, bool) {
	obj, ok := v.v.Value.(*hujson.Object)
	if !ok {
		return nil, false
	}
	out := make([]Member, 0, len(obj.Members))
	for _, m := range obj.Members {
		out = append(out, Member{m.Name.Value.(hujson.Literal).String(), Value{v.file, m.Value}, m.Name.StartOffset})
	}
	return out, true
}

// Elements returns the values in a list. It returns false if the value is not a list.
func (v Value) Elements() ([]Value, bool) {
	list, ok := v.v.Value.(*hujson.Array)
	if !ok {
		return nil, false
	}
	out := make([]Value, 0, len(list.Elements))
	for _, e := range list.Elements {
		out = append(out, Value{v.file, e})
	}
	return out, true
}

// Text returns the content of a string. It returns false if the value is not a string.
func (v Value) Text() (string, bool) {
	lit, _ := v.v.Value.(hujson.Literal)
	if lit.Kind() != '"' {
		return "", false
	}
	return lit.String(), true
}

// Number returns a number as written in the file. It returns false if the value is not a
// number.
func (v Value) Number() (string, bool) {
	lit, _ := v.v.Value.(hujson.Literal)
	if lit.Kind() != '0' {
		return "", false
	}
	return string(lit), true
}

// Bool returns a boolean. The second result is false if v is not a boolean.
func (v Value) Bool() (value, ok bool) {
	kind := v.v.Value.Kind()
	return kind == 't', kind == 't' || kind == 'f'
}

// String returns the value as JSON on one line.
func (v Value) String() string {
	c := v.v.Clone()
	c.Minimize()
	return string(c.Pack())
}

// Describe returns a description of the value for use in errors.
func (v Value) Describe() string {
	if s, ok := v.Text(); ok {
		return "the string " + quote(s)
	}
	if s, ok := v.Number(); ok {
		return fmt.Sprintf("the number %.40s", s)
	}
	switch v.v.Value.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	return v.String()
}

// maxName is the maximum length, in bytes, of an unquoted name in a path.
const maxName = 120

// Key returns the path of an entry for use in errors. The arguments are the path of the object that contains
// the entry, and the name of the entry. The result is path.name, or path["na me"] if the name needs quotation
// marks.
func Key(path, name string) string {
	plain := name != "" && len(name) <= maxName && strings.IndexFunc(name, func(r rune) bool {
		return r >= utf8.RuneSelf || !strings.ContainsRune("$-_", r) && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	}) < 0
	switch {
	case !plain:
		return path + Index(name)
	case path == "":
		return name
	}
	return path + "." + name
}

// Index returns the last part of a path in the form that is valid for any name: ["na me"].
func Index(name string) string { return "[" + quote(name) + "]" }

// The function "quote" returns the first 120 characters of s, quoted for use in errors.
func quote(s string) string { return fmt.Sprintf("%.120q", s) }
