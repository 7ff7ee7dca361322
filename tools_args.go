package bgagent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// fields are the arguments of a tool. They define the tool's schema and turn raw JSON from a model
// into the typed arguments A.
//
// Parsing is lenient where the input can mean only one thing. A null counts as an argument that was
// left out, because some APIs require every field. No arguments at all count as {}, "true" counts
// as true, and "60000" and 60000.0 count as 60000. All other input that does not fit is refused,
// with a message that describes the correct input.
type fields[A any] struct {
	list     []field[A]
	required []string
}

// field is one argument. Exactly one of its setters is set.
type field[A any] struct {
	name        string
	description string
	min         int64    // for numbers: the smallest allowed value
	among       []string // for strings: the allowed values, if they are known
	text        func(*A, string)
	flag        func(*A, bool)
	number      func(*A, int64)
}

// The method "among" returns a copy of the fields; in the copy, the named field allows only the
// given values. If no values are given, every value is allowed.
func (f fields[A]) among(name string, values []string) fields[A] {
	f.list = slices.Clone(f.list)
	for i := range f.list {
		if f.list[i].name == name {
			f.list[i].among = values
		}
	}
	return f
}

// The method "described" returns a copy of the fields; in the copy, the named field has the given
// description.
func (f fields[A]) described(name, description string) fields[A] {
	f.list = slices.Clone(f.list)
	for i := range f.list {
		if f.list[i].name == name {
			f.list[i].description = description
		}
	}
	return f
}

// decode implements the UnmarshalJSON methods. It does the same as the method "parse", but returns
// an error instead of a description of the problem.
func (f fields[A]) decode(a *A, raw []byte) error {
	parsed, problem := f.parse(raw)
	if problem != "" {
		return errors.New("bgagent: " + problem)
	}
	*a = parsed
	return nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (a *DelegateTaskArgs) UnmarshalJSON(raw []byte) error { return delegateFields.decode(a, raw) }

// UnmarshalJSON implements [json.Unmarshaler].
func (a *BackgroundOutputArgs) UnmarshalJSON(raw []byte) error { return outputFields.decode(a, raw) }

// UnmarshalJSON implements [json.Unmarshaler].
func (a *BackgroundCancelArgs) UnmarshalJSON(raw []byte) error { return cancelFields.decode(a, raw) }

// The method "parse" parses raw arguments. If they are wrong, the result "problem" describes the
// mistake for the model.
func (f fields[A]) parse(raw json.RawMessage) (a A, problem string) {
	if len(raw) > argumentBytes {
		return a, fmt.Sprintf("The arguments are %d bytes long; they may have at most %d. Put long material into a file and name the file.", len(raw), argumentBytes)
	}
	if s := bytes.TrimSpace(raw); len(s) == 0 || string(s) == "null" {
		return a, ""
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return a, "The arguments must be one JSON object, such as " + f.example() + "."
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return a, f.broken(err)
		}
		name, _ := key.(string)
		i := slices.IndexFunc(f.list, func(x field[A]) bool { return x.name == name })
		if i < 0 {
			return a, f.unknown(name)
		}
		if seen[name] {
			return a, "The argument " + name + " is given twice. Give it once."
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return a, f.broken(err)
		}
		if problem := f.list[i].set(&a, value); problem != "" {
			return a, problem
		}
	}
	if _, err := dec.Token(); err != nil {
		return a, f.broken(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return a, "Something follows the arguments. They must be one JSON object and nothing else, such as " + f.example() + "."
	}
	return a, ""
}

func (f fields[A]) broken(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "The arguments break off in the middle. They must be one JSON object, such as " + f.example() + "."
	}
	return "The arguments are not valid JSON. They must be one JSON object, such as " + f.example() + "."
}

// The method "unknown" returns the message for a call with an argument that does not exist. It
// lists the arguments that exist.
func (f fields[A]) unknown(name string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
	}
	names := make([]string, len(f.list))
	meant := ""
	for i, x := range f.list {
		names[i] = x.name
		if plain(x.name) == plain(name) {
			meant = " It is written " + x.name + "."
		}
	}
	return "There is no argument " + mdtext.Code(name, nameMax) + "." + meant + " The arguments are: " + strings.Join(names, ", ") + "."
}

// example returns an example of valid arguments.
func (f fields[A]) example() string {
	names := f.required
	if len(names) == 0 {
		names = []string{f.list[0].name}
	}
	return `{"` + strings.Join(names, `": "…", "`) + `": "…"}`
}

// set sets the argument to a raw value. If the value is wrong, the method "set" returns a
// description of the mistake.
func (x field[A]) set(a *A, raw json.RawMessage) string {
	if !utf8.Valid(raw) {
		return "The argument " + x.name + " is not valid UTF-8; send plain text."
	}
	if string(raw) == "null" {
		return ""
	}
	var s string
	isText := json.Unmarshal(raw, &s) == nil
	s = strings.TrimSpace(s)
	switch {
	case x.text != nil:
		if !isText {
			return x.wrong("a string", raw)
		}
		_ = json.Unmarshal(raw, &s) // strings keep their white space
		x.text(a, s)
	case x.flag != nil:
		if !isText {
			s = string(raw)
		}
		switch strings.ToLower(s) {
		case "true":
			x.flag(a, true)
		case "false":
			x.flag(a, false)
		default:
			return x.wrong("true or false", raw)
		}
	default:
		if !isText {
			s = string(raw)
		}
		n, ok := wholeNumber(s)
		if !ok {
			return x.wrong("a whole number", raw)
		}
		x.number(a, n)
	}
	return ""
}

// wholeNumber parses a whole number. The number can have a zero fraction or an exponent. A number
// outside the range of int64 becomes the smallest or the largest int64.
func wholeNumber(s string) (int64, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false // ParseFloat also accepts hexadecimal numbers, infinities and underscores
	}
	n, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange), n != math.Trunc(n) && !math.IsInf(n, 0):
		return 0, false
	case n >= math.MaxInt64:
		return math.MaxInt64, true
	case n <= math.MinInt64:
		return math.MinInt64, true
	}
	return int64(n), true
}

func (x field[A]) wrong(want string, raw json.RawMessage) string {
	got := "something else"
	switch c := raw[0]; {
	case c == '"':
		got = "the string " + mdtext.OneLine(string(raw), 60)
	case c == '{':
		got = "an object"
	case c == '[':
		got = "a list"
	case c == 't' || c == 'f':
		got = string(raw)
	case c == '-' || c >= '0' && c <= '9':
		got = "the number " + mdtext.OneLine(string(raw), 60)
	}
	return "The argument " + x.name + " must be " + want + "; it was " + got + "."
}

// schema returns the JSON Schema (draft 2020-12) of the arguments. It uses only features that every
// model API accepts: one flat object without $schema, and without keywords such as anyOf at the top
// level. Therefore, only the descriptions state which arguments may be combined, and the tool
// checks the combination.
func (f fields[A]) schema() json.RawMessage {
	type property struct {
		Type        string   `json:"type"`
		Description string   `json:"description"`
		Minimum     *int64   `json:"minimum,omitempty"`
		Enum        []string `json:"enum,omitempty"`
	}
	var props bytes.Buffer
	for i, x := range f.list {
		p := property{Type: "string", Description: x.description, Enum: x.among}
		switch {
		case x.flag != nil:
			p.Type = "boolean"
		case x.number != nil:
			p.Type, p.Minimum = "integer", &x.min
		}
		if i > 0 {
			props.WriteByte(',')
		}
		fmt.Fprintf(&props, "%q:%s", x.name, mustJSON(p))
	}
	required := f.required
	if required == nil {
		required = []string{}
	}
	return json.RawMessage(fmt.Sprintf(`{"type":"object","properties":{%s},"required":%s,"additionalProperties":false}`, props.Bytes(), mustJSON(required)))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("bgagent: bug: " + err.Error())
	}
	return b
}
