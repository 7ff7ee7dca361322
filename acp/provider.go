package acp

import (
	"cmp"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
	sdk "github.com/coder/acp-go-sdk"
)

// providerFailure is the error of a turn that failed because of the model provider.
type providerFailure struct {
	error
	provider *bgagent.ProviderError
}

// Unwrap returns the turn's own error and the provider error.
func (e *providerFailure) Unwrap() []error { return []error{e.error, e.provider} }

// The method "blame" returns the error of a failed turn. It adds the provider error e if e is not
// nil.
func (c *Client) blame(t *turn, err error, e *bgagent.ProviderError) error {
	if e == nil {
		return err
	}
	c.mu.Lock()
	e.Next = bgagent.NextContinue
	dropped := c.runs("gemini") && len(t.calls) == 0
	if dropped {
		// If a turn fails before its model calls a tool, gemini drops the prompt, with the system
		// text in front of it.
		e.Next = bgagent.NextRepeat
		t.s.system = ""
		if t.s.memory.Now.Prompt == t.prompt.ID {
			t.s.memory.unsent()
		}
	}
	if t.retries > 0 {
		e.Tries = t.retries + 1
	}
	c.mu.Unlock()
	if dropped {
		t.save()
	}
	return &providerFailure{err, e}
}

// refusedBy returns the provider error that made the agent answer the prompt with an error. If the
// provider is not the cause, the result is nil. text is what the agent wrote about the error; it
// can be empty.
func (c *Client) refusedBy(err error, text string) *bgagent.ProviderError {
	var re *sdk.RequestError
	if !errors.As(err, &re) {
		return nil
	}
	f := apifault.Fault{Text: innerMessage(strings.TrimPrefix(re.Message, "Internal error: ")), At: time.Now()}
	data, _ := re.Data.(map[string]any)
	errorKind, _ := data["errorKind"].(string)
	errorName, _ := data["errorName"].(string)
	switch {
	case re.Code == codeAuth:
		f.Names = []string{"unauthorized"}
		if e := (apifault.Fault{Text: text}).Error(); e != nil && e.Kind == bgagent.ProviderAuthentication {
			f.Text = text
		}
	case errorKind != "": // the error comes from Claude
		f.Names = []string{errorKind}
		if e := f.Error(); errorKind != "invalid_request" || e != nil && e.Kind == bgagent.ProviderTooLong {
			return e
		}
		return nil
	case data["codexErrorInfo"] != nil:
		f.Text = cmp.Or(detail(re.Data), f.Text)
		name, status := codexInfo(data["codexErrorInfo"])
		f.Names, f.Status = []string{name}, status
		f = f.OfCodex()
	case errorName == "APIError", errorName == "UnknownError", errorName == "ProviderAuthError", errorName == "ContextOverflowError": // the error comes from opencode
		f.Names = []string{errorName}
		f = f.OfOpencode()
	case c.runs("gemini") && re.Code == http.StatusInternalServerError: // the code is the HTTP status, or 500 because gemini does not know the status
		f.Body = re.Message
		if brokenOff.MatchString(f.Text) {
			f.Names = []string{"api_error"}
		}
	case c.runs("gemini") && re.Code >= 400 && re.Code < 600: // the code is the HTTP status
		f.Status, f.Body = re.Code, re.Message
		if re.Code == http.StatusTooManyRequests {
			f.Names = []string{"RESOURCE_EXHAUSTED"} // Google's name for status 429
		}
	default:
		return nil
	}
	return f.Error()
}

// brokenOff matches gemini's messages about a failed connection to the provider, and Google's
// messages about an internal error.
var brokenOff = regexp.MustCompile(`(?i)^terminated$|fetch failed|socket hang up|other side closed|\bECONN(?:RESET|REFUSED)\b|\binternal error (?:encountered|has occurred)`)

// codexInfo returns the name and the HTTP status in codex's description of an error. If the
// description does not contain a status, status is 0.
func codexInfo(info any) (name string, status int) {
	switch info := info.(type) {
	case string:
		return info, 0
	case map[string]any:
		for name, more := range info {
			fields, _ := more.(map[string]any)
			status, _ := fields["httpStatusCode"].(float64)
			return name, int(status)
		}
	}
	return "", 0
}

// attempt matches the number of the attempt in codex's message about a retry.
var attempt = regexp.MustCompile(`\b(\d{1,4})/\d+$`)

// noteRetry records an error that codex reported outside the protocol. If codex is going to retry
// the request, the result is the provider error. Otherwise it is nil. It is also nil in two cases:
// if the connection failed, because this machine's network can be the cause, and if status 403 is
// the only sign that the key was rejected.
func (t *turn) noteRetry(fields map[string]any) *bgagent.ProviderError {
	name, status := codexInfo(fields["codexErrorInfo"])
	message, _ := fields["message"].(string)
	text, _ := fields["additionalDetails"].(string)
	t.fault = apifault.Fault{Status: status, Names: []string{name}, Text: cmp.Or(text, message)}
	if again, _ := fields["willRetry"].(bool); !again {
		return nil
	}
	t.retries++
	if m := attempt.FindStringSubmatch(message); m != nil {
		t.retries, _ = strconv.Atoi(m[1])
	}
	e := t.fault.Repeated()
	if e == nil && t.fault.Error() != nil {
		return nil
	}
	if e == nil {
		e = &bgagent.ProviderError{Kind: bgagent.ProviderBroken, Status: status, Message: apifault.Line(t.fault.Text)}
	}
	e.Tries, e.Next = t.retries, bgagent.NextContinue
	return e
}

// brokenBy returns the provider error that made codex report that it failed. If the provider is not
// the cause, the result is nil. problem is what the agent wrote about the failure, and last is the
// last error that the agent reported. If problem contains text but not the message of that error,
// the error is ignored, because it can then be about an earlier request.
func brokenBy(problem string, last apifault.Fault) *bgagent.ProviderError {
	if e := (apifault.Fault{Text: problem}).OfCodex().Error(); e != nil {
		return e
	}
	if problem != "" && (last.Text == "" || !strings.Contains(problem, last.Text)) {
		return nil
	}
	return last.OfCodex().Error()
}
