package bgagent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Unlimited means that there is no limit.
const Unlimited = -1

// Disabled switches a time limit or a wait in [Config] off.
const Disabled time.Duration = -1

// The defaults of [Config]. The poll interval, the minimum idle and stability times,
// the polls, the stale timeout, the time to live and the limit of 5 are those of the
// TypeScript original, which hosts and users know. The others were chosen to match.
const (
	DefaultConcurrency      = 5   // slots of a pool
	DefaultMaxDepth         = 1   // a task may not delegate
	DefaultMaxTasksPerRoot  = 100 // live tasks
	DefaultPollInterval     = 2 * time.Second
	DefaultMinIdleTime      = 5 * time.Second
	DefaultMinStabilityTime = 10 * time.Second
	DefaultStablePolls      = 3
	DefaultTodoHold         = 30 * time.Second // agents forget to tick todos off
	DefaultStaleTimeout     = 3 * time.Minute
	DefaultSessionGone      = 60 * time.Second // servers restart
	DefaultHostUnreachable  = 5 * time.Minute  // longer than a restart takes
	DefaultTimeToLive       = 30 * time.Minute
	DefaultStopTimeout      = 10 * time.Second // an abort was seen to take up to 170 ms
	DefaultCreateTimeout    = 30 * time.Second // a first prompt was seen to take 4 s
	DefaultCallTimeout      = 10 * time.Second
	DefaultStatusTimeout    = 5 * time.Second
	DefaultRetention        = 30 * time.Minute       // as long as a task may run
	DefaultRetainTasks      = 10_000                 // a few megabytes without their texts
	DefaultRetainText       = 64 << 20               // bytes
	DefaultNoticeWindow     = 100 * time.Millisecond // too short to notice
	DefaultNoticeMaxWait    = 5 * time.Minute
	DefaultReadConcurrency  = 32 // sessions that are read at the same time
)

const (
	noticeTries         = 20                             // failed deliveries until a notice is given up
	noticeGiveUp        = 24 * time.Hour                 // how long a notice may be due until it is given up
	noticeBackoffMax    = 1 * time.Hour                  // longest pause between two tries
	staleGrace          = 30 * time.Second               // beginning of a turn, when it cannot be stale
	sessionGonePolls    = 3                              // answered polls in a row that must report a session as gone
	streamBeatMax       = 30 * time.Second               // how long a stream without a beat counts as complete
	tombstonesGo        = 250                            // how many are dropped at once
	tombstones          = 40*tombstonesGo + tombstonesGo // ids of evicted tasks; the newest 10,000 are always remembered
	maxResult           = 256 << 10                      // bytes kept of a result
	maxResultUnreadable = 1 << 20                        // the same if the session cannot be read back
	pastAttempts        = 20                             // earlier attempts kept of a task
	titleMax            = 200                            // bytes of a description
	reasonBytes         = 1000                           // bytes of a reason; the end of a program's standard error fits in

	// durationMax replaces longer durations, so that none overflows when it is added
	// to a time. Programs write math.MaxInt64 for "never".
	durationMax = 50 * 365 * 24 * time.Hour
)

// Wake says when a root session gets its notices. A batch is what the session has
// launched since it last had no live task: a task that is launched while others are
// live joins their batch.
type Wake uint8

// The ways of waking a root session. They do not apply to a task that waits for its
// own tasks: its notices are always its next turn.
const (
	WakeBatch Wake = iota // when no task of the batch is live, one has ended badly, or the oldest end is NoticeMaxWait old
	WakeEach              // after every end
	WakeNever             // never; the host takes notices with NextNotice or TakeNotice
)

var wakeNames = [...]string{"batch", "each", "never"}

// String returns batch, each or never.
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

// Limits says how many sessions may be in a turn at the same time. Only one of three
// limits decides: the model's own, else that of its provider, else the default. 0
// means "not set" and [Unlimited] means no limit. Names are compared trimmed and in
// lower case.
//
// Total and Agent are caps in addition to that limit: a turn begins only if all of
// them have room. A task that waits for its own tasks counts for none.
//
// A task without a model counts under its agent's name, as if each agent were a
// separate model: with a Default of 2, two agents can be in four turns. Total is one
// limit for all agents.
type Limits struct {
	// Model limits by model: "provider/model" is that model only, and a name without
	// a slash is that model id of any provider.
	Model map[string]int
	// Provider limits by the part before the first slash of the model. All models
	// without a limit of their own share their provider's.
	Provider map[string]int
	// Default is the limit of each other model separately. 0 means
	// [DefaultConcurrency].
	Default int

	// Total caps all sessions in a turn, over all pools. 0 means no cap.
	Total int
	// Agent caps the sessions of an agent in a turn, with any model. For a task
	// without a model, it replaces Default.
	Agent map[string]int
	// Fair lets root sessions take turns in a pool, one each in a round, instead of
	// by arrival. The place in line is then the place among the tasks of the same
	// root. Tasks that began to wait under other limits are treated like all others.
	Fair bool
}

// Config configures a [BackgroundManager]. The zero value works. New copies it. A
// duration of 0 means the default. [Disabled] means never or no wait, if that makes
// sense for the field. A default adapts to a duration that is set if the two could
// not work together: HostUnreachable is at least three times the PollInterval.
type Config struct {
	// Limits are the limits of the manager's own ConcurrencyManager.
	Limits Limits
	// Concurrency, if set, replaces the manager's own, to share slots with other
	// users. Limits must then be empty.
	Concurrency *ConcurrencyManager

	// Clients are further session clients by name. The client passed to New has the
	// empty name.
	Clients map[string]SessionClient
	// ClientFor names the client that runs an agent. If it is nil, the client passed
	// to New runs all agents.
	ClientFor func(agent string) string
	// Model returns the model for an agent. asked is the model that the caller
	// requested, mostly none. Limits apply to the returned model, and the client
	// gets it. An error refuses the launch. If Model is nil, asked is used.
	Model func(agent, asked string) (string, error)
	// Permissions are rules for every session. AgentPermissions are rules for one
	// agent; they come later and so override them. A name that cannot be a tool's is
	// an error, because such a rule would forbid nothing.
	Permissions      []Permission
	AgentPermissions func(agent string) []Permission

	// PrepareLaunch completes the input of a launch before anything in it is checked,
	// such as its working directory, system text or metadata. It also gets the
	// launches that a model makes with a tool. The returned input is launched; an
	// error refuses the launch. If it is nil, the input is used as it is.
	PrepareLaunch func(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error)

	// ToolNames maps the usual names of tools to the names that models know them
	// by, if they differ. An empty name says that models do not have the tool.
	// Notices, digests and the tools use these names.
	ToolNames map[string]string

	// Notify delivers a notice to a root session. It returns nil once the notice is
	// recorded or queued. It returns ErrBusy to be called again later; that is not a
	// failed try, because a session may be busy for up to a day. It returns
	// ErrNoSession if the session does not exist. The session then counts as a scope,
	// and its notices wait for NextNotice. If Notify is nil, the clients that are a
	// Notifier deliver; without one, notices wait for NextNotice.
	Notify func(ctx context.Context, session string, n Notice) error
	// Wake says when root sessions get their notices. Default WakeBatch.
	Wake Wake
	// NoticeWindow is how long a notice that is due waits for further ends. Default
	// 100 ms; Disabled for no wait.
	NoticeWindow time.Duration
	// NoticeMaxWait is the age at which an end is reported even if other tasks of
	// its batch are live. Default 5 min; Disabled for never.
	NoticeMaxWait time.Duration
	// NoticeResult is how many bytes of each result a notice carries, so that a
	// parent need not read the results one by one. Default none; Disabled (-1) means
	// the same.
	NoticeResult int

	// MaxDepth is how deep tasks may delegate. With 1, a task may not delegate.
	// Default 1.
	MaxDepth int
	// MaxTasksPerRoot bounds the live tasks under one root session. Default 100;
	// Unlimited for no bound.
	MaxTasksPerRoot int

	// PollInterval is the pause between two polls of a client that starts turns. It
	// is also the pause before a notice that was refused with ErrBusy is tried again.
	// Default 2 s.
	PollInterval time.Duration
	// MinIdleTime is how long after a prompt an idle session needs a finish mark to
	// count as done. Default 5 s; Disabled for no wait.
	MinIdleTime time.Duration
	// MinStabilityTime is how long after the beginning of a turn polls without a
	// change, or without output, begin to count. Default 10 s; Disabled for no wait.
	MinStabilityTime time.Duration
	// StablePolls is the number of polls in a row without a change, or without
	// output, that end the turn. Default 3.
	StablePolls int
	// TodoHold is how long todos that are open or cannot be read keep an idle session
	// from counting as done. Default 30 s. With Disabled, todos are not read.
	TodoHold time.Duration
	// StaleTimeout cancels a turn if nothing has changed for this long, but not in
	// its first 30 s. Default 3 min; Disabled for never.
	StaleTimeout time.Duration
	// SessionGone is how long a session must be reported as gone before its task
	// ends. Default 60 s.
	SessionGone time.Duration
	// HostUnreachable ends a task if, for this long, its client has not answered,
	// the messages of its idle session could not be read, or it could not be started
	// because of [ErrUnreachable]. Default 5 min; Disabled for never.
	HostUnreachable time.Duration
	// TimeToLive cancels a task when it has been in turns for this long. Default
	// 30 min; Disabled for never.
	TimeToLive time.Duration
	// QueueTimeToLive cancels a task when it has waited for a slot for this long.
	// Default never, like Disabled.
	QueueTimeToLive time.Duration
	// StopTimeout is how long a session may take to stop before its slot goes to the
	// next task. Default 10 s.
	StopTimeout time.Duration

	// CreateTimeout bounds the creation of a session and the sending of a prompt.
	// Default 30 s.
	CreateTimeout time.Duration
	// CallTimeout bounds every other host call except Statuses. Default 10 s.
	CallTimeout time.Duration
	// StatusTimeout bounds a Statuses call. Default 5 s.
	StatusTimeout time.Duration
	// ReadConcurrency is how many sessions of a client are read at the same time.
	// Default 32.
	ReadConcurrency int

	// Retention is how long an ended task is kept after its end was reported.
	// Default 30 min; Disabled for no time limit.
	Retention time.Duration
	// RetainTasks is how many ended tasks are kept. Default 10,000; Unlimited
	// for all.
	RetainTasks int
	// RetainText is how many bytes of results are kept. Default 64 MiB;
	// Unlimited for all.
	RetainText int64

	// Logger gets the log. If it is nil, nothing is logged. Prompts and answers are
	// logged at debug level only.
	Logger *slog.Logger
}

// isZero reports whether nothing is set.
func (l *Limits) isZero() bool {
	return len(l.Model)+len(l.Provider)+len(l.Agent) == 0 && l.Default == 0 && l.Total == 0 && !l.Fair
}

// withDefaults returns a copy of c that shares nothing with it and has all defaults
// filled in. The error names what is wrong.
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

// following returns how defaults adapt to the limits that the user set. It is called
// before the defaults are filled in.
func (c *Config) following() map[timeLimit]func(time.Duration) time.Duration {
	const most = durationMax / 8
	set := func(d time.Duration) time.Duration { return min(max(d, 0), most) }
	poll, status, hold := set(c.PollInterval), set(c.StatusTimeout), set(c.TodoHold)
	polls := time.Duration(max(c.StablePolls, DefaultStablePolls) + 1)
	stable := set(c.MinStabilityTime) + min(polls*min(max(poll, DefaultPollInterval), most/polls), most) + time.Minute // until a SessionUntold can count as done
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
		limitHostUnreachable: room(max(3*poll, poll+2*status)), // the client must have been asked at least once
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
	unlimited bool // may be Unlimited
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

// The required relations of two time limits.
const (
	notLonger = "must not be longer than"
	shorter   = "must be shorter than"
)

// validate checks what the user set. Only two values that are both set can contradict
// each other.
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
		{limitPollInterval, limitHostUnreachable, shorter}, // otherwise a task could end before its client is asked
		{limitNoticeWindow, limitNoticeMaxWait, notLonger},
	} {
		small, large := *pair.small.of(c), *pair.large.of(c)
		same := pair.must == shorter && small == large && large < durationMax // two limits of "never" agree
		if small > 0 && large > 0 && (small > large || same) {
			return &InputError{pair.small.field(), fmt.Sprintf("is %v and %s is %v; the first %s the second", small, pair.large.field(), large, pair.must)}
		}
	}
	return nil
}
