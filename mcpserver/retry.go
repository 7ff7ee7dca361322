package mcpserver

import (
	"maps"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
)

// metaToolUse is the key for the id of the tool use that a call belongs to. Claude
// Code sends the same id when it repeats the call. Request ids and progress tokens
// do not serve: both are new with every try.
const metaToolUse = "claudecode/toolUseId"

// maxToolCallID is the maximum length of an id, in bytes.
const maxToolCallID = 256

// caller returns the caller, with the id of the tool call if the client names it.
func (sc *scope) caller(req *mcp.CallToolRequest) bgagent.Caller {
	by := bgagent.Caller{Session: sc.name}
	if id, ok := req.Params.GetMeta()[metaToolUse].(string); ok && len(id) <= maxToolCallID {
		by.ToolCallID = id
	}
	return by
}

// awaited is a foreground delegation whose answer the caller may not have received.
// The manager sees a background launch, whose id counts only while the task is
// live. Here the id counts until the end has been reported.
type awaited struct {
	args    bgagent.DelegateTaskArgs // without the fields that ask for the foreground
	task    string
	attempt int
}

// again returns the task of an earlier try of the same tool call. A try matches if
// it has the same id and arguments and the task is live or its end has not been
// reported.
func (sc *scope) again(by bgagent.Caller, args bgagent.DelegateTaskArgs) (bgagent.Task, bool) {
	args.RunInBackground, args.Background = nil, nil
	sc.mu.Lock()
	defer sc.mu.Unlock()
	a, ok := sc.awaited[by.ToolCallID]
	if !ok || a.args != args {
		return bgagent.Task{}, false
	}
	t, owed := sc.owes(a)
	return t, owed
}

// owes reports whether the end of the delegated task has not been reported.
func (sc *scope) owes(a awaited) (bgagent.Task, bool) {
	t, err := sc.s.m.Get(a.task)
	return t, err == nil && t.Attempt == a.attempt && (!t.Status.Terminal() || t.Notice == bgagent.NoticeOwed)
}

// remember records the task of a tool call and forgets those whose end has been
// reported.
func (sc *scope) remember(by bgagent.Caller, args bgagent.DelegateTaskArgs, t bgagent.Task) {
	if by.ToolCallID == "" {
		return
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	maps.DeleteFunc(sc.awaited, func(_ string, a awaited) bool {
		_, owed := sc.owes(a)
		return !owed
	})
	if sc.awaited == nil {
		sc.awaited = map[string]awaited{}
	}
	sc.awaited[by.ToolCallID] = awaited{args, t.ID, t.Attempt}
}
