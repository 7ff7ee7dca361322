package bgotel

import (
	"strings"

	"github.com/bgagent/bgagent"
	"go.opentelemetry.io/otel/attribute"
)

// These names come from the semantic conventions. They are defined here because Go's semconv packages have
// contained no names for GenAI since v1.42.0. The conventions for GenAI have moved to
// github.com/open-telemetry/semantic-conventions-genai, which has no release yet. The names are from the main
// branch of that repository in November 2026 and are the same as in v1.41.0.
const (
	keyOperation    = attribute.Key("gen_ai.operation.name")
	keyProvider     = attribute.Key("gen_ai.provider.name")
	keyAgent        = attribute.Key("gen_ai.agent.name")
	keyModel        = attribute.Key("gen_ai.request.model")
	keyConversation = attribute.Key("gen_ai.conversation.id")
	keyToolCall     = attribute.Key("gen_ai.tool.call.id")
	keyInputTokens  = attribute.Key("gen_ai.usage.input_tokens")
	keyOutputTokens = attribute.Key("gen_ai.usage.output_tokens")
	keyTokenType    = attribute.Key("gen_ai.token.type")
	keyErrorType    = attribute.Key("error.type")

	operationInvokeAgent = "invoke_agent"
)

// These names are not part of the semantic conventions.
const (
	keyTask        = attribute.Key("bgagent.task.id")
	keyAttempt     = attribute.Key("bgagent.task.attempt")
	keyParent      = attribute.Key("bgagent.task.parent")
	keyDepth       = attribute.Key("bgagent.task.depth")
	keyClient      = attribute.Key("bgagent.task.client")
	keyForeground  = attribute.Key("bgagent.task.foreground")
	keyDescription = attribute.Key("bgagent.task.description")
	keyReason      = attribute.Key("bgagent.task.reason")
	keyStatus      = attribute.Key("bgagent.task.status")
	keyCause       = attribute.Key("bgagent.task.cause")
	keyTurns       = attribute.Key("bgagent.task.turns")
	keyToolCalls   = attribute.Key("bgagent.task.tool_calls")
	keyTurn        = attribute.Key("bgagent.turn")
	keyCost        = attribute.Key("bgagent.turn.cost")
	keyPool        = attribute.Key("bgagent.pool")
)

// providerNames maps common provider names to the values that the conventions prescribe.
var providerNames = map[string]string{
	"amazon-bedrock": "aws.bedrock",
	"azure":          "azure.ai.openai",
	"google":         "gcp.gemini",
	"google-vertex":  "gcp.vertex_ai",
	"mistral":        "mistral_ai",
	"moonshotai":     "moonshot_ai",
	"xai":            "x_ai",
}

// agentOf returns the attributes of a task's agent and model. The attributes are set when a
// span starts, so that samplers can use them.
func agentOf(t *bgagent.Task) []attribute.KeyValue {
	kv := []attribute.KeyValue{keyAgent.String(t.Agent)}
	if t.Model == "" {
		return kv
	}
	provider, model, ok := strings.Cut(t.Model, "/")
	if !ok {
		return append(kv, keyModel.String(t.Model))
	}
	provider = strings.ToLower(provider)
	if name := providerNames[provider]; name != "" {
		provider = name
	}
	return append(kv, keyModel.String(model), keyProvider.String(provider))
}

// taskOf returns the other attributes that are known when an attempt starts.
func taskOf(t *bgagent.Task, content bool) []attribute.KeyValue {
	kv := []attribute.KeyValue{
		keyTask.String(t.ID), keyAttempt.Int(t.Attempt), keyParent.String(t.Parent), keyDepth.Int(t.Depth),
	}
	if t.Client != "" {
		kv = append(kv, keyClient.String(t.Client))
	}
	if t.Foreground {
		kv = append(kv, keyForeground.Bool(true))
	}
	if t.ToolCallID != "" {
		kv = append(kv, keyToolCall.String(t.ToolCallID))
	}
	if content && t.Description != "" {
		kv = append(kv, keyDescription.String(t.Description))
	}
	return kv
}

// wentWrong reports whether the span of an attempt that ended with this cause is an error. A requested
// cancellation is not an error.
func wentWrong(c bgagent.Cause) bool {
	switch c {
	case bgagent.CauseTimeToLive, bgagent.CauseQueueTimeToLive, bgagent.CauseBudget, bgagent.CauseStale, bgagent.CauseLoop:
		return true
	}
	return c.Status() == bgagent.Failed
}
