// Package asktext writes the texts of questions: what the agent asks for, and why it gets no answer.
package asktext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// Reason returns, in words for the agent, why [bgagent.Reporter.Ask] did not return an answer.
func Reason(err error) string {
	var bad *bgagent.InputError
	if errors.As(err, &bad) {
		return "the question is not valid: " + bad.Error()
	}
	if under := errors.Unwrap(err); under != nil {
		err = under // removes the prefix with the name of the package
	}
	return err.Error()
}

// AllowOnce is the option that allows a request once, and Deny is the option that denies the request.
const (
	AllowOnce = "allow once"
	Deny      = "deny"
)

// Advice is appended to the text of a refusal. It tells the agent what to do instead.
const Advice = " Go on without it, or say in your answer what you would have needed."

// Option is one of the fixed answers to a question.
type Option struct {
	Label       string `json:"label"`
	Description string `json:"description"`
}

// Choose makes q a choice between the options. [Chosen] returns the agent's label for the answer.
func Choose(q *bgagent.Question, asked string, options []Option) {
	q.Kind, q.Options = bgagent.QuestionChoice, labels(options)
	lines := []string{First("question", asked)}
	for i, o := range options {
		if o.Description != "" {
			lines = append(lines, Field(q.Options[i], o.Description))
		}
	}
	q.Subject = strings.Join(lines, "\n")
}

// Chosen returns the label of the option named by an answer to a question from [Choose]. ok reports whether
// there is such an option.
func Chosen(options []Option, answer string) (label string, ok bool) {
	i := slices.Index(labels(options), answer)
	if i < 0 {
		return "", false
	}
	return options[i].Label, true
}

// The function "labels" returns the labels as they are shown. Different labels that look equal are
// numbered. If the agent used a label twice, the question is invalid, because the agent could not
// tell which of the two options was chosen.
func labels(options []Option) (shown []string) {
	known := map[string]bool{}
	for _, o := range options {
		shown, known[o.Label] = append(shown, Line(o.Label)), true
	}
	if len(known) < len(options) {
		return shown
	}
	return Numbered(shown)
}

// A subject consists of fields. A field begins at the start of a line with its name, and its value follows on
// the same line. A value with several lines is indented on the lines below the name, so that no value can
// look like a field. Only the first line can be a value without a name.

// indent is put in front of each line of a value that has several lines.
const indent = "  "

// Field returns a field of a subject.
func Field(name, value string) string {
	if strings.Contains(value, "\n") {
		return Block(name, value)
	}
	return called(name) + ": " + Shown(value)
}

// Block returns a field whose value is on the lines below the name, even if it is a single line.
func Block(name, value string) string {
	var b strings.Builder
	b.WriteString(called(name) + ":")
	for line := range strings.SplitSeq(Shown(strings.TrimSuffix(value, "\n")), "\n") {
		b.WriteByte('\n')
		if line != "" {
			b.WriteString(indent + line)
		}
	}
	return b.String()
}

// First returns the first field of a subject. First omits the name if the value cannot be mistaken for a
// field with a name.
func First(name, value string) string {
	if value == "" || strings.Contains(value, "\n") || namelike.MatchString(value) {
		return Field(name, value)
	}
	return Shown(value)
}

// namelike matches a line that could begin with the name of a field.
var namelike = regexp.MustCompile(`:([\s\pZ]|$)`)

// The function "called" returns the name of a field. A name that cannot be distinguished from other
// text is quoted.
func called(name string) string {
	first, _ := utf8.DecodeRuneInString(name)
	if (unicode.IsLetter(first) || unicode.IsDigit(first) || first == '_') && !strings.ContainsAny(name, ":\n") && Shown(name) == name {
		return name
	}
	return Shown(strconv.Quote(name))
}

// Shown returns a string as valid UTF-8 where every character except newlines and tabs is visible. Each
// control character, text direction mark and other invisible character is replaced with its Go escape
// sequence, such as \x1b or \u202e. Programs that display a question would remove such characters. A command
// that contains them would then look like another command.
func Shown(s string) string {
	s = mdtext.Valid(s)
	if strings.IndexFunc(s, isHidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isHidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isHidden reports whether the character is invisible to a reader. Spaces count as visible.
func isHidden(r rune) bool {
	if r == ' ' || r == '\n' || r == '\t' || unicode.Is(unicode.Zs, r) {
		return false
	}
	return !unicode.IsGraphic(r) || mdtext.Invisible(string(r))
}

// commands are the names of fields that contain the whole command.
var commands = []string{"command", "cmd", "script"}

// Input returns everything in the decoded JSON input of a tool call, as fields for the person who decides
// about the call. A command comes first. The other fields follow, sorted by name. The text depends only on
// the input.
func Input(input any) string {
	fields, ok := input.(map[string]any)
	if !ok {
		if text := Value(input); text != "" {
			return First("input", text)
		}
		return ""
	}
	var lines []string
	for _, name := range commands {
		text, ok := fields[name].(string)
		switch {
		case !ok || text == "":
		case len(lines) == 0:
			lines = append(lines, First(name, text))
		default:
			lines = append(lines, Field(name, text))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if text, ok := fields[name].(string); !ok || text == "" || !slices.Contains(commands, name) {
			lines = append(lines, Field(name, Value(fields[name])))
		}
	}
	return strings.Join(lines, "\n")
}

// Decode decodes a JSON value for [Input] and [Value]. Numbers stay as they are written, because a
// large number would otherwise be rounded. If the bytes are not a JSON value, ok is false.
func Decode(raw []byte) (v any, ok bool) {
	in := json.NewDecoder(bytes.NewReader(raw))
	in.UseNumber()
	if in.Decode(&v) != nil {
		return nil, false
	}
	_, err := in.Token()
	return v, err == io.EOF
}

// Value returns a decoded JSON value as text. A string is returned as it is, and null becomes the empty
// string.
func Value(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)  // the text is for people, not for a web page
	if out.Encode(v) != nil { // v is not a value from Decode
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(text.String(), "\n")
}
