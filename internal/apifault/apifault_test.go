package apifault

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// google returns the body of a response from Gemini's API about an exceeded quota.
func google(quota, delay string) string {
	return `{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[
		{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"requests","quotaId":"` + quota + `","quotaValue":"10"}]},
		{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"` + delay + `"},7]}}`
}

func TestTheKindComesFromNamesStatusesAndMessages(t *testing.T) {
	for _, x := range []struct {
		fault  Fault
		kind   bgagent.ProviderErrorKind
		status int
	}{
		{Fault{Status: 429}, bgagent.ProviderRateLimited, 429},
		{Fault{Status: 429, Text: "You exceeded your current quota"}, bgagent.ProviderQuota, 429},
		{Fault{Status: 429, Body: `{"error":{"type":"insufficient_quota","code":null,"message":"no"}}`}, bgagent.ProviderQuota, 429},
		{Fault{Status: 429, Body: `<html>`}, bgagent.ProviderRateLimited, 429},
		{Fault{Status: 500}, bgagent.ProviderBroken, 500},
		{Fault{Status: 500, Text: "Overloaded"}, bgagent.ProviderOverloaded, 500},
		{Fault{Status: 502}, bgagent.ProviderBroken, 502},
		{Fault{Status: 503}, bgagent.ProviderOverloaded, 503},
		{Fault{Status: 529}, bgagent.ProviderOverloaded, 529},
		{Fault{Status: 401, Text: "the rate limit is none of your business"}, bgagent.ProviderAuthentication, 401},
		{Fault{Status: 402}, bgagent.ProviderQuota, 402},
		{Fault{Status: 403}, bgagent.ProviderAuthentication, 403},
		{Fault{Status: 403, Names: []string{"model_not_allowed"}}, bgagent.ProviderUnknownModel, 403},
		{Fault{Status: 404, Text: "model not found"}, bgagent.ProviderUnknownModel, 404},
		{Fault{Status: 404}, 0, 0},
		{Fault{Status: 413}, bgagent.ProviderTooLong, 413},
		{Fault{Status: 400, Text: "Your input exceeds the context window"}, bgagent.ProviderTooLong, 400},
		{Fault{Status: 400, Text: "Credit balance is too low"}, bgagent.ProviderQuota, 400},
		{Fault{Status: 400, Text: "the image is overloaded with text"}, 0, 0},
		{Fault{Text: `{"type":"server_error","message":"Overloaded"}`}, bgagent.ProviderOverloaded, 0},
		{Fault{Text: `{"type":"server_error","message":"oh"}`}, bgagent.ProviderBroken, 0},
		{Fault{Text: "unexpected status 529 <unknown>"}, bgagent.ProviderOverloaded, 529},
		{Fault{Text: "exceeded retry limit, last status: 429 Too Many Requests"}, bgagent.ProviderRateLimited, 429},
		{Fault{Names: []string{"rate_limit"}, Text: "You've hit your limit"}, bgagent.ProviderQuota, 0},
		{Fault{Status: 429, Text: "You exceeded your current quota.\nPlease retry in 12s."}, bgagent.ProviderRateLimited, 429},
		{Fault{Text: "You exceeded your current quota. Please retry in 12s."}, bgagent.ProviderRateLimited, 0},
		{Fault{Status: 429, Names: []string{"RESOURCE_EXHAUSTED"}, Text: "You exceeded your current quota"}, bgagent.ProviderRateLimited, 429},
		{Fault{Status: 429, Names: []string{"RESOURCE_EXHAUSTED"}, Text: "You have exhausted your daily quota on this model for the account."}, bgagent.ProviderQuota, 429},
		{Fault{Status: 429, Body: google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "26s")}, bgagent.ProviderRateLimited, 429},
		{Fault{Status: 429, Body: google("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "26s")}, bgagent.ProviderQuota, 429},
		{Fault{Status: 429, Body: google("GenerateRequestsPerDayPerProject", "26s")}, bgagent.ProviderQuota, 429},
		{Fault{Status: 429, Body: `{"error":{"type":"insufficient_quota","filler":"` + strings.Repeat("x", maxRead) + `"}}`}, bgagent.ProviderRateLimited, 429},
		{Fault{Text: strings.Repeat("x", maxRead) + " Overloaded"}, 0, 0},
		{Fault{Status: 418, Names: []string{"RATE_LIMIT_EXCEEDED"}}, bgagent.ProviderRateLimited, 418}, // the case of the letters does not matter
		{Fault{Names: []string{"rate_limit", "usage_limit_reached"}}, bgagent.ProviderQuota, 0},        // some providers also call a plan's limit a rate limit
		{Fault{Names: []string{"server_error", "unavailable"}}, bgagent.ProviderOverloaded, 0},
		{Fault{Status: 500, Names: []string{"unavailable"}}, bgagent.ProviderBroken, 500},
		{Fault{Names: []string{"resource_exhausted"}, Text: "You exceeded your current quota"}, bgagent.ProviderRateLimited, 0},
		{Fault{Status: 404, Text: "models/x is not found for API version v1beta"}, bgagent.ProviderUnknownModel, 404},
		{Fault{Text: "The model `x` does not exist or you do not have access to it."}, bgagent.ProviderUnknownModel, 0},
		{Fault{Text: "We’re currently experiencing high demand, which may cause temporary errors."}, bgagent.ProviderBroken, 0},
		{Fault{Text: "502 Bad Gateway"}, bgagent.ProviderBroken, 502}, // the text begins with a status
		{Fault{Text: "gateway timeout."}, bgagent.ProviderBroken, 504},
		{Fault{Text: "Too Many Requests"}, bgagent.ProviderRateLimited, 429},
		{Fault{Text: "Unauthorized"}, bgagent.ProviderAuthentication, 401},
		{Fault{Text: "the gateway answered HTTP 529"}, bgagent.ProviderOverloaded, 529},
		{Fault{Text: "HTTP/1.1 503 no"}, bgagent.ProviderOverloaded, 503},
		{Fault{Text: "request failed with Status Code: 429"}, bgagent.ProviderRateLimited, 429},
		{Fault{Text: "a bad gateway drug"}, 0, 0},
		{Fault{Text: "the file has 429 lines"}, 0, 0},
		{Fault{Status: 1000}, 0, 0}, // 1000 is not a status
		{Fault{Status: -429}, 0, 0},
		{Fault{Status: 200, Text: "Overloaded"}, bgagent.ProviderOverloaded, 0}, // the error came in a stream that had begun with status 200
		// JSON in other text, in JSON, and in strings in JSON.
		{Fault{Text: `[API Error: {"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]`}, bgagent.ProviderRateLimited, 429},
		{Fault{Body: `[{"error":{"code":"503","message":"no"}}]`}, bgagent.ProviderOverloaded, 503},
		{Fault{Body: "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}"}, bgagent.ProviderOverloaded, 0},
		{Fault{Body: `{"error":{"message":"{\"error\":{\"message\":\"x\",\"code\":\"insufficient_quota\"}}","code":"rate_limit"}}`}, bgagent.ProviderQuota, 0},
		{Fault{Body: `{"error":"{\"error\":{\"code\":401}}"}`}, bgagent.ProviderAuthentication, 401},
		{Fault{Body: `{"error":{"details":[{"reason":"API_KEY_INVALID"}],"status":"INVALID_ARGUMENT"}}`, Status: 400}, bgagent.ProviderAuthentication, 400},
		{Fault{Body: `{"error":"no credit","code":"insufficient_quota"}`}, bgagent.ProviderQuota, 0},
		{Fault{Body: `{"error":{"code":"insufficient_quota"},"code":"rate_limit"}`}, bgagent.ProviderQuota, 0},
		{Fault{Body: `{"error":null,"code":"insufficient_quota"}`}, bgagent.ProviderQuota, 0},
		{Fault{Body: `{"type":"error","error":{"type":"overloaded_error","message":"x"},"code":""}`}, bgagent.ProviderOverloaded, 0},
		{Fault{Body: strings.Repeat(`{"error":`, 40) + `{"code":"insufficient_quota"}` + strings.Repeat("}", 40)}, 0, 0},
		// A provider can quote what was sent to the model. The quotation must not
		// decide the kind.
		{Fault{Status: 400, Body: `{"error":{"message":"messages[2] is wrong: {\"error\":{\"code\":\"rate_limit_exceeded\"}}","type":"invalid_request_error"}}`}, 0, 0},
		{Fault{Text: `unexpected status 400 Bad Request: Invalid 'input[3].output': {"error":{"code":"rate_limit_exceeded"}}, url: http://model`}, 0, 0},
		{Fault{Text: `unexpected status 400 Bad Request: bad input {"code":"invalid_api_key"}`}, 0, 0},
		{Fault{Text: `unexpected status 400 Bad Request: bad input {"message":"You've hit your usage limit"}`}, 0, 0},
		{Fault{Text: `unexpected status 529 x: Overloaded {"code":"unauthorized"}`}, bgagent.ProviderOverloaded, 529},
		{Fault{Text: `the tool printed {"error":{"code":503}}`}, 0, 0},
		{Fault{Status: 400, Body: `input: no data: {"error":{"code":"rate_limit_exceeded"}}`}, 0, 0},
		{Fault{Status: 400, Body: `wrong input: {"error":{"code":"rate_limit_exceeded"}}`}, 0, 0},
		{Fault{Text: `unexpected status 400 Bad Request: {"error":{"code":"insufficient_quota"}}, url: http://model`}, bgagent.ProviderQuota, 400},
		{Fault{Text: `API Error: 500 {"type":"error","error":{"type":"overloaded_error","message":"no"}}`}, bgagent.ProviderOverloaded, 500},
		{Fault{Text: `{"error":{"code":429,"message":"no"}} {"error":{"code":"unauthorized"}}`}, bgagent.ProviderRateLimited, 429},
		{Fault{Text: strings.Repeat("{", maxObjects) + `{"error":{"code":"unauthorized"}}`}, 0, 0},
		// Text around an object.
		{Fault{Text: `Provider error {"error":{"message":"slow"}}, last status: 429 Too Many Requests`}, bgagent.ProviderRateLimited, 429},
		{Fault{Text: `Error: {"type":"error","message":"try later"} The model is overloaded`}, bgagent.ProviderOverloaded, 0},
		{Fault{Text: `stream: {"message":"x"} connection reset`}, bgagent.ProviderBroken, 0},
		{Fault{Text: `{"message":"x"} the gateway answered HTTP 503`}, bgagent.ProviderOverloaded, 503},
		{Fault{Text: `{oops} the gateway answered HTTP 503`}, bgagent.ProviderOverloaded, 503},
		// A status field takes precedence over a status in prose.
		{Fault{Text: `{"error":{"code":502,"message":"upstream answered HTTP 404"}}`}, bgagent.ProviderBroken, 502},
		{Fault{Text: "upstream answered HTTP 404", Body: `{"error":{"code":502}}`}, bgagent.ProviderBroken, 502},
		{Fault{Body: `{"error":{"message":"HTTP 503"}}`}, bgagent.ProviderOverloaded, 503},
		{Fault{Text: `unexpected status 503 x: {"error":{"code":404,"message":"HTTP 400"}}`}, bgagent.ProviderOverloaded, 503},
		{Fault{Text: "Agent not found"}, 0, 0},
		{Fault{}, 0, 0},
	} {
		e := x.fault.Error()
		if x.kind == 0 {
			require.Nil(t, e, "%+v", x.fault)
			continue
		}
		require.NotNil(t, e, "%+v", x.fault)
		require.Equal(t, x.kind, e.Kind, "%+v", x.fault)
		require.Equal(t, x.status, e.Status, "%+v", x.fault)
		if strings.Contains(x.fault.Text, "on this model") || strings.Contains(x.fault.Body, "PerModel") {
			require.Equal(t, bgagent.ScopeModel, e.Scope, "%+v", x.fault)
			continue
		}
		require.Equal(t, e.Kind == bgagent.ProviderQuota || e.Kind == bgagent.ProviderAuthentication, e.Scope == bgagent.ScopeProvider, "%+v", x.fault)
	}
	daily := Fault{Text: "You have exhausted your daily quota on this model."}.Error()
	require.Equal(t, bgagent.ScopeModel, daily.Scope)
	require.Nil(t, Fault{Names: []string{"responseStreamDisconnected"}, Text: "stream disconnected before completion: Incomplete response returned, reason: content_filter"}.Error())
	require.True(t, Fault{Text: "stream disconnected before completion: network error"}.Lost())
	require.Nil(t, Fault{Text: "stream disconnected before completion: network error"}.Repeated())
	require.Equal(t, bgagent.ProviderOverloaded, Fault{Text: "stream disconnected before completion: Overloaded"}.Repeated().Kind)
	require.False(t, Fault{Text: "stream disconnected before completion: Overloaded"}.Lost())
	require.False(t, Fault{Status: 500, Text: "connection reset"}.Lost())
}

func TestTheTimeOfTheNextTryComesFromHeadersAndBodiesOnly(t *testing.T) {
	for name, x := range map[string]struct {
		fault Fault
		want  time.Time
	}{
		"seconds":                  {Fault{Headers: map[string]string{"retry-after": "40"}}, noon.Add(40 * time.Second)},
		"a date":                   {Fault{Headers: map[string]string{"retry-after": "Sat, 28 Nov 2026 12:01:00 GMT"}}, noon.Add(time.Minute)},
		"milliseconds":             {Fault{Headers: map[string]string{"retry-after-ms": "1500", "retry-after": "2"}}, noon.Add(1500 * time.Millisecond)},
		"a time in the body":       {Fault{Body: `{"error":{"resets_at":1795870800}}`}, time.Unix(1795870800, 0)},
		"seconds in the body":      {Fault{Body: `{"error":{"resets_in_seconds":60}}`}, noon.Add(time.Minute)},
		"the later of two times":   {Fault{Headers: map[string]string{"retry-after": "40"}, Body: `{"error":{"resets_in_seconds":60}}`}, noon.Add(time.Minute)},
		"a delay from Google":      {Fault{Body: google("PerMinute", "26.5s")}, noon.Add(26500 * time.Millisecond)},
		"no delay from Google":     {Fault{Body: google("PerMinute", "soon")}, time.Time{}},
		"a date that is past":      {Fault{Headers: map[string]string{"retry-after": "Sat, 28 Nov 2026 11:59:00 GMT"}}, time.Time{}},
		"a past reset":             {Fault{Body: `{"error":{"resets_at":1795860000}}`}, time.Time{}},
		"nothing":                  {Fault{Text: "Please try again in 6s."}, time.Time{}},
		"a negative number":        {Fault{Headers: map[string]string{"retry-after": "-1"}}, time.Time{}},
		"not a number":             {Fault{Headers: map[string]string{"retry-after": "NaN"}}, time.Time{}},
		"a date by another clock":  {Fault{Headers: map[string]string{"retry-after": "Sat, 28 Nov 2026 15:01:00 GMT", "date": "Sat, 28 Nov 2026 15:00:00 GMT"}}, noon.Add(time.Minute)},
		"a date before the answer": {Fault{Headers: map[string]string{"retry-after": "Sat, 28 Nov 2026 14:00:00 GMT", "date": "Sat, 28 Nov 2026 15:00:00 GMT"}}, time.Time{}},
		"names in upper case":      {Fault{Headers: map[string]string{"Retry-After": "40"}}, noon.Add(40 * time.Second)},
		"two spellings":            {Fault{Headers: map[string]string{"Retry-After": "90", "Retry-after": "40", "RETRY-AFTER": "20"}}, noon.Add(20 * time.Second)},
		"wrong milliseconds":       {Fault{Headers: map[string]string{"retry-after-ms": "-5", "retry-after": " 40 "}}, noon.Add(40 * time.Second)},
		"infinite":                 {Fault{Headers: map[string]string{"retry-after": "+Inf"}}, time.Time{}},
		"zero":                     {Fault{Headers: map[string]string{"retry-after": "0"}}, time.Time{}},
		"a text":                   {Fault{Headers: map[string]string{"retry-after": "soon"}}, time.Time{}},
		"a time as a text":         {Fault{Body: `{"error":{"resets_at":"1795870800"}}`}, time.Unix(1795870800, 0)},
		"a time in an inner error": {Fault{Body: `{"error":{"error":{"resets_in_seconds":60}}}`}, noon.Add(time.Minute)},
		"a time in the text":       {Fault{Text: `{"error":{"message":"no","resets_in_seconds":60}}`}, noon.Add(time.Minute)},
		"a time that is absurd":    {Fault{Headers: map[string]string{"retry-after": "1e30"}, Body: `{"error":{"resets_at":99999999999}}`}, time.Time{}},
	} {
		x.fault.Status, x.fault.At = http.StatusTooManyRequests, noon
		require.True(t, x.want.Equal(x.fault.Error().RetryAt), "%s: %v", name, x.fault.Error().RetryAt)
	}
}

func TestTheMessageIsOneShortCleanLineWithoutAnAddress(t *testing.T) {
	for text, want := range map[string]string{
		"Overloaded\n  at stack":               "Overloaded",
		"\n\x1b[31mOverloaded\x1b[0m\x07\rnow": "Overloaded now",
		"unexpected status 529: Overloaded, url: http://model/v1?key=secret-1, cf-ray: 7": "unexpected status 529: Overloaded",
		"Overloaded " + strings.Repeat("é", 300):                                          "Overloaded " + strings.Repeat("é", 243) + "…",
	} {
		e := Fault{Text: text, Status: 529}.Error()
		require.Equal(t, want, e.Message)
		require.LessOrEqual(t, len(e.Message), 500)
	}
}

func TestATextOfAnotherFormIsOnlyShown(t *testing.T) {
	const words = "MCP server github failed: HTTP 429, rate limit"
	require.Nil(t, Fault{Text: words}.OfCodex().Error())
	e := Fault{Names: []string{"serverOverloaded"}, Text: words}.OfCodex().Error()
	require.Equal(t, &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Message: words}, e)
	require.False(t, Fault{Status: 500, Text: "connection reset"}.OfCodex().Lost())
	for text, kind := range map[string]bgagent.ProviderErrorKind{
		"We’re currently experiencing high demand":                         bgagent.ProviderBroken,
		"Selected model is at capacity.":                                   bgagent.ProviderOverloaded,
		"The model `x` does not exist or you do not have access to it.":    bgagent.ProviderUnknownModel,
		`{"error":{"code":"insufficient_quota"}}` + "\n":                   bgagent.ProviderQuota,
		"stream disconnected before completion: Rate limit reached for x":  bgagent.ProviderRateLimited,
		" exceeded retry limit, last status: 429 Too Many Requests":        bgagent.ProviderRateLimited,
		"unexpected status 502 Bad Gateway: <html>":                        bgagent.ProviderBroken,
		"You've hit your usage limit.":                                     bgagent.ProviderQuota,
		"Codex ran out of room in the model's context window. Start anew.": bgagent.ProviderTooLong,
	} {
		e := Fault{Text: text}.OfCodex().Error()
		require.NotNil(t, e, text)
		require.Equal(t, kind, e.Kind, text)
	}
	opencode := func(name, text string) *bgagent.ProviderError {
		return Fault{Names: []string{name}, Text: text}.OfOpencode().Error()
	}
	require.Nil(t, opencode("UnknownError", "rate limit"))
	require.Equal(t, bgagent.ProviderRateLimited, opencode("APIError", "rate limit").Kind)
	require.Equal(t, bgagent.ProviderOverloaded, opencode("UnknownError", `{"message":"Overloaded","type":"server_error"}`).Kind)
	require.Equal(t, bgagent.ProviderUnknownModel, opencode("UnknownError", "ProviderModelNotFoundError: Model not found.").Kind)
}

func TestStatus403AloneDoesNotRejectTheKey(t *testing.T) {
	for want, faults := range map[bool][]Fault{
		true:  {{Status: 401}, {Status: 403, Names: []string{"permission_error"}}, {Text: `unexpected status 403 Forbidden: {"error":{"code":"invalid_api_key"}}`}, {Status: 403, Body: `{"error":{"type":"permission_error"}}`}},
		false: {{Status: 403}, {Text: "unexpected status 403 Forbidden: <html>"}, {Status: 429}, {Status: 403, Names: []string{"model_not_allowed"}}, {}, {Text: "Invalid API key"}},
	} {
		for _, f := range faults {
			require.Equal(t, want, f.Rejected(), "%+v", f)
			e := f.Repeated()
			require.Equal(t, want, e != nil && e.Kind == bgagent.ProviderAuthentication, "%+v", f)
		}
	}
}

func FuzzFault(f *testing.F) {
	f.Add(429, "rate_limit", "unexpected status 429", `{"error":{"code":1,"resets_at":1e300}}`, "Sat, 28 Nov 2026 12:01:00 GMT", "")
	f.Add(0, "", `{"message":{"a":[]},"error":{"message":"Overloaded","code":"x"}}`, "{", "1e308", "Sat, 28 Nov 2026 12:00:00 GMT")
	f.Add(-1, "UNAVAILABLE", `x {"error":"{\"error\":{\"code\":\"503\",\"message\":\"{}\"}}"} y`, `[{"error":{"details":[{"retryDelay":"-1s"}]}}]`, "-9223372036854775808", "x")
	f.Fuzz(func(t *testing.T, status int, name, text, body, after, date string) {
		x := Fault{Status: status, Names: []string{name}, Text: text, Body: body, Headers: map[string]string{"retry-after": after, "retry-after-ms": name, "date": date}, At: noon}
		e := x.Error()
		require.Equal(t, e, x.Error())
		if e == nil {
			require.False(t, x.Lost())
			require.False(t, x.Rejected())
			return
		}
		require.NotZero(t, e.Kind)
		require.LessOrEqual(t, e.Kind, bgagent.ProviderTooLong)
		require.True(t, e.Status == 0 || e.Status >= 400 && e.Status <= 599, e.Status)
		require.NotContains(t, e.Message, "\n")
		require.LessOrEqual(t, len(e.Message), maxLine)
		require.True(t, e.RetryAt.IsZero() || e.RetryAt.After(noon) && e.RetryAt.Before(noon.Add(longest+time.Hour)))
		x.Headers, x.At = nil, time.Time{}
		require.Zero(t, x.Error().RetryAt, "without the time of the answer, no time is known")
		require.False(t, x.Rejected() && e.Kind != bgagent.ProviderAuthentication)
		x.Names = []string{strings.ToUpper(name)}
		if isASCII := !strings.ContainsFunc(name, func(r rune) bool { return r > 127 }); isASCII {
			require.Equal(t, e.Kind, x.Error().Kind)
		}
	})
}
