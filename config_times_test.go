package bgagent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEveryDurationOfConfigHasARowOfItsOwn(t *testing.T) {
	var c Config
	fields := map[string]*time.Duration{}
	for i := range reflect.TypeFor[Config]().NumField() {
		if d, ok := reflect.ValueOf(&c).Elem().Field(i).Addr().Interface().(*time.Duration); ok {
			fields[reflect.TypeFor[Config]().Field(i).Name] = d
		}
	}
	require.Len(t, timeLimits, len(fields))
	for i := range timeLimits {
		row := &timeLimits[i]
		require.Same(t, fields[row.field], row.of(&c), row.field)
		require.Equal(t, row.off == "", !accepts(row.of, Disabled), "a limit needs text for Disabled if and only if it accepts Disabled: %s", row.field)
		require.True(t, accepts(row.of, 0) && accepts(row.of, time.Minute), row.field)
		require.NotZero(t, row.def, row.field)
	}
}

func accepts(of func(*Config) *time.Duration, d time.Duration) bool {
	var c Config
	*of(&c) = d
	return c.validate() == nil
}

// textsNaming returns the places where a string in the file contains the name of a time
// limit.
func textsNaming(fset *token.FileSet, file *ast.File, names *regexp.Regexp) (out []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, _ := strconv.Unquote(lit.Value); names.MatchString(text) {
				out = append(out, fset.Position(n.Pos()).String()+": "+lit.Value)
			}
		}
		return true
	})
	return out
}

func TestTheNamesOfTimeLimitsAreTypedInTheirTableAlone(t *testing.T) {
	var names []string
	for i := range timeLimits {
		row := &timeLimits[i]
		names = append(names, row.field)
		if row.key != "" {
			names = append(names, row.key)
		}
		if row.alias != "" {
			names = append(names, row.alias)
		}
	}
	anyName := regexp.MustCompile(`\b(` + strings.Join(names, "|") + `)\b`)
	fset := token.NewFileSet()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	looked := 0
	for _, name := range files {
		if name == "config_times.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		require.Empty(t, textsNaming(fset, file, anyName), "build the sentence from the row of the limit")
		looked++
	}
	require.Greater(t, looked, 20)

	planted, err := parser.ParseFile(fset, "planted.go", "package p\n\nconst s = \"raise Config.TimeToLive\"\n\nvar k = `taskTtlMs`\n", 0)
	require.NoError(t, err)
	require.Len(t, textsNaming(fset, planted, anyName), 2)
}

func TestTheReasonOfAnEndNamesTheLimitThatDecided(t *testing.T) {
	require.Equal(t, "ran for more than 30m0s; Config.TimeToLive (taskTtlMs) decides how long a task may run", reasonTimeToLive(30*time.Minute))
	require.Equal(t, "the client has said for 1m0s that the session does not exist; Config.SessionGone (sessionGoneMs) decides how long is long enough", reasonGone(time.Minute+time.Millisecond))
	require.Equal(t, "the messages of the session could not be read for 5m0s, nor from the beginning: it is down; Config.HostUnreachable (hostUnreachableMs) decides how long is too long", reasonUnread(5*time.Minute, "it\nis down"))
}
