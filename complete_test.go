package bgagent

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CONTRIBUTING.md lists the changes that must be made in several places. The tests in this file
// compare these places, and name any place that was forgotten.

// The function "sources" returns the parsed files of the package, without its tests.
func sources(t *testing.T) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	fset, files := token.NewFileSet(), map[string]*ast.File{}
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			files[name], err = parser.ParseFile(fset, name, nil, parser.ParseComments)
			require.NoError(t, err)
		}
	}
	require.Greater(t, len(files), 40)
	return fset, files
}

// The function "parsed" returns the syntax tree of a file. The given text is the file without its
// package clause.
func parsed(t *testing.T, fset *token.FileSet, text string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(fset, "planted.go", "package bgagent\n"+text, parser.ParseComments)
	require.NoError(t, err)
	return file
}

// The function "constants" returns the names of a type's constants, in the order of their values.
// For each constant, groups contains the last doc comment before it in the same block.
func constants(file *ast.File, typ string) (names, groups []string) {
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.CONST || len(decl.Specs) == 0 {
			continue
		}
		first := decl.Specs[0].(*ast.ValueSpec)
		if of, ok := first.Type.(*ast.Ident); !ok || of.Name != typ {
			continue
		}
		group := ""
		for _, s := range decl.Specs {
			spec := s.(*ast.ValueSpec)
			if spec.Doc != nil {
				group = strings.TrimSuffix(strings.TrimSpace(spec.Doc.Text()), ".")
			}
			names, groups = append(names, spec.Names[0].Name), append(groups, group)
		}
	}
	return names, groups
}

// wrongCauses describes the causes for which the constants do not match the table "causes".
func wrongCauses(file *ast.File) (wrong []string) {
	names, groups := constants(file, "Cause")
	for i, name := range names[1:] {
		c := Cause(i + 1)
		switch {
		case int(c) >= len(causes) || causes[c].name == "":
			wrong = append(wrong, name+" has no row in causes (task.go): add its name and its status")
		case !strings.EqualFold(groups[i+1], statusGroups[c.Status()]):
			wrong = append(wrong, fmt.Sprintf("%s is among the constants of %q, but its row in causes says %q", name, groups[i+1], statusGroups[c.Status()]))
		case slices.Index(causeNames[:], causes[c].name) != int(c):
			wrong = append(wrong, name+" has the name of another cause")
		}
	}
	return wrong
}

// statusGroups maps each status to the comment above the causes that have this status.
var statusGroups = map[Status]string{Completed: "Completed", Cancelled: "Cancelled", Failed: "Failed"}

func TestEveryCauseHasWordsAndTheStatusOfItsGroup(t *testing.T) {
	fset, files := sources(t)
	names, _ := constants(files["task.go"], "Cause")
	require.Len(t, causes, len(names))
	require.Empty(t, wrongCauses(files["task.go"]))

	block := "const (\n\tCauseNone Cause = iota\n\n\t// Completed.\n\tCauseTurnEnded\n\tCauseIdle\n\tCauseStable\n\tCauseCaller\n" + strings.Repeat("\tX\n", len(causes)) + ")\n"
	found := strings.Join(wrongCauses(parsed(t, fset, block)), "\n")
	require.Contains(t, found, `CauseCaller is among the constants of "Completed", but its row in causes says "Cancelled"`)
	require.Contains(t, found, "X has no row in causes")
}

func TestEveryKindOfGoroutineHasAName(t *testing.T) {
	for k, name := range goNames {
		require.NotEmpty(t, name, "goroutines of kind %d need a name in goNames, because the error of Close shows the name", k)
	}
}

func TestTheStateHasEverySettingThatItNeeds(t *testing.T) {
	var c Config
	values := reflect.ValueOf(&c).Elem()
	for i := range values.NumField() {
		switch f := values.Field(i); {
		case f.Type() == reflect.TypeFor[Wake]():
			f.SetUint(uint64(WakeEach))
		case f.CanInt():
			f.SetInt(int64(time.Hour) + int64(i))
		case f.Type() == reflect.TypeFor[[]Permission]():
			f.Set(reflect.ValueOf([]Permission{{Name: "edit"}}))
		case f.Type() == reflect.TypeFor[map[string][]string]():
			f.Set(reflect.ValueOf(map[string][]string{"a": {"b"}}))
		}
	}
	cm, err := NewConcurrencyManager(Limits{})
	require.NoError(t, err)
	st := (&BackgroundManager{cfg: c, cm: cm}).newState()
	for i := range timeLimits {
		require.Equal(t, *timeLimits[i].of(&c), st.limit(timeLimit(i)), timeLimits[i].field)
	}
	got, same := reflect.ValueOf(st.cfg), 0
	for i := range got.NumField() {
		name := got.Type().Field(i).Name
		want := values.FieldByName(name)
		if !token.IsExported(name) {
			continue // an unexported setting is computed and is not a field of Config
		}
		same++
		require.True(t, want.IsValid(), "settings.%s must have the name of a field of Config", name)
		require.Equal(t, fmt.Sprint(want), fmt.Sprint(got.Field(i)), "newState (manager.go) must copy Config.%s into settings", name)
	}
	require.Greater(t, same, 5)
}

// missingCases checks every switch that has a case for at least one of the constants. It returns a
// line for each missing case, and the number of switches that it checked.
func missingCases(fset *token.FileSet, file *ast.File, names []string) (missing []string, switches int) {
	ast.Inspect(file, func(n ast.Node) bool {
		body, ok := n.(*ast.SwitchStmt)
		if !ok {
			return true
		}
		var has []string
		for _, c := range body.Body.List {
			for _, x := range c.(*ast.CaseClause).List {
				if id, ok := x.(*ast.Ident); ok && slices.Contains(names, id.Name) {
					has = append(has, id.Name)
				}
			}
		}
		if len(has) == 0 {
			return true
		}
		switches++
		for _, name := range names {
			if !slices.Contains(has, name) {
				missing = append(missing, fmt.Sprintf("%s: the switch has no case for %s", fset.Position(n.Pos()), name))
			}
		}
		return true
	})
	return missing, switches
}

func TestEveryWaitAndEveryLimitOfAnAttemptHasAllItsCases(t *testing.T) {
	fset, files := sources(t)
	waits, _ := constants(files["state_park.go"], "parking")
	limits, _ := constants(files["state_time.go"], "attemptLimit")
	require.Equal(t, "attemptLimits", limits[len(limits)-1], "the number of limits must come last")
	for _, of := range []struct {
		names []string
		want  int
	}{{waits[1:], 4}, {limits[:len(limits)-1], 2}} {
		total := 0
		for _, file := range files {
			missing, n := missingCases(fset, file, of.names)
			require.Empty(t, missing)
			total += n
		}
		require.Equal(t, of.want, total, "switches over %v", of.names)
	}

	between := slices.DeleteFunc(slices.Clone(waits[1:]), func(name string) bool { return name == "forAnswer" }) // a turn that waits for an answer is not over
	require.Empty(t, slices.DeleteFunc(slices.Clone(between), mentioned(files["state_park.go"], "afterTurn")), "afterTurn must decide after which turns an attempt waits for this kind of event")
	phases := map[Phase]bool{PhaseNone: true, PhaseStarting: true, PhaseTurn: true, PhaseAsking: true, PhaseStopping: true}
	for i, name := range waits[1:] {
		if p := parking(i + 1).phase(); slices.Contains(between, name) {
			require.False(t, phases[p], "%s needs a separate phase", name)
			phases[p] = true
		}
	}
	require.Equal(t, PhaseParked, forAnswer.phase())
	for name, file := range files {
		if name != "state_park.go" {
			require.False(t, slices.ContainsFunc(waits[1:], mentioned(file, "")), "%s: code that depends on the kind of wait belongs in state_park.go", name)
		}
	}

	missing, _ := missingCases(fset, parsed(t, fset, "func f(p parking) { switch p { case forTasks: } }"), []string{"forTasks", "forQuota"})
	require.Len(t, missing, 1)
}

// The function "mentioned" returns a function that reports whether a name occurs in the given
// function of the file. If no function is given, the returned function searches the whole file.
func mentioned(file *ast.File, function string) func(name string) bool {
	seen := map[string]bool{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); function != "" && (!ok || f.Name.Name != function) {
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				seen[id.Name] = true
			}
			return true
		})
	}
	return func(name string) bool { return seen[name] }
}

func TestEveryPhaseHasItsWords(t *testing.T) {
	_, files := sources(t)
	names, _ := constants(files["task.go"], "Phase")
	require.Len(t, phaseNames, len(names), "phaseNames (task.go) must contain a name for each phase")
	for i, words := range phaseNames[1:] {
		require.NotEmpty(t, words, names[i+1])
		require.Equal(t, i+1, slices.Index(phaseNames[:], words), "%s has the name of another phase", names[i+1])
	}
}

// fieldsOf returns the field names of a struct type, including those of structs that are declared
// inside it.
func fieldsOf(file *ast.File, typ string) (names []string) {
	var add func(s *ast.StructType)
	add = func(s *ast.StructType) {
		for _, f := range s.Fields.List {
			if inner, ok := f.Type.(*ast.StructType); ok {
				add(inner)
				continue
			}
			for _, name := range f.Names {
				names = append(names, name.Name)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.Name == typ {
			if s, ok := spec.Type.(*ast.StructType); ok {
				add(s)
			}
		}
		return true
	})
	return names
}

// The function "unused" returns the names that do not occur in a selector in the given function.
func unused(file *ast.File, function string, names []string) (out []string) {
	seen := map[string]bool{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == function {
			ast.Inspect(f, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					seen[sel.Sel.Name] = true
				}
				return true
			})
		}
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return seen[name] })
}

func TestEveryEffectLeavesInItsClass(t *testing.T) {
	_, files := sources(t)
	state, manager := files["state.go"], files["manager.go"]
	rare := fieldsOf(state, "rareEffects")
	split := slices.Index(rare, "grants") // the first effect of class "after"
	require.Positive(t, split)
	require.Empty(t, unused(manager, "releaseNow", append(fieldsOf(state, "nowEffects"), rare[:split]...)), "releaseNow must perform the effect")
	after := slices.DeleteFunc(fieldsOf(state, "afterEffects"), func(name string) bool { return name == "startEnd" })
	require.Empty(t, unused(manager, "releaseAfter", after), "releaseAfter must perform the effect")
	require.Empty(t, unused(manager, "releaseRare", rare[split:]), "releaseRare must perform the effect")
	require.Equal(t, []string{"kicks"}, unused(manager, "releaseRare", []string{"grants", "kicks"}))
}

// The function "begun" returns the effects for which a function in manager.go starts a goroutine.
func begun(file *ast.File, fields []string) (out []string) {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "release") {
			continue
		}
		for _, s := range f.Body.List {
			begins := false
			var has []string
			ast.Inspect(s, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					begins = begins || sel.Sel.Name == "begin"
					if slices.Contains(fields, sel.Sel.Name) {
						has = append(has, sel.Sel.Name)
					}
				}
				return true
			})
			if begins {
				out = append(out, has...)
			}
		}
	}
	return out
}

// The method "expect" must count the goroutine of every effect. Otherwise, Close might not wait
// for the goroutine. Other tests can miss this mistake: the end of an uncounted goroutine causes a
// panic only if no counted goroutine of the same kind is running.
func TestEveryEffectThatNeedsAGoroutineIsExpected(t *testing.T) {
	fset, files := sources(t)
	var fields []string
	for _, typ := range []string{"nowEffects", "afterEffects", "rareEffects"} {
		fields = append(fields, fieldsOf(files["state.go"], typ)...)
	}
	need := begun(files["manager.go"], fields)
	require.Subset(t, need, []string{"start", "aborts", "strays", "deliver", "poll", "readers", "looks", "writeLog", "forget"})
	require.Empty(t, unused(files["manager.go"], "expect", need), "expect must count the goroutines")

	file := parsed(t, fset, "func expect() { fx.poll() }; func releaseNow() { for range fx.poll { m.begin() }; if fx.looks { m.begin() } }")
	require.Equal(t, []string{"looks"}, unused(file, "expect", begun(file, fields)))
}

func TestEveryDeadlineIsArmedRungAndChecked(t *testing.T) {
	_, files := sources(t)
	fields := fieldsOf(files["state_time.go"], "deadlines")
	require.Contains(t, fields, "outages")
	require.Empty(t, unused(files["state_time.go"], "first", fields), "deadlines.first must know the deadline, or no timer is set for it")
	require.Empty(t, unused(files["state_time.go"], "ringDue", fields), "ringDue must handle the deadline")
	heaps := slices.DeleteFunc(fields, func(name string) bool {
		return slices.Contains([]string{"beat", "careful", "keep", "shut", "store", "trouble"}, name)
	}) // these fields are not heaps
	require.Empty(t, unused(files["invariants.go"], "checkWithin", heaps), "checkWithin must check the heap")
}

func TestEveryCountOfATreeMovesWithIt(t *testing.T) {
	var part liveCounts
	counts := reflect.ValueOf(&part).Elem()
	for i := range counts.NumField() {
		require.Equal(t, reflect.Int, counts.Field(i).Kind(), "liveCounts.%s must be an int", counts.Type().Field(i).Name)
		// Package reflect cannot set unexported fields, so the test sets the counts through pointers.
		*(*int)(counts.Field(i).Addr().UnsafePointer()) = i + 1
	}
	from, to := &node{counts: part.plus(part)}, &node{counts: part}
	graft(part, from, to)
	for i := range counts.NumField() {
		name := counts.Type().Field(i).Name
		require.Equal(t, int64(i+1), reflect.ValueOf(from.counts).Field(i).Int(), "liveCounts.minus forgets %s", name)
		require.Equal(t, int64(2*(i+1)), reflect.ValueOf(to.counts).Field(i).Int(), "liveCounts.plus forgets %s", name)
	}
	for _, ended := range []Status{Completed, Failed, Cancelled} {
		require.Zero(t, (&task{status: ended}).share(), "an ended task must count zero, because its eviction subtracts nothing")
	}
}

// goStatements returns the names of the functions that contain a go statement.
func goStatements(file *ast.File) (in []string) {
	for _, d := range file.Decls {
		ast.Inspect(d, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				in = append(in, d.(*ast.FuncDecl).Name.Name)
			}
			return true
		})
	}
	return in
}

func TestGoroutinesStartWhereTheyAreCounted(t *testing.T) {
	_, files := sources(t)
	var in []string
	for _, file := range files {
		in = append(in, goStatements(file)...)
	}
	slices.Sort(in)
	// AfterFunc and the method "end" run the functions that a host registers with a turn's context.
	require.Equal(t, []string{"AfterFunc", "begin", "end"}, in, "start goroutines with spawn or begin")
}

// viewWrites returns the places where a function that is passed to the method "view" writes to a
// field, unless the field belongs to a result variable of the surrounding function.
func viewWrites(fset *token.FileSet, file *ast.File) (out []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		f, is := call.Args[0].(*ast.FuncLit)
		if !ok || !is || sel.Sel.Name != "view" {
			return true
		}
		inside := map[string]bool{"st": true, "m": true}
		ast.Inspect(f, func(n ast.Node) bool {
			if as, ok := n.(*ast.AssignStmt); ok && as.Tok == token.DEFINE {
				for _, x := range as.Lhs {
					inside[x.(*ast.Ident).Name] = true
				}
			}
			return true
		})
		ast.Inspect(f, func(n ast.Node) bool {
			as, ok := n.(*ast.AssignStmt)
			if !ok {
				return true
			}
			for _, x := range as.Lhs {
				if sel, ok := x.(*ast.SelectorExpr); ok {
					if of, ok := sel.X.(*ast.Ident); !ok || inside[of.Name] {
						out = append(out, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), sel.Sel.Name))
					}
				}
			}
			return true
		})
		return true
	})
	return out
}

func TestAViewOnlyReads(t *testing.T) {
	fset, files := sources(t)
	var found []string
	for _, file := range files {
		found = append(found, viewWrites(fset, file)...)
	}
	require.Len(t, found, 1, "use update, not view")
	require.Contains(t, found[0], "observe.go", "only the method passed may write in view")
	require.Len(t, viewWrites(fset, parsed(t, fset, "func f() { m.view(func(st *state) { st.subs = nil; t := st.find(); t.no = 1; out.x = 2 }) }")), 2)
}
