package main

import (
	"context"
	"encoding/json"

	"github.com/bgagent/bgagent"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
)

// openaiTools converts the tools for Chat Completions. The schemas are sent unchanged, so
// their properties keep their order. Strict must be off, because strict schemas cannot have
// optional arguments.
func openaiTools(defs []bgagent.ToolDef) []openai.ChatCompletionToolUnionParam {
	var tools []openai.ChatCompletionToolUnionParam
	for _, d := range defs {
		f := openai.FunctionDefinitionParam{
			Name:        d.Name,
			Description: openai.String(d.Description),
			Strict:      openai.Bool(false),
		}
		f.SetExtraFields(map[string]any{"parameters": d.Schema})
		tools = append(tools, openai.ChatCompletionFunctionTool(f))
	}
	return tools
}

// openaiResults runs the tools that a message calls. Each result is a separate message.
// Results cannot be marked as errors, so only the text shows that a call failed.
func openaiResults(ctx context.Context, defs []bgagent.ToolDef, msg openai.ChatCompletionMessage) ([]openai.ChatCompletionMessageParamUnion, error) {
	var results []openai.ChatCompletionMessageParamUnion
	for _, c := range msg.ToolCalls {
		r, err := callTool(ctx, defs, c.ID, c.Function.Name, json.RawMessage(c.Function.Arguments))
		if err != nil {
			return nil, err
		}
		results = append(results, openai.ToolMessage(r.Text, c.ID))
	}
	return results, nil
}

// openaiChat sends the prompt to a model and runs the tools that the model calls. It returns the
// first message without tool calls.
func openaiChat(ctx context.Context, client openai.Client, defs []bgagent.ToolDef, prompt string) (openai.ChatCompletionMessage, error) {
	params := openai.ChatCompletionNewParams{
		Model:    openai.ChatModelGPT5_5,
		Tools:    openaiTools(defs),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	}
	for {
		completion, err := client.Chat.Completions.New(ctx, params)
		if err != nil {
			return openai.ChatCompletionMessage{}, err
		}
		msg := completion.Choices[0].Message
		results, err := openaiResults(ctx, defs, msg)
		if err != nil || len(results) == 0 {
			return msg, err
		}
		params.Messages = append(params.Messages, msg.ToParam())
		params.Messages = append(params.Messages, results...)
	}
}

// responsesTools converts the tools for the Responses API. In this API, Strict must be
// switched off explicitly, because it is on by default.
func responsesTools(defs []bgagent.ToolDef) []responses.ToolUnionParam {
	var tools []responses.ToolUnionParam
	for _, d := range defs {
		f := &responses.FunctionToolParam{
			Name:        d.Name,
			Description: openai.String(d.Description),
			Strict:      openai.Bool(false),
		}
		f.SetExtraFields(map[string]any{"parameters": d.Schema})
		tools = append(tools, responses.ToolUnionParam{OfFunction: f})
	}
	return tools
}

// responsesResults runs the tools that a response calls.
func responsesResults(ctx context.Context, defs []bgagent.ToolDef, resp *responses.Response) (responses.ResponseInputParam, error) {
	var results responses.ResponseInputParam
	for _, item := range resp.Output {
		if c, ok := item.AsAny().(responses.ResponseFunctionToolCall); ok {
			r, err := callTool(ctx, defs, c.CallID, c.Name, json.RawMessage(c.Arguments))
			if err != nil {
				return nil, err
			}
			out := responses.ResponseInputItemParamOfFunctionCallOutput(r.Text)
			out.OfFunctionCallOutput.CallID = openai.String(c.CallID)
			results = append(results, out)
		}
	}
	return results, nil
}

// responsesChat sends the prompt to a model and runs the tools that the model calls. It returns
// the first response without tool calls.
func responsesChat(ctx context.Context, client openai.Client, defs []bgagent.ToolDef, prompt string) (*responses.Response, error) {
	params := responses.ResponseNewParams{
		Model: openai.ChatModelGPT5_5,
		Tools: responsesTools(defs),
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(prompt)},
	}
	for {
		resp, err := client.Responses.New(ctx, params)
		if err != nil {
			return nil, err
		}
		results, err := responsesResults(ctx, defs, resp)
		if err != nil || len(results) == 0 {
			return resp, err
		}
		params.PreviousResponseID = openai.String(resp.ID)
		params.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: results}
	}
}
