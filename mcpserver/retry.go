package mcpserver

import (
	"maps"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
)

// metaToolUse is where Claude Code names the tool use that a call is made for. It
// sends the same id when it makes the call again. The ids of requests and the
// tokens for progress are no such ids: both are new with every try.
const metaToolUse = "claudecode/toolUseId"

// maxToolCallID is what an id may have at most, in bytes.
const maxToolCallID = 256

// caller returns who calls, with the id of the tool call where the client names it.
func (sc *scope) caller(req *mcp.CallToolRequest) bgagent.Caller {
	by := bgagent.Caller{Session: sc.name}
	if id, ok := req.Params.GetMeta()[metaToolUse].(string); ok && len(id) <= maxToolCallID {
		by.ToolCallID = id
	}
	return by
}

// awaited is a delegation in the foreground whose answer the caller may not have
// got. For the manager it is a launch in the background, whose id counts only
// while the task is live; here it counts until the end has been told.
type awaited struct {
	args    bgagent.DelegateTaskArgs // without the ways to ask for the foreground
	task    string
	attempt int
}

// again returns the task of an earlier try of the same tool call: the same id with
// the same arguments, while the task is live or its end has not been told.
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

// owes reports whether the end of what was delegated has not been told.
func (sc *scope) owes(a awaited) (bgagent.Task, bool) {
	t, err := sc.s.m.Get(a.task)
	return t, err == nil && t.Attempt == a.attempt && (!t.Status.Terminal() || t.Notice == bgagent.NoticeOwed)
}

// remember keeps what a tool call has delegated, and forgets what has been told.
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
