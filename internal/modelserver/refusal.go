package modelserver

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Reason is the reason for an [Error], if the HTTP status does not describe it well enough. It
// determines the protocol's codes, types and headers, and the message if none is given.
type Reason string

// The reasons. The number after "usually" is the HTTP status that providers use.
const (
	UsageLimit   Reason = "usage-limit" // the usage limit of a plan is reached; usually 429
	Quota        Reason = "quota"       // a quota or the credit is used up; usually 429, Anthropic 400
	TooLong      Reason = "too-long"    // the input is too long for the model; usually 400
	WrongKey     Reason = "key"         // the key is not valid; usually 401, Gemini 400
	UnknownModel Reason = "model"       // the model does not exist; usually 404
	Overload     Reason = "overload"    // the model has no capacity; usually 503, Anthropic 529
)

var reasons = []Reason{UsageLimit, Quota, TooLong, WrongKey, UnknownModel, Overload}

func readReason(word string) (Reason, error) {
	if word == "" || slices.Contains(reasons, Reason(word)) {
		return Reason(word), nil
	}
	return "", fmt.Errorf("%q is not a reason; it can be one of %q", word, reasons)
}

// openaiProblem holds the type, code and message that OpenAI uses to report a reason.
type openaiProblem struct {
	kind    string
	code    any
	message string
}

var openaiProblems = map[Reason]openaiProblem{
	Quota:        {"insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."},
	TooLong:      {"invalid_request_error", "context_length_exceeded", "Your input exceeds the context window of this model. Please adjust your input and try again."},
	WrongKey:     {"invalid_request_error", "invalid_api_key", "Incorrect API key provided: none."},
	UnknownModel: {"invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."},
	Overload:     {"service_unavailable_error", "server_is_overloaded", "Our servers are currently overloaded. Please try again later."},
	UsageLimit:   {"usage_limit_reached", nil, "The usage limit has been reached"},
}

// anthropicProblems holds the type and message that Anthropic uses to report each reason.
var anthropicProblems = map[Reason]struct{ kind, message string }{
	Quota:        {"invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."},
	TooLong:      {"invalid_request_error", "prompt is too long: 213462 tokens > 200000 maximum"},
	WrongKey:     {"authentication_error", "invalid x-api-key"},
	UnknownModel: {"not_found_error", "model: scripted"},
	Overload:     {"overloaded_error", "Overloaded"},
	UsageLimit:   {"rate_limit_error", "This request would exceed your account's rate limit. Please try again later."},
}

// googleProblems holds the message and details that Gemini uses to report each reason.
var googleProblems = map[Reason]struct {
	message string
	detail  map[string]any
}{
	Quota:        {"Resource has been exhausted (e.g. check quota).", nil},
	TooLong:      {"The input token count (1500000) exceeds the maximum number of tokens allowed (1048576).", nil},
	WrongKey:     {"API key not valid. Please pass a valid API key.", map[string]any{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}},
	UnknownModel: {"models/scripted is not found for API version v1beta, or is not supported for generateContent.", nil},
	Overload:     {"The model is overloaded. Please try again later.", nil},
	UsageLimit: {"You exceeded your current quota, please check your plan and billing details.", map[string]any{
		"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []any{map[string]any{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}},
	}},
}

// The method "message" returns the text of the error. If the error has none, the method returns the
// given text, which providers usually use for the reason.
func (e *Error) message(usual string) string {
	if e.Message == "" {
		return usual
	}
	return e.Message
}

// The method "head" sets the headers of a refusal.
func (e *Error) head(name Protocol, h http.Header, now time.Time) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.seconds()))
		if e.Dated {
			h.Set("Retry-After", now.Add(e.RetryAfter+time.Second-1).UTC().Format(http.TimeFormat))
		}
	}
	if e.Reason != UsageLimit {
		return
	}
	reset := strconv.FormatInt(now.Add(e.Reset).Unix(), 10)
	switch name {
	case Chat, Responses:
		h.Set("X-Codex-Primary-Used-Percent", "100")
		h.Set("X-Codex-Primary-Window-Minutes", "300")
		h.Set("X-Codex-Primary-Reset-At", reset)
	case Messages:
		h.Set("Anthropic-Ratelimit-Unified-Status", "rejected")
		h.Set("Anthropic-Ratelimit-Unified-Reset", reset)
		h.Set("Anthropic-Ratelimit-Unified-Representative-Claim", "five_hour")
	}
}

// chatProblem returns an error in the form that OpenAI's platform uses.
func chatProblem(e *Error) map[string]any {
	p, known := openaiProblems[e.Reason]
	if !known {
		p.kind = "invalid_request_error"
		switch status := e.status(); {
		case status == http.StatusUnauthorized:
			p.code = "invalid_api_key"
		case status == http.StatusNotFound:
			p.code = "model_not_found"
		case status == http.StatusTooManyRequests:
			p.kind, p.code = "rate_limit_error", "rate_limit_exceeded"
		case status == 529:
			p.kind = "overloaded_error"
		case status >= 500:
			p.kind = "server_error"
		}
	}
	fields := map[string]any{"message": e.message(p.message), "type": p.kind, "param": nil, "code": p.code}
	if e.Reason == UsageLimit {
		fields = map[string]any{"message": e.message(p.message), "type": p.kind, "plan_type": "plus",
			"resets_at": time.Now().Add(e.Reset).Unix(), "resets_in_seconds": int(e.Reset / time.Second)}
	}
	return map[string]any{"error": fields}
}

// messagesTypes maps HTTP statuses to the error types of Anthropic's protocol.
var messagesTypes = map[int]string{
	400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
	404: "not_found_error", 409: "conflict_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}

// messagesProblem returns an error in the form that Anthropic uses.
func messagesProblem(e *Error) map[string]any {
	p := anthropicProblems[e.Reason]
	if p.kind == "" {
		p.kind = messagesTypes[e.status()]
	}
	switch {
	case p.kind == "" && e.status() >= 500:
		p.kind = "api_error"
	case p.kind == "":
		p.kind = "invalid_request_error"
	}
	return map[string]any{"type": "error", "error": map[string]any{"type": p.kind, "message": e.message(p.message)}}
}

// geminiStatus maps HTTP statuses to the names of google.rpc.Code.
var geminiStatus = map[int]string{
	400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
	429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 529: "UNAVAILABLE",
}

// geminiProblem returns an error in the form that Gemini uses.
func geminiProblem(e *Error) map[string]any {
	status := geminiStatus[e.status()]
	if status == "" {
		status = "UNKNOWN"
	}
	p := googleProblems[e.Reason]
	problem := map[string]any{"code": e.status(), "message": e.message(p.message), "status": status}
	var details []any
	if p.detail != nil {
		details = append(details, p.detail)
	}
	if wait := max(e.RetryAfter, e.Reset); wait > 0 {
		details = append(details, map[string]any{
			"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": fmt.Sprintf("%ds", (wait+time.Second-1)/time.Second),
		})
	}
	if details != nil {
		problem["details"] = details
	}
	return map[string]any{"error": problem}
}
