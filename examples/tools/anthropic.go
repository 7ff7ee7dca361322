package main

import (
	"context"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"
	"github.com/bgagent/bgagent"
)

// anthropicTools converts the tools for the Messages API. The schemas are sent unchanged, so
// their properties keep their order.
func anthropicTools(defs []bgagent.ToolDef) []anthropic.ToolUnionParam {
	var tools []anthropic.ToolUnionParam
	for _, d := range defs {
		tools = append(tools, anthropic.ToolUnionParam{OfTool: &anthropic.ToolParam{
			Name:        d.Name,
			Description: anthropic.String(d.Description),
			InputSchema: param.Override[anthropic.ToolInputSchemaParam](d.Schema),
		}})
	}
	return tools
}

// anthropicResults runs the tools that a message calls. All results must be sent together, in the
// next user message.
func anthropicResults(ctx context.Context, defs []bgagent.ToolDef, msg *anthropic.Message) ([]anthropic.ContentBlockParamUnion, error) {
	var results []anthropic.ContentBlockParamUnion
	for _, block := range msg.Content {
		if use, ok := block.AsAny().(anthropic.ToolUseBlock); ok {
			r, err := callTool(ctx, defs, use.ID, use.Name, use.Input)
			if err != nil {
				return nil, err
			}
			results = append(results, anthropic.NewToolResultBlock(use.ID, r.Text, r.IsError))
		}
	}
	return results, nil
}

// anthropicChat sends the prompt to a model and runs the tools that the model calls. It returns the
// first message without tool calls.
func anthropicChat(ctx context.Context, client anthropic.Client, defs []bgagent.ToolDef, prompt string) (*anthropic.Message, error) {
	params := anthropic.MessageNewParams{
		Model:     anthropic.ModelClaudeSonnet5_5,
		MaxTokens: 4096,
		Tools:     anthropicTools(defs),
		Messages:  []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(prompt))},
	}
	for {
		msg, err := client.Messages.New(ctx, params)
		if err != nil {
			return nil, err
		}
		results, err := anthropicResults(ctx, defs, msg)
		if err != nil || len(results) == 0 {
			return msg, err
		}
		params.Messages = append(params.Messages, msg.ToParam(), anthropic.NewUserMessage(results...))
	}
}
