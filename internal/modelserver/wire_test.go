package modelserver_test

import (
	"encoding/json"
	"fmt"
	"strings"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

// wire is the client side of a protocol: it encodes a conversation and reads the
// answer.
type wire struct {
	name ms.Protocol
	path func(stream bool) string
	body func(model, system string, stream bool, messages []ms.Message, tools []ms.ToolDef) any
	// The function "whole" reads an answer that is not streamed. The function "event" adds one
	// event of a stream to h.
	whole func(body []byte) heard
	event func(h *heard, data []byte)
}

// The type "heard" is an answer that the client has decoded.
type heard struct {
	Text, Reasoning, Finish string
	Calls                   []ms.Call
	In, Out                 int
	Problem                 string // error that was sent in the stream
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func parse[T any](data []byte) T {
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		panic(fmt.Sprintf("%v in %s", err, data))
	}
	return v
}

type object = map[string]any

var wires = []wire{chatWire, responsesWire, messagesWire, geminiWire}

var chatWire = wire{
	name: ms.Chat,
	path: func(bool) string { return "/v1/chat/completions" },
	body: func(model, system string, stream bool, messages []ms.Message, tools []ms.ToolDef) any {
		list := []any{}
		if system != "" {
			list = append(list, object{"role": "system", "content": system})
		}
		for _, m := range messages {
			switch m.Role {
			case ms.Tool:
				for _, r := range m.Results {
					list = append(list, object{"role": "tool", "tool_call_id": r.CallID, "content": r.Text})
				}
			default:
				o := object{"role": m.Role, "content": m.Text}
				var calls []any
				for _, c := range m.Calls {
					calls = append(calls, object{"id": c.ID, "type": "function", "function": object{"name": c.Name, "arguments": c.Args}})
				}
				if calls != nil {
					o["tool_calls"] = calls
				}
				list = append(list, o)
			}
		}
		var offered []any
		for _, t := range tools {
			offered = append(offered, object{"type": "function", "function": object{"name": t.Name, "description": t.Description, "parameters": t.Schema}})
		}
		return object{"model": model, "stream": stream, "messages": list, "tools": offered}
	},
	whole: func(body []byte) heard {
		var h heard
		chatHear(&h, body)
		return h
	},
	event: chatHear,
}

type chatCallJSON struct {
	Index    int
	ID       string
	Function struct{ Name, Arguments string }
}

type chatMessageJSON struct {
	Content          string
	ReasoningContent string         `json:"reasoning_content"`
	ToolCalls        []chatCallJSON `json:"tool_calls"`
}

func chatHear(h *heard, data []byte) {
	e := parse[struct {
		Choices []struct {
			Delta, Message chatMessageJSON
			FinishReason   string `json:"finish_reason"`
		}
		Usage *struct {
			In  int `json:"prompt_tokens"`
			Out int `json:"completion_tokens"`
		}
		Error *struct{ Message, Type string }
	}](data)
	for _, c := range e.Choices {
		for _, m := range []chatMessageJSON{c.Delta, c.Message} {
			h.Text += m.Content
			h.Reasoning += m.ReasoningContent
			for _, call := range m.ToolCalls {
				h.Calls = append(h.Calls, ms.Call{ID: call.ID, Name: call.Function.Name, Args: call.Function.Arguments})
			}
		}
		h.Finish += c.FinishReason
	}
	if e.Usage != nil {
		h.In, h.Out = e.Usage.In, e.Usage.Out
	}
	if e.Error != nil {
		h.Problem = e.Error.Type + ": " + e.Error.Message
	}
}

var responsesWire = wire{
	name: ms.Responses,
	path: func(bool) string { return "/v1/responses" },
	body: func(model, system string, stream bool, messages []ms.Message, tools []ms.ToolDef) any {
		items := []any{}
		for _, m := range messages {
			kind := "input_text"
			if m.Role == ms.Assistant {
				kind = "output_text"
			}
			if m.Role == ms.User || m.Role == ms.Assistant && (m.Text != "" || m.Calls == nil) {
				items = append(items, object{"type": "message", "role": m.Role, "content": []any{object{"type": kind, "text": m.Text}}})
			}
			for _, c := range m.Calls {
				items = append(items, object{"type": "function_call", "call_id": c.ID, "name": c.Name, "arguments": c.Args})
			}
			for _, r := range m.Results {
				items = append(items, object{"type": "function_call_output", "call_id": r.CallID, "output": r.Text})
			}
		}
		var offered []any
		for _, t := range tools {
			offered = append(offered, object{"type": "function", "name": t.Name, "description": t.Description, "parameters": t.Schema})
		}
		return object{"model": model, "stream": stream, "instructions": system, "input": items, "tools": offered}
	},
	whole: func(body []byte) heard {
		var h heard
		responsesHear(&h, parse[responseJSON](body))
		return h
	},
	event: func(h *heard, data []byte) {
		e := parse[struct {
			Type, Delta string
			Response    responseJSON
		}](data)
		switch e.Type {
		case "response.output_text.delta":
			h.Text += e.Delta
		case "response.completed", "response.incomplete", "response.failed":
			partial := h.Text
			h.Text = ""
			responsesHear(h, e.Response)
			if e.Type == "response.failed" {
				h.Text = partial
			} else if h.Text != partial {
				panic(fmt.Sprintf("the pieces are %q and the whole is %q", partial, h.Text))
			}
		}
	},
}

type responseJSON struct {
	Status string
	Output []struct {
		Type, Name, Arguments, Input string
		CallID                       string `json:"call_id"`
		Content, Summary             []struct{ Text string }
	}
	Usage struct {
		In  int `json:"input_tokens"`
		Out int `json:"output_tokens"`
	}
	Error *struct{ Code, Message string }
}

func responsesHear(h *heard, r responseJSON) {
	for _, item := range r.Output {
		for _, c := range item.Content {
			h.Text += c.Text
		}
		for _, c := range item.Summary {
			h.Reasoning += c.Text
		}
		if item.CallID != "" {
			h.Calls = append(h.Calls, ms.Call{ID: item.CallID, Name: item.Name, Args: item.Arguments + item.Input})
		}
	}
	h.Finish, h.In, h.Out = r.Status, r.Usage.In, r.Usage.Out
	if r.Error != nil {
		h.Problem = r.Error.Code + ": " + r.Error.Message
	}
}

var messagesWire = wire{
	name: ms.Messages,
	path: func(bool) string { return "/v1/messages" },
	body: func(model, system string, stream bool, messages []ms.Message, tools []ms.ToolDef) any {
		list := []any{}
		for _, m := range messages {
			role, blocks := m.Role, []any{}
			if role == ms.Tool {
				role = ms.User
			}
			for _, r := range m.Results {
				blocks = append(blocks, object{"type": "tool_result", "tool_use_id": r.CallID, "content": r.Text, "is_error": r.Failed})
			}
			if m.Text != "" || m.Role == ms.User {
				blocks = append(blocks, object{"type": "text", "text": m.Text})
			}
			for _, c := range m.Calls {
				blocks = append(blocks, object{"type": "tool_use", "id": c.ID, "name": c.Name, "input": json.RawMessage(c.Args)})
			}
			list = append(list, object{"role": role, "content": blocks})
		}
		var offered []any
		for _, t := range tools {
			offered = append(offered, object{"name": t.Name, "description": t.Description, "input_schema": t.Schema})
		}
		return object{"model": model, "stream": stream, "max_tokens": 1024, "system": system, "messages": list, "tools": offered}
	},
	whole: func(body []byte) heard {
		var h heard
		m := parse[anthropicMessageJSON](body)
		for _, b := range m.Content {
			h.Text, h.Reasoning = h.Text+b.Text, h.Reasoning+b.Thinking
			if b.Type == "tool_use" {
				h.Calls = append(h.Calls, ms.Call{ID: b.ID, Name: b.Name, Args: string(b.Input)})
			}
		}
		h.Finish, h.In, h.Out = m.StopReason, m.Usage.In, m.Usage.Out
		return h
	},
	event: messagesHear,
}

type anthropicBlockJSON struct {
	Type, Text, Thinking, ID, Name string
	Input                          json.RawMessage
}

type anthropicUsageJSON struct {
	In  int `json:"input_tokens"`
	Out int `json:"output_tokens"`
}

type anthropicMessageJSON struct {
	Content    []anthropicBlockJSON
	StopReason string `json:"stop_reason"`
	Usage      anthropicUsageJSON
}

func messagesHear(h *heard, data []byte) {
	e := parse[struct {
		Type         string
		Message      anthropicMessageJSON
		ContentBlock anthropicBlockJSON `json:"content_block"`
		Delta        struct {
			Text, Thinking string
			PartialJSON    string `json:"partial_json"`
			StopReason     string `json:"stop_reason"`
		}
		Usage anthropicUsageJSON
		Error struct{ Type, Message string }
	}](data)
	switch e.Type {
	case "message_start":
		h.In = e.Message.Usage.In
	case "content_block_start":
		if e.ContentBlock.Type == "tool_use" {
			h.Calls = append(h.Calls, ms.Call{ID: e.ContentBlock.ID, Name: e.ContentBlock.Name})
		}
	case "content_block_delta":
		h.Text, h.Reasoning = h.Text+e.Delta.Text, h.Reasoning+e.Delta.Thinking
		if e.Delta.PartialJSON != "" {
			h.Calls[len(h.Calls)-1].Args += e.Delta.PartialJSON
		}
	case "message_delta":
		h.Finish, h.Out = e.Delta.StopReason, e.Usage.Out
	case "error":
		h.Problem = e.Error.Type + ": " + e.Error.Message
	}
}

var geminiWire = wire{
	name: ms.Gemini,
	path: func(stream bool) string {
		if stream {
			return "/v1beta/models/some-model:streamGenerateContent?alt=sse"
		}
		return "/v1beta/models/some-model:generateContent"
	},
	body: func(_, system string, _ bool, messages []ms.Message, tools []ms.ToolDef) any {
		list := []any{}
		for _, m := range messages {
			role, parts := "user", []any{}
			if m.Role == ms.Assistant {
				role = "model"
			}
			if m.Text != "" || m.Role == ms.User {
				parts = append(parts, object{"text": m.Text})
			}
			for _, c := range m.Calls {
				parts = append(parts, object{"functionCall": object{"id": c.ID, "name": c.Name, "args": json.RawMessage(c.Args)}})
			}
			for _, r := range m.Results {
				parts = append(parts, object{"functionResponse": object{"id": r.CallID, "name": r.Name, "response": object{"output": r.Text}}})
			}
			list = append(list, object{"role": role, "parts": parts})
		}
		var declared []any
		for _, t := range tools {
			declared = append(declared, object{"name": t.Name, "description": t.Description, "parametersJsonSchema": t.Schema})
		}
		return object{"contents": list, "tools": []any{object{"functionDeclarations": declared}},
			"systemInstruction": object{"parts": []any{object{"text": system}}}}
	},
	whole: func(body []byte) heard {
		var h heard
		geminiHear(&h, body)
		return h
	},
	event: geminiHear,
}

func geminiHear(h *heard, data []byte) {
	e := parse[struct {
		Candidates []struct {
			FinishReason string
			Content      struct {
				Parts []struct {
					Text         string
					Thought      bool
					FunctionCall *struct {
						ID, Name string
						Args     json.RawMessage
					}
				}
			}
		}
		UsageMetadata struct{ PromptTokenCount, CandidatesTokenCount, ThoughtsTokenCount int }
		Error         *struct{ Status, Message string }
	}](data)
	for _, c := range e.Candidates {
		for _, p := range c.Content.Parts {
			switch {
			case p.FunctionCall != nil:
				h.Calls = append(h.Calls, ms.Call{ID: p.FunctionCall.ID, Name: p.FunctionCall.Name, Args: string(p.FunctionCall.Args)})
			case p.Thought:
				h.Reasoning += p.Text
			default:
				h.Text += p.Text
			}
		}
		h.Finish += c.FinishReason
	}
	h.In += e.UsageMetadata.PromptTokenCount
	h.Out += e.UsageMetadata.CandidatesTokenCount + e.UsageMetadata.ThoughtsTokenCount
	if e.Error != nil {
		h.Problem = e.Error.Status + ": " + e.Error.Message
	}
}

// The method "hear" reads the body of an answer.
func (w wire) hear(stream bool, body string) heard {
	if !stream {
		return w.whole([]byte(body))
	}
	var h heard
	for line := range strings.Lines(body) {
		if data, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "data: "); ok && data != "[DONE]" {
			w.event(&h, []byte(data))
		}
	}
	return h
}

func (w wire) encode(system string, stream bool, messages []ms.Message, tools []ms.ToolDef) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	must(e.Encode(w.body("some-model", system, stream, messages, tools)))
	return b.String()
}
