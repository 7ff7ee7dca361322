//go:build unix

package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestTodosAreReadHoweverTheProgramChangesThem(t *testing.T) {
	recorded, err := os.ReadFile(filepath.Join("testdata", "claude_todos.jsonl"))
	require.NoError(t, err)
	const create = `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"c","name":"TaskCreate","input":{"subject":"a"}}]}}` + "\n"
	const update = `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"u","name":"TaskUpdate","input":{"taskId":"3","status":"in_progress"}}]}}` + "\n"
	const list = `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"l","name":"TaskList","input":{}}]}}` + "\n"
	result := func(id, rest string) string {
		return `{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"` + id + `"` + rest + "}\n"
	}
	for _, tc := range []struct{ program, name, output, want string }{
		{"claude", "changes, also of a subagent", string(recorded), "look completed, write it down in progress, sub pending"},
		{"claude", "the whole list", `{"type":"assistant","message":{"content":[{"type":"tool_use","name":"TodoWrite","input":{"todos":[{"content":"a","status":"in_progress"}]}}]}}`, "a in progress"},
		{"claude", "no result", create + update, ""},
		{"claude", "the number in the text alone", create + result("c", `,"content":[{"type":"text","text":"Task #9 created successfully: a"}]}]}`), "a pending"},
		{"claude", "a number that is none", create + result("c", `,"content":7}]},"tool_use_result":{"task":{"id":9}}`), "a pending"},
		{"claude", "a result of another type", create + result("c", `}]},"tool_use_result":"Error: no"`), ""},
		{"claude", "a change that failed", create + result("c", `,"is_error":true}]},"tool_use_result":{"task":{"id":"1"}}`), ""},
		{"claude", "an entry of another time", update + result("u", `}]},"tool_use_result":{"success":true}`), "#3 in progress"},
		{"claude", "what it lists itself", create + result("c", `}]},"tool_use_result":{"task":{"id":"1"}}`) + list +
			result("l", `}]},"tool_use_result":{"tasks":[{"id":"3","subject":"c","status":"completed"},7,{"id":4,"subject":"d"}]}`), "c completed, d pending"},
		{"claude", "a list that is none", create + result("c", `}]},"tool_use_result":{"task":{"id":"1"}}`) + list + result("l", `}]},"tool_use_result":{"tasks":7}`), "a pending"},
		{"gemini", "the whole list", `{"type":"tool_use","tool_name":"write_todos","tool_id":"1","parameters":{"todos":[{"description":"a","status":"in_progress"},{"description":"b","status":"pending"}]}}`, "a in progress, b pending"},
		{"codex", "the whole list", `{"type":"item.updated","item":{"id":"i","type":"todo_list","items":[{"text":"a","completed":true},{"text":"b"}]}}`, "a completed, b pending"},
		{"lines", "states as others write them", `{"type":"todos","todos":[{"text":"a","state":"in_progress"},{"text":"b","state":"In-Progress"},{"text":"c","state":"Completed"}]}`, "a in progress, b in progress, c completed"},
	} {
		t.Run(tc.program+": "+tc.name, func(t *testing.T) {
			_, heard := decodeAll(decoders[tc.program](), 1, bgagent.Usage{}, []byte(tc.output))
			require.Equal(t, tc.want, inWords(heard.todos))
		})
	}
}

func inWords(todos []bgagent.Todo) string {
	var list []string
	for _, t := range todos {
		list = append(list, t.Text+" "+t.State.String())
	}
	return strings.Join(list, ", ")
}

func TestTodosOfASessionGoOnInItsNextTurn(t *testing.T) {
	// The fake program prints its prompt and replaces each tilde with a quotation
	// mark.
	c := clientOf(t, Agent{Program: Claude(), Command: []string{"sh", "-c", `tr '~' '"'`, "claude"}})
	m, err := bgagent.New(c, bgagent.Config{})
	require.NoError(t, err)
	prompt := func(name, input, told string) string {
		const form = `{"type":"system","subtype":"init","session_id":"s"}
{"type":"assistant","message":{"content":[{"type":"tool_use","id":"c","name":"NAME","input":{INPUT}}]}}
{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"c"}]},"tool_use_result":{TOLD}}
{"type":"result","subtype":"success","result":"done"}`
		return strings.NewReplacer(`"`, "~", "NAME", name, "INPUT", input, "TOLD", told).Replace(form)
	}
	caller := bgagent.Caller{Session: "root"}
	task, err := m.Run(t.Context(), caller, bgagent.LaunchInput{Agent: "a", Prompt: prompt("TaskCreate", "~subject~:~look~", "~task~:{~id~:~1~}")})
	require.NoError(t, err)
	require.Equal(t, "done", task.Result, task.Reason)
	require.Equal(t, "look pending", inWords(task.Progress.Todos))
	task, err = m.RunResume(t.Context(), caller, task.ID, bgagent.ResumeInput{Prompt: prompt("TaskUpdate", "~taskId~:~1~,~status~:~completed~", "~success~:true")})
	require.NoError(t, err)
	require.Equal(t, "look completed", inWords(task.Progress.Todos))
	require.Zero(t, task.OpenTodos)
}
