package mcpserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
)

// ExtensionTasks is the name of the protocol's extension for long calls (SEP-2663). If a
// client declares the extension on a foreground delegation, the call is answered
// immediately with a handle, written ID.ATTEMPT. The client requests the result with
// tasks/get.
//
// A failed task has the status "completed", because its call still has an answer. The extension's status
// "failed" is for calls that have no answer because of a protocol error.
//
// A client that names handles in a request to listen gets notifications/tasks whenever one of the handles'
// tasks changes. When the task ends, the notification contains the result. This notification settles the
// notice about the task, and so does an answer to tasks/get that contains the result.
const ExtensionTasks = "io.modelcontextprotocol/tasks"

// pollInterval is the suggested pause between two tasks/get requests.
const pollInterval = time.Second

// taskState is the state of a task as the extension defines it.
type taskState struct {
	mcp.ResultBase
	ResultType     string    `json:"resultType"`
	TaskID         string    `json:"taskId"`
	Status         string    `json:"status"`
	StatusMessage  string    `json:"statusMessage,omitempty"`
	CreatedAt      time.Time `json:"createdAt"`
	LastUpdatedAt  time.Time `json:"lastUpdatedAt"`
	TTL            *int64    `json:"ttlMs"` // null: the state is kept at least until the end of the task has been reported
	PollIntervalMs int64     `json:"pollIntervalMs"`

	Result json.RawMessage `json:"result,omitempty"`
}

// The function "complete" encodes an answer with the resultType that the extension requires.
func complete(r *mcp.CallToolResult) (json.RawMessage, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	fields["resultType"] = json.RawMessage(`"complete"`)
	return json.Marshal(fields)
}

type acknowledged struct {
	mcp.ResultBase
	ResultType string `json:"resultType"`
}

type taskParams struct {
	mcp.ParamsBase
	TaskID string `json:"taskId"`
}

type updateParams struct {
	mcp.ParamsBase
	TaskID         string         `json:"taskId"`
	InputResponses map[string]any `json:"inputResponses"`
}

// serveTasks adds the extension to the scope's server.
func (sc *scope) serveTasks() error {
	sc.server.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			if call, ok := req.(*mcp.CallToolRequest); ok && method == "tools/call" {
				if handle, err := sc.handle(ctx, call); handle != nil || err != nil {
					return handle, err
				}
			}
			return next(ctx, method, req)
		}
	})
	return errors.Join(
		mcp.AddReceivingCustomMethod(sc.server, "tasks/get", func(ctx context.Context, _ *mcp.ServerSession, p *taskParams) (*taskState, error) {
			return sc.getTask(ctx, p.TaskID)
		}),
		mcp.AddReceivingCustomMethod(sc.server, "tasks/cancel", func(ctx context.Context, _ *mcp.ServerSession, p *taskParams) (*acknowledged, error) {
			id, _, err := sc.parse(p.TaskID)
			if err != nil {
				return nil, err
			}
			_, err = sc.s.m.Cancel(ctx, bgagent.Caller{Session: sc.name}, id, bgagent.CancelOptions{})
			if err != nil && !errors.Is(err, bgagent.ErrAlreadyEnded) {
				return nil, err
			}
			return &acknowledged{ResultType: "complete"}, nil
		}),
		mcp.AddReceivingCustomMethod(sc.server, "tasks/update", func(_ context.Context, _ *mcp.ServerSession, p *updateParams) (*acknowledged, error) {
			if _, _, err := sc.parse(p.TaskID); err != nil {
				return nil, err
			}
			return &acknowledged{ResultType: "complete"}, nil // the server never asks for input
		}),
	)
}

// The function "declares" reports whether the call itself declares the extension. A declaration
// in the initialize request of an older protocol version is ignored, because a client with
// such a version might know only the older, experimental form of tasks, and would reject a
// handle as an invalid answer.
func declares(req *mcp.CallToolRequest) bool {
	if _, ok := req.Params.GetMeta()[mcp.MetaKeyClientCapabilities]; !ok {
		return false
	}
	caps := req.ClientCapabilities()
	if caps == nil {
		return false
	}
	_, ok := caps.Extensions[ExtensionTasks]
	return ok
}

// handle launches the task of a foreground delegation that declares the extension, and
// returns the task's handle. It returns nil for all other calls.
func (sc *scope) handle(ctx context.Context, req *mcp.CallToolRequest) (mcp.Result, error) {
	if !declares(req) {
		return nil, nil
	}
	i := slices.IndexFunc(sc.s.defs, func(d bgagent.ToolDef) bool { return d.Name == req.Params.Name })
	if i < 0 {
		return nil, nil
	}
	args, ok := foreground(sc.s.defs[i], req)
	if !ok {
		return nil, nil
	}
	t, answer, err := sc.begin(ctx, sc.caller(req), args)
	switch {
	case err != nil:
		return nil, err
	case t == nil:
		return answer, nil
	}
	state := stateOf(*t)
	state.ResultType = "task"
	return state, nil
}

// stateOf returns the state of a task's latest attempt, without the result.
func stateOf(t bgagent.Task) *taskState {
	s := &taskState{ResultType: "complete", TaskID: t.ID + "." + strconv.Itoa(t.Attempt), Status: "working", StatusMessage: describe(t),
		CreatedAt: t.Queued, LastUpdatedAt: t.Queued, PollIntervalMs: pollInterval.Milliseconds()}
	for _, at := range []time.Time{t.Started, t.Progress.LastActivity, t.Ended} {
		if at.After(s.LastUpdatedAt) {
			s.LastUpdatedAt = at
		}
	}
	switch t.Status {
	case bgagent.Cancelled:
		s.Status = "cancelled"
	case bgagent.Completed, bgagent.Failed:
		s.Status = "completed"
	}
	return s
}

// parse splits a handle into the task's id and the attempt's number. It returns an error if
// the scope does not have this task or attempt.
func (sc *scope) parse(handle string) (id string, attempt int, err error) {
	id, number, _ := strings.Cut(handle, ".")
	attempt, bad := strconv.Atoi(number)
	t, err := sc.task(uri(id))
	if err != nil || bad != nil || attempt < 1 || attempt > t.Attempt {
		return "", 0, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: fmt.Sprintf("there is no task %.80q; it may have expired", handle)}
	}
	return id, attempt, nil
}

func (sc *scope) getTask(ctx context.Context, handle string) (*taskState, error) {
	id, attempt, err := sc.parse(handle)
	if err != nil {
		return nil, err
	}
	t, err := sc.task(uri(id))
	if err != nil {
		return nil, err
	}
	s := stateOf(t)
	if t.Attempt != attempt { // the task has been resumed
		s.TaskID, s.Status = handle, "completed"
		s.StatusMessage = fmt.Sprintf("the task has been continued since; its handle is now %s.%d", t.ID, t.Attempt)
	}
	switch s.Status {
	case "completed":
		var r *mcp.CallToolResult
		if r, err = sc.result(ctx, id); err == nil {
			s.Result, err = complete(r)
		}
	case "cancelled": // there is no result to be fetched, so this answer settles the notice
		_, err = sc.s.m.Read(bgagent.Caller{Session: sc.name}, id)
	}
	return s, err
}
