package bgagent_test

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestTheKeysOfTheCircuitBreakerApply(t *testing.T) {
	const off = bgagent.Unlimited
	for _, c := range []struct {
		files   []string // members of the section background_task in each file
		want    bgagent.Config
		ignored []string
	}{
		{files: []string{`"maxToolCalls": 200`}, want: bgagent.Config{MaxToolCalls: 200}},
		{files: []string{`"circuitBreaker": {"maxToolCalls": 50}`}, want: bgagent.Config{MaxToolCalls: 50}},
		{files: []string{`"circuitBreaker": {"maxToolCalls": 50}, "maxToolCalls": 200`}, want: bgagent.Config{MaxToolCalls: 50},
			ignored: []string{"f0.json:1:62: background_task.maxToolCalls is ignored: background_task.circuitBreaker.maxToolCalls (f0.json:1:41) decides"}},
		{files: []string{`"circuitBreaker": {"maxToolCalls": 50}`, `"maxToolCalls": 200`}, want: bgagent.Config{MaxToolCalls: 50},
			ignored: []string{"f1.json:1:22: background_task.maxToolCalls is ignored: background_task.circuitBreaker.maxToolCalls (f0.json:1:41) decides"}},
		{files: []string{`"circuitBreaker": {"maxToolCalls": 50, "enabled": false}`, `"maxToolCalls": 200, "circuitBreaker": null`}, want: bgagent.Config{MaxToolCalls: 200}},
		{files: []string{`"circuitBreaker": {"maxToolCalls": 50, "consecutiveThreshold": 7}`, `"circuitBreaker": {"maxToolCalls": null}`}, want: bgagent.Config{RepeatedCalls: 7}},
		{files: []string{`"circuitBreaker": {"enabled": false, "maxToolCalls": 50, "consecutiveThreshold": 7}`}, want: bgagent.Config{MaxToolCalls: 50, RepeatedCalls: off}},
		{files: []string{`"circuitBreaker": {"enabled": false}`, `"circuitBreaker": {"enabled": true}`}},
		{files: []string{`"circuitBreaker": {"enabled": false}`, `"circuitBreaker": {"enabled": null}`}},
		{files: []string{`"circuitBreaker": {"consecutiveThreshold": 0, "enabled": true}`}, want: bgagent.Config{RepeatedCalls: off}},
		{files: []string{`"circuitBreaker": {"enabled": true}`, `"circuitBreaker": {"consecutiveThreshold": 0}`}, want: bgagent.Config{RepeatedCalls: off}},
		{files: []string{`"circuitBreaker": {"enabled": false}`}, want: bgagent.Config{RepeatedCalls: off}},
		{files: []string{`"circuitBreaker": {"enabled": true}`}},
		{files: []string{`"circuitBreaker": {"other": true}`}, ignored: []string{
			"f0.json:1:41: background_task.circuitBreaker.other is ignored: it is not known here; the documentation has a table of the known keys"}},
		{files: []string{`"circuitBreaker": {"maxToolCalls": 50, "enabled": false}`, `"taskTtlMs": null`}, want: bgagent.Config{MaxToolCalls: 50, RepeatedCalls: off}},
	} {
		var all bgagent.FileConfig
		for i, members := range c.files {
			f, err := bgagent.ParseConfig("f"+string(rune('0'+i))+".json", inSection(members))
			require.NoError(t, err, members)
			all = all.Merge(f)
		}
		require.Equal(t, c.want, applied(t, all, nil), "%q", c.files)
		require.Equal(t, c.ignored, said(all), "%q", c.files)
	}
	f, err := bgagent.ParseConfig("f.json", inSection(`"circuitBreaker": {"enabled": true}`))
	require.NoError(t, err)
	own := bgagent.Config{RepeatedCalls: off}
	f.Apply(&own)
	require.Zero(t, own.RepeatedCalls, "the file enables a limit that the program has disabled")

	f, err = bgagent.ParseConfig("f.json", []byte(`{"circuitBreaker": {}, "background_task": {}}`))
	require.Equal(t, bgagent.Config{}, applied(t, f, err))
	require.Equal(t, []string{"f.json:1:2: circuitBreaker is ignored: it counts only inside of background_task"}, said(f))
	_, err = bgagent.ParseConfig("f.json", inSection(`"circuitBreaker.enabled": false`))
	require.EqualError(t, err, `f.json:1:22: background_task.circuitBreaker.enabled: is written with a dot; write "circuitBreaker": { "enabled": … }`)
}

func TestTheSettingsShowWhichKeyDecidesAboutToolCalls(t *testing.T) {
	for members, want := range map[string][]string{
		``: {"maxToolCalls 4000 default", "circuitBreaker.consecutiveThreshold 20 default", "circuitBreaker.enabled true default"},
		`"maxToolCalls": 200, "circuitBreaker": {"maxToolCalls": 0, "enabled": false}`: {
			"circuitBreaker.maxToolCalls 0 f.json:1:62", "circuitBreaker.consecutiveThreshold 20 default", "circuitBreaker.enabled false f.json:1:81"},
	} {
		f, err := bgagent.ParseConfig("f.json", inSection(members))
		require.NoError(t, err)
		var got []string
		for _, s := range f.Settings()[3:6] {
			got = append(got, s.Name()+" "+s.Value+" "+s.Origin.String())
		}
		require.Equal(t, want, got)
	}
}

func TestFormatConfigWritesTheKeysOfTheCircuitBreaker(t *testing.T) {
	for text, c := range map[string]bgagent.Config{
		"    \"maxToolCalls\": 9,\n    \"circuitBreaker\": {\n      \"consecutiveThreshold\": 7\n    }\n": {MaxToolCalls: 9, RepeatedCalls: 7},
		"    \"maxToolCalls\": 0,\n    \"circuitBreaker\": {\n      \"enabled\": false\n    }\n":          {MaxToolCalls: -1, RepeatedCalls: -1},
	} {
		got, err := bgagent.FormatConfig(c)
		require.NoError(t, err)
		require.Equal(t, "{\n  \"background_task\": {\n"+text+"  }\n}\n", string(got))
		f, err := bgagent.ParseConfig("f.json", got)
		require.Equal(t, c, applied(t, f, err))
	}
}
