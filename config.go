package bgagent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Unlimited is the value of a number in [Config] or [Limits] that means "no limit".
const Unlimited = -1

// Disabled switches off a time limit or a wait in [Config].
const Disabled time.Duration = -1

// The defaults of [Config]. Hosts and users know some of these values from the
// TypeScript original: DefaultConcurrency, DefaultPollInterval, DefaultMinIdleTime,
// DefaultMinStabilityTime, DefaultStablePolls, DefaultStaleTimeout and
// DefaultTimeToLive. The other defaults were chosen to match them.
const (
	DefaultConcurrency      = 5   // number of slots in a pool
	DefaultMaxDepth         = 1   // tasks may not delegate
	DefaultMaxTasksPerRoot  = 100 // number of live tasks
	DefaultPollInterval     = 2 * time.Second
	DefaultMinIdleTime      = 5 * time.Second
	DefaultMinStabilityTime = 10 * time.Second
	DefaultStablePolls      = 3
	DefaultTodoHold         = 30 * time.Second // short, because agents forget to mark todos as completed
	DefaultStaleTimeout     = 3 * time.Minute
	DefaultSessionGone      = 60 * time.Second // a session may seem gone while its server restarts
	DefaultHostUnreachable  = 5 * time.Minute  // longer than a restart of a server takes
	DefaultTimeToLive       = 30 * time.Minute
	DefaultStopTimeout      = 10 * time.Second // a call of Abort took up to 170 ms in measurements
	DefaultCreateTimeout    = 30 * time.Second // sending a first prompt took up to 4 s in measurements
	DefaultCallTimeout      = 10 * time.Second
	DefaultStatusTimeout    = 5 * time.Second
	DefaultRetention        = 30 * time.Minute       // the same as DefaultTimeToLive
	DefaultRetainTasks      = 10_000                 // the records need a few megabytes, without their texts
	DefaultRetainText       = 64 << 20               // number of bytes
	DefaultNoticeWindow     = 100 * time.Millisecond // too short for a user to notice
	DefaultNoticeMaxWait    = 5 * time.Minute
	DefaultReadConcurrency  = 32 // number of sessions of a client
)

const (
	noticeTries         = 20                             // number of failed deliveries after which a notice is given up
	noticeGiveUp        = 24 * time.Hour                 // time after which a due notice is given up
	noticeBackoffMax    = 1 * time.Hour                  // longest pause between two deliveries of a notice
	staleGrace          = 30 * time.Second               // how long a turn cannot be stale after it begins
	sessionGonePolls    = 3                              // number of answered polls in a row that must report a session as gone
	streamBeatMax       = 30 * time.Second               // time for which a stream without a beat counts as complete
	tombstonesGo        = 250                            // number of tombstones that are dropped at once
	tombstones          = 40*tombstonesGo + tombstonesGo // maximum number of remembered ids of evicted tasks; dropping old ones always leaves the newest 10,000
	maxResult           = 256 << 10                      // number of bytes kept of a result
	maxResultUnreadable = 1 << 20                        // number of bytes kept of a result if the session cannot be read again
	pastAttempts        = 20                             // number of earlier attempts kept of a task
	titleMax            = 200                            // maximum number of bytes of a description
	reasonBytes         = 1000                           // maximum number of bytes of a reason; enough for the end of a program's standard error

	// durationMax replaces every longer duration, so that the sum of a duration and a
	// time cannot overflow. Longer durations occur because programs write
	// math.MaxInt64 for "never".
	durationMax = 50 * 365 * 24 * time.Hour
)

// Wake says when a root session gets its notices. A batch is the set of tasks that the
// session has launched since it last had no live task: a task that is launched while
// other tasks of the session are live joins their batch.
type Wake uint8

// The values of [Wake]. They do not apply to a task that waits for its own tasks: such a
// task always gets its notices as the prompt of its next turn.
const (
	WakeBatch Wake = iota // when no task of the batch is live, or a task of the batch was cancelled, has failed, or ended NoticeMaxWait ago
	WakeEach              // whenever a task has ended
	WakeNever             // never; the host takes notices with NextNotice or TakeNotice
)

var wakeNames = [...]string{"batch", "each", "never"}

// String returns "batch", "each" or "never".
func (w Wake) String() string { return enumName(wakeNames[:], uint8(w)) }

// MarshalText implements [encoding.TextMarshaler].
func (w Wake) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (w *Wake) UnmarshalText(b []byte) error {
	i := slices.Index(wakeNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown value %q; it must be batch, each or never", b)
	}
	*w = Wake(i)
	return nil
}

// Limits says how many sessions may be in a turn at the same time. For each model, one
// limit decides: the model's own limit, else the limit of its provider, else the
// default. 0 means "not set", and [Unlimited] means no limit. Names are compared after
// they are trimmed and changed to lower case.
//
// Total and Agent are caps in addition to that limit: a turn begins only if the limit
// and all caps have room. A task that waits for its own tasks counts in no limit and in
// no cap.
//
// A task without a model counts under the name of its agent, as if each agent were a
// separate model. So if Default is 2, two agents can be in four turns together. Total
// is one cap for all agents together.
type Limits struct {
	// Model holds the limits of models. The key "provider/model" stands for that model
	// of that provider. A key without a slash stands for that model id of any provider.
	Model map[string]int
	// Provider holds the limits of providers. The provider of a model is the part
	// before the first slash of its name. All models of a provider that have no limit
	// of their own share the provider's limit.
	Provider map[string]int
	// Default is the limit of each model without an entry in Model or Provider. Such
	// models do not share the limit: each may use all of it. 0 means
	// [DefaultConcurrency].
	Default int

	// Total caps the number of sessions in a turn over all pools. 0 means no cap.
	Total int
	// Agent caps the number of sessions of an agent in a turn, whatever their models.
	// For a task without a model, the entry of its agent replaces Default.
	Agent map[string]int
	// Fair lets the root sessions alternate in a pool, with one slot each per round,
	// instead of serving all tasks by arrival. A task's place in line is then its place
	// among the tasks of the same root session. If SetLimits switches Fair on or off,
	// the change also applies to the tasks that already wait.
	Fair bool
}

// Config configures a [BackgroundManager]. The zero value works. New copies the Config.
// A duration of 0 means the default. [Disabled] means "never" or "no wait"; the fields
// that accept it say so. A default may change if it would contradict a duration that is
// set. For example, the default of HostUnreachable grows to three times a long
// PollInterval.
type Config struct {
	// Limits are the limits of the manager's own ConcurrencyManager.
	Limits Limits
	// Concurrency, if set, replaces the manager's own ConcurrencyManager. With it,
	// several managers or other code can share slots. Limits must then be empty.
	Concurrency *ConcurrencyManager

	// Clients holds further session clients by name. The client that is passed to New
	// has the empty name.
	Clients map[string]SessionClient
	// ClientFor returns the name of the client that runs an agent. If ClientFor is nil,
	// the client that is passed to New runs all agents.
	ClientFor func(agent string) string
	// Model returns the model for an agent. The argument "asked" is the model that the
	// caller requested, or empty. The returned model is passed to the client, and
	// Limits apply to it. An error refuses the launch. If Model is nil, the requested
	// model is used.
	Model func(agent, asked string) (string, error)
	// Permissions holds rules for every session. AgentPermissions returns rules for
	// one agent; these come after Permissions and therefore override them. If the name
	// in a rule cannot be the name of a tool, the rule is an error, because it would
	// forbid nothing.
	Permissions      []Permission
	AgentPermissions func(agent string) []Permission

	// PrepareLaunch completes the input of a launch, for example its working
	// directory, system text or metadata. It is called before the input is checked. It
	// also gets the launches that a model makes with a tool. The returned input is
	// launched. An error refuses the launch. If PrepareLaunch is nil, the input is used
	// as it is.
	PrepareLaunch func(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error)

	// ToolNames maps the usual name of a tool to the name under which models know the
	// tool, if the two differ. An empty name means that models do not have the tool.
	// Notices, digests and the texts of the tools use these names.
	ToolNames map[string]string

	// Notify delivers a notice to a root session. It returns nil once the notice is
	// recorded or queued. It returns ErrBusy to be called again later. ErrBusy does not
	// count as a failed delivery, because a session may be busy for up to a day. Notify
	// returns ErrNoSession if the session does not exist. The session then counts as a
	// scope, and its notices are kept until NextNotice takes them. If Notify is nil, a
	// client that is a Notifier delivers the notices. If there is no such client
	// either, the notices are kept until NextNotice takes them.
	Notify func(ctx context.Context, session string, n Notice) error
	// Wake says when root sessions get their notices. Default WakeBatch.
	Wake Wake
	// NoticeWindow is how long a due notice is held, so that it can also report tasks
	// that end shortly afterwards. Default 100 ms; Disabled for no wait.
	NoticeWindow time.Duration
	// NoticeMaxWait is the time after which an ended task is reported even if other
	// tasks of its batch are live. Default 5 min; Disabled for never.
	NoticeMaxWait time.Duration
	// NoticeResult is how many bytes of each result a notice contains, so that a
	// parent need not read the results one by one. Default 0, for none; Disabled (-1)
	// also means none.
	NoticeResult int

	// MaxDepth is how many levels of tasks there may be under a root session. With 1, a
	// task may not delegate. Default 1.
	MaxDepth int
	// MaxTasksPerRoot is how many live tasks there may be under one root session.
	// Default 100; Unlimited for no limit.
	MaxTasksPerRoot int

	// PollInterval is the pause between two polls of a client that is a TurnStarter.
	// It is also the pause between two deliveries of a notice if the first was refused
	// with ErrBusy. Default 2 s.
	PollInterval time.Duration
	// MinIdleTime is a period after each prompt. In this period, an idle session counts
	// as done only if its newest message says how the turn ended. After the period, an
	// idle session with a complete answer counts as done anyway. Default 5 s; Disabled
	// for no wait.
	MinIdleTime time.Duration
	// MinStabilityTime is how long a turn must last before polls count towards
	// StablePolls. Default 10 s; Disabled for no wait.
	MinStabilityTime time.Duration
	// StablePolls is how many polls in a row end a turn. A poll counts if the session is
	// idle and has no output. If the client cannot report statuses, a poll counts if
	// nothing has changed since the poll before. Default 3.
	StablePolls int
	// TodoHold is the longest time for which an idle session does not count as done
	// because its todos are open or cannot be read. Default 30 s. With Disabled, todos
	// are not read.
	TodoHold time.Duration
	// StaleTimeout is how long a turn may go without any change before it is cancelled.
	// A turn is never cancelled for this reason in its first 30 s. Default 3 min;
	// Disabled for no limit.
	StaleTimeout time.Duration
	// SessionGone is how long a session must be reported as gone before its task
	// ends. Default 60 s.
	SessionGone time.Duration
	// HostUnreachable is a time limit for three problems of a task: its client does
	// not answer, the messages of its idle session cannot be read, or the task cannot be
	// started because of [ErrUnreachable]. If a problem lasts this long, the task ends.
	// Default 5 min; Disabled for no limit.
	HostUnreachable time.Duration
	// TimeToLive is how long a task may be in turns before it is cancelled. Default
	// 30 min; Disabled for no limit.
	TimeToLive time.Duration
	// QueueTimeToLive is how long a task may wait for a slot before it is cancelled.
	// By default there is no limit. Disabled also means no limit.
	QueueTimeToLive time.Duration
	// StopTimeout is how long a session may take to stop before its slot is given to
	// the next task. Default 10 s.
	StopTimeout time.Duration

	// CreateTimeout is the time limit for creating a session and for sending a prompt.
	// Default 30 s.
	CreateTimeout time.Duration
	// CallTimeout is the time limit for every other host call except Statuses.
	// Default 10 s.
	CallTimeout time.Duration
	// StatusTimeout is the time limit for a Statuses call. Default 5 s.
	StatusTimeout time.Duration
	// ReadConcurrency is how many sessions of a client are read concurrently.
	// Default 32.
	ReadConcurrency int

	// Retention is how long a task is kept after its end was reported.
	// Default 30 min; Disabled for no time limit.
	Retention time.Duration
	// RetainTasks is how many ended tasks are kept. Default 10,000; Unlimited to keep
	// all.
	RetainTasks int
	// RetainText is how many bytes of results are kept, over all tasks. Default 64 MiB;
	// Unlimited to keep all.
	RetainText int64

	// Logger receives the log. If Logger is nil, nothing is logged. Prompts and answers
	// are logged only at debug level.
	Logger *slog.Logger
}

// isZero reports whether no limit is set.
func (l *Limits) isZero() bool {
	return len(l.Model)+len(l.Provider)+len(l.Agent) == 0 && l.Default == 0 && l.Total == 0 && !l.Fair
}

// withDefaults returns a copy of c with all defaults filled in. The copy shares no map
// and no slice with c. The error names the wrong field.
func (c Config) withDefaults() (Config, error) {
	if err := c.validate(); err != nil {
		return c, err
	}
	c.Limits.Model = maps.Clone(c.Limits.Model)
	c.Limits.Provider = maps.Clone(c.Limits.Provider)
	c.Limits.Agent = maps.Clone(c.Limits.Agent)
	c.Clients = maps.Clone(c.Clients)
	c.ToolNames = maps.Clone(c.ToolNames)
	c.Permissions = slices.Clone(c.Permissions)
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

// following returns the functions that adapt defaults to the limits that the user has
// set. It must be called before the defaults are filled in.
func (c *Config) following() map[timeLimit]func(time.Duration) time.Duration {
	const most = durationMax / 8
	set := func(d time.Duration) time.Duration { return min(max(d, 0), most) }
	poll, status, hold := set(c.PollInterval), set(c.StatusTimeout), set(c.TodoHold)
	polls := time.Duration(max(c.StablePolls, DefaultStablePolls) + 1)
	stable := set(c.MinStabilityTime) + min(polls*min(max(poll, DefaultPollInterval), most/polls), most) + time.Minute // time until a session with the status SessionUntold can count as done
	room := func(need time.Duration) func(time.Duration) time.Duration {
		return func(d time.Duration) time.Duration { return max(d, need) }
	}
	below := func(limits ...time.Duration) func(time.Duration) time.Duration {
		return func(d time.Duration) time.Duration {
			for _, limit := range limits {
				if limit > 0 {
					d = min(d, limit)
				}
			}
			return d
		}
	}
	return map[timeLimit]func(time.Duration) time.Duration{
		limitPollInterval:    below(c.HostUnreachable/3, c.StaleTimeout),
		limitHostUnreachable: room(max(3*poll, poll+2*status)), // long enough to ask the client at least once
		limitStaleTimeout:    room(stable),
		limitTimeToLive:      room(stable + hold),
		limitNoticeMaxWait:   room(set(c.NoticeWindow)),
		limitNoticeWindow:    below(c.NoticeMaxWait),
	}
}

type countField struct {
	name      string
	value     *int
	def       int
	unlimited bool // whether the value may be Unlimited
}

func (c *Config) counts() []countField {
	return []countField{
		{"MaxDepth", &c.MaxDepth, DefaultMaxDepth, false},
		{"MaxTasksPerRoot", &c.MaxTasksPerRoot, DefaultMaxTasksPerRoot, true},
		{"StablePolls", &c.StablePolls, DefaultStablePolls, false},
		{"ReadConcurrency", &c.ReadConcurrency, DefaultReadConcurrency, false},
		{"RetainTasks", &c.RetainTasks, DefaultRetainTasks, true},
	}
}

// The relations that two time limits may be required to have, in the words of errors.
const (
	notLonger = "must not be longer than"
	shorter   = "must be shorter than"
)

// validate checks the values that the user has set. A set value can contradict only
// another set value, because defaults adapt.
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
	for _, n := range c.counts() {
		if *n.value < 0 && !(n.unlimited && *n.value == Unlimited) {
			if n.unlimited {
				return &InputError{"Config." + n.name, fmt.Sprintf("is %d; it must be positive, 0 for the default of %d, or Unlimited", *n.value, n.def)}
			}
			return &InputError{"Config." + n.name, fmt.Sprintf("is %d; it must be positive, or 0 for the default of %d", *n.value, n.def)}
		}
	}
	if c.NoticeResult < int(Disabled) {
		return &InputError{"Config.NoticeResult", fmt.Sprintf("is %d; it must be a number of bytes, 0 for the default of none, or Disabled (-1)", c.NoticeResult)}
	}
	if c.RetainText < Unlimited {
		return &InputError{"Config.RetainText", fmt.Sprintf("is %d; it must be a number of bytes, 0 for the default, or Unlimited", c.RetainText)}
	}
	if c.Wake > WakeNever {
		return &InputError{"Config.Wake", fmt.Sprintf("is %d; it must be WakeBatch, WakeEach or WakeNever", c.Wake)}
	}
	if _, err := wordingFor(c.ToolNames); err != nil {
		return &InputError{"Config.ToolNames", err.Error()}
	}
	if err := checkRules("Config.Permissions", c.Permissions); err != nil {
		return err
	}
	if c.Concurrency != nil && !c.Limits.isZero() {
		return &InputError{"Config.Limits", "are set together with Config.Concurrency, which has its own limits; set only one of them"}
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
		same := pair.must == shorter && small == large && large < durationMax // two limits of durationMax or more mean "never" and do not contradict each other
		if small > 0 && large > 0 && (small > large || same) {
			return &InputError{pair.small.field(), fmt.Sprintf("is %v and %s is %v; the first %s the second", small, pair.large.field(), large, pair.must)}
		}
	}
	return nil
}
