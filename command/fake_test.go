//go:build unix

package command

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// The fake program is the test binary itself. The first word of its prompt is an action. The
// program prints plain text, or JSON lines in the format of DecodeLines.
const (
	fakeKind = "COMMAND_FAKE"      // environment variable with the program's kind: "lines", "text" or "child"
	fakeHome = "COMMAND_FAKE_HOME" // environment variable with the directory for the program's sessions
)

func TestMain(m *testing.M) {
	if plan := os.Getenv(hostVariable); plan != "" {
		runHost(plan)
		os.Exit(0)
	}
	if kind := os.Getenv(fakeKind); kind != "" {
		switch kind {
		case "claude":
			playClaude()
			os.Exit(0)
		case "server":
			playServer()
			os.Exit(0)
		}
		f := &fake{kind: kind}
		f.run()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type fake struct {
	kind   string
	whole  string // whole input
	prompt string // input, or the new prompt at the end of a repeated conversation
}

func (f *fake) say(format string, args ...any) {
	fmt.Fprintf(os.Stdout, format+"\n", args...)
}

func (f *fake) message(text string) {
	if f.kind == "text" {
		f.say("%s", text)
		return
	}
	f.say(`{"type":"message","text":%s}`, jsonString(text))
}

func (f *fake) end() {
	if f.kind != "text" {
		f.say(`{"type":"end"}`)
	}
}

func block() { select {} }

func (f *fake) run() {
	if f.kind == "child" {
		if os.Args[1] == "stubborn" {
			signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		}
		fmt.Fprintln(os.NewFile(3, "ready"), "ready")
		time.Sleep(time.Hour)
	}
	if len(os.Args) > 1 && os.Args[len(os.Args)-1] == "--deaf" { // the program never reads its input
		f.message("I hear nothing")
		f.end()
		return
	}
	f.whole = f.readPrompt()
	f.prompt = f.whole
	if _, last, ok := strings.Cut(f.whole, "# You are asked now\n\n"); ok {
		f.prompt = last
	}
	if f.kind == "lines" && !strings.HasPrefix(f.prompt, "mute") && !strings.HasPrefix(f.prompt, "print") {
		f.say(`{"type":"session","id":%s}`, jsonString(f.session()))
	}
	verb, rest := f.prompt, ""
	if i := strings.IndexAny(verb, " \n"); i >= 0 {
		verb, rest = verb[:i], verb[i+1:]
	}
	f.do(verb, rest)
}

// readPrompt returns the arguments after --. Without --, it returns standard input.
func (f *fake) readPrompt() string {
	for i, a := range os.Args {
		if a == "--" {
			return strings.Join(os.Args[i+1:], " ")
		}
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	return string(in)
}

// The method "session" appends the prompt to the session's file and returns the session's id. If
// the old session does not exist, the method begins a new one, as codex does.
func (f *fake) session() string {
	id := "fake_" + strconv.Itoa(os.Getpid())
	home := os.Getenv(fakeHome)
	for _, a := range os.Args[1:] {
		if want, ok := strings.CutPrefix(a, "--session="); ok {
			if _, err := os.Stat(filepath.Join(home, want)); err == nil {
				id = want
			}
		}
	}
	file, err := os.OpenFile(filepath.Join(home, id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	_ = json.NewEncoder(file).Encode(f.prompt)
	return id
}

func (f *fake) first() (text string) {
	all, err := os.ReadFile(filepath.Join(os.Getenv(fakeHome), f.session()))
	if err != nil {
		panic(err)
	}
	line, _, _ := strings.Cut(string(all), "\n")
	_ = json.Unmarshal([]byte(line), &text)
	return text
}

func (f *fake) do(verb, rest string) {
	n, _ := strconv.Atoi(rest)
	switch verb {
	case "say":
		f.message("As you wish: " + rest)
	case "repeat":
		f.message(f.whole)
	case "recall":
		f.message(f.first())
	case "use":
		for _, state := range []string{"pending", "running", "done"} {
			f.say(`{"type":"tool","id":"1","name":"grep","state":%q}`, state)
		}
		f.message("used")
	case "describe":
		dir, _ := os.Getwd()
		b, _ := json.Marshal(described{Args: os.Args[1:], Env: os.Environ(), Dir: dir})
		f.message(string(b))
	case "pieces":
		for i := range n {
			f.say(`{"type":"text","text":"%d "}`, i)
		}
	case "big":
		f.message(strings.Repeat("x", n))
	case "many":
		f.say(`{"type":"activity","list":[%s0]}`, strings.Repeat("0,", n))
	case "print": // prints the rest of the prompt unchanged, and nothing else
		f.say("%s", rest)
		return
	case "refused": // says the rest of the prompt, and is then refused by the provider
		if rest != "" {
			f.message(rest)
		}
		f.say(`{"type":"error","status":429,"next":"continue","text":"slow down"}`)
		f.say(`{"type":"end","stop":"error","error":"the provider refused"}`)
		return
	case "printlater": // prints the part before | immediately, and the other part after the given number of milliseconds
		ms, text, _ := strings.Cut(rest, " ")
		now, later, _ := strings.Cut(text, "|")
		f.say("%s", now)
		n, _ = strconv.Atoi(ms)
		time.Sleep(time.Duration(n) * time.Millisecond)
		f.say("%s", later)
		return
	case "echo:": // prints the prompt and reports no end
		f.say("> %s", f.prompt)
		return
	case "fail":
		f.say(`{"type":"end","stop":"error","error":"as I was told"}`)
		os.Exit(1)
	case "stops":
		f.message("half an answer")
		f.say(`{"type":"end","stop":%q}`, rest)
		return
	case "slow":
		f.message("I wait")
		block()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		f.message("I stay")
		block()
	case "linger": // ends the turn but does not exit
		f.message("done, and " + rest)
		f.end()
		block()
	case "lingerpolite": // like linger, but reports a failure when it is asked to exit
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT)
		f.message("done")
		f.end()
		<-ch
		f.message("I was interrupted")
		f.say(`{"type":"end","stop":"error","error":"I was interrupted"}`)
		os.Exit(1)
	case "polite": // reports a failure when it is asked to exit
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT)
		f.message("I wait")
		fmt.Fprintln(os.Stderr, "got", <-ch)
		f.say(`{"type":"end","stop":"error","error":"I was interrupted"}`)
		os.Exit(1)
	default:
		f.misbehave(verb, rest, n)
		return
	}
	f.end()
}

type described struct {
	Args, Env []string
	Dir       string
}

func (f *fake) misbehave(verb, rest string, n int) {
	switch verb {
	case "exit", "mute":
		code, words, _ := strings.Cut(rest, " ")
		n, _ = strconv.Atoi(code)
		fmt.Fprintf(os.Stderr, "\x1b[91mlog: begin\x1b[0m\n%s\n", words)
		os.Exit(n)
	case "quit": // exits without reporting an end
		f.message("and then")
	case "killed":
		f.message("ah")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		block()
	case "muteblock":
		block()
	case "mutekilled":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		block()
	case "muteforever":
		for {
			f.say("garbage in, garbage out")
		}
	case "muteline":
		_, _ = io.Copy(os.Stdout, zeros{})
	case "mutegarbage":
		f.say("Welcome to another program!")
	case "flood": // writes more to both pipes than fits into them
		go func() { _, _ = io.CopyN(os.Stderr, zeros{}, int64(n)) }()
		_, _ = io.CopyN(os.Stdout, zeros{}, int64(n))
		f.say("")
		f.message("flooded")
		f.end()
	case "halfline":
		fmt.Fprint(os.Stdout, `{"type":"end"}`) // the line has no end
	case "child", "childslow":
		f.message(strconv.Itoa(spawn(rest)))
		if verb == "childslow" {
			block()
		}
		f.end()
	default:
		panic("the fake does not know " + verb)
	}
}

// The function "spawn" starts a process that keeps the pipes open. Once the process is running, the
// function returns its PID. The first word of the string "how" says where the process runs: "group"
// means in the program's process group; "escape" means in a new operating system session without
// the turn's mark; any other word means in a new session with the mark.
func spawn(how string) int {
	where, kind, _ := strings.Cut(how, " ")
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(os.Args[0], "child")
	if kind != "" {
		cmd.Args[1] = kind
	}
	cmd.Env = append(os.Environ(), fakeKind+"=child")
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{w}
	if where == "escape" {
		cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, TurnVariable+"=") })
	}
	if where != "group" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		panic(err)
	}
	return cmd.Process.Pid
}

// fakeAgent returns an agent that runs the fake program.
func fakeAgent(t testing.TB, p Program) Agent {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	kind := "lines"
	if p.Decode == nil {
		kind = "text"
	}
	return Agent{Program: p, Command: []string{self}, Env: []string{fakeKind + "=" + kind, fakeHome + "=" + tempdir.New(t), "GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + tempdir.New(t)}}
}

// clientOf returns a client with one agent, under the name "a". It closes the client when
// the test ends.
func clientOf(t testing.TB, a Agent, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Agents: map[string]Agent{"a": a}, Grace: 5 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c
}

func linesClient(t testing.TB, change ...func(*Config)) *Client {
	t.Helper()
	return clientOf(t, fakeAgent(t, Lines("fake")), change...)
}

func create(t testing.TB, c *Client) string {
	t.Helper()
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "a", Depth: 1})
	require.NoError(t, err)
	return id
}

// The function "play" runs a turn in a session.
func play(t testing.TB, c *Client, session, prompt string) (bgagent.TurnEnd, error) {
	t.Helper()
	return c.RunTurn(t.Context(), session, bgagent.Prompt{Text: prompt}, nil)
}

// begun is a turn that runs in its own goroutine.
type begun struct {
	texts chan string // pieces of the agent's text
	done  chan struct{}
	end   bgagent.TurnEnd
	err   error
}

func begin(ctx context.Context, c *Client, session, prompt string) *begun {
	b := &begun{texts: make(chan string, 100), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.end, b.err = c.RunTurn(ctx, session, bgagent.Prompt{Text: prompt}, bgagent.NewReporter(func(r bgagent.Report) {
			if r.Kind == bgagent.ReportText {
				b.texts <- r.Text
			}
		}))
	}()
	return b
}

// failure returns err as the error of a failed turn.
func failure(t testing.TB, err error) *TurnError {
	t.Helper()
	var e *TurnError
	require.ErrorAs(t, err, &e)
	return e
}

// The function "runs" reports whether the process with the given PID is running. A zombie or a
// process that is exiting is not running. After a kill, such a process stays in the process table
// for a moment.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	// The fields follow the name, which is in brackets. The state is the 1st field, the flags are
	// the 7th, and the number of threads is the 18th.
	const exiting = 0x4 // PF_EXITING
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	threads, _ := strconv.Atoi(fields[17])
	return fields[0] != "Z" && fields[0] != "X" && (flags&exiting == 0 || threads > 1)
}
