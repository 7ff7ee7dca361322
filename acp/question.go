package acp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
	sdk "github.com/coder/acp-go-sdk"
)

// offer is an option that the manager offers for a question.
type offer struct {
	text   string
	option sdk.PermissionOption
}

// kindWords contains the words for each kind of option that is offered. The manager shows the first word. The
// others are agents' names for options with the same meaning.
var kindWords = map[sdk.PermissionOptionKind][]string{
	sdk.PermissionOptionKindAllowOnce:  {asktext.AllowOnce, "allow"},
	sdk.PermissionOptionKindRejectOnce: {asktext.Deny, "reject", "reject once"},
}

// maxOptionName is the maximum length of the agent's name for an option, in bytes. A longer name is cut.
const maxOptionName = 120

// The function "offers" returns the options that answer only this question. Options of kinds that are not
// in the protocol are left out, because they could also answer later questions. The kind of the option
// determines what the agent does with an answer. Therefore, each text begins with the word for the kind,
// and the agent's name for the option is only quoted.
func offers(list []sdk.PermissionOption) (out []offer) {
	count := map[sdk.PermissionOptionKind]int{}
	for _, o := range list {
		count[o.Kind]++
	}
	var texts []string
	for _, o := range list {
		words := kindWords[o.Kind]
		if words == nil {
			continue
		}
		text, name := words[0], asktext.Line(o.Name)
		says := slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, name) })
		if name != "" && (!says || count[o.Kind] > 1) {
			text += fmt.Sprintf(" (the agent calls it %s)", asktext.Quoted(o.Name, maxOptionName))
		}
		texts, out = append(texts, text), append(out, offer{option: o})
	}
	for i, text := range asktext.Numbered(texts) {
		out[i].text = text
	}
	return out
}

// earlier holds what the client knew about a call when the agent asked about it.
type earlier struct {
	described
	input   any
	unclear bool // whether some paths or inputs of the call are unknown, even after the question
}

// askManager asks the manager about a request. It returns whichever of the agent's options was
// chosen. If nobody answered, the option is nil, and the answer contains the reason.
func (t *turn) askManager(q PermissionRequest, req sdk.RequestPermissionRequest, told earlier) (chosen *sdk.PermissionOption, answer PermissionAnswer) {
	t.reporting.Lock()
	r := t.r
	t.reporting.Unlock()
	switch {
	case r == nil:
		return nil, PermissionAnswer{Reason: errOver.Error()}
	case told.unclear: // nobody may decide about a request that is not shown in full
		return nil, PermissionAnswer{Reason: "the agent did not report everything about this call, or part of the report could not be read"}
	case told.dropped:
		return nil, PermissionAnswer{Reason: "the agent's description of this call is too long to be shown"}
	}
	subject := subjectOf(q, req.ToolCall.Content, told)
	if subject == "" {
		return nil, PermissionAnswer{Reason: "the agent did not say what it wants to do"}
	}
	list := offers(req.Options)
	if len(list) == 0 {
		return nil, PermissionAnswer{Reason: "the agent offers no answer that applies only to this request"}
	}
	question := bgagent.Question{
		Kind: bgagent.QuestionPermission, Title: asktext.Shown(fmt.Sprintf("may it use %s: %.200s", q.Name, q.Title)), Subject: subject,
	}
	for _, o := range list {
		question.Options = append(question.Options, o.text)
	}
	text, err := r.Ask(t.ctx, question)
	if errors.Is(err, context.Canceled) { // the manager ended the turn, but might not have cancelled the context yet
		t.cancel(errAborted)
	}
	if err != nil {
		return nil, PermissionAnswer{Reason: asktext.Reason(err)}
	}
	i := slices.Index(question.Options, text)
	if i < 0 {
		return nil, PermissionAnswer{Reason: "the answer is not one of the agent's options"}
	}
	chosen = &list[i].option
	answer.Allow = chosen.Kind == sdk.PermissionOptionKindAllowOnce
	if !answer.Allow {
		answer.Reason = "the host has denied it"
	}
	return chosen, answer
}

// subjectOf returns everything that the agent has reported about the call, in the question and in earlier
// messages. The question is about the latest state of the call: a new title, input or content replaces the
// previous one. However, the question can contain less than the earlier messages, so both are shown. If
// only the kind of the tool is known, the result is empty, because such a subject would not show what the
// agent wants to do.
func subjectOf(q PermissionRequest, content []sdk.ToolCallContent, told earlier) string {
	var s subjectText
	s.input(q.Input)
	s.field("title", q.Title)
	s.field("title", told.whole)
	for _, p := range q.Paths {
		s.field("path", p)
	}
	s.contents(content)
	s.contents(told.content)
	if text := asktext.Input(without(told.input, q.Input)); text != "" {
		s.add(text, asktext.Block("input as told before", text))
	}
	if len(s.lines) > 0 && q.Kind != "" && q.Kind != q.Name { // the title of the question already shows the name, so a kind that equals the name is left out
		s.lines = append(s.lines, asktext.Field("kind", q.Kind)) // appended directly, because the method "add" leaves out text that it has already added
	}
	return strings.Join(s.lines, "\n")
}

// The function "without" returns the input without the fields that have the same values in the
// input "shown". If the two inputs are equal, it returns nil.
func without(input, shown any) any {
	fields, _ := input.(map[string]any)
	same, _ := shown.(map[string]any)
	switch {
	case reflect.DeepEqual(input, shown):
		return nil
	case fields == nil || same == nil:
		return input
	}
	rest := maps.Clone(fields)
	maps.DeleteFunc(rest, func(name string, v any) bool {
		other, ok := same[name]
		return ok && reflect.DeepEqual(v, other)
	})
	return rest
}

// subjectText collects the fields of a subject. Text that a field already contains is not repeated.
type subjectText struct {
	lines []string
	shown map[string]bool
}

func (s *subjectText) add(key, field string) {
	if key = strings.TrimSpace(key); key == "" || s.shown[key] {
		return
	}
	if s.shown == nil {
		s.shown = map[string]bool{}
	}
	s.shown[key] = true
	s.lines = append(s.lines, field)
}

func (s *subjectText) field(name, value string) { s.add(value, asktext.Field(name, value)) }

// The method "input" adds a call's input. After that, a text that equals one of the input's fields is
// not added again.
func (s *subjectText) input(input any) {
	text := asktext.Input(input)
	s.add(text, text)
	fields, _ := input.(map[string]any)
	for _, v := range fields {
		if text, ok := v.(string); ok {
			s.shown[strings.TrimSpace(text)] = true
		}
	}
}

func (s *subjectText) contents(list []sdk.ToolCallContent) {
	for _, c := range list {
		switch {
		case c.Diff != nil:
			text := asktext.Block("change of "+c.Diff.Path, diff(c.Diff))
			s.add(text, text)
		case c.Content != nil && c.Content.Content.Text != nil:
			s.field("text", c.Content.Content.Text.Text)
		case c.Content != nil:
			s.field("content", asktext.Value(c.Content.Content))
		}
	}
}

// diff returns a file change as text, including unchanged lines.
func diff(d *sdk.ToolCallContentDiff) string {
	var b strings.Builder
	for line := range strings.Lines(value(d.OldText)) {
		b.WriteString("-" + strings.TrimSuffix(line, "\n") + "\n")
	}
	for line := range strings.Lines(d.NewText) {
		b.WriteString("+" + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}
