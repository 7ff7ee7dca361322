package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault/recordings"
	"github.com/bgagent/bgagent/internal/jsonlines"
	"github.com/stretchr/testify/require"
)

var presets = map[string]Program{"claude": Claude(), "codex": Codex(), "gemini": Gemini(), "opencode": Opencode(), "lines": Lines("lines"), "text": Text("text")}

// played is the outcome of a turn that replays a program's recorded output.
type played struct {
	end     bgagent.TurnEnd
	err     error
	failure *bgagent.ProviderError
	retries []bgagent.Report
	said    said
}

// playRecorded replays the output of a program's first turn. An object whose only field is "stderr"
// is a line of standard error.
func playRecorded(program Program, output []byte, code int) (p played) {
	s := &session{agent: &Agent{Program: program}}
	t := &turn{client: &Client{}, session: s, forgets: program.ForgetsUnanswered}
	t.out = newOutput(bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportRetrying {
			p.retries = append(p.retries, r)
		}
	}), 1, bgagent.Usage{})
	t.out.step = t.step
	var errs tail
	stderr := t.errors(&errs)
	decode := program.Decode()
	in := jsonlines.NewReader(bytes.NewReader(output), jsonlines.Config{MaxLine: 1 << 20})
	for {
		line, err := in.Next()
		if err != nil {
			break
		}
		var x map[string]string
		if json.Unmarshal(line, &x) == nil && x["stderr"] != "" {
			_, _ = stderr.Write([]byte(x["stderr"] + "\n"))
			continue
		}
		decode(line, t.out)
		t.out.reportUsage()
	}
	p.said = t.out.said()
	p.end, p.err = t.judge(outcome{program: program.Executable, code: code, stderr: errs.String()})
	var failed *TurnError
	if p.err != nil {
		failed = p.err.(*TurnError)
		p.failure = failed.Provider
	}
	return p
}

// Short names for the table below.
const (
	limited, overloaded, broken, quota         = bgagent.ProviderRateLimited, bgagent.ProviderOverloaded, bgagent.ProviderBroken, bgagent.ProviderQuota
	unknownModel, authentication, inputTooLong = bgagent.ProviderUnknownModel, bgagent.ProviderAuthentication, bgagent.ProviderTooLong
	allModels                                  = bgagent.ScopeProvider
	goOn, anew                                 = bgagent.NextContinue, bgagent.NextNewSession
)

// recordedReset matches the times, in the recordings, at which a provider accepts requests again. A time
// that has passed would be dropped, so the test moves these times by the number of seconds in the variable
// "moved".
var (
	recordedReset = regexp.MustCompile(`\b17959\d{5}\b`)
	moved         = time.Now().Unix() - 1795900000
)

func TestRecordedFailuresAtTheProviderAreRecognized(t *testing.T) {
	type failure = bgagent.ProviderError
	fails := func(kind bgagent.ProviderErrorKind, status, tries int) *failure {
		e := &failure{Kind: kind, Status: status, Tries: tries, Next: goOn}
		if kind == quota || kind == authentication {
			e.Scope = allModels
		}
		return e
	}
	fresh := func(kind bgagent.ProviderErrorKind, status, tries int) *failure {
		e := fails(kind, status, tries)
		e.Next = anew
		return e
	}
	until := func(e *failure, unix int64) *failure {
		e.RetryAt = time.Unix(unix+moved, 0)
		return e
	}
	ofModel := func(e *failure) *failure {
		e.Scope = bgagent.ScopeModel
		return e
	}
	table := map[string]struct {
		code    int
		want    *failure // nil if the turn succeeded or has not ended
		retries int      // number of reports that the program is retrying a request
	}{
		"claude_401":                 {1, fails(authentication, 401, 11), 0},
		"claude_403":                 {1, fails(authentication, 403, 1), 0},
		"claude_429":                 {1, fails(limited, 429, 11), 10},
		"claude_429-date":            {0, nil, 1},
		"claude_429-ra2":             {0, nil, 3},
		"claude_429-ra40":            {0, nil, 1},
		"claude_429-ra3600":          {1, fails(limited, 429, 1), 0},
		"claude_500-once":            {0, nil, 1},
		"claude_503":                 {1, fails(overloaded, 503, 11), 10},
		"claude_529":                 {1, fails(overloaded, 529, 3), 2},
		"claude_aftertool":           {1, fails(limited, 429, 1), 0},
		"claude_credit":              {1, fails(quota, 400, 1), 0},
		"claude_cut":                 {1, fails(broken, 0, 11), 0}, // a lost connection does not hold back other turns
		"claude_cut-once":            {0, nil, 0},
		"claude_inerr":               {1, fails(overloaded, 529, 2), 1},
		"claude_model":               {1, fails(unknownModel, 404, 1), 0},
		"claude_oauth-429":           {0, nil, 7},
		"claude_oauth-529":           {0, nil, 7},
		"claude_oauth-unified":       {1, until(fails(quota, 429, 1), 1795908597), 0},
		"claude_opt-claude-ra60":     {0, nil, 1},
		"claude_opt-claude-retries0": {1, fails(broken, 500, 1), 0},
		"claude_opt-claude-retries1": {1, fails(limited, 429, 2), 1},
		"claude_opt-fallback":        {0, nil, 9},
		"claude_opt-watchdog":        {0, nil, 1},
		"claude_toolong":             {1, fails(inputTooLong, 400, 1), 0},
		"claude_unified":             {1, fails(limited, 429, 1), 0}, // claude uses an API key, so it reports no reset time
		"claude_usage":               {1, fails(limited, 429, 1), 0},

		"codex_401":                 {1, fails(authentication, 401, 6), 0},
		"codex_403":                 {1, fails(unknownModel, 403, 6), 0}, // the account must not use this model
		"codex_429":                 {1, fails(limited, 429, 1), 0},
		"codex_429-date":            {0, nil, 1},
		"codex_429-ra2":             {0, nil, 3},
		"codex_429-ra3600":          {0, nil, 1},
		"codex_429-ra40":            {0, nil, 1},
		"codex_500-once":            {0, nil, 0},
		"codex_503":                 {1, fails(overloaded, 0, 0), 0},
		"codex_529":                 {1, fails(overloaded, 529, 0), 5},
		"codex_aftertool":           {1, fails(limited, 429, 1), 0},
		"codex_credit":              {1, fails(quota, 0, 1), 0},
		"codex_cut":                 {1, fails(broken, 0, 6), 0},
		"codex_cut-once":            {0, nil, 0},
		"codex_inerr":               {1, fails(overloaded, 0, 6), 5},
		"codex_model":               {1, fails(unknownModel, 0, 1), 0},
		"codex_quota-400":           {1, fails(quota, 0, 1), 0},
		"codex_opt-503plain":        {1, fails(overloaded, 503, 0), 5},
		"codex_opt-codex-3600req0":  {1, fails(limited, 429, 1), 0},
		"codex_opt-codex-529req0":   {1, fails(overloaded, 529, 0), 0},
		"codex_opt-codex-cutreq0":   {1, fails(broken, 0, 1), 0},
		"codex_opt-codex-req0":      {1, fails(overloaded, 0, 0), 0},
		"codex_opt-codex-stallidle": {1, fails(broken, 0, 2), 0},
		"codex_toolong":             {1, fails(inputTooLong, 0, 1), 0},
		"codex_usage":               {1, fails(quota, 0, 1), 0},

		"gemini_401":           {144, fresh(authentication, 400, 0), 0},
		"gemini_403":           {147, fresh(authentication, 403, 0), 0},
		"gemini_429":           {0, nil, 8},
		"gemini_429-date":      {0, nil, 1},
		"gemini_429-long":      {173, fresh(limited, 429, 10), 9},
		"gemini_429-ra2":       {0, nil, 3},
		"gemini_429-ra3600":    {0, nil, 8},
		"gemini_429-ra40":      {0, nil, 1},
		"gemini_500-once":      {0, nil, 1},
		"gemini_503":           {0, nil, 9},
		"gemini_503-long":      {247, fresh(overloaded, 503, 10), 9},
		"gemini_529":           {0, nil, 8},
		"gemini_aftertool":     {173, fails(limited, 429, 2), 1},
		"gemini_credit":        {0, nil, 9},
		"gemini_cut":           {1, fresh(broken, 0, 0), 0},
		"gemini_cut-once":      {1, fresh(broken, 0, 0), 0},
		"gemini_inerr":         {0, fresh(broken, 0, 0), 0},
		"gemini_model":         {148, fresh(unknownModel, 404, 0), 0},
		"gemini_opt-attempts1": {247, fresh(overloaded, 503, 1), 0},
		"gemini_opt-attempts2": {173, fresh(limited, 429, 2), 1},
		"gemini_toolong":       {144, fresh(inputTooLong, 400, 0), 0},
		"gemini_unified":       {0, nil, 1},
		"gemini_usage":         {173, ofModel(fresh(quota, 429, 0)), 0},

		"opencode_401":      {1, fails(authentication, 401, 0), 0},
		"opencode_403":      {1, fails(unknownModel, 403, 0), 0}, // model_not_allowed
		"opencode_429":      {1, fails(limited, 429, 0), 0},
		"opencode_429-date": {0, nil, 0},
		"opencode_429-ra2":  {0, nil, 0},
		"opencode_429-ra40": {0, nil, 0},
		"opencode_500-once": {0, nil, 0},
		"opencode_503":      {1, fails(overloaded, 503, 0), 0},
		"opencode_529":      {1, fails(overloaded, 529, 0), 0},
		"opencode_credit":   {1, fails(quota, 429, 0), 0},
		"opencode_cut":      {1, fails(broken, 0, 0), 0},
		"opencode_cut-once": {0, nil, 0},
		"opencode_inerr":    {1, fails(overloaded, 0, 0), 0},
		"opencode_toolong":  {0, nil, 0}, // continues with a summary
		"opencode_unified":  {1, until(fails(quota, 429, 0), 1795908166), 0},
		"opencode_usage":    {1, until(fails(quota, 429, 0), 1795907980), 0},
	}
	for file, tc := range table {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", "limits", file+".jsonl"))
			require.NoError(t, err)
			data = recordedReset.ReplaceAllFunc(data, func(reset []byte) []byte {
				unix, err := strconv.ParseInt(string(reset), 10, 64)
				require.NoError(t, err)
				return strconv.AppendInt(nil, unix+moved, 10)
			})
			program, recording, _ := strings.Cut(file, "_")
			got := playRecorded(presets[program], data, tc.code)
			require.Len(t, got.retries, tc.retries)
			kind, known := recordings.Kind(program, recording)
			require.True(t, known, "the recording needs a row in the package recordings")
			for _, r := range got.retries {
				require.Equal(t, kind, r.Provider.Kind)
			}
			if tc.want == nil {
				require.Nil(t, got.failure)
				require.True(t, kind == 0 || tc.code == 0 && (got.said.end == nil || got.err == nil), "the turn has succeeded, or the recording ends before it: %v", got.err)
				return
			}
			require.NotNil(t, got.failure, "%v", got.err)
			require.Equal(t, kind, got.failure.Kind)
			require.ErrorAs(t, got.err, new(*bgagent.ProviderError))
			require.Equal(t, bgagent.StopError, got.end.Stop)
			require.Empty(t, got.end.Text, "the program's text about the error is not an answer")
			require.NotEmpty(t, got.failure.Message)
			require.NotContains(t, got.failure.Message, "\n")
			got.failure.Message = ""
			require.Equal(t, tc.want, got.failure)
		})
	}
	files, err := filepath.Glob("testdata/limits/*.jsonl")
	require.NoError(t, err)
	require.Equal(t, len(table), len(files), "each file is in the table")
}

func TestARetryTellsWhenItIsMade(t *testing.T) {
	first := func(file string) bgagent.Report {
		data, err := os.ReadFile(filepath.Join("testdata", "limits", file+".jsonl"))
		require.NoError(t, err)
		program, _, _ := strings.Cut(file, "_")
		return playRecorded(presets[program], data, 0).retries[0]
	}
	for file, wait := range map[string]time.Duration{"claude_429-ra40": 48107 * time.Millisecond, "gemini_unified": 14240 * time.Millisecond} {
		got := first(file)
		require.WithinDuration(t, time.Now().Add(wait), got.RetryAt, 5*time.Second, file)
		require.Equal(t, limited, got.Provider.Kind)
		require.Equal(t, 429, got.Provider.Status)
		require.Equal(t, 1, got.Provider.Tries)
		require.Zero(t, got.Provider.RetryAt, "the program chose the time; the provider did not give one")
	}
	for file, want := range map[string]string{
		"codex_429-ra2":   "exceeded retry limit, last status: 429 Too Many Requests",
		"gemini_429-long": "Resource has been exhausted (e.g. check quota).",
		"codex_inerr":     "stream disconnected before completion: Overloaded",
		"claude_429":      "rate_limit (status 429)",
		"gemini_unified":  "You exceeded your current quota, please check your plan and billing details. Please retry in 12s.",
	} {
		got := first(file)
		require.Equal(t, want, got.Provider.Message, file)
		if !strings.HasPrefix(file, "claude") && file != "gemini_unified" {
			require.Zero(t, got.RetryAt, file)
		}
	}
}

func TestAnswersAndToolsAreNeverTakenForFailures(t *testing.T) {
	const text = `API Error: Request rejected (429) exceeded retry limit, last status: 429 [API Error: {\"error\":{\"code\":429}}] Reconnecting... 1/5 (unexpected status 429)`
	for program, output := range map[string]string{
		"claude": `{"type":"assistant","message":{"content":[{"type":"text","text":"` + text + `"},{"type":"tool_use","id":"1","name":"Bash","input":{"error":"rate_limit","api_error_status":429}}]}}` + "\n" +
			`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"1","content":"` + text + `"}]}}` + "\n" + `{"type":"result","subtype":"error_during_execution","is_error":true,"result":"boom"}`,
		"codex": `{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"` + text + `"}}` + "\n" +
			`{"type":"item.completed","item":{"id":"2","type":"command_execution","command":"x","aggregated_output":"` + text + `","exit_code":1}}` + "\n" +
			`{"type":"item.completed","item":{"id":"3","type":"error","message":"Quota exceeded."}}` + "\n" + `{"type":"turn.failed","error":{"message":"boom"}}`,
		"gemini": `{"type":"message","role":"assistant","content":"` + text + `","delta":true}` + "\n" +
			`{"type":"tool_use","tool_id":"1","tool_name":"x"}` + "\n" + `{"type":"tool_result","tool_id":"1","status":"error","output":"` + text + `"}` + "\n" + `{"type":"result","status":"error","error":{"type":"x","message":"boom"}}`,
		"opencode": `{"type":"text","part":{"text":"` + text + `"}}` + "\n" +
			`{"type":"tool_use","part":{"callID":"1","tool":"bash","state":{"status":"error","error":"` + text + `"}}}` + "\n" + `{"type":"error","error":{"name":"Odd","data":{"message":"boom"}}}`,
		"lines": `{"type":"message","text":"` + text + `"}` + "\n" + `{"type":"tool","id":"1","name":"x","state":"failed","result":"` + text + `"}` + "\n" + `{"type":"end","stop":"error","error":"boom"}`,
	} {
		got := playRecorded(presets[program], []byte(output), 173)
		require.ErrorContains(t, got.err, "boom", program)
		require.Nil(t, got.failure, program)
		require.Empty(t, got.retries, program)
	}
}

func TestAFailureAfterWhichTheAgentGoesOnIsForgotten(t *testing.T) {
	for program, output := range map[string]string{
		"codex": `{"type":"error","message":"exceeded retry limit, last status: 429 Too Many Requests"}` + "\n" +
			`{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"here again"}}` + "\n" + `{"type":"turn.failed","error":{"message":"boom"}}`,
		"gemini": `{"type":"error","severity":"error","message":"Model stream ended without a finish reason."}` + "\n" +
			`{"type":"message","role":"assistant","content":"here again","delta":true}` + "\n" + `{"type":"result","status":"error","error":{"message":"boom"}}`,
		"lines": `{"type":"error","status":429}` + "\n" + `{"type":"message","text":"here again"}` + "\n" + `{"type":"end","stop":"error","error":"boom"}`,
	} {
		got := playRecorded(presets[program], []byte(output), 1)
		require.ErrorContains(t, got.err, "boom", program)
		require.Nil(t, got.failure, program)
	}
	got := playRecorded(Codex(), []byte(`{"type":"error","message":"Reconnecting... 1/5 (unexpected status 401 Unauthorized: no)"}`+"\n"+
		`{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"logged in again"}}`+"\n"+`{"type":"turn.completed"}`), 0)
	require.NoError(t, got.err)
	require.Equal(t, "logged in again", got.end.Text)
}

func TestTheTriesOfAnAnswerAreCountedFromItsFirstRequest(t *testing.T) {
	retry := func(n string) string {
		return `{"type":"system","subtype":"api_retry","attempt":` + n + `,"error_status":429,"error":"rate_limit"}` + "\n"
	}
	got := playRecorded(Claude(), []byte(retry("1")+retry("2")+`{"type":"assistant","message":{"content":[{"type":"tool_use","id":"1","name":"Bash"}]}}`+"\n"+retry("1")+
		`{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"API Error"}]},"error":"rate_limit","is_api_error_message":true,"api_error_status":429}`+"\n"+
		`{"type":"result","subtype":"success","is_error":true,"result":"API Error"}`), 1)
	require.Equal(t, 2, got.failure.Tries)
}

func TestALimitOfOneModelLeavesTheOthers(t *testing.T) {
	reset := time.Now().Unix() + 3600
	event := func(status, window string) string {
		return `{"type":"rate_limit_event","rate_limit_info":{"status":"` + status + `","resetsAt":` + strconv.FormatInt(reset, 10) + `,"rateLimitType":"` + window + `"}}` + "\n"
	}
	const end = `{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"limit"}`
	for _, tc := range []struct {
		events string
		kind   bgagent.ProviderErrorKind
		scope  bgagent.ProviderScope
		reset  int64
	}{
		{event("rejected", "five_hour"), quota, allModels, reset},
		{event("rejected", "seven_day_opus"), quota, bgagent.ScopeModel, reset},
		{event(`rejected","isUsingOverage":"true`, "five_hour"), limited, bgagent.ScopeModel, 0},
		{event("rejected", "five_hour") + `{"type":"assistant","message":{"model":"m","content":[{"type":"text","text":"hello"}]}}` + "\n", limited, bgagent.ScopeModel, 0},
		{event("allowed_warning", "five_hour"), limited, bgagent.ScopeModel, 0},
		{event("rejected", "five_hour") + event("allowed", "five_hour"), limited, bgagent.ScopeModel, 0},
	} {
		got := playRecorded(Claude(), []byte(tc.events+end), 1).failure
		require.Equal(t, tc.kind, got.Kind, tc.events)
		require.Equal(t, tc.scope, got.Scope, tc.events)
		if tc.reset == 0 {
			require.Zero(t, got.RetryAt)
		} else {
			require.Equal(t, tc.reset, got.RetryAt.Unix())
		}
	}
}

func TestOpencodesHeadersTellWhenToTryAgain(t *testing.T) {
	failure := func(headers string) *bgagent.ProviderError {
		return playRecorded(Opencode(), []byte(`{"type":"error","sessionID":"s","error":{"name":"APIError","data":{"message":"slow","statusCode":429,"responseHeaders":{`+headers+`}}}}`), 1).failure
	}
	date := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for headers, wait := range map[string]time.Duration{
		`"retry-after":"40"`:                                                   40 * time.Second,
		`"retry-after":"40","retry-after-ms":"2500"`:                           2500 * time.Millisecond,
		`"retry-after":"` + date.Format("Mon, 02 Jan 2006 15:04:05 GMT") + `"`: time.Hour,
	} {
		require.WithinDuration(t, time.Now().Add(wait), failure(headers).RetryAt, 5*time.Second, headers)
	}
	for _, headers := range []string{``, `"retry-after":"soon"`, `"retry-after":"-3"`, `"retry-after":"NaN"`, `"retry-after":7`} {
		require.Zero(t, failure(headers).RetryAt, headers)
	}
}

func TestTheStepAfterAFailureFitsTheSession(t *testing.T) {
	const fails = `{"type":"turn.failed","error":{"message":"exceeded retry limit, last status: 429 Too Many Requests"}}`
	const began = `{"type":"thread.started","thread_id":"t"}` + "\n"
	const call = `{"type":"item.completed","item":{"id":"1","type":"command_execution"}}` + "\n"
	next := func(output string, change ...func(*Program)) bgagent.ProviderNextStep {
		p := Codex()
		for _, f := range change {
			f(&p)
		}
		return playRecorded(p, []byte(output), 1).failure.Next
	}
	require.Equal(t, goOn, next(began+fails))
	require.Equal(t, goOn, next(began+call+fails))
	require.Equal(t, anew, next(fails), "the program has never reported its session")
	require.Equal(t, bgagent.NextNone, next(call+fails), "the calls are lost with the session")
	require.Equal(t, bgagent.NextNone, next(began+fails, func(p *Program) { p.Resume = Form{} }))
}

func TestLinesTellOfFailuresAtTheProvider(t *testing.T) {
	play := func(lines ...string) played {
		return playRecorded(Lines("x"), []byte(`{"type":"session","id":"s"}`+"\n"+strings.Join(lines, "\n")+"\n"+`{"type":"end","stop":"error","error":"refused"}`), 1)
	}
	at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	got := play(`{"type":"retrying","kind":"overload","tries":1,"at":"`+at.Format(time.RFC3339)+`","next":"continue"}`,
		`{"type":"error","kind":"rate limit","status":429,"retry_at":"`+at.Format(time.RFC3339)+`","tries":2,"scope":"provider","next":"continue","text":"slow down"}`)
	require.Equal(t, &bgagent.ProviderError{Kind: limited, Status: 429, RetryAt: at, Tries: 2, Scope: allModels, Next: goOn, Message: "slow down"}, got.failure)
	require.Len(t, got.retries, 1)
	require.Equal(t, at, got.retries[0].RetryAt)
	require.Equal(t, overloaded, got.retries[0].Provider.Kind)
	for line, want := range map[string]*bgagent.ProviderError{
		`{"type":"error","status":503}`:                         {Kind: overloaded, Status: 503, Message: "refused"},
		`{"type":"error","kind":"unknown_model","next":"none"}`: {Kind: unknownModel, Message: "refused"},
		`{"type":"error","kind":"quota","next":"new-session"}`:  {Kind: quota, Next: anew, Message: "refused"},
		`{"type":"error","kind":"broken","next":"repeat"}`:      {Kind: broken, Next: bgagent.NextRepeat, Message: "refused"},
		`{"type":"error","kind":"too long","error":"9 pages"}`:  {Kind: inputTooLong, Message: "9 pages"},
		`{"type":"error","kind":"mood","status":200}`:           nil,
		`{"type":"error","error":"an error of another kind"}`:   nil,
	} {
		require.Equal(t, want, play(line).failure, line)
	}
}

func TestLinesOfStandardErrorArriveWholeAndBounded(t *testing.T) {
	var got []string
	w := &lineWriter{line: func(s string) { got = append(got, s) }}
	for _, piece := range []string{"on", "e\n\x1b[1mtwo\r\n", "", strings.Repeat("x", maxErrorLine), "more\nlast", " one\nunfinished"} {
		n, err := w.Write([]byte(piece))
		require.NoError(t, err)
		require.Equal(t, len(piece), n)
	}
	require.Equal(t, []string{"one", "two", strings.Repeat("x", maxErrorLine), "last one"}, got)
}

// FuzzProviderFailure uses arbitrary text as an error message, in every form that programs
// use for errors, and as a line of standard error.
func FuzzProviderFailure(f *testing.F) {
	f.Add("exceeded retry limit, last status: 429 Too Many Requests", 429)
	f.Add(`Reconnecting... 1/5 (unexpected status 401 Unauthorized: {"error":{"code":"invalid_api_key"}})`, 0)
	f.Add(`[API Error: {"error":{"code":404,"message":"models/x","details":[{"reason":"API_KEY_INVALID"}]}}]`, 148)
	f.Add("Attempt 1 failed with status 429. Retrying with backoff... _ApiError: {}", 173)
	f.Add("Attempt 2 failed: slow. Retrying after 99999999999999999999ms...", 173)
	f.Add("stream disconnected before completion: Overloaded", -1)
	f.Add(`{"error":{"error":{"type":"insufficient_quota","resets_at":1e300}}}`, 1<<40)
	f.Fuzz(func(t *testing.T, text string, status int) {
		quoted := jsonString(strings.ToValidUTF8(text, "?"))
		number, err := json.Marshal(status)
		require.NoError(t, err)
		n := string(number)
		for program, output := range map[string]string{
			"claude": `{"type":"system","subtype":"api_retry","attempt":` + n + `,"retry_delay_ms":` + n + `,"error_status":` + n + `,"error":` + quoted + `}` + "\n" +
				`{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":` + n + `,"rateLimitType":` + quoted + `}}` + "\n" +
				`{"type":"result","subtype":"success","is_error":true,"api_error_status":` + n + `,"api_error":` + quoted + `,"result":` + quoted + `}`,
			"codex":    `{"type":"error","message":` + quoted + `}` + "\n" + `{"type":"turn.failed","error":{"message":` + quoted + `}}`,
			"gemini":   `{"stderr":` + quoted + `}` + "\n" + `{"type":"result","status":"error","error":{"message":` + quoted + `}}`,
			"opencode": `{"type":"error","error":{"name":` + quoted + `,"data":{"message":` + quoted + `,"statusCode":` + n + `,"responseHeaders":{"retry-after":` + quoted + `},"responseBody":` + quoted + `}}}`,
			"lines":    `{"type":"error","kind":` + quoted + `,"status":` + n + `,"tries":` + n + `,"next":` + quoted + `,"retry_at":` + quoted + `}` + "\n" + `{"type":"end","error":"x"}`,
		} {
			got := playRecorded(presets[program], []byte(output), status)
			all := []*bgagent.ProviderError{got.failure}
			for _, r := range got.retries {
				all = append(all, r.Provider)
			}
			for _, e := range all {
				switch {
				case e == nil:
				case e.Kind == 0 || e.Kind > bgagent.ProviderTooLong || e.Kind.String() == "":
					t.Errorf("%s: kind %d", program, e.Kind)
				case e.Tries < 0 || e.Next > bgagent.NextNewSession || e.Scope > bgagent.ScopeProvider:
					t.Errorf("%s: %+v", program, e)
				case len(e.Message) > 1000 || strings.ContainsAny(e.Message, "\n\x1b"):
					t.Errorf("%s: the message %q", program, e.Message)
				}
			}
		}
	})
}
