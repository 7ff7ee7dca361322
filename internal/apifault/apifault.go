// Package apifault classifies failed requests to the providers of models by what agent programs
// show of them: statuses, names of errors, headers, bodies, and the text of failure messages. Do
// not use it for the text of answers or the results of tools.
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
	"github.com/bgagent/bgagent/internal/cleantext"
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
	text := strings.TrimSpace(f.Text[:min(len(f.Text), maxRead)])
	status := f.Status
	body := parse(f.Body)
	names := slices.Concat(f.Names, body.names)
	if inner := parse(text); inner.message != "" { // the text itself is an error in the form of a provider's API
		names, text = append(names, inner.names...), inner.message
	}
	if status == 0 {
		status = statusIn(text)
	}
	kind := classify(status, names, strings.ToLower(text+"\n"+body.message))
	if kind == bgagent.ProviderQuota && soon(status, names, &body, text) {
		kind = bgagent.ProviderRateLimited
	}
	if kind == 0 {
		return nil
	}
	e := &bgagent.ProviderError{Kind: kind, Status: status, Message: Line(text)}
	e.RetryAt = later(retryAfter(f.Headers, f.At), body.reset(f.At))
	if kind == bgagent.ProviderAuthentication || kind == bgagent.ProviderQuota && !strings.Contains(text, "on this model") && !body.limits("PerModel") {
		e.Scope = bgagent.ScopeProvider
	}
	return e
}

// maxRead is the maximum length of a text or a body that is examined. The rest of a longer text is
// ignored, and a longer body is ignored as a whole.
const maxRead = 64 << 10

// maxLine is the maximum length of the result of Line, in bytes.
const maxLine = 500

// Line returns the first line of a failure message without characters that control a terminal. A
// longer line is cut off after 500 bytes. The address of the request, which codex puts near the end,
// is left out together with everything after it, because it can contain a key.
func Line(s string) string {
	s = strings.TrimSpace(s[:min(len(s), maxRead)])
	s, _, _ = strings.Cut(s, "\n")
	s, _, _ = strings.Cut(cleantext.Line(s), ", url: ")
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine-len("…")], "") + "…"
	}
	return s
}

// exhausted is Google's name for the status 429.
const exhausted = "RESOURCE_EXHAUSTED"

// soon reports whether a quota is one of Google's limits per minute. Google uses the same message
// for them as for its limits per day.
func soon(status int, names []string, body *apiError, text string) bool {
	google := status == http.StatusTooManyRequests && slices.Contains(names, exhausted)
	daily := body.limits("PerDay") || strings.Contains(text, "daily quota")
	return !daily && (google || strings.Contains(text, "Please retry in "))
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

// incomplete is the part of a message of codex about an answer that the provider has ended early, for
// example because of its content filter. Such an answer ends in the same way when it is asked for again.
const incomplete = "incomplete response returned"

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
	if strings.Contains(text, incomplete) {
		return 0
	}
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
		return name == "server_error" || name == "api_error" || name == "internalServerError" || name == "INTERNAL" || name == "responseStreamDisconnected"
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

	resetsAt float64  // Unix time
	resetsIn float64  // seconds
	quotas   []string // Google's ids of the exceeded quotas
}

// limits reports whether the id of an exceeded quota contains the word.
func (e *apiError) limits(word string) bool {
	return slices.ContainsFunc(e.quotas, func(id string) bool { return strings.Contains(id, word) })
}

// parse reads an error of a provider's API: an object with a message, or an object that has such an
// object in its field "error". If the text is something else or too long, the result is zero.
func parse(text string) (e apiError) {
	if len(text) > maxRead || !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return e
	}
	type object struct {
		Message  json.RawMessage `json:"message"`
		Type     json.RawMessage `json:"type"`
		Code     json.RawMessage `json:"code"`
		Status   json.RawMessage `json:"status"` // from Google
		Details  json.RawMessage `json:"details"`
		ResetsAt json.RawMessage `json:"resets_at"`
		ResetsIn json.RawMessage `json:"resets_in_seconds"`
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
	e.message = as[string](o.Message)
	for _, field := range []json.RawMessage{o.Code, o.Type, o.Status} {
		if name := as[string](field); name != "" {
			e.names = append(e.names, name)
		}
	}
	e.resetsAt, e.resetsIn = as[float64](o.ResetsAt), as[float64](o.ResetsIn)
	for _, d := range as[[]json.RawMessage](o.Details) {
		e.detail(d)
	}
	return e
}

// detail reads a detail of an error of Google.
func (e *apiError) detail(raw json.RawMessage) {
	d := as[struct {
		Delay      json.RawMessage `json:"retryDelay"`
		Violations json.RawMessage `json:"violations"`
	}](raw)
	if delay, err := time.ParseDuration(as[string](d.Delay)); err == nil {
		e.resetsIn = max(e.resetsIn, delay.Seconds())
	}
	for _, v := range as[[]json.RawMessage](d.Violations) {
		quota := as[struct {
			ID json.RawMessage `json:"quotaId"`
		}](v)
		if id := as[string](quota.ID); id != "" {
			e.quotas = append(e.quotas, id)
		}
	}
}

// as decodes a value. If the value is of another type, the result is zero.
func as[T any](raw json.RawMessage) T {
	var value, zero T
	if len(raw) == 0 || json.Unmarshal(raw, &value) != nil {
		return zero
	}
	return value
}

// longest bounds the time until a reset. A later reset is a mistake.
const longest = 366 * 24 * time.Hour

// Ahead returns the time t if it is after now and at most 366 days away. Otherwise it returns zero,
// because such a time is a mistake.
func Ahead(t, now time.Time) time.Time {
	if !t.After(now) || t.Sub(now) > longest {
		return time.Time{}
	}
	return t
}

func (e *apiError) reset(at time.Time) time.Time {
	if e.resetsAt > 0 && e.resetsAt < 1<<40 {
		if t := Ahead(time.Unix(int64(e.resetsAt), 0), at); !t.IsZero() {
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
	if date, err := http.ParseTime(value); err == nil {
		return Ahead(date, at)
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
