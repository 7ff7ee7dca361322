package mcpserver

import (
	"maps"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bgagent/bgagent"
)

// metaToolUse is the key in _meta for the id of the tool use to which a call belongs. Claude Code sends the
// same id when it repeats the call. Request ids and progress tokens cannot identify a repeated call, because
// both are new each time.
const metaToolUse = "claudecode/toolUseId"

// maxToolCallID is the maximum length of a tool use id, in bytes. Longer ids are ignored.
const maxToolCallID = 256

// caller returns the caller of a tool call, with the id of the tool use if the client sent
// one.
func (sc *scope) caller(req *mcp.CallToolRequest) bgagent.Caller {
	by := bgagent.Caller{Session: sc.name}
	if id, ok := req.Params.GetMeta()[metaToolUse].(string); ok && len(id) <= maxToolCallID {
		by.ToolCallID = id
	}
	return by
}

// awaited is a foreground delegation whose answer the caller might not have received. To the
// manager, the delegation is a background launch, so the manager recognizes the id of its tool call
// only while the task is live. With this record, the scope recognizes the id until the end of the
// task has been reported.
type awaited struct {
	args    bgagent.DelegateTaskArgs // without the fields that choose between foreground and background
	task    string
	attempt int
}

// If this call repeats an earlier call, the method "again" returns the earlier call's task. Both calls must
// have the same tool use id and the same arguments, and the end of the task must not have been reported yet.
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

// The method "owes" returns the task of the delegation. It returns false if the end of the task has
// already been reported, or if the task was evicted or continued.
func (sc *scope) owes(a awaited) (bgagent.Task, bool) {
	t, err := sc.s.m.Get(a.task)
	return t, err == nil && t.Attempt == a.attempt && (!t.Status.Terminal() || t.Notice == bgagent.NoticeOwed)
}

// settle forgets the recorded delegations that are over. The scope's lock must be held.
func (sc *scope) settle() {
	maps.DeleteFunc(sc.awaited, func(_ string, a awaited) bool {
		_, owed := sc.owes(a)
		return !owed
	})
}

// remember stores the task of a tool call. It forgets recorded tasks whose completion has been
// reported.
func (sc *scope) remember(by bgagent.Caller, args bgagent.DelegateTaskArgs, t bgagent.Task) {
	if by.ToolCallID == "" {
		return
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.settle()
	if sc.awaited == nil {
		sc.awaited = map[string]awaited{}
	}
	sc.awaited[by.ToolCallID] = awaited{args, t.ID, t.Attempt}
}
