package opencode

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
)

type wireStatus struct {
	Type    string  `json:"type"`
	Attempt int     `json:"attempt"` // number of requests that have failed
	Message string  `json:"message"`
	Next    float64 `json:"next"` // Unix time in milliseconds
}

func (s wireStatus) status() bgagent.SessionStatus {
	switch s.Type {
	case "idle":
		return bgagent.SessionStatus{State: bgagent.SessionIdle}
	case "busy":
		return bgagent.SessionStatus{State: bgagent.SessionBusy}
	case "retry":
		return bgagent.SessionStatus{State: bgagent.SessionRetrying, Detail: firstLine(s.Message), RetryAt: millis(s.Next), Provider: s.provider(time.Now())}
	}
	return bgagent.SessionStatus{} // later versions of the server can report other statuses
}

// ownPause is longer than any retry pause that the server itself chooses. The longest such pause
// seen so far is 35 seconds.
const ownPause = time.Minute

// provider describes the failed request that the server is going to retry. If the connection
// failed, the result is nil, because the cause can be the network of the server's machine. The
// server retries only requests that the provider refused or that were cut off.
func (s wireStatus) provider(now time.Time) *bgagent.ProviderError {
	f := apifault.Fault{Text: s.Message}
	if f.Lost() {
		return nil
	}
	e := f.Repeated()
	if e == nil { // if the server considered the key rejected, it would not retry the request
		e = &bgagent.ProviderError{Kind: bgagent.ProviderBroken, Message: apifault.Line(s.Message)}
	}
	e.Tries, e.Next = max(s.Attempt, 0), bgagent.NextContinue
	if at := apifault.Ahead(millis(s.Next), now); at.Sub(now) > ownPause { // the provider, not the server, chose the time
		e.RetryAt = at
	}
	return e
}

type wireError struct {
	Name string    `json:"name"`
	Data wireFault `json:"data"`
}

type wireFault struct {
	Message   string            `json:"message"`
	Status    int               `json:"statusCode"`
	Retryable *bool             `json:"isRetryable"`
	Headers   map[string]string `json:"responseHeaders"` // the names are in lower case
	Body      string            `json:"responseBody"`
}

// UnmarshalJSON decodes an error. The error is an object or a plain string; the string is
// the message.
func (e *wireError) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*e = wireError{Name: "UnknownError", Data: wireFault{Message: text}}
		return nil
	}
	type plain wireError
	return lenient(json.Unmarshal(b, (*plain)(e)))
}

// The method "stop" returns the stop reason and the message for an error that ended a turn.
func (e *wireError) stop() (bgagent.StopReason, string) {
	text := firstLine(e.Data.Message)
	if text = cmp.Or(text, e.Name); text == "" {
		text = "it did not say why"
	}
	switch e.Name {
	case "MessageAbortedError":
		return bgagent.StopAborted, text
	case "MessageOutputLengthError":
		return bgagent.StopLength, text
	case "ContentFilterError":
		return bgagent.StopRefused, text
	}
	return bgagent.StopError, text
}

// provider returns the error as a [bgagent.ProviderError], or nil if the model provider is not the
// cause. The time "at" is that of the error; zero means now.
func (e *wireError) provider(at time.Time) *bgagent.ProviderError {
	if stop, _ := e.stop(); stop != bgagent.StopError {
		return nil
	}
	if at.IsZero() {
		at = time.Now()
	}
	d := &e.Data
	out := apifault.Fault{Status: d.Status, Names: []string{e.Name}, Text: d.Message, Headers: d.Headers, Body: d.Body, At: at}.OfOpencode().Error()
	if out == nil && e.Name == "APIError" && d.Status == 0 && d.Retryable != nil && *d.Retryable { // the connection failed
		out = &bgagent.ProviderError{Kind: bgagent.ProviderBroken, Message: apifault.Line(d.Message)}
	}
	if out == nil {
		return nil
	}
	out.Next = bgagent.NextContinue
	if d.Retryable != nil && !*d.Retryable {
		out.Tries = 1
	}
	return out
}
