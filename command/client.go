package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
)

// Agent describes a command line that the client runs for tasks.
type Agent struct {
	Program     Program  // description of the program; see the presets
	Command     []string // executable and first arguments, such as {"npx", "codex"}; empty means Program.Executable
	Args        []string // further arguments, without placeholders
	Env         []string // NAME=value, or NAME to pass on the host's value; NAME can end with *
	Model       string   // model for tasks that do not name one; empty means the program's default
	Profile     string   // program's name for an agent or a set of settings; empty means the program's default
	Directory   string   // working directory for tasks that do not name one; empty means Config.Directory
	Description string   // description in [bgagent.AgentInfo]

	// LeaveRetries keeps the program from retrying a request that the provider refused. The program
	// reports the failure. The manager then parks the task, so that another task gets its slot, and
	// repeats the turn later. New returns an error if the program's own retries cannot be switched
	// off; see [Program].NoRetries.
	LeaveRetries bool
}

// Config is the configuration of a [Client]. [New] copies it.
type Config struct {
	// Agents maps agent names to command lines. At least one agent is required. The agent named
	// [Fallback] runs for all names that are not in the map.
	Agents map[string]Agent

	// Directory is the working directory of tasks that do not name one. Empty means the host's
	// working directory.
	Directory string

	// Instance identifies this run of the host. Every process of every turn has this value in its
	// environment as [InstanceVariable], so that processes of a killed host can be found and
	// terminated. Use a new value at each start, such as a random string. It can have at most 128
	// characters: letters, digits, hyphens, underscores and dots.
	//
	// If the manager has a store, the value of the variable also contains the manager's id, after a
	// slash. If the manager has a store and Instance is empty, the value is only the manager's id.
	// If the manager has no store and Instance is empty, the processes do not have the variable.
	Instance string

	// Grace limits how long a program can run after the signal that asks it to exit. When the time
	// is up, the program is killed. Processes that the program leaves running then get the same
	// time to exit. Zero means 3 s. Twice Grace should be less than the manager's StopTimeout of 10
	// s. A program is also asked to exit if it has reported the end of its turn but has not exited
	// within Grace.
	Grace time.Duration

	// MaxLine is the maximum number of bytes that are kept from an output line. Zero means 16 MiB. In a
	// longer line, every string longer than an eighth of MaxLine is cut to that length, and a note at
	// the end of the string states how many bytes are missing. If the line is still too long, it is
	// dropped. If the turn ends badly, the error mentions the dropped line.
	MaxLine int

	// Silence limits how long a program can run before its first output. If the program prints
	// nothing for this long, it is stopped and the turn fails. Zero means 10 min. Plain-text programs
	// have no such limit.
	Silence time.Duration

	// Logger logs output that was not understood, lost sessions, and processes that could not be
	// terminated. If Logger is nil, nothing is logged.
	Logger *slog.Logger

	// Printed receives the programs' unchanged output as it arrives. It is meant for logs. API keys
	// and escape sequences are not removed. The first two arguments of Printed are the id of the task
	// and the stream: 1 for standard output, 2 for standard error. Printed can be called
	// concurrently, but the calls for one stream of a task are made in order. The slice p is valid
	// only during the call, and the client does not read the program's output during the call.
	Printed func(task string, stream int, p []byte)

	// Keep is the maximum number of bytes of conversation text that are kept per session for
	// [Client.Messages]. Zero means 256 KiB. The newest turn is always kept, cut to that size.
	// Older turns are dropped as a whole.
	Keep int
}

// Fallback is the name in Config.Agents of the agent that runs if no other agent has the
// requested name.
const Fallback = "*"

const (
	defaultGrace   = 3 * time.Second
	defaultMaxLine = 16 << 20
	defaultKeep    = 256 << 10
	defaultSilence = 10 * time.Minute
)

// Client is the session client for programs. All methods are safe for concurrent use.
type Client struct {
	cfg Config

	mu       sync.Mutex
	sessions map[string]*session
	running  sync.WaitGroup
	closed   bool

	left    procs.Earlier // terminates processes of earlier hosts
	looking chan struct{} // semaphore with one value for each program that Lookup.Run runs

	afterBackground time.Duration // value of the constant afterBackground, unless a test has set another value
}

var (
	_ bgagent.TurnRunner       = (*Client)(nil)
	_ bgagent.MessageReader    = (*Client)(nil)
	_ bgagent.SessionFinder    = (*Client)(nil)
	_ bgagent.AgentLister      = (*Client)(nil)
	_ bgagent.SessionForgetter = (*Client)(nil)
	_ bgagent.CostReporter     = (*Client)(nil)
	_ bgagent.TokenReporter    = (*Client)(nil)
	_ bgagent.FallbackReporter = (*Client)(nil)
)

// session is one of the client's sessions, with the program that runs in it.
type session struct {
	agent  *Agent
	dir    string // working directory; empty means the host's working directory
	parent string
	depth  int
	talk   conversation

	// Client.mu guards the fields below.
	place string        // path of the working directory without symbolic links; set in the first turn
	own   string        // program's id for the session; empty until the program has reported it
	by    string        // id of the manager that last used the session through this client; empty if it has no store
	used  bgagent.Usage // usage of the whole session as the program counts it
	turns int           // number of turns so far
	run   *turn         // current turn; nil if no turn is running

	memory     any    // state that the decoder keeps from one turn to the next
	unanswered string // the session's prompts, kept while the field "answered" is false; see Program.ForgetsUnanswered
	answered   bool   // whether the agent has written text or called a tool in the session
	forgot     bool   // whether texts that the next turn might need were too long for the earlier process to save

	sent    []sent   // prompts given to the program's session, oldest first; never changed in place
	sentCut bool     // whether the oldest entries of the field "sent" are missing
	now     progress // progress of the last prompt
}

// ErrClosed is returned by CreateSession and RunTurn after Close has begun.
var ErrClosed = errors.New("command: the client is closed")

// New returns a client. The error is a [*bgagent.InputError] that names the invalid field.
// New does not check whether the programs exist; CreateSession does.
func New(cfg Config) (*Client, error) {
	bad := func(field, format string, args ...any) (*Client, error) {
		return nil, &bgagent.InputError{Field: "command.Config." + field, Problem: fmt.Sprintf(format, args...)}
	}
	if len(cfg.Agents) == 0 {
		return bad("Agents", "is empty; add at least one agent")
	}
	if cfg.Grace < 0 || cfg.MaxLine < 0 || cfg.Keep < 0 || cfg.Silence < 0 {
		return bad("Grace, MaxLine, Keep, Silence", "must not be negative; 0 is the default")
	}
	if err := procs.CheckInstance(cfg.Instance); err != nil {
		return bad("Instance", "%v", err)
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if cfg.MaxLine == 0 {
		cfg.MaxLine = defaultMaxLine
	}
	if cfg.Keep == 0 {
		cfg.Keep = defaultKeep
	}
	if cfg.Silence == 0 {
		cfg.Silence = defaultSilence
	}
	cfg.Agents = maps.Clone(cfg.Agents)
	for name, a := range cfg.Agents {
		if name == "" {
			return bad("Agents", "has an agent without a name; give each agent a name")
		}
		if err := a.Program.check(); err != nil {
			return bad("Agents["+strconv.Quote(name)+"]", "%v", err)
		}
		if err := checkEnv(a.Env); err != nil {
			return bad("Agents["+strconv.Quote(name)+"]", "%v", err)
		}
		if a.Profile != "" && a.Program.Profile == nil {
			return bad("Agents["+strconv.Quote(name)+"].Profile", "is %q; %s has no profiles", a.Profile, a.Program.Executable)
		}
		if problem := a.retriesProblem(); problem != "" {
			return bad("Agents["+strconv.Quote(name)+"].LeaveRetries", "%s", problem)
		}
		a.Command, a.Args, a.Env = slices.Clone(a.Command), slices.Clone(a.Args), slices.Clone(a.Env)
		if a.LeaveRetries {
			a.Env = append(a.Env, a.Program.NoRetries...)
		}
		cfg.Agents[name] = a
	}
	return &Client{cfg: cfg, sessions: map[string]*session{}, looking: make(chan struct{}, maxLooking), afterBackground: afterBackground}, nil
}

// retriesProblem returns the reason why LeaveRetries cannot be set. It returns "" if LeaveRetries
// can be set or is not set.
func (a Agent) retriesProblem() string {
	if !a.LeaveRetries {
		return ""
	}
	if a.Program.NoRetries == nil {
		return "is true; " + a.Program.Executable + " has no switch for this that works with every provider; docs/clients.md says what its arguments or settings can do"
	}
	through, set := splitEnv(a.Env)
	for _, switched := range a.Program.NoRetries {
		name, _, _ := strings.Cut(switched, "=")
		if lets(through, name) || slices.ContainsFunc(set, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			return "is true, and Agent.Env also sets " + name + "; remove one of them"
		}
	}
	return ""
}

// The method "log" logs a message about a session, together with the name of the session's program.
func (c *Client) log(level slog.Level, text string, s *session, args ...slog.Attr) {
	if c.cfg.Logger != nil {
		args = append(args, slog.String("program", s.agent.Program.Executable))
		c.cfg.Logger.LogAttrs(context.Background(), level, text, args...)
	}
}

func (c *Client) agentNames() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.cfg.Agents)), func(n string) bool { return n == Fallback })
}

// CreateSession implements [bgagent.SessionClient]. It does not start the program. It
// returns an error if the program or its working directory does not exist.
func (c *Client) CreateSession(_ context.Context, spec bgagent.SessionSpec) (string, error) {
	s, err := c.newSession(spec)
	if err != nil {
		return "", err
	}
	if _, err := findProgram(s.agent); err != nil {
		return "", err
	}
	if err := checkDirectory(s.dir); err != nil {
		return "", err
	}
	if s.dir != "" { // the path must not depend on the host's working directory, which might change
		if s.dir, err = filepath.Abs(s.dir); err != nil {
			return "", fmt.Errorf("command: the working directory %s: %w", s.dir, err)
		}
	}
	id := "cmd_" + strings.ToLower(rand.Text())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return "", ErrClosed
	}
	c.sessions[id] = s
	return id, nil
}

// agentOf returns the agent for the given name: the entry in Config.Agents, or the fallback.
func (c *Client) agentOf(name string) (a Agent, ok bool) {
	if a, ok = c.cfg.Agents[name]; !ok {
		a, ok = c.cfg.Agents[Fallback]
	}
	return a, ok
}

// ReportsCost implements [bgagent.CostReporter]. codex, gemini and programs that print plain text do
// not report the cost.
func (c *Client) ReportsCost(agent string) bool {
	a, ok := c.agentOf(agent)
	return !ok || a.Program.Decode != nil && !a.Program.NoCost
}

// ReportsTokens implements [bgagent.TokenReporter]. Programs that print plain text do not report
// tokens.
func (c *Client) ReportsTokens(agent string) bool {
	a, ok := c.agentOf(agent)
	return !ok || a.Program.Decode != nil && !a.Program.NoTokens
}

// ownFallback is the option that makes Claude Code fall back on its own.
const ownFallback = "--fallback-model"

// Fallback implements [bgagent.FallbackReporter]. A session can continue with another model,
// because its program is given the model in each turn. If Agent.Args or Agent.Command contains the
// option --fallback-model, the program is taken to be Claude Code, which falls back on its own.
func (c *Client) Fallback(agent string) bgagent.FallbackWay {
	a, _ := c.agentOf(agent)
	own := func(arg string) bool { return arg == ownFallback || strings.HasPrefix(arg, ownFallback+"=") }
	if slices.ContainsFunc(a.Args, own) || slices.ContainsFunc(a.Command, own) {
		return bgagent.FallbackByItself
	}
	return bgagent.FallbackInSession
}

// newSession returns a new session but does not add it to the client's sessions.
func (c *Client) newSession(spec bgagent.SessionSpec) (*session, error) {
	agent, ok := c.agentOf(spec.Agent)
	if !ok {
		return nil, &bgagent.NoSuchAgentError{Agent: spec.Agent, Known: c.agentNames()}
	}
	s := &session{agent: &agent, dir: spec.Directory, parent: spec.Parent, depth: spec.Depth, by: spec.Instance}
	for _, dir := range []string{agent.Directory, c.cfg.Directory} {
		if s.dir == "" {
			s.dir = dir
		}
	}
	s.talk.keep = c.cfg.Keep
	return s, nil
}

// findProgram returns the path of an agent's program.
func findProgram(a *Agent) (string, error) {
	name := a.Program.Executable
	if len(a.Command) > 0 {
		name = a.Command[0]
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return filepath.Abs(path) // a relative path would be resolved in the task's directory
	case errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("command: %s is not executable; make it executable: %w", name, err)
	case errors.Is(err, exec.ErrDot):
		return "", fmt.Errorf("command: %s was only found in the working directory; give its path: %w", name, err)
	case strings.ContainsAny(name, `/\`):
		return "", fmt.Errorf("command: there is no program %s; install it, or correct the path: %w", name, err)
	}
	return "", fmt.Errorf("command: the program %s is not in PATH; install it, or give its path in Agent.Command: %w", name, err)
}

func checkDirectory(dir string) error {
	if dir == "" {
		return nil
	}
	switch info, err := os.Stat(dir); {
	case err != nil:
		return fmt.Errorf("command: the working directory %s cannot be used; it must exist until the task has ended: %w", dir, err)
	case !info.IsDir():
		return fmt.Errorf("command: the working directory %s is a file; name a directory", dir)
	}
	return nil
}

// TaskInTurn returns the id of the task whose current turn started its program with this value of
// [TurnVariable]. It returns "" if no running turn has the value. If a process in a turn asks the
// host for something, for example over a socket, the host can use TaskInTurn to find out which task
// the process works for. If another host runs inside the turn, its own turns have different values.
func (c *Client) TaskInTurn(value string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		if value != "" && s.run != nil && s.run.mark == value {
			return s.run.prompt.Task
		}
	}
	return ""
}

// Abort implements [bgagent.SessionClient]. It stops the session's current turn and returns
// immediately. RunTurn returns when the program has stopped.
func (c *Client) Abort(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.run != nil {
		s.run.stop(errAborted)
	}
	return nil
}

// Close stops the programs of all turns, and waits until everything that they started has stopped.
// If ctx ends first, Close returns an error that wraps the cause of ctx. Close can be called again.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	for _, s := range c.sessions {
		if s.run != nil {
			s.run.stop(ErrClosed)
		}
	}
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("command: close: programs are still running: %w", context.Cause(ctx))
	}
}

// Agents implements [bgagent.AgentLister].
func (c *Client) Agents(context.Context) ([]bgagent.AgentInfo, error) {
	var list []bgagent.AgentInfo
	for _, name := range c.agentNames() {
		list = append(list, bgagent.AgentInfo{Name: name, Description: c.cfg.Agents[name].Description})
	}
	return list, nil
}

// FindSession implements [bgagent.SessionFinder].
func (c *Client) FindSession(_ context.Context, id string) (bgagent.SessionInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		return bgagent.SessionInfo{Parent: s.parent, Directory: s.dir}, nil
	}
	return bgagent.SessionInfo{}, noSession(id)
}

func noSession(id string) error {
	return fmt.Errorf("command: session %q: %w", id, bgagent.ErrNoSession)
}

// ForgetSession implements [bgagent.SessionForgetter]. It does not delete the program's own session
// files.
func (c *Client) ForgetSession(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.run == nil {
		delete(c.sessions, id)
	}
}

// ProgramSession returns the program's id for the session. A user can continue the session by hand
// with this id. The id is empty until the program has reported it. If the client does not know the
// session, the error wraps [bgagent.ErrNoSession].
func (c *Client) ProgramSession(id string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		return s.own, nil
	}
	return "", noSession(id)
}

// Messages implements [bgagent.MessageReader]. Every kept turn has a prompt and an answer. The
// answer of the current turn is the text that the agent has written so far.
func (c *Client) Messages(_ context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	c.mu.Lock()
	s := c.sessions[id]
	c.mu.Unlock()
	if s == nil {
		return bgagent.Page{}, noSession(id)
	}
	page, err := s.talk.page(after, most)
	if err != nil {
		return page, fmt.Errorf("command: session %q: %w", id, err)
	}
	return page, nil
}
