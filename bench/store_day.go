package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// storeDayRow shows how much of a store's file is unused. The figures come from a test, because only
// tests have a clock that can be moved.
var storeDayRow = Row{
	ID: "store-day",
	What: "file of a store on SQLite after a day on which 100,000 tasks ended, one hour of which the store keeps, " +
		"while 10,000 other tasks stayed live; on a clock that the test moves",
	Reference: "a new file with the same contents",
	Run:       runStoreDay,
}

func runStoreDay(o Options) ([]Check, error) {
	tasks := min(o.Most, 100_000)
	o.note("%d tasks", tasks)
	const test = "TestAFileIsNotMuchLargerThanItsDataAfterADay"
	root, err := RootDir()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "test", "-count", "1", "-v", "-run", "^"+test+"$", "-timeout", "1h", ".", "-args", fmt.Sprintf("-day.tasks=%d", tasks))
	cmd.Dir = filepath.Join(root, "bench")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	var checks []Check
	for _, x := range []struct{ name, key string }{
		{"live tasks and the last hour's", "live-and-last-hour"},
		{"live tasks alone, two hours later", "live"},
	} {
		_, rest, ok := strings.Cut(string(out), "=== ATTR  "+test+" "+x.key+" ")
		var ratio, file, data float64
		if _, err := fmt.Sscan(rest, &ratio, &file, &data); !ok || err != nil {
			return nil, fmt.Errorf("the test printed no figures for %s: %v", x.key, err)
		}
		checks = append(checks, Check{x.name, Series{ratio}, "x", 2, 1.3, fmt.Sprintf("%.3g MB against %.3g MB", file/1e6, data/1e6)})
	}
	return checks, nil
}
