package bgagent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// writeFile writes a file and creates its directories.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// inSection returns a file whose section background_task has the given members.
func inSection(members string) []byte { return []byte(`{"background_task": {` + members + `}}`) }

func applied(t *testing.T, f bgagent.FileConfig, err error) bgagent.Config {
	t.Helper()
	require.NoError(t, err)
	var c bgagent.Config
	f.Apply(&c)
	return c
}

// fileErrors splits a joined error into its ConfigFileErrors.
func fileErrors(t testing.TB, err error) []*bgagent.ConfigFileError {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	require.True(t, ok, "%T is not a joined error", err)
	var out []*bgagent.ConfigFileError
	for _, e := range joined.Unwrap() {
		ce, ok := e.(*bgagent.ConfigFileError)
		require.True(t, ok, "%T: %v", e, e)
		out = append(out, ce)
	}
	return out
}

func TestTutorialFileWorksAsItIs(t *testing.T) {
	f, err := bgagent.LoadConfig("testdata/tutorial.json")
	c := applied(t, f, err)
	require.Equal(t, bgagent.Config{Limits: bgagent.Limits{
		Provider: map[string]int{"anthropic": 3, "openai": 2, "google": 2},
		Model:    map[string]int{"claude-opus-4-5": 2, "gpt-5.2": 2},
		Default:  3,
	}}, c)
	require.Empty(t, f.Ignored())
	_, err = bgagent.New(bgagenttest.NewRunner(nil), c)
	require.NoError(t, err)

	text, err := bgagent.FormatConfig(c)
	require.NoError(t, err)
	again, err := bgagent.ParseConfig("again", text)
	require.Equal(t, c, applied(t, again, err))
}

func TestEveryKeySetsItsField(t *testing.T) {
	ms := time.Millisecond
	f, err := bgagent.ParseConfig("all.json", inSection(`
		"modelConcurrency": {"M": 1, "p/m": 0}, "providerConcurrency": {" P ": 2}, "defaultConcurrency": 3,
		"maxDepth": 4, "maxTasksPerRoot": 5, "staleTimeoutMs": 6, "taskTtlMs": 7, "queueTtlMs": 8,
		"sessionGoneMs": 9, "hostUnreachableMs": 10, "stopTimeoutMs": 11, "pollIntervalMs": 12,
		"minIdleTimeMs": 13, "minStabilityTimeMs": 14, "stablePolls": 15, "todoHoldMs": 16, "wake": "each",
		"noticeWindowMs": 17, "noticeMaxWaitMs": 18, "createTimeoutMs": 19, "callTimeoutMs": 20,
		"maxToolCalls": 27, "circuitBreaker": {"consecutiveThreshold": 28, "enabled": true},
		"statusTimeoutMs": 21, "readConcurrency": 22, "retentionMs": 23, "retainTasks": 24, "retainTextBytes": 25, "noticeResultBytes": 26,`))
	require.Equal(t, bgagent.Config{
		Limits:   bgagent.Limits{Model: map[string]int{"m": 1, "p/m": bgagent.Unlimited}, Provider: map[string]int{"p": 2}, Default: 3},
		MaxDepth: 4, MaxTasksPerRoot: 5, StaleTimeout: 6 * ms, TimeToLive: 7 * ms, QueueTimeToLive: 8 * ms,
		SessionGone: 9 * ms, HostUnreachable: 10 * ms, StopTimeout: 11 * ms, PollInterval: 12 * ms,
		MinIdleTime: 13 * ms, MinStabilityTime: 14 * ms, StablePolls: 15, TodoHold: 16 * ms, Wake: bgagent.WakeEach,
		NoticeWindow: 17 * ms, NoticeMaxWait: 18 * ms, CreateTimeout: 19 * ms, CallTimeout: 20 * ms,
		StatusTimeout: 21 * ms, ReadConcurrency: 22, Retention: 23 * ms, RetainTasks: 24, RetainText: 25, NoticeResult: 26,
		MaxToolCalls: 27, RepeatedCalls: 28,
	}, applied(t, f, err))
}

func TestZeroSwitchesOffOrIsRefused(t *testing.T) {
	f, err := bgagent.ParseConfig("zero.json", inSection(`
		"modelConcurrency": {"m": 0}, "providerConcurrency": {"p": 0}, "defaultConcurrency": 0, "maxTasksPerRoot": 0,
		"staleTimeoutMs": 0, "taskTtlMs": 0, "queueTtlMs": 0, "hostUnreachableMs": 0, "minIdleTimeMs": 0,
		"minStabilityTimeMs": -0, "todoHoldMs": 0.0, "noticeWindowMs": 0e3, "noticeMaxWaitMs": 0, "retentionMs": 0,
		"retainTasks": 0, "retainTextBytes": 0, "noticeResultBytes": 0, "maxToolCalls": 0, "circuitBreaker": {"consecutiveThreshold": 0}`))
	c := applied(t, f, err)
	const off = bgagent.Disabled
	require.Equal(t, bgagent.Config{
		Limits:          bgagent.Limits{Model: map[string]int{"m": -1}, Provider: map[string]int{"p": -1}, Default: -1},
		MaxTasksPerRoot: -1, StaleTimeout: off, TimeToLive: off, QueueTimeToLive: off, HostUnreachable: off, MinIdleTime: off,
		MinStabilityTime: off, TodoHold: off, NoticeWindow: off, NoticeMaxWait: off, Retention: off, RetainTasks: -1, RetainText: -1,
		NoticeResult: -1, MaxToolCalls: -1, RepeatedCalls: -1,
	}, c)
	_, err = bgagent.New(bgagenttest.NewRunner(nil), c)
	require.NoError(t, err, "if the file can switch off a limit, Config must accept this")

	for _, key := range []string{"maxDepth", "sessionGoneMs", "sessionGoneTimeoutMs", "stopTimeoutMs", "pollIntervalMs", "stablePolls",
		"createTimeoutMs", "callTimeoutMs", "statusTimeoutMs", "readConcurrency"} {
		_, err := bgagent.ParseConfig("zero.json", inSection(`"`+key+`": 0`))
		require.ErrorContains(t, err, "background_task."+key+": is 0, but it cannot be switched off; it must be a whole number", key)
		require.ErrorContains(t, err, "at least 1", key)
	}
	_, err = bgagent.ParseConfig("zero.json", inSection(`"taskCleanupDelayMs": 0`))
	require.ErrorContains(t, err, "write retentionMs: 0 for no time limit")
}

func TestTheHostsOwnNamesAreAccepted(t *testing.T) {
	f, err := bgagent.ParseConfig("host.json", inSection(`"sessionGoneTimeoutMs": 10000, "taskCleanupDelayMs": 60000`))
	require.Equal(t, bgagent.Config{SessionGone: 10 * time.Second, Retention: time.Minute}, applied(t, f, err))

	_, err = bgagent.ParseConfig("host.json", inSection("\"retentionMs\": 1,\n \"taskCleanupDelayMs\": 2"))
	require.EqualError(t, err, "host.json:2:2: background_task.taskCleanupDelayMs: appears twice, first in line 1 (retentionMs and taskCleanupDelayMs are the same); keep one of the two")
}

func TestEverythingOutsideTheSectionIsLeftAlone(t *testing.T) {
	f, err := bgagent.ParseConfig("host.json", []byte(`{
		"$schema": 5, "agents": {"a": {"a": [{}, null, true]}}, "agents": 1, "experimental": null, "staleTimeoutMs": "x",
		"background_tasks": {"bogus": 1}, "backgroundTask": [],
	} // the file may end with a comment`))
	require.Equal(t, bgagent.Config{}, applied(t, f, err))
	var said []string
	for _, k := range f.Ignored() {
		said = append(said, k.String())
	}
	require.Equal(t, []string{
		"host.json:2:94: staleTimeoutMs is ignored: it counts only inside of background_task",
		"host.json:3:3: background_tasks is ignored: did you mean background_task?",
		"host.json:3:37: backgroundTask is ignored: did you mean background_task?",
	}, said)
}

func TestKeysOfTheHostWithoutCounterpartAreReported(t *testing.T) {
	f, err := bgagent.ParseConfig("host.json", inSection(`"staleTimeoutMs": 1,
		"maxDescendants": 50, "messageStalenessTimeoutMs": 60000, "syncPollTimeoutMs": null, "quotaRouting": {}`))
	require.Equal(t, bgagent.Config{StaleTimeout: time.Millisecond}, applied(t, f, err))
	require.Len(t, f.Ignored(), 4)
	require.Equal(t, bgagent.IgnoredKey{
		Key:    "background_task.maxDescendants",
		Reason: "the limit here is maxTasksPerRoot, which counts only live tasks",
		Origin: bgagent.Origin{File: "host.json", Line: 2, Column: 3},
	}, f.Ignored()[0])
}

func TestMistakesSayWhereWhatAndWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct{ members, want string }{
		{`"staleTimeout": 1`, `:1:22: background_task.staleTimeout: is not a known key; did you mean staleTimeoutMs?`},
		{`"modelConcurency": {"a": 1}`, `:1:22: background_task.modelConcurency: is not a known key; did you mean modelConcurrency?`},
		{`"defualtConcurrency": 1`, `:1:22: background_task.defualtConcurrency: is not a known key; did you mean defaultConcurrency?`},
		{`"provider_concurrency": null`, `:1:22: background_task.provider_concurrency: is not a known key; did you mean providerConcurrency?`},
		{`"staleTimeoutMs": "180000"`, `:1:40: background_task.staleTimeoutMs: is the string "180000"; it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": true`, `:1:40: background_task.staleTimeoutMs: is true; it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": []`, `:1:40: background_task.staleTimeoutMs: is a list; it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": -1`, `:1:40: background_task.staleTimeoutMs: is negative (-1); it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": -0.5`, `:1:40: background_task.staleTimeoutMs: is negative (-0.5); it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": 1.5`, `:1:40: background_task.staleTimeoutMs: is not whole (1.5); it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": 9223372036855`, `:1:40: background_task.staleTimeoutMs: is too large (9223372036855); the maximum is 9223372036854; it must be a whole number of milliseconds, or 0 for never`},
		{`"staleTimeoutMs": 1e999`, `:1:40: background_task.staleTimeoutMs: is too large (1e999); the maximum is 9223372036854; it must be a whole number of milliseconds, or 0 for never`},
		{`"retainTextBytes": 9223372036854775808`, `:1:41: background_task.retainTextBytes: is too large (9223372036854775808); the maximum is 9223372036854775807; it must be a whole number of bytes, or 0 for no limit`},
		{`"maxDepth": 9223372036854775808`, fmt.Sprintf(`:1:34: background_task.maxDepth: is too large (9223372036854775808); the maximum is %d; it must be a whole number, at least 1`, math.MaxInt)},
		{`"maxDepth": -9223372036854775809`, `:1:34: background_task.maxDepth: is negative (-9223372036854775809); it must be a whole number, at least 1`},
		{`"retainTextBytes": {}`, `:1:41: background_task.retainTextBytes: is an object; it must be a whole number of bytes, or 0 for no limit`},
		{`"wake": "always"`, `:1:30: background_task.wake: is the string "always"; it must be "batch", "each" or "never", or null`},
		{`"wake": 0`, `:1:30: background_task.wake: is the number 0; it must be "batch", "each" or "never", or null`},
		{`"modelConcurrency": 3`, `:1:42: background_task.modelConcurrency: is the number 3; it must be an object of names and limits like { "claude-opus-4-5": 2 }, or null`},
		{`"providerConcurrency": 3`, `:1:45: background_task.providerConcurrency: is the number 3; it must be an object of names and limits like { "anthropic": 3 }, or null`},
		{`"maxDepth": 1e18`, `:1:34: background_task.maxDepth: is too large to be written with an exponent (1e18); write out its digits; it must be a whole number, at least 1`},
		{`"modelConcurrency": {"gpt-5.2": "2"}`, `:1:54: background_task.modelConcurrency["gpt-5.2"]: is the string "2"; it must be a whole number, or 0 for no limit`},
		{`"modelConcurrency": {" ": 2}`, `:1:43: background_task.modelConcurrency[" "]: has no name; name a model, provider or agent, or use defaultConcurrency`},
		{`"modelConcurrency": {"a": 2, "A ": 2}`, `:1:51: background_task.modelConcurrency["A "]: appears twice, first in line 1 (upper and lower case are the same); keep one of the two`},
		{`"providerConcurrency": {"a/b": 2}`, `:1:46: background_task.providerConcurrency["a/b"]: can never apply, because the provider is the part of a name before the first slash; limit "a" here, or limit "a/b" in modelConcurrency`},
		{`"providerConcurrency": {"/b": 2}`, `:1:46: background_task.providerConcurrency["/b"]: can never apply, because the provider is the part of a name before the first slash; limit "/b" in modelConcurrency`},
		{`"circuitBreaker": {"consecutiveThreshold": 1}`, `:1:65: background_task.circuitBreaker.consecutiveThreshold: is 1; it must be a whole number, at least 2, or 0 for never`},
		{`"circuitBreaker": 3`, `:1:40: background_task.circuitBreaker: is the number 3; it must be an object like { "consecutiveThreshold": 20 }, or null`},
		{`"circuitBreaker": {"enabled": 0}`, `:1:52: background_task.circuitBreaker.enabled: is the number 0; it must be true or false, or null`},
		{`"circuitBreaker": {"maxToolCalls": "any"}`, `:1:57: background_task.circuitBreaker.maxToolCalls: is the string "any"; it must be a whole number, or 0 for no limit`},
		{`"circuitBreaker": {"treshold": 1, "consecutiveTreshold": 1}`, `:1:56: background_task.circuitBreaker.consecutiveTreshold: is not a known key; did you mean consecutiveThreshold?`},
		{`"circuitBreaker": {"enabled": true, "enabled": true}`, `:1:58: background_task.circuitBreaker.enabled: appears twice, first in line 1; keep one of the two`},
		{`"circuitBraker": {}`, `:1:22: background_task.circuitBraker: is not a known key; did you mean circuitBreaker?`},
		{`"maxDepth": 1, "maxDepth": 1`, `:1:37: background_task.maxDepth: appears twice, first in line 1; keep one of the two`},
		{`"zebra": 1, "\u007aebra": 1`, ":1:34: background_task.zebra: appears twice, first in line 1; keep one of the two"},
	} {
		f, err := bgagent.ParseConfig("f.json", inSection(c.members))
		require.EqualError(t, err, "f.json"+c.want, c.members)
		require.Empty(t, f.Ignored())
		require.Equal(t, bgagent.Config{}, func() (c bgagent.Config) { f.Apply(&c); return }(), "a file with an error must not be applied in part")
	}
}

func TestWholeFilesThatAreWrong(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `:1:1: is empty; write {} or { "background_task": {} }, or remove the file`},
		{"comment", " // nothing\n", `:1:1: is empty; write {} or { "background_task": {} }, or remove the file`},
		{"comment without an end of line", "// nothing", `:1:1: is empty; write {} or { "background_task": {} }, or remove the file`},
		{"after a byte-order mark", "\ufeff{\"a\" 1}", ":1:6: is not JSON with comments: invalid character '1' after object name"},
		{"empty after a byte-order mark", "\ufeff", `:1:1: is empty; write {} or { "background_task": {} }, or remove the file`},
		{"wrong after a byte-order mark", "\ufeff[]", `:1:1: is a list; it must be an object like { "background_task": { "defaultConcurrency": 5 } }`},
		{"utf-16", "\xff\xfe{\x00}\x00", ":1:1: is UTF-16; save the file as UTF-8"},
		{"invalid utf-8", "{\n \"\xff\": 1}", ":2:3: is not valid UTF-8 from here on; save the file as UTF-8"},
		{"list", "\n[]", `:2:1: is a list; it must be an object like { "background_task": { "defaultConcurrency": 5 } }`},
		{"null", "null", `:1:1: is null; it must be an object like { "background_task": { "defaultConcurrency": 5 } }`},
		{"number as section", `{"background_task": 1}`, `:1:21: background_task: is the number 1; it must be an object like { "defaultConcurrency": 5 }, or null`},
		{"section twice", "{\"background_task\": {},\n\"background_task\": {}}", ":2:1: background_task: appears twice, first in line 1; merge the two"},
		{"not closed", "{\n\"a\": {\n\n", ":2:7: ends too early; a bracket, a quotation mark or a comment is not closed"},
		{"comment not closed", "{} /* a", ":1:8: ends too early; a bracket, a quotation mark or a comment is not closed"},
		{"no comma", "{\"é\": 1 \"b\": 2}", ":1:9: is not JSON with comments: invalid character '\"' after object value (expecting ',' or '}')"},
		{"single quotes", "{\n  'a': 1}", ":2:3: is not JSON with comments: invalid character '\\'' at start of value"},
		{"no quotation mark", "{\n \"a: 1,\n \"b\": 2}", `:2:2: is not JSON with comments: the string "\"a: 1,\n \"" is broken; is a quotation mark missing, or a backslash not doubled?`},
		{"no quotation marks", `{"a": yes}`, `:1:7: is not JSON with comments: "yes" is not a value; it must be a number, true, false, null or a string in quotation marks; keys need quotation marks, too`},
		{"two values", "{} {}", ":1:4: is not JSON with comments: invalid character '{' after top-level value"},
		{"deep", strings.Repeat("[", 1<<20), ":1:201: is nested more than 200 levels deep"},
		{"deep after comments and strings", "{\"[\\\"[\": /* [ */ // [\n" + strings.Repeat("{\"a\":", 1000), ":2:996: is nested more than 200 levels deep"},
		{"too large", strings.Repeat(" ", 1<<20+1), ":1:1: has 1048577 bytes; a configuration file may have at most 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bgagent.ParseConfig("f.json", []byte(c.text))
			require.EqualError(t, err, "f.json"+c.want)
		})
	}
}

func TestAllMistakesOfAllFilesAreReportedTogether(t *testing.T) {
	dir := t.TempDir()
	a := writeFile(t, filepath.Join(dir, "a.json"), "{\"background_task\": {\n\"maxDepth\": 0,\n\"modelConcurrency\": {\"x\": -1,\n \"y\": 1.5},\n\"wakee\": 1}}")
	b := writeFile(t, filepath.Join(dir, "b.json"), "{")
	good := writeFile(t, filepath.Join(dir, "good.json"), string(inSection(`"maxDepth": 2`)))
	missing := filepath.Join(dir, "missing.json")
	f, err := bgagent.LoadConfig(good, a, missing, b)
	require.Equal(t, bgagent.FileConfig{}, f)
	type place struct {
		file string
		line int
		key  string
	}
	var got []place
	for _, e := range fileErrors(t, err) {
		got = append(got, place{e.File, e.Line, e.Key})
	}
	require.Equal(t, []place{
		{a, 2, "background_task.maxDepth"},
		{a, 3, `background_task.modelConcurrency["x"]`},
		{a, 4, `background_task.modelConcurrency["y"]`},
		{a, 5, "background_task.wakee"},
		{missing, 0, ""},
		{b, 1, ""},
	}, got)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, ok := errors.AsType[*bgagent.ConfigFileError](err)
	require.True(t, ok)
}

func TestFilesThatCannotBeReadAreNamed(t *testing.T) {
	dir := t.TempDir()
	_, err := bgagent.LoadConfig(dir)
	require.EqualError(t, err, dir+": is a directory; name the file in it")

	missing := filepath.Join(dir, "missing.json")
	_, err = bgagent.LoadConfig(missing)
	require.EqualError(t, err, missing+": cannot be read: no such file or directory")
	require.ErrorIs(t, err, fs.ErrNotExist)

	large := writeFile(t, filepath.Join(dir, "large.json"), "{}")
	require.NoError(t, os.Truncate(large, 100<<20)) // a sparse file does not need disk space
	_, err = bgagent.LoadConfig(large)
	require.EqualError(t, err, large+": has 104857600 bytes; a configuration file may have at most 1048576")

	_, err = bgagent.LoadConfig(os.DevNull)
	require.EqualError(t, err, os.DevNull+": is not a regular file")
}

func TestLaterFilesLieOverEarlierOnes(t *testing.T) {
	dir := t.TempDir()
	load := func(texts ...string) (bgagent.FileConfig, bgagent.Config) {
		var paths []string
		for i, text := range texts {
			paths = append(paths, writeFile(t, filepath.Join(dir, string(rune('a'+i))+".json"), text))
		}
		f, err := bgagent.LoadConfig(paths...)
		return f, applied(t, f, err)
	}
	user := string(inSection(`"modelConcurrency": {"Opus": 2, "gpt": 3}, "defaultConcurrency": 4, "staleTimeoutMs": 1000, "wake": "each"`))

	f, c := load(user, string(inSection(`"modelConcurrency": {"gpt": 5, "opus ": null, "new": 6}, "staleTimeoutMs": null, "maxDepth": 2`)))
	require.Equal(t, bgagent.Config{Limits: bgagent.Limits{Model: map[string]int{"gpt": 5, "new": 6}, Default: 4}, MaxDepth: 2, Wake: bgagent.WakeEach}, c)
	from := map[string]string{}
	for _, s := range f.Settings() {
		from[s.Name()] = s.Value + " " + filepath.Base(s.Origin.String())
	}
	require.Equal(t, "5 b.json:1:43", from[`modelConcurrency["gpt"]`])
	require.Equal(t, "4 a.json:1:65", from["defaultConcurrency"])
	require.Equal(t, "180000 default", from["staleTimeoutMs"])
	require.Equal(t, `"each" a.json:1:114`, from["wake"])
	require.Equal(t, "5000 default", from["statusTimeoutMs"])
	require.NotContains(t, from, `modelConcurrency["opus"]`)

	_, c = load(user, string(inSection(`"modelConcurrency": null, "wake": "batch"`)), string(inSection(`"modelConcurrency": {"z": 1}`)))
	require.Equal(t, bgagent.Config{Limits: bgagent.Limits{Model: map[string]int{"z": 1}, Default: 4}, StaleTimeout: time.Second}, c)

	_, c = load(user, `{"background_task": null}`, string(inSection(`"maxDepth": 3`)))
	require.Equal(t, bgagent.Config{MaxDepth: 3}, c)

	_, c = load()
	require.Equal(t, bgagent.Config{}, c, "without files, nothing is set")
}

func TestApplyKeepsWhatTheProgramHasSet(t *testing.T) {
	f, err := bgagent.ParseConfig("f.json", inSection(`"modelConcurrency": {"opus": 2, "gone": null}, "staleTimeoutMs": null, "maxDepth": 3`))
	require.NoError(t, err)
	models := map[string]int{"Opus": 9, "gone": 8, "own": 7}
	c := bgagent.Config{Limits: bgagent.Limits{Model: models, Default: 1}, StaleTimeout: time.Hour, MaxDepth: 1}
	f.Apply(&c)
	require.Equal(t, bgagent.Config{Limits: bgagent.Limits{Model: map[string]int{"opus": 2, "gone": 8, "own": 7}, Default: 1}, StaleTimeout: time.Hour, MaxDepth: 3}, c)
	require.Equal(t, map[string]int{"Opus": 9, "gone": 8, "own": 7}, models, "the program's own map must not be changed")

	c.Limits.Model["opus"] = 5
	var other bgagent.Config
	f.Apply(&other)
	require.Equal(t, 2, other.Limits.Model["opus"], "two configurations must not share a map")
}

func TestConflictsAreRefusedWithTheirPlacesAndBothKeys(t *testing.T) {
	dir := t.TempDir()
	a := writeFile(t, filepath.Join(dir, "a.json"), "{\"background_task\": {\n \"staleTimeoutMs\": 1000}}")
	b := writeFile(t, filepath.Join(dir, "b.json"), "{\"background_task\": {\n\n \"pollIntervalMs\": 2000}}")
	_, err := bgagent.LoadConfig(a, b)
	require.EqualError(t, err, b+":3:2: background_task.pollIntervalMs: is 2s and background_task.staleTimeoutMs ("+a+":2:2) is 1s; the first must not be longer than the second")
	require.Equal(t, 3, fileErrors(t, err)[0].Line)

	f, err := bgagent.ParseConfig("f.json", inSection(`"staleTimeoutMs": 1000, "pollIntervalMs": 2000`))
	_, err = bgagent.New(bgagenttest.NewRunner(nil), applied(t, f, err))
	require.ErrorContains(t, err, "Config.PollInterval")
	require.ErrorContains(t, err, "Config.StaleTimeout")
}

func TestFindConfigFilesLooksInTheTutorialsPlaces(t *testing.T) {
	home, project := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	find := func(dir string) []string {
		t.Helper()
		found, err := bgagent.FindConfigFiles(dir)
		require.NoError(t, err)
		return found
	}
	require.Empty(t, find(project))

	plain := writeFile(t, filepath.Join(home, ".config", "opencode", "oh-my-opencode.json"), "{}")
	own := writeFile(t, filepath.Join(project, ".opencode", "oh-my-opencode.json"), "{}")
	require.Equal(t, []string{plain, own}, find(project), "the project's file overrides the user's file")
	require.Equal(t, []string{plain}, find(""))
	require.Equal(t, []string{plain}, find(filepath.Join(project, "none")))
	require.Equal(t, []string{plain}, find(own), "a file in place of a directory contains no files")

	commented := writeFile(t, filepath.Join(home, ".config", "opencode", "oh-my-opencode.jsonc"), "{}")
	require.Equal(t, []string{commented, own}, find(project), ".jsonc takes precedence over .json in the same directory")

	xdg := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", xdg)
	require.Equal(t, []string{own}, find(project), "XDG_CONFIG_HOME is used instead of ~/.config")
	there := writeFile(t, filepath.Join(xdg, "opencode", "oh-my-opencode.json"), "{}")
	require.Equal(t, []string{there, own}, find(project))

	t.Setenv("XDG_CONFIG_HOME", "relative")
	require.Equal(t, []string{commented, own}, find(project), "a relative XDG_CONFIG_HOME is ignored")

	t.Setenv("HOME", "")
	require.Equal(t, []string{own}, find(project), "without a home directory, there is no user's file")
}

func TestALinkThatLeadsNowhereIsFoundAndReported(t *testing.T) {
	project := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	require.NoError(t, os.Mkdir(filepath.Join(project, ".opencode"), 0o755))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(project, ".opencode", "oh-my-opencode.json")))
	found, err := bgagent.FindConfigFiles(project)
	require.NoError(t, err)
	require.Len(t, found, 1)
	_, err = bgagent.LoadConfig(found...)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFilesInMemoryMergeAsLoadedOnesDo(t *testing.T) {
	parse := func(section string) bgagent.FileConfig {
		f, err := bgagent.ParseConfig("f.json", []byte(`{"background_task": {`+section+`}}`))
		require.NoError(t, err)
		return f
	}
	first := parse(`"defaultConcurrency": 7, "maxDepth": 2, "modelConcurrency": {"a": 1, "b": 2}`)
	second := parse(`"maxDepth": null, "modelConcurrency": {"a": null, "c": 3}`)
	var c bgagent.Config
	first.Merge(second).Apply(&c)
	require.Equal(t, bgagent.Config{Limits: bgagent.Limits{Default: 7, Model: map[string]int{"b": 2, "c": 3}}}, c)
	c = bgagent.Config{}
	first.Apply(&c)
	require.Equal(t, 2, c.MaxDepth, "the first configuration must not change")

	_, err := bgagent.LoadConfig("")
	require.EqualError(t, err, "path: is empty; it must name a configuration file")
}
