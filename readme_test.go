package bgagent_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// markdown returns the text of a document. Its line endings are \n on every system.
func markdown(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

func readme(t *testing.T) string { return markdown(t, "README.md") }

// table returns the rows of the table with the given header line, each as a list of
// cells.
func table(t *testing.T, text, head string) (rows [][]string) {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+head+"\n")
	require.True(t, ok, "there is no table %s", head)
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			break
		}
		if strings.HasPrefix(line, "| ---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		require.Len(t, cells, strings.Count(head, "|")-1, line)
		rows = append(rows, cells)
	}
	return rows
}

// testFunctions returns the names of all functions in the test files of the repository.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				found[f.Name.Name] = true
			}
		}
		return nil
	})
	require.NoError(t, err)
	return found
}

var testName = regexp.MustCompile("^`((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)`$")

func TestGuaranteesNameTestsThatExist(t *testing.T) {
	found := testFunctions(t)
	guarantees := 0
	for _, row := range table(t, markdown(t, "docs/guarantees.md"), "| Guarantee | Test |") {
		if strings.HasPrefix(row[0], "**") {
			require.Empty(t, row[1], "the heading %s has tests", row[0])
			continue
		}
		guarantees++
		for cell := range strings.SplitSeq(row[1], ", ") {
			m := testName.FindStringSubmatch(cell)
			require.NotNil(t, m, "the guarantee %q names %q, which is not a test", row[0], cell)
			require.True(t, found[m[1]], "the guarantee %q names %s, which does not exist", row[0], m[1])
		}
	}
	require.GreaterOrEqual(t, guarantees, 20)
}

func TestReadmeStatesTheDefaults(t *testing.T) {
	want := map[string]any{
		"Limits.Default":   bgagent.DefaultConcurrency,
		"MaxDepth":         bgagent.DefaultMaxDepth,
		"MaxTasksPerRoot":  bgagent.DefaultMaxTasksPerRoot,
		"MaxToolCalls":     bgagent.DefaultMaxToolCalls,
		"RepeatedCalls":    bgagent.DefaultRepeatedCalls,
		"PollInterval":     bgagent.DefaultPollInterval,
		"MinIdleTime":      bgagent.DefaultMinIdleTime,
		"MinStabilityTime": bgagent.DefaultMinStabilityTime,
		"StablePolls":      bgagent.DefaultStablePolls,
		"TodoHold":         bgagent.DefaultTodoHold,
		"StaleTimeout":     bgagent.DefaultStaleTimeout,
		"SessionGone":      bgagent.DefaultSessionGone,
		"HostUnreachable":  bgagent.DefaultHostUnreachable,
		"TimeToLive":       bgagent.DefaultTimeToLive,
		"StopTimeout":      bgagent.DefaultStopTimeout,
		"NoticeWindow":     bgagent.DefaultNoticeWindow,
		"NoticeMaxWait":    bgagent.DefaultNoticeMaxWait,
		"Retention":        bgagent.DefaultRetention,
		"RetainTasks":      bgagent.DefaultRetainTasks,
		"RetainText":       bgagent.DefaultRetainText,
	}
	got := map[string]string{}
	for _, row := range table(t, readme(t), "| Field | Default | Meaning |") {
		got[strings.Trim(row[0], "`")] = row[1]
	}
	require.Len(t, got, len(want))
	for field, value := range want {
		require.Equal(t, fmt.Sprint(value), got[field], field)
	}
}

// The program in the README must be the program in examples/hello, whose output is
// checked.
func TestReadmeShowsTheHelloExample(t *testing.T) {
	b, err := os.ReadFile("examples/hello/main.go")
	require.NoError(t, err)
	program := strings.ReplaceAll(string(b), "\r\n", "\n")
	_, program, ok := strings.Cut(program, "\npackage main\n")
	require.True(t, ok)
	require.Contains(t, readme(t), "```go\npackage main\n"+program+"```\n")
}

func TestReadmeNamesFilesThatExist(t *testing.T) {
	text := readme(t)
	for _, m := range regexp.MustCompile("`(examples/[a-z]+)`|\\]\\(([a-zA-Z./]+)\\)").FindAllStringSubmatch(text, -1) {
		_, err := os.Stat(m[1] + m[2])
		require.NoError(t, err)
	}
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^##+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchor := strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")
		headings[regexp.MustCompile(`[^a-z0-9-]`).ReplaceAllString(anchor, "")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		require.True(t, headings[m[1]], "there is no heading for #%s", m[1])
	}
}

func TestReadmeTestCommandIsFound(t *testing.T) {
	// CI extracts this line from the README and runs it, so it must be the only such line.
	require.Equal(t, []string{"    go test ./..."}, regexp.MustCompile(`(?m)^    go test .*$`).FindAllString(readme(t), -1))
}
