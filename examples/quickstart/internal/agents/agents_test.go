package agents

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/examples/quickstart/internal/modules"
	"github.com/bgagent/bgagent/internal/tempdir"
)

// Short forms of the prompts in the scene.
const (
	findSession  = `Find where "session" is implemented.`
	findAuth     = `Find where "authentication" is implemented.`
	dependencies = "Read the documentation of the direct dependencies."
	standard     = "Read the documentation of the standard packages."
	packages     = "Measure the packages: sizes, imports, cycles."
	biggest      = "Measure the inside of the biggest package."
)

func ask(t *testing.T, a Agent, turn *Turn) string {
	t.Helper()
	answer, err := a(t.Context(), turn)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// The function "has" fails the test unless the answer contains all parts in the given order.
func has(t *testing.T, answer string, parts ...string) {
	t.Helper()
	rest := answer
	for _, p := range parts {
		_, after, ok := strings.Cut(rest, p)
		if !ok {
			t.Fatalf("%q is missing or out of order in:\n%s", p, answer)
		}
		rest = after
	}
}

func hasNot(t *testing.T, answer string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(answer, p) {
			t.Fatalf("%q must not be in:\n%s", p, answer)
		}
	}
}

func TestExploreFindsTheImplementation(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	answer := ask(t, Explore, &Turn{Dir: dir, Prompt: findAuth})
	has(t, answer, `"authentication" in example.com/shop (3 packages, 5 files`,
		"1. `auth/auth.go:5` - func Authenticate: Authenticate reports whether the password is the customer's.",
		"2. `auth/auth.go:2` - package auth: Package auth knows who is who.",
		"3. `auth/auth.go:10` - method token.String: String hides the token")
	hasNot(t, answer, "greet", "till.go", "error")
}

func TestExploreFindsNothing(t *testing.T) {
	answer := ask(t, Explore, &Turn{Dir: modules.Unpack(t, "nodeps"), Prompt: findAuth})
	has(t, answer, "Nothing in example.com/alone", "1. `.` - package alone")
}

func TestExploreGoesOnFromItsFindings(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	first := ask(t, Explore, &Turn{Dir: dir, Prompt: findAuth})
	answer := ask(t, Explore, &Turn{Dir: dir, Prompt: "Show me the first finding.", Earlier: []string{first}})
	has(t, answer, "Finding 1 of my earlier answer was func Authenticate, at `auth/auth.go:5`",
		"    func Authenticate(name, password string) bool", "occurs in 2 places in 2 files",
		"`shop.go` 1", "`till.go` 1")
	answer = ask(t, Explore, &Turn{Dir: dir, Prompt: "Show me number 77.", Earlier: []string{first}})
	has(t, answer, "name nothing with the number 77")
}

func TestLibrarianReadsWhatIsUsed(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	answer := ask(t, Librarian, &Turn{Dir: dir, Prompt: dependencies})
	has(t, answer, "example.com/shop has 1 direct dependency",
		"1. `example.com/greet` v0.0.0 - Package greet says hello.\n", "2 files, 1 of them tests; uses Hello (2)\n")
	hasNot(t, answer, "Bye", "error")

	follow := ask(t, Librarian, &Turn{Dir: dir, Prompt: "Tell me more about number 1.", Earlier: []string{answer}})
	has(t, follow, "Number 1 of my earlier answer was `example.com/greet`", "- `Hello` - Hello greets somebody by name.\n")

	answer = ask(t, Librarian, &Turn{Dir: dir, Prompt: standard})
	has(t, answer, "It uses 4 packages of the standard library", "`fmt` - Package fmt implements formatted I/O")
	hasNot(t, answer, "example.com")
}

func TestLibrarianSaysThatThereAreNoDependencies(t *testing.T) {
	answer := ask(t, Librarian, &Turn{Dir: modules.Unpack(t, "nodeps"), Prompt: dependencies})
	has(t, answer, "example.com/alone has no direct dependencies.", "It uses 1 package of the standard library",
		"1. `strings` - Package strings", "uses Repeat (1), ToUpper (1)")
}

func TestOracleMeasuresThePackages(t *testing.T) {
	answer := ask(t, Oracle, &Turn{Dir: modules.Unpack(t, "plain"), Prompt: packages})
	has(t, answer, "example.com/shop: 3 packages, 5 files", "| shop (top) | 50 | 1 | 1 | 2 |",
		"| cmd/shop | 12 | 1 | 0 | 2 |", "| auth | 10 | 0 | 1 | 0 |",
		"No cycles between packages.", "Every package except the commands is imported by another package.",
		"Largest functions:", "1. `till.go:5` - pong, 9 lines, 3 branches")
	hasNot(t, answer, "error")
}

func TestOracleLooksIntoTheBiggestPackage(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	answer := ask(t, Oracle, &Turn{Dir: dir, Prompt: biggest})
	has(t, answer, "The biggest package is shop (`.`)", "in 2 files, 6 types and functions",
		"Most referred to: ", "1 cycle between files:", "- of 2: shop.go, till.go",
		"1 cycle between types and functions:", "- of 2: ping, pong\n")
	hasNot(t, answer, "error")
	follow := ask(t, Oracle, &Turn{Dir: dir, Prompt: "Look into the first.", Earlier: []string{answer}})
	has(t, follow, "Number 1 of my earlier answer was `till.go:5`, pong", "ping (3)", "`till.go:6` switch")
}

func TestOracleCountsWhatVariablesReferTo(t *testing.T) {
	dir := tempdir.New(t)
	write(t, dir, "go.mod", "module example.com/table\n\ngo 1.26\n")
	write(t, dir, "table.go", "package table\n\nvar All = []func(){named}\n\nfunc named() {}\n\nfunc forgotten() {}\n")
	answer := ask(t, Oracle, &Turn{Dir: dir, Prompt: biggest})
	has(t, answer, "2 types and functions", "Unexported, and not used outside tests: forgotten.\n")
}

// If a module does not build, the agents work on the parts that can be read, and report the
// errors.
func TestABrokenModuleIsWorkedOn(t *testing.T) {
	dir := modules.Unpack(t, "broken")
	answer := ask(t, Explore, &Turn{Dir: dir, Prompt: findSession})
	has(t, answer, "type Session: Session is still readable.", "the agent worked on the rest", "syntax/syntax.go:9")
	has(t, answer, "func OpenSession")

	answer = ask(t, Librarian, &Turn{Dir: dir, Prompt: dependencies})
	has(t, answer, "`example.com/missing/far` v1.2.3 - its documentation cannot be read here", "uses Away (1)",
		"errors found; the agent worked on the rest", "syntax/syntax.go:9")
	has(t, answer, "- example.com/missing/far: its source is not in the module cache")
	has(t, answer, "example.org/nobody/requires/this")
	hasNot(t, answer, "GOPROXY")

	answer = ask(t, Oracle, &Turn{Dir: dir, Prompt: packages})
	has(t, answer, "1 cycle between packages:", "example.com/broken/a, example.com/broken/b",
		"5 errors found; the agent worked on the rest", "syntax/syntax.go:9", "import cycle not allowed")
	has(t, answer, "stray/stray.go:4")
	has(t, answer, "typed/typed.go:5", "no number")

	answer = ask(t, Oracle, &Turn{Dir: dir, Prompt: biggest})
	has(t, answer, "The biggest package is wrong", "- of 2: again, other", "error", "example.com/missing/far")
}

func TestAModuleWithoutPackages(t *testing.T) {
	dir := tempdir.New(t)
	write(t, dir, "go.mod", "module example.com/empty\n")
	has(t, ask(t, Explore, &Turn{Dir: dir, Prompt: findAuth}), "contains no Go package")
	has(t, ask(t, Librarian, &Turn{Dir: dir, Prompt: dependencies}), "no direct dependencies", "imports nothing from the standard library")
	has(t, ask(t, Oracle, &Turn{Dir: dir, Prompt: packages}), "contains no Go package")
}

func TestAGoModThatCannotBeRead(t *testing.T) {
	dir := tempdir.New(t)
	write(t, dir, "go.mod", "modul example.com/typo\n")
	write(t, dir, "x.go", "package x\n\nimport \"strings\"\n\n// Session is x.\nvar Session = strings.ToUpper(\"x\")\n\nfunc session() {}\n")
	for _, a := range All() {
		for _, prompt := range []string{findSession, packages, biggest, dependencies} {
			has(t, ask(t, a, &Turn{Dir: dir, Prompt: prompt}), "the agent worked on the rest", "go.mod:1")
		}
	}
}

func TestAgentsOnlyRead(t *testing.T) {
	for _, name := range []string{"plain", "nodeps", "broken"} {
		dir := modules.Unpack(t, name)
		before := modules.Contents(t, dir)
		for _, a := range All() {
			for _, prompt := range []string{findSession, packages, biggest, dependencies, standard} {
				ask(t, a, &Turn{Dir: dir, Prompt: prompt})
			}
		}
		if after := modules.Contents(t, dir); !maps.Equal(before, after) {
			t.Errorf("%s changed from %v to %v", name, before, after)
		}
	}
}

// Every agent reports the start and the end of each tool call. At the end of a turn, all todos are
// completed.
func TestAgentsReportWhatTheyDo(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	for name, a := range All() {
		for _, prompt := range []string{findAuth, packages, biggest, dependencies} {
			var running, ended, texts int
			var todos []bgagent.Todo
			report := bgagent.NewReporter(func(r bgagent.Report) {
				switch {
				case r.Kind == bgagent.ReportText:
					texts++
				case r.Kind == bgagent.ReportTodos:
					todos = r.Todos
				case r.Tool.State.InFlight():
					running++
				default:
					ended++
				}
			})
			ask(t, a, &Turn{Dir: dir, Prompt: prompt, Report: report})
			if running == 0 || running != ended || texts == 0 {
				t.Errorf("%s: %d calls began, %d ended, %d texts", name, running, ended, texts)
			}
			if len(todos) == 0 {
				t.Errorf("%s: no todos", name)
			}
			for _, todo := range todos {
				if todo.State.Open() {
					t.Errorf("%s: %q is left open", name, todo.Text)
				}
			}
		}
	}
}

// If an agent is cancelled during a tool call, the agent returns the context's error. This must be
// true for each of its tool calls.
func TestAgentsCanBeCancelledAtEveryStep(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	for name, a := range All() {
		for _, prompt := range []string{findAuth, biggest, standard} {
			calls := 1
			for at := 1; at <= calls; at++ {
				calls = cancelAt(t, name, a, dir, prompt, at, calls)
			}
		}
	}
}

// cancelAt cancels the turn when the tool call with the number "at" starts; known is the number of
// tool calls known so far. cancelAt returns the new number of known tool calls.
func cancelAt(t *testing.T, name string, a Agent, dir, prompt string, at, known int) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	begun, cancelled := 0, false
	report := bgagent.NewReporter(func(r bgagent.Report) {
		mu.Lock()
		defer mu.Unlock()
		if r.Kind == bgagent.ReportTool && r.Tool.State.InFlight() {
			if begun++; begun == at {
				cancelled = true
				cancel()
			}
		}
	})
	_, err := a(ctx, &Turn{Dir: dir, Prompt: prompt, Report: report})
	switch {
	case cancelled && err != context.Canceled:
		t.Errorf("%s, %q: cancelled at call %d it returned %v", name, prompt, at, err)
	case cancelled && begun > at:
		t.Errorf("%s, %q: cancelled at call %d it made %d more", name, prompt, at, begun-at)
	case cancelled:
		return max(known, at+1) // there may be another call after this call
	}
	return known
}

// The command git fails in a folder that contains an empty .git folder.
func TestOracleNeedsNoVersionControl(t *testing.T) {
	dir := modules.Unpack(t, "plain")
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	answer := ask(t, Oracle, &Turn{Dir: dir, Prompt: packages})
	has(t, answer, "example.com/shop: 3 packages, 5 files")
	hasNot(t, answer, "error")
}
