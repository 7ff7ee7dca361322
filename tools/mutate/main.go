// Command mutate reads a list of faults. It plants one fault at a time into a package, and runs the
// tests that should find the fault. It does not change any file: the compiler gets the changed file
// as an overlay.
//
//	mutate [-check] [-only WORDS] LIST DIR
//
// The list contains faults of this form. The text of the lines with "-" must occur exactly once in
// the file. The lines with "+" replace it.
//
//	== what the fault breaks
//	file state_run.go
//	tests restart_test.go crash_test.go
//	- a line of the file
//	+ the line that replaces it
//
// The tests in the files named by "tests" run together, without the tests named by "skip". If a fault does
// not have one of these lines, the previous such line in the list applies. In place of these lines, a fault
// can name its own tests and arguments for them. Each of these tests must find the fault by itself. The tests
// are in the package in the folder DIR, unless a line "in" names another folder:
//
//	in command
//	by TestOfAPromise TestOfAnotherPromise
//	args -flag value
//
// With -check, mutate only makes sure that each fault can be planted and that the named tests exist. The exit
// status is 1 if a fault is not found, and 2 if the list is invalid or the tests cannot be run.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// fault is one entry in the list of faults.
type fault struct {
	name  string
	file  string
	tests []string // names of test files
	skip  []string // names of tests
	in    string   // folder of the tests in the field "by"
	by    []string // names of tests, each of which must find the fault
	args  []string // arguments for these tests
	old   string
	new   string
}

func main() {
	check := flag.Bool("check", false, "only make sure that each fault can be planted")
	only := flag.String("only", "", "plant only the faults whose names contain this text")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: mutate [-check] [-only WORDS] LIST DIR")
		os.Exit(2)
	}
	missed, err := run(flag.Arg(0), flag.Arg(1), *only, *check)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
	if missed > 0 {
		os.Exit(1)
	}
}

func run(list, dir, only string, check bool) (missed int, err error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return 0, err
	}
	faults, err := parse(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", list, err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp)
	planted, passed := 0, map[string]bool{} // "passed" contains the sets of tests that have passed without a fault
	var broken []error                      // faults that cannot be tried, for example because the package does not compile
	for _, f := range faults {
		overlay, err := f.overlay(dir, tmp)
		if err == nil {
			err = f.checkBy(dir)
		}
		if err != nil {
			return missed, fmt.Errorf("%s: %w", f.name, err)
		}
		if check || !strings.Contains(f.name, only) {
			continue
		}
		if key := f.key(); !passed[key] {
			if by, err := f.find(dir, tmp, ""); err != nil || by != "" {
				return missed, errors.Join(fmt.Errorf("without a fault, the tests must pass, but %s failed", by), err)
			}
			passed[key] = true
		}
		planted++
		began := time.Now()
		by, findErr := f.find(dir, tmp, overlay)
		took := time.Since(began).Round(time.Second)
		if findErr != nil {
			broken = append(broken, fmt.Errorf("%s: %w", f.name, findErr))
			fmt.Printf("BROKEN     %s (%v)\n", f.name, took)
		} else if by == "" {
			missed++
			fmt.Printf("NOT FOUND  %s (%v)\n", f.name, took)
		} else {
			fmt.Printf("found      %s, by %s (%v)\n", f.name, by, took)
		}
	}
	if check {
		fmt.Printf("%d faults can be planted\n", len(faults))
	} else {
		fmt.Printf("%d of %d faults were found\n", planted-missed-len(broken), planted)
		if planted == 0 {
			return 0, fmt.Errorf("no fault has a name with %q", only)
		}
	}
	return missed, errors.Join(broken...)
}

// The function "parse" reads the list.
func parse(text string) (all []fault, err error) {
	var tests, skip []string
	for i, line := range strings.Split(text, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		if word == "" || strings.HasPrefix(word, "#") {
			continue
		}
		if word == "==" {
			all = append(all, fault{name: rest})
			continue
		}
		if len(all) == 0 && word != "tests" && word != "skip" {
			return nil, fmt.Errorf("line %d: a fault begins with ==", i+1)
		}
		switch word {
		case "tests":
			tests = strings.Fields(rest)
		case "skip":
			skip = strings.Fields(rest)
		case "in":
			all[len(all)-1].in = rest
		case "by":
			all[len(all)-1].by = strings.Fields(rest)
		case "args":
			all[len(all)-1].args = strings.Fields(rest)
		case "file":
			all[len(all)-1].file = rest
		case "-":
			all[len(all)-1].old += rest + "\n"
		case "+":
			all[len(all)-1].new += rest + "\n"
		default:
			return nil, fmt.Errorf("line %d: no line of a fault begins with %q", i+1, word)
		}
		if n := len(all) - 1; n >= 0 {
			all[n].tests, all[n].skip = tests, skip
		}
	}
	return all, nil
}

// The method "overlay" writes the changed file and an overlay for the compiler, and returns the
// overlay's path.
func (f *fault) overlay(dir, tmp string) (path string, err error) {
	from := filepath.Join(dir, f.file)
	text, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), f.old); n != 1 || f.old == "" {
		return "", fmt.Errorf("the lines to replace occur %d times in %s, not once:\n%s", n, f.file, f.old)
	}
	changed := filepath.Join(tmp, filepath.Base(f.file))
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), f.old, f.new, 1)), 0o600); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{from: changed}})
	if err != nil {
		return "", err
	}
	path = filepath.Join(tmp, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o600)
}

// key returns the same text for all faults whose tests are the same.
func (f *fault) key() string {
	if len(f.by) > 0 {
		return strings.Join(slices.Concat(f.by, []string{"in", f.in}, f.args), " ")
	}
	return strings.Join(slices.Concat(f.tests, f.skip), " ")
}

// checkBy returns an error if a test that is named in f.by does not exist.
func (f *fault) checkBy(dir string) error {
	if len(f.by) == 0 {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, f.in, "*_test.go"))
	if err != nil {
		return err
	}
	var names []string
	for _, file := range files {
		some, err := testsIn(file)
		if err != nil {
			return err
		}
		names = append(names, some...)
	}
	for _, name := range f.by {
		if !slices.Contains(names, name) {
			return fmt.Errorf("the folder %q has no test %s", f.in, name)
		}
	}
	return nil
}

// The method "find" runs the tests with the overlay, or without one if the path is empty. It
// returns the name of a test that failed, or "" if none did. If f names its tests, all of them must
// fail with the overlay.
func (f *fault) find(dir, tmp, overlay string) (by string, err error) {
	if len(f.by) > 0 {
		return f.findBy(filepath.Join(dir, f.in), tmp, overlay)
	}
	var names []string
	for _, file := range f.tests {
		some, err := testsIn(filepath.Join(dir, file))
		if err != nil {
			return "", err
		}
		names = append(names, some...)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(f.skip, name) })
	cmd := exec.Command("go", "test", "-overlay="+overlay, "-failfast", "-timeout", "5m", "-run", "^("+strings.Join(names, "|")+")$", ".")
	cmd.Dir = dir
	return failed(cmd)
}

// findBy runs each of the tests that f names, one after the other.
func (f *fault) findBy(dir, tmp, overlay string) (by string, err error) {
	program := filepath.Join(tmp, "tests")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay="+overlay, "-o", program, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	for _, name := range f.by {
		cmd := exec.Command(program, "-test.run", "^"+name+"$", "-test.failfast", "-test.timeout", "2m")
		cmd.Args = append(cmd.Args, f.args...)
		cmd.Dir = dir
		by, err = failed(cmd)
		switch {
		case err != nil:
			return "", err
		case by == "" && overlay != "":
			fmt.Printf("           %s passes\n", name)
			return "", nil
		case by != "" && overlay == "":
			return by, nil
		}
	}
	if overlay == "" {
		return "", nil
	}
	return strings.Join(f.by, " and "), nil
}

// The function "failed" runs tests. It returns the name of a test that failed, or "" if none did.
func failed(cmd *exec.Cmd) (by string, err error) {
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case !errors.As(err, &exit):
		return "", err
	}
	for line := range bytes.Lines(out) {
		if name, failed := strings.CutPrefix(strings.TrimSpace(string(line)), "--- FAIL: "); failed {
			name, _, _ = strings.Cut(name, " ")
			return name, nil
		}
	}
	switch {
	case bytes.Contains(out, []byte("panic: test timed out")):
		return "a timeout", nil
	case bytes.Contains(out, []byte("panic: ")) || bytes.Contains(out, []byte("fatal error: ")):
		return "a panic", nil
	}
	return "", fmt.Errorf("the tests failed for another reason:\n%s", out)
}

// testsIn returns the names of the tests in the file.
func testsIn(path string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Decls {
		if f, is := d.(*ast.FuncDecl); is && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
			names = append(names, f.Name.Name)
		}
	}
	return names, nil
}
