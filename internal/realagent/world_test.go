package realagent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/realagent"
)

// fakeTest is a testing.TB that records the outcome of a test for another test.
type fakeTest struct {
	testing.TB
	mu       sync.Mutex
	cleanups []func()
	errors   []string
	skipped  string
}

// The function "try" runs f as a test and returns its outcome.
func try(t *testing.T, f func(t testing.TB)) *fakeTest {
	fake := &fakeTest{TB: t}
	over := make(chan struct{})
	go func() { // a separate goroutine, because Fatal and Skip exit the goroutine
		defer close(over)
		defer func() {
			for len(fake.cleanups) > 0 {
				last := fake.cleanups[len(fake.cleanups)-1]
				fake.cleanups = fake.cleanups[:len(fake.cleanups)-1]
				last()
			}
		}()
		f(fake)
	}()
	<-over
	return fake
}

func (f *fakeTest) Cleanup(c func())    { f.cleanups = append(f.cleanups, c) }
func (f *fakeTest) Logf(string, ...any) {}
func (f *fakeTest) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.errors) > 0
}
func (f *fakeTest) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *fakeTest) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}
func (f *fakeTest) Skip(args ...any) {
	f.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func TestAMissingProgramIsSkippedOrAFailureAndNamed(t *testing.T) {
	t.Setenv("BGAGENT_AGENTS", t.TempDir())
	for mode, fails := range map[string]bool{"": false, "require": true} {
		t.Run("mode="+mode, func(t *testing.T) {
			if mode == "" && testing.Short() {
				t.Skip("-short skips everything, installed or not")
			}
			t.Setenv("BGAGENT_REAL_AGENTS", mode)
			got := try(t, func(t testing.TB) {
				realagent.New(t, "codex")
				t.Errorf("New returned")
			})
			text := got.skipped
			if fails {
				require.Empty(t, got.skipped)
				require.Len(t, got.errors, 1)
				text = got.errors[0]
			} else {
				require.Empty(t, got.errors)
			}
			require.Contains(t, text, "codex is not installed (@openai/codex 0.171.0 is not installed")
			require.Contains(t, text, ".ci/agents installs it")
		})
	}
}

func TestEveryProgramThatIsMissingIsAFailureWhereTheyAreRequired(t *testing.T) {
	t.Setenv("BGAGENT_AGENTS", t.TempDir())
	t.Setenv("BGAGENT_REAL_AGENTS", "require")
	for _, name := range []string{"opencode", "codex", "gemini", "claude", "claude-acp", "codex-acp", "conformance", "requester", "inspector"} {
		got := try(t, func(t testing.TB) { realagent.New(t, name) })
		require.Empty(t, got.skipped, name)
		require.Len(t, got.errors, 1, name)
		require.Contains(t, got.errors[0], name+" is not installed (")
	}
}

func TestAnotherVersionIsNotTheProgram(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("BGAGENT_AGENTS", dir)
	t.Setenv("BGAGENT_REAL_AGENTS", "require")
	require.NoError(t, os.MkdirAll(dir+"/node_modules/@openai/codex", 0o755))
	require.NoError(t, os.WriteFile(dir+"/node_modules/@openai/codex/package.json", []byte(`{"version":"0.1.0"}`), 0o644))
	got := try(t, func(t testing.TB) { realagent.New(t, "codex") })
	require.Len(t, got.errors, 1)
	require.Contains(t, got.errors[0], "@openai/codex is 0.1.0")
	require.Contains(t, got.errors[0], "0.171.0 is pinned")
}

func TestTheEnvironmentCanSkipEverything(t *testing.T) {
	t.Setenv("BGAGENT_REAL_AGENTS", "skip")
	require.NotEmpty(t, try(t, func(t testing.TB) { realagent.New(t, "codex") }).skipped)
	t.Setenv("BGAGENT_REAL_AGENTS", "perhaps")
	require.Contains(t, try(t, func(t testing.TB) { realagent.New(t, "codex") }).errors[0], `"perhaps"; it may be require or skip`)
}

func TestAnUnknownProgramIsNamed(t *testing.T) {
	t.Setenv("BGAGENT_REAL_AGENTS", "require")
	require.Contains(t, try(t, func(t testing.TB) { realagent.New(t, "cursor") }).errors[0], `no program "cursor"`)
}

// The test uses a world without programs, because the checked properties do not depend on the
// programs.
func TestAWorldIsIsolatedAndLeavesNothing(t *testing.T) {
	t.Setenv("BGAGENT_REAL_AGENTS", "require")
	t.Setenv("SECRET_OF_THE_HOST", "x")
	var root string
	got := try(t, func(t testing.TB) {
		w := realagent.New(t)
		root = strings.TrimSuffix(w.Dir, "/work")
		require.DirExists(t, w.Dir+"/.git")
		for _, v := range w.Env {
			require.NotContains(t, v, "SECRET_OF_THE_HOST")
			for _, name := range []string{"HOME=", "TMPDIR=", "XDG_CONFIG_HOME="} {
				if rest, ok := strings.CutPrefix(v, name); ok {
					require.True(t, strings.HasPrefix(rest, root), v)
				}
			}
		}
	})
	require.Empty(t, got.errors)
	require.NoDirExists(t, root)
}

func TestAProcessThatIsLeftFailsTheTestAndIsEnded(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("processes of a world are known on Linux only")
	}
	t.Setenv("BGAGENT_REAL_AGENTS", "require")
	var w *realagent.World
	got := try(t, func(t testing.TB) {
		w = realagent.New(t)
		// The process runs in its own session, and its parent has ended. The processes that tools
		// start are in the same state after their agent has been killed.
		require.NoError(t, w.Command(t.Context(), "setsid", "--fork", "sleep", "1000").Run())
	})
	require.Len(t, got.errors, 1)
	require.Contains(t, got.errors[0], "left alive after the test: ")
	require.Contains(t, got.errors[0], "sleep 1000")
	require.Empty(t, w.Processes())
}

// The constant "dies" is the environment variable that TestATestThatDiesLeavesNothing sets for the
// process that is supposed to die.
const dies = "BGAGENT_TEST_DIES"

func TestATestThatDiesLeavesNothing(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("processes of a world are known on Linux only")
	}
	t.Setenv("BGAGENT_REAL_AGENTS", "require")
	if os.Getenv(dies) != "" {
		w := realagent.New(t)
		if err := w.Command(t.Context(), "setsid", "--fork", "sleep", "1000").Run(); err != nil {
			t.Fatal(err)
		}
		fmt.Println(w.Dir)
		os.Exit(3)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestATestThatDiesLeavesNothing$")
	cmd.Env = append(os.Environ(), dies+"=1")
	out, err := cmd.Output()
	require.ErrorContains(t, err, "exit status 3", "%s", out)
	dir := strings.TrimSpace(string(out))
	require.NotEmpty(t, dir)
	for exists(dir) || inFolder(t, dir) { // nothing signals the end of the cleanup, so the test polls
		time.Sleep(10 * time.Millisecond)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// inFolder reports whether a process has the folder as its working directory.
func inFolder(t *testing.T, folder string) bool {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	require.NoError(t, err)
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.TrimSuffix(cwd, " (deleted)") == folder {
			return true
		}
	}
	return false
}
