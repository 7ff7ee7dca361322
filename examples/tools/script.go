package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"github.com/bgagent/bgagent"
)

// The type "script" is a model with a fixed plan: it delegates a task, reads the result, and then
// makes an invalid call. It prints its calls and the answers to them.
type script struct {
	w        io.Writer
	defs     []bgagent.ToolDef
	launched chan<- struct{} // receives a value when the model has received the id of its task
	tools    int             // number of tools offered to the model
	step     int             // number of the call that has no answer yet, from 1
	task     string          // id of the launched task
}

// The first and the last message of the conversation.
const (
	question = "How many words are there?"
	lastWord = "Four."
)

// toolCall is a tool call that the model makes.
type toolCall struct {
	id, name, args string
	wrong          bool // whether the answer must be an error
}

var scriptCalls = [...]toolCall{
	{id: "call_1", name: "delegate_task", args: `{"description":"Count words","prompt":"one two three four","subagent_type":"counter"}`},
	{id: "call_2", name: "background_output", args: `{"task_id":"$TASK","block":true}`},
	{id: "call_3", name: "delegate_task", args: `{"subagent_type":"counter"}`, wrong: true},
}

// The method "over" reports whether the last call has been answered.
func (s *script) over() bool { return s.step > len(scriptCalls) }

// The method "end" checks the final answer of the conversation, which must be lastWord. It also
// checks that the script is over and that all tools were offered.
func (s *script) end(word string) error {
	if !s.over() || word != lastWord {
		return fmt.Errorf("the conversation ended early, with %q", word)
	}
	if s.tools != len(s.defs) {
		return fmt.Errorf("%d tools arrived, not %d", s.tools, len(s.defs))
	}
	fmt.Fprintln(s.w, word)
	return nil
}

// The method "offer" checks the definition of a tool that the model has received. The definition
// must have the same meaning as the original.
func (s *script) offer(name, description string, schema []byte) error {
	for _, d := range s.defs {
		if d.Name != name {
			continue
		}
		var want, got map[string]any
		if err := errors.Join(json.Unmarshal(d.Schema, &want), json.Unmarshal(schema, &got)); err != nil {
			return fmt.Errorf("the schema of %s: %w", name, err)
		}
		// An empty list has the same meaning as no list.
		for _, m := range []map[string]any{want, got} {
			if required, ok := m["required"].([]any); ok && len(required) == 0 {
				delete(m, "required")
			}
		}
		if description != d.Description || !reflect.DeepEqual(got, want) {
			return fmt.Errorf("%s arrived with a different meaning: %s\n%s", name, description, schema)
		}
		s.tools++
		return nil
	}
	return fmt.Errorf("there is no tool %q", name)
}

// The method "begin" returns the first call.
func (s *script) begin() toolCall {
	s.step = 1
	return s.call()
}

// The method "answer" processes the answer to the last call and returns the next call. The second
// result is false if there is none.
func (s *script) answer(id, text string) (next toolCall, ok bool, err error) {
	if s.step < 1 || s.over() || id != scriptCalls[s.step-1].id {
		return toolCall{}, false, fmt.Errorf("an answer to call %q, which is not open", id)
	}
	if s.task == "" {
		if s.task = taskID.FindString(text); s.task == "" {
			return toolCall{}, false, fmt.Errorf("no task was launched: %s", text)
		}
		s.launched <- struct{}{}
	}
	for line := range strings.Lines(plain(text)) {
		fmt.Fprintln(s.w, strings.TrimRight("   "+line, " \n"))
	}
	s.step++
	if s.over() {
		return toolCall{}, false, nil
	}
	return s.call(), true, nil
}

// The method "reply" continues the script. If there was a call, it processes the answer to the last
// call. It returns the next call, or false if there is none.
func (s *script) reply(id, text string) (toolCall, bool, error) {
	if s.step == 0 {
		return s.begin(), true, nil
	}
	return s.answer(id, text)
}

// The method "flag" checks whether the answer to the last call is correctly marked as an error. For
// SDKs where results can be marked as errors, it is called before reply and answer.
func (s *script) flag(isError bool) error {
	if c := scriptCalls[s.step-1]; isError != c.wrong {
		return fmt.Errorf("%s: the answer is marked as an error: %t", c.id, isError)
	}
	return nil
}

func (s *script) call() toolCall {
	c := scriptCalls[s.step-1]
	c.args = strings.ReplaceAll(c.args, "$TASK", s.task)
	fmt.Fprintf(s.w, "-> %s %s\n", c.name, plain(c.args))
	return c
}

var (
	taskID   = regexp.MustCompile(`bg_[0-9a-z]+`)
	session  = regexp.MustCompile(`ses_[0-9a-z]+`)
	duration = regexp.MustCompile(`\b[0-9.]+ ?(ns|µs|ms|s)\b`)
)

// The function "plain" replaces ids and durations in s, so that the text is the same in every run.
func plain(s string) string {
	s = taskID.ReplaceAllString(s, "bg_…")
	s = session.ReplaceAllString(s, "ses_…")
	return duration.ReplaceAllString(s, "…s")
}
