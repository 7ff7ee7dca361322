package modelserver

import (
	"encoding/json"
	"fmt"
	"strings"
)

var responsesProtocol = protocol{
	name:    Responses,
	header:  "X-Request-Id",
	decode:  decodeResponses,
	problem: func(e *Error, _ string) any { return chatProblem(e) },
	whole:   responsesWhole,
	stream:  func(a *answer) stream { return newResponsesStream(a) },
}

type responsesItem struct {
	Type      string          `json:"type"`
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Arguments string          `json:"arguments"`
	Input     string          `json:"input"`
	Output    json.RawMessage `json:"output"`
}

type responsesTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
	Tools       []responsesTool `json:"tools"` // tools in a namespace
}

// The method "add" adds the tool to req. If t is a namespace, it adds the tools in the namespace.
// Codex sends the tools of an MCP server as a namespace.
func (t responsesTool) add(namespace string, req *Request) {
	switch {
	case t.Name == "": // a built-in tool of the provider
	case t.Type == "namespace":
		for _, inner := range t.Tools {
			inner.add(t.Name, req)
		}
	default:
		req.Tools = append(req.Tools, ToolDef{Name: spaced(namespace, t.Name), Namespace: namespace, Description: t.Description, Schema: t.Parameters, Custom: t.Type == "custom"})
	}
}

// The function "spaced" returns the name that scripts and tests use for a tool in a namespace.
func spaced(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "__" + name
}

func decodeResponses(body []byte, req *Request) error {
	var in struct {
		Model        string          `json:"model"`
		Stream       bool            `json:"stream"`
		Instructions string          `json:"instructions"`
		Input        json.RawMessage `json:"input"`
		Tools        []responsesTool `json:"tools"`
		Text         struct {
			Format struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"format"`
		} `json:"text"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	req.Model, req.Stream, req.System = in.Model, in.Stream, in.Instructions
	req.Schema = in.Text.Format.Schema
	for _, t := range in.Tools {
		t.add("", req)
	}
	var c conversation
	if len(in.Input) > 0 && in.Input[0] == '"' {
		text, err := contentText(in.Input)
		if err != nil {
			return fmt.Errorf("input: %w", err)
		}
		c.user(text)
		req.Messages = c.messages
		return nil
	}
	var items []responsesItem
	if len(in.Input) > 0 {
		if err := json.Unmarshal(in.Input, &items); err != nil {
			return fmt.Errorf("input is neither a text nor a list of items: %w", err)
		}
	}
	for i, item := range items {
		if err := item.add(&c, req); err != nil {
			return fmt.Errorf("input[%d]: %w", i, err)
		}
	}
	req.Messages = c.messages
	return nil
}

func (item responsesItem) add(c *conversation, req *Request) error {
	switch item.Type {
	case "", "message":
		text, err := contentText(item.Content)
		if err != nil {
			return fmt.Errorf("content: %w", err)
		}
		switch item.Role {
		case "system", "developer":
			req.System = join(req.System, text)
		case "user":
			c.user(text)
		case "assistant":
			c.assistant(text)
		default:
			return fmt.Errorf("role is %q, not system, developer, user or assistant", item.Role)
		}
	case "function_call":
		c.assistant("", Call{ID: item.CallID, Name: spaced(item.Namespace, item.Name), Args: item.Arguments})
	case "custom_tool_call":
		c.assistant("", Call{ID: item.CallID, Name: item.Name, Args: item.Input})
	case "function_call_output", "custom_tool_call_output":
		text, err := contentText(item.Output)
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
		c.results(Result{CallID: item.CallID, Text: text})
	}
	return nil // reasoning and calls to built-in tools are ignored
}

func (a *answer) responsesUsage() map[string]any {
	u := a.usage(a.req, a.said.String())
	return map[string]any{
		"input_tokens": u.Input, "output_tokens": u.Output, "total_tokens": u.total(),
		"input_tokens_details":  map[string]any{"cached_tokens": u.Cached},
		"output_tokens_details": map[string]any{"reasoning_tokens": u.Reasoning},
	}
}

// response returns the response object that some events of a stream contain.
func (a *answer) response(id, status string, output []any) map[string]any {
	m := map[string]any{"id": id, "object": "response", "created_at": a.req.Arrived.Unix(), "status": status,
		"model": a.req.Model, "output": output, "error": nil, "incomplete_details": nil}
	if a.Truncated && status == "completed" {
		m["status"], m["incomplete_details"] = "incomplete", map[string]any{"reason": "max_output_tokens"}
	}
	if status == "completed" {
		m["usage"] = a.responsesUsage()
	}
	return m
}

func (a *answer) reasoningItem() map[string]any {
	return map[string]any{"id": a.id("rs_"), "type": "reasoning",
		"summary": []any{map[string]any{"type": "summary_text", "text": a.Reasoning}}}
}

func messageItem(id, status string, content ...any) map[string]any {
	if content == nil {
		content = []any{}
	}
	return map[string]any{"id": id, "type": "message", "role": "assistant", "status": status, "content": content}
}

func outputText(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}}
}

func (a *answer) callItem(c Call) map[string]any {
	if a.req.custom(c.Name) {
		return map[string]any{"id": a.id("ctc_"), "type": "custom_tool_call", "status": "completed",
			"call_id": c.ID, "name": c.Name, "input": c.Args}
	}
	item := map[string]any{"id": a.id("fc_"), "type": "function_call", "status": "completed",
		"call_id": c.ID, "name": c.Name, "arguments": c.Args}
	if namespace := a.req.namespace(c.Name); namespace != "" {
		item["namespace"], item["name"] = namespace, strings.TrimPrefix(c.Name, namespace+"__")
	}
	return item
}

func responsesWhole(a *answer) any {
	output := []any{}
	if a.Reasoning != "" {
		output = append(output, a.reasoningItem())
	}
	if a.said.Len() > 0 {
		output = append(output, messageItem(a.id("msg_"), "completed", outputText(a.said.String())))
	}
	for _, c := range a.Calls {
		output = append(output, a.callItem(c))
	}
	return a.response(a.id("resp_"), "completed", output)
}

type responsesStream struct {
	a       *answer
	id      string
	message string // id of the message item; "" before the first text
	seq     int
	output  []any // completed items
}

func newResponsesStream(a *answer) *responsesStream {
	st := &responsesStream{a: a, id: a.id("resp_"), output: []any{}}
	a.startEvents()
	if a.Hang && !a.says() {
		return st
	}
	for _, name := range []string{"response.created", "response.in_progress"} {
		st.send(name, map[string]any{"response": a.response(st.id, "in_progress", []any{})})
	}
	if a.Reasoning != "" {
		st.item(a.reasoningItem())
	}
	return st
}

func (st *responsesStream) send(name string, fields map[string]any) {
	fields["type"], fields["sequence_number"] = name, st.seq
	st.seq++
	st.a.event(name, fields)
}

// The method "item" sends the events for an item that is complete.
func (st *responsesStream) item(item map[string]any) {
	st.send("response.output_item.added", map[string]any{"output_index": len(st.output), "item": item})
	st.done(item)
}

func (st *responsesStream) done(item map[string]any) {
	st.send("response.output_item.done", map[string]any{"output_index": len(st.output), "item": item})
	st.output = append(st.output, item)
}

func (st *responsesStream) part(name string, fields map[string]any) {
	fields["item_id"], fields["output_index"], fields["content_index"] = st.message, len(st.output), 0
	st.send(name, fields)
}

func (st *responsesStream) text(piece string) {
	if st.message == "" {
		st.message = st.a.id("msg_")
		st.send("response.output_item.added", map[string]any{"output_index": len(st.output), "item": messageItem(st.message, "in_progress")})
		st.part("response.content_part.added", map[string]any{"part": outputText("")})
	}
	st.part("response.output_text.delta", map[string]any{"delta": piece})
}

func (st *responsesStream) end() {
	if st.message != "" {
		text := st.a.said.String()
		st.part("response.output_text.done", map[string]any{"text": text})
		st.part("response.content_part.done", map[string]any{"part": outputText(text)})
		st.done(messageItem(st.message, "completed", outputText(text)))
	}
	for _, c := range st.a.Calls {
		item := st.a.callItem(c)
		if arguments, ok := item["arguments"]; ok {
			added := map[string]any{}
			for k, v := range item {
				added[k] = v
			}
			added["arguments"], added["status"] = "", "in_progress"
			at := map[string]any{"output_index": len(st.output), "item": added}
			st.send("response.output_item.added", at)
			st.send("response.function_call_arguments.delta", map[string]any{"output_index": len(st.output), "item_id": item["id"], "delta": arguments})
			st.send("response.function_call_arguments.done", map[string]any{"output_index": len(st.output), "item_id": item["id"], "arguments": arguments})
			st.done(item)
			continue
		}
		st.item(item)
	}
	response := st.a.response(st.id, "completed", st.output)
	st.send("response."+response["status"].(string), map[string]any{"response": response})
}

func (st *responsesStream) fail(e *Error) {
	problem := chatProblem(e)["error"].(map[string]any)
	code := problem["code"]
	if code == nil {
		code = problem["type"]
	}
	response := st.a.response(st.id, "failed", st.output)
	response["error"] = map[string]any{"code": code, "message": e.Message}
	st.send("response.failed", map[string]any{"response": response})
}
