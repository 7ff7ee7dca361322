package mcpserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// Structured is the structured content of every answer. It repeats the text, because some
// programs pass only the structured content to their model.
type Structured struct {
	Text     string     `json:"text"`
	Tasks    []TaskInfo `json:"tasks,omitempty"`     // the tasks that the call launched, read or cancelled
	TimedOut bool       `json:"timed_out,omitempty"` // the wait timed out before the tasks ended
}

// TaskInfo describes a task's resource and state in a form for programs. The task's result is in the text and
// in the resource.
type TaskInfo struct {
	ID          string         `json:"id"`
	URI         string         `json:"uri"` // the task's resource
	Status      bgagent.Status `json:"status"`
	Cause       string         `json:"cause,omitempty"` // why the task ended; empty until the task ends
	Reason      string         `json:"reason,omitempty"`
	Agent       string         `json:"agent"`
	Description string         `json:"description"`
	Session     string         `json:"session,omitempty"`
	Attempt     int            `json:"attempt"`
}

func info(t bgagent.Task) TaskInfo {
	i := TaskInfo{ID: t.ID, URI: uri(t.ID), Status: t.Status, Reason: cleantext.Line(t.Reason), Agent: cleantext.Line(t.Agent),
		Description: cleantext.Line(t.Description), Session: t.Session, Attempt: t.Attempt}
	if t.Status.Terminal() {
		i.Cause = t.Cause.String()
	}
	return i
}

// call runs a tool for the scope.
func (sc *scope) call(ctx context.Context, d bgagent.ToolDef, req *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	by := sc.caller(req)
	if token := req.Params.GetProgressToken(); token != nil {
		stop := sc.tellProgress(ctx, req.Session, token)
		defer stop()
	}
	if args, ok := foreground(d, req); ok {
		return sc.foreground(ctx, by, args)
	}
	r, err := d.Call(bgagent.WithCaller(ctx, by), req.Params.Arguments)
	if err != nil {
		return nil, err
	}
	return sc.answer(r), nil
}

// carry adds the text of a notice to the scope's next answer. The manager has already recorded
// the notice as delivered. If n is nil, the method "carry" does nothing.
func (sc *scope) carry(n *bgagent.Notice) {
	if n != nil {
		sc.mu.Lock()
		defer sc.mu.Unlock()
		sc.carried = append(sc.carried, n.Text)
	}
}

// answer converts a tool's result into an answer as the protocol defines it.
func (sc *scope) answer(r bgagent.ToolResult) *mcp.CallToolResult {
	sc.mu.Lock()
	r.Text = strings.Join(append(sc.carried, r.Text), "\n\n")
	sc.carried = nil
	sc.mu.Unlock()
	out := Structured{Text: r.Text}
	var tasks []bgagent.Task
	switch v := r.Value.(type) {
	case bgagent.DelegateTaskResult:
		if v.Task != nil {
			tasks = []bgagent.Task{*v.Task}
		}
	case bgagent.BackgroundOutputResult:
		tasks, out.TimedOut = v.Tasks, v.TimedOut
	case bgagent.BackgroundCancelResult:
		tasks = v.Cancelled
	}
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, info(t))
	}
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: r.Text}}, StructuredContent: out, IsError: r.IsError}
}

// The function "foreground" returns the arguments of a call that delegates in the foreground. It returns
// false for all other calls, and for calls that the tool would refuse.
func foreground(d bgagent.ToolDef, req *mcp.CallToolRequest) (args bgagent.DelegateTaskArgs, ok bool) {
	if d.Usual != bgagent.ToolDelegateTask || json.Unmarshal(req.Params.Arguments, &args) != nil {
		return args, false
	}
	return args, args.Foreground()
}

// The method "foreground" delegates a task and answers with the task's result. The task runs in the
// background: if the caller disconnects, the task continues, and the notice of its end is still owed to the
// scope.
func (sc *scope) foreground(ctx context.Context, by bgagent.Caller, args bgagent.DelegateTaskArgs) (*mcp.CallToolResult, error) {
	t, answer, err := sc.begin(ctx, by, args)
	if t == nil {
		return answer, err
	}
	if _, err := sc.s.m.Wait(ctx, bgagent.Caller{Session: sc.name}, bgagent.WaitAll, t.ID); err != nil {
		return nil, err
	}
	return sc.result(ctx, t.ID)
}

// The method "begin" delegates a task in the background, or returns the task that the same tool
// call has already delegated. If no task was delegated, the method "begin" returns the tool's
// answer instead.
func (sc *scope) begin(ctx context.Context, by bgagent.Caller, args bgagent.DelegateTaskArgs) (*bgagent.Task, *mcp.CallToolResult, error) {
	if t, ok := sc.again(by, args); ok {
		return &t, nil, nil
	}
	args.RunInBackground, args.Background = nil, nil
	v, err := sc.s.cfg.Tools.DelegateTask(ctx, sc.s.m, by, args)
	if err != nil {
		return nil, nil, err
	}
	if v.IsError || v.Task == nil {
		return nil, sc.answer(bgagent.ToolResult{Text: v.Text, IsError: v.IsError, Value: v}), nil
	}
	sc.carry(v.Notice)
	sc.remember(by, args, *v.Task)
	return v.Task, nil, nil
}

// result returns the answer that background_output gives for a task that has ended.
func (sc *scope) result(ctx context.Context, id string) (*mcp.CallToolResult, error) {
	r, err := sc.s.cfg.Tools.BackgroundOutput(ctx, sc.s.m, bgagent.Caller{Session: sc.name}, bgagent.BackgroundOutputArgs{TaskID: id})
	if err != nil {
		return nil, err
	}
	return sc.answer(bgagent.ToolResult{Text: r.Text, IsError: r.IsError, Value: r}), nil
}

const (
	progressPause = 500 * time.Millisecond // minimum time between two notifications

	// progressBeat is the time without an event after which a general notification is sent. Clients abandon calls
	// that are silent for too long.
	progressBeat = 10 * time.Second
)

// tellProgress sends progress notifications to the caller until the returned function "stop" is
// called. That function returns when no notification is in flight.
func (sc *scope) tellProgress(ctx context.Context, to *mcp.ServerSession, token any) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, sub := sc.s.m.Subscribe(0)
		defer sub.Close()
		for n := 1; ; n++ {
			text, err := sc.nextProgress(ctx, sub)
			if err != nil {
				return
			}
			p := &mcp.ProgressNotificationParams{ProgressToken: token, Progress: float64(n), Message: text}
			if to.NotifyProgress(ctx, p) != nil {
				return
			}
			pause := time.NewTimer(progressPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// nextProgress waits for an event of one of the scope's tasks and describes the task. After
// progressBeat without an event, it returns a general description. It returns an error when
// ctx or the subscription ends.
func (sc *scope) nextProgress(ctx context.Context, sub *bgagent.Subscription) (string, error) {
	beat, cancel := context.WithTimeout(ctx, progressBeat)
	defer cancel()
	for {
		e, err := sub.Next(beat)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			live, _ := sc.s.m.Outstanding(sc.name)
			return fmt.Sprintf("waiting; live tasks: %d", live), nil
		case err != nil:
			return "", err
		}
		kinds := []bgagent.EventKind{bgagent.EventStarted, bgagent.EventResumed, bgagent.EventProgress, bgagent.EventPhase, bgagent.EventEnded}
		if slices.Contains(kinds, e.Kind) && sc.has(e.Task) {
			return describe(e.Task), nil
		}
	}
}

// describe returns one line about a task's state and progress.
func describe(t bgagent.Task) string {
	text := cleantext.Line(t.Agent+" ("+t.Description+"):") + " "
	switch {
	case t.Status.Terminal():
		return text + t.Status.String()
	case t.Progress.LastTool != "":
		return text + fmt.Sprintf("%s; tool calls: %d, last %s", t.Phase, t.Progress.ToolCalls, cleantext.Line(t.Progress.LastTool))
	case t.Phase != bgagent.PhaseNone:
		return text + t.Phase.String()
	}
	return text + t.Status.String()
}
