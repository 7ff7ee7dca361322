package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/bgagent/bgagent/bench"
)

// The function "rounded" returns a figure with two significant digits.
func rounded(t *testing.T, figure string) string {
	t.Helper()
	f, err := strconv.ParseFloat(figure, 64)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%.2g", f)
}

// The section on benchmarks in the README must be rewritten if BENCHMARKS.md changes. Its ratios have the
// forms "3.6 times", "1.4 to 1.8 times", "a bound of 2" and "the bound is 2".
func TestTheReadmeQuotesRatiosOfTheBenchmarks(t *testing.T) {
	root, err := bench.RootDir()
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	measured := map[string]bool{}
	tables := read("BENCHMARKS.md")
	for _, x := range regexp.MustCompile(`([0-9.]+) x\b`).FindAllStringSubmatch(tables, -1) {
		measured[rounded(t, x[1])] = true
	}
	_, section, _ := strings.Cut(read("README.md"), "\n## Benchmarks\n")
	section, _, _ = strings.Cut(section, "\n## ")
	section = strings.Join(strings.Fields(section), " ")
	quoted := 0
	for _, form := range []string{`([0-9.]*[0-9]) times`, `([0-9.]*[0-9]) to [0-9.]+ times`, `bound (?:is|of) ([0-9.]*[0-9])`} {
		for _, x := range regexp.MustCompile(form).FindAllStringSubmatch(section, -1) {
			if quoted++; !measured[rounded(t, x[1])] {
				t.Errorf("README.md quotes %q, but BENCHMARKS.md contains no such ratio", x[0])
			}
		}
	}
	if quoted == 0 {
		t.Error("README.md quotes no ratio")
	}
	// The README must state how many bounds the manager misses.
	missed := strings.Count(tables, "**outside**")
	if words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}; missed < len(words) {
		if plain := strings.TrimSuffix("misses "+words[missed]+" bounds", map[bool]string{true: "s"}[missed == 1]); !strings.Contains(section, plain) {
			t.Errorf("BENCHMARKS.md contains %d figures outside their bounds, so the README should say: %q", missed, plain)
		}
	}
}
