package command

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// claudeTodo is one entry of a todo list, with the number that claude gives to the entry.
type claudeTodo struct {
	id number
	bgagent.Todo
}

// claudeTodos is the todo list of a session. Newer versions of claude report only single
// changes to the list. A change is applied when its result arrives. Subagents share the
// list.
type claudeTodos struct {
	list  []claudeTodo
	calls map[string]claudeBlock // maps the id of a call to its change, until the call's result arrives
}

// maxTodos is the maximum number of entries in the list. It is also the maximum number of
// changes without a result.
const maxTodos = 1000

// claudeTodoInput is the input of the tools that change one entry of a list.
type claudeTodoInput struct {
	ID      number `json:"taskId"`
	Subject string
	Status  string
}

// claudeTodoResult has the fields, other than the text, in the result of a tool that changes or
// lists todos.
type claudeTodoResult struct {
	Success *bool
	Task    struct{ ID number }
	Tasks   []struct {
		ID              number
		Subject, Status string
	}
}

// number identifies an entry of a todo list. In JSON it is a string or a number.
type number string

// UnmarshalJSON implements [json.Unmarshaler]. It ignores any other value.
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

// The method "called" stores a tool call if its tool changes or lists todos.
func (l *claudeTodos) called(b claudeBlock) {
	switch b.Name {
	case "TaskCreate", "TaskUpdate", "TaskList":
		if len(l.calls) < maxTodos {
			b.Input = slices.Clone(b.Input) // the reader reuses the memory of the line
			l.calls[b.ID] = b
		}
	}
}

// createdAs matches the number of a new entry in the text of a result. In a subagent, results
// contain the number only in this text.
var createdAs = regexp.MustCompile(`^Task #([^\s:]{1,40}) created`)

// The method "answered" handles b, the result of a call: it applies the change that the call
// requested. It reports whether the list changed.
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

// The method "set" changes, adds or deletes an entry. An empty argument leaves its field unchanged.
// The result is false if there is no entry to delete, or no room for a new entry.
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

// todos returns the list in the form that is reported to the manager.
func (l *claudeTodos) todos() []bgagent.Todo {
	list := make([]bgagent.Todo, len(l.list))
	for i, t := range l.list {
		list[i] = t.Todo
	}
	return list
}

// savedTodo is a todo list entry in a saved state.
type savedTodo struct {
	ID string `json:"id"`
	bgagent.Todo
}

// The method "saved" returns the entries of the list for a saved state.
func (l *claudeTodos) saved() (list []savedTodo) {
	for _, t := range l.list {
		list = append(list, savedTodo{string(t.id), t.Todo})
	}
	return list
}

// restoredTodos returns a list with the entries from a saved state.
func restoredTodos(list []savedTodo) *claudeTodos {
	l := &claudeTodos{}
	for _, t := range list {
		l.list = append(l.list, claudeTodo{number(t.ID), t.Todo})
	}
	return l
}
