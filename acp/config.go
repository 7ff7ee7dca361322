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
	DefaultCancelGrace  = 5 * time.Second  // real agents need about 0.1 s; half of what the manager allows for an abort
	DefaultCloseGrace   = 3 * time.Second
	DefaultMaxHistory   = 1 << 20 // bytes
)

// Config says which agent to run, and what it may do. Only Command is required.
type Config struct {
	// Command is the program and its arguments, such as "opencode", "acp". It runs
	// without a shell and is looked up in the host's PATH.
	Command []string

	// Dir is the working directory of the program, and of sessions that have none of
	// their own. Empty means the host's working directory.
	Dir string

	// Env says what the agent gets from the host's environment, besides what every
	// program needs (PATH, HOME, locale, proxies, certificates …). NAME passes on
	// one variable, NAME* passes on all variables with that prefix, and NAME=value
	// sets a value. Nothing else is passed on.
	Env []string

	// Auth is the id of the authentication method that the agent must use, such
	// as "gemini-api-key". Empty means that it needs none.
	Auth string

	// Agents are the agent names that tasks may use, and their meanings. If it is
	// empty, every name means the agent as it is.
	Agents map[string]Agent

	// Model is used if neither the task nor its agent has one. Empty means the
	// agent's own.
	Model string

	// Permit answers the agent's permission requests that the rules of the session
	// ([bgagent.Permission]) neither allow nor deny. ctx ends with the turn, and the
	// request is refused then. Nil refuses everything. It is called from many
	// goroutines at a time.
	Permit func(ctx context.Context, q PermissionRequest) PermissionAnswer

	// Files says which files of its session the agent may read and write through
	// the client. It cannot prevent what the agent does without asking.
	Files FileAccess

	// Terminal decides whether the agent may run a command through the client. If
	// it returns nil, the command runs; an error is the reason for the refusal. If
	// Terminal is nil, the agent is told that there are no terminals. It is called
	// from many goroutines at a time.
	Terminal func(ctx context.Context, q TerminalRequest) error

	// MCPServers returns the MCP servers for a session. It is called before the
	// session is created. Nil means none.
	MCPServers func(s bgagent.SessionSpec) []MCPServer

	// Instance identifies this run of the host. Every process of the agent carries
	// it in its environment as BGAGENT_INSTANCE, so that what a killed host has left
	// can be found and ended. It should be new at each start, such as a random text.
	// It may contain letters, digits, and the characters - _ and ., at most 128 in all.
	// Empty means that processes carry no such mark.
	Instance string

	// StartTimeout is how long the agent may take to start, and to create or load
	// a session. Zero means DefaultStartTimeout.
	StartTimeout time.Duration

	// CancelGrace is how long a turn may continue after it was told to stop. After
	// that, the agent process is ended as soon as no other turn runs in it. Zero
	// means DefaultCancelGrace.
	CancelGrace time.Duration

	// CloseGrace is the time between SIGTERM and SIGKILL for an agent process
	// that is ended. Zero means DefaultCloseGrace.
	CloseGrace time.Duration

	// MaxHistory is how many bytes of each session's conversation are kept for
	// Messages. If a conversation is longer, its beginning is dropped. Zero means
	// DefaultMaxHistory.
	MaxHistory int

	// Printed gets what the agent's program writes to standard error, unchanged and
	// as it comes, for logs. It is called once for each task with a turn in the
	// process; stream is always 2. Standard output carries the protocol and is not
	// reported. It is called from many goroutines at a time. p is valid only during
	// the call, and the program waits while the call lasts. Nil reports nothing.
	Printed func(task string, stream int, p []byte)

	// Logger gets the agent's faults, without any text of a prompt or an answer. Nil
	// logs nothing.
	Logger *slog.Logger
}

// Agent is the meaning of an agent name.
type Agent struct {
	Description string // one line, to help choose an agent
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

// withDefaults checks the configuration and fills in the defaults.
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
			return cfg, wrong("Config.Env", name+" is set by the client itself; remove it")
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
		return cfg, wrong("Config.Files", fmt.Sprintf("%d is unknown; use FilesNone, FilesRead or FilesReadWrite", cfg.Files))
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
