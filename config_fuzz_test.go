package bgagent_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/stretchr/testify/require"
)

// The settings of a parsed file do not change when they are written and parsed again. Every error
// names its place in the file.
func FuzzParseConfig(f *testing.F) {
	tutorial, err := os.ReadFile("testdata/tutorial.json")
	require.NoError(f, err)
	f.Add(tutorial)
	for _, s := range []string{
		"", "{}", "//", "[[", "{\"background_task\": null,}", "\ufeff{}", "{\"\xff\": 1}", "/* [ */ {}", `{"background_task": "x"}`,
		`{"background_task": {"staleTimeoutMs": 0, "taskCleanupDelayMs": 60000, "maxDepth": 1e2, "wake": "never"}}`,
		`{"background_task": {"modelConcurrency": {"\u0130 <&>\u2028": 1, "a/b/c": 0}, "providerConcurrency": null}}`,
		`{"[opencode]": {"background_task": {"maxDepth": 2, "modelConcurrency": null}}, "background_task": {"modelConcurrency": {"a": 1}}}`,
		`{"[codex]": {"background_task": {}}, "[opencode]": 1, "[opencode]": {}}`, "\ufeff\ufeff{}",
		`{"background_task": {"staleTimeoutMs": 2700000, "taskTtlMs": 1800000, "todoGateGraceMs": 1}}`,
		"{\n\"background_task\": {\"maxDepth\": 0, \"maxDepth\": 0,\r\n\"zebra\": [1.5], \"retainTextBytes\": 9223372036854775807}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := bgagent.ParseConfig("f.json", data)
		if err != nil {
			lines := 1 + strings.Count(string(data), "\n")
			for _, e := range fileErrors(t, err) {
				require.Equal(t, "f.json", e.File)
				require.True(t, 1 <= e.Line && e.Line <= lines && e.Column >= 1, "%v", e)
				require.NotEmpty(t, e.Problem)
				require.NotContains(t, e.Error(), "\n", "an error must be a single line")
			}
			require.Equal(t, bgagent.FileConfig{}, file)
			return
		}
		var c, again bgagent.Config
		file.Apply(&c)
		text, err := bgagent.FormatConfig(c)
		require.NoError(t, err)
		file, err = bgagent.ParseConfig("again.json", text)
		require.NoError(t, err, "%s", text)
		file.Apply(&again)
		require.Equal(t, c, again, "%s", text)
		for _, k := range file.Ignored() {
			require.Equal(t, "background_task.staleTimeoutMs", k.Key, "every written key has an effect, unless the time to live ends a task first")
		}
	})
}

func TestFormatConfigWritesWhatIsSetInTheOrderOfTheTable(t *testing.T) {
	text, err := bgagent.FormatConfig(bgagent.Config{
		Limits: bgagent.Limits{
			Model:    map[string]int{"B": 2, "a<b>": bgagent.Unlimited, "unset": 0},
			Provider: map[string]int{"unset": 0},
		},
		Wake: bgagent.WakeNever, StaleTimeout: bgagent.Disabled, TimeToLive: time.Hour, PollInterval: time.Second,
	})
	require.NoError(t, err)
	require.Equal(t, `{
  "background_task": {
    "modelConcurrency": {
      "a<b>": 0,
      "b": 2
    },
    "staleTimeoutMs": 0,
    "taskTtlMs": 3600000,
    "pollIntervalMs": 1000,
    "wake": "never"
  }
}
`, string(text))

	text, err = bgagent.FormatConfig(bgagent.Config{})
	require.NoError(t, err)
	require.Equal(t, "{\n  \"background_task\": {}\n}\n", string(text))
}

func TestFormatConfigRefusesWhatAFileCannotHold(t *testing.T) {
	for want, c := range map[string]bgagent.Config{
		"Config.PollInterval: is 1.5ms; a file holds only whole milliseconds":                         {PollInterval: 1500 * time.Microsecond},
		"Config.PollInterval: is -1ns; it must be positive, or 0 for the default":                     {PollInterval: bgagent.Disabled},
		"Config.StaleTimeout: is -2ns; it must be positive, 0 for the default, or -1 for never":       {StaleTimeout: -2},
		"Config.RetainText: is -2; it must be positive, 0 for the default, or -1 for no limit":        {RetainText: -2},
		"Config.Wake: is 3; it must be WakeBatch, WakeEach or WakeNever":                              {Wake: 3},
		`Config.Limits.Model["x"]: is -2; it must be positive, 0 for the default, or -1 for no limit`: {Limits: bgagent.Limits{Model: map[string]int{"x": -2}}},
		`Config.Limits.Model[" "]: has a name that a file cannot hold`:                                {Limits: bgagent.Limits{Model: map[string]int{" ": 2}}},
		`Config.Limits.Provider["\xff"]: has a name that a file cannot hold`:                          {Limits: bgagent.Limits{Provider: map[string]int{"\xff": 2}}},
		`Config.Limits.Provider["a"]: is the same name as "A"; keep one of the two`:                   {Limits: bgagent.Limits{Provider: map[string]int{"A": 2, "a": 2}}},
		"Config.Limits.Default: is -2; it must be positive, 0 for the default, or -1 for no limit":    {Limits: bgagent.Limits{Default: -2}},
	} {
		_, err := bgagent.FormatConfig(c)
		require.EqualError(t, err, "bgagent: format config: "+want)
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input)
	}
}

// A file below the size limit is parsed quickly, whatever it contains.
func TestLargeFilesAreReadInAMoment(t *testing.T) {
	if race.Enabled {
		t.Skip("takes long with the race detector, and only one goroutine reads the file")
	}
	entries := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < 1<<20-100; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	start := time.Now()
	file, err := bgagent.ParseConfig("f.json", inSection(`"modelConcurrency": {`+entries(`"m%d": 1,`)+`}`))
	require.NoError(t, err)
	var c bgagent.Config
	file.Apply(&c)
	file.Apply(&c)
	require.Greater(t, len(c.Limits.Model), 50_000)
	require.Greater(t, len(file.Settings()), 50_000)

	_, err = bgagent.ParseConfig("f.json", inSection(entries(`"wake%d": 1, "wake%[1]d": 1,`)))
	require.Greater(t, len(fileErrors(t, err)), 20_000)
	file, err = bgagent.ParseConfig("f.json", inSection(entries(`"x%dStaleTimeoutMs": 1,`)))
	require.NoError(t, err)
	require.Greater(t, len(file.Ignored()), 20_000)
	require.Less(t, time.Since(start), 2*time.Minute, "quadratic work would take far longer")
}
