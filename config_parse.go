package bgagent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tailscale/hujson"
)

// maxConfigDepth is how deep brackets may stand in one another. The parser
// recurses, and a megabyte of brackets would cost it gigabytes of stack.
const maxConfigDepth = 200

// ParseConfig reads a configuration file that is already in memory. The name is
// what errors and origins call it. All errors are returned together, each a
// [*ConfigFileError] with its line, and then nothing is loaded.
func ParseConfig(name string, data []byte) (FileConfig, error) {
	p := parseFile(name, data)
	if len(p.errs) > 0 {
		return FileConfig{}, errors.Join(p.errs...)
	}
	return FileConfig{p.values, p.ignored}, nil
}

func parseFile(name string, data []byte) *fileParser {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // a byte-order mark, which some editors write
	p := &fileParser{file: name, data: data, cursor: cursor{data: data}, values: map[valueID]value{}}
	if root, ok := p.syntax(); ok {
		p.root(root)
	}
	return p
}

type fileParser struct {
	file    string
	data    []byte
	cursor  cursor
	values  map[valueID]value
	ignored []IgnoredKey
	errs    []error
	found   bool // there is a section for us
}

func (p *fileParser) at(offset int) Origin {
	line, column := p.cursor.place(offset)
	return Origin{p.file, line, column}
}

func (p *fileParser) failAt(o Origin, key, format string, args ...any) {
	p.errs = append(p.errs, &ConfigFileError{File: o.File, Line: o.Line, Column: o.Column, Key: key, Problem: fmt.Sprintf(format, args...)})
}

func (p *fileParser) fail(offset int, key, format string, args ...any) {
	p.failAt(p.at(offset), key, format, args...)
}

// syntax returns the value of the file, or reports the first thing that stops
// it from having one.
func (p *fileParser) syntax() (hujson.Value, bool) {
	switch {
	case len(p.data) > maxConfigFile:
		p.fail(0, "", "%s", tooLarge(int64(len(p.data))))
	case bytes.HasPrefix(p.data, []byte("\xff\xfe")) || bytes.HasPrefix(p.data, []byte("\xfe\xff")):
		p.fail(0, "", "is UTF-16; save the file as UTF-8")
	case !utf8.Valid(p.data):
		p.fail(firstInvalid(p.data), "", "is not valid UTF-8 from here on; save the file as UTF-8")
	default:
		if i := tooDeep(p.data); i >= 0 {
			p.fail(i, "", "is nested more than %d levels deep", maxConfigDepth)
			break
		}
		// A line comment may end with the file, which the parser does not know.
		v, err := hujson.Parse(append(p.data[:len(p.data):len(p.data)], '\n'))
		if err == nil {
			return v, true
		}
		p.syntaxError(v, err)
	}
	return hujson.Value{}, false
}

// syntaxError reports what the parser found wrong.
func (p *fileParser) syntaxError(v hujson.Value, err error) {
	end := len(bytes.TrimRight(p.data, " \t\r\n"))
	if v.Value == nil && len(v.BeforeExtra) > len(p.data) { // white space and comments only
		p.fail(0, "", `is empty; write {} or { "%s": {} }, or remove the file`, section)
		return
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		p.fail(end, "", "ends too early; a bracket, a quotation mark or a comment is not closed")
		return
	}
	// The parser tells the place in its text only, the column in bytes.
	var line, column int
	problem := err.Error()
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
	p.fail(min(offsetOf(p.data, line, column), end), "", "is not JSON with comments: %s", problem)
}

// root looks for our section among those of others: at the top, and in what the
// host's file for all harnesses says for opencode, which lies over it.
func (p *fileParser) root(v hujson.Value) {
	obj, ok := v.Value.(*hujson.Object)
	if !ok {
		p.fail(v.StartOffset, "", `is %s; it must be an object like { "%s": { "defaultConcurrency": 5 } }`, describe(v), section)
		return
	}
	p.members(obj)
	shared := p.values
	for i, m := range p.named(obj, harness) {
		inner, ok := m.Value.Value.(*hujson.Object)
		if !ok {
			continue
		}
		if i > 0 {
			p.fail(m.Name.StartOffset, harness, "stands twice; make one of the two")
			continue
		}
		p.values = map[valueID]value{}
		p.members(inner)
		overlay(shared, p.values)
	}
	p.values = shared
	if !p.found && len(p.ignored) == 0 {
		p.ignored = []IgnoredKey{{"", fmt.Sprintf("has no section %s, neither at its top nor in %s; nothing in it applies", section, quote(harness)), p.at(v.StartOffset)}}
	}
}

// named returns the members with the name.
func (p *fileParser) named(obj *hujson.Object, name string) (all []hujson.ObjectMember) {
	for _, m := range obj.Members {
		if memberName(m) == name {
			all = append(all, m)
		}
	}
	return all
}

// members reads our section where the object has it.
func (p *fileParser) members(obj *hujson.Object) {
	var first *Origin
	for _, m := range obj.Members {
		name, at := memberName(m), p.at(m.Name.StartOffset)
		switch {
		case name == harness:
		case name != section:
			p.foreign(name, m.Value, at)
		case first != nil:
			p.failAt(at, section, "stands twice, first in line %d; make one of the two", first.Line)
		default:
			first, p.found = &at, true
			p.section(m.Value, at)
		}
	}
}

// overlay lays the later values over the earlier ones of the same file. What a
// null takes back may also stand in an earlier file, so that nulls stay.
func overlay(values, later map[valueID]value) {
	for id, v := range later {
		if v.null && id.entry == "" {
			maps.DeleteFunc(values, func(old valueID, _ value) bool { return old.key == id.key })
		}
	}
	maps.Copy(values, later)
}

// foreign reports a key beside our section if it looks as if it were meant for
// us. It cannot be an error, since others may use the name.
func (p *fileParser) foreign(name string, v hujson.Value, at Origin) {
	inner, _ := v.Value.(*hujson.Object)
	reason := ""
	switch {
	case keyNamed(name) != nil:
		reason = "it counts only inside of " + section
	case editDistance(plainKey(name), plainSection, 3) < 3:
		reason = "did you mean " + section + "?"
	case inner != nil && len(p.named(inner, section)) > 0:
		name = quote(name) + "." + section
		reason = fmt.Sprintf("only the one at the top of the file and the one in %s count", quote(harness))
	default:
		return
	}
	p.ignored = append(p.ignored, IgnoredKey{name, reason, at})
}

func (p *fileParser) section(v hujson.Value, at Origin) {
	if isNull(v) { // takes back whatever earlier files say
		for i := range fileKeys {
			p.values[valueID{key: fileKeys[i].key}] = value{null: true, origin: at}
		}
		return
	}
	obj, ok := v.Value.(*hujson.Object)
	if !ok {
		p.fail(v.StartOffset, section, `is %s; it must be an object like { "defaultConcurrency": 5 }, or null`, describe(v))
		return
	}
	seen := map[string]Origin{}
	for _, m := range obj.Members {
		name, at := memberName(m), p.at(m.Name.StartOffset)
		k, canonical := keyNamed(name), name
		if k != nil {
			canonical = k.key
		}
		first, twice := seen[canonical]
		if twice {
			p.failAt(at, keyPath(name), "%s", twiceText(k, name, first))
			continue
		}
		seen[canonical] = at
		if k != nil {
			p.key(k, name, m.Value, at)
		} else if reason, known := foreignReason(name); known {
			p.ignored = append(p.ignored, IgnoredKey{keyPath(name), reason, at})
		} else if meant := mistyped(name); meant != "" {
			p.failAt(at, keyPath(name), "is not a known key; did you mean %s?", meant)
		} else {
			p.ignored = append(p.ignored, IgnoredKey{keyPath(name), unknownReason(name), at})
		}
	}
}

func twiceText(k *fileKey, name string, first Origin) string {
	if k == nil || k.alias == "" {
		return fmt.Sprintf("stands twice, first in line %d; keep one of the two", first.Line)
	}
	return fmt.Sprintf("stands twice, first in line %d (%s and %s are the same); keep one of the two", first.Line, k.key, k.alias)
}

// unknownReason says what there is instead of a key that a newer host, or a fork of
// it, may have.
func unknownReason(name string) string {
	if near := relatedKey(name); near != "" {
		return "it is not known here; the nearest key that is: " + near
	}
	return "it is not known here; the table of keys in the documentation has those that are"
}

// key reads the value of one key.
func (p *fileParser) key(k *fileKey, name string, v hujson.Value, at Origin) {
	path, id := keyPath(name), valueID{key: k.key}
	switch {
	case isNull(v):
		p.values[id] = value{null: true, origin: at}
	case k.kind == keyLimits:
		p.limits(k, v)
	case k.kind == keyWake:
		p.wake(k, v, at)
	default:
		n, ok := p.number(k, path, v)
		if !ok {
			return
		}
		if n == 0 && name == k.alias && k.zero != "" {
			p.fail(v.StartOffset, path, "is 0; under this name it must be at least 1: write %s: 0 for %s", k.key, k.zero)
			return
		}
		p.values[id] = value{n: n, origin: at}
	}
}

func (p *fileParser) wake(k *fileKey, v hujson.Value, at Origin) {
	var w Wake
	lit, _ := v.Value.(hujson.Literal)
	if lit.Kind() != '"' || w.UnmarshalText([]byte(lit.String())) != nil {
		p.fail(v.StartOffset, keyPath(k.key), "is %s; it must be %s, or null", describe(v), k.want())
		return
	}
	p.values[valueID{key: k.key}] = value{n: int64(w), origin: at}
}

// limits reads a map of limits. Names are compared as the limits compare them.
func (p *fileParser) limits(k *fileKey, v hujson.Value) {
	obj, ok := v.Value.(*hujson.Object)
	if !ok {
		p.fail(v.StartOffset, keyPath(k.key), `is %s; it must be an object of names and limits like %s, or null`, describe(v), k.example())
		return
	}
	seen := map[string]Origin{}
	for _, m := range obj.Members {
		raw, at := memberName(m), p.at(m.Name.StartOffset)
		path, name := keyPath(k.key, raw), normalName(raw)
		first, twice := seen[name]
		provider, _, slash := strings.Cut(name, "/")
		switch {
		case name == "":
			p.failAt(at, path, "has no name; name what is to be limited, or use defaultConcurrency")
			continue
		case twice:
			p.failAt(at, path, "stands twice, first in line %d (upper and lower case are the same); keep one of the two", first.Line)
			continue
		case slash && k.field == "Limits.Provider":
			p.failAt(at, path, "can never apply, because a provider is what stands before the first slash; limit %s here, or %s in modelConcurrency", quote(provider), quote(name))
			continue
		}
		seen[name] = at
		id := valueID{k.key, name}
		if isNull(m.Value) {
			p.values[id] = value{null: true, origin: at}
		} else if n, ok := p.number(k, path, m.Value); ok {
			p.values[id] = value{n: n, origin: at}
		}
	}
}

// number reads a whole number that the field can hold.
func (p *fileParser) number(k *fileKey, path string, v hujson.Value) (int64, bool) {
	lit, _ := v.Value.(hujson.Literal)
	problem := func(format string, args ...any) (int64, bool) {
		p.fail(v.StartOffset, path, format+"; it must be "+k.want(), args...)
		return 0, false
	}
	if lit.Kind() != '0' {
		return problem("is %s", describe(v))
	}
	text := string(lit)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil { // 1e3 and 5.0 are whole too; read them as the host does, as a double
		f, ferr := strconv.ParseFloat(text, 64)
		switch {
		case ferr != nil || math.Abs(f) > 1<<53:
			if strings.HasPrefix(text, "-") {
				return problem("is negative (%.40s)", text)
			}
			if ferr == nil && f < float64(k.most()) { // in range, but not exact
				return problem("is too large to be written with an exponent (%.40s); write out its digits", text)
			}
			return problem("is too large (%.40s); the most is %d", text, k.most())
		case f < 0:
			return problem("is negative (%.40s)", text)
		case f != math.Trunc(f):
			return problem("is not whole (%.40s)", text)
		}
		n = int64(f)
	}
	switch {
	case n < 0:
		return problem("is negative (%d)", n)
	case n > k.most():
		return problem("is too large (%d); the most is %d", n, k.most())
	case n == 0 && k.zero == "":
		return problem("is 0, but it cannot be switched off")
	}
	return n, true
}

func memberName(m hujson.ObjectMember) string { return m.Name.Value.(hujson.Literal).String() }

func isNull(v hujson.Value) bool { return v.Value.Kind() == 'n' }

// describe names a value in an error.
func describe(v hujson.Value) string {
	switch v.Value.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "the string " + quote(v.Value.(hujson.Literal).String())
	case '0':
		return fmt.Sprintf("the number %.40s", string(v.Value.(hujson.Literal)))
	case 'n':
		return "null"
	default:
		return string(v.Value.(hujson.Literal))
	}
}

// tooDeep returns where brackets first stand too deep, or -1. Up to the first
// syntax error, where the parser stops, it sees the same strings and comments
// as the parser does.
func tooDeep(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if depth++; depth > maxConfigDepth {
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
			end := ""
			if rest := b[i:]; bytes.HasPrefix(rest, []byte("//")) {
				end = "\n"
			} else if bytes.HasPrefix(rest, []byte("/*")) {
				end = "*/"
			} else {
				continue
			}
			n := bytes.Index(b[i+2:], []byte(end))
			if n < 0 {
				return -1
			}
			i += 1 + n + len(end)
		}
	}
	return -1
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

// cursor turns offsets into lines and columns. It walks on from the last one,
// because counting from the beginning each time would take minutes for a file of
// one long line with many values.
type cursor struct {
	data           []byte
	at             int
	lines, columns int // before at
}

func (c *cursor) place(offset int) (line, column int) {
	offset = min(offset, len(c.data))
	if offset < c.at {
		c.at, c.lines, c.columns = 0, 0, 0
	}
	for c.at < offset {
		_, n := utf8.DecodeRune(c.data[c.at:])
		if c.data[c.at] == '\n' {
			c.lines, c.columns = c.lines+1, 0
		} else {
			c.columns++
		}
		c.at += n
	}
	return c.lines + 1, c.columns + 1
}

// offsetOf is where a line and a column in bytes are; 0 for a line of 0.
func offsetOf(b []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		n := bytes.IndexByte(b[at:], '\n')
		if n < 0 {
			return len(b)
		}
		at += n + 1
	}
	return min(at+max(column-1, 0), len(b))
}
