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

// google returns the body of an answer of Gemini's API about an exceeded quota.
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
	require.False(t, Fault{Text: "stream disconnected before completion: Overloaded"}.Lost())
	require.False(t, Fault{Status: 500, Text: "connection reset"}.Lost())
}

func TestTheTimeOfTheNextTryComesFromHeadersAndBodiesOnly(t *testing.T) {
	for name, x := range map[string]struct {
		fault Fault
		want  time.Time
	}{
		"seconds":               {Fault{Headers: map[string]string{"retry-after": "40"}}, noon.Add(40 * time.Second)},
		"a date":                {Fault{Headers: map[string]string{"retry-after": "Sat, 28 Nov 2026 12:01:00 GMT"}}, noon.Add(time.Minute)},
		"milliseconds":          {Fault{Headers: map[string]string{"retry-after-ms": "1500", "retry-after": "2"}}, noon.Add(1500 * time.Millisecond)},
		"a time in the body":    {Fault{Body: `{"error":{"resets_at":1795870800}}`}, time.Unix(1795870800, 0)},
		"seconds in the body":   {Fault{Body: `{"error":{"resets_in_seconds":60}}`}, noon.Add(time.Minute)},
		"the later of the two":  {Fault{Headers: map[string]string{"retry-after": "40"}, Body: `{"error":{"resets_in_seconds":60}}`}, noon.Add(time.Minute)},
		"a delay from Google":   {Fault{Body: google("PerMinute", "26.5s")}, noon.Add(26500 * time.Millisecond)},
		"no delay from Google":  {Fault{Body: google("PerMinute", "soon")}, time.Time{}},
		"a date that is past":   {Fault{Headers: map[string]string{"retry-after": "Sat, 28 Nov 2026 11:59:00 GMT"}}, time.Time{}},
		"a past reset":          {Fault{Body: `{"error":{"resets_at":1795860000}}`}, time.Time{}},
		"nothing":               {Fault{Text: "Please try again in 6s."}, time.Time{}},
		"a strange number":      {Fault{Headers: map[string]string{"retry-after": "-1"}}, time.Time{}},
		"not a number":          {Fault{Headers: map[string]string{"retry-after": "NaN"}}, time.Time{}},
		"a time that is absurd": {Fault{Headers: map[string]string{"retry-after": "1e30"}, Body: `{"error":{"resets_at":99999999999}}`}, time.Time{}},
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

func FuzzFault(f *testing.F) {
	f.Add(429, "rate_limit", "unexpected status 429", `{"error":{"code":1,"resets_at":1e300}}`, "Sat, 28 Nov 2026 12:01:00 GMT")
	f.Add(0, "", `{"message":{"a":[]},"error":{"message":"Overloaded","code":"x"}}`, "{", "1e308")
	f.Fuzz(func(t *testing.T, status int, name, text, body, after string) {
		x := Fault{Status: status, Names: []string{name}, Text: text, Body: body, Headers: map[string]string{"retry-after": after, "retry-after-ms": name}, At: noon}
		e := x.Error()
		if e == nil {
			require.False(t, x.Lost())
			return
		}
		require.NotZero(t, e.Kind)
		require.LessOrEqual(t, e.Kind, bgagent.ProviderTooLong)
		require.NotContains(t, e.Message, "\n")
		require.LessOrEqual(t, len(e.Message), maxLine)
		require.True(t, e.RetryAt.IsZero() || e.RetryAt.After(noon) && e.RetryAt.Before(noon.Add(longest+time.Hour)))
	})
}
