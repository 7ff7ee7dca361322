package command

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// ProviderFailed reports that a request to the provider of the model has failed, and that the
// program does not repeat it. It does not end the turn. If the agent does nothing afterwards and the
// turn ends with [bgagent.StopError], the error of RunTurn wraps e. Only the last call counts; a
// call with a zero e.Kind means that the last failure was not one of the provider. A decoder must
// take the fields of e from fields and messages that report an error, and never from an answer or
// from the output of a tool.
//
// If e.Next is [bgagent.NextContinue], the program has kept the prompt in its session. If no
// session can be continued, the client replaces this step with [bgagent.NextNone] or
// [bgagent.NextNewSession]. It replaces any other step with [bgagent.NextNone] if the agent has
// called a tool. If e.RetryAt has passed or is more than 366 days away, the client ignores it. If
// e.Message is empty, the client uses the problem of the turn.
func (o *Output) ProviderFailed(e bgagent.ProviderError) {
	e = plausible(e)
	o.locked(func() {
		if o.failed = &e; e.Kind == 0 {
			o.failed = nil
		}
	})
}

// plausible returns the failure with one line as its message, and without a RetryAt that has passed
// or is too far away.
func plausible(e bgagent.ProviderError) bgagent.ProviderError {
	e.Message = oneLine(bounded(e.Message))
	e.RetryAt = apifault.Ahead(e.RetryAt, time.Now())
	return e
}

// Retrying reports that a request to the provider of the model has failed, and that the program
// repeats it at the given time; see [bgagent.Reporter.Retrying]. The time is zero if it is not known.
// The field Tries of e is the number of requests so far. Do not call Retrying if the network of
// this machine can be the cause, because the manager then holds back the other turns with the
// model.
func (o *Output) Retrying(e bgagent.ProviderError, at time.Time) {
	o.Known()
	o.retries(e, at)
}

// retries does the same as Retrying, but does not mark a line as known. It is for standard error.
func (o *Output) retries(e bgagent.ProviderError, at time.Time) {
	e = plausible(e)
	o.tried(e.Tries)
	o.mu.Lock()
	over, session, called := o.end != nil, o.session, len(o.tools) > 0
	e.Tries = o.tries
	o.mu.Unlock()
	if over || e.Kind == 0 {
		return
	}
	if o.step != nil {
		e.Next = o.step(e.Next, session, called)
	}
	o.r.Retrying(e, at)
}

// tried records the number of requests that the program has made for the current answer.
func (o *Output) tried(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tries = max(o.tries, n)
}

// refused records the status of the last answer that standard error has shown.
func (o *Output) refused(status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status = status
}

// triesAtEnd returns the number of requests that the program has made for the current answer, if it
// makes no more. The number is one more than the number of retries that the program has shown,
// because the first request is not a retry.
func (o *Output) triesAtEnd() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tries + 1
}

// step returns how the client can go on with the turn after a failure at the provider. The argument
// "want" is the step that the decoder has reported. The argument "session" is the id that the
// program has reported in the turn, and "called" reports whether the agent has called a tool.
func (t *turn) step(want bgagent.ProviderNextStep, session string, called bool) bgagent.ProviderNextStep {
	switch {
	case want != bgagent.NextContinue && called: // the model would not see the calls
		return bgagent.NextNone
	case want != bgagent.NextContinue:
		return want
	case t.session.agent.Program.Resume.isZero():
		return bgagent.NextNone
	case t.forgets && !called:
		if t.follows { // the next turn begins a new session of the program, with all prompts so far
			return bgagent.NextContinue
		}
		return bgagent.NextNewSession
	case t.own != "" || session != "":
		return bgagent.NextContinue
	case called: // the calls would be lost with the program's session
		return bgagent.NextNone
	case t.follows: // the next turn repeats the conversation
		return bgagent.NextContinue
	}
	return bgagent.NextNewSession
}

// provider returns the failure at the provider that made the turn fail, or nil if the turn has
// failed for another reason.
func (t *turn) provider(said said, x outcome, problem string) *bgagent.ProviderError {
	e := said.failed
	if explain := t.session.agent.Program.explain; explain != nil {
		e = explain(e, said, x)
	}
	if e == nil || e.Kind == 0 {
		return nil
	}
	failure := *e
	failure.Next = t.step(e.Next, said.session, len(said.tools) > 0)
	failure.Message = cmp.Or(failure.Message, problem)
	return &failure
}

// keepsNothing reports whether the program has lost its session because the turn has failed before
// the agent's first whole answer.
func (t *turn) keepsNothing(said said) bool {
	return t.session.agent.Program.ForgetsUnanswered && len(said.tools) == 0 && said.end != nil && said.end.stop == bgagent.StopError
}

// failureOf returns a failure with the kind that kindOf returns. The kind decides the scope: limits of
// an account, and rejected keys, concern all models of the provider.
func failureOf(status int, words ...string) bgagent.ProviderError {
	e := bgagent.ProviderError{Kind: kindOf(status, words...), Status: status, Next: bgagent.NextContinue}
	if e.Kind == bgagent.ProviderQuota || e.Kind == bgagent.ProviderAuthentication {
		e.Scope = bgagent.ScopeProvider
	}
	return e
}

// exactWords are the words with which providers and programs report failures that the HTTP status
// alone does not identify. looseWords count only if there is no status.
var (
	exactWords = map[string]bgagent.ProviderErrorKind{
		"insufficient_quota": bgagent.ProviderQuota, "billing_error": bgagent.ProviderQuota, "usage_limit_reached": bgagent.ProviderQuota,

		"context_length_exceeded": bgagent.ProviderTooLong, "request_too_large": bgagent.ProviderTooLong, "prompt_too_long": bgagent.ProviderTooLong,
		"contextoverflowerror": bgagent.ProviderTooLong,

		"model_not_found": bgagent.ProviderUnknownModel, "model_not_allowed": bgagent.ProviderUnknownModel,
		"providermodelnotfounderror": bgagent.ProviderUnknownModel,

		"authentication_failed": bgagent.ProviderAuthentication, "authentication_error": bgagent.ProviderAuthentication,
		"permission_error": bgagent.ProviderAuthentication, "invalid_api_key": bgagent.ProviderAuthentication, "api_key_invalid": bgagent.ProviderAuthentication,
		"oauth_org_not_allowed": bgagent.ProviderAuthentication, "providerautherror": bgagent.ProviderAuthentication,
	}
	looseWords = map[string]bgagent.ProviderErrorKind{
		"rate_limit": bgagent.ProviderRateLimited, "rate_limit_error": bgagent.ProviderRateLimited, "rate_limit_exceeded": bgagent.ProviderRateLimited,
		"resource_exhausted": bgagent.ProviderRateLimited,

		"overloaded": bgagent.ProviderOverloaded, "overloaded_error": bgagent.ProviderOverloaded, "server_is_overloaded": bgagent.ProviderOverloaded,
		"service_unavailable_error": bgagent.ProviderOverloaded, "unavailable": bgagent.ProviderOverloaded,

		"server_error": bgagent.ProviderBroken, "api_error": bgagent.ProviderBroken, "internal": bgagent.ProviderBroken, "timeout_error": bgagent.ProviderBroken,
		"connection_failed": bgagent.ProviderBroken,
	}
)

// kindOf returns the kind of a failure for the status and the words with which it was reported, or
// zero if it was not a failure at the provider. The status can be zero. Of several loose words, the
// one with the lowest kind counts, because "server_error" is often added to a more exact word.
func kindOf(status int, words ...string) (kind bgagent.ProviderErrorKind) {
	for _, w := range words {
		if k := exactWords[strings.ToLower(w)]; k != 0 {
			return k
		}
	}
	switch {
	case status == http.StatusTooManyRequests:
		return bgagent.ProviderRateLimited
	case status == http.StatusServiceUnavailable || status == 529:
		return bgagent.ProviderOverloaded
	case status >= 500 && status <= 599:
		return bgagent.ProviderBroken
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return bgagent.ProviderAuthentication
	case status == http.StatusPaymentRequired:
		return bgagent.ProviderQuota
	case status == http.StatusRequestEntityTooLarge:
		return bgagent.ProviderTooLong
	case status != 0:
		return 0
	}
	for _, w := range words {
		if k := looseWords[strings.ToLower(w)]; k != 0 && (kind == 0 || k < kind) {
			kind = k
		}
	}
	return kind
}

// providerFault is an error in the form in which providers report it. The fields come from several
// protocols.
type providerFault struct {
	Type     wording
	Status   wording
	Message  wording
	Code     code
	Details  []struct{ Reason wording }
	ResetsAt count `json:"resets_at"` // Unix time in seconds
	Error    *providerFault
}

// code is a code of an error, which is a number or a word.
type code struct {
	number count
	word   wording
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *code) UnmarshalJSON(data []byte) error {
	_, _ = c.number.UnmarshalJSON(data), c.word.UnmarshalJSON(data) // never fail
	return nil
}

// readFault returns the provider's error in a text that contains a JSON object. Without such an
// object, it returns a zero value.
func readFault(text string) (f providerFault) {
	begin, end := strings.IndexByte(text, '{'), strings.LastIndexByte(text, '}')
	if begin < 0 || end < begin || !json.Valid([]byte(text[begin:end+1])) || !jsonlines.Decode([]byte(text[begin:end+1]), &f) {
		return providerFault{}
	}
	for f.Error != nil && f.Error.tells() {
		f = *f.Error
	}
	return f
}

// tells reports whether the error has any field that is known. An error that is only a text has none.
func (f *providerFault) tells() bool {
	return f.Error != nil || strings.Join(f.words(), "")+string(f.Message) != "" || f.Code.number != 0 || f.ResetsAt != 0
}

// words returns the words of the error that kindOf knows.
func (f *providerFault) words() []string {
	words := []string{string(f.Code.word), string(f.Type), string(f.Status)}
	for _, d := range f.Details {
		words = append(words, string(d.Reason))
	}
	return words
}

// reset returns the time from which the provider accepts requests again, as stated in the error.
func (f *providerFault) reset() time.Time { return unixTime(f.ResetsAt) }

// digits converts a text of digits to a number. If the number is too large, the result is one
// million.
func digits(text string) int {
	n, _ := strconv.Atoi(text)
	return min(n, 1e6)
}

// small returns a number of tries, or an HTTP status.
func small(c count) int { return int(min(c.tokens(), 1e6)) }

// unixTime returns the time for a number of seconds, or a zero time if the number cannot be one.
func unixTime(seconds count) time.Time {
	if seconds <= 0 || seconds > 1e11 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// retryAfter returns the time that a header "Retry-After" gives, as a number of seconds or as a date.
// The argument "millis" is the header "Retry-After-Ms", which some providers also send.
func retryAfter(after, millis string, now time.Time) time.Time {
	if n, err := strconv.ParseFloat(millis, 64); err == nil && n > 0 && n < 1e12 {
		return now.Add(time.Duration(n * float64(time.Millisecond)))
	}
	if n, err := strconv.ParseFloat(after, 64); err == nil && n > 0 && n < 1e9 {
		return now.Add(time.Duration(n * float64(time.Second)))
	}
	if at, err := http.ParseTime(after); err == nil {
		return at
	}
	return time.Time{}
}
