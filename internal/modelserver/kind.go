package modelserver

import (
	"encoding/json"
	"strings"
)

// The variable "asked" maps texts at the beginning of system prompts to kinds of requests. The
// wording is from opencode 1.18.34 and gemini-cli 0.61.0. Codex states the kind in a header.
var asked = []struct {
	by   string // part of the beginning of the system prompt, in lower case
	kind Kind
}{
	{"you are a title generator", Title},
	{"you are a context summarization agent", Summary},
	{"you are an expert context compressor", Summary},
	{"generating a highly factual state summary", Summary},
}

// kindOf distinguishes an agent's turns from other requests that the program makes to the model.
func kindOf(r Request) Kind {
	if len(r.Tools) == 0 {
		beginning := strings.ToLower(shorten(r.System, 400))
		for _, a := range asked {
			if strings.Contains(beginning, a.by) {
				return a.kind
			}
		}
		if r.Schema != nil {
			return Side
		}
	}
	var codex struct {
		Kind string `json:"request_kind"`
	}
	if json.Unmarshal([]byte(r.Header.Get("X-Codex-Turn-Metadata")), &codex) == nil {
		switch {
		case strings.Contains(codex.Kind, "compact"):
			return Summary
		case codex.Kind != "" && codex.Kind != "turn":
			return Side
		}
	}
	return Main
}

// header returns the value of the first header that is present. It tries the names in order.
func (r Request) header(names ...string) string {
	for _, name := range names {
		if v := r.Header.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// The method "session" returns the ids of the program's session and of the session that started it.
// opencode and codex send both ids, Claude Code sends only the id of its session, and gemini sends
// neither.
func (r Request) session() (id, parent string) {
	return r.header("X-Session-Id", "Session-Id", "Session_id", "X-Claude-Code-Session-Id"), r.header("X-Parent-Session-Id", "X-Codex-Parent-Thread-Id")
}

// instance returns a minimal JSON value for a simple schema. Such a value is a sufficient answer to questions
// like "who speaks next".
func instance(schema json.RawMessage, depth int) any {
	var s struct {
		Type       any                        `json:"type"`
		Enum       []any                      `json:"enum"`
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	if json.Unmarshal(schema, &s) != nil || depth > 20 {
		return nil
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	kind, _ := s.Type.(string)
	switch strings.ToLower(kind) { // Gemini writes types in upper case
	case "string":
		return ""
	case "number", "integer":
		return 0
	case "boolean":
		return false
	case "array":
		return []any{}
	case "object":
		fields := map[string]any{}
		for _, name := range s.Required {
			fields[name] = instance(s.Properties[name], depth+1)
		}
		return fields
	}
	return nil
}
