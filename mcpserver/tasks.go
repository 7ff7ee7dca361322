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

// ExtensionTasks is the extension of the protocol for calls that take long
// (SEP-2663). A client that declares it on a request which delegates in the
// foreground is answered at once with a handle, ID.ATTEMPT, and asks for the
// result with tasks/get. A task that has failed is a call that has an answer, and
// so "completed"; "failed" is for calls that the protocol itself could not make.
// To have got an answer counts as having been told. Who names handles in a request
// to listen is sent notifications/tasks whenever one of them changes; that of its
// end brings the result, and counts as having been told, too.
const ExtensionTasks = "io.modelcontextprotocol/tasks"

// pollInterval is how often a client should ask.
const pollInterval = time.Second

// taskState is a task as the extension describes it.
type taskState struct {
	mcp.ResultBase
	ResultType     string    `json:"resultType"`
	TaskID         string    `json:"taskId"`
	Status         string    `json:"status"`
	StatusMessage  string    `json:"statusMessage,omitempty"`
	CreatedAt      time.Time `json:"createdAt"`
	LastUpdatedAt  time.Time `json:"lastUpdatedAt"`
	TTL            *int64    `json:"ttlMs"` // null: kept until it has been told, and a while after that
	PollIntervalMs int64     `json:"pollIntervalMs"`

	Result json.RawMessage `json:"result,omitempty"`
}

// complete writes an answer as the extension has it: it says of itself that it is
// one.
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

// serveTasks makes the scope's server speak the extension.
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
			return &acknowledged{ResultType: "complete"}, nil // nothing is ever asked
		}),
	)
}

// declares reports whether the call itself says that its client knows the
// extension. What a client of an older protocol declares when it initializes does
// not count: it may know only the older, experimental form of tasks, and takes a
// handle for a broken answer.
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

// handle launches the task of a delegation in the foreground whose client wants a
// handle. It returns nil for all other calls.
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

// stateOf describes the latest attempt of a task, without its result.
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

// parse finds a task of the scope's by its handle.
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
	if t.Attempt != attempt { // it was continued since
		s.TaskID, s.Status = handle, "completed"
		s.StatusMessage = fmt.Sprintf("the task was continued since then; it is %s.%d now", t.ID, t.Attempt)
	}
	switch s.Status {
	case "completed":
		var r *mcp.CallToolResult
		if r, err = sc.result(ctx, id); err == nil {
			s.Result, err = complete(r)
		}
	case "cancelled": // there is no result, so that it is told by this
		_, err = sc.s.m.Read(bgagent.Caller{Session: sc.name}, id)
	}
	return s, err
}
