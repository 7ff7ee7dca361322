package command

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// This file contains what the programs print about failures at the provider of the model. The texts
// come from the tested versions. A text is compared only if it is the message of an error.

// claudeFailure has the fields in which claude describes a failed request. They are in synthetic
// messages and in results.
type claudeFailure struct {
	Status count  `json:"api_error_status"`
	Kind   string `json:"api_error_type"` // type that the provider has sent
	Own    string `json:"api_error"`      // claude's own word
}

// claudeLimit is the limit in a line of type "rate_limit_event".
type claudeLimit struct {
	Status string
	Resets count  `json:"resetsAt"`       // Unix time in seconds
	Window string `json:"rateLimitType"`  // for example "five_hour"
	Paid   yesNo  `json:"isUsingOverage"` // whether requests beyond the limit are paid for and accepted
}

// failed reports the failed request in a synthetic message or in a result. The argument "word" is
// claude's word for the error, or for the reason of the end.
func (d *claudeDecoder) failed(f claudeFailure, word string) {
	e := failureOf(small(f.Status), word, f.Own, f.Kind)
	if e.Kind == 0 {
		return
	}
	if d.limit.Status == "rejected" && !bool(d.limit.Paid) && (e.Kind == bgagent.ProviderRateLimited || e.Kind == bgagent.ProviderQuota) {
		e.Kind, e.Scope, e.RetryAt = bgagent.ProviderQuota, bgagent.ScopeProvider, unixTime(d.limit.Resets)
		if strings.Contains(d.limit.Window, "opus") || strings.Contains(d.limit.Window, "sonnet") {
			e.Scope = bgagent.ScopeModel
		}
	}
	e.Tries = d.o.triesAtEnd()
	d.o.ProviderFailed(e)
}

// resultFailed reports the failed request in a result, unless the synthetic message before it has
// described the request better.
func (d *claudeDecoder) resultFailed(x *claudeLine) {
	if x.Why == "prompt_too_long" || d.o.said().failed == nil {
		word := ""
		if x.Why == "prompt_too_long" {
			word = x.Why
		}
		d.failed(x.claudeFailure, word)
	}
}

// retrying reports a line with the subtype "api_retry". Without a status, the connection has failed.
// This can be the fault of this machine's network, so it must not hold other turns back.
func (d *claudeDecoder) retrying(x *claudeLine, text string) {
	if x.claudeRetry.Status <= 0 {
		return
	}
	e := failureOf(small(x.claudeRetry.Status), x.Error)
	e.Tries, e.Message = small(x.Attempt), text
	var at time.Time
	if x.Delay > 0 {
		at = time.Now().Add(time.Duration(min(x.Delay, 1e9)) * time.Millisecond)
	}
	d.o.Retrying(e, at)
}

// Forms of codex's messages.
var (
	codexRetry  = regexp.MustCompile(`(?s)^Reconnecting\.\.\. (\d+)/\d+ \((.*)\)$`)
	codexStatus = regexp.MustCompile(`^(?:exceeded retry limit, last status:|unexpected status) (\d{3})\b`)
	codexModel  = regexp.MustCompile(`^(?:unexpected status \d{3} [^:]*: )?(?:The model .*does not exist or you do not have access to it|You are not allowed to sample from this model)`)
)

// codexTexts are beginnings of codex's messages about failures.
var codexTexts = []struct {
	text string
	kind bgagent.ProviderErrorKind
}{
	{"You’ve hit your usage limit", bgagent.ProviderQuota}, {"You've hit your usage limit", bgagent.ProviderQuota}, {"Quota exceeded.", bgagent.ProviderQuota},
	{"Selected model is at capacity", bgagent.ProviderOverloaded},
	{"We’re currently experiencing high demand", bgagent.ProviderBroken}, {"We're currently experiencing high demand", bgagent.ProviderBroken},
	{"Codex ran out of room in the model's context window", bgagent.ProviderTooLong}, {"Codex ran out of room in the model’s context window", bgagent.ProviderTooLong},
}

// codexStream is the beginning of codex's message about a stream that broke off. The provider's
// message follows if the provider has reported an error in the stream.
const codexStream = "stream disconnected before completion: "

// codexIncomplete follows codexStream if the model's answer was cut off. The reason comes after it.
const codexIncomplete = "Incomplete response returned"

// codexStop returns the stop reason of a turn that codex has given up with the message.
func codexStop(text string) bgagent.StopReason {
	if reason, ok := strings.CutPrefix(strings.TrimSpace(text), codexStream+codexIncomplete+", reason: "); ok {
		if stop, known := stopOf(reason); known {
			return stop
		}
	}
	return bgagent.StopError
}

// codexFailure returns the failure that a message of codex describes. Its kind is zero if the message
// does not describe a failure at the provider. The result "told" reports whether the provider has
// answered. The cause is then certainly not this machine's network.
func codexFailure(text string) (e bgagent.ProviderError, told bool) {
	text = strings.TrimSpace(text)
	if m := codexStatus.FindStringSubmatch(text); m != nil {
		status, _ := strconv.Atoi(m[1])
		f := readFault(text)
		words := f.words()
		if codexModel.MatchString(text) {
			words = append(words, "model_not_allowed")
		}
		return failureOf(status, words...), true
	}
	if rest, ok := strings.CutPrefix(text, codexStream); ok {
		low := strings.ToLower(rest)
		switch {
		case strings.HasPrefix(rest, codexIncomplete): // the answer was cut, and the provider did not fail
			return bgagent.ProviderError{}, false
		case strings.Contains(low, "overloaded"):
			return failureOf(0, "overloaded"), true
		case strings.HasPrefix(low, "rate limit reached"):
			return failureOf(0, "rate_limit"), true
		}
		return failureOf(0, "connection_failed"), false
	}
	if codexModel.MatchString(text) {
		return failureOf(0, "model_not_found"), true
	}
	for _, c := range codexTexts {
		if strings.HasPrefix(text, c.text) {
			e = bgagent.ProviderError{Kind: c.kind, Next: bgagent.NextContinue}
			if c.kind == bgagent.ProviderQuota {
				e.Scope = bgagent.ScopeProvider
			}
			return e, true
		}
	}
	f := readFault(text)
	return failureOf(0, f.words()...), true
}

// codexGivesUp reports the failure in the last message about a failed request.
func codexGivesUp(text string, o *Output) {
	if text == "" {
		return
	}
	e, _ := codexFailure(text)
	// Codex shows that it opens a stream again. It does not show that it repeats a request because the
	// provider is overloaded or broken.
	if e.Kind != bgagent.ProviderOverloaded && e.Kind != bgagent.ProviderBroken || strings.HasPrefix(text, codexStream) {
		e.Tries = o.triesAtEnd()
	}
	o.ProviderFailed(e)
}

// codexRetries handles a message "Reconnecting... 1/5 (…)". It reports whether the turn must end,
// because the key was rejected. Status 403 alone does not show that: a proxy can refuse a single request
// with it. Such a retry is not reported to the manager, which would end the task because of it. If
// the model does not exist or may not be used, a retry is not reported either, because it says nothing
// about when the provider will accept requests.
func codexRetries(number, text string, o *Output) (rejected bool) {
	n := digits(number)
	e, told := codexFailure(text)
	o.tried(n)
	if e.Kind == bgagent.ProviderAuthentication {
		if f := readFault(text); e.Status == http.StatusForbidden && kindOf(0, f.words()...) != bgagent.ProviderAuthentication {
			return false
		}
		e.Tries = n
		o.ProviderFailed(e)
		return true
	}
	if told && e.Kind != bgagent.ProviderUnknownModel {
		e.Message = errorText(text)
		o.Retrying(e, time.Time{})
	}
	return false
}

// Forms of the lines that gemini prints on standard error.
var (
	geminiRetry = regexp.MustCompile(`^Attempt (\d+) failed with status (\d{3})\. Retrying with backoff\.\.\.(.*)`)
	geminiTry   = regexp.MustCompile(`^Attempt (\d+) failed: (.*)`)
	geminiWait  = regexp.MustCompile(`\. Retrying after (\d+)ms\.\.\.$`) // at the end of a message that can have several lines
	geminiError = regexp.MustCompile(`(?m)^Error when talking to Gemini API .*?\b([A-Za-z]+Error): `)
)

// decodeGeminiErrors returns a function that reads the lines of gemini's standard error. Gemini prints
// its retries there.
func decodeGeminiErrors() func(line string, o *Output) {
	last := "" // message of the last failed attempt
	return func(line string, o *Output) {
		if m := geminiRetry.FindStringSubmatch(line); m != nil {
			n, status := digits(m[1]), digits(m[2])
			f := readFault(m[3])
			e := failureOf(status, f.words()...)
			e.Tries, e.Message = n, string(f.Message)
			o.refused(status)
			o.retries(e, time.Time{})
		} else if m := geminiTry.FindStringSubmatch(line); m != nil {
			o.tried(digits(m[1]))
			last = m[2]
		}
		if m := geminiWait.FindStringSubmatch(line); m != nil && last != "" {
			e := failureOf(429) // gemini waits for a given time only after this status
			e.Message, last = geminiWait.ReplaceAllString(last, ""), ""
			millis, _ := strconv.Atoi(m[1])
			o.refused(429)
			o.retries(e, time.Now().Add(time.Duration(min(millis, 1e9))*time.Millisecond))
		}
	}
}

// geminiAPI is the beginning of gemini's message about a failed request.
const geminiAPI = "[API Error: "

// geminiFailed reports the failure in the message of an error or of a result. The kind of some
// failures is known only after gemini has exited; see geminiExplains.
func geminiFailed(text string, o *Output) {
	var e bgagent.ProviderError
	rest, api := strings.CutPrefix(text, geminiAPI)
	switch {
	case strings.HasPrefix(text, "Model stream ended without a finish reason"), api && strings.HasPrefix(rest, "terminated]"):
		e = failureOf(0, "connection_failed")
	case api && strings.Contains(rest, "exceeds the maximum number of tokens"):
		e = failureOf(0, "prompt_too_long")
	case api && strings.HasPrefix(rest, "You have exhausted your daily quota on this model"):
		e = failureOf(0, "insufficient_quota")
		e.Scope = bgagent.ScopeModel
	}
	if f := readFault(text); api && f.Code.number > 0 && e.Kind == 0 {
		e = failureOf(small(f.Code.number), f.words()...)
		if e.Status == 404 && strings.HasPrefix(string(f.Message), "models/") {
			e.Kind = bgagent.ProviderUnknownModel
		}
	}
	if e.Kind != 0 {
		o.ProviderFailed(e)
	}
}

// geminiStatuses are the HTTP statuses that the exit code of gemini can stand for.
var geminiStatuses = []int{400, 401, 403, 404, 413, 429, 500, 502, 503, 504, 529}

// geminiExplains completes the failure of a turn. The exit code of gemini is the HTTP status of the
// last answer, modulo 256. Standard error names the kind of the error, and the status of each answer
// after which gemini repeated the request.
func geminiExplains(e *bgagent.ProviderError, said said, x outcome) *bgagent.ProviderError {
	if said.end == nil || said.end.stop != bgagent.StopError || !strings.HasPrefix(said.end.problem, geminiAPI) && e == nil {
		return nil
	}
	status := 0
	if i := slices.IndexFunc(geminiStatuses, func(s int) bool { return s%256 == x.code }); i >= 0 {
		status = geminiStatuses[i]
	}
	if status == 0 && e == nil { // gemini was stopped because it did not exit
		status = said.status
	}
	full := failureOf(status)
	if e != nil {
		full = *e
		if full.Status == 0 {
			full.Status = status
		}
	}
	if all := geminiError.FindAllStringSubmatch(x.stderr, -1); len(all) > 0 {
		switch all[len(all)-1][1] {
		case "TerminalQuotaError": // a quota of the model, usually for a day
			full.Kind, full.Scope = bgagent.ProviderQuota, bgagent.ScopeModel
		case "ModelNotFoundError":
			full.Kind = bgagent.ProviderUnknownModel
		}
	}
	if full.Tries == 0 {
		full.Tries = said.tries
	}
	return &full
}

// opencodeFault is the error in a line of type "error".
type opencodeFault struct {
	fault
	name string
	data struct {
		Message   string
		Status    count              `json:"statusCode"`
		Retryable yesNo              `json:"isRetryable"`
		Headers   map[string]wording `json:"responseHeaders"`
		Body      string             `json:"responseBody"`
	}
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *opencodeFault) UnmarshalJSON(data []byte) error {
	_ = f.fault.UnmarshalJSON(data) // never fails
	var x struct {
		Name string
		Data json.RawMessage
	}
	if jsonlines.Decode(data, &x) {
		f.name = x.Name
		jsonlines.Decode(x.Data, &f.data)
	}
	return nil
}

// failed reports the failure that the error describes.
func (f *opencodeFault) failed(o *Output) {
	body := readFault(f.data.Body)
	if f.data.Body == "" {
		body = readFault(f.data.Message)
	}
	e := failureOf(small(f.data.Status), append(body.words(), f.name, string(body.Message))...)
	if e.Kind == 0 && e.Status == 0 && f.name == "APIError" && bool(f.data.Retryable) { // the connection has failed
		e.Kind = bgagent.ProviderBroken
	}
	if e.RetryAt = body.reset(); e.RetryAt.IsZero() {
		e.RetryAt = retryAfter(string(f.data.Headers["retry-after"]), string(f.data.Headers["retry-after-ms"]), time.Now())
	}
	o.ProviderFailed(e)
}
