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
	DefaultStartTimeout = 20 * time.Second // agents need 2 to 4 s on an idle machine
	DefaultSilence      = 10 * time.Minute // models can think for minutes, and some agents report nothing during this time
	DefaultCancelGrace  = 5 * time.Second  // agents need about 0.1 s; the rest of bgagent.DefaultStopTimeout is for terminating the process
	DefaultCloseGrace   = 3 * time.Second
	DefaultMaxHistory   = 1 << 20 // bytes
)

// Config describes the agent to run and its permissions. Only Command is required.
type Config struct {
	// Command is the program followed by its arguments, such as {"opencode", "acp"}. The
	// program is looked up in the host's PATH and runs without a shell.
	Command []string

	// Dir is the working directory of the program, and of sessions that do not name a directory.
	// Empty means the host's working directory.
	Dir string

	// Env adds variables to the agent's environment. An entry NAME passes on the host's
	// variable with that name. NAME* passes on all of the host's variables with that
	// prefix. NAME=value sets a variable. The variables that every program needs (PATH,
	// HOME, locale, proxies, certificates …) are always passed on. No other variables are
	// passed on.
	Env []string

	// Auth is the id of the authentication method to use, such as "gemini-api-key". Empty means
	// that the agent does not need authentication.
	Auth string

	// Agents maps the agent names that tasks may use to their settings. If the map is empty, tasks
	// may use any name, and the agent uses its own settings whatever the name is.
	Agents map[string]Agent

	// Model is the model for a task if neither the task nor its agent names one. Empty means the
	// agent's own model.
	Model string

	// Permit answers the agent's permission requests that the session's rules ([bgagent.Permission])
	// neither allow nor deny. If the turn ends before Permit returns, ctx ends and the request is refused.
	// If Permit is nil, the task asks a question, as with PermissionAnswer.Ask. Permit can be called
	// concurrently.
	Permit func(ctx context.Context, q PermissionRequest) PermissionAnswer

	// Files is the access that the agent gets, through the client, to files in the session's
	// directory. It does not limit the access that the agent has by other means.
	Files FileAccess

	// Terminal decides whether the agent may run a command through the client. If Terminal returns
	// nil, the command runs. If it returns an error, the command is refused, and the error is the
	// reason. If Terminal is nil, the client does not offer terminals to the agent. Terminal can be
	// called concurrently.
	Terminal func(ctx context.Context, q TerminalRequest) error

	// MCPServers returns the MCP servers for a session. It is called before the session is created,
	// and by RestoreSession. Nil means that sessions have no MCP servers.
	MCPServers func(s bgagent.SessionSpec) []MCPServer

	// Instance identifies this run of the host. Every agent process has this value in its
	// environment as BGAGENT_INSTANCE, so that processes of a killed host can be found and
	// terminated. Use a new value at each start, such as a random string. It can have at most 128
	// characters: letters, digits, hyphens, underscores and dots.
	//
	// If the manager has a store, the value of the variable also contains the manager's id, after a
	// slash. If the manager has a store and Instance is empty, the value is only the manager's id.
	// If the manager has no store and Instance is empty, the processes do not have the variable.
	Instance string

	// StartTimeout limits how long the agent can take to start, or to create or load a session.
	// Zero means DefaultStartTimeout.
	StartTimeout time.Duration

	// Silence limits how long an agent can work on a prompt before it sends its first update or
	// request. If the agent stays silent longer, the turn is cancelled and fails. After the first
	// update or request, the manager's StaleTimeout applies instead. Zero means DefaultSilence.
	Silence time.Duration

	// CancelGrace is how long the client waits for a turn to stop after it cancels the turn. After
	// that, the agent process is terminated as soon as no other turn is running in it. Zero means
	// DefaultCancelGrace.
	CancelGrace time.Duration

	// CloseGrace is the time between SIGTERM and SIGKILL when an agent process is terminated. Zero
	// means DefaultCloseGrace.
	CloseGrace time.Duration

	// MaxHistory is the maximum number of bytes of each session's conversation that are kept for
	// Messages. If a conversation is longer, its beginning is dropped. Zero means
	// DefaultMaxHistory.
	MaxHistory int

	// Printed receives the unchanged standard error output of the agent's program as it arrives. It
	// is meant for logs. Each piece is reported once for every task with a turn in the process;
	// stream is always 2. Standard output carries the protocol and is not reported. Printed can be
	// called concurrently. The slice p is valid only during the call, and the client does not read
	// the program's standard error during the call.
	Printed func(task string, stream int, p []byte)

	// Logger logs the agent's faults, but never the text of prompts or answers. If Logger is nil,
	// nothing is logged.
	Logger *slog.Logger
}

// Agent has the settings for one name in [Config].Agents.
type Agent struct {
	Description string // one line that helps to choose an agent
	Mode        string // id of the session mode, such as "plan"; empty means the agent's own mode
	Model       string // model for tasks that do not name one; empty means Config.Model
}

// MCPServer is an MCP server that the agent connects to. Either Command or URL is set.
type MCPServer struct {
	Name    string
	Command []string          // program that the agent starts, and its arguments
	Env     map[string]string // environment variables for Command
	URL     string            // address of a server with streamable HTTP
	Headers map[string]string // HTTP headers for URL
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
		if err := procs.CheckEnv(e); err != nil {
			return cfg, wrong("Config.Env", err.Error())
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
		{"Silence", &cfg.Silence, DefaultSilence},
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
