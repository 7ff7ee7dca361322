package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/display"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/stretchr/testify/require"
)

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", name))
	require.NoError(t, err)
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

// The function "rows" returns the backquoted names in the first cells of all tables in a document.
func rows(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| (.+?) \|`).FindAllStringSubmatch(text, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[1], -1) {
			out[name[1]] = true
		}
	}
	return out
}

func TestEveryKeyOfTheSchemaIsDocumented(t *testing.T) {
	type object struct {
		Properties map[string]json.RawMessage
		More       json.RawMessage `json:"additionalProperties"`
	}
	parse := func(b []byte) (o object) {
		require.NoError(t, json.Unmarshal(b, &o))
		return o
	}
	root := parse(settings.Schema)
	program := document(t, "docs/program.md")
	documented := rows(program)
	for key := range root.Properties {
		require.True(t, documented[key], "docs/program.md has no row for the key %s", key)
	}
	agent := parse(parse(root.Properties["agents"]).More)
	require.Greater(t, len(agent.Properties), 15)
	for key, schema := range agent.Properties {
		require.True(t, documented[key], "docs/program.md has no row for the key %s of an agent", key)
		var values struct{ AnyOf []struct{ Enum []string } }
		require.NoError(t, json.Unmarshal(schema, &values))
		for _, v := range values.AnyOf {
			for _, value := range v.Enum {
				require.True(t, strings.Contains(program, "`"+value+"`"), "docs/program.md does not name %s, a value of %s", value, key)
			}
		}
	}
	limits := rows(document(t, "docs/configuration.md"))
	for key, schema := range parse(root.Properties["background_task"]).Properties {
		if inner := parse(schema).Properties; inner != nil {
			for name := range inner {
				require.True(t, limits[key+"."+name], "docs/configuration.md has no row for %s.%s", key, name)
			}
			continue
		}
		require.True(t, limits[key], "docs/configuration.md, which docs/program.md names, has no row for %s", key)
	}
	require.Contains(t, program, "(configuration.md#keys)")
}

func TestEveryFieldAndFlagIsDocumented(t *testing.T) {
	program := document(t, "docs/program.md")
	for _, v := range []any{results.Index{}, results.Entry{}, display.Line{}, display.Summary{}, bgagent.QueuePlace{}, bgagent.PoolStats{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.True(t, strings.Contains(program, "`"+name+"`"), "docs/program.md does not say what %s of %T is", name, v)
		}
	}
	parser := kong.Must(&cli{}, kong.Vars{"version": ""})
	codes := rows(program)
	for _, command := range parser.Model.Children {
		require.True(t, codes[command.Name], "docs/program.md has no exit codes of %s", command.Name)
		for _, f := range command.Flags {
			said := strings.Contains(program, "`--"+f.Name) || strings.Contains(program, "`bgagent "+command.Name+" --"+f.Name+"`")
			require.True(t, said, "docs/program.md does not say %s --%s", command.Name, f.Name)
		}
	}
}

// The function "blocks" returns a document's code blocks that are marked with the given language.
func blocks(text, language string) (out []string) {
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestTheDocumentedExampleRuns(t *testing.T) {
	program := document(t, "docs/program.md")
	p := newPlace(t)
	files := blocks(program, "jsonc")
	require.Len(t, files, 3)
	p.write("answer.sh", blocks(program, "sh")[0])
	p.write(".bgagent.jsonc", files[0])
	p.write("tasks.jsonc", files[1])
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	b, err := os.ReadFile(filepath.Join(p.project, "out", p.index("out").Tasks[0].File))
	require.NoError(t, err)
	require.Equal(t, "Hello. You asked: What is in this directory?\n", string(b))
	p.write(".bgagent.jsonc", files[2])
	require.Equal(t, 0, p.run("config").code)
}

func TestTheReadmesCommandsAreRight(t *testing.T) {
	_, section, found := strings.Cut(document(t, "README.md"), "\n## As a program\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n### ")
	require.NotContains(t, section, "go run ./cmd/bgagent ")
	lines := regexp.MustCompile(`(?m)^    bgagent ([^#\n]+)`).FindAllStringSubmatch(section, -1)
	require.Greater(t, len(lines), 4)
	for _, m := range lines {
		args := strings.Fields(m[1])
		_, err := kong.Must(&cli{}, kong.Vars{"version": ""}).Parse(args)
		require.NoError(t, err, m[1])
		for _, arg := range args {
			if strings.HasSuffix(arg, ".jsonc") {
				require.FileExists(t, filepath.Join("../..", arg), "it is run from the root of a clone")
			}
		}
	}
	for _, config := range blocks(section, "jsonc") {
		p := newPlace(t)
		p.write(".bgagent.jsonc", config)
		got := p.run("config")
		require.Equal(t, 0, got.code, got.stderr)
	}
}
