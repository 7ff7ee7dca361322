package acp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/toolinput"
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

// askManager asks the manager about a request. The result "chosen" is the option of the agent, or nil if
// nobody has answered; the answer then contains the reason.
func (t *turn) askManager(q PermissionRequest, req sdk.RequestPermissionRequest, unclear bool) (chosen *sdk.PermissionOption, answer PermissionAnswer) {
	t.reporting.Lock()
	r := t.r
	t.reporting.Unlock()
	if r == nil {
		return nil, PermissionAnswer{Reason: errOver.Error()}
	}
	list := offers(req.Options)
	if len(list) == 0 {
		return nil, PermissionAnswer{Reason: "the agent offers no answer that is about this request alone"}
	}
	question := bgagent.Question{
		Kind: bgagent.QuestionPermission, Title: fmt.Sprintf("may it use %s: %.200s", q.Name, q.Title), Subject: subjectOf(q, req, unclear),
	}
	for _, o := range list {
		question.Options = append(question.Options, o.text)
	}
	text, err := r.Ask(t.ctx, question)
	if errors.Is(err, context.Canceled) { // the manager can end the turn before it cancels the context
		t.cancel(errAborted)
	}
	if err != nil {
		return nil, PermissionAnswer{Reason: reasonOf(err)}
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

// reasonOf returns the reason for which the manager has no answer.
func reasonOf(err error) string {
	var bad *bgagent.InputError
	if errors.As(err, &bad) {
		return "the question is not valid: " + bad.Error()
	}
	if under := errors.Unwrap(err); under != nil {
		err = under // without the name of the package
	}
	return err.Error()
}

// subjectOf returns all that the agent has told about what it wants to do.
func subjectOf(q PermissionRequest, req sdk.RequestPermissionRequest, unclear bool) string {
	text := toolinput.Text(q.Input)
	add := func(more string) {
		if more = strings.TrimSpace(more); more != "" && !strings.Contains(text, more) {
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
		}
	}
	if unclear {
		add("(the agent has not told everything about this call, or a part could not be read)")
	}
	return mdtext.Valid(text)
}

// diff writes a change of a file. The parts of the file that stay are not left out.
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
