package modelserver

import (
	"encoding/json"
	"fmt"
	"strings"
)

var messagesProtocol = protocol{
	name:   Messages,
	header: "Request-Id",
	decode: decodeMessages,
	problem: func(e *Error, id string) any {
		problem := messagesProblem(e)
		problem["request_id"] = id
		return problem
	},
	whole:  messagesWhole,
	stream: func(a *answer) stream { return newMessagesStream(a) },
}

type messagesBlock struct {
	Type      string          `json:"type"`
	Text      string          `json:"text"`
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
	ToolUseID string          `json:"tool_use_id"`
	Content   json.RawMessage `json:"content"`
	IsError   bool            `json:"is_error"`
}

func decodeMessages(body []byte, req *Request) error {
	var in struct {
		Model    string          `json:"model"`
		Stream   bool            `json:"stream"`
		System   json.RawMessage `json:"system"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
		Tools []struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			InputSchema json.RawMessage `json:"input_schema"`
		} `json:"tools"`
		OutputConfig struct {
			Format struct {
				Schema json.RawMessage `json:"schema"`
			} `json:"format"`
		} `json:"output_config"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	req.Model, req.Stream, req.Schema = in.Model, in.Stream, in.OutputConfig.Format.Schema
	var err error
	if req.System, err = contentText(in.System); err != nil {
		return fmt.Errorf("system: %w", err)
	}
	for _, t := range in.Tools {
		req.Tools = append(req.Tools, ToolDef{Name: t.Name, Description: t.Description, Schema: t.InputSchema})
	}
	var c conversation
	for i, m := range in.Messages {
		var aside string
		switch m.Role {
		case "system": // Claude Code sends further system messages within the conversation
			aside, err = contentText(m.Content)
		case "user", "assistant":
			aside, err = addBlocks(&c, m.Role == "user", m.Content)
		default:
			return fmt.Errorf("messages[%d].role is %q, not user, assistant or system", i, m.Role)
		}
		if err != nil {
			return fmt.Errorf("messages[%d].content: %w", i, err)
		}
		req.System = join(req.System, aside)
	}
	req.Messages = c.messages
	return nil
}

// reminder is the beginning of the blocks that Claude Code adds before a prompt in the same
// message.
const reminder = "<system-reminder>"

// addBlocks adds a message to the conversation. It returns the text that the program added to the user's
// prompt in this message.
func addBlocks(c *conversation, user bool, content json.RawMessage) (aside string, err error) {
	blocks := []messagesBlock{{Type: "text"}}
	if len(content) > 0 && content[0] == '"' {
		if err := json.Unmarshal(content, &blocks[0].Text); err != nil {
			return "", err
		}
	} else if err := json.Unmarshal(content, &blocks); err != nil {
		return "", fmt.Errorf("it is neither a text nor a list of blocks")
	}
	var texts []string
	var calls []Call
	var results []Result
	for i, b := range blocks {
		switch b.Type {
		case "text":
			texts = append(texts, b.Text)
		case "tool_use":
			calls = append(calls, Call{ID: b.ID, Name: b.Name, Args: string(b.Input)})
		case "tool_result":
			inner, err := contentText(b.Content)
			if err != nil {
				return "", fmt.Errorf("block %d: %w", i, err)
			}
			results = append(results, Result{CallID: b.ToolUseID, Text: inner, Failed: b.IsError})
		}
	}
	switch {
	case !user:
		c.assistant(joinAll(texts), calls...)
	case results != nil:
		c.results(results...)
		c.beside(joinAll(texts))
	case texts == nil:
		c.user("")
	default:
		aside = addPrompts(c, texts)
	}
	return aside, nil
}

// addPrompts adds one message for each prompt in texts, because Claude Code combines an unanswered
// prompt and the next prompt in one message. It returns the reminders that Claude Code has added.
func addPrompts(c *conversation, texts []string) (aside string) {
	for _, text := range texts {
		if strings.HasPrefix(text, reminder) {
			aside = join(aside, text)
		} else {
			c.user(text)
		}
	}
	return aside
}

func joinAll(texts []string) (all string) {
	for _, text := range texts {
		all = join(all, text)
	}
	return all
}

func (a *answer) messagesStop() string {
	switch {
	case a.Truncated:
		return "max_tokens"
	case len(a.Calls) > 0:
		return "tool_use"
	}
	return "end_turn"
}

func (a *answer) message(content []any, stop any, u Usage) map[string]any {
	return map[string]any{
		"id": a.id("msg_"), "type": "message", "role": "assistant", "model": a.req.Model, "content": content,
		"stop_reason": stop, "stop_sequence": nil,
		"usage": map[string]any{"input_tokens": u.Input - u.Cached, "cache_read_input_tokens": u.Cached,
			"cache_creation_input_tokens": 0, "output_tokens": u.Output},
	}
}

// toolInput returns the arguments of a call as the JSON object that the protocol requires.
func toolInput(args string) json.RawMessage {
	if json.Valid([]byte(args)) {
		return json.RawMessage(args)
	}
	return marshal(map[string]any{"invalid": args})
}

func messagesWhole(a *answer) any {
	content := []any{}
	if a.Reasoning != "" {
		content = append(content, map[string]any{"type": "thinking", "thinking": a.Reasoning, "signature": "scripted"})
	}
	if a.said.Len() > 0 {
		content = append(content, map[string]any{"type": "text", "text": a.said.String()})
	}
	for _, c := range a.Calls {
		content = append(content, map[string]any{"type": "tool_use", "id": c.ID, "name": c.Name, "input": toolInput(c.Args)})
	}
	return a.message(content, a.messagesStop(), a.usage(a.req, a.said.String()))
}

type messagesStream struct {
	a      *answer
	blocks int // number of blocks so far
	texts  bool
}

func newMessagesStream(a *answer) *messagesStream {
	st := &messagesStream{a: a}
	a.startEvents()
	if a.Hang && !a.says() {
		return st
	}
	u := a.usage(a.req, "")
	st.send("message_start", map[string]any{"message": a.message([]any{}, nil, Usage{Input: u.Input, Cached: u.Cached, Output: 1})})
	st.send("ping", map[string]any{})
	if a.Reasoning != "" {
		st.begin(map[string]any{"type": "thinking", "thinking": "", "signature": ""})
		st.delta(map[string]any{"type": "thinking_delta", "thinking": a.Reasoning})
		st.delta(map[string]any{"type": "signature_delta", "signature": "scripted"})
		st.stop()
	}
	return st
}

func (st *messagesStream) send(name string, fields map[string]any) {
	fields["type"] = name
	st.a.event(name, fields)
}

func (st *messagesStream) begin(block map[string]any) {
	st.send("content_block_start", map[string]any{"index": st.blocks, "content_block": block})
	st.blocks++
}

func (st *messagesStream) delta(delta map[string]any) {
	st.send("content_block_delta", map[string]any{"index": st.blocks - 1, "delta": delta})
}

func (st *messagesStream) stop() {
	st.send("content_block_stop", map[string]any{"index": st.blocks - 1})
}

func (st *messagesStream) text(piece string) {
	if !st.texts {
		st.texts = true
		st.begin(map[string]any{"type": "text", "text": ""})
	}
	st.delta(map[string]any{"type": "text_delta", "text": piece})
}

func (st *messagesStream) end() {
	if st.texts {
		st.stop()
	}
	for _, c := range st.a.Calls {
		st.begin(map[string]any{"type": "tool_use", "id": c.ID, "name": c.Name, "input": map[string]any{}})
		st.delta(map[string]any{"type": "input_json_delta", "partial_json": c.Args})
		st.stop()
	}
	u := st.a.usage(st.a.req, st.a.said.String())
	st.send("message_delta", map[string]any{
		"delta": map[string]any{"stop_reason": st.a.messagesStop(), "stop_sequence": nil},
		"usage": map[string]any{"output_tokens": u.Output},
	})
	st.send("message_stop", map[string]any{})
}

func (st *messagesStream) fail(e *Error) { st.send("error", messagesProblem(e)) }
