package bgagent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// Unlimited, as a limit, means that there is none.
const Unlimited = -1

// Disabled, as a duration in [Config], switches the limit or the wait off.
const Disabled time.Duration = -1

// The defaults of [Config]. The poll interval, the minimum idle and stability
// times, the polls, the stale timeout, the time to live and the limit of 5 are
// those of the TypeScript original, which hosts and users know; the others were
// chosen beside them.
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
	DefaultNoticeWindow     = 100 * time.Millisecond // nobody notices
	DefaultNoticeMaxWait    = 5 * time.Minute
	DefaultReadConcurrency  = 32 // sessions read at once
)

const (
	noticeTries         = 20                             // failed deliveries before a notice is given up
	noticeGiveUp        = 24 * time.Hour                 // what is due for so long is given up
	noticeBackoffMax    = 1 * time.Hour                  // longest pause between two tries
	staleGrace          = 30 * time.Second               // start of a turn in which nothing is stale
	sessionGonePolls    = 3                              // answered polls that must agree that a session is gone
	streamBeatMax       = 30 * time.Second               // a stream without a beat for so long keeps nothing current
	tombstonesGo        = 250                            // this many go together when there are too many
	tombstones          = 40*tombstonesGo + tombstonesGo // of tasks whose record has expired: 10,000 ids are always remembered
	maxResult           = 256 << 10                      // bytes kept of a result
	maxResultUnreadable = 1 << 20                        // the same where the session cannot be read back
	pastAttempts        = 20                             // earlier attempts kept of a task
	titleMax            = 200                            // bytes of a description
	reasonBytes         = 1000                           // bytes of a reason: the end of a program's standard error has room

	// durationMax stands for every longer duration, so that none that is added
	// to a time overflows: math.MaxInt64 is how programs write "never".
	durationMax = 50 * 365 * 24 * time.Hour
)

// Wake says when a root session is told of ends. A batch is what the session has
// launched since it last had no task that was live: what is launched while others
// are live joins them.
type Wake uint8

// The ways of waking a root session. They do not concern a task that waits for
// its own tasks: what it is owed is always its next turn.
const (
	WakeBatch Wake = iota // when nothing of the batch is live any more, one ended badly, or the oldest end is NoticeMaxWait old
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

// Limits says how many sessions may be in a turn at once. The model's own limit
// decides, else its provider's, else the default; the first that is set decides
// alone. In every place 0 means "not set" and [Unlimited] means no limit. Names
// are compared trimmed and in lower case.
//
// Total and Agent are caps beside the limit that decides: a turn begins where all
// of them have room. A task that waits for its own tasks counts for none.
//
// A task without a model counts under its agent's name, as if each agent were a
// model of its own: with a Default of 2, two agents can be in four turns. Total
// is one limit for all agents.
type Limits struct {
	// Model limits by model: "provider/model" for just this one, a name without
	// a slash for that model id of any provider.
	Model map[string]int
	// Provider limits by what stands before the first slash of the model. All
	// models that a provider's limit decides for share it.
	Provider map[string]int
	// Default is the limit of every other model, each for itself. 0 means
	// [DefaultConcurrency].
	Default int

	// Total caps the sessions that are in a turn over all pools. 0 means no cap.
	Total int
	// Agent caps the sessions of an agent that are in a turn, whatever their
	// models. For a task without a model it decides in place of Default.
	Agent map[string]int
	// Fair gives the turns of a pool to root sessions in rounds, one each, instead
	// of by arrival. The place in line is then the place among the tasks of the same
	// root. Tasks that began to wait under other limits take part like all others.
	Fair bool
}

// Config configures a [BackgroundManager]. The zero value works. New copies it;
// durations of 0 mean the default, [Disabled] means never or no wait where that
// makes sense. A default follows a duration that is set where the two could not
// work together: HostUnreachable is at least three times the PollInterval.
type Config struct {
	// Limits are the limits of the manager's own ConcurrencyManager.
	Limits Limits
	// Concurrency, when set, is used instead of one of its own, to share slots
	// with other users; Limits must then be empty.
	Concurrency *ConcurrencyManager

	// Clients are further session clients by name. The one given to New has the
	// empty name.
	Clients map[string]SessionClient
	// ClientFor names the client that an agent runs on. Nil means that all run
	// on the one given to New.
	ClientFor func(agent string) string
	// Model says which model an agent uses when asked is what the caller wanted
	// (mostly nothing). Its answer is what limits are applied to and what the
	// client is given; an error refuses the launch. Nil means asked itself.
	Model func(agent, asked string) (string, error)
	// Permissions are rules for every session; AgentPermissions are an agent's
	// own, which come after them and so beat them. A name that can be no tool's is
	// an error: such a rule would forbid nothing.
	Permissions      []Permission
	AgentPermissions func(agent string) []Permission

	// PrepareLaunch completes what a task is launched with, before anything of it
	// is looked at: its working directory, its system text, its metadata, for
	// what a model launches with a tool, too. What it returns is launched; an
	// error refuses the launch. Nil means the input as it is.
	PrepareLaunch func(ctx context.Context, by Caller, in LaunchInput) (LaunchInput, error)

	// ToolNames are the names by which models know the tools, where they are not
	// the usual ones: the usual name is the key, an empty one says that models
	// do not have the tool. Notices, digests and the tools themselves use them.
	ToolNames map[string]string

	// Notify tells a root session what has ended. It returns nil once the
	// notice is recorded or queued, ErrBusy to be called again later (which is no
	// failed try: a session may be busy for up to a day),
	// ErrNoSession when there is no such session, which is then taken for a scope:
	// what is owed to it waits for NextNotice. Nil means the clients that
	// are a Notifier; where there is none, notices wait for NextNotice.
	Notify func(ctx context.Context, session string, n Notice) error
	// Wake says when root sessions are told. Default WakeBatch.
	Wake Wake
	// NoticeWindow is how long others are waited for before a notice that is
	// due goes out. Default 100 ms; Disabled for none.
	NoticeWindow time.Duration
	// NoticeMaxWait is the age at which an end is told even though others of
	// its batch are live. Default 5 min; Disabled for never.
	NoticeMaxWait time.Duration
	// NoticeResult is how many bytes of each result a notice carries, so that a
	// parent need not read one result after the other. Default none;
	// Disabled (-1) says the same.
	NoticeResult int

	// MaxDepth is how deep tasks may delegate: 1 means that a task may not
	// delegate. Default 1.
	MaxDepth int
	// MaxTasksPerRoot bounds the live tasks under one root session. Default
	// 100; Unlimited for none.
	MaxTasksPerRoot int

	// PollInterval is the pause between two looks at the sessions of a client
	// that starts turns, and before a notice is tried again that was refused
	// with ErrBusy. Default 2 s.
	PollInterval time.Duration
	// MinIdleTime is how long after a prompt an idle session is not believed
	// without a finish mark. Default 5 s; Disabled for no wait.
	MinIdleTime time.Duration
	// MinStabilityTime is the earliest moment of a turn at which polls without
	// a change, or without output, count. Default 10 s; Disabled for no wait.
	MinStabilityTime time.Duration
	// StablePolls is how many of them in a row decide. Default 3.
	StablePolls int
	// TodoHold is how long todos that are open, or cannot be read, hold an idle
	// session back. Default 30 s; Disabled for not at all: they are not read
	// then.
	TodoHold time.Duration
	// StaleTimeout cancels a turn in which nothing has changed for so long, but
	// not in its first 30 s. Default 3 min; Disabled for never.
	StaleTimeout time.Duration
	// SessionGone is for how long a session must have been reported as gone.
	// Default 60 s.
	SessionGone time.Duration
	// HostUnreachable ends a task whose client has not answered for so long, one
	// that is idle and whose messages could not be read for so long, and
	// one that could not be started for so long because of [ErrUnreachable].
	// Default 5 min; Disabled for never.
	HostUnreachable time.Duration
	// TimeToLive cancels a task that has been in turns for so long. Default
	// 30 min; Disabled for never.
	TimeToLive time.Duration
	// QueueTimeToLive cancels a task that has waited for a slot for so long.
	// Default never, as is Disabled.
	QueueTimeToLive time.Duration
	// StopTimeout is how long a session may take to stop before its slot is
	// given to the next one all the same. Default 10 s.
	StopTimeout time.Duration

	// CreateTimeout bounds the creation of a session and the handing over of a
	// prompt. Default 30 s.
	CreateTimeout time.Duration
	// CallTimeout bounds every other host call but Statuses. Default 10 s.
	CallTimeout time.Duration
	// StatusTimeout bounds a Statuses call. Default 5 s.
	StatusTimeout time.Duration
	// ReadConcurrency is how many sessions of a client are read at once.
	// Default 32.
	ReadConcurrency int

	// Retention is how long an ended task is kept once its parent has been
	// told. Default 30 min; Disabled for no limit of time.
	Retention time.Duration
	// RetainTasks is how many ended tasks are kept. Default 10,000; Unlimited
	// for all.
	RetainTasks int
	// RetainText is how many bytes of results are kept. Default 64 MiB;
	// Unlimited for all.
	RetainText int64

	// Logger is told what happens; nil means silence. Prompts and answers are
	// only logged at debug level.
	Logger *slog.Logger
}

// isZero reports whether nothing is set.
func (l *Limits) isZero() bool {
	return len(l.Model)+len(l.Provider)+len(l.Agent) == 0 && l.Default == 0 && l.Total == 0 && !l.Fair
}

// withDefaults returns a copy of c that shares nothing with it and has every
// default filled in, or an error that names what is wrong.
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

// following returns how defaults follow the limits that the user set, where the two
// could not work together. It is called before the defaults are filled in.
func (c *Config) following() map[timeLimit]func(time.Duration) time.Duration {
	const most = durationMax / 8
	set := func(d time.Duration) time.Duration { return min(max(d, 0), most) }
	poll, status, hold := set(c.PollInterval), set(c.StatusTimeout), set(c.TodoHold)
	polls := time.Duration(max(c.StablePolls, DefaultStablePolls) + 1)
	stable := set(c.MinStabilityTime) + min(polls*min(max(poll, DefaultPollInterval), most/polls), most) + time.Minute // until an untold session is believed
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
		limitHostUnreachable: room(max(3*poll, poll+2*status)), // it must have been asked
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

// What two time limits may be to each other.
const (
	notLonger = "must not be longer than"
	shorter   = "must be shorter than"
)

// validate checks what the user set. Only values that were both set can
// contradict each other.
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
		return &InputError{"Config.Limits", "are set beside Config.Concurrency, which has limits of its own; set one of the two"}
	}
	for _, pair := range []struct {
		small, large timeLimit
		must         string
	}{
		{limitStaleTimeout, limitTimeToLive, notLonger},
		{limitPollInterval, limitStaleTimeout, notLonger},
		{limitPollInterval, limitHostUnreachable, shorter}, // or a task ends that was never asked about
		{limitNoticeWindow, limitNoticeMaxWait, notLonger},
	} {
		small, large := *pair.small.of(c), *pair.large.of(c)
		same := pair.must == shorter && small == large && large < durationMax // two that are for ever agree
		if small > 0 && large > 0 && (small > large || same) {
			return &InputError{pair.small.field(), fmt.Sprintf("is %v and %s is %v; the first %s the second", small, pair.large.field(), large, pair.must)}
		}
	}
	return nil
}
