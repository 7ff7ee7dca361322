package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// atMost is the time limit for one step of a test on a busy machine.
const atMost = 2 * time.Minute

// binary is the path of the program, which is built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bgagent-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "bgagent")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		os.Exit(1)
	}
	flag.Parse()
	// The limit is greater than the number of processors, because parallel tests spend most of their time waiting.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8")
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// place is a user's home directory, with a project in it.
type place struct {
	t       *testing.T
	project string
	path    string // PATH
	env     []string
}

// newPlace returns a new place with an empty project. It skips the calling test under the race detector,
// because the program that the tests start is built without the race detector.
func newPlace(t *testing.T) *place {
	if race.Enabled {
		t.Skip("the program is built without the race detector")
	}
	home, err := filepath.EvalSymlinks(tempdir.New(t))
	require.NoError(t, err)
	p := &place{t: t, project: filepath.Join(home, "src", "project"), path: "/usr/bin:/bin"}
	require.NoError(t, os.MkdirAll(p.project, 0o755))
	p.env = []string{"HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "TMPDIR=" + home, "TERM=xterm-256color"}
	return p
}

// write writes a file in the project and returns its path.
func (p *place) write(name, text string) string {
	path := filepath.Join(p.project, name)
	require.NoError(p.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(p.t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

// The method "user" writes the user's configuration file.
func (p *place) user(text string) {
	p.write("../../config/bgagent/bgagent.jsonc", text)
}

// command returns a command that runs the program in the project.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = p.project, append(p.env, "PATH="+p.path)
	return cmd
}

// outcome contains the program's exit code and output.
type outcome struct {
	code        int
	out, stderr string
}

// run runs the program until it exits.
func (p *place) run(args ...string) outcome { return p.feed("", args...) }

// The method "feed" starts the program with a text as its standard input, and waits until the
// program exits.
func (p *place) feed(input string, args ...string) outcome {
	p.t.Helper()
	cmd := p.command(args...)
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &problems
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(p.t, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), problems.String()}
}

// The method "index" reads the index of a results folder.
func (p *place) index(dir string) results.Index {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.project, dir, results.IndexName))
	require.NoError(p.t, err)
	// Only the fields that tests need are read.
	var raw struct {
		Interrupted bool
		Ended       time.Time
		Tasks       []map[string]any
	}
	require.NoError(p.t, json.Unmarshal(b, &raw))
	x := results.Index{Interrupted: raw.Interrupted, Ended: raw.Ended}
	for _, m := range raw.Tasks {
		var e results.Entry
		require.NoError(p.t, e.Status.UnmarshalText([]byte(m["status"].(string))))
		e.Reason, _ = m["reason"].(string)
		e.File, _ = m["file"].(string)
		x.Tasks = append(x.Tasks, e)
	}
	return x
}

// output collects the output of a running program.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	new chan struct{}
}

func newOutput() *output { return &output{new: make(chan struct{}, 1)} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.new <- struct{}{}:
	default:
	}
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// await waits until a text has been printed.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(atMost)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.new:
		case <-timeout:
			t.Fatalf("%q was not printed, but\n%s", text, o)
		}
	}
}

// The type "running" is a program that was started.
type running struct {
	*exec.Cmd
	out *output
}

// start starts the program and collects its output.
func (p *place) start(args ...string) *running {
	p.t.Helper()
	r := &running{p.command(args...), newOutput()}
	r.Stdout, r.Stderr = r.out, r.out
	require.NoError(p.t, r.Start())
	p.t.Cleanup(func() { _ = r.Process.Kill(); _ = r.Wait() })
	return r
}

// interrupt sends the signal that Ctrl-C sends.
func (r *running) interrupt(t *testing.T) {
	t.Helper()
	require.NoError(t, r.Process.Signal(syscall.SIGINT))
}

// The method "code" waits until the program has exited and returns its exit code.
func (r *running) code() int {
	_ = r.Wait()
	return r.ProcessState.ExitCode()
}

func TestTheSampleRunsWithoutAnyFile(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("notes.txt", "todo: write this\n")
	got := p.run("run", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "there is no configuration file; no agent program was found on PATH (codex, claude, gemini, opencode), so only the demo agents are available")
	require.Contains(t, got.out, "8 completed in ")
	x := p.index("out")
	require.Len(t, x.Tasks, 8)
	for _, e := range x.Tasks {
		require.FileExists(t, filepath.Join(p.project, "out", e.File))
	}
	b, err := os.ReadFile(filepath.Join(p.project, "out", x.Tasks[1].File))
	require.NoError(t, err)
	require.Contains(t, string(b), "notes.txt:1: todo: write this")
}

func TestTheSampleLeavesNothingInTheDirectory(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	require.Equal(t, 0, p.run("run").code)
	files, err := os.ReadDir(p.project)
	require.NoError(t, err)
	require.Empty(t, files)
}

func TestAProgramOnPATHIsFoundAndNamed(t *testing.T) {
	p := newPlace(t)
	p.write("bin/codex", "#!/bin/sh\necho codex-cli 9.9.9\n")
	p.path = filepath.Join(p.project, "bin") + ":" + p.path
	got := p.run("agents")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "found on PATH: codex; the demo agents are available as well")
	require.Regexp(t, `codex +command codex +- +ok: .*/bin/codex codex-cli 9\.9\.9`, got.out)
}

func TestAListFromStandardInput(t *testing.T) {
	p := newPlace(t)
	got := p.feed(`[{"agent": "demo-wait", "prompt": "10 ms"}]`, "run", "-", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.out, "1 completed")
}

func TestFailedTasksAreReportedAndExitWithOne(t *testing.T) {
	p := newPlace(t)
	p.write("tasks.jsonc", `[{"agent": "demo-fail", "prompt": "no luck"}, {"agent": "demo-wait", "prompt": "1 ms"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.out, "as asked: no luck")
	require.Contains(t, got.out, "1 completed, 1 failed in ")
	b, err := os.ReadFile(filepath.Join(p.project, "out", p.index("out").Tasks[0].File))
	require.NoError(t, err)
	require.Equal(t, "error: as asked: no luck\n", string(b))
}

func TestLinesOfJSON(t *testing.T) {
	p := newPlace(t)
	got := p.feed(`[{"agent": "demo-wait", "prompt": "10 ms", "description": "short"}]`, "run", "-", "--json", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	var types, states []string
	for d := json.NewDecoder(strings.NewReader(got.out)); ; {
		var line struct {
			Type, Status, Description, File string
			Summary                         *struct{ Completed int }
		}
		err := d.Decode(&line)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		types = append(types, line.Type)
		if line.Type == "task" {
			require.Equal(t, "short", line.Description)
			states = append(states, line.Status)
		} else {
			require.Equal(t, 1, line.Summary.Completed)
		}
	}
	require.Equal(t, "summary", types[len(types)-1])
	require.Equal(t, "pending", states[0])
	require.Contains(t, states, "running")
	require.Equal(t, "completed", states[len(states)-1])
}

func TestAKilledRunLeavesAnIndexOfWhatHasEnded(t *testing.T) {
	p := newPlace(t)
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "prompt": "1 ms", "description": "quick"}, {"agent": "demo-fail", "prompt": "no luck"}, {"agent": "demo-wait", "prompt": "9 m"}]`)
	r := p.start("run", "tasks.jsonc", "--json", "-o", "out")
	r.out.await(t, `"status":"completed"`)
	r.out.await(t, `"status":"error"`)
	require.Eventually(t, func() bool {
		x := p.index("out")
		return x.Tasks[0].Status == bgagent.Completed && x.Tasks[1].Status == bgagent.Failed
	}, atMost, 10*time.Millisecond)
	require.NoError(t, r.Process.Kill())
	r.code()
	x := p.index("out")
	require.Zero(t, x.Ended)
	require.Equal(t, bgagent.Completed, x.Tasks[0].Status)
	require.FileExists(t, filepath.Join(p.project, "out", x.Tasks[0].File))
	require.Equal(t, bgagent.Pending, x.Tasks[2].Status)
	require.Empty(t, x.Tasks[2].File)
}

func TestOutputThatCannotBeWrittenIsReported(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no device that is always full:", err)
	}
	defer full.Close()
	p := newPlace(t)
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "prompt": "1 ms"}]`)
	for i, how := range []string{"--json", "--plain"} {
		out := fmt.Sprint("out", i)
		cmd := p.command("run", "tasks.jsonc", how, "-o", out)
		var problems bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &problems
		_ = cmd.Run()
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), how)
		require.Contains(t, problems.String(), "bgagent: writing the output: ")
		require.Contains(t, problems.String(), "no space left on device")
		require.Equal(t, bgagent.Completed, p.index(out).Tasks[0].Status, "the results are written anyway")
	}
}

func TestRunsOfTheSameSecondHaveAFolderEach(t *testing.T) {
	p := newPlace(t)
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "prompt": "1 ms"}]`)
	var all []*running
	for range 4 {
		all = append(all, p.start("run", "tasks.jsonc"))
	}
	for _, r := range all {
		require.Equal(t, 0, r.code(), r.out)
	}
	folders, err := filepath.Glob(filepath.Join(p.project, "bgagent-results-*"))
	require.NoError(t, err)
	require.Len(t, folders, 4)
}

func TestNothingIsOverwritten(t *testing.T) {
	p := newPlace(t)
	p.write("out/old.md", "mine")
	got := p.run("run", "-o", "out")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "is not empty (it has old.md), and nothing is overwritten; name a new folder")
	require.Empty(t, got.out)
}

func TestAFolderThatCannotBeMadeIsNamed(t *testing.T) {
	p := newPlace(t)
	p.write("file", "")
	got := p.run("run", "-o", "file/out")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "creating the folder for the results")
}

func TestTheCommandLineIsChecked(t *testing.T) {
	p := newPlace(t)
	for args, want := range map[string]string{
		"fly":                  "unexpected argument fly; the commands are\n  run ",
		"help fly":             "unexpected argument fly; the commands are\n  run ",
		"run --fast":           "unknown flag --fast; see bgagent run --help",
		"serve --bogus-flag":   "unknown flag --bogus-flag; see bgagent serve --help",
		"run a b":              "unexpected argument b; see bgagent run --help",
		"run --json --plain":   "--json and --plain can't be used together",
		"run none.jsonc":       "reading the list of tasks: open none.jsonc: no such file or directory",
		"-c none.jsonc run":    "none.jsonc: cannot be read: no such file or directory",
		"-c none.jsonc agents": "none.jsonc: cannot be read",
	} {
		got := p.run(strings.Fields(args)...)
		require.Equal(t, 2, got.code, args)
		require.Contains(t, got.stderr, want, args)
		require.Empty(t, got.out, args)
	}
}

func TestEmptyArgumentsAreRefused(t *testing.T) {
	p := newPlace(t)
	for want, args := range map[string][]string{
		"bgagent: the argument after --resume is empty; write a value, or leave it out\n": {"run", "--resume", ""},
		"bgagent: --output is empty; write a value, or leave it out\n":                    {"run", "--output="},
		"bgagent: the argument after run is empty; write a value, or leave it out\n":      {"run", ""},
		"bgagent: the name of the command is empty; see bgagent help\n":                   {""},
	} {
		got := p.run(args...)
		require.Equal(t, 2, got.code, args)
		require.Equal(t, want, got.stderr)
		require.Empty(t, got.out)
	}
}

func TestHelpListsTheCommandsAndTheirExitCodes(t *testing.T) {
	p := newPlace(t)
	got := p.run("help")
	require.Equal(t, 0, got.code)
	require.Equal(t, got.out, p.run("--help").out)
	require.Equal(t, got.out, p.run().out, "without arguments, it prints the help")
	for _, command := range []string{"run", "agents", "config", "mcp", "serve"} {
		require.Contains(t, got.out, "\n  "+command+" ")
		help := p.run("help", command)
		require.Equal(t, 0, help.code)
		require.Contains(t, help.out, "Exit codes: 0 ", command)
	}
}

// An agent that hangs does not delay the lines of other agents. The command names an agent that is still
// silent.
func TestAgentsPrintsEachAnswerAsItComes(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("hang.sh", "#!/bin/sh\nexec sleep 600\n")
	p.write("codex", "#!/bin/sh\necho codex-cli 1.2.3\n")
	p.write(".bgagent.jsonc", `{"agents": {
		"a-hangs": {"kind": "acp", "command": ["`+p.project+`/hang.sh"]},
		"b": {"kind": "command", "preset": "codex", "command": ["`+p.project+`/codex"]},
		"wait": {"kind": "inproc"},
	}}`)
	r := p.start("agents")
	r.out.await(t, "codex-cli 1.2.3\n")
	r.out.await(t, "part of this program")
	r.out.await(t, "bgagent: no answer yet from a-hangs\n")
	require.NotContains(t, r.out.String(), "a-hangs  acp")
	r.interrupt(t)
	require.Equal(t, 130, r.code())

	p.write(".bgagent.jsonc", `{"agents": {"b": {"kind": "command", "preset": "codex", "command": ["`+p.project+`/codex"]}}}`)
	got := p.run("agents")
	require.Equal(t, 0, got.code)
	require.Contains(t, got.stderr, "bgagent: logins are not checked, and no model was called")
}
