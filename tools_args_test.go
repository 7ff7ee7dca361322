package bgagent_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// tool returns the tool with the given usual name.
func tool(t testing.TB, m *bgagent.BackgroundManager, name string) bgagent.ToolDef {
	t.Helper()
	for _, d := range bgagent.Tools(m, bgagent.ToolOptions{}) {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("there is no tool %s", name)
	return bgagent.ToolDef{}
}

// callTool calls a tool as the root session, as a model would.
func callTool(t testing.TB, m *bgagent.BackgroundManager, name, args string) bgagent.ToolResult {
	t.Helper()
	ctx := bgagent.WithCaller(context.Background(), root)
	r, err := tool(t, m, name).Call(ctx, json.RawMessage(args))
	require.NoError(t, err)
	require.LessOrEqual(t, len(r.Text), 32<<10)
	require.True(t, utf8.ValidString(r.Text))
	return r
}

func TestSchemasNameExactlyTheArguments(t *testing.T) {
	m := manage(t, working(0), bgagent.Config{})
	args := map[string]any{
		bgagent.ToolDelegateTask: bgagent.DelegateTaskArgs{}, bgagent.ToolBackgroundOutput: bgagent.BackgroundOutputArgs{}, bgagent.ToolBackgroundCancel: bgagent.BackgroundCancelArgs{},
	}
	defs := bgagent.Tools(m, bgagent.ToolOptions{})
	require.Len(t, defs, 3)
	for _, d := range defs {
		var s struct {
			Type                 string
			Properties           map[string]struct{ Type, Description string }
			Required             []string
			AdditionalProperties *bool
		}
		dec := json.NewDecoder(strings.NewReader(string(d.Schema)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&s); err != nil { // "minimum" is the only keyword without a field in s
			require.ErrorContains(t, err, `"minimum"`)
			require.NoError(t, json.Unmarshal(d.Schema, &s))
		}
		require.Equal(t, "object", s.Type)
		require.False(t, *s.AdditionalProperties)
		kinds := map[string]string{}
		a := reflect.TypeOf(args[d.Name])
		for i := range a.NumField() {
			name, _, _ := strings.Cut(a.Field(i).Tag.Get("json"), ",")
			typ := a.Field(i).Type
			if typ.Kind() == reflect.Pointer {
				typ = typ.Elem()
			}
			kinds[name] = map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer"}[typ.Kind()]
		}
		got := map[string]string{}
		for name, p := range s.Properties {
			got[name] = p.Type
			require.NotEmpty(t, p.Description, name)
		}
		require.Equal(t, kinds, got, d.Name)
		require.Subset(t, keysOf(got), s.Required)
		require.NotEmpty(t, d.Description)
	}
}

func keysOf[V any](m map[string]V) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

func TestWrongArgumentsNameTheFieldAndWhatIsRight(t *testing.T) {
	m := manage(t, working(time.Hour), bgagent.Config{})
	long := strings.Repeat("x", 1000)
	var all strings.Builder
	for _, c := range []struct{ tool, args, want string }{
		{"delegate_task", `[]`, `one JSON object, such as {"prompt": "…"}`},
		{"delegate_task", `"x"`, "one JSON object"},
		{"delegate_task", `{"prompt":"p"`, "break off"},
		{"delegate_task", `{"prompt":"p","subagent_type":"a"} {}`, "Something follows"},
		{"delegate_task", `{"prompt":"p","subagent_type":"a"}]`, "Something follows"},
		{"delegate_task", `{"prompt" "p"}`, "not valid JSON"},
		{"delegate_task", ``, "prompt is missing"},
		{"delegate_task", `null`, "prompt is missing"},
		{"delegate_task", `{}`, "prompt is missing"},
		{"delegate_task", `{"prompt":null}`, "prompt is missing"},
		{"delegate_task", `{"prompt":" \n"}`, "prompt is missing"},
		{"delegate_task", `{"prompt":7}`, "argument prompt must be a string; it was the number 7"},
		{"delegate_task", `{"prompt":["x"]}`, "argument prompt must be a string; it was a list"},
		{"delegate_task", `{"prompt":"p"}`, "subagent_type is missing"},
		{"delegate_task", `{"prompt":"p","subagentType":"a"}`, "It is written subagent_type"},
		{"delegate_task", `{"prompt":"p","evil\n## x":"a"}`, "There is no argument `evil ## x`"},
		{"delegate_task", `{"prompt":"p","prompt":"q","subagent_type":"a"}`, "prompt is given twice"},
		{"delegate_task", `{"prompt":"p","subagent_type":"a","run_in_background":"yes"}`, `run_in_background must be true or false; it was the string "yes"`},
		{"delegate_task", `{"prompt":"p","subagent_type":"a","run_in_background":true,"background":false}`, "contradict each other"},
		{"delegate_task", `{"prompt":"p","subagent_type":"` + long + `"}`, "subagent_type is 1000 bytes long; it may have at most 512"},
		{"delegate_task", `{"prompt":"` + strings.Repeat("x", 1<<20+1) + `","subagent_type":"a"}`, "prompt is 1048577 bytes long"},
		{"delegate_task", `{"prompt":"` + strings.Repeat("x", 2<<20) + `"}`, "The arguments are"},
		{"delegate_task", "{\"prompt\":\"\xff\",\"subagent_type\":\"a\"}", "prompt is not valid UTF-8"},
		{"delegate_task", `{"prompt":"p","session_id":"s","task_id":"t"}`, "do not name the same task"},
		{"background_output", `{"block":1}`, "block must be true or false; it was the number 1"},
		{"background_output", `{"timeout":-1}`, "timeout is -1. It must be a number of milliseconds from 0 to 600000"},
		{"background_output", `{"timeout":"soon"}`, `timeout must be a whole number; it was the string "soon"`},
		{"background_output", `{"timeout":1.5}`, "timeout must be a whole number"},
		{"background_output", `{"timeout":{}}`, "it was an object"},
		{"background_output", `{"message_limit":-3}`, "message_limit is -3"},
		{"background_output", `{"task_id":"x","offset":-3}`, "offset is -3"},
		{"background_output", `{"task_id":"x","offset":3,"from_end":true}`, "contradict each other"},
		{"background_output", `{"full_session":true}`, "task_id is missing"},
		{"background_output", `{"task_id":"` + long + `"}`, "task_id is 1000 bytes long"},
		{"background_output", `{"task_id":"bg_0"}`, "None of your tasks has the id `bg_0`"},
		{"background_cancel", `{}`, "Nothing says what to cancel"},
		{"background_cancel", `{"all":false}`, "Nothing says what to cancel"},
		{"background_cancel", `{"task_id":"a","all":true}`, "task_id and all contradict"},
		{"background_cancel", `{"task_id":"a","taskId":"b"}`, "task_id and taskId mean the same and contradict"},
		{"background_cancel", `{"taskId":"b"}`, "None of your tasks has the id `b`"},
	} {
		r := callTool(t, m, c.tool, c.args)
		require.True(t, r.IsError, "%.80s", c.args)
		require.Contains(t, r.Text, c.want, "%.80s", c.args)
		fmt.Fprintf(&all, "%s %.100q\n%s\n\n", c.tool, c.args, r.Text)
	}
	const file = "testdata/refusals.txt"
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile(file, []byte(all.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), all.String())
	require.Empty(t, m.List(bgagent.Query{}), "a refused call must not launch a task")
}

func TestWhatCanMeanOneThingOnlyIsTaken(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		r := callTool(t, m, "delegate_task", ` {"prompt":"p","subagent_type":" a ","run_in_background":"False","background":null,"session_id":"","task_id":null,"model":null} `)
		require.False(t, r.IsError, r.Text)
		id := r.Value.(bgagent.DelegateTaskResult).Task.ID
		require.Contains(t, r.Text, "answer to p", "a foreground call returns the result")
		for _, args := range []string{
			`{"task_id":"` + id + `"}`, "{\"task_id\":\" `" + id + "`\\n\"}", `{"task_id":"` + id + `","block":"true","timeout":"60000"}`,
			`{"task_id":"` + id + `","timeout":6e4}`, `{"task_id":"` + id + `","timeout":60000.0}`, `{"task_id":"` + id + `","timeout":1e400}`,
			`{"task_id":"` + id + `","message_limit":99999999999999999999}`,
		} {
			r := callTool(t, m, "background_output", args)
			require.False(t, r.IsError, args)
			require.Contains(t, r.Text, "answer to p", args)
		}
		for _, args := range []string{``, `null`, `{}`, ` { } `} {
			require.Contains(t, callTool(t, m, "background_output", args).Text, id)
		}
	})
}

func TestACallWithoutACallerIsTheHostsMistake(t *testing.T) {
	m := manage(t, working(time.Hour), bgagent.Config{})
	for _, d := range bgagent.Tools(m, bgagent.ToolOptions{}) {
		for _, ctx := range []context.Context{t.Context(), bgagent.WithCaller(t.Context(), bgagent.Caller{}), bgagent.WithCaller(t.Context(), bgagent.Caller{ToolCallID: "call_1"})} {
			_, err := d.Call(ctx, json.RawMessage(`{"all":true}`))
			require.ErrorContains(t, err, "bgagent: "+d.Name)
		}
	}
}

func FuzzToolArguments(f *testing.F) {
	for _, s := range []string{`{}`, `null`, ``, `{"prompt":"p","subagent_type":"a"}`, `{"task_id":"bg_1","block":true,"timeout":0}`, `{"all":true}`, `[1]`, `{"a":`, "{\"prompt\":\"\xff\"}", `{"full_session":true,"task_id":"x","since_message_id":"y"}`, `{"run_in_background":false,"prompt":"p","subagent_type":"a"}`} {
		for i := range 3 {
			f.Add(i, s)
		}
	}
	m, err := bgagent.New(working(0), bgagent.Config{MaxTasksPerRoot: bgagent.Unlimited, RetainTasks: 10})
	require.NoError(f, err)
	f.Cleanup(func() { _ = m.Close(context.Background()) })
	defs := bgagent.Tools(m, bgagent.ToolOptions{})
	f.Fuzz(func(t *testing.T, which int, args string) {
		ctx := bgagent.WithCaller(context.Background(), bgagent.Caller{Session: "root"})
		r, err := defs[(which&0xffff)%3].Call(ctx, json.RawMessage(args))
		require.NoError(t, err, "arguments from a model must never cause a Go error")
		require.NotEmpty(t, r.Text)
		require.LessOrEqual(t, len(r.Text), 32<<10)
		require.True(t, utf8.ValidString(r.Text))
	})
}

// Decoding arguments with package json, as a host does, gives the same values as the tool's own
// decoding.
func TestArgumentsAreDecodedAsTheToolReadsThem(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		raw        string
		want       bgagent.DelegateTaskArgs
		foreground bool
	}{
		{`{"prompt":"p"}`, bgagent.DelegateTaskArgs{Prompt: "p"}, false},
		{`{"prompt":"p","run_in_background":false}`, bgagent.DelegateTaskArgs{Prompt: "p", RunInBackground: &no}, true},
		{`{"prompt":"p","run_in_background":"false"}`, bgagent.DelegateTaskArgs{Prompt: "p", RunInBackground: &no}, true},
		{`{"prompt":"p","background":" False "}`, bgagent.DelegateTaskArgs{Prompt: "p", Background: &no}, true},
		{`{"prompt":"p","run_in_background":"TRUE","background":null}`, bgagent.DelegateTaskArgs{Prompt: "p", RunInBackground: &yes}, false},
		{`{"prompt":"p","run_in_background":false,"background":"false"}`, bgagent.DelegateTaskArgs{Prompt: "p", RunInBackground: &no, Background: &no}, true},
		{`{"prompt":"p","run_in_background":false,"background":true}`, bgagent.DelegateTaskArgs{Prompt: "p", RunInBackground: &no, Background: &yes}, false},
	} {
		var got bgagent.DelegateTaskArgs
		require.NoError(t, json.Unmarshal([]byte(c.raw), &got), c.raw)
		require.Equal(t, c.want, got, c.raw)
		require.Equal(t, c.foreground, got.Foreground(), c.raw)
	}
	for _, raw := range []string{`{"run_in_background":"no"}`, `{"run_in_background":0}`, `{"nothing":1}`, `{"prompt":"a","prompt":"b"}`, `[]`} {
		got := bgagent.DelegateTaskArgs{Prompt: "before"}
		require.Error(t, json.Unmarshal([]byte(raw), &got), raw)
		require.Equal(t, "before", got.Prompt, "wrong arguments must not be read in part")
	}
	var out bgagent.BackgroundOutputArgs
	require.NoError(t, json.Unmarshal([]byte(`{"task_id":"bg_1","block":"true","timeout":"6e4"}`), &out))
	require.Equal(t, bgagent.BackgroundOutputArgs{TaskID: "bg_1", Block: true, Timeout: at(60_000)}, out)
	var cancel bgagent.BackgroundCancelArgs
	require.NoError(t, json.Unmarshal([]byte(`{"taskId":"bg_1","all":"false"}`), &cancel))
	require.Equal(t, bgagent.BackgroundCancelArgs{TaskIDAlias: "bg_1"}, cancel)
}
