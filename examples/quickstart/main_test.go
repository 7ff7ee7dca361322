package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/bgagent/bgagent/examples/quickstart/internal/modules"
)

// The type "output" collects the output. After every write, it calls the function "seen" with all
// output so far.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	seen func(all string)
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.buf.Write(b)
	if o.seen != nil {
		o.seen(o.buf.String())
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func TestWrongInputIsRefused(t *testing.T) {
	nothing := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-dir", nothing}, "there is no go.mod in " + nothing + " or above it; name a Go module with -dir"},
		{[]string{"-dir", filepath.Join(nothing, "nowhere")}, "nowhere does not exist"},
		{[]string{"-limit", "0"}, "-limit is 0, but at least one task must be able to run; give 1 or more"},
		{[]string{"-limit", "-1"}, "-limit is -1"},
		{[]string{"-limit", "many"}, "invalid value"},
		{[]string{"-find", "the"}, `-find is "the", which contains no words to look for`},
		{[]string{"-timeout", "0s"}, "-timeout is 0s, but it must be positive"},
		{[]string{"./..."}, `"./..." was given; a module is named with -dir`},
		{[]string{"-model", "x"}, "not defined: -model"},
	} {
		var stdout, stderr output
		if code := run(t.Context(), c.args, &stdout, &stderr); code != exitUsage {
			t.Errorf("%q: exit code %d", c.args, code)
		}
		if got := stderr.String(); !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%q: %q, want one line with %q", c.args, got, c.want)
		}
		if stdout.String() != "" {
			t.Errorf("%q: printed %q", c.args, stdout.String())
		}
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr output
	if code := run(t.Context(), []string{"-h"}, &stdout, &stderr); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"-v", "-dir", "-find", "-limit", "-plain", "-timeout"} {
		if !strings.Contains(stderr.String(), name) {
			t.Errorf("%s is not explained in %s", name, stderr.String())
		}
	}
}

// TestScene runs the whole scene on three modules. The output consists of plain lines, because it
// does not go to a terminal.
func TestScene(t *testing.T) {
	for _, c := range []struct {
		module, find string
		limit        string
		want         []string
	}{
		{"plain", "authentication", "3", []string{
			"1. `auth/auth.go:5` - func Authenticate:",
			"1. `example.com/greet` v0.0.0 - Package greet says hello.",
			"| shop (top) |", "No cycles between packages.",
			"The biggest package is shop", "of 2: ping, pong",
			"Finding 1 of my earlier answer was func Authenticate, at `auth/auth.go:5`",
		}},
		{"nodeps", "session", "2", []string{
			"Nothing in example.com/alone", "example.com/alone has no direct dependencies.", "1. `strings` - Package strings",
			"My earlier answers name nothing with the number 1",
		}},
		{"broken", "session", "7", []string{
			"type Session: Session is still readable.", "errors found; the agent worked on the rest", "syntax/syntax.go:9", "typed/typed.go:5",
			"its documentation cannot be read here", "1 cycle between packages:",
		}},
	} {
		t.Run(c.module, func(t *testing.T) {
			dir := modules.Unpack(t, c.module)
			before := modules.Contents(t, dir)
			var stdout, stderr output
			code := run(t.Context(), []string{"-v", "-dir", dir, "-find", c.find, "-limit", c.limit}, &stdout, &stderr)
			if code != exitOK || stderr.String() != "" {
				t.Fatalf("exit code %d, %s\n%s", code, stderr.String(), stdout.String())
			}
			if !maps.Equal(before, modules.Contents(t, dir)) {
				t.Error("the module was changed")
			}
			checkScene(t, stdout.String(), c.want)
		})
	}
}

// Without -v, the output fits on one screen and begins with the comparison. It does not contain
// text for a model.
func TestTheComparisonComesFirstOnOneScreen(t *testing.T) {
	for _, module := range []string{"plain", "broken"} {
		var stdout, stderr output
		code := run(t.Context(), []string{"-dir", modules.Unpack(t, module), "-find", "authentication"}, &stdout, &stderr)
		if code != exitOK || stderr.String() != "" {
			t.Fatalf("exit code %d, %s", code, stderr.String())
		}
		out := stdout.String()
		if n := strings.Count(out, "\n"); n > 40 {
			t.Errorf("%d lines do not fit on a screen of 40", n)
		}
		_, out, _ = strings.Cut(out, "\n\n") // removes the paragraph about the runs
		if !strings.HasPrefix(out, "=== Time") {
			t.Error("the comparison does not come first")
		}
		for _, text := range []string{"task_id", "Task Result", "Background task"} {
			if strings.Contains(out, text) {
				t.Errorf("%q is for a model", text)
			}
		}
		if n := len(regexp.MustCompile(`(?m)^(completed|cancelled|error) +\d+\.\ds  (Explore|Librarian|Oracle): `).FindAllString(out, -1)); n != 7 {
			t.Errorf("%d tasks are shown, want 7", n)
		}
		if t.Failed() {
			t.Log(stdout.String())
		}
	}
}

// checkScene checks the structure of the output.
func checkScene(t *testing.T, out string, want []string) {
	t.Helper()
	if strings.Contains(out, "\x1b") {
		t.Error("there are escape sequences in plain output")
	}
	for text, n := range map[string]int{
		"Background task launched successfully.": 7,
		"Cancelled 1 background task(s):":        1,
		"\nTask Result\n":                        7, // the results of six tasks and of the follow-up
	} {
		// The text may occur one more time, because the follow-up is announced like a launch, and
		// the status call may read a task that has already ended.
		if got := strings.Count(out, text); got < n || got > n+1 {
			t.Errorf("%q stands %d times, want %d", text, got, n)
		}
	}
	if got := strings.Count(out, "cancelled  Explore: find the tests' helpers"); got != 2 {
		t.Errorf("the cancelled task is shown as such %d times, want once in each run", got)
	}
	last := 0
	for _, title := range []string{"untimed", "=== At most", "=== A follow-up", "=== The same tasks one after the other", "=== Time"} {
		at := strings.Index(out, title)
		if at < last {
			t.Errorf("%q is missing or in the wrong place", title)
		}
		last = max(at, 0)
	}
	if !regexp.MustCompile(`(?s)side by side: +\S+s .*one after the other: +\S+s .*ratio: +\d+\.\d\d\n`).MatchString(out[last:]) {
		t.Errorf("the figures look wrong: %s", out[last:])
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q is missing from the output", w)
		}
	}
	checkSerial(t, out)
	if t.Failed() {
		t.Log(out)
	}
}

// checkSerial checks that, with a limit of 1, no two tasks were shown as running at the same time. A task that
// ends immediately might never be shown as running.
func checkSerial(t *testing.T, out string) {
	t.Helper()
	_, serial, _ := strings.Cut(out, "=== The same tasks")
	running, most := map[string]bool{}, 0
	for _, m := range regexp.MustCompile(`(?m)^\[ *[\d.]+s\] (running|completed) +([^(\n]*)`).FindAllStringSubmatch(serial, -1) {
		task := strings.TrimSpace(m[2])
		if m[1] == "running" {
			running[task] = true
		} else {
			delete(running, task)
		}
		most = max(most, len(running))
	}
	if len(running) != 0 || most != 1 {
		t.Errorf("with a limit of 1, %d tasks were running at the same time and %v never ended", most, running)
	}
}

// An interrupt in the middle of the scene cancels the running tasks and ends the
// program.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout := &output{seen: func(all string) {
		if strings.Contains(all, "Background task launched successfully.") {
			cancel()
		}
	}}
	var stderr output
	if code := run(ctx, []string{"-v", "-dir", modules.Unpack(t, "plain")}, stdout, &stderr); code != exitInterrupted {
		t.Errorf("exit code %d\n%s", code, stdout.String())
	}
	if want := "quickstart: interrupted; the tasks that were still running have been cancelled\n"; stderr.String() != want {
		t.Errorf("%q, want %q", stderr.String(), want)
	}
}

func TestTimeout(t *testing.T) {
	var stdout, stderr output
	code := run(t.Context(), []string{"-dir", modules.Unpack(t, "plain"), "-timeout", "1ns"}, &stdout, &stderr)
	if code != exitFailed || !strings.Contains(stderr.String(), "not done after 1ns; the tasks that were still running have been cancelled") {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
}

// Plain output is used if requested, and always without a terminal.
func TestPlainLines(t *testing.T) {
	if live(options{}, &output{}) {
		t.Error("a buffer was taken for a terminal")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if live(options{}, f) {
		t.Error("a file was taken for a terminal")
	}
}
