package bgagent_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The function "said" returns the ignored keys of a file as lines of text.
func said(f bgagent.FileConfig) (lines []string) {
	for _, k := range f.Ignored() {
		lines = append(lines, k.String())
	}
	return lines
}

func TestTheFileForAllHarnessesIsRead(t *testing.T) {
	f, err := bgagent.LoadConfig("testdata/unified.jsonc")
	require.Equal(t, bgagent.Config{MaxDepth: 2, Limits: bgagent.Limits{
		Default:  2,
		Provider: map[string]int{"anthropic": 3, "openai": 5},
		Model:    map[string]int{"anthropic/claude-opus-5-5": 2, "gpt": 7},
	}}, applied(t, f, err), "the values under [opencode] override the values for all harnesses")
	require.Empty(t, f.Ignored())

	for text, want := range map[string]bgagent.Config{
		`{"[opencode]": {"background_task": {"maxDepth": 2}}}`:                                                        {MaxDepth: 2},
		`{"[opencode]": {"background_task": {"maxDepth": null}}, "background_task": {"maxDepth": 3}}`:                 {},
		`{"[opencode]": {"background_task": null}, "background_task": {"maxDepth": 3, "modelConcurrency": {"a": 1}}}`: {},
		`{"[opencode]": {"background_task": {"modelConcurrency": {"a": null, "b": 2}}}, "background_task": {"modelConcurrency": {"a": 1, "c": 3}}}`: {
			Limits: bgagent.Limits{Model: map[string]int{"b": 2, "c": 3}}},
	} {
		f, err := bgagent.ParseConfig("f.json", []byte(text))
		require.Equal(t, want, applied(t, f, err), text)
		require.Empty(t, f.Ignored(), text)
	}
	user, err := bgagent.ParseConfig("user.json", inSection(`"maxDepth": 4, "modelConcurrency": {"x": 1}`))
	require.NoError(t, err)
	project, err := bgagent.ParseConfig("project.json", []byte(`{"[opencode]": {"background_task": {"maxDepth": null, "modelConcurrency": null}}}`))
	require.Equal(t, bgagent.Config{}, applied(t, user.Merge(project), err), "a null removes the value of an earlier file")

	_, err = bgagent.ParseConfig("f.json", []byte("{\"[opencode]\": {},\n\"[opencode]\": {}}"))
	require.EqualError(t, err, "f.json:2:1: [opencode]: appears twice; merge the two")
}

func TestAFileWithoutASectionForUsSaysSo(t *testing.T) {
	const none = `f.json:1:1: has no section background_task, neither at its top nor in "[opencode]"; nothing in it applies`
	for text, want := range map[string]string{
		`{}`:                             none,
		"\ufeff{}":                       none,
		`{"agents": {}, "$schema": "x"}`: none,
		`{"[opencode]": {}}`:             none,
		`{"[opencode]": 5, "[codex]": {"x": {}}}`:              none,
		`{"[codex]": {"background_task": {"maxDepth": 2}}}`:    `f.json:1:2: "[codex]".background_task is ignored: only the one at the top of the file and the one in "[opencode]" count`,
		`{"[open-code]": {"background_task": {}}}`:             `f.json:1:2: "[open-code]".background_task is ignored: only the one at the top of the file and the one in "[opencode]" count`,
		`{"[opencode]": {"backgroundTasks": {"maxDepth": 2}}}`: `f.json:1:17: backgroundTasks is ignored: did you mean background_task?`,
		`{"[opencode]": {"maxDepth": 2}}`:                      `f.json:1:17: maxDepth is ignored: it counts only inside of background_task`,
	} {
		f, err := bgagent.ParseConfig("f.json", []byte(text))
		require.Equal(t, bgagent.Config{}, applied(t, f, err), text)
		require.Equal(t, []string{want}, said(f), text)
	}
	for _, text := range []string{`{"background_task": {}}`, `{"background_task": null}`, `{"[opencode]": {"background_task": {}}}`} {
		f, err := bgagent.ParseConfig("f.json", []byte(text))
		require.NoError(t, err)
		require.Empty(t, said(f), text)
	}
}

func TestTheHostsFileIsFoundInAllItsPlacesTheNewestFirst(t *testing.T) {
	home, project := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	find := func(dir string) []string {
		t.Helper()
		found, err := bgagent.FindConfigFiles(dir)
		require.NoError(t, err)
		return found
	}
	const ours = `{"background_task": {}}`
	for _, level := range []struct{ own, unified string }{{filepath.Join(home, ".config", "opencode"), filepath.Join(home, ".omo")}, {filepath.Join(project, ".opencode"), filepath.Join(project, ".omo")}} {
		before := find(project)
		for _, path := range []string{ // from the oldest name to the newest
			filepath.Join(level.own, "oh-my-opencode.json"), filepath.Join(level.own, "oh-my-opencode.jsonc"),
			filepath.Join(level.own, "oh-my-openagent.json"), filepath.Join(level.own, "oh-my-openagent.jsonc"),
			filepath.Join(level.unified, "omo.json"), filepath.Join(level.unified, "omo.jsonc"),
		} {
			writeFile(t, path, ours)
			require.Equal(t, append(before[:len(before):len(before)], path), find(project), "only the newest kind of file is found, and the project's file comes after the user's file")
		}
	}
	// If the file for all harnesses has no section background_task, it does not hide the limits in an
	// older file.
	older := filepath.Join(home, ".config", "opencode", "oh-my-openagent.jsonc")
	unified := writeFile(t, filepath.Join(home, ".omo", "omo.jsonc"), `{"[codex]": {}}`)
	require.Equal(t, []string{older, unified}, find(""))
	f, err := bgagent.LoadConfig(find("")...)
	require.NoError(t, err)
	require.Len(t, said(f), 1)
	require.Contains(t, said(f)[0], "omo.jsonc:1:1: has no section background_task")
	writeFile(t, unified, "{")
	require.Equal(t, []string{unified}, find(""), "a file that cannot be read is found, so that loading reports the error")
	require.NoError(t, os.Remove(older))
	writeFile(t, unified, "{}")
	require.Equal(t, []string{older[:len(older)-1], unified}, find(""))
	require.Equal(t, find(""), find(home), "if the project directory is the home directory, each file is found once")
}

func TestTheDefaultsOfTheHostWrittenOutStart(t *testing.T) {
	f, err := bgagent.LoadConfig("testdata/host_defaults.jsonc")
	c := applied(t, f, err)
	_, err = bgagent.New(bgagenttest.NewRunner(nil), c)
	require.NoError(t, err)
	require.Equal(t, 30*time.Minute, c.TimeToLive)
	require.Equal(t, 30*time.Minute, c.StaleTimeout)
	require.Equal(t, 50, c.MaxToolCalls, "the nested key wins")
	require.Equal(t, 5, c.RepeatedCalls)
	require.Contains(t, said(f), "testdata/host_defaults.jsonc:5:5: background_task.staleTimeoutMs is ignored: it is 2700000 (45m 0s), longer than background_task.taskTtlMs, "+
		"which is 1800000 (30m 0s) (testdata/host_defaults.jsonc:7:5) and so ends a task first; raise taskTtlMs as well")

	c = bgagent.Config{TimeToLive: 10 * time.Minute}
	f, err = bgagent.ParseConfig("f.json", inSection(`"staleTimeoutMs": 1200000`))
	require.NoError(t, err)
	f.Apply(&c)
	_, err = bgagent.New(bgagenttest.NewRunner(nil), c)
	require.NoError(t, err, "a time to live that the program sets must not cause an error either")
}

func TestAStaleTimeoutBeyondTheTimeToLiveIsSaid(t *testing.T) {
	for members, want := range map[string]string{
		`"staleTimeoutMs": 2400000`:                         "which is 1800000 (30m 0s) (the default)",
		`"staleTimeoutMs": 2400000, "taskTtlMs": null`:      "which is 1800000 (30m 0s) (the default)",
		`"taskTtlMs": 60000, "staleTimeoutMs": 60001`:       "which is 60000 (1m 0s) (f.json:1:22)",
		`"staleTimeoutMs": 2400000, "taskTtlMs": 0`:         "",
		`"staleTimeoutMs": 2400000, "taskTtlMs": 2400000`:   "",
		`"staleTimeoutMs": 0`:                               "",
		`"staleTimeoutMs": 1800000`:                         "",
		`"taskTtlMs": 60000`:                                "",
		`"staleTimeoutMs": null, "taskTtlMs": 60000`:        "",
		`"staleTimeoutMs": 9223372036854, "taskTtlMs": 0.0`: "",
	} {
		f, err := bgagent.ParseConfig("f.json", inSection(members))
		require.NoError(t, err)
		if want == "" {
			require.Empty(t, said(f), members)
			continue
		}
		require.Len(t, said(f), 1, members)
		require.Contains(t, said(f)[0], want, members)
	}
	user, err := bgagent.ParseConfig("user.json", inSection(`"staleTimeoutMs": 2400000`))
	require.NoError(t, err)
	project, err := bgagent.ParseConfig("project.json", inSection(`"taskTtlMs": 7200000`))
	require.NoError(t, err)
	require.Empty(t, said(user.Merge(project)), "only the merged files count")
}

func TestKeysOfANewerHostAreReportedWithTheNearestKnownOne(t *testing.T) {
	f, err := bgagent.ParseConfig("f.json", inSection(`"taskTtlMs": 300000, "todoGateGraceMs": 60000, "maxStabilityResets": 25, "zebra": {"a": [1]}, "": null, "a\nb": 1, "maxToolSteps": 5`))
	require.Equal(t, bgagent.Config{TimeToLive: 5 * time.Minute}, applied(t, f, err), "the known keys apply")
	require.Equal(t, []string{
		"f.json:1:43: background_task.todoGateGraceMs is ignored: it is not known here; the nearest known key is todoHoldMs",
		"f.json:1:69: background_task.maxStabilityResets is ignored: it is not known here; the nearest known key is minStabilityTimeMs",
		"f.json:1:95: background_task.zebra is ignored: it is not known here; the documentation has a table of the known keys",
		`f.json:1:116: background_task[""] is ignored: it is not known here; the documentation has a table of the known keys`,
		`f.json:1:126: background_task["a\nb"] is ignored: it is not known here; the documentation has a table of the known keys`,
		"f.json:1:137: background_task.maxToolSteps is ignored: it is not known here; the nearest known key is maxToolCalls",
	}, said(f))
}

// If a typo silently prevented a limit from applying, the user would notice the mistake too late.
func TestASlipOfTheKeyboardIsNoKeyOfANewerHost(t *testing.T) {
	for _, name := range []string{"modelConcurency", "modelConcurrencyy", "modelConcurremcy", "modelConcurrnecy", "ModelConcurrency", "model_concurrency", "model-concurrency", "Limits.Model", "defaultConcurency", "maxDepht", "wak"} {
		_, err := bgagent.ParseConfig("f.json", inSection(`"`+name+`": {"a": 1}`))
		require.ErrorContains(t, err, "is not a known key; did you mean ", name)
	}
	for _, name := range []string{"maxIdleTimeMs", "modelConcurrencyPerAgent", "queueLimit", "maxDepthPerAgent", "staleToolTimeoutMs", "w"} {
		f, err := bgagent.ParseConfig("f.json", inSection(`"`+name+`": {"a": 1}`))
		require.NoError(t, err, name)
		require.Len(t, said(f), 1, name)
	}
}

func TestAByteOrderMarkIsReadPast(t *testing.T) {
	f, err := bgagent.ParseConfig("f.json", append([]byte("\xef\xbb\xbf"), inSection(`"maxDepth": 2`)...))
	require.Equal(t, bgagent.Config{MaxDepth: 2}, applied(t, f, err))
	require.Equal(t, "f.json:1:22", f.Settings()[1].Origin.String(), "the origin must not be a column")
}
