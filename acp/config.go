package acp

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
)

// Defaults of [Config].
const (
	DefaultStartTimeout = 20 * time.Second // real agents need 2 to 4 s on an idle machine
	DefaultCancelGrace  = 5 * time.Second  // real agents need about 0.1 s; half of what the manager gives an abort
	DefaultCloseGrace   = 3 * time.Second
	DefaultMaxHistory   = 1 << 20 // bytes
)

// Config says which agent to run, and what it may do. Only Command is required.
type Config struct {
	// Command is the program and its arguments, such as "opencode", "acp". It is
	// run as it is, without a shell, and is looked up in the host's PATH.
	Command []string

	// Dir is where the program runs, and the working directory of sessions that
	// have none of their own. Empty means the host's.
	Dir string

	// Env is what the agent gets of the host's environment, besides what every
	// program needs (PATH, HOME, locale, proxies, certificates …): NAME passes
	// the host's value on, NAME* those of all that begin so, NAME=value sets
	// another. Nothing else is passed on.
	Env []string

	// Auth is the id of the authentication method that the agent is to use, such
	// as "gemini-api-key". Empty means that it needs none.
	Auth string

	// Agents are the names that tasks may use, and what they mean. When it is
	// empty every name means the agent as it is.
	Agents map[string]Agent

	// Model is used where neither the task nor its agent has one. Empty means the
	// agent's own.
	Model string

	// Permit answers what the agent asks permission for, so far as the rules of
	// the session ([bgagent.Permission]) neither allow nor deny it. ctx ends with
	// the turn, and the answer is refused then. Nil means that everything is
	// refused. It is called from many goroutines.
	Permit func(ctx context.Context, q PermissionRequest) PermissionAnswer

	// Files says which of its session's files the agent may read and write
	// through the client. What it does without asking cannot be prevented.
	Files FileAccess

	// Terminal decides whether the agent may run a command through the client:
	// nil runs it, an error is the reason why not. A nil Terminal means that the
	// agent is told that there are no terminals. It is called from many goroutines.
	Terminal func(ctx context.Context, q TerminalRequest) error

	// MCPServers returns the MCP servers for a session. It is called before the
	// session is created; nil means none.
	MCPServers func(s bgagent.SessionSpec) []MCPServer

	// Instance names this life of the host: every process of the agent has it in
	// its environment, as BGAGENT_INSTANCE, so that what was left can be found and
	// ended when the host was killed. It should be new at each start, such as a
	// random text. It may have letters, digits, and the characters - _ . and at
	// most 128 of them. Empty means that processes have no such mark.
	Instance string

	// StartTimeout is how long the agent may take to start, and to create or load
	// a session. Zero means DefaultStartTimeout.
	StartTimeout time.Duration

	// CancelGrace is how long a turn may go on after it was told to stop. Then
	// the agent process is ended as soon as no other turn runs in it. Zero means
	// DefaultCancelGrace.
	CancelGrace time.Duration

	// CloseGrace is the time between SIGTERM and SIGKILL for an agent process
	// that is ended. Zero means DefaultCloseGrace.
	CloseGrace time.Duration

	// MaxHistory is how many bytes of each session's conversation are kept for
	// Messages; of a longer one the beginning is dropped. Zero means
	// DefaultMaxHistory.
	MaxHistory int

	// Printed is given what the agent's program writes to standard error, as it is
	// and as it comes, once for each task that has a turn in the process, with the
	// id of the task; the stream is 2. Standard output is the protocol, and is not
	// told. It is for logs: nothing is taken out. It is called from many goroutines;
	// p is valid only during the call, and the program waits while it lasts. Nil
	// means that nobody is told.
	Printed func(task string, stream int, p []byte)

	// Logger gets what the agent does wrong, without anything of a prompt or an
	// answer. Nil means nothing is logged.
	Logger *slog.Logger
}

// Agent is what a name of an agent stands for.
type Agent struct {
	Description string // one line, for those who choose
	Mode        string // id of the session mode, such as "plan"; empty means the agent's own
	Model       string // used for tasks without a model; empty means Config.Model
}

// MCPServer is an MCP server that the agent connects to: a command that it
// starts, or a URL.
type MCPServer struct {
	Name    string
	Command []string          // program and arguments; empty with URL
	Env     map[string]string // of the command
	URL     string            // of a server with streamable HTTP; empty with Command
	Headers map[string]string // sent to URL
}

// withDefaults checks the configuration and fills it in.
func (cfg Config) withDefaults() (Config, error) {
	if len(cfg.Command) == 0 || cfg.Command[0] == "" {
		return cfg, wrong("Config.Command", `it is empty; give the program and its arguments, such as "opencode", "acp"`)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return cfg, fmt.Errorf("acp: finding the working directory: %w", err)
	}
	cfg.Dir = dir
	for _, e := range cfg.Env {
		switch name, _, _ := strings.Cut(e, "="); {
		case name == "" || strings.ContainsRune(e, 0):
			return cfg, wrong("Config.Env", fmt.Sprintf("the entry %q has no name; write NAME, NAME* or NAME=value", e))
		case procs.IsMark(name):
			return cfg, wrong("Config.Env", name+" is set by the client itself; take it out")
		}
	}
	if err := procs.CheckInstance(cfg.Instance); err != nil {
		return cfg, wrong("Config.Instance", err.Error())
	}
	for name := range cfg.Agents {
		if strings.TrimSpace(name) == "" {
			return cfg, wrong("Config.Agents", "one of the names is empty; give each agent a name")
		}
	}
	if cfg.Files > FilesReadWrite {
		return cfg, wrong("Config.Files", fmt.Sprintf("%d is none of FilesNone, FilesRead and FilesReadWrite", cfg.Files))
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"StartTimeout", &cfg.StartTimeout, DefaultStartTimeout},
		{"CancelGrace", &cfg.CancelGrace, DefaultCancelGrace},
		{"CloseGrace", &cfg.CloseGrace, DefaultCloseGrace},
	} {
		if *d.value < 0 {
			return cfg, wrong("Config."+d.name, fmt.Sprintf("%v is negative; zero means %v", *d.value, d.def))
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	switch {
	case cfg.MaxHistory < 0:
		return cfg, wrong("Config.MaxHistory", fmt.Sprintf("%d is negative; zero means %d bytes", cfg.MaxHistory, DefaultMaxHistory))
	case cfg.MaxHistory == 0:
		cfg.MaxHistory = DefaultMaxHistory
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Command, cfg.Env = slices.Clone(cfg.Command), slices.Clone(cfg.Env)
	return cfg, nil
}

func wrong(field, problem string) error {
	return &bgagent.InputError{Field: "acp." + field, Problem: problem}
}
