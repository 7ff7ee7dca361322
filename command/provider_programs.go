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
	"github.com/bgagent/bgagent/internal/apifault"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// The code in this file recognizes what the programs print about failures at the model provider. The
// wording comes from the tested versions. The same wording outside of an error message is ignored.

// claudeFailure has the fields that claude uses to describe a failed request. They occur in
// synthetic messages and in results.
type claudeFailure struct {
	Status count  `json:"api_error_status"`
	Kind   string `json:"api_error_type"` // type that the provider sent
	Own    string `json:"api_error"`      // claude's own word
}

// claudeLimit describes a limit that was reported in a line of the type "rate_limit_event".
type claudeLimit struct {
	Status string
	Resets count  `json:"resetsAt"`       // Unix time in seconds
	Window string `json:"rateLimitType"`  // for example "five_hour"
	Paid   yesNo  `json:"isUsingOverage"` // whether requests beyond the limit are paid for and accepted
}

// The method "failed" reports the request failure that a synthetic message or a result describes.
// word holds claude's term for the error, or for the reason why the turn ended.
func (d *claudeDecoder) failed(f claudeFailure, word string) {
	e := failureOf(apifault.Fault{Status: small(f.Status), Names: []string{word, f.Own, f.Kind}})
	if e.Kind == 0 {
		return
	}
	if d.limit.Status == "rejected" && !bool(d.limit.Paid) && (e.Kind == bgagent.ProviderRateLimited || e.Kind == bgagent.ProviderQuota) {
		e.Kind, e.Scope, e.RetryAt = bgagent.ProviderQuota, bgagent.ScopeProvider, apifault.Unix(float64(d.limit.Resets))
		if strings.Contains(d.limit.Window, "opus") || strings.Contains(d.limit.Window, "sonnet") {
			e.Scope = bgagent.ScopeModel
		}
	}
	e.Tries = d.o.triesAtEnd()
	d.o.ProviderFailed(e)
}

// resultFailed reports the request failure that a result describes. If a failure has already been
// reported, resultFailed does nothing unless the result says that the prompt is too long.
func (d *claudeDecoder) resultFailed(x *claudeLine) {
	if x.Why == "prompt_too_long" || d.o.said().failed == nil {
		word := ""
		if x.Why == "prompt_too_long" {
			word = x.Why
		}
		d.failed(x.claudeFailure, word)
	}
}

// The method "retrying" reports the retry in a line with the subtype "api_retry". If the line has
// no status, the connection failed. This machine's network can be the cause, so the retry is not
// reported and does not hold back other turns.
func (d *claudeDecoder) retrying(x *claudeLine, text string) {
	if x.claudeRetry.Status <= 0 {
		return
	}
	e := retryOf(apifault.Fault{Status: small(x.claudeRetry.Status), Names: []string{x.Error}})
	e.Tries, e.Message = small(x.Attempt), text
	var at time.Time
	if x.Delay > 0 {
		at = time.Now().Add(time.Duration(min(x.Delay, 1e9)) * time.Millisecond)
	}
	d.o.Retrying(e, at)
}

// codexRetry matches codex's message about a request that it retries.
var codexRetry = regexp.MustCompile(`(?s)^Reconnecting\.\.\. (\d+)/\d+ \((.*)\)$`)

// codexStream is the beginning of codex's message about a stream that was cut off. If the provider
// reported an error in the stream, the provider's message follows.
const codexStream = "stream disconnected before completion: "

// codexIncomplete follows codexStream in a message if the model's answer was cut off. The reason
// for that comes after codexIncomplete.
const codexIncomplete = "Incomplete response returned"

// codexStop returns the stop reason for a turn that codex ended with the given error message.
func codexStop(text string) bgagent.StopReason {
	if reason, ok := strings.CutPrefix(strings.TrimSpace(text), codexStream+codexIncomplete+", reason: "); ok {
		if stop, known := stopOf(reason); known {
			return stop
		}
	}
	return bgagent.StopError
}

// codexGivesUp reports the failure that codex's last message about a failed request describes.
func codexGivesUp(text string, o *Output) {
	if text == "" {
		return
	}
	e := failureOf(apifault.Fault{Text: text}.OfCodex())
	// The number of tries is known only if codex shows each retry. Codex shows when it reopens a stream.
	// It does not show when it retries a request because the provider is overloaded or broken.
	if e.Kind != bgagent.ProviderOverloaded && e.Kind != bgagent.ProviderBroken || strings.HasPrefix(text, codexStream) {
		e.Tries = o.triesAtEnd()
	}
	o.ProviderFailed(e)
}

// codexRetries handles a message "Reconnecting... 1/5 (…)". It reports whether the turn must end
// because the key was rejected. If the model does not exist or must not be used, a retry is not
// reported to the manager, because it says nothing about when the provider will accept requests.
func codexRetries(number, text string, o *Output) (rejected bool) {
	n := digits(number)
	o.tried(n)
	e := retryOf(apifault.Fault{Text: text})
	switch e.Kind {
	case bgagent.ProviderAuthentication:
		e.Tries = n
		o.ProviderFailed(e)
		return true
	case bgagent.ProviderUnknownModel:
		return false
	}
	e.Message = errorText(text)
	o.Retrying(e, time.Time{})
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
			_, answer, _ := strings.Cut(m[3], "_ApiError: ")
			e := retryOf(apifault.Fault{Status: status, Text: answer})
			e.Tries, e.Message = n, errorText(answer)
			o.refused(status)
			o.retries(e, time.Time{})
		} else if m := geminiTry.FindStringSubmatch(line); m != nil {
			o.tried(digits(m[1]))
			last = m[2]
		}
		if m := geminiWait.FindStringSubmatch(line); m != nil && last != "" {
			e := failureOf(apifault.Fault{Status: http.StatusTooManyRequests}) // gemini waits for a given time only after this status
			e.Message, last = geminiWait.ReplaceAllString(last, ""), ""
			millis, _ := strconv.Atoi(m[1])
			o.refused(http.StatusTooManyRequests)
			o.retries(e, time.Now().Add(time.Duration(min(millis, 1e9))*time.Millisecond))
		}
	}
}

// geminiAPI is the beginning of gemini's message about a failed request.
const geminiAPI = "[API Error: "

// geminiFault returns what an error message or a result's message says about a failed request. If
// the message is about something else, ok is false.
func geminiFault(text string) (f apifault.Fault, ok bool) {
	text = strings.TrimSpace(text)
	rest, api := strings.CutPrefix(text, geminiAPI)
	switch {
	case strings.HasPrefix(text, "Model stream ended without a finish reason"), api && strings.HasPrefix(rest, "terminated]"):
		return apifault.Fault{Names: []string{"connection_failed"}}, true
	case api:
		if end := strings.LastIndexByte(rest, ']'); end >= 0 { // gemini's advice follows the bracket
			rest = rest[:end]
		}
		return apifault.Fault{Text: rest}, true
	}
	return f, false
}

// geminiFailed reports the failure that an error message or a result's message describes. The kind
// of some failures is known only after gemini has exited; see geminiExplains.
func geminiFailed(text string, o *Output) {
	if f, ok := geminiFault(text); ok {
		if e := failureOf(f); e.Kind != 0 {
			o.ProviderFailed(e)
		}
	}
}

// geminiStatuses are the HTTP statuses that gemini's exit code can stand for.
var geminiStatuses = []int{400, 401, 403, 404, 413, 429, 500, 502, 503, 504, 529}

// geminiExplains returns the failure of a turn, completed with what gemini's exit code and standard
// error show. If no failed request made the turn fail, it returns nil. Gemini's exit code is the HTTP
// status of the last answer, modulo 256. Standard error names the kind of the error, and the status
// of each answer after which gemini retried the request.
func geminiExplains(e *bgagent.ProviderError, said said, x outcome) *bgagent.ProviderError {
	if said.end == nil || said.end.stop != bgagent.StopError {
		return nil
	}
	f, ok := geminiFault(said.end.problem)
	if !ok && e == nil {
		return nil
	}
	if i := slices.IndexFunc(geminiStatuses, func(s int) bool { return s%256 == x.code }); i >= 0 {
		f.Status = geminiStatuses[i]
	} else if ok && len(f.Names) == 0 { // gemini did not exit on its own, and the connection did not fail
		f.Status = said.status
	}
	full := bgagent.ProviderError{Next: bgagent.NextContinue}
	if e != nil {
		full = *e
	}
	if full.Status == 0 && f.Status != 0 {
		if f.Status == http.StatusTooManyRequests {
			f.Names = append(f.Names, "RESOURCE_EXHAUSTED") // Google's name for this status
		}
		if known := failureOf(f); ok && known.Kind != 0 || e == nil {
			full = known
		}
		full.Status = f.Status
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

// The method "failed" reports the failure that the error describes.
func (f *opencodeFault) failed(o *Output) {
	d := &f.data
	headers := make(map[string]string, len(d.Headers))
	for name, value := range d.Headers {
		headers[name] = string(value)
	}
	e := failureOf(apifault.Fault{Status: small(d.Status), Names: []string{f.name}, Text: d.Message, Headers: headers, Body: d.Body}.OfOpencode())
	if e.Kind == 0 && small(d.Status) == 0 && f.name == "APIError" && bool(d.Retryable) { // the connection failed
		e.Kind = bgagent.ProviderBroken
	}
	o.ProviderFailed(e)
}
