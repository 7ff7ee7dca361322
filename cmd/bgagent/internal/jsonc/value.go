// Package jsonc reads JSON with comments and trailing commas, and remembers
// where each value stands, so that what is wrong with one can be shown in its
// file.
package jsonc

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/tailscale/hujson"
)

// Value is a value of a file with the place where it stands.
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
func (m Member) At() bgagent.Origin { return m.Value.file.origin(m.name) }

// Origin returns where the value begins.
func (v Value) Origin() bgagent.Origin { return v.file.origin(v.v.StartOffset) }

// IsNull reports whether the value is null.
func (v Value) IsNull() bool { return v.v.Value.Kind() == 'n' }

// Members returns the entries of an object in their order, and false for
// anything else. A name may come twice.
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

// Text returns a string, and false for anything else.
func (v Value) Text() (string, bool) {
	lit, ok := v.v.Value.(hujson.Literal)
	if !ok || lit.Kind() != '"' {
		return "", false
	}
	return lit.String(), true
}

// Bool returns true or false as they are written, and ok false for anything
// else.
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
	switch v.v.Value.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "the string " + clip(v.String())
	case '0':
		return "the number " + clip(v.String())
	}
	return v.String()
}

func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// Errorf returns an error about the value, which is that of the key.
func (v Value) Errorf(key, format string, args ...any) error {
	return ErrorAt(v.Origin(), key, format, args...)
}

// ErrorAt returns an error about a place: what is wrong, and what would be
// right.
func ErrorAt(o bgagent.Origin, key, format string, args ...any) error {
	return &bgagent.ConfigFileError{File: o.File, Line: o.Line, Column: o.Column, Key: key, Problem: fmt.Sprintf(format, args...)}
}

// Key names an entry of an object in errors: path.name, or path["na me"].
func Key(path, name string) string {
	plain := name != "" && strings.IndexFunc(name, func(r rune) bool {
		return r > utf8.RuneSelf || !strings.ContainsRune("$-_", r) && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	}) < 0
	switch {
	case !plain:
		return fmt.Sprintf("%s[%s]", path, clip(fmt.Sprintf("%q", name)))
	case path == "":
		return name
	}
	return path + "." + name
}

// file turns offsets into places. That is done only for what is shown: a file of
// one long line would be gone through again for each of its values.
type file struct {
	name  string
	data  []byte
	lines []int // where each begins
	plain bool  // one byte is one character everywhere
}

func newFile(name string, data []byte) *file {
	f := &file{name: name, data: data, lines: []int{0}, plain: true}
	for i, b := range data {
		f.plain = f.plain && b < utf8.RuneSelf
		if b == '\n' {
			f.lines = append(f.lines, i+1)
		}
	}
	return f
}

func (f *file) origin(offset int) bgagent.Origin {
	offset = max(0, min(offset, len(f.data)))
	line := sort.SearchInts(f.lines, offset+1)
	begin := f.lines[line-1]
	column := offset - begin
	if !f.plain {
		column = utf8.RuneCount(f.data[begin:offset])
	}
	return bgagent.Origin{File: f.name, Line: line, Column: column + 1}
}
