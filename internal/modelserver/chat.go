package modelserver

import (
	"encoding/json"
	"fmt"
)

var chatProtocol = protocol{
	name:    Chat,
	header:  "X-Request-Id",
	decode:  decodeChat,
	problem: func(e *Error, _ string) any { return chatProblem(e) },
	whole:   chatWhole,
	stream:  func(a *answer) stream { return newChatStream(a) },
}

type chatRequest struct {
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	Messages []struct {
		Role       string          `json:"role"`
		Content    json.RawMessage `json:"content"`
		ToolCallID string          `json:"tool_call_id"`
		ToolCalls  []struct {
			ID       string `json:"id"`
			Function struct {
				Name      string `json:"name"`
				Arguments string `json:"arguments"`
			} `json:"function"`
		} `json:"tool_calls"`
	} `json:"messages"`
	Tools []struct {
		Function struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Parameters  json.RawMessage `json:"parameters"`
		} `json:"function"`
	} `json:"tools"`
	ResponseFormat struct {
		JSONSchema struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
}

func decodeChat(body []byte, req *Request) error {
	var in chatRequest
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	req.Model, req.Stream, req.Schema = in.Model, in.Stream, in.ResponseFormat.JSONSchema.Schema
	for _, t := range in.Tools {
		f := t.Function
		req.Tools = append(req.Tools, ToolDef{Name: f.Name, Description: f.Description, Schema: f.Parameters})
	}
	var c conversation
	for i, m := range in.Messages {
		text, err := contentText(m.Content)
		if err != nil {
			return fmt.Errorf("messages[%d].content: %w", i, err)
		}
		switch m.Role {
		case "system", "developer":
			req.System = join(req.System, text)
		case "user":
			c.user(text)
		case "assistant":
			var calls []Call
			for _, t := range m.ToolCalls {
				calls = append(calls, Call{ID: t.ID, Name: t.Function.Name, Args: t.Function.Arguments})
			}
			c.assistant(text, calls...)
		case "tool":
			c.results(Result{CallID: m.ToolCallID, Text: text})
		default:
			return fmt.Errorf("messages[%d].role is %q, not system, developer, user, assistant or tool", i, m.Role)
		}
	}
	req.Messages = c.messages
	return nil
}

// contentText returns the text of a message's content, which is a string or a list of parts. It joins the
// text of all parts.
func contentText(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var s string
	if raw[0] == '"' {
		return s, json.Unmarshal(raw, &s)
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(raw, &parts); err != nil {
		return "", fmt.Errorf("it is neither a text nor a list of parts")
	}
	for _, p := range parts {
		s = join(s, p.Text)
	}
	return s, nil
}

func (a *answer) chatUsage() map[string]any {
	u := a.usage(a.req, a.said.String())
	return map[string]any{
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.total(),
		"prompt_tokens_details":     map[string]any{"cached_tokens": u.Cached},
		"completion_tokens_details": map[string]any{"reasoning_tokens": u.Reasoning},
	}
}

func (a *answer) chatFinish() string {
	switch {
	case a.Truncated:
		return "length"
	case len(a.Calls) > 0:
		return "tool_calls"
	}
	return "stop"
}

func chatCall(c Call) map[string]any {
	return map[string]any{"id": c.ID, "type": "function", "function": map[string]any{"name": c.Name, "arguments": c.Args}}
}

func chatWhole(a *answer) any {
	message := map[string]any{"role": "assistant", "content": a.said.String()}
	if a.Reasoning != "" {
		message["reasoning_content"] = a.Reasoning
	}
	var calls []any
	for _, c := range a.Calls {
		calls = append(calls, chatCall(c))
	}
	if calls != nil {
		message["tool_calls"] = calls
	}
	return map[string]any{
		"id": a.id("chatcmpl-"), "object": "chat.completion", "created": a.req.Arrived.Unix(), "model": a.req.Model,
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": a.chatFinish()}},
		"usage":   a.chatUsage(),
	}
}

type chatStream struct {
	a  *answer
	id string
}

func newChatStream(a *answer) *chatStream {
	st := &chatStream{a, a.id("chatcmpl-")}
	a.startEvents()
	if a.Hang && !a.says() {
		return st
	}
	st.delta(map[string]any{"role": "assistant", "content": ""}, nil)
	if a.Reasoning != "" {
		// This field is not part of OpenAI's protocol. Compatible servers use it for models that
		// expose their reasoning.
		st.delta(map[string]any{"reasoning_content": a.Reasoning}, nil)
	}
	return st
}

func (st *chatStream) chunk(choices []any) map[string]any {
	return map[string]any{"id": st.id, "object": "chat.completion.chunk", "created": st.a.req.Arrived.Unix(),
		"model": st.a.req.Model, "choices": choices}
}

func (st *chatStream) delta(delta map[string]any, finish any) {
	st.a.event("", st.chunk([]any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}))
}

func (st *chatStream) text(piece string) { st.delta(map[string]any{"content": piece}, nil) }

func (st *chatStream) end() {
	for i, c := range st.a.Calls {
		call := chatCall(c)
		call["index"] = i
		st.delta(map[string]any{"tool_calls": []any{call}}, nil)
	}
	st.delta(map[string]any{}, st.a.chatFinish())
	last := st.chunk([]any{})
	last["usage"] = st.a.chatUsage()
	st.a.event("", last)
	st.a.write("data: [DONE]\n\n")
}

func (st *chatStream) fail(e *Error) { st.a.event("", chatProblem(e)) }
