package tasklist

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAListIsRead(t *testing.T) {
	base := t.TempDir()
	for _, text := range []string{
		`[{"agent": "a", "prompt": "one\ntwo", "directory": ".", "model": "m"}, /* and */ {"agent": "a", "prompt": "p", "description": "d"},]`,
		`{"$schema": "x", "tasks": [{"agent": "a", "prompt": "one\ntwo", "directory": ".", "model": "m"}, {"agent": "a", "prompt": "p", "description": "d"}]} // end`,
	} {
		got, err := Parse("list", []byte(text), base, []string{"a"})
		require.NoError(t, err)
		require.Equal(t, []Task{
			{Agent: "a", Prompt: "one\ntwo", Description: "one two", Model: "m", Directory: filepath.Clean(base)},
			{Agent: "a", Prompt: "p", Description: "d"},
		}, got)
	}
}

func TestATitleIsTheBeginningOfThePrompt(t *testing.T) {
	got, err := Parse("list", []byte(`[{"agent": "a", "prompt": "`+strings.Repeat("ü", 200)+`"}]`), ".", []string{"a"})
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("ü", 71)+"…", got[0].Description)
}

func TestAListThatIsTooLargeIsRefused(t *testing.T) {
	_, err := Parse("list", make([]byte, MaxSize+1), ".", nil)
	require.ErrorContains(t, err, "is larger than the maximum of 16777216 bytes")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`[{"agent": "a", "prompt": "p"}]`))
	f.Add([]byte(`{"tasks": [{"agent": 5, "prompt": "p", "x": [1]}], // }` + "\n}"))
	f.Add([]byte("[\"\\ud800\", /* "))
	f.Fuzz(func(t *testing.T, data []byte) {
		tasks, err := Parse("list", data, ".", []string{"a"})
		if err == nil {
			require.NotEmpty(t, tasks)
			for _, task := range tasks {
				require.Equal(t, "a", task.Agent)
				require.NotEmpty(t, strings.TrimSpace(task.Prompt))
				require.NotContains(t, task.Description, "\n")
			}
			return
		}
		var place *bgagent.ConfigFileError
		require.True(t, errors.As(err, &place))
		require.Positive(t, place.Line)
		require.LessOrEqual(t, place.Line, strings.Count(string(data), "\n")+1)
	})
}
