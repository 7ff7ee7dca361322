// Package jsonc reads JSON with comments and trailing commas. It remembers the
// place of each value, so that errors can name it.
//
// The syntax is that of [hujson]. This package adds what hujson leaves to its
// callers: places in characters, a bound on the depth, byte-order marks, comments
// at the end of the file, and errors that say what would be right.
//
// [hujson]: https://pkg.go.dev/github.com/tailscale/hujson
package jsonc

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// Value is a value in a file, with its place. It is safe for concurrent use.
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

// At returns where the name begins.
func (m Member) At() Origin { return m.Value.file.origin(m.name) }

// Errorf returns an error at the place of the name.
func (m Member) Errorf(key, format string, args ...any) error {
	return m.Value.file.fail(m.At(), key, fmt.Sprintf(format, args...))
}

// Origin returns where the value begins.
func (v Value) Origin() Origin { return v.file.origin(v.v.StartOffset) }

// Errorf returns an error at the place of the value. The key names the value.
func (v Value) Errorf(key, format string, args ...any) error {
	return v.file.fail(v.Origin(), key, fmt.Sprintf(format, args...))
}

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return v.v.Value.Kind() == 'n' }

// Members returns the entries of an object in order, and false for anything else.
// A name may occur twice.
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

// Elements returns the values of a list, and false for anything else.
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

// Text returns the value of a string, and false for anything else.
func (v Value) Text() (string, bool) {
	lit, _ := v.v.Value.(hujson.Literal)
	if lit.Kind() != '"' {
		return "", false
	}
	return lit.String(), true
}

// Number returns a number as it is written, and false for anything else.
func (v Value) Number() (string, bool) {
	lit, _ := v.v.Value.(hujson.Literal)
	if lit.Kind() != '0' {
		return "", false
	}
	return string(lit), true
}

// Bool returns a boolean. ok is false for anything else.
func (v Value) Bool() (value, ok bool) {
	kind := v.v.Value.Kind()
	return kind == 't', kind == 't' || kind == 'f'
}

// String returns the value as JSON in one line.
func (v Value) String() string {
	c := v.v.Clone()
	c.Minimize()
	return string(c.Pack())
}

// Describe names the value in an error.
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

// maxName is how many bytes of a name a path shows without quotation marks.
const maxName = 120

// Key names an entry of an object in errors: path.name, or path["na me"] if the
// name needs quotation marks.
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

// Index is the part of a path for an entry with any name: ["na me"].
func Index(name string) string { return "[" + quote(name) + "]" }

// quote quotes text of a file in an error, and keeps it short.
func quote(s string) string { return fmt.Sprintf("%.120q", s) }
