// Command report measures all rows of the benchmark table and writes BENCHMARKS.md to the
// root of the repository. It fails if a figure exceeds its bound.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bgagent/bgagent/bench"
)

func main() {
	rounds := flag.Int("rounds", 11, "rounds of each comparison")
	most := flag.Int("most", 1_000_000, "largest number of tasks")
	rows := flag.String("rows", "", "measure only the rows whose id matches; all other rows are removed from the file")
	out := flag.String("out", "", "file to write: the module's BENCHMARKS.md if empty, standard output if -")
	flag.Parse()
	ok, err := run(*rounds, *most, *rows, *out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	if !ok {
		fmt.Fprintln(os.Stderr, "report: a row is outside its bound")
		os.Exit(1)
	}
}

func run(rounds, most int, rows, out string) (ok bool, err error) {
	only, err := regexp.Compile(rows)
	if err != nil {
		return false, err
	}
	root, err := bench.RootDir()
	if err != nil {
		return false, err
	}
	var doc bytes.Buffer
	head(&doc, root, rounds)
	ok = true
	for _, row := range bench.Rows() {
		if !only.MatchString(row.ID) {
			continue
		}
		start := time.Now()
		note := func(s string) { fmt.Fprintf(os.Stderr, "%s: %s\n", row.ID, s) }
		note("begins")
		checks, err := measure(row, bench.Options{Rounds: rounds, Most: most, Progress: note})
		ok = section(&doc, row, checks, err) && ok
		note(fmt.Sprintf("done after %.1f s", time.Since(start).Seconds()))
	}
	switch out {
	case "-":
		_, err = os.Stdout.Write(doc.Bytes())
	case "":
		err = os.WriteFile(filepath.Join(root, "BENCHMARKS.md"), doc.Bytes(), 0o644)
	default:
		err = os.WriteFile(out, doc.Bytes(), 0o644)
	}
	return ok, err
}

// The function "measure" runs a row. If the row panics, the result is an error, so that the other
// rows are still measured.
func measure(row bench.Row, o bench.Options) (checks []bench.Check, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	runtime.GC()
	debug.FreeOSMemory()
	return row.Run(o)
}

func head(w io.Writer, root string, rounds int) {
	fmt.Fprintf(w, `# Benchmarks

%s writes this file. A bound is a ratio to a reference that is measured in the same process,
alternating with the subject. The tables show the median of %d rounds, with the minimum and the maximum beside it. Absolute
figures are for orientation only. A row says whether its median is within its bound, and whether it reaches the aim.

| | |
| --- | --- |
| date | %s |
| commit | %s |
| machine | %s, %d processors used, %s/%s |
| Go | %s |

`, "`go run ./bench/cmd/report`", rounds, time.Now().UTC().Format("2006-01-02 15:04 MST"), commit(root), cpu(), runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// section writes one row and reports whether all figures of the row are within their bounds.
func section(w io.Writer, row bench.Row, checks []bench.Check, err error) bool {
	fmt.Fprintf(w, "## %s\n\n%s. Reference: %s.\n\n", row.ID, upper(row.What), row.Reference)
	if err != nil {
		fmt.Fprintf(w, "**Failed**: %s\n\n", strings.ReplaceAll(err.Error(), "\n", " "))
		return false
	}
	fmt.Fprintln(w, "| what | median | min to max | at most | aim | | absolute |")
	fmt.Fprintln(w, "| --- | ---: | ---: | ---: | ---: | --- | --- |")
	ok := true
	for _, c := range checks {
		verdict := "inside, aim reached"
		switch {
		case math.IsNaN(c.Bound) && math.IsNaN(c.Aim):
			verdict = ""
		case !c.Inside():
			verdict, ok = "**outside**", false
		case !c.Reached():
			verdict = "inside"
		case math.IsNaN(c.Aim):
			verdict = "inside"
		}
		spread := ""
		if len(c.Value) > 1 {
			spread = number(c.Value.Quantile(0), c.Unit) + " to " + number(c.Value.Quantile(1), c.Unit)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", c.Name, number(c.Value.Median(), c.Unit), spread, number(c.Bound, c.Unit), number(c.Aim, c.Unit), verdict, c.Beside)
	}
	fmt.Fprintln(w)
	return ok
}

func number(v float64, unit string) string {
	var s string
	switch {
	case math.IsNaN(v):
		return ""
	case unit == "x" && v > 0 && v < 0.2:
		return fmt.Sprintf("1/%.3g", 1/v)
	case math.Abs(v) >= 1000:
		s = fmt.Sprintf("%.0f", v)
	default:
		s = fmt.Sprintf("%.3g", v)
	}
	if unit != "" {
		s += " " + unit
	}
	return s
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func commit(root string) string {
	git := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	rev := git("rev-parse", "--short=12", "HEAD")
	if rev == "" {
		return "unknown"
	}
	if git("status", "--porcelain", "--", ".", ":!BENCHMARKS.md") != "" {
		rev += ", with uncommitted changes"
	}
	return rev
}

// cpu returns the name of the processor, or "unknown processor" if /proc/cpuinfo does not
// contain it.
func cpu() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown processor"
}
