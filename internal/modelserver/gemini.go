package modelserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// geminiPath returns the model and the method in a path /v1beta/models/MODEL:METHOD.
func geminiPath(path string) (model, method string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v1beta/models/")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, ":")
}

// geminiProtocol returns the protocol of Gemini. If events is true, a streamed answer consists of
// server-sent events. Otherwise, it is a JSON array.
func geminiProtocol(events bool) *protocol {
	return &protocol{
		name:    Gemini,
		decode:  decodeGemini,
		problem: func(e *Error, _ string) any { return geminiProblem(e) },
		whole: func(a *answer) any {
			return a.geminiResponse(a.geminiParts(a.said.String()), a.geminiFinish(), true)
		},
		stream: func(a *answer) stream { return newGeminiStream(a, events) },
	}
}

type geminiContent struct {
	Role  string `json:"role"`
	Parts []struct {
		Text         string `json:"text"`
		Thought      bool   `json:"thought"`
		FunctionCall *struct {
			ID   string          `json:"id"`
			Name string          `json:"name"`
			Args json.RawMessage `json:"args"`
		} `json:"functionCall"`
		FunctionResponse *struct {
			ID       string          `json:"id"`
			Name     string          `json:"name"`
			Response json.RawMessage `json:"response"`
		} `json:"functionResponse"`
	} `json:"parts"`
}

func decodeGemini(body []byte, req *Request) error {
	var in struct {
		SystemInstruction *geminiContent  `json:"systemInstruction"`
		Contents          []geminiContent `json:"contents"`
		Tools             []struct {
			FunctionDeclarations []struct {
				Name        string          `json:"name"`
				Description string          `json:"description"`
				Parameters  json.RawMessage `json:"parameters"`
				JSONSchema  json.RawMessage `json:"parametersJsonSchema"`
			} `json:"functionDeclarations"`
		} `json:"tools"`
		GenerationConfig struct {
			ResponseSchema     json.RawMessage `json:"responseSchema"`
			ResponseJSONSchema json.RawMessage `json:"responseJsonSchema"`
		} `json:"generationConfig"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	req.Schema = in.GenerationConfig.ResponseSchema
	if req.Schema == nil {
		req.Schema = in.GenerationConfig.ResponseJSONSchema
	}
	if in.SystemInstruction != nil {
		for _, p := range in.SystemInstruction.Parts {
			req.System = join(req.System, p.Text)
		}
	}
	for _, t := range in.Tools {
		for _, f := range t.FunctionDeclarations {
			schema := f.Parameters
			if schema == nil {
				schema = f.JSONSchema
			}
			req.Tools = append(req.Tools, ToolDef{Name: f.Name, Description: f.Description, Schema: schema})
		}
	}
	var c conversation
	for i, content := range in.Contents {
		if err := content.add(&c, req); err != nil {
			return fmt.Errorf("contents[%d]: %w", i, err)
		}
	}
	req.Messages = c.messages
	return nil
}

// sessionContext is the beginning of the text that gemini-cli adds before the first user
// message.
const sessionContext = "<session_context>"

func (content geminiContent) add(c *conversation, req *Request) error {
	var text string
	var calls []Call
	var results []Result
	for _, p := range content.Parts {
		switch {
		case p.FunctionCall != nil:
			calls = append(calls, Call{ID: p.FunctionCall.ID, Name: p.FunctionCall.Name, Args: string(p.FunctionCall.Args)})
		case p.FunctionResponse != nil:
			results = append(results, Result{CallID: p.FunctionResponse.ID, Name: p.FunctionResponse.Name,
				Text: geminiResult(p.FunctionResponse.Response)})
		case strings.HasPrefix(p.Text, sessionContext) && content.Role == "user":
			req.System = join(req.System, p.Text)
			if len(content.Parts) == 1 {
				return nil
			}
		case !p.Thought:
			text = join(text, p.Text)
		}
	}
	switch content.Role {
	case "model":
		c.assistant(text, calls...)
	case "user", "function", "":
		if results != nil {
			c.results(results...)
			c.beside(text)
			return nil
		}
		c.user(text)
	default:
		return fmt.Errorf("role is %q, not user or model", content.Role)
	}
	return nil
}

// geminiResult returns the text of a result that has the recommended form {"output": text} or
// {"error": text}. It returns any other JSON unchanged.
func geminiResult(raw json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) == nil && len(fields) == 1 {
		for _, name := range []string{"output", "error"} {
			var text string
			if json.Unmarshal(fields[name], &text) == nil {
				return text
			}
		}
	}
	return string(raw)
}

func (a *answer) geminiFinish() string {
	if a.Truncated {
		return "MAX_TOKENS"
	}
	return "STOP"
}

func (a *answer) geminiParts(text string) []any {
	var parts []any
	if a.Reasoning != "" && !a.req.Stream {
		parts = append(parts, map[string]any{"text": a.Reasoning, "thought": true})
	}
	if text != "" {
		parts = append(parts, map[string]any{"text": text})
	}
	for _, c := range a.Calls {
		var args bytes.Buffer
		if json.Compact(&args, []byte(c.Args)) != nil {
			// The protocol cannot represent arguments that are not JSON.
			args.Reset()
			args.Write(marshal(map[string]any{"invalid": c.Args}))
		}
		parts = append(parts, map[string]any{"functionCall": map[string]any{"id": c.ID, "name": c.Name, "args": json.RawMessage(args.Bytes())}})
	}
	if parts == nil {
		parts = []any{map[string]any{"text": ""}}
	}
	return parts
}

func (a *answer) geminiResponse(parts []any, finish string, usage bool) map[string]any {
	candidate := map[string]any{"index": 0, "content": map[string]any{"role": "model", "parts": parts}}
	if finish != "" {
		candidate["finishReason"] = finish
	}
	m := map[string]any{"candidates": []any{candidate}, "modelVersion": a.req.Model, "responseId": fmt.Sprintf("resp-%d", a.req.N)}
	if usage {
		u := a.usage(a.req, a.said.String())
		m["usageMetadata"] = map[string]any{"promptTokenCount": u.Input, "candidatesTokenCount": u.Output - u.Reasoning,
			"thoughtsTokenCount": u.Reasoning, "cachedContentTokenCount": u.Cached, "totalTokenCount": u.total()}
	}
	return m
}

type geminiStream struct {
	a      *answer
	events bool
	n      int // number of chunks so far
}

func newGeminiStream(a *answer, events bool) *geminiStream {
	st := &geminiStream{a: a, events: events}
	if events {
		a.startEvents()
	} else {
		a.w.Header().Set("Content-Type", "application/json")
		a.w.WriteHeader(http.StatusOK)
		a.write("[")
	}
	if a.Reasoning != "" {
		st.send(a.geminiResponse([]any{map[string]any{"text": a.Reasoning, "thought": true}}, "", false))
	}
	return st
}

func (st *geminiStream) send(v any) {
	if st.events {
		st.a.event("", v)
		return
	}
	if st.n > 0 {
		st.a.write(",\n")
	}
	st.n++
	st.a.write("%s", marshal(v))
}

func (st *geminiStream) text(piece string) {
	st.send(st.a.geminiResponse([]any{map[string]any{"text": piece}}, "", false))
}

func (st *geminiStream) end() {
	st.send(st.a.geminiResponse(st.a.geminiParts(""), st.a.geminiFinish(), true))
	st.close()
}

func (st *geminiStream) fail(e *Error) {
	st.send(geminiProblem(e))
	st.close()
}

func (st *geminiStream) close() {
	if !st.events {
		st.a.write("]\n")
	}
}
