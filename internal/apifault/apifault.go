// Package apifault classifies failed requests to model providers by what agent programs report about them:
// statuses, error names, headers, bodies, and the text of failure messages. Do not use it for the text of
// answers or for tool results.
package apifault

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// Fault holds what an agent program reports about a failed request. Unknown fields are zero.
type Fault struct {
	Status int      // HTTP status of the response
	Names  []string // names that the program or the provider uses for the error, such as "rate_limit"
	Text   string   // failure message

	Headers map[string]string // response headers; the names are in lower case
	Body    string            // response body
	At      time.Time         // time of the response; relative times are measured from it

	aside string // message that is only displayed and does not decide the kind
}

// shown contains the parsed text and body of a fault.
type shown struct {
	line        string   // text whose first line is the message for people
	said        string   // the text, with the provider's error replaced by its message and all other JSON objects left out
	inner, body apiError // errors in the format of a provider's API, in the text and in the body
	names       []string
	status      int
}

// shown parses the text and the body of the fault.
func (f Fault) shown() shown {
	text := strings.TrimSpace(f.Text[:min(len(f.Text), maxRead)])
	before, inner, after := split(text, prefixes)
	x := shown{line: cmp.Or(text, strings.TrimSpace(f.aside)), inner: inner}
	if before == "" && inner.message != "" {
		x.line = inner.message
	}
	if len(f.Body) <= maxRead {
		_, x.body, _ = split(strings.TrimSpace(f.Body), bodyPrefixes)
	}
	x.said = strings.Join([]string{before, inner.message, after}, "\n")
	x.names = slices.Concat(f.Names, inner.names, x.body.names)
	stated := 0 // status that the program put in front of the provider's response
	if len(before) < len(text) {
		stated = statusIn(before)
	}
	x.status = cmp.Or(failed(f.Status), stated, inner.status, x.body.status, statusIn(before), statusIn(inner.message), statusIn(after), statusIn(x.body.message))
	return x
}

// Error returns the fault as a ProviderError without Tries and Next. It returns nil if the request
// failed for a reason that is not one of the kinds, such as a bad request.
func (f Fault) Error() *bgagent.ProviderError {
	x := f.shown()
	kind := classify(x.status, x.names, strings.ToLower(x.said+"\n"+x.body.message))
	if kind == bgagent.ProviderQuota && x.soon() {
		kind = bgagent.ProviderRateLimited
	}
	if kind == 0 {
		return nil
	}
	e := &bgagent.ProviderError{Kind: kind, Status: x.status, Message: Line(x.line)}
	e.RetryAt = later(retryAfter(f.Headers, f.At), later(x.body.reset(f.At), x.inner.reset(f.At)))
	ofModel := strings.Contains(x.said, "on this model") || x.limits("PerModel")
	if kind == bgagent.ProviderAuthentication || kind == bgagent.ProviderQuota && !ofModel {
		e.Scope = bgagent.ScopeProvider
	}
	return e
}

// Repeated returns the error to report when the program says that it is retrying the request. It returns
// nil if there is no error. It also returns nil if the connection failed: the cause can be this machine's
// network, but a report would make the manager hold back the provider's other turns. Finally, it returns
// nil for an authentication error if it is not certain that the provider has rejected the key, because the
// manager ends the task after such an error.
func (f Fault) Repeated() *bgagent.ProviderError {
	e := f.Error()
	if e == nil || f.Lost() || e.Kind == bgagent.ProviderAuthentication && !f.Rejected() {
		return nil
	}
	return e
}

// Rejected reports whether it is certain that the provider has rejected the key. Status 403 alone is not
// proof, because a proxy can refuse a single request with this status. The wording of a message is not proof
// either.
func (f Fault) Rejected() bool {
	e := f.Error()
	if e == nil || e.Kind != bgagent.ProviderAuthentication {
		return false
	}
	return e.Status != 0 && e.Status != http.StatusForbidden || certain(f.shown().names) == bgagent.ProviderAuthentication
}

// maxRead is the maximum number of bytes of a text or body that are examined. The rest of a longer
// text is ignored. A longer body is ignored entirely.
const maxRead = 64 << 10

// maxLine is the maximum length of the result of Line, in bytes.
const maxLine = 500

// Line returns the first line of a failure message without characters that control a terminal. A longer line
// is cut off after 500 bytes. The request's address, which codex puts near the end, and everything after it
// are removed, because the address can contain a key.
func Line(s string) string {
	s = strings.TrimSpace(s[:min(len(s), maxRead)])
	s, _, _ = strings.Cut(s, "\n")
	s, _, _ = strings.Cut(cleantext.Line(s), ", url: ")
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine-len("…")], "") + "…"
	}
	return s
}

// exhausted is Google's name for the status 429, in lower case.
const exhausted = "resource_exhausted"

// The method "soon" reports whether the exceeded quota is one of Google's limits per minute. Google uses
// the same status and message for its limits per day, so only the id or the name of the quota distinguishes
// them.
func (x *shown) soon() bool {
	google := (x.status == http.StatusTooManyRequests || x.status == 0) && slices.ContainsFunc(x.names, func(n string) bool { return strings.EqualFold(n, exhausted) })
	daily := x.limits("PerDay") || strings.Contains(x.said, "daily quota")
	return !daily && (google || strings.Contains(x.said, "Please retry in "))
}

// The method "limits" reports whether the id of an exceeded quota contains the given word.
func (x *shown) limits(word string) bool { return x.inner.limits(word) || x.body.limits(word) }

// certainNames contains the names of errors whose kind is certain, whatever the status is. The names are in
// lower case. Providers often call a plan's limit a rate limit. Therefore, the name of another kind, or a
// message about a quota, takes precedence over the name of a rate limit.
var certainNames = map[string]bgagent.ProviderErrorKind{
	"rate_limit":                 bgagent.ProviderRateLimited,
	"rate_limit_error":           bgagent.ProviderRateLimited,
	"rate_limit_exceeded":        bgagent.ProviderRateLimited,
	"overloaded":                 bgagent.ProviderOverloaded,
	"overloaded_error":           bgagent.ProviderOverloaded,
	"server_is_overloaded":       bgagent.ProviderOverloaded,
	"serveroverloaded":           bgagent.ProviderOverloaded, // codex
	"service_unavailable_error":  bgagent.ProviderOverloaded,
	"billing_error":              bgagent.ProviderQuota,
	"insufficient_quota":         bgagent.ProviderQuota,
	"usage_limit_reached":        bgagent.ProviderQuota,
	"usagelimitexceeded":         bgagent.ProviderQuota, // codex
	"model_not_found":            bgagent.ProviderUnknownModel,
	"model_not_allowed":          bgagent.ProviderUnknownModel,
	"providermodelnotfounderror": bgagent.ProviderUnknownModel, // opencode
	"authentication_error":       bgagent.ProviderAuthentication,
	"authentication_failed":      bgagent.ProviderAuthentication,
	"permission_error":           bgagent.ProviderAuthentication,
	"invalid_api_key":            bgagent.ProviderAuthentication,
	"api_key_invalid":            bgagent.ProviderAuthentication, // Google
	"oauth_org_not_allowed":      bgagent.ProviderAuthentication,
	"unauthorized":               bgagent.ProviderAuthentication,
	"providerautherror":          bgagent.ProviderAuthentication, // opencode
	"context_length_exceeded":    bgagent.ProviderTooLong,
	"request_too_large":          bgagent.ProviderTooLong,
	"prompt_too_long":            bgagent.ProviderTooLong, // Claude Code
	"contextwindowexceeded":      bgagent.ProviderTooLong, // codex
	"contextoverflowerror":       bgagent.ProviderTooLong, // opencode
}

// looseNames contains error names, in lower case, that count only if neither the status nor the
// message decides the kind. Providers also use some of them for failures of another kind. For
// example, "server_error" can mean an overload.
var looseNames = map[string]bgagent.ProviderErrorKind{
	exhausted:                    bgagent.ProviderRateLimited,
	"unavailable":                bgagent.ProviderOverloaded, // Google
	"server_error":               bgagent.ProviderBroken,
	"api_error":                  bgagent.ProviderBroken,
	"internal":                   bgagent.ProviderBroken, // Google
	"timeout_error":              bgagent.ProviderBroken,
	"connection_failed":          bgagent.ProviderBroken, // Claude Code
	"internalservererror":        bgagent.ProviderBroken, // codex
	"responsestreamdisconnected": bgagent.ProviderBroken, // codex
}

// cues are parts of failure messages, in lower case. The order matters, because a message of one kind can
// contain a cue of a later kind.
var cues = []struct {
	kind  bgagent.ProviderErrorKind
	parts []string
}{
	{bgagent.ProviderTooLong, []string{"prompt is too long", "context window", "context length", "exceeds the maximum number of tokens"}},
	{bgagent.ProviderQuota, []string{"usage limit", "hit your limit", "exceeded your current quota", "quota exceeded", "exhausted your daily quota", "credit balance is too low"}},
	{bgagent.ProviderUnknownModel, []string{"model not found", "not allowed to sample from this model", "does not exist or you do not have access to it"}},
	{bgagent.ProviderAuthentication, []string{"incorrect api key", "invalid api key", "api key not valid", "failed to authenticate"}},
	{bgagent.ProviderRateLimited, []string{"rate limit", "too many requests", "resource has been exhausted"}},
	{bgagent.ProviderOverloaded, []string{"overloaded", "at capacity", "service unavailable"}},
	{bgagent.ProviderBroken, []string{"the server had an error", "internal server error", "currently experiencing high demand"}},
	{bgagent.ProviderBroken, lost},
}

// incomplete is part of codex's message about an answer that the provider ended early, for example because of
// its content filter. A retry would have the same result.
const incomplete = "incomplete response returned"

// lost contains parts of messages about a failed connection.
var lost = []string{"cannot connect to api", "connection reset", "connection dropped", "stream disconnected", "stream ended without"}

// Lost reports whether the connection to the provider failed. The cause can then be this machine's network.
func (f Fault) Lost() bool {
	e := f.Error()
	return e != nil && e.Kind == bgagent.ProviderBroken && e.Status == 0 && contains(strings.ToLower(f.shown().said), lost)
}

func contains(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}

// cue returns the kind of a failure message, or 0. The message must be in lower case.
func cue(text string) bgagent.ProviderErrorKind {
	for _, c := range cues {
		if contains(text, c.parts) {
			return c.kind
		}
	}
	return 0
}

// The function "certain" returns the kind that the names prove, or 0.
func certain(names []string) (kind bgagent.ProviderErrorKind) {
	for _, name := range names {
		k := certainNames[strings.ToLower(name)]
		if k != 0 && (kind == 0 || kind == bgagent.ProviderRateLimited) {
			kind = k
		}
	}
	return kind
}

// classify returns the kind of a failure, or 0 if the failure is not of a known kind. The status is 0 if it
// is unknown, and the text is in lower case.
func classify(status int, names []string, text string) bgagent.ProviderErrorKind {
	if strings.Contains(text, incomplete) {
		return 0
	}
	said := cue(text)
	switch kind := certain(names); {
	case kind == bgagent.ProviderRateLimited && said == bgagent.ProviderQuota:
		return said
	case kind != 0:
		return kind
	}
	specific := said == bgagent.ProviderTooLong || said == bgagent.ProviderQuota || said == bgagent.ProviderUnknownModel
	switch {
	case status == http.StatusUnauthorized:
		return bgagent.ProviderAuthentication
	case status == http.StatusPaymentRequired:
		return bgagent.ProviderQuota
	case said != 0 && (status == 0 || specific):
		return said
	case status == 0:
		return loose(names)
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
	case status == http.StatusNotFound && googleModel.MatchString(text):
		return bgagent.ProviderUnknownModel
	}
	return 0
}

// The function "loose" returns the lowest kind that any of the loose names has, because a lower kind is
// more specific. If there are no loose names, the result is 0.
func loose(names []string) (kind bgagent.ProviderErrorKind) {
	for _, name := range names {
		if k := looseNames[strings.ToLower(name)]; k != 0 && (kind == 0 || k < kind) {
			kind = k
		}
	}
	return kind
}

// googleModel matches Google's message about a model that does not exist.
var googleModel = regexp.MustCompile(`(?m)^models/\S+ is not `)

// inText matches the status in a failure message.
var inText = regexp.MustCompile(`(?i)(?:\bstatus(?: code)?:? |\bHTTP(?:/[\d.]+)? |\bAPI Error: (?:Request rejected \()?|\bRepeated )([45]\d\d)\b`)

// statusIn returns the HTTP status in a failure message: a number, as in "502 Bad Gateway", or the
// name of a status that is the whole message, such as "Bad Gateway". It returns 0 if there is none.
func statusIn(text string) int {
	if m := inText.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	text = strings.TrimRight(strings.TrimSpace(text), ".")
	for status := 400; status < 600; status++ {
		if words := http.StatusText(status); words != "" && (strings.EqualFold(text, words) || strings.EqualFold(text, strconv.Itoa(status)+" "+words)) {
			return status
		}
	}
	return 0
}

// The function "failed" returns the status if a failed request can have it, and 0 otherwise.
func failed(status int) int {
	if status < 400 || status > 599 {
		return 0
	}
	return status
}
