// Package asktext writes the texts of questions: what an agent asks for, and why it gets no answer.
package asktext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// Reason returns the reason for which [bgagent.Reporter.Ask] has returned no answer, as a text for the agent.
func Reason(err error) string {
	var bad *bgagent.InputError
	if errors.As(err, &bad) {
		return "the question is not valid: " + bad.Error()
	}
	if under := errors.Unwrap(err); under != nil {
		err = under // without the name of the package
	}
	return err.Error()
}

// AllowOnce is the option that allows only what was asked for.
const AllowOnce = "allow once"

// Advice follows a refusal, as a text for the agent.
const Advice = " Go on without it, or say in your answer what you would have needed."

// Option is one of the fixed answers to a question.
type Option struct {
	Label       string `json:"label"`
	Description string `json:"description"`
}

// Choose makes q a choice between the options.
func Choose(q *bgagent.Question, asked string, options []Option) {
	q.Kind, q.Options = bgagent.QuestionChoice, nil
	lines := []string{asked}
	for _, o := range options {
		q.Options = append(q.Options, o.Label)
		if o.Description != "" {
			lines = append(lines, o.Label+": "+o.Description)
		}
	}
	q.Subject = mdtext.Valid(strings.Join(lines, "\n"))
}

// commands are the names of fields that contain the whole command.
var commands = []string{"command", "cmd", "script"}

// Input returns everything in the decoded JSON input of a tool call, as a text for the person who decides
// about the call. A command stands on the first line. Each other field follows with its name, sorted by
// name. The text depends only on the input.
func Input(input any) string {
	fields, ok := input.(map[string]any)
	if !ok {
		return Value(input)
	}
	var lines []string
	for _, name := range commands {
		if text, ok := fields[name].(string); ok && text != "" {
			lines = append(lines, text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if _, ok := fields[name].(string); !ok || !slices.Contains(commands, name) {
			lines = append(lines, name+": "+Value(fields[name]))
		}
	}
	return strings.Join(lines, "\n")
}

// Value returns a decoded JSON value as a text. A string stands for itself, and null is empty.
func Value(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false)  // people read the text
	if out.Encode(v) != nil { // v is not from JSON
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(text.String(), "\n")
}
