package bgagent

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests in this file check the state's files, which must not call hosts, read clocks, start
// goroutines or contain text for users. An update must only note its effects. The effects are
// performed after the lock is released.

// stateImports lists the packages that the state's files may import.
var stateImports = []string{"bufio", "cmp", "encoding/base32", "errors", "hash/maphash", "maps", "math", "math/bits", "slices", "strconv", "strings", "time", "github.com/google/uuid", "github.com/bgagent/bgagent/internal/mdtext", "github.com/bgagent/bgagent/internal/slots"}

// clocks lists the functions of package time that read a clock or wait.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// The function "breaches" returns the places where one of the state's files uses something that it
// must not use.
func breaches(fset *token.FileSet, file *ast.File, faces []string) (out []string) {
	breach := func(n ast.Node, format string, args ...any) {
		at := fset.Position(n.Pos())
		out = append(out, fmt.Sprintf("%s:%d: ", filepath.Base(at.Filename), at.Line)+fmt.Sprintf(format, args...))
	}
	for _, i := range file.Imports {
		if path, _ := strconv.Unquote(i.Path.Value); !slices.Contains(stateImports, path) {
			breach(i, "imports %s", path)
		}
	}
	inPanic := map[ast.Node]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			breach(n, "starts a goroutine")
		case *ast.SendStmt, *ast.SelectStmt:
			breach(n, "uses a channel")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				breach(n, "receives from a channel")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
				breach(n, "reads a clock: time.%s", n.Sel.Name)
			}
		case *ast.Ident:
			if n.Name == "BackgroundManager" {
				breach(n, "knows the manager")
			}
		case *ast.StructType:
			for _, f := range n.Fields.List {
				for _, what := range held(f.Type, faces) {
					breach(f, "a record holds %s", what)
				}
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "panic" {
				ast.Inspect(n, func(n ast.Node) bool { inPanic[n] = true; return true })
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && strings.Contains(n.Value, " ") && !inPanic[n] {
				breach(n, "has wording: %s", n.Value)
			}
		}
		return true
	})
	return out
}

// The function "held" returns the forbidden contents of a field of the given type: functions,
// interfaces and contexts. The parameter "faces" contains the names of the package's interfaces.
func held(t ast.Expr, faces []string) (out []string) {
	ast.Inspect(t, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			out = append(out, "a function")
		case *ast.InterfaceType:
			out = append(out, "an interface")
		case *ast.Ident:
			if n.Name == "any" || n.Name == "error" || slices.Contains(faces, n.Name) {
				out = append(out, "an interface")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "context" {
				out = append(out, "a context")
			}
		}
		return true
	})
	return out
}

func TestTheStateKnowsNothingOfHostsAndClocks(t *testing.T) {
	names, err := filepath.Glob("state*.go")
	require.NoError(t, err)
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, "_test.go") })
	require.Greater(t, len(names), 10, "the names of the state's files have changed")
	names = append(names, "poller.go", "turn.go") // these files must obey the same rules
	fset := token.NewFileSet()
	faces := interfaces(t, fset)
	require.Contains(t, faces, "SessionClient")
	var found []string
	for _, name := range names {
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		found = append(found, breaches(fset, file, faces)...)
	}
	require.Empty(t, found)
}

// The function "interfaces" returns the names of the package's interfaces. It leaves out the
// interface "grants", which the state may contain.
func interfaces(t *testing.T, fset *token.FileSet) (names []string) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		file, err := parser.ParseFile(fset, name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if _, ok := spec.Type.(*ast.InterfaceType); ok && spec.Name.Name != "grants" {
					names = append(names, spec.Name.Name)
				}
			}
			return true
		})
	}
	return names
}

// TestTheStateKnowsNothingOfHostsAndClocks would also succeed if the function "breaches" never
// found anything, so this function must find each of these planted violations.
func TestTheWallFindsWhatIsPlanted(t *testing.T) {
	for planted, want := range map[string]string{
		"import \"context\"":                                   "imports context",
		"import \"log/slog\"":                                  "imports log/slog",
		"func f() { go f() }":                                  "starts a goroutine",
		"func f(c chan int) { c <- 1 }":                        "uses a channel",
		"func f(c chan int) { select { case <-c: default: } }": "uses a channel",
		"func f(c chan int) { <-c }":                           "receives from a channel",
		"import \"time\"; var at = time.Now()":                 "reads a clock",
		"func f(m *BackgroundManager) {}":                      "knows the manager",
		"type r struct { f func() }":                           "a record holds a function",
		"type r struct { x []interface{ f() } }":               "a record holds an interface",
		"type r struct { x map[string]any }":                   "a record holds an interface",
		"type r struct { err error }":                          "a record holds an interface",
		"type r struct { sc SessionClient }":                   "a record holds an interface",
		"var s = \"it was ended\"":                             "has wording",
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, "state_planted.go", "package bgagent; "+planted, 0)
		require.NoError(t, err, planted)
		require.NotEmpty(t, slices.DeleteFunc(breaches(fset, file, []string{"SessionClient"}), func(b string) bool { return !strings.Contains(b, want) }), planted)
	}
}

// Apart from the checks in invariants.go, only the gate, which is in manager.go, accesses the lock
// and the state behind it.
func TestOnlyTheGateTakesTheLock(t *testing.T) {
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range names {
		if name == "manager.go" || name == "invariants.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, way := range []string{"m.mu.", "m.st.", "m.st)"} {
			require.NotContains(t, string(src), way, name)
		}
	}
}

// statusWrites returns the places where the files write the status or the cause of a task, or take
// the address of either field. It does not matter how the code reaches the task. Imports are not
// resolved, so it might be unknown which record a field belongs to. In that case, the field counts
// as a task's field.
func statusWrites(fset *token.FileSet, files []*ast.File) (out []string) {
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}, Types: map[ast.Expr]types.TypeAndValue{}}
	check := types.Config{Error: func(error) {}, Importer: noImports{}}
	pkg, _ := check.Check("bgagent", fset, files, info) // the errors come from imports that are not resolved
	record, guarded := pkg.Scope().Lookup("task").Type(), map[string]types.Object{}
	for _, name := range []string{"status", "cause"} {
		guarded[name], _, _ = types.LookupFieldOrMethod(record, false, pkg, name)
	}
	found := func(n ast.Node) {
		at := fset.Position(n.Pos())
		out = append(out, fmt.Sprintf("%s:%d", filepath.Base(at.Filename), at.Line))
	}
	wrote := func(x ast.Expr) {
		switch x := ast.Unparen(x).(type) {
		case *ast.SelectorExpr:
			if s := info.Selections[x]; guarded[x.Sel.Name] != nil && (s == nil || s.Obj() == guarded[x.Sel.Name]) {
				found(x)
			}
		case *ast.StarExpr:
			if types.Identical(info.TypeOf(x), record) {
				found(x)
			}
		}
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return n.Name.Name != "transition"
			case *ast.AssignStmt:
				for _, x := range n.Lhs {
					wrote(x)
				}
			case *ast.IncDecStmt:
				wrote(n.X)
			case *ast.RangeStmt:
				wrote(n.Key)
				wrote(n.Value)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					wrote(n.X)
				}
			case *ast.CompositeLit:
				if !types.Identical(info.TypeOf(n), record) {
					break
				}
				for _, e := range n.Elts {
					kv, ok := e.(*ast.KeyValueExpr)
					if !ok || guarded[kv.Key.(*ast.Ident).Name] != nil {
						found(e)
					}
				}
			}
			return true
		})
	}
	return out
}

type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) { return nil, errors.New(path) }

func TestOnlyATransitionWritesAStatus(t *testing.T) {
	fset, found := sources(t)
	var files []*ast.File
	for _, name := range slices.Sorted(maps.Keys(found)) { // because imports are not resolved, the types depend on the order of the files
		files = append(files, found[name])
	}
	require.Empty(t, statusWrites(fset, files), "call transition: it checks that the change is legal")
	planted := []string{
		"t.status = Failed", "t.cause = CauseIdle", "a.t.status = Failed", "(a.t).status = Failed", "a.t.status++", "a.t.cause |= 1",
		"st.tasks[1].status = Failed", "n.first.next.status, x = Failed, 1", "p := &t.status; *p = Failed", "p := &(a.t.cause); *p = 1",
		"for _, t.status = range all { }", "t = &task{status: Failed}", "list := []task{{cause: CauseIdle}}; _ = list", "*t = task{}",
		"errors.New(``).status = Failed", "func() { t.status = Failed }()",
	}
	text, want := "", []string(nil)
	for i, p := range planted {
		text += fmt.Sprintf("func planted%d(st *state, a *attempt, n *node, t *task, x int, all []Status) { %s }\n", i, p)
		want = append(want, fmt.Sprintf("planted.go:%d", i+2))
	}
	text += "func harmless(t *task, o *turnOutcome, e *logEntry) { o.cause, e.status = t.cause, t.status; _ = t.status == Failed }\n"
	require.Equal(t, want, statusWrites(fset, append(files, parsed(t, fset, text))))
}
