package bgagent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/procs"
)

// Unlimited means "no limit" as the value of a number in [Config] or [Limits].
const Unlimited = -1

// Disabled switches off a time limit or a wait in [Config].
const Disabled time.Duration = -1

// The defaults of [Config]. DefaultConcurrency, DefaultMaxToolCalls,
// DefaultRepeatedCalls, DefaultPollInterval, DefaultMinIdleTime,
// DefaultMinStabilityTime, DefaultStablePolls, DefaultStaleTimeout and
// DefaultTimeToLive have the same values as in the TypeScript original of this package,
// because hosts and users know these values. The other defaults were chosen to fit them.
const (
	DefaultConcurrency      = 5   // number of slots in a pool
	DefaultMaxDepth         = 1   // tasks are not allowed to delegate
	DefaultMaxTasksPerRoot  = 100 // number of live tasks
	DefaultMaxToolCalls     = 4000
	DefaultRepeatedCalls    = 20 // number of identical tool calls in a row
	DefaultPollInterval     = 2 * time.Second
	DefaultMinIdleTime      = 5 * time.Second
	DefaultMinStabilityTime = 10 * time.Second
	DefaultStablePolls      = 3
	DefaultTodoHold         = 30 * time.Second // short, because agents forget to mark todos as completed
	DefaultStaleTimeout     = 3 * time.Minute
	DefaultSessionGone      = 60 * time.Second // a session can seem gone while its server restarts
	DefaultHostUnreachable  = 5 * time.Minute  // longer than a server restart takes
	DefaultTimeToLive       = 30 * time.Minute
	DefaultStopTimeout      = 10 * time.Second // a call to Abort took up to 170 ms in measurements
	DefaultCreateTimeout    = 30 * time.Second // sending a first prompt took up to 4 s in measurements
	DefaultCallTimeout      = 10 * time.Second
	DefaultStatusTimeout    = 5 * time.Second
	DefaultStoreTimeout     = 30 * time.Second
	DefaultRetention        = 30 * time.Minute       // the same value as DefaultTimeToLive
	DefaultRetainTasks      = 10_000                 // the records need a few megabytes, without their texts
	DefaultRetainText       = 64 << 20               // number of bytes
	DefaultNoticeWindow     = 100 * time.Millisecond // too short for a user to notice
	DefaultNoticeMaxWait    = 5 * time.Minute
	DefaultMaxPark          = 6 * time.Hour // longer than the usage windows of common plans
	DefaultFallbackAfter    = 10 * time.Minute
	DefaultRestartWithin    = 1 * time.Hour // a deploy or a reboot takes less time
	DefaultReadConcurrency  = 32            // number of sessions that are read concurrently, per client
)

const (
	noticeTries         = 20                             // number of failed deliveries after which delivery is abandoned
	noticePushes        = 3                              // maximum number of processes that push the same notice
	noticeGiveUp        = 24 * time.Hour                 // age of a due notice at which its delivery is abandoned
	noticeBackoffMax    = 1 * time.Hour                  // longest pause between two attempts to deliver a notice
	staleGrace          = 30 * time.Second               // period at the start of a turn during which the turn cannot become stale
	sessionGonePolls    = 3                              // number of answered polls in a row that must report a session as gone
	streamBeatMax       = 30 * time.Second               // how long a stream still counts as complete after its latest event
	tombstonesGo        = 250                            // number of tombstones that are dropped together
	tombstones          = 40*tombstonesGo + tombstonesGo // maximum number of evicted tasks whose ids are remembered; dropping old ids always leaves the newest 10,000
	maxResult           = 256 << 10                      // maximum size of a kept result, in bytes
	maxResultUnreadable = 1 << 20                        // maximum size of a kept result, in bytes, if the session cannot be read again
	pastAttempts        = 20                             // number of earlier attempts kept per task
	titleMax            = 200                            // maximum number of bytes of a description
	reasonBytes         = 1000                           // maximum number of bytes of a reason; enough for the end of a program's standard error

	// durationMax replaces every longer duration, so that the sum of a duration and a
	// time cannot overflow. Longer durations occur because programs write
	// math.MaxInt64 for "never".
	durationMax = 50 * 365 * 24 * time.Hour
)

// Limits limits the number of sessions that are in a turn at the same time. For each model, one
// limit applies: the model's own limit if there is one, otherwise the limit of its provider,
// otherwise the default. 0 means "not set", and [Unlimited] means no limit. Names are compared
// after they are trimmed and changed to lower case.
//
// Total and Agent are caps in addition to that limit: a turn begins only if the limit
// and all caps allow one more turn. A task that waits for its own tasks does not count
// towards any limit or cap.
//
// A task without a model counts under the name of its agent, as if each agent were a
// separate model. For example, if Default is 2, two agents can run four turns at the
// same time. Total is one cap for all agents together.
type Limits struct {
	// Model holds the limits of models. The key "provider/model" stands for that model from that
	// provider. A key without a slash stands for that model id from any provider.
	Model map[string]int
	// Provider holds the limits of providers. The provider of a model is the part
	// before the first slash of its name. All of a provider's models that do not have their own
	// limit share the provider's limit.
	Provider map[string]int
	// Default is the limit of each model without an entry in Model or Provider. These
	// models do not share the limit: each model may use the full limit. 0 means
	// [DefaultConcurrency].
	Default int

	// Total is the cap on the number of sessions that are in a turn, across all pools. 0 means no
	// cap.
	Total int
	// Agent holds a cap for each agent: the maximum number of its sessions that are in a turn,
	// whatever their models are. For a task without a model, the entry of its agent replaces
	// Default.
	Agent map[string]int
	// If Fair is set, a pool serves the waiting root sessions in rotation and gives
	// each of them one slot per round. Otherwise, a pool serves all tasks in order of arrival. With
	// Fair, a task's place in line is its place among the tasks of the same root session. If
	// SetLimits switches Fair on or off, the change also applies to tasks that are already waiting.
	Fair bool
}

// Config configures a [BackgroundManager]. The zero value works. New makes a copy of the
// Config. A duration of 0 means the default. [Disabled] switches a limit or a wait off, but
// only in the fields whose comments mention it. A default changes if it would contradict a
// duration that is set. For example, if PollInterval is set to a long duration, the default of
// HostUnreachable is three times that duration.
type Config struct {
	// Limits holds the limits of the manager's own ConcurrencyManager.
	Limits Limits
	// Concurrency, if set, replaces the manager's own ConcurrencyManager. With it,
	// several managers or other code can share slots. Limits must then be empty.
	Concurrency *ConcurrencyManager
	// Slots, if set, grants the manager's slots in place of a ConcurrencyManager. If several
	// processes share the source, limits apply across all of them. Limits and Concurrency must be
	// empty if Slots is set. If the source loses an attempt's slot, the attempt ends with
	// [CauseSlotLost] and its session is stopped. If an attempt has not begun to use the lost slot,
	// because the store has not yet answered, it waits for another slot instead. Tree budgets still
	// apply to each manager separately. Unless the source is a [CoolDownSource], cool-downs after a
	// provider's refusals also apply to each manager separately: other managers notice a provider's
	// limit only when the provider refuses their own turns. The task that probes whether the
	// provider accepts requests again might have to wait in line at the source. Until this task has
	// begun, the other pools that cool down together with its pool do not grant slots either.
	Slots SlotSource

	// Store makes tasks outlive the process. If Store is nil, tasks are kept only in
	// memory. With a store, an effect of the manager becomes visible only after the change
	// that caused it is durable. The store contains prompts and answers as plain text.
	Store Store
	// StoreTimeout is how long calls such as Launch, Resume and TakeNotice wait for the store. If all
	// writes fail for this long, an [EventStoreTrouble] reports the failure. Default 30 s.
	StoreTimeout time.Duration
	// Instance identifies this run of the manager in the store and in the environment of agents'
	// processes. It must be new at each start, because the next manager terminates the processes of
	// the earlier instance. New refuses an Instance that an earlier manager of the same store used.
	// If a client also has a field with the name Instance, both fields must have the same value.
	// The value may have at most 128 characters: letters, digits, hyphens, underscores and dots. If
	// Instance is empty, New makes a random id.
	Instance string
	// OnRestart reports whether an interrupted turn of the agent is continued with a new
	// prompt. A turn is interrupted if the process ends during the turn. If OnRestart
	// returns false, the attempt ends as interrupted. If OnRestart is nil, turns are
	// continued.
	OnRestart func(agent string) bool
	// RestartWithin limits the gap between the earlier process and this one. After a longer gap, the
	// manager no longer begins turns of the earlier process's tasks: a task that would begin a turn
	// ends as interrupted instead. It can then be resumed. Default 1 h; Disabled for no limit.
	RestartWithin time.Duration
	// InterruptRestored ends the tasks of an earlier process instead of continuing them. A task
	// that would begin a turn ends as interrupted, even if it was pending, and however short the
	// gap between the processes was. It can then be resumed. If the session of a task already
	// contains an answer, the answer is still read.
	InterruptRestored bool
	// RestoreContext returns a context for a task of an earlier process. Host calls for the task
	// get the values of this context, because a store cannot keep context values. If RestoreContext
	// returns an error, the task ends. If RestoreContext is nil, these host calls get no values.
	// RestoreContext must not call methods that call [BackgroundManager.Start], because Start waits
	// until RestoreContext returns.
	RestoreContext func(ctx context.Context, t Task) (context.Context, error)

	// Clients holds further session clients by name. The client that is passed to New
	// has the empty name.
	Clients map[string]SessionClient
	// ClientFor returns the name of the client that runs an agent. If ClientFor is nil,
	// the client that is passed to New runs all agents.
	ClientFor func(agent string) string
	// Model returns the model for an agent. It gets the model that the caller requested, or an
	// empty string. The returned model is passed to the client, and Limits apply to it. If Model
	// returns an error, the launch is refused. If Model is nil, the requested model is used.
	Model func(agent, asked string) (string, error)
	// Permissions holds rules for every session. AgentPermissions returns rules for one
	// agent. These rules come after Permissions and therefore override them. A rule is
	// refused if its name cannot be the name of a tool, because the rule would never
	// apply.
	Permissions      []Permission
	AgentPermissions func(agent string) []Permission

	// PrepareLaunch completes the input of a launch, for example its working directory,
	// system prompt or metadata. It is called before the input is checked. It is also called for
	// launches that a model makes with a tool. The task is launched with the returned input. If
	// PrepareLaunch returns an error, the launch is refused. If PrepareLaunch is nil, the input is
	// used as it is.
	PrepareLaunch func(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error)

	// ToolNames maps the usual name of a tool to the name under which models know the
	// tool, if the two differ. An empty name means that models do not have the tool.
	// Notices, digests and the tools' texts use these names.
	ToolNames map[string]string
	// OptionalTools lists the usual names of the optional tools that all models have. The
	// only optional tool is [ToolBackgroundMessage]. [Tools] defines these tools as if
	// ToolOptions.With listed them. With background_message, a session also gets a notice
	// when a task that it launched asks a question that the session can answer; see
	// Notice.Questions.
	OptionalTools []string

	// Notify delivers a notice to a root session. It returns nil once the notice is
	// recorded or queued. If it returns ErrBusy, it is called again later. ErrBusy does
	// not count as a failed delivery, but delivery is abandoned after a day. Notify returns
	// ErrNoSession if the session does not exist. The session then counts as a scope, and its
	// notices are kept until NextNotice takes them. If Notify is nil, a client that is a Notifier
	// delivers the notices. If no client is a Notifier either, the notices are kept until
	// NextNotice takes them.
	Notify func(ctx context.Context, session string, n Notice) error
	// Wake determines when root sessions get their notices. Default WakeBatch.
	Wake Wake
	// NoticeWindow is how long a due notice is held, so that it can also report tasks
	// that end shortly afterwards. Default 100 ms; Disabled for no wait.
	NoticeWindow time.Duration
	// NoticeMaxWait limits how long the end of a task can go unreported because other tasks of its
	// batch are still live. Default 5 min; Disabled for no limit.
	NoticeMaxWait time.Duration
	// NoticeResult is the maximum number of bytes of each result in a notice. With it, a parent
	// does not have to read the results one by one. Default 0, for none; Disabled (-1) also means
	// none.
	NoticeResult int

	// MaxDepth is the maximum number of levels of tasks under a root session. With 1, tasks cannot
	// delegate. Default 1.
	MaxDepth int
	// MaxTasksPerRoot is the maximum number of live tasks under one root session. Default 100;
	// Unlimited for no limit.
	MaxTasksPerRoot int

	// MaxToolCalls is the maximum number of tool calls in an attempt. An attempt that makes more is
	// cancelled. Default 4,000; Unlimited for no limit.
	MaxToolCalls int
	// RepeatedCalls is the number of identical tool calls in a row after which an attempt is
	// cancelled, because its agent is caught in a loop. Calls are identical if they have the same
	// tool, the same input and the same result. Any other call breaks the sequence. A call also
	// breaks it if the client does not know the input or the result, or if the call takes 5 s or
	// longer. Only calls within 60 s count as one sequence. With the default, an agent whose calls
	// are more than about 3 s apart is therefore not cancelled. At least 2; default 20; Unlimited
	// for never.
	RepeatedCalls int
	// TaskBudget limits what each task uses, over all its attempts. When a limit is reached, the
	// task is cancelled with CauseBudget. An [EventBudget] is sent at 80 % of a limit. A task can
	// exceed a limit by the amount that its client reports in one step; see docs/guardrails.md.
	TaskBudget Budget
	// TreeBudget limits what all tasks under a root session use together. When a limit is reached,
	// all of them are cancelled. The first launch opens the account of a tree. Without
	// BudgetPeriod, the account closes when no task of the tree is live, and the next launch opens
	// a new one.
	// If a tree has tasks in several processes, each process counts only its own tasks. With Slots,
	// New logs a warning about this.
	TreeBudget Budget
	// BudgetPeriod is how long the account of a tree stays open, whether or not tasks are live.
	// Once the budget of the tree is used up, launches are refused until the period ends. By
	// default, and with Disabled, there is no period.
	BudgetPeriod time.Duration

	// If Ask is set, agents' questions wait for an answer; see [BackgroundManager.Answer]. These
	// questions are permission requests that no rule grants or denies, and questions with a fixed
	// set of answers. By default, they are refused immediately.
	Ask bool
	// ModelsMayPermit allows a session to grant permissions to the tasks that descend from it. By
	// default, only the host may grant permissions, and sessions may answer only other questions.
	ModelsMayPermit bool
	// OnlyModelsAnswer means that only models can answer questions, for example because no person
	// sees the questions. A question that no model may answer is then refused immediately, as if
	// Ask were not set. Models can answer only if OptionalTools names [ToolBackgroundMessage].
	OnlyModelsAnswer bool

	// PollInterval is the pause between two polls of a client that is a TurnStarter. It is also the
	// pause before a notice that was refused with ErrBusy is delivered again. Default 2 s.
	PollInterval time.Duration
	// MinIdleTime is a period after each prompt. During this period, an idle session counts as done
	// only if its newest message reports how the turn ended. After this period, an idle session
	// with a complete answer counts as done anyway. Default 5 s; Disabled for no wait.
	MinIdleTime time.Duration
	// MinStabilityTime is how long a turn must last before polls count towards
	// StablePolls. Default 10 s; Disabled for no wait.
	MinStabilityTime time.Duration
	// StablePolls is the number of polls in a row that end a turn. A poll counts if the session is
	// idle and the turn has no output yet. If the client cannot report statuses, a poll counts if
	// nothing has changed since the previous poll. Default 3.
	StablePolls int
	// TodoHold limits how long open or unreadable todos can keep an idle session from counting as
	// done. Default 30 s. With Disabled, todos are not read.
	TodoHold time.Duration
	// StaleTimeout is how long a turn may go without any change before it is cancelled.
	// A turn is never cancelled for this reason in its first 30 s. If the session has
	// announced a retry, the time until the retry does not count, up to a maximum of MaxPark, or
	// of 6 h if MaxPark is Disabled. Default 3 min; Disabled for no limit.
	StaleTimeout time.Duration
	// SessionGone is how long a session must be reported as gone before its task
	// ends. Default 60 s.
	SessionGone time.Duration
	// HostUnreachable is a time limit for three problems that a task can have: its client does
	// not answer, the messages of its idle session cannot be read, or the task cannot be
	// started because of [ErrUnreachable]. If a problem lasts longer than HostUnreachable, the
	// task ends. Default 5 min; Disabled for no limit.
	HostUnreachable time.Duration
	// TimeToLive is the total time that the turns of a task may take before the task is
	// cancelled. Default 30 min; Disabled for no limit.
	TimeToLive time.Duration
	// QueueTimeToLive is how long a task may wait for a slot before it is cancelled.
	// By default there is no limit. Disabled also means no limit.
	QueueTimeToLive time.Duration
	// If a provider refuses a task's turn and says when it will accept requests again, MaxPark
	// limits how long the task may be parked. If that time is further away than MaxPark, the task
	// ends immediately with [CauseRateLimited]. If the provider has not given a time, the task ends
	// when none of its turns has produced any output for 30 min. Default 6 h. With Disabled, tasks
	// are not parked and pools do not cool down: a refused task ends immediately.
	MaxPark time.Duration
	// Fallback maps each model to the models that its tasks switch to, in order, if the provider
	// refuses their requests. A key without a slash stands for the model with that name
	// from any provider. Names are compared as in Limits. A model that the caller named in
	// LaunchInput.Model or ResumeInput.Model is never replaced. docs/guardrails.md has the details.
	Fallback map[string][]string
	// FallbackAfter is how long a refused task waits for its model provider before it continues
	// with the next model. If it is clear that the task cannot continue within this time, it
	// switches to the next model immediately. Default 10 min; Disabled for no wait.
	FallbackAfter time.Duration
	// StopTimeout is how long a session may take to stop before its slot is given to
	// the next task. Default 10 s.
	StopTimeout time.Duration

	// CreateTimeout is the time limit for creating a session and for sending a prompt.
	// Default 30 s.
	CreateTimeout time.Duration
	// CallTimeout is the time limit for every other host call, except for Statuses,
	// RunTurn, Abort, Events and ForgetSession. Default 10 s.
	CallTimeout time.Duration
	// StatusTimeout is the time limit for a Statuses call. Default 5 s.
	StatusTimeout time.Duration
	// ReadConcurrency is the maximum number of a client's sessions that are read concurrently.
	// Default 32.
	ReadConcurrency int

	// Retention is how long a task is kept after its end has been reported.
	// Default 30 min; Disabled for no time limit.
	Retention time.Duration
	// RetainTasks is the maximum number of ended tasks that are kept. Default 10,000; Unlimited to
	// keep all. With Store, tasks whose notices are still owed are kept beyond this limit.
	RetainTasks int
	// RetainText is the maximum number of bytes of results that are kept in memory, over all tasks.
	// Default 64 MiB; Unlimited to keep all. With Store, Read finds the other results in the store.
	RetainText int64

	// Logger receives the log. If Logger is nil, nothing is logged. Prompts and answers
	// are logged only at debug level.
	Logger *slog.Logger
}

// withDefaults returns a copy of c with all defaults filled in. The copy does not share any map or
// slice with c. The error names the invalid field.
func (c Config) withDefaults() (Config, error) {
	if err := c.validate(); err != nil {
		return c, err
	}
	c.Limits.Model = maps.Clone(c.Limits.Model)
	c.Limits.Provider = maps.Clone(c.Limits.Provider)
	c.Limits.Agent = maps.Clone(c.Limits.Agent)
	c.Clients = maps.Clone(c.Clients)
	c.ToolNames = maps.Clone(c.ToolNames)
	c.OptionalTools = slices.Clone(c.OptionalTools)
	c.Permissions = slices.Clone(c.Permissions)
	c.Fallback = normalFallbacks(c.Fallback)
	follow := c.following()
	for i := range timeLimits {
		d := timeLimits[i].of(&c)
		if *d == 0 {
			*d = timeLimits[i].def
			if f := follow[timeLimit(i)]; f != nil {
				*d = f(*d)
			}
		}
		*d = min(*d, durationMax)
	}
	for _, n := range c.counts() {
		if *n.value == 0 {
			*n.value = n.def
		}
	}
	if c.NoticeResult == 0 {
		c.NoticeResult = int(Disabled)
	}
	if c.RetainText == 0 {
		c.RetainText = DefaultRetainText
	}
	return c, nil
}

// In errors, these words describe the required relation between two time limits.
const (
	notLonger = "must not be longer than"
	shorter   = "must be shorter than"
)

// validate checks the values that the user set. A value can contradict only another value that the
// user set, because defaults adapt.
func (c *Config) validate() error {
	for i := range timeLimits {
		row := &timeLimits[i]
		if d := *row.of(c); d < 0 && (row.off == "" || d != Disabled) {
			want := "it must be positive, or 0 for the default of %v"
			if row.off != "" {
				want = "it must be positive, 0 for the default of %v, or Disabled"
			}
			return &InputError{timeLimit(i).field(), fmt.Sprintf("is %v; "+want, d, row.def)}
		}
	}
	if err := c.checkCounts(); err != nil {
		return err
	}
	if c.NoticeResult < int(Disabled) {
		return &InputError{"Config.NoticeResult", fmt.Sprintf("is %d; it must be a number of bytes, 0 for the default of none, or Disabled (-1)", c.NoticeResult)}
	}
	if c.RetainText < Unlimited {
		return &InputError{"Config.RetainText", fmt.Sprintf("is %d; it must be a number of bytes, 0 for the default, or Unlimited", c.RetainText)}
	}
	if err := cmp.Or(c.TaskBudget.check("Config.TaskBudget"), c.TreeBudget.check("Config.TreeBudget")); err != nil {
		return err
	}
	if err := checkFallbacks(c.Fallback); err != nil {
		return err
	}
	if c.Wake > WakeNever {
		return &InputError{"Config.Wake", fmt.Sprintf("is %d; it must be WakeBatch, WakeEach or WakeNever", c.Wake)}
	}
	if err := procs.CheckInstance(c.Instance); err != nil {
		return &InputError{"Config.Instance", err.Error()}
	}
	for _, n := range c.OptionalTools {
		if !slices.Contains(optionalTools, n) {
			return &InputError{"Config.OptionalTools", fmt.Sprintf("lists %q; the optional tools are %s", n, strings.Join(optionalTools, ", "))}
		}
	}
	if _, err := wordingFor(c.ToolNames, c.OptionalTools...); err != nil {
		return &InputError{"Config.ToolNames", err.Error()}
	}
	if err := checkRules("Config.Permissions", c.Permissions); err != nil {
		return err
	}
	if c.Concurrency != nil && !c.Limits.isZero() {
		return &InputError{"Config.Limits", "are set together with Config.Concurrency, which has its own limits; set only one of them"}
	}
	if c.Slots != nil && (c.Concurrency != nil || !c.Limits.isZero()) {
		return &InputError{"Config.Slots", "is set together with Config.Limits or Config.Concurrency; the source has its own limits, so set only one of them"}
	}
	for _, pair := range []struct {
		small, large timeLimit
		must         string
	}{
		{limitStaleTimeout, limitTimeToLive, notLonger},
		{limitPollInterval, limitStaleTimeout, notLonger},
		{limitPollInterval, limitHostUnreachable, shorter}, // otherwise a task could end before its client is polled
		{limitNoticeWindow, limitNoticeMaxWait, notLonger},
	} {
		small, large := *pair.small.of(c), *pair.large.of(c)
		same := pair.must == shorter && small == large && large < durationMax // two limits of durationMax or more both mean "never" and do not contradict each other
		if small > 0 && large > 0 && (small > large || same) {
			return &InputError{pair.small.field(), fmt.Sprintf("is %v and %s is %v; the first %s the second", small, pair.large.field(), large, pair.must)}
		}
	}
	return nil
}
