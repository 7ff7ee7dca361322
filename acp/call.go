package acp

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// toolCall is a tool call of a turn. While it is in flight, its paths and input are
// kept, because a question about it need not repeat them.
type toolCall struct {
	tool    bgagent.MessageTool
	kind    string
	title   string
	paths   []string // sorted
	input   any
	kept    int  // bytes of paths and input
	unclear bool // some of its paths or input are not kept
}

// keep stores the news in the call, which may grow by at most room bytes. It returns by
// how many bytes the call has grown.
func (call *toolCall) keep(n callNews, room int) (grown int) {
	before := call.kept
	for _, p := range n.paths {
		i, there := slices.BinarySearch(call.paths, p)
		switch {
		case there:
		case len(call.paths) == maxPaths || call.kept-before+len(p) > room:
			call.unclear = true
		default:
			call.paths = slices.Insert(call.paths, i, p)
			call.kept += len(p)
		}
	}
	if n.input == nil {
		return call.kept - before
	}
	now := weigh(n.input)
	if more := now - weigh(call.input); call.kept-before+more <= room {
		call.input = n.input
		call.kept += more
	} else { // the paths are kept, but the input may hold a command
		call.unclear = true
	}
	return call.kept - before
}

// forget drops what only matters while the call is in flight, and returns the number
// of bytes freed.
func (call *toolCall) forget() (freed int) {
	freed = call.kept
	call.paths, call.input, call.kept = nil, nil, 0
	return freed
}

const (
	maxPaths = 1000    // of a tool call
	maxKept  = 8 << 20 // bytes of paths and inputs of a turn's tool calls
)

// weigh returns the approximate size of a decoded JSON value in bytes.
func weigh(v any) (n int) {
	switch v := v.(type) {
	case string:
		return 16 + len(v)
	case []any:
		for _, x := range v {
			n += weigh(x)
		}
	case map[string]any:
		for k, x := range v {
			n += 16 + len(k) + weigh(x)
		}
	}
	return n + 16
}

// callNews is what one message says about a tool call. Empty values mean that
// nothing has changed.
type callNews struct {
	id, title, kind string
	status          sdk.ToolCallStatus
	input           any
	paths           []string // files that it concerns
	begins          bool     // the agent announces it as a new call
	unclear         bool     // a part of it could not be read
}

// pathsOf returns the files that a tool call concerns, from every field that may
// name one.
func pathsOf(locations []sdk.ToolCallLocation, content []sdk.ToolCallContent, input any) []string {
	var paths []string
	for _, l := range locations {
		paths = append(paths, l.Path)
	}
	for _, c := range content {
		if c.Diff != nil {
			paths = append(paths, c.Diff.Path)
		}
	}
	fields, _ := input.(map[string]any)
	for _, name := range pathFields {
		if p, ok := fields[name].(string); ok && p != "" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// pathFields are the input fields that name files in the tools of agents.
var pathFields = []string{
	"path", "filePath", "file_path", "filepath", "absolute_path", "abs_path", "dir_path", "notebook_path",
	"source", "destination", "source_path", "destination_path", "old_path", "new_path",
}

// called applies news about a tool call. The first news of a call may also be an update
// or a question.
func (s *session) called(t *turn, n callNews) []report {
	if n.id == "" {
		return nil
	}
	id := short(n.id)
	call, known := t.calls[id]
	if again := call != nil && n.begins && !call.tool.State.InFlight(); call == nil || again {
		own := id
		if again { // some model servers give all calls one id
			t.repeated++
			own = fmt.Sprintf("%s (%d)", id, t.repeated+1)
		} else if !t.hasRoom() {
			return []report{func(r *bgagent.Reporter) { r.Activity() }}
		}
		call = &toolCall{tool: bgagent.MessageTool{ID: own, Name: nameOf(n.title, n.kind)}}
		t.calls[id] = call
	}
	call.title, call.kind = cmp.Or(cut(n.title, maxTitle), call.title), cmp.Or(cut(n.kind, maxName), call.kind)
	if !n.begins && !call.tool.State.InFlight() && known { // an ended call stays ended, and its end is reported once
		return []report{func(r *bgagent.Reporter) { r.Activity() }}
	}
	if n.status != "" {
		call.tool.State = stateOf(n.status)
	}
	call.unclear = call.unclear || n.unclear
	if t.kept += call.keep(n, maxKept-t.kept); !call.tool.State.InFlight() {
		t.kept -= call.forget()
	}
	tool := call.tool
	s.conv.used(tool)
	out := []report{func(r *bgagent.Reporter) { r.Tool(tool) }}
	if list := todosIn(n.input); list != nil {
		out = append(out, func(r *bgagent.Reporter) { r.Todos(list) })
	}
	return out
}

// hasRoom reports whether another tool call can be kept. If there are too many, it
// first forgets those that have ended.
func (t *turn) hasRoom() bool {
	if len(t.calls) == maxCalls {
		maps.DeleteFunc(t.calls, func(_ string, call *toolCall) bool { return !call.tool.State.InFlight() })
	}
	return len(t.calls) < maxCalls
}

const (
	maxCalls = 10_000 // of a turn
	maxName  = 200    // bytes of the id of a call, and of the kind of its tool
	maxTitle = 2000   // bytes of the title of a call
)

// short returns the id, or a short substitute if it is long.
func short(id string) string {
	if len(id) <= maxName {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return cut(id, maxName/2) + "…" + hex.EncodeToString(sum[:16])
}

// cut returns at most n bytes of s, without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:n]), "")
}

// settle ends the tool calls whose end the agent has not reported.
func (c *Client) settle(t *turn) {
	stopped := t.stopped()
	var out []report
	c.mu.Lock()
	for _, call := range t.calls {
		if !call.tool.State.InFlight() {
			continue
		}
		if call.tool.State = bgagent.ToolDone; stopped {
			call.tool.State = bgagent.ToolFailed
		}
		tool := call.tool
		t.s.conv.used(tool)
		out = append(out, func(r *bgagent.Reporter) { r.Tool(tool) })
	}
	c.mu.Unlock()
	t.report(out...)
}

// nameOf returns the name of a tool. The protocol has only a title. With some
// agents it is the name; with others it is a sentence or a command, and the kind of
// the tool is used instead.
func nameOf(title, kind string) string {
	if title != "" && len(title) <= 64 && !strings.ContainsAny(title, " \t\n/\\`'\"") {
		return title
	}
	if kind != "" {
		return cut(kind, maxName)
	}
	return "tool"
}

func stateOf(s sdk.ToolCallStatus) bgagent.ToolState {
	switch s {
	case sdk.ToolCallStatusInProgress:
		return bgagent.ToolRunning
	case sdk.ToolCallStatusCompleted:
		return bgagent.ToolDone
	case sdk.ToolCallStatusFailed:
		return bgagent.ToolFailed
	}
	return bgagent.ToolPending
}
