// Package apifault classifies failed requests to the providers of models, from what agent programs
// show of them: statuses, names of errors, headers, bodies, and the text of failure messages. It
// must not be used for the text of answers or the results of tools.
package apifault

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// Fault is what an agent's program shows of a failed request. Unknown fields are zero.
type Fault struct {
	Status int      // HTTP status of the answer
	Names  []string // names that the program or the provider has for the error, such as "rate_limit"
	Text   string   // message of the failure

	Headers map[string]string // headers of the answer; the names are in lower case
	Body    string            // body of the answer
	At      time.Time         // time of the answer, from which relative times count
}

// Error returns the fault as a ProviderError without Tries and Next. It returns nil if the request
// has failed for a reason that is not one of the kinds, such as a bad request.
func (f Fault) Error() *bgagent.ProviderError {
	text := strings.TrimSpace(f.Text)
	status := f.Status
	body := parse(f.Body)
	names := slices.Concat(f.Names, body.names)
	if inner := parse(text); inner.message != "" { // the text is an error of a provider's API itself
		names, text = append(names, inner.names...), inner.message
	}
	if status == 0 {
		status = statusIn(text)
	}
	kind := classify(status, names, strings.ToLower(text+"\n"+body.message))
	if kind == 0 {
		return nil
	}
	e := &bgagent.ProviderError{Kind: kind, Status: status, Message: firstLine(text)}
	e.RetryAt = later(retryAfter(f.Headers, f.At), body.reset(f.At))
	if kind == bgagent.ProviderAuthentication || kind == bgagent.ProviderQuota && !strings.Contains(text, "on this model") {
		e.Scope = bgagent.ScopeProvider
	}
	return e
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.TrimSpace(s)
}

// kindsOf contains the names of errors whose kind is certain. Names such as "server_error" are not
// among them, because providers also use them for an overload.
var kindsOf = map[string]bgagent.ProviderErrorKind{
	"rate_limit":                bgagent.ProviderRateLimited,
	"rate_limit_error":          bgagent.ProviderRateLimited,
	"rate_limit_exceeded":       bgagent.ProviderRateLimited,
	"overloaded":                bgagent.ProviderOverloaded,
	"overloaded_error":          bgagent.ProviderOverloaded,
	"server_is_overloaded":      bgagent.ProviderOverloaded,
	"serverOverloaded":          bgagent.ProviderOverloaded,
	"service_unavailable_error": bgagent.ProviderOverloaded,
	"billing_error":             bgagent.ProviderQuota,
	"insufficient_quota":        bgagent.ProviderQuota,
	"usage_limit_reached":       bgagent.ProviderQuota,
	"usageLimitExceeded":        bgagent.ProviderQuota,
	"model_not_found":           bgagent.ProviderUnknownModel,
	"model_not_allowed":         bgagent.ProviderUnknownModel,
	"authentication_error":      bgagent.ProviderAuthentication,
	"authentication_failed":     bgagent.ProviderAuthentication,
	"permission_error":          bgagent.ProviderAuthentication,
	"invalid_api_key":           bgagent.ProviderAuthentication,
	"unauthorized":              bgagent.ProviderAuthentication,
	"ProviderAuthError":         bgagent.ProviderAuthentication,
	"context_length_exceeded":   bgagent.ProviderTooLong,
	"request_too_large":         bgagent.ProviderTooLong,
	"contextWindowExceeded":     bgagent.ProviderTooLong,
	"ContextOverflowError":      bgagent.ProviderTooLong,
}

// cues are parts of failure messages, in lower case. Messages of an earlier kind can contain parts
// of a later kind.
var cues = []struct {
	kind  bgagent.ProviderErrorKind
	parts []string
}{
	{bgagent.ProviderTooLong, []string{"prompt is too long", "context window", "context length", "maximum number of tokens allowed"}},
	{bgagent.ProviderQuota, []string{"usage limit", "hit your limit", "exceeded your current quota", "quota exceeded", "exhausted your daily quota", "credit balance is too low"}},
	{bgagent.ProviderUnknownModel, []string{"model not found", "not allowed to sample from this model"}},
	{bgagent.ProviderAuthentication, []string{"incorrect api key", "invalid api key", "api key not valid", "failed to authenticate"}},
	{bgagent.ProviderRateLimited, []string{"rate limit", "too many requests", "resource has been exhausted"}},
	{bgagent.ProviderOverloaded, []string{"overloaded", "at capacity", "service unavailable"}},
	{bgagent.ProviderBroken, []string{"the server had an error", "internal server error"}},
	{bgagent.ProviderBroken, lost},
}

// lost are parts of messages about a connection that has failed.
var lost = []string{"cannot connect to api", "connection reset", "connection dropped", "stream disconnected", "stream ended without"}

// Lost reports whether the connection to the provider has failed. The cause can then be the network of
// this machine.
func (f Fault) Lost() bool {
	e := f.Error()
	return e != nil && e.Kind == bgagent.ProviderBroken && e.Status == 0 && contains(strings.ToLower(f.Text), lost)
}

func contains(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}

// cue returns the kind of a failure message in lower case, or 0.
func cue(text string) bgagent.ProviderErrorKind {
	for _, c := range cues {
		if contains(text, c.parts) {
			return c.kind
		}
	}
	return 0
}

func classify(status int, names []string, text string) bgagent.ProviderErrorKind {
	said := cue(text)
	for _, name := range names {
		switch kind := kindsOf[name]; {
		case kind == bgagent.ProviderRateLimited && said == bgagent.ProviderQuota: // a limit of a plan is reported as a rate limit, too
			return said
		case kind != 0:
			return kind
		}
	}
	specific := said == bgagent.ProviderTooLong || said == bgagent.ProviderQuota || said == bgagent.ProviderUnknownModel
	switch {
	case status == http.StatusUnauthorized:
		return bgagent.ProviderAuthentication
	case status == http.StatusPaymentRequired:
		return bgagent.ProviderQuota
	case status == 0 || specific:
		return named(said, names)
	case status == http.StatusForbidden:
		return bgagent.ProviderAuthentication
	case status == http.StatusRequestEntityTooLarge:
		return bgagent.ProviderTooLong
	case status == http.StatusTooManyRequests:
		return bgagent.ProviderRateLimited
	case status == http.StatusServiceUnavailable, status == 529, status >= 500 && said == bgagent.ProviderOverloaded:
		return bgagent.ProviderOverloaded
	case status >= 500:
		return bgagent.ProviderBroken
	case status == http.StatusBadRequest && said == bgagent.ProviderAuthentication: // from Gemini
		return said
	}
	return 0
}

// named returns the kind of a message. If the message does not show a kind, the names of the error
// decide.
func named(said bgagent.ProviderErrorKind, names []string) bgagent.ProviderErrorKind {
	broken := func(name string) bool {
		return name == "server_error" || name == "api_error" || name == "internalServerError" || name == "responseStreamDisconnected"
	}
	if said == 0 && slices.ContainsFunc(names, broken) {
		return bgagent.ProviderBroken
	}
	return said
}

// inText matches the status in a failure message of codex or Claude Code.
var inText = regexp.MustCompile(`(?:\bstatus:? |\bAPI Error: (?:Request rejected \()?|\bRepeated )([45]\d\d)\b`)

func statusIn(text string) int {
	if m := inText.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// apiError is an error in the form of a provider's API.
type apiError struct {
	message string
	names   []string

	resetsAt float64 // Unix time
	resetsIn float64 // seconds
}

// parse reads an error of a provider's API: an object with a message, or an object that has such an
// object in its field "error". If the text is something else, the result is zero.
func parse(text string) (e apiError) {
	if !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return e
	}
	type object struct {
		Message  any `json:"message"`
		Type     any `json:"type"`
		Code     any `json:"code"`
		ResetsAt any `json:"resets_at"`
		ResetsIn any `json:"resets_in_seconds"`
	}
	var in struct {
		object
		Error *object `json:"error"`
	}
	if json.Unmarshal([]byte(text), &in) != nil {
		return e
	}
	o := in.object
	if in.Error != nil {
		o = *in.Error
	}
	e.message, _ = o.Message.(string)
	for _, field := range []any{o.Code, o.Type} {
		if name, ok := field.(string); ok && name != "" {
			e.names = append(e.names, name)
		}
	}
	e.resetsAt, _ = o.ResetsAt.(float64)
	e.resetsIn, _ = o.ResetsIn.(float64)
	return e
}

// longest bounds the time until a reset. A later reset is a mistake.
const longest = 366 * 24 * time.Hour

func (e *apiError) reset(at time.Time) time.Time {
	if e.resetsAt > 0 && e.resetsAt < 1<<40 {
		if t := time.Unix(int64(e.resetsAt), 0); t.Sub(at) < longest {
			return t
		}
	}
	return after(e.resetsIn, at)
}

// retryAfter returns the time that the header Retry-After names: a number of seconds or a date.
func retryAfter(headers map[string]string, at time.Time) time.Time {
	if ms, err := strconv.ParseFloat(headers["retry-after-ms"], 64); err == nil {
		return after(ms/1000, at)
	}
	value := strings.TrimSpace(headers["retry-after"])
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		return after(seconds, at)
	}
	if date, err := http.ParseTime(value); err == nil && date.Sub(at) < longest {
		return date
	}
	return time.Time{}
}

func after(seconds float64, at time.Time) time.Time {
	if !(seconds > 0 && seconds < longest.Seconds()) || at.IsZero() {
		return time.Time{}
	}
	return at.Add(time.Duration(seconds * float64(time.Second)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
