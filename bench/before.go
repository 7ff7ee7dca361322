package bench

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// coreBefore is the last commit without support for a store.
const coreBefore = "9ebc198"

// beforeRow compares the manager without a store with an earlier commit.
var beforeRow = Row{
	ID:        "before",
	What:      "the manager without a store now; a time may be 5 % worse, or as much worse as one of two series of the same commit is worse than the other",
	Reference: "commit " + coreBefore + ", whose binary takes turns with the present one",
	Run:       runBefore,
}

// coreBenchmarks are the benchmarks of this module that exist in both commits.
const coreBenchmarks = "^Benchmark(FreeSlotByName|FreeSlotByPool|EndToNextStart|LaunchToTold|PendingHeap|EndedHeap|Event|EndToNotice)$"

func runBefore(o Options) ([]Check, error) {
	root, err := RootDir()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bgagent-before-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	old, was, now := filepath.Join(dir, "checkout"), filepath.Join(dir, "was.test"), filepath.Join(dir, "now.test")
	o.note("building both commits")
	if err := errors.Join(
		execute(root, "git", "clone", "--quiet", "--shared", "--no-checkout", root, old),
		execute(old, "git", "checkout", "--quiet", coreBefore),
		execute(filepath.Join(old, "bench"), "go", "test", "-c", "-o", was, "."),
		execute(filepath.Join(root, "bench"), "go", "test", "-c", "-o", now, "."),
	); err != nil {
		return nil, err
	}
	var series [3]map[string]Series // the current commit, the earlier commit, and the earlier commit again
	for i := range series {
		series[i] = map[string]Series{}
	}
	for round := range o.Rounds {
		o.note("round %d", round+1)
		for k := range series {
			k = (k + round) % len(series)
			binary := was
			if k == 0 {
				binary = now
			}
			if err := measureCore(binary, series[k]); err != nil {
				return nil, err
			}
		}
	}
	return compareCore(series), nil
}

func execute(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w", cmd.Args, err)
	}
	return nil
}

// measureCore runs the benchmarks of the binary once and adds their figures to the series.
func measureCore(binary string, to map[string]Series) error {
	cmd := exec.Command(binary, "-test.run", "^$", "-test.bench", coreBenchmarks, "-test.benchtime", "0.2s", "-test.benchmem")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(f[0], "Benchmark"), "-")
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return fmt.Errorf("reading %q: %w", line, err)
			}
			to[name+" "+f[i+1]] = append(to[name+" "+f[i+1]], v)
		}
	}
	return nil
}

// coreFigures are the figures that compareCore compares.
var coreFigures = []struct {
	name, key string
	time      bool
}{
	{"free slot by name, time", "FreeSlotByName ns/op", true},
	{"free slot, pool looked up beforehand, time", "FreeSlotByPool ns/op", true},
	{"end to next start, time", "EndToNextStart ns/task", true},
	{"end to next start, allocations of 1,000 tasks with their launches", "EndToNextStart allocs/op", false},
	{"end to next start, bytes of 1,000 tasks with their launches", "EndToNextStart B/op", false},
	{"launch to told, time", "LaunchToTold ns/task", true},
	{"launch to told, allocations of a task", "LaunchToTold allocs/task", false},
	{"launch to told, bytes of 1,000 tasks", "LaunchToTold B/op", false},
	{"end to notice, time", "EndToNotice ns/task", true},
	{"end to notice, allocations of 1,000 tasks", "EndToNotice allocs/op", false},
	{"an event, time", "Event ns/op", true},
	{"heap of a pending task", "PendingHeap B/task", false},
	{"heap of an ended task", "EndedHeap B/task", false},
}

// compareCore compares the series of the current commit with the first series of the earlier commit. A time
// may be worse by 5 % or by the difference between the two series of the earlier commit, whichever is larger.
// Other figures may be worse by one percent, because they vary with the scheduling of goroutines.
func compareCore(series [3]map[string]Series) (checks []Check) {
	for _, x := range coreFigures {
		now, was, again := series[0][x.key], series[1][x.key], series[2][x.key]
		var p pair
		for i := range now {
			p.add(now[i], was[i])
		}
		same := again.Median() / was.Median()
		same = max(same, 1/same)
		bound := 1.01
		if x.time {
			bound = max(1.05, same)
		}
		bound = math.Ceil(bound*100) / 100 // as it is printed
		beside := fmt.Sprintf("%.4g against %.4g", p.subject.Median(), p.reference.Median())
		if x.time {
			beside = p.beside()
		}
		checks = append(checks, Check{x.name, p.ratio, "x", bound, None, beside + fmt.Sprintf("; the same commit twice: %.3g x", same)})
	}
	return checks
}
