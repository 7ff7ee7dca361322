// Package realagent runs the real agent programs opencode, codex, gemini and claude in
// tests. The programs run in an isolated home, without a network, and use a scripted
// model server.
//
//	w := realagent.New(t, "opencode")
//	server := w.ServeOpencode(t)
//	// … a session client with server.URL; a prompt like "@say hello" …
//
// The programs are not part of this repository: .ci/agents installs the pinned versions into a
// cache folder. A test whose program is missing is skipped. If BGAGENT_REAL_AGENTS=require is
// set, as in .ci/run, the test fails instead. With BGAGENT_REAL_AGENTS=skip or go test -short,
// the tests are skipped even if the programs are installed. BGAGENT_AGENTS can name another
// folder that contains the programs. Use -count=1 after .ci/agents, because the cache of go
// test does not detect newly installed programs.
//
// Scripts must take into account how the pinned versions behave:
//
//   - opencode retries a request without limit after status 429 or 5xx, after an error in the
//     stream and after a broken connection. It first waits 2 s, or the time given in
//     Retry-After.
//   - codex retries a request five times, over a period of 6 to 14 s.
//   - gemini retries a request three times within 9 s after an error in the stream. After
//     status 429, its pauses are 5 s and longer. After a broken connection, it does not retry
//     the request.
//   - Status 400 ends the turn in all programs.
//   - Only opencode requests titles.
//   - opencode is healthy after 3 s. It takes another 3 s for its first prompt, and 0.2 s for
//     each later prompt. codex takes 0.4 s per process, and gemini takes 2 to 4 s per
//     process.
package realagent

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/tempdir"
)

// World is an isolated home for agent programs. The programs do not change any files outside
// of it.
type World struct {
	Model *modelserver.Server // model server for all programs of this world
	Dir   string              // work directory, an empty git repository
	Env   []string            // complete environment of the programs, as NAME=VALUE

	root     string
	mark     string              // value of the marker variable
	argv     map[string][]string // commands of the requested programs
	opencode map[string]any      // configuration of opencode
	codex    string              // lines added to the configuration of codex
	servers  int                 // number of opencode servers started so far
	unwatch  func()              // stops the process that the function "watch" started
}

var say sync.Map // messages that have been printed to standard error

// New creates a world for the named programs: "opencode", "codex", "gemini", "claude",
// "claude-acp", "codex-acp", "conformance", "requester", "inspector". If a program is missing,
// New skips or fails the test. New registers a cleanup that removes the world. If a process of
// the world is still alive at that point, the cleanup kills it and fails the test. On Linux,
// no process is left behind even if the test dies without running its cleanup.
func New(t testing.TB, names ...string) *World {
	t.Helper()
	w := &World{mark: rand.Text(), argv: map[string][]string{}}
	w.look(t, names)
	// t.TempDir is not used, because its path is too long for the sockets of programs.
	root, err := os.MkdirTemp("", "bgagent-")
	if err != nil {
		t.Fatalf("realagent: %v", err)
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		t.Fatalf("realagent: %v", err)
	}
	w.root, w.Dir = root, filepath.Join(root, "work")
	if w.unwatch, err = watch(marker+"="+w.mark, root); err != nil {
		t.Fatalf("realagent: %v", err)
	}
	w.Model = modelserver.New(nil)
	t.Cleanup(func() { w.close(t) })
	for _, dir := range []string{"work", "home", "tmp", "config", "data", "cache", "state"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatalf("realagent: %v", err)
		}
	}
	w.Env = w.environment(names)
	w.opencode = w.opencodeConfig()
	for _, name := range names {
		if err := programs[name].set(w); err != nil {
			t.Fatalf("realagent: writing the configuration of %s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := w.Command(ctx, "git", "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("realagent: git init: %v\n%s", err, out)
	}
	return w
}

// The method "look" finds the programs. If a program is missing, the test is skipped or fails.
func (w *World) look(t testing.TB, names []string) {
	t.Helper()
	mode := os.Getenv("BGAGENT_REAL_AGENTS")
	switch {
	case mode == "skip":
		t.Skip("BGAGENT_REAL_AGENTS=skip: not run with real agent programs")
	case mode != "" && mode != "require":
		t.Fatalf("BGAGENT_REAL_AGENTS is %q; it may be require or skip", mode)
	case mode == "" && testing.Short():
		t.Skip("-short: not run with real agent programs")
	}
	for _, name := range names {
		p, ok := programs[name]
		if !ok {
			t.Fatalf("realagent: there is no program %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(programs)), ", "))
		}
		argv, err := p.find()
		if err == nil {
			w.argv[name] = argv
			continue
		}
		text := fmt.Sprintf("%s is not installed (%v); .ci/agents installs it", name, err)
		if mode == "require" {
			t.Fatalf("realagent: %s", text)
		}
		if _, again := say.LoadOrStore(text, true); !again {
			fmt.Fprintf(os.Stderr, "SKIPPED: tests with real agents: %s\n", text)
		}
		t.Skip(text)
	}
}

func (w *World) path(elem ...string) string {
	return filepath.Join(append([]string{w.root}, elem...)...)
}

// marker is the environment variable that identifies the processes of a world.
const marker = "BGAGENT_WORLD"

func (w *World) environment(names []string) []string {
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "TERM": "dumb", "LANG": "C.UTF-8", "TMPDIR": w.path("tmp"), "HOME": w.path("home"),
		"XDG_CONFIG_HOME": w.path("config"), "XDG_DATA_HOME": w.path("data"),
		"XDG_CACHE_HOME": w.path("cache"), "XDG_STATE_HOME": w.path("state"),
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
		marker: w.mark,
	}
	for _, name := range names {
		for k, v := range programs[name].env(w) {
			env[k] = v
		}
	}
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// Opencode returns the command line of opencode with the given arguments. Its first element is
// the path of the program. The command must be run in Dir with Env.
func (w *World) Opencode(args ...string) []string { return w.command("opencode", args) }

// Codex returns the command line of codex with the given arguments; see Opencode.
func (w *World) Codex(args ...string) []string { return w.command("codex", args) }

// Conformance returns the command line of the conformance package for the Model
// Context Protocol.
func (w *World) Conformance(args ...string) []string { return w.command("conformance", args) }

// Inspector returns the command line of the inspector for the Model Context Protocol. The
// arguments must include the command or URL of the server, and --method.
func (w *World) Inspector(args ...string) []string { return w.command("inspector", args) }

// Requester returns the path of Node.js and the node_modules folder. They are for scripts
// that use the reference requester for the tasks extension of the Model Context Protocol.
func (w *World) Requester() (node, modules string) {
	argv := w.command("requester", nil)
	return argv[0], argv[1]
}

// Gemini returns the command line of gemini with the given arguments; see Opencode. Its first
// element is node.
func (w *World) Gemini(args ...string) []string { return w.command("gemini", args) }

// Claude returns the command line of Claude Code with the given arguments; see Opencode.
func (w *World) Claude(args ...string) []string { return w.command("claude", args) }

// ClaudeACP returns the command line of the agent that speaks ACP for Claude Code. Its first
// element is the path of Node.js.
func (w *World) ClaudeACP(args ...string) []string { return w.command("claude-acp", args) }

// CodexACP returns the command line of the agent that speaks ACP for codex. Its first element
// is the path of Node.js.
func (w *World) CodexACP(args ...string) []string { return w.command("codex-acp", args) }

func (w *World) command(name string, args []string) []string {
	argv, ok := w.argv[name]
	if !ok {
		panic(fmt.Sprintf("realagent: New was not asked for %s", name))
	}
	return append(slices.Clone(argv), args...)
}

// Command returns a command that runs in the world's work directory with the world's
// environment and without input. The command runs in its own process group. When ctx ends,
// the process group is killed.
func (w *World) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = w.Dir, w.Env
	ownGroup(cmd)
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// OpencodeConfig edits the JSON configuration of opencode. The change affects opencode
// processes that start later.
func (w *World) OpencodeConfig(t testing.TB, edit func(config map[string]any)) {
	t.Helper()
	edit(w.opencode)
	if err := w.writeOpencode(); err != nil {
		t.Fatalf("realagent: writing the configuration of opencode: %v", err)
	}
}

// CodexConfig adds lines of TOML to the configuration of codex. The change affects codex
// processes that start later.
func (w *World) CodexConfig(t testing.TB, lines string) {
	t.Helper()
	w.codex += "\n" + lines + "\n"
	if err := w.writeCodex(); err != nil {
		t.Fatalf("realagent: writing the configuration of codex: %v", err)
	}
}

// Processes returns one line for each live process that has the world's marker in its
// environment or runs in the world's folder. It works on Linux only.
func (w *World) Processes() []string {
	var lines []string
	for _, p := range w.alive() {
		lines = append(lines, fmt.Sprintf("%d %s", p.pid, p.command))
	}
	return lines
}

func (w *World) alive() []process { return processesWith(marker+"="+w.mark, w.root) }

// The method "close" checks that no process of the world is left, and then removes the world.
func (w *World) close(t testing.TB) {
	for _, p := range untilGone(w.alive) {
		t.Errorf("realagent: process %d is left alive after the test: %s", p.pid, p.command)
		p.kill()
	}
	untilGone(w.alive)
	w.Model.Close()
	if t.Failed() {
		for _, r := range w.Model.Unknown() {
			t.Logf("realagent: the model server has no answer for %s", r)
		}
	}
	w.unwatch()
	if err := tempdir.Remove(w.root); err != nil {
		t.Errorf("realagent: removing the world: %v", err)
	}
}

// untilGone calls the function "look" again and again, for at most 3 s, until this function has
// found no process twice in a row. One empty result is not enough, because the function can miss a
// process that starts during a call. untilGone returns the remaining processes. It has to wait,
// because a killed process stays in the process table for a moment.
func untilGone(look func() []process) []process {
	left, none := look(), 0
	for end := time.Now().Add(3 * time.Second); none < 2 && time.Now().Before(end); left = look() {
		if none++; len(left) > 0 {
			none = 0
			time.Sleep(20 * time.Millisecond)
		}
	}
	return left
}
