package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/tmc/langchaingo/llms"
)

// langchainTools converts the tools for llms.WithTools. The parameters are maps, because some
// models accept only maps.
func langchainTools(defs []bgagent.ToolDef) ([]llms.Tool, error) {
	var tools []llms.Tool
	for _, d := range defs {
		var params map[string]any
		if err := json.Unmarshal(d.Schema, &params); err != nil {
			return nil, fmt.Errorf("the schema of %s: %w", d.Name, err)
		}
		tools = append(tools, llms.Tool{Type: "function", Function: &llms.FunctionDefinition{
			Name:        d.Name,
			Description: d.Description,
			Parameters:  params,
		}})
	}
	return tools, nil
}

// langchainResults runs the tools that a model calls. It returns the messages that continue the
// conversation: one with the calls, and one for each result. Results cannot be marked as errors, so
// only the text shows that a call failed.
func langchainResults(ctx context.Context, defs []bgagent.ToolDef, choice *llms.ContentChoice) ([]llms.MessageContent, error) {
	calls := llms.MessageContent{Role: llms.ChatMessageTypeAI}
	if choice.Content != "" {
		calls.Parts = append(calls.Parts, llms.TextContent{Text: choice.Content})
	}
	var results []llms.MessageContent
	for _, c := range choice.ToolCalls {
		name := c.FunctionCall.Name
		r, err := callTool(ctx, defs, c.ID, name, json.RawMessage(c.FunctionCall.Arguments))
		if err != nil {
			return nil, err
		}
		calls.Parts = append(calls.Parts, c)
		results = append(results, llms.MessageContent{
			Role:  llms.ChatMessageTypeTool,
			Parts: []llms.ContentPart{llms.ToolCallResponse{ToolCallID: c.ID, Name: name, Content: r.Text}},
		})
	}
	return append([]llms.MessageContent{calls}, results...), nil
}

// langchainChat sends the prompt to a model and runs the tools that the model calls. It returns the
// text of the first answer without tool calls.
func langchainChat(ctx context.Context, m llms.Model, defs []bgagent.ToolDef, prompt string) (string, error) {
	tools, err := langchainTools(defs)
	if err != nil {
		return "", err
	}
	messages := []llms.MessageContent{llms.TextParts(llms.ChatMessageTypeHuman, prompt)}
	for {
		resp, err := m.GenerateContent(ctx, messages, llms.WithTools(tools))
		if err != nil {
			return "", err
		}
		choice := resp.Choices[0]
		if len(choice.ToolCalls) == 0 {
			return choice.Content, nil
		}
		more, err := langchainResults(ctx, defs, choice)
		if err != nil {
			return "", err
		}
		messages = append(messages, more...)
	}
}
