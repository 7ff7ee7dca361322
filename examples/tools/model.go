package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/cloudwego/eino/components/model"
	"github.com/cloudwego/eino/schema"
	"github.com/tmc/langchaingo/llms"
)

// The types in this file are scripted models for the SDKs that have an interface for models.

// einoModel runs the script as an Eino model.
type einoModel struct{ s *script }

// WithTools implements [model.ToolCallingChatModel].
func (m einoModel) WithTools(tools []*schema.ToolInfo) (model.ToolCallingChatModel, error) {
	for _, t := range tools {
		params, err := t.ToJSONSchema()
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(params)
		if err != nil {
			return nil, err
		}
		if err := m.s.offer(t.Name, t.Desc, raw); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Generate implements [model.BaseChatModel].
func (m einoModel) Generate(_ context.Context, in []*schema.Message, _ ...model.Option) (*schema.Message, error) {
	last := in[len(in)-1]
	c, ok, err := m.s.reply(last.ToolCallID, last.Content)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return schema.AssistantMessage(lastWord, nil), nil
	}
	return schema.AssistantMessage("", []schema.ToolCall{
		{ID: c.id, Type: "function", Function: schema.FunctionCall{Name: c.name, Arguments: c.args}},
	}), nil
}

// Stream implements [model.BaseChatModel].
func (m einoModel) Stream(ctx context.Context, in []*schema.Message, opts ...model.Option) (*schema.StreamReader[*schema.Message], error) {
	msg, err := m.Generate(ctx, in, opts...)
	if err != nil {
		return nil, err
	}
	return schema.StreamReaderFromArray([]*schema.Message{msg}), nil
}

func playEino(ctx context.Context, defs []bgagent.ToolDef, s *script) error {
	msg, err := einoChat(ctx, einoModel{s}, defs, question)
	if err != nil {
		return err
	}
	return s.end(msg.Content)
}

// langchainModel runs the script as a LangChainGo model.
type langchainModel struct{ s *script }

// GenerateContent implements [llms.Model].
func (m langchainModel) GenerateContent(_ context.Context, in []llms.MessageContent, opts ...llms.CallOption) (*llms.ContentResponse, error) {
	var r llms.ToolCallResponse
	if m.s.step == 0 {
		var o llms.CallOptions
		for _, opt := range opts {
			opt(&o)
		}
		for _, t := range o.Tools {
			raw, err := json.Marshal(t.Function.Parameters)
			if err != nil {
				return nil, err
			}
			if err := m.s.offer(t.Function.Name, t.Function.Description, raw); err != nil {
				return nil, err
			}
		}
	} else {
		last := in[len(in)-1].Parts[0]
		var ok bool
		if r, ok = last.(llms.ToolCallResponse); !ok {
			return nil, fmt.Errorf("the answer to a call is of type %T", last)
		}
	}
	c, ok, err := m.s.reply(r.ToolCallID, r.Content)
	if err != nil {
		return nil, err
	}
	choice := &llms.ContentChoice{Content: lastWord}
	if ok {
		choice = &llms.ContentChoice{ToolCalls: []llms.ToolCall{
			{ID: c.id, Type: "function", FunctionCall: &llms.FunctionCall{Name: c.name, Arguments: c.args}},
		}}
	}
	return &llms.ContentResponse{Choices: []*llms.ContentChoice{choice}}, nil
}

// Call implements [llms.Model]. The interface marks it as deprecated, and it is never called.
func (langchainModel) Call(context.Context, string, ...llms.CallOption) (string, error) {
	return "", errors.ErrUnsupported
}

func playLangChain(ctx context.Context, defs []bgagent.ToolDef, s *script) error {
	word, err := langchainChat(ctx, langchainModel{s}, defs, question)
	if err != nil {
		return err
	}
	return s.end(word)
}
