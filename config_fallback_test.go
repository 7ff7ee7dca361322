package bgagent_test

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAFileSetsFallbacks(t *testing.T) {
	user, err := bgagent.ParseConfig("user", inSection(`"fallback": {"A/Opus": ["b/Large", " a/sonnet "], "mini": []}, "fallbackAfterMs": 60000`))
	require.NoError(t, err)
	require.Equal(t, bgagent.Config{
		Fallback:      map[string][]string{"a/opus": {"b/Large", "a/sonnet"}, "mini": {}},
		FallbackAfter: time.Minute,
	}, applied(t, user, nil))
	require.Empty(t, user.Ignored())

	project, err := bgagent.ParseConfig("project", inSection(`"fallback": {"a/opus": ["c/x"], "mini": null}, "fallbackAfterMs": 0`))
	require.NoError(t, err)
	require.Equal(t, bgagent.Config{
		Fallback:      map[string][]string{"a/opus": {"c/x"}},
		FallbackAfter: bgagent.Disabled,
	}, applied(t, user.Merge(project), nil), "a later list replaces the earlier one")
	none, err := bgagent.ParseConfig("none", inSection(`"fallback": null, "fallbackAfterMs": null`))
	require.NoError(t, err)
	require.Equal(t, bgagent.Config{}, applied(t, user.Merge(none), nil))

	c := bgagent.Config{Fallback: map[string][]string{"A/opus": {"d/y"}, "own": {"e/z"}}}
	user.Apply(&c)
	require.Equal(t, map[string][]string{"a/opus": {"b/Large", "a/sonnet"}, "mini": {}, "own": {"e/z"}}, c.Fallback)

	var set []string
	for _, s := range user.Settings() {
		if s.Key == "fallback" {
			set = append(set, s.Name()+" "+s.Value+" "+s.Origin.String())
		}
	}
	require.Equal(t, []string{`fallback["a/opus"] ["b/Large", "a/sonnet"] user:1:35`, `fallback["mini"] [] user:1:72`}, set)

	text, err := bgagent.FormatConfig(c)
	require.NoError(t, err)
	again, err := bgagent.ParseConfig("again", text)
	require.NoError(t, err)
	require.Equal(t, c, applied(t, again, nil))
}

func TestWrongFallbacksAreNamedWithTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		`"fallback": ["a"]`:               `background_task.fallback: is a list; it must be an object like { "a/opus": ["b/large", "a/sonnet"] }`,
		`"fallback": {"a": "b"}`:          `background_task.fallback["a"]: is the string "b"; it must be a list of models like ["b/large", "a/sonnet"]`,
		`"fallback": {"a": ["b", 3]}`:     `background_task.fallback["a"][1]: is the number 3; it must be the name of a model`,
		`"fallback": {"a": ["b", " "]}`:   `background_task.fallback["a"][1]: is empty; it must name a model`,
		`"fallback": {"a": [" A"]}`:       `background_task.fallback["a"][0]: is the model itself; it must be another model`,
		`"fallback": {"a": ["b", "B"]}`:   `background_task.fallback["a"][1]: names "b" again; keep one of the two`,
		`"fallback": {" ": ["b"]}`:        `has no name; name the model that has the fallback`,
		`"fallback": {"a": [], "A": []}`:  `background_task.fallback["A"]: appears twice, first in line`,
		`"fallback": {}, "fallback": {}`:  `background_task.fallback: appears twice`,
		`"fallbacks": {}`:                 `did you mean fallback?`,
		`"fallbackAfterMs": -1`:           `background_task.fallbackAfterMs: is negative (-1); it must be a whole number of milliseconds, or 0 for no wait`,
		`"fallback": {"a": null, "b": 0}`: `background_task.fallback["b"]: is the number 0; it must be a list of models`,
	} {
		_, err := bgagent.ParseConfig("f", inSection(text))
		require.ErrorContains(t, err, want, text)
	}
	for want, all := range map[string]map[string][]string{
		`Config.Fallback[""]: has no name`:                           {"": {"b"}},
		`Config.Fallback["a"][0]: is the model itself`:               {"a": {"A"}},
		`Config.Fallback["a"][1]: is empty`:                          {"a": {"b", ""}},
		`Config.Fallback["a"][2]: names "b" again`:                   {"a": {"b", "c", " B "}},
		`Config.Fallback["a"]: is the same name as "A"; keep one of`: {"a": {"b"}, "A": {"c"}},
	} {
		_, err := bgagent.New(newLimited(nil), bgagent.Config{Fallback: all})
		var wrong *bgagent.InputError
		require.ErrorAs(t, err, &wrong)
		require.Contains(t, wrong.Field+": "+wrong.Problem, want)
		_, err = bgagent.FormatConfig(bgagent.Config{Fallback: all})
		require.ErrorAs(t, err, &wrong)
	}
}
