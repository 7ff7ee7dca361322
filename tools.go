package bgagent

import (
	"context"
	"encoding/json"
)

type DelegateTaskArgs struct {
	Description     string `json:"description,omitempty"`
	Prompt          string `json:"prompt"`
	SubagentType    string `json:"subagent_type,omitempty"`
	Model           string `json:"model,omitempty"`
	RunInBackground *bool  `json:"run_in_background,omitempty"`
	Background      *bool  `json:"background,omitempty"`
	SessionID       string `json:"session_id,omitempty"`
	TaskID          string `json:"task_id,omitempty"`
}
type DelegateTaskResult struct {
	Text    string
	IsError bool
	Task    *Task
	Notice  *Notice
}
type BackgroundOutputArgs struct {
	TaskID         string `json:"task_id,omitempty"`
	Block          bool   `json:"block,omitempty"`
	Timeout        *int64 `json:"timeout,omitempty"`
	FullSession    bool   `json:"full_session,omitempty"`
	MessageLimit   int    `json:"message_limit,omitempty"`
	SinceMessageID string `json:"since_message_id,omitempty"`
	FromEnd        bool   `json:"from_end,omitempty"`
}
type BackgroundOutputResult struct {
	Text     string
	IsError  bool
	Tasks    []Task
	TimedOut bool
	Notice   *Notice
}
type BackgroundCancelArgs struct {
	TaskID      string `json:"task_id,omitempty"`
	TaskIDAlias string `json:"taskId,omitempty"`
	All         bool   `json:"all,omitempty"`
}
type BackgroundCancelResult struct {
	Text      string
	IsError   bool
	Cancelled []Task
	Notice    *Notice
}

func DelegateTask(ctx context.Context, m *BackgroundManager, by Caller, a DelegateTaskArgs) (DelegateTaskResult, error) {
	panic("stub")
}
func BackgroundOutput(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	panic("stub")
}
func BackgroundCancel(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundCancelArgs) (BackgroundCancelResult, error) {
	panic("stub")
}

type ToolOptions struct {
	Names map[string]string
	Omit  []string
}
type ToolResult struct {
	Text    string
	IsError bool
	Value   any
}
type ToolDef struct {
	Name, Description string
	Schema            json.RawMessage
	Call              func(ctx context.Context, args json.RawMessage) (ToolResult, error)
}

func Tools(m *BackgroundManager, o ToolOptions) []ToolDef { panic("stub") }
