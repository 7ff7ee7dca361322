package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/cloudwego/eino/components/model"
	"github.com/cloudwego/eino/components/tool"
	"github.com/cloudwego/eino/compose"
	"github.com/cloudwego/eino/flow/agent/react"
	"github.com/cloudwego/eino/schema"
	"github.com/eino-contrib/jsonschema"
)

// einoTools converts the tools to a configuration for an agent or a graph. The configuration can be
// used for all conversations, because the tools get the caller from the agent's context.
func einoTools(defs []bgagent.ToolDef) (compose.ToolsNodeConfig, error) {
	conf := compose.ToolsNodeConfig{
		// Without this handler, a call to an unknown tool would end the agent.
		UnknownToolsHandler: func(_ context.Context, name, _ string) (string, error) {
			return "There is no tool " + name + ".", nil
		},
	}
	for _, d := range defs {
		params := new(jsonschema.Schema)
		if err := json.Unmarshal(d.Schema, params); err != nil {
			return conf, fmt.Errorf("the schema of %s: %w", d.Name, err)
		}
		conf.Tools = append(conf.Tools, &einoTool{d, &schema.ToolInfo{
			Name:        d.Name,
			Desc:        d.Description,
			ParamsOneOf: schema.NewParamsOneOfByJSONSchema(params),
		}})
	}
	return conf, nil
}

// einoTool is a tool for Eino.
type einoTool struct {
	def  bgagent.ToolDef
	info *schema.ToolInfo
}

var _ tool.InvokableTool = (*einoTool)(nil)

// Info implements [tool.BaseTool].
func (t *einoTool) Info(context.Context) (*schema.ToolInfo, error) { return t.info, nil }

// InvokableRun implements [tool.InvokableTool]. If the tool reports an error to the model, InvokableRun
// returns only the text, because a Go error would end the agent.
func (t *einoTool) InvokableRun(ctx context.Context, args string, _ ...tool.Option) (string, error) {
	by, _ := bgagent.CallerFrom(ctx)
	by.ToolCallID = compose.GetToolCallID(ctx)
	r, err := t.def.Call(bgagent.WithCaller(ctx, by), json.RawMessage(args))
	return r.Text, err
}

// einoChat sends the prompt to a model with a ReAct agent, which runs the tools that the model
// calls. It returns the first message without tool calls.
func einoChat(ctx context.Context, m model.ToolCallingChatModel, defs []bgagent.ToolDef, prompt string) (*schema.Message, error) {
	tools, err := einoTools(defs)
	if err != nil {
		return nil, err
	}
	agent, err := react.NewAgent(ctx, &react.AgentConfig{ToolCallingModel: m, ToolsConfig: tools, MaxStep: 40})
	if err != nil {
		return nil, err
	}
	return agent.Generate(ctx, []*schema.Message{schema.UserMessage(prompt)})
}
