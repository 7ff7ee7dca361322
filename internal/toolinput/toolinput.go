// Package toolinput writes the input of a tool call as text for people who decide about the call.
package toolinput

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// commands are the names of fields that contain the whole command.
var commands = []string{"command", "cmd", "script"}

// Text returns everything in a decoded JSON input. A command stands on the first line. Each other field
// follows with its name, sorted by name. The text depends only on the input.
func Text(input any) string {
	fields, ok := input.(map[string]any)
	if !ok {
		return value(input)
	}
	var lines []string
	for _, name := range commands {
		if text, ok := fields[name].(string); ok && text != "" {
			lines = append(lines, text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if _, ok := fields[name].(string); !ok || !slices.Contains(commands, name) {
			lines = append(lines, name+": "+value(fields[name]))
		}
	}
	return strings.Join(lines, "\n")
}

func value(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	text, err := json.Marshal(v)
	if err != nil { // v is not from JSON
		return fmt.Sprint(v)
	}
	return string(text)
}
