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
	"github.com/bgagent/bgagent/internal/asktext"
	"github.com/bgagent/bgagent/internal/calldigest"
	sdk "github.com/coder/acp-go-sdk"
)

// toolCall is a tool call of a turn. Its paths, its input and its description are kept while
// the call is in flight, because a question about the call does not always repeat them.
type toolCall struct {
	tool    bgagent.MessageTool
	kind    string
	title   string
	paths   []string // sorted
	input   any
	kept    int  // number of bytes in the fields "paths" and "input"
	unclear bool // whether some paths or inputs were dropped or unreadable
	result  callResult
	described
}

// described holds the human-readable parts of an agent's messages about a call.
type described struct {
	whole   string // title, even if it is longer than toolCall.title
	content []sdk.ToolCallContent
	size    int  // number of bytes in the fields "whole" and "content"
	dropped bool // whether a title or a content was too large to keep
}

// The method "describe" stores a title and content. An empty argument leaves the stored value
// unchanged. d may grow by at most room bytes; the result is the number of bytes by which it grew.
func (d *described) describe(title string, content []sdk.ToolCallContent, room int) (grown int) {
	next := *d
	if title != "" {
		next.whole = title
	}
	if len(content) > 0 {
		next.content = content
	}
	next.size = len(next.whole) + weighContent(next.content)
	if grown = next.size - d.size; next.size > maxDescribed || grown > room {
		d.dropped = true
		return 0
	}
	*d = next
	return grown
}

// weighContent returns the approximate size of content in bytes.
func weighContent(content []sdk.ToolCallContent) (n int) {
	for _, c := range content {
		n += 16
		switch {
		case c.Diff != nil:
			n += len(c.Diff.Path) + len(c.Diff.NewText) + len(value(c.Diff.OldText))
		case c.Content != nil && c.Content.Content.Text != nil:
			n += len(c.Content.Content.Text.Text)
		case c.Content != nil:
			n += len(asktext.Value(c.Content.Content))
		}
	}
	return n
}

// The method "keep" stores the paths and the input from n. The call may grow by at most room bytes;
// the result is the number of bytes by which it grew.
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
	} else { // the dropped input can contain a command, which is then unknown
		call.unclear = true
	}
	return call.kept - before
}

// The method "forget" drops the paths, the input and the description, which are needed only while
// the call is in flight. freed is the number of bytes of the paths and the input; freedDescribed is
// the number of bytes of the description.
func (call *toolCall) forget() (freed, freedDescribed int) {
	freed, freedDescribed = call.kept, call.size
	call.paths, call.input, call.kept = nil, nil, 0
	call.described = described{}
	return freed, freedDescribed
}

const (
	maxPaths = 1000    // maximum number of paths kept per tool call
	maxKept  = 8 << 20 // maximum number of bytes of paths and inputs kept for all of a turn's tool calls together

	maxDescribed    = 64 << 10 // maximum number of bytes of a description; a question could not show more
	maxAllDescribed = 8 << 20  // maximum number of bytes of descriptions kept for all of a turn's tool calls together
)

// The function "weigh" returns the approximate size of a decoded JSON value in bytes.
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

// callNews is the information in one message about a tool call. An empty field means that the value
// did not change.
type callNews struct {
	id, title, kind string
	status          sdk.ToolCallStatus
	input           any
	paths           []string // files that the call concerns
	begins          bool     // whether the agent announces a new call
	unclear         bool     // whether part of the message could not be read
	output          callOutput
}

// pathsOf returns the paths of the files that a tool call concerns. It reads every field that can
// name a file.
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

// pathFields are the fields that hold file names in the input of agents' tools.
var pathFields = []string{
	"path", "filePath", "file_path", "filepath", "absolute_path", "abs_path", "dir_path", "notebook_path",
	"source", "destination", "source_path", "destination_path", "old_path", "new_path",
}

// The method "called" applies a message about a tool call, and returns the progress to report. The
// first message about a call is not always the announcement of the call: it can also be an update
// or a question.
func (s *session) called(t *turn, n callNews) []report {
	if n.id == "" {
		return nil
	}
	id := short(n.id)
	call, known := t.calls[id]
	if again := call != nil && n.begins && !call.tool.State.InFlight(); call == nil || again {
		own := id
		if again { // some model servers give all calls the same id
			t.repeated++
			own = fmt.Sprintf("%s (%d)", id, t.repeated+1)
		} else if !t.hasRoom() {
			return []report{func(r *bgagent.Reporter) { r.Activity() }}
		}
		call = &toolCall{tool: bgagent.MessageTool{ID: own, Name: nameOf(n.title, n.kind)}}
		t.calls[id] = call
	}
	call.title, call.kind = cmp.Or(cut(n.title, maxTitle), call.title), cmp.Or(cut(n.kind, maxName), call.kind)
	if !n.begins && !call.tool.State.InFlight() && known { // an ended call stays ended, and its end is reported only once
		return []report{func(r *bgagent.Reporter) { r.Activity() }}
	}
	if n.status != "" {
		call.tool.State = stateOf(n.status)
	}
	call.unclear = call.unclear || n.unclear
	if d := calldigest.InputValue(n.input); d != 0 {
		call.tool.Input = d
	}
	call.result.lost = call.result.lost || n.unclear
	printed := n.output
	if call.tool.State.InFlight() {
		printed.content = nil // while the call is in flight, its content describes the call and is not its result
	}
	if call.result.add(printed); !call.tool.State.InFlight() {
		call.tool.Result = call.result.of()
	}
	t.kept += call.keep(n, maxKept-t.kept)
	t.described += call.describe(n.title, n.output.content, maxAllDescribed-t.described)
	if !call.tool.State.InFlight() {
		kept, described := call.forget()
		t.kept, t.described = t.kept-kept, t.described-described
	}
	tool := call.tool
	s.conv.used(tool)
	out := []report{func(r *bgagent.Reporter) { r.Tool(tool) }}
	if list := todosIn(n.input); list != nil {
		out = append(out, func(r *bgagent.Reporter) { r.Todos(list) })
	}
	return out
}

// hasRoom reports whether the turn can keep another tool call. If the limit is reached,
// hasRoom first forgets the calls that have ended.
func (t *turn) hasRoom() bool {
	if len(t.calls) == maxCalls {
		maps.DeleteFunc(t.calls, func(_ string, call *toolCall) bool { return !call.tool.State.InFlight() })
	}
	return len(t.calls) < maxCalls
}

const (
	maxCalls = 10_000 // maximum number of tool calls kept per turn
	maxName  = 200    // maximum number of bytes kept from a call's id, and from the kind of its tool
	maxTitle = 2000   // maximum number of bytes kept from a call's title
)

// The function "short" returns the id, or a short substitute for a long id.
func short(id string) string {
	if len(id) <= maxName {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return cut(id, maxName/2) + "…" + hex.EncodeToString(sum[:16])
}

// The function "cut" returns at most n bytes of s, without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:n]), "")
}

// The method "settle" marks as ended all tool calls that the agent has not reported as ended.
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

// nameOf returns the name of a tool. The protocol has no names, only titles. If the title is a
// single short word, nameOf returns it. If the title is a sentence or a command, nameOf returns the
// tool's kind instead.
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
