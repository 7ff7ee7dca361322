// Package fleet builds session clients and a manager from settings. All subcommands
// that run agents share it.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/answers"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
	"github.com/bgagent/bgagent/command"
)

// Fleet holds the configured agents and their clients. No agent program is started
// before a task runs or Check is called. The methods are safe for concurrent use,
// except that Close must be the last call.
type Fleet struct {
	set      *settings.Settings
	agents   map[string]settings.Agent
	route    map[string]string // maps each agent's name to the name of its client
	clients  map[string]bgagent.SessionClient
	closers  []func(context.Context) error
	answers  *answers.Keeper // nil if long answers are not kept
	secrets  transcript.Secrets
	logs     *transcript.Keeper       // nil if the output of programs is not kept in memory
	files    *transcript.Files        // nil if the output of programs is not written to files
	inTurn   func(mark string) string // nil if no agent has the kind "command"
	maxDepth int                      // result of MaxDepth
	options  Options
}

// Options are settings of a fleet that do not come from the configuration files.
type Options struct {
	// Instance is the id of this run of the program. The processes of its agents have the id in their
	// environment. The id can be empty.
	Instance string

	// Logger logs the clients' problems. If it is nil, they are not logged.
	Logger *slog.Logger

	// KeepLogs keeps the output of each task's programs until [Fleet.Log] is called.
	KeepLogs bool

	// NobodyAnswers immediately refuses all questions of the agents, because nobody can see and answer them.
	NobodyAnswers bool

	// OnlyModelsAnswer immediately refuses the questions that a model is not allowed to answer, because no
	// person can see and answer them.
	OnlyModelsAnswer bool

	// MaxCost limits the total cost of all tasks under a root session, in US dollars. If the configuration
	// files contain a smaller limit, that limit applies. 0 means no additional limit.
	MaxCost float64
}

// Log returns the output of a task's programs and removes it from the fleet. It returns nil if the
// programs printed nothing, or if output is not kept.
func (f *Fleet) Log(task string) *transcript.Log {
	if f.logs == nil {
		return nil
	}
	return f.logs.Take(task)
}

// The method "printed" passes the output of a task's program on to the places where output is kept.
func (f *Fleet) printed(task string, stream int, p []byte) {
	if f.logs != nil {
		f.logs.Printed(task, stream, p)
	}
	if f.files != nil {
		f.files.Printed(task, stream, p)
	}
}

// LogTo writes the output of each task's programs to files in the folder while the programs run. The function
// "warn" is called with the first error. Call LogTo before the first task runs.
func (f *Fleet) LogTo(dir string, warn func(error)) *transcript.Files {
	f.files = transcript.NewFiles(dir, &f.secrets, warn)
	return f.files
}

// KeepAnswers keeps the whole text of long answers in k until [Fleet.Answer] is
// called. Call it before Manager.
func (f *Fleet) KeepAnswers(k *answers.Keeper) { f.answers = k }

// readTime limits how long it can take to read a long answer from a server.
const readTime = time.Minute

// Answer returns the whole answer of an ended task whose result was cut. It returns nil if the result is
// whole or if no more than the result was kept. Call it once for each task, and close the answer.
func (f *Fleet) Answer(t bgagent.Task) *answers.Answer {
	if f.answers == nil {
		return nil
	}
	if a := f.answers.Take(t); a != nil || !t.Cut {
		return a
	}
	reader, ok := f.clients[f.route[t.Agent]].(bgagent.TurnStarter)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTime)
	defer cancel()
	return f.answers.Message(ctx, reader, t)
}

// New builds the clients. It does not start programs or make requests. The error joins all clients'
// errors about the settings, each with file, line and key.
func New(set *settings.Settings, options Options) (*Fleet, error) {
	f := &Fleet{set: set, options: options, agents: map[string]settings.Agent{}, route: map[string]string{}, clients: map[string]bgagent.SessionClient{}}
	for _, a := range set.Agents {
		f.agents[a.Name] = a
		addSecrets(&f.secrets, a)
	}
	if options.KeepLogs {
		f.logs = transcript.New(&f.secrets)
	}
	var cfg bgagent.Config
	set.Limits.Apply(&cfg)
	if depth, err := Depth(); err == nil { // Manager returns the error
		f.maxDepth = max(levels(&cfg)-depth, 0)
	}
	err := errors.Join(f.addInProc(), f.addCommands(), f.addACP(), f.addOpencode())
	if err != nil {
		return nil, err
	}
	return f, nil
}

// add adds a client to the fleet, with the agents that run on it.
func (f *Fleet) add(name string, c bgagent.SessionClient, agents []settings.Agent) {
	f.clients[name] = c
	for _, a := range agents {
		f.route[a.Name] = name
	}
}

// The method "of" returns the agents of the kind.
func (f *Fleet) of(kind settings.Kind) (out []settings.Agent) {
	for _, a := range f.set.Agents {
		if a.Kind == kind {
			out = append(out, a)
		}
	}
	return out
}

// Agents returns the names and descriptions of the agents.
func (f *Fleet) Agents() []bgagent.AgentInfo {
	out := make([]bgagent.AgentInfo, 0, len(f.set.Agents))
	for _, a := range f.set.Agents {
		out = append(out, bgagent.AgentInfo{Name: a.Name, Description: a.Description})
	}
	return out
}

// maxCostPeriod is the period over which [Options.MaxCost] counts. It is longer than any run.
const maxCostPeriod = 365 * 24 * time.Hour

// Manager makes a manager that runs tasks on the fleet. Its configuration is cfg, with two exceptions: the
// limits in the settings override the limits in cfg, and the fleet provides the clients, models and
// permissions. Close the manager first, then the fleet.
//
// If this program is running inside a task that is as deep as the settings allow, the error
// matches [bgagent.ErrDepth]. This prevents agents from launching agents without limit.
func (f *Fleet) Manager(cfg bgagent.Config) (*bgagent.BackgroundManager, error) {
	f.set.Limits.Apply(&cfg)
	if cfg.Slots != nil { // the source of slots applies the limits
		cfg.Limits = bgagent.Limits{}
	}
	cfg.Ask = cfg.Ask && !f.options.NobodyAnswers
	cfg.OnlyModelsAnswer = f.options.OnlyModelsAnswer
	if most := f.options.MaxCost; most > 0 && (cfg.TreeBudget.Cost == 0 || most < cfg.TreeBudget.Cost) {
		cfg.TreeBudget.Cost = most
	}
	if f.options.MaxCost > 0 && cfg.BudgetPeriod <= 0 { // without a period, the tree's budget would begin again after all tasks have ended
		cfg.BudgetPeriod = maxCostPeriod
	}
	depth, err := Depth()
	if err != nil {
		return nil, err
	}
	if depth > 0 {
		cfg.MaxDepth = levels(&cfg) - depth
		if cfg.MaxDepth < 1 {
			return nil, fmt.Errorf("starting at depth %d (%s): %w; background_task.maxDepth allows more", depth, command.DepthVariable, bgagent.ErrDepth)
		}
	}
	return f.manager(cfg)
}

// The function "levels" returns how many levels of tasks the configuration allows under a root session.
func levels(cfg *bgagent.Config) int { return max(cfg.MaxDepth, bgagent.DefaultMaxDepth) }

// MaxDepth returns how many levels of tasks are allowed under one of the manager's root sessions: the levels
// that the settings allow, minus the depth of the task that this program is running in. It returns 0 if this
// program is too deep for [Fleet.Manager].
func (f *Fleet) MaxDepth() int { return f.maxDepth }

// TaskInTurn returns the id of the task whose current turn started a program with this mark; see
// [Turn]. It returns "" if no running turn has the mark, or if one program serves several sessions.
func (f *Fleet) TaskInTurn(mark string) string {
	if f.inTurn == nil {
		return ""
	}
	return f.inTurn(mark)
}

// Idle makes a manager for a program that is too deep for [Fleet.Manager]. The tool
// delegate_task must not be offered with this manager.
func (f *Fleet) Idle() (*bgagent.BackgroundManager, error) { return f.manager(bgagent.Config{}) }

func (f *Fleet) manager(cfg bgagent.Config) (*bgagent.BackgroundManager, error) {
	cfg.Clients = f.clients
	cfg.ClientFor = func(agent string) string { return f.route[agent] }
	cfg.Model = func(agent, asked string) (string, error) {
		if asked != "" {
			return asked, nil
		}
		return f.agents[agent].Model, nil
	}
	cfg.AgentPermissions = func(agent string) []bgagent.Permission { return f.agents[agent].Permissions }
	return bgagent.New(roster{f}, cfg)
}

// Depth returns the depth of the task that this program is running in, or 0 if there is none. The depth is
// in an environment variable, which an agent program can remove from the environment of the programs that
// it starts. Therefore, on Linux, Depth also reads the environments of the programs above this one.
func Depth() (int, error) {
	text := os.Getenv(command.DepthVariable)
	if text == "" {
		text = inherited(command.DepthVariable)
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("the environment variable %s is %q; it must be a whole number or unset", command.DepthVariable, text)
	}
	return n, nil
}

// Turn returns the mark of the turn that this program is running in, or "" if there is none or the mark is
// unknown. Like the depth, the mark can be found on Linux even if an agent program does not pass on its
// environment.
func Turn() string { return cmp.Or(os.Getenv(command.TurnVariable), inherited(command.TurnVariable)) }

// closeTime limits how long clients can take to terminate their programs.
const closeTime = 10 * time.Second

// Close terminates the programs of all clients. It returns when all programs have ended, when ctx ends, or
// after 10 s.
func (f *Fleet) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	errs := make(chan error, len(f.closers))
	for _, c := range f.closers {
		go func() { errs <- c(ctx) }()
	}
	var all []error
	for range f.closers {
		select {
		case err := <-errs:
			all = append(all, err)
		case <-ctx.Done(): // do not wait for a client that ignores ctx
			return errors.Join(append(all, ctx.Err())...)
		}
	}
	return errors.Join(all...)
}

// roster is the client for agents that are not configured. Its error lists the configured agents.
type roster struct{ f *Fleet }

// CreateSession implements [bgagent.SessionClient].
func (r roster) CreateSession(_ context.Context, s bgagent.SessionSpec) (string, error) {
	return "", &bgagent.NoSuchAgentError{Agent: s.Agent, Known: r.f.set.Names()}
}

// Abort implements [bgagent.SessionClient].
func (r roster) Abort(context.Context, string) error { return nil }

// RunTurn implements [bgagent.TurnRunner].
func (r roster) RunTurn(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return bgagent.TurnEnd{}, bgagent.ErrNoSession
}

// Agents implements [bgagent.AgentLister].
func (r roster) Agents(context.Context) ([]bgagent.AgentInfo, error) { return r.f.Agents(), nil }

// messagesMost is the number of messages after which Messages reads no more pages of a session.
const messagesMost = 10_000

// Messages reads the conversation of a task's session from the agent's server. If the conversation
// is very long, only the beginning is returned. If the agent's client cannot read sessions, the
// error matches [errors.ErrUnsupported]. If the client does not find the session, the error matches
// [bgagent.ErrNoSession]. If the agent is not configured, the error is a [*bgagent.NoSuchAgentError].
func (f *Fleet) Messages(ctx context.Context, t bgagent.Task) (all []bgagent.Message, err error) {
	cl, known := f.clients[cmp.Or(t.Client, f.route[t.Agent])]
	reader, ok := cl.(bgagent.MessageReader)
	switch {
	case t.Session == "":
		return nil, fmt.Errorf("task %s has no session", t.ID)
	case !known:
		return nil, &bgagent.NoSuchAgentError{Agent: t.Agent, Known: f.set.Names()}
	case !ok:
		return nil, fmt.Errorf("the conversations of the agent %s cannot be read from outside: %w", t.Agent, errors.ErrUnsupported)
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for after := bgagent.Cursor(""); len(all) < messagesMost; {
		page, err := reader.Messages(ctx, t.Session, after, 0)
		switch {
		case errors.Is(err, bgagent.ErrNoSession):
			return nil, fmt.Errorf("the conversation of task %s cannot be read here; only the process that ran the task has it, or it was deleted: %w", t.ID, err)
		case err != nil:
			return nil, fmt.Errorf("reading the session of task %s: %w", t.ID, err)
		}
		all, after = append(all, page.Messages...), page.Next
		if !page.More {
			break
		}
	}
	return all, nil
}
