package command

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// claudeTodo is one entry of a todo list, by the number that claude gives it.
type claudeTodo struct {
	id number
	bgagent.Todo
}

// claudeTodos follows the todo list of a session. Newer versions tell it in single
// changes, which count once their result has come. Subagents share the list.
type claudeTodos struct {
	list  []claudeTodo
	calls map[string]claudeBlock // changes without a result
}

// maxTodos bounds the entries of the list, and the changes without a result.
const maxTodos = 1000

// claudeTodoInput is the input of the tools that change a list by single entries.
type claudeTodoInput struct {
	ID      number `json:"taskId"`
	Subject string
	Status  string
}

// claudeTodoResult is what the result of such a tool says beside its text.
type claudeTodoResult struct {
	Success *bool
	Task    struct{ ID number }
	Tasks   []struct {
		ID              number
		Subject, Status string
	}
}

// number is a number that stands for an entry, as a text or as a number.
type number string

// UnmarshalJSON implements [json.Unmarshaler]. What cannot be read is left out.
func (n *number) UnmarshalJSON(data []byte) error {
	var text string
	var value json.Number
	switch {
	case json.Unmarshal(data, &text) == nil:
		*n = number(short(text))
	case json.Unmarshal(data, &value) == nil:
		*n = number(short(value.String()))
	}
	return nil
}

// called takes a call of a tool.
func (l *claudeTodos) called(b claudeBlock) {
	switch b.Name {
	case "TaskCreate", "TaskUpdate", "TaskList":
		if len(l.calls) < maxTodos {
			b.Input = slices.Clone(b.Input) // the line is the reader's
			l.calls[b.ID] = b
		}
	}
}

// createdAs finds the number of a new entry in the text of a result. The results
// of subagents have no other place for it.
var createdAs = regexp.MustCompile(`^Task #([^\s:]{1,40}) created`)

// answered takes the result of a call, and reports whether it has changed the
// list.
func (l *claudeTodos) answered(b claudeBlock, more json.RawMessage) bool {
	call, ours := l.calls[b.ToolUseID]
	if !ours {
		return false
	}
	delete(l.calls, b.ToolUseID)
	var in claudeTodoInput
	var out claudeTodoResult
	_ = jsonlines.Decode(call.Input, &in)
	_ = len(more) > 0 && jsonlines.Decode(more, &out)
	if bool(b.IsError) || out.Success != nil && !*out.Success {
		return false
	}
	switch call.Name {
	case "TaskCreate":
		id := out.Task.ID
		if found := createdAs.FindStringSubmatch(b.resultText()); id == "" && found != nil {
			id = number(found[1])
		}
		return id != "" && l.set(id, in.Subject, "pending")
	case "TaskUpdate":
		return in.ID != "" && l.set(in.ID, in.Subject, in.Status)
	}
	if out.Tasks == nil {
		return false
	}
	l.list = l.list[:0]
	for _, t := range out.Tasks {
		if t.ID != "" {
			l.set(t.ID, t.Subject, t.Status)
		}
	}
	return true
}

// set changes an entry, or adds it. What is empty stays as it is. It reports
// whether there is such an entry, or was.
func (l *claudeTodos) set(id number, subject, status string) bool {
	i := slices.IndexFunc(l.list, func(t claudeTodo) bool { return t.id == id })
	switch {
	case status == "deleted" && i >= 0:
		l.list = slices.Delete(l.list, i, i+1)
		return true
	case status == "deleted" || i < 0 && len(l.list) >= maxTodos:
		return false
	case i < 0:
		i = len(l.list)
		l.list = append(l.list, claudeTodo{id: id, Todo: bgagent.Todo{Text: "#" + string(id)}})
	}
	if subject != "" {
		l.list[i].Text = subject
	}
	if status != "" {
		l.list[i].State = todoState(status)
	}
	return true
}

// todos returns the list for the manager.
func (l *claudeTodos) todos() []bgagent.Todo {
	list := make([]bgagent.Todo, len(l.list))
	for i, t := range l.list {
		list[i] = t.Todo
	}
	return list
}
