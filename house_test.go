package bgagent

import (
	"go/ast"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests in this file compare CONTRIBUTING.md with the source code, and check the dependencies.

// The variable "roomless" lists the files that do not belong to any room.
var roomless = []string{"doc.go", "invariants.go"}

// The function "quoted" returns the words in backticks in the given column of the table that begins
// with the header. The result has one list for each row.
func quoted(t *testing.T, text, header string, column int) (rows [][]string) {
	t.Helper()
	_, table, ok := strings.Cut(text, "\n"+header)
	require.True(t, ok, "CONTRIBUTING.md has no table %q", header)
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) <= column+1 {
			if len(rows) > 0 || line == "\n" {
				return rows
			}
			continue
		}
		var words []string
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[column+1], -1) {
			words = append(words, m[1])
		}
		if words != nil {
			rows = append(rows, words)
		}
	}
	return rows
}

// The function "without" returns the names that do not match any of the patterns, and the patterns
// that do not match any name.
func without(t *testing.T, names, patterns []string) (strangers, empty []string) {
	t.Helper()
	for _, n := range names {
		if !slices.ContainsFunc(patterns, func(p string) bool { ok, err := filepath.Match(p, n); return ok && err == nil }) {
			strangers = append(strangers, n)
		}
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(names, func(n string) bool { ok, err := filepath.Match(p, n); return ok && err == nil }) {
			empty = append(empty, p)
		}
	}
	return strangers, empty
}

// sourceFiles returns the names of the root folder's files that are not tests.
func sourceFiles(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, "_test.go") })
}

func TestContributingNamesEveryFileOnce(t *testing.T) {
	b, err := os.ReadFile("CONTRIBUTING.md")
	require.NoError(t, err)
	text, names := string(b), sourceFiles(t)

	rooms := quoted(t, text, "| Room |", 1)
	require.Greater(t, len(rooms), 7)
	for i, room := range rooms {
		rooms[i] = slices.DeleteFunc(room, func(word string) bool { return !strings.HasSuffix(word, ".go") })
	}
	patterns := slices.Concat(append(rooms, roomless)...)
	strangers, empty := without(t, names, patterns)
	require.Empty(t, strangers, "these files do not belong to any room")
	require.Empty(t, empty, "a room lists files that do not exist")
	for _, n := range names {
		in := 0
		for _, room := range append(rooms, roomless) {
			if s, _ := without(t, []string{n}, room); s == nil {
				in++
			}
		}
		most := 1
		if n == "manager.go" { // manager.go belongs to two rooms, because part of it is the gate
			most = 2
		}
		require.Equal(t, most, in, "the number of rooms that contain %s", n)
	}

	store := slices.Concat(quoted(t, text, "| File |", 0)...)
	_, empty = without(t, names, store)
	require.Empty(t, empty, "the table of the store lists files that do not exist")
	records, err := filepath.Glob("record*.go")
	require.NoError(t, err)
	strangers, _ = without(t, slices.DeleteFunc(records, func(n string) bool { return strings.HasSuffix(n, "_test.go") }), store)
	require.Empty(t, strangers, "the table of the store lacks these files")

	folders, err := filepath.Glob("internal/*")
	require.NoError(t, err)
	packages := slices.Concat(quoted(t, text, "| Package |", 0)...)
	for i, f := range folders {
		folders[i] = filepath.Base(f)
	}
	strangers, _ = without(t, folders, packages)
	require.Empty(t, strangers, "the table of packages lacks these folders")
	for _, p := range packages {
		require.DirExists(t, filepath.Join("internal", p))
	}
}

// A test that passes whatever the document says would be worthless.
func TestTheTableOfRoomsIsReallyRead(t *testing.T) {
	text := "x\n| Room | Files |\n| --- | --- |\n| one | `a.go`, `b_*.go` |\n| two | `c.go` |\n\n| Room | `d.go` |\n"
	rooms := quoted(t, text, "| Room |", 1)
	require.Equal(t, [][]string{{"a.go", "b_*.go"}, {"c.go"}}, rooms)
	strangers, empty := without(t, []string{"a.go", "b_x.go", "d.go"}, slices.Concat(rooms...))
	require.Equal(t, []string{"d.go"}, strangers)
	require.Equal(t, []string{"c.go"}, empty)
}

// The function "callers" returns the functions that call the method with the given name.
func callers(files map[string]*ast.File, method string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, d := range files[name].Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					if s, ok := c.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == method {
						names = append(names, f.Name.Name)
					}
				}
				return true
			})
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestTheCallersOfTransitionAreKnown(t *testing.T) {
	_, files := sources(t)
	require.Equal(t, []string{"end", "loadStatus", "reopen", "replace", "start", "unresume", "withdrawAttempt"}, callers(files, "transition"),
		"a new caller must note the change for the store, and CONTRIBUTING.md must name it")
}

// TestTheLibraryNeedsNoClientOfAServer compares the modules on which the library depends with a
// list of allowed modules. The NATS source of slots and the stores are separate modules, so their
// dependencies are not allowed.
func TestTheLibraryNeedsNoClientOfAServer(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".")
	list.Env = append(os.Environ(), "GOWORK=off")
	out, err := list.Output()
	require.NoError(t, err)
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	require.Equal(t, []string{"github.com/bgagent/bgagent", "github.com/google/uuid", "github.com/tailscale/hujson"}, slices.Compact(modules))
}
