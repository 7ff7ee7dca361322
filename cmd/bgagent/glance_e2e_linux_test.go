package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// step is a host's tool call, which waits until its gate is open.
type step struct {
	gate string
	args map[string]any
}

func delegation(gate, agent, description, prompt string) step {
	return step{gate, map[string]any{"subagent_type": agent, "description": description, "prompt": "@key " + description + "\n" + prompt}}
}

// Titles of the tasks.
const (
	migration = "plan the migration"
	schema    = "read the schema"
	archive   = "ask the archive"
	cleaning  = "clean the build"
	login     = "mend the login test"
	summary   = "write the summary"
)

var laters = []string{"review the API", "review the tests", "review the build", "review the pages"}

// hostSteps returns the delegations of each host program.
func hostSteps() map[string][]step {
	claude := []step{delegation("", "asker", cleaning, `@tool bash {"command":"echo cleaned >cleaned","description":"cleans"}`+"\n@say it is clean")}
	for _, title := range laters {
		claude = append(claude, delegation("full", "reviewer", title, "@say "+title+": nothing to say"))
	}
	return map[string][]step{
		"opencode": {delegation("", "boss", migration, "Plan it."), delegation("room", "writer", summary, "Write it.")},
		"codex":    {delegation("", "limited", archive, "@error 429 retry-after=3600 too many requests"), delegation("room", "fixer", login, "@hang Reading the third of seven files.")},
		"claude":   claude,
	}
}

// glance is a scene: three host programs share one serve process. A script plays the model.
type glance struct {
	t     *testing.T
	w     *realagent.World
	p     *place
	url   string
	gates map[string]chan struct{}
	hosts map[string]chan string // outputs of the hosts once they have exited
}

// The method "reply" acts as the model for the hosts, and for those tasks that need more than a script.
func (g *glance) reply(r modelserver.Request) modelserver.Reply {
	if r.Kind != modelserver.Main {
		return r.Scripted()
	}
	name, isHost := hostOf(r)
	switch {
	case isHost:
		return g.host(name, r)
	case r.Key == migration && r.Turn() == 0 && strings.Contains(r.LastUser(), migration):
		d := delegation("", "worker", schema, "@error 400 the schema is missing")
		d.args["run_in_background"] = false
		return use("mcp__bgagent__delegate_task", d.args)
	case r.Key == migration:
		return modelserver.Say("There is no plan: the worker has failed.")
	case r.Key == summary:
		return modelserver.Reply{Pieces: func(yield func(string) bool) {
			for yield("and on ") {
				select {
				case <-g.gates["end"]:
					yield("to the end")
					return
				case <-r.Context().Done():
					return
				case <-time.After(time.Second):
				}
			}
		}}
	}
	return r.Scripted()
}

func use(tool string, args map[string]any) modelserver.Reply {
	raw, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	return modelserver.Use(tool, string(raw))
}

// hostOf returns the name of the host program that made the request.
func hostOf(r modelserver.Request) (string, bool) {
	_, rest, found := strings.Cut(r.LastUser(), hostWord+" ")
	name := regexp.MustCompile(`^\w*`).FindString(rest)
	return name, found
}

// The method "host" acts as the model for a host program. It delegates tasks. Once the gate "end" is open, it
// waits until each of the host's tasks has ended.
func (g *glance) host(name string, r modelserver.Request) modelserver.Reply {
	tool := map[string]string{"opencode": "bgagent_"}[name]
	if tool == "" {
		tool = "mcp__bgagent__"
	}
	open := func(gate string) {
		select {
		case <-g.gates[gate]:
		case <-r.Context().Done():
		}
	}
	steps, results := hostSteps()[name], resultsOf(r)
	n := len(results)
	if n < len(steps) {
		open(steps[n].gate)
		return use(tool+"delegate_task", steps[n].args)
	}
	open("end")
	if n -= len(steps); n == len(steps) {
		return modelserver.Say("the host is done")
	}
	id := idIn.FindStringSubmatch(results[n])
	if id == nil {
		return modelserver.Refuse(400, "there is no id in "+results[n])
	}
	return use(tool+"background_output", map[string]any{"task_id": id[1], "block": true, "timeout": 600_000})
}

// start starts the serve and the hosts.
func (g *glance) start() {
	w := g.w
	w.Env = append(w.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	server := w.ServeOpencode(g.t)
	remote := func(agent, model string) map[string]any {
		return map[string]any{"kind": "opencode", "url": server.URL, "agent": agent, "model": model, "directory": w.Dir}
	}
	program := func(preset string, command []string) map[string]any {
		return map[string]any{"kind": "command", "preset": preset, "command": command, "env": w.Env}
	}
	boss := program("claude", w.Claude())
	boss["permissions"] = map[string]string{"mcp__bgagent__delegate_task": "allow"}
	config, err := json.Marshal(map[string]any{
		"background_task": map[string]any{"totalConcurrency": 3, "maxDepth": 2, "ask": true, "staleTimeoutMs": 1_800_000, "createTimeoutMs": 240_000},
		"agents": map[string]any{
			"boss": boss, "worker": program("codex", w.Codex()), "fixer": program("codex", w.Codex()), "reviewer": program("codex", w.Codex()),
			"limited": remote("oracle", "scripted/other"), "asker": remote("asker", realagent.OpencodeModel), "writer": remote("worker", realagent.OpencodeModel),
		},
	})
	require.NoError(g.t, err)
	g.p.write(".bgagent.jsonc", string(config))
	g.url, _ = startServe(g.t, g.p, "--root", w.Dir, "--page-acts")

	via := []string{"mcp", "--via", g.url}
	w.OpencodeConfig(g.t, func(c map[string]any) {
		c["mcp"] = map[string]any{"bgagent": map[string]any{"type": "local", "command": append([]string{"bgagent"}, via...), "enabled": true, "timeout": 660_000}}
	})
	args, err := json.Marshal(via)
	require.NoError(g.t, err)
	w.CodexConfig(g.t, "[mcp_servers.bgagent]\ncommand = \"bgagent\"\nargs = "+string(args)+"\ntool_timeout_sec = 660\n")
	out, err := w.Command(g.t.Context(), w.Claude(append([]string{"mcp", "add", "bgagent", "--", "bgagent"}, via...)...)...).CombinedOutput()
	require.NoError(g.t, err, string(out))
	for name, argv := range map[string][]string{
		"opencode": w.Opencode("run", hostWord+" opencode"),
		"codex":    w.Codex("exec", "--json", "--skip-git-repo-check", hostWord+" codex"),
		"claude":   w.Claude("-p", "--allowedTools=mcp__bgagent", hostWord+" claude"),
	} {
		ended := make(chan string, 1)
		g.hosts[name] = ended
		cmd := w.Command(g.t.Context(), argv...)
		go func() {
			out, err := cmd.CombinedOutput()
			ended <- fmt.Sprint(string(out), err)
		}()
	}
}

// status returns what "bgagent status --json" prints.
func (g *glance) status() (st standing) {
	got := g.p.run("status", "--json")
	require.Equal(g.t, 0, got.code, got.stderr)
	for line := range strings.Lines(got.out) {
		var one standing
		require.NoError(g.t, json.Unmarshal([]byte(line), &one))
		if one.Command == "serve" {
			st = one
		}
	}
	return st
}

// task returns the task with the title, or the zero value if there is none.
func (g *glance) task(title string) bgagent.Task {
	for _, t := range g.p.keptTasks() {
		if t.Description == title {
			return t
		}
	}
	return bgagent.Task{}
}

// The method "until" waits until the condition is true. If it does not become true, the error shows the state
// of the tasks.
func (g *glance) until(what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().Before(deadline) {
			continue
		}
		for name, ended := range g.hosts {
			select {
			case out := <-ended:
				g.t.Logf("%s has ended: %s", name, out)
			default:
			}
		}
		logHost(g.t, g.w)
		require.Fail(g.t, "waited in vain for "+what, g.p.run("status").out)
	}
	g.t.Logf("%s: %s", time.Now().Format(time.TimeOnly), what)
}

// The method "shows" executes a command in an 80-column terminal. It fails the test unless the command prints
// the wanted words.
func (g *glance) shows(command string, want ...string) *screen {
	g.t.Helper()
	const cols = 80
	out, code := g.p.inTerminalOf(pty.Winsize{Rows: 60, Cols: cols}, func(*exec.Cmd, *output, *os.File) {}, command)
	require.Equal(g.t, 0, code, out)
	s := screenOf(out, cols)
	g.t.Logf("bgagent %s\n%s", command, s)
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		whole := utf8.RuneCountInString(line) <= cols || strings.HasPrefix(line, "    bgagent answer ") || !strings.Contains(strings.TrimSpace(line), " ")
		require.True(g.t, whole, "the terminal breaks it in the middle of a word: %s", line)
	}
	text := strings.Join(strings.Fields(out), " ")
	for _, words := range want {
		require.Regexp(g.t, words, text)
	}
	return s
}

// builtBrowserTests builds the page's browser tests in the background. The returned function waits for the
// build and returns the path of the program.
func builtBrowserTests(t *testing.T) func() string {
	path := filepath.Join(tempdir.New(t), "e2e.test")
	built := make(chan string, 1)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", path, ".")
	cmd.Dir = browserTests
	go func() {
		out, _ := cmd.CombinedOutput()
		built <- string(out)
	}()
	return func() string {
		out := <-built
		require.FileExists(t, path, out)
		return path
	}
}

// browserTests is the folder of the module with the page's browser tests. They are in a separate module, so
// that this module does not depend on the library that controls the browser.
const browserTests = "../../dashboard/e2e"

// looksAtThePage runs the page's browser test.
func (g *glance) looksAtThePage(program string) {
	g.t.Helper()
	args := []string{"-test.v", "-test.run", "^TestAGlanceAtThePageOfThreeHosts$", "-e2e.page", strings.TrimSuffix(g.url, "mcp")}
	if *keepPicture {
		args = append(args, "-e2e.pictures")
	}
	cmd := exec.CommandContext(g.t.Context(), program, args...)
	cmd.Dir = browserTests
	out, err := cmd.CombinedOutput()
	require.NoError(g.t, err, string(out))
}

// Three host programs share a server on which at most three tasks run. An 80-column terminal, the page, and
// the page on a phone must show at a glance which tasks are running, which are stuck and since when, which
// failed and why, what they cost, and what they wait for.
func TestThreeHostsShareOneServerAndAGlanceIsEnough(t *testing.T) {
	g := &glance{t: t, w: realagent.New(t, "opencode", "codex", "claude"), p: newPlace(t), gates: map[string]chan struct{}{}, hosts: map[string]chan string{}}
	for _, name := range []string{"", "room", "full", "end"} {
		g.gates[name] = make(chan struct{})
	}
	close(g.gates[""])
	browser := builtBrowserTests(t)
	isTask := func(r modelserver.Request) bool { return r.Kind == modelserver.Main && r.Key != "" }
	isLater := func(r modelserver.Request) bool { return r.Kind == modelserver.Main && slices.Contains(laters, r.Key) }
	key := func(r modelserver.Request) string { return r.Key }
	g.w.Model.Handle(modelserver.Together(3, isLater, key, g.reply))
	g.start()

	phase := func(title string, want bgagent.Phase) bool { return g.task(title).Phase == want }
	g.until("the failure two levels down", func() bool { return g.task(schema).Status == bgagent.Failed })
	g.until("the end of the task above it", func() bool { return g.task(migration).Status == bgagent.Completed })
	g.until("the refused task is parked", func() bool { return phase(archive, bgagent.PhaseParked) })
	g.until("a question", func() bool { return len(g.task(cleaning).Questions) == 1 })
	close(g.gates["room"])
	g.until("three tasks run", func() bool {
		return g.status().Running == 3 && phase(login, bgagent.PhaseTurn) && phase(summary, bgagent.PhaseTurn)
	})
	close(g.gates["full"])
	g.until("the other tasks are queued", func() bool { return g.status().Queued == len(laters) })
	g.until("the task that hangs is marked", func() bool { return strings.Contains(g.p.run("status").out, "silent for") })

	const id = `bg_[0-9a-z]{16} `
	status := g.shows("status",
		` 3 running, 4 queued, 1 parked; in the last 24 hours: 1 completed, 1 failed, 0 cancelled; latest attempts: \d+ tokens in, \d+ out, \$0\.\d\d `,
		` pool total: 3 of 3 in use, 5 waiting `,
		id+`running writer \S+ write the summary `,
		id+`running fixer \S+ mend the login test silent for \d+m\d+s `,
		id+`asking asker \S+ clean the build may I: bash echo cleaned >cleaned `,
		id+`parked limited \S+ ask the archive .*rate limit, status 429.*too many requests.* until (\S+ )?\d\d:\d\d:\d\d `,
		id+`queued reviewer - review the API for \S+, place 1; total: 3 of 3 in use `,
		id+`error worker \S+ read the schema \S+ ago: codex: the schema is missing `,
	)
	require.NotContains(t, status.String(), "plan the migration", "completed tasks are only counted")
	g.shows("tasks", id+`running writer \S+ write the summary `, id+`asking asker \S+ clean the build `, id+`parked limited \S+ ask the archive `,
		id+`queued reviewer - review the pages `, id+`error worker \S+ read the schema `, id+`completed boss \S+ plan the migration `)
	if *keepPicture {
		require.NoError(t, os.WriteFile("../../docs/images/glance.svg", []byte(status.from("  MCP: ").svg("bgagent status")), 0o644))
	}
	g.looksAtThePage(browser())
	require.LessOrEqual(t, g.w.Model.MaxOpen(isTask, key), 3)
	g.goOn()
	require.Equal(t, 3, g.w.Model.MaxOpen(isTask, key), "no more than three tasks run at the same time, and three do")
}

// The method "goOn" answers the question, and cancels the tasks that cannot continue. It fails the test
// unless each host learns how its own tasks ended.
func (g *glance) goOn() {
	q := g.task(cleaning).Questions[0]
	g.p.does("answer", g.task(cleaning).ID, q.Key, q.Options[0])
	g.p.does("cancel", g.task(login).ID, "--reason", "it hangs")
	g.p.does("cancel", g.task(archive).ID)
	close(g.gates["end"])
	for name, ended := range g.hosts {
		select {
		case out := <-ended:
			require.Contains(g.t, out, "the host is done", name)
		case <-time.After(5 * time.Minute):
			require.Fail(g.t, "a host program did not exit", name)
		}
	}
	told := map[string]string{} // each host's latest results
	for _, r := range g.w.Model.Requests() {
		if name, isHost := hostOf(r); isHost && r.Kind == modelserver.Main {
			told[name] = strings.Join(resultsOf(r), "\n")
		}
	}
	require.Contains(g.t, told["opencode"], "and on to the end")
	require.Contains(g.t, told["opencode"], "There is no plan: the worker has failed.")
	require.Contains(g.t, told["codex"], "it hangs")
	require.Contains(g.t, told["claude"], "it is clean")
	for _, title := range laters {
		require.Contains(g.t, told["claude"], title+": nothing to say")
	}
	require.FileExists(g.t, filepath.Join(g.w.Dir, "cleaned"), "the answer has reached the task")
	failed, above := g.task(schema), g.task(migration)
	require.Equal(g.t, above.Session, failed.Parent)
	require.Equal(g.t, 2, failed.Depth)
	roots := map[string]bool{}
	for _, t := range g.p.keptTasks() {
		roots[t.Root] = true
	}
	require.Len(g.t, roots, 3, "each host has its own scope")
}
