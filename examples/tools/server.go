package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicopt "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/bgagent/bgagent"
	"github.com/openai/openai-go/v3"
	openaiopt "github.com/openai/openai-go/v3/option"
)

// The servers in this file replace the model servers. Each supports only the part of its API
// that the script needs.

// The function "serve" starts a server for an API with one method. An error from the handler is
// sent to the client with a status after which clients do not retry.
func serve[T any](path string, handle func(T) (answer any, err error)) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var req T
		err := json.NewDecoder(r.Body).Decode(&req)
		var answer any
		if err == nil {
			answer, err = handle(req)
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			answer = object{"error": object{"type": "invalid_request_error", "message": err.Error()}}
		}
		// The error is ignored, because the client notices an incomplete answer.
		_ = json.NewEncoder(w).Encode(answer)
	})
	return httptest.NewServer(mux)
}

type object map[string]any

func playAnthropic(ctx context.Context, defs []bgagent.ToolDef, s *script) error {
	type request struct {
		Tools []struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			InputSchema json.RawMessage `json:"input_schema"`
		} `json:"tools"`
		Messages []struct {
			Content []struct {
				ToolUseID string `json:"tool_use_id"`
				IsError   bool   `json:"is_error"`
				Content   []struct {
					Text string `json:"text"`
				} `json:"content"`
			} `json:"content"`
		} `json:"messages"`
	}
	server := serve("/v1/messages", func(r request) (any, error) {
		var id, text string
		if s.step == 0 {
			for _, t := range r.Tools {
				if err := s.offer(t.Name, t.Description, t.InputSchema); err != nil {
					return nil, err
				}
			}
		} else {
			last := r.Messages[len(r.Messages)-1].Content
			if len(last) != 1 || len(last[0].Content) != 1 {
				return nil, fmt.Errorf("%d results for one call", len(last))
			}
			if err := s.flag(last[0].IsError); err != nil {
				return nil, err
			}
			id, text = last[0].ToolUseID, last[0].Content[0].Text
		}
		c, ok, err := s.reply(id, text)
		if err != nil {
			return nil, err
		}
		content, stop := object{"type": "text", "text": lastWord}, "end_turn"
		if ok {
			content, stop = object{"type": "tool_use", "id": c.id, "name": c.name, "input": json.RawMessage(c.args)}, "tool_use"
		}
		return object{"type": "message", "role": "assistant", "stop_reason": stop, "content": []object{content}}, nil
	})
	defer server.Close()

	client := anthropic.NewClient(anthropicopt.WithBaseURL(server.URL), anthropicopt.WithAPIKey("none"))
	msg, err := anthropicChat(ctx, client, defs, question)
	if err != nil {
		return err
	}
	return s.end(msg.Content[0].Text)
}

func playOpenAI(ctx context.Context, defs []bgagent.ToolDef, s *script) error {
	type request struct {
		Tools []struct {
			Function functionTool `json:"function"`
		} `json:"tools"`
		Messages []struct {
			ToolCallID string          `json:"tool_call_id"`
			Content    json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	server := serve("/chat/completions", func(r request) (any, error) {
		var id, text string
		if s.step == 0 {
			for _, t := range r.Tools {
				if err := t.Function.offer(s); err != nil {
					return nil, err
				}
			}
		} else {
			last := r.Messages[len(r.Messages)-1]
			id = last.ToolCallID
			if err := json.Unmarshal(last.Content, &text); err != nil {
				return nil, err
			}
		}
		c, ok, err := s.reply(id, text)
		if err != nil {
			return nil, err
		}
		msg := object{"role": "assistant", "content": lastWord}
		if ok {
			msg = object{"role": "assistant", "tool_calls": []object{
				{"type": "function", "id": c.id, "function": object{"name": c.name, "arguments": c.args}},
			}}
		}
		return object{"object": "chat.completion", "choices": []object{{"message": msg}}}, nil
	})
	defer server.Close()

	client := openai.NewClient(openaiopt.WithBaseURL(server.URL), openaiopt.WithAPIKey("none"))
	msg, err := openaiChat(ctx, client, defs, question)
	if err != nil {
		return err
	}
	return s.end(msg.Content)
}

func playResponses(ctx context.Context, defs []bgagent.ToolDef, s *script) error {
	type request struct {
		Tools []functionTool  `json:"tools"`
		Input json.RawMessage `json:"input"`
	}
	server := serve("/responses", func(r request) (any, error) {
		var results []struct {
			CallID string `json:"call_id"`
			Output string `json:"output"`
		}
		var id, text string
		if s.step == 0 {
			for _, t := range r.Tools {
				if err := t.offer(s); err != nil {
					return nil, err
				}
			}
		} else {
			if err := json.Unmarshal(r.Input, &results); err != nil {
				return nil, err
			}
			if len(results) != 1 {
				return nil, fmt.Errorf("%d results for one call", len(results))
			}
			id, text = results[0].CallID, results[0].Output
		}
		c, ok, err := s.reply(id, text)
		if err != nil {
			return nil, err
		}
		item := object{"type": "message", "role": "assistant", "content": []object{{"type": "output_text", "text": lastWord}}}
		if ok {
			item = object{"type": "function_call", "call_id": c.id, "name": c.name, "arguments": c.args}
		}
		return object{"object": "response", "id": "resp_" + c.id, "status": "completed", "output": []object{item}}, nil
	})
	defer server.Close()

	client := openai.NewClient(openaiopt.WithBaseURL(server.URL), openaiopt.WithAPIKey("none"))
	resp, err := responsesChat(ctx, client, defs, question)
	if err != nil {
		return err
	}
	return s.end(resp.OutputText())
}

// functionTool is the definition of a tool in a request to one of OpenAI's APIs.
type functionTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
	Strict      *bool           `json:"strict"`
}

func (t functionTool) offer(s *script) error {
	if t.Strict == nil || *t.Strict {
		return fmt.Errorf("%s: strict is not off", t.Name)
	}
	return s.offer(t.Name, t.Description, t.Parameters)
}
