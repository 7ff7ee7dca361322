package acp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
	"github.com/bgagent/bgagent/internal/mdtext"
	sdk "github.com/coder/acp-go-sdk"
)

// offer is an option that the manager offers for a question.
type offer struct {
	text   string
	option sdk.PermissionOption
}

// offers returns the options that answer only this question. Options of kinds that are not in the
// protocol are left out, because they could also answer later questions.
func offers(list []sdk.PermissionOption) (out []offer) {
	for _, o := range list {
		if o.Kind != sdk.PermissionOptionKindAllowOnce && o.Kind != sdk.PermissionOptionKindRejectOnce {
			continue
		}
		text := o.Name
		if text == "" || slices.ContainsFunc(out, func(x offer) bool { return x.text == text }) {
			text = strings.TrimSpace(fmt.Sprintf("%s (%s)", o.Name, o.OptionId))
		}
		out = append(out, offer{text, o})
	}
	return out
}

// askManager asks the manager about a request. The argument "unclear" reports whether some paths or inputs of
// the call are unknown. The result "chosen" is the agent's option that was chosen. It is nil if nobody has
// answered, and the result "answer" then contains the reason.
func (t *turn) askManager(q PermissionRequest, req sdk.RequestPermissionRequest, unclear bool) (chosen *sdk.PermissionOption, answer PermissionAnswer) {
	t.reporting.Lock()
	r := t.r
	t.reporting.Unlock()
	if r == nil {
		return nil, PermissionAnswer{Reason: errOver.Error()}
	}
	if unclear { // nobody may decide about what is not shown
		return nil, PermissionAnswer{Reason: "the agent has not told everything about this call, or a part of it could not be read"}
	}
	list := offers(req.Options)
	if len(list) == 0 {
		return nil, PermissionAnswer{Reason: "the agent offers no answer that is about this request alone"}
	}
	question := bgagent.Question{
		Kind: bgagent.QuestionPermission, Title: fmt.Sprintf("may it use %s: %.200s", q.Name, q.Title), Subject: subjectOf(q, req),
	}
	for _, o := range list {
		question.Options = append(question.Options, o.text)
	}
	text, err := r.Ask(t.ctx, question)
	if errors.Is(err, context.Canceled) { // the manager can end the turn before it cancels the context
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

// subjectOf returns all that the agent has told about what it wants to do.
func subjectOf(q PermissionRequest, req sdk.RequestPermissionRequest) string {
	text := asktext.Input(q.Input)
	add := func(more string) {
		if more = strings.TrimSpace(more); more != "" && !contains(text, more) {
			text = strings.TrimPrefix(text+"\n"+more, "\n")
		}
	}
	add(q.Title)
	for _, p := range q.Paths {
		add(p)
	}
	for _, c := range req.ToolCall.Content {
		switch {
		case c.Diff != nil:
			add(diff(c.Diff))
		case c.Content != nil && c.Content.Content.Text != nil:
			add(c.Content.Content.Text.Text)
		case c.Content != nil:
			add(asktext.Value(c.Content.Content))
		}
	}
	return mdtext.Valid(text)
}

// contains reports whether the text contains the lines, or a field whose value they are.
func contains(text, lines string) bool {
	text, lines = "\n"+text+"\n", lines+"\n"
	return strings.Contains(text, "\n"+lines) || strings.Contains(text, ": "+lines)
}

// diff returns the change of a file as a text, including the lines that stay the same.
func diff(d *sdk.ToolCallContentDiff) string {
	lines := []string{"change of " + d.Path + ":"}
	if d.OldText != nil {
		for line := range strings.Lines(*d.OldText) {
			lines = append(lines, "-"+strings.TrimSuffix(line, "\n"))
		}
	}
	for line := range strings.Lines(d.NewText) {
		lines = append(lines, "+"+strings.TrimSuffix(line, "\n"))
	}
	return strings.Join(lines, "\n")
}
