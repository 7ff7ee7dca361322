package apifault

import (
	"regexp"
	"slices"
	"strings"
)

// codexForms matches codex's messages about failed requests. Codex reports failures on this machine and
// failures of MCP servers in the same way as failed requests. Their messages can contain any words, so a
// message that does not match must not decide the kind.
var codexForms = regexp.MustCompile(`(?s)^(?:\{.*\}$` +
	`|unexpected status \d{3}\b|exceeded retry limit\b|stream disconnected before completion: ` +
	`|You['’]ve hit your usage limit|Quota exceeded\.` +
	`|Selected model is at capacity|We['’]re currently experiencing high demand` +
	`|Codex ran out of room in the model['’]s context window` +
	`|The model .{0,200}does not exist or you do not have access to it|You are not allowed to sample from this model)`)

// OfCodex returns the fault for a message from codex that codex does not mark as a failed request. If the
// text does not have a form that codex uses for failed requests, the text is only displayed and does not
// decide the kind.
func (f Fault) OfCodex() Fault { return f.only(codexForms) }

// opencodeForms matches the messages of opencode's UnknownError that are about failed requests: an
// error that the provider sent in a stream, and a model that does not exist.
var opencodeForms = regexp.MustCompile(`(?s)^(?:\{.*\}$|(?:ProviderModelNotFoundError: )?Model not found\b)`)

// OfOpencode returns the fault for an error from opencode. Failures of opencode itself have the name
// UnknownError. If the error has this name, its text counts only if it has a form that opencode uses for
// failed requests. Otherwise, the text is only displayed.
func (f Fault) OfOpencode() Fault {
	if !slices.Contains(f.Names, "UnknownError") {
		return f
	}
	return f.only(opencodeForms)
}

// The function "only" returns the fault. If its text does not match the forms, the text is only
// displayed.
func (f Fault) only(forms *regexp.Regexp) Fault {
	if !forms.MatchString(strings.TrimSpace(f.Text)) {
		f.Text, f.aside = "", f.Text
	}
	return f
}
