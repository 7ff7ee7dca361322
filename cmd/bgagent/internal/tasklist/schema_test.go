package tasklist

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/stretchr/testify/require"
)

func TestTheSchemaAndTheParserAcceptTheSameLists(t *testing.T) {
	var schema jsonschema.Schema
	require.NoError(t, json.Unmarshal(Schema, &schema))
	resolved, err := schema.Resolve(nil)
	require.NoError(t, err)
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(schema.Defs["task"].Properties)))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "p.md"), []byte("do it"), 0o600))
	for list, good := range map[string]bool{
		`[{"agent": "a", "prompt": "x"}]`:                                                            true,
		`{"$schema": "s", "tasks": [{"agent": "a", "prompt": "x"}]}`:                                 true,
		`[{"agent": "a", "promptFile": "p.md", "description": "d", "model": "m", "directory": "."}]`: true,
		`[{"agent": "a", "promptFile": "p.md", "prompt": "x"}]`:                                      false,
		`[{"agent": "a"}]`:                        false,
		`[{"agent": "a", "promptFile": " "}]`:     false,
		`[{"agent": "a", "promptFile": 1}]`:       false,
		`[{"agent": " ", "prompt": "x"}]`:         false,
		`[{"prompt": "x"}]`:                       false,
		`[{"agent": "a", "prompt": ""}]`:          false,
		`[{"agent": "a", "prompt": "x", "y": 1}]`: false,
		`[]`:             false,
		`{}`:             false,
		`{"tasks": [1]}`: false,
		`{"task": []}`:   false,
		`"a"`:            false,
	} {
		_, err := Parse("list", []byte(list), dir, []string{"a"})
		var v any
		require.NoError(t, json.Unmarshal([]byte(list), &v))
		checked := resolved.Validate(v)
		require.Equal(t, good, err == nil, "%s: %v", list, err)
		require.Equal(t, good, checked == nil, "%s: %v", list, checked)
	}
}

func TestAPromptIsReadFromItsFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"p.md": "\ufeffdo\nit", "empty.md": " \n", "latin.md": "caf\xe9"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	tasks, err := Parse("list", []byte(`[{"agent": "a", "promptFile": "p.md"}]`), dir, nil)
	require.NoError(t, err)
	require.Equal(t, "do\nit", tasks[0].Prompt)
	require.Equal(t, "do it", tasks[0].Description)
	for name, want := range map[string]string{
		"empty.md": "which is empty; write what", "latin.md": "which is not UTF-8 text", "none.md": "which cannot be read (no such file or directory)", ".": "which cannot be read (is a directory)",
	} {
		_, err := Parse("list", []byte(`[{"agent": "a", "promptFile": "`+name+`"}]`), dir, nil)
		require.ErrorContains(t, err, "list:1:31: [0].promptFile: is ")
		require.ErrorContains(t, err, want)
	}
}
