package bgagent

import "time"

// timeLimit identifies a duration in [Config]. It is the index of a row in timeLimits.
type timeLimit uint8

const (
	limitNoticeWindow timeLimit = iota
	limitNoticeMaxWait
	limitPollInterval
	limitMinIdleTime
	limitMinStabilityTime
	limitTodoHold
	limitStaleTimeout
	limitSessionGone
	limitHostUnreachable
	limitTimeToLive
	limitQueueTimeToLive
	limitMaxPark
	limitFallbackAfter
	limitStopTimeout
	limitCreateTimeout
	limitCallTimeout
	limitStatusTimeout
	limitRetention
	limitRestartWithin
	limitStoreTimeout
	limitBudgetPeriod
)

// timeLimits describes the durations in Config. A new duration needs a row here, a
// field in Config and, if it has a key, an entry in fileKeys. The state reads the values
// of all durations with state.limit. Only these rows contain the names of the fields and keys as
// strings. All other code takes the names from the rows.
var timeLimits = [...]struct {
	field   string                       // name of the field in Config
	of      func(*Config) *time.Duration // returns a pointer to the field
	def     time.Duration                // default, used if the field is 0
	off     string                       // words for Disabled that follow "0 for"; empty if Disabled is refused
	key     string                       // key in the file; its value is in milliseconds; empty if the file cannot set the limit
	alias   string                       // the host's key for the same limit if its name differs, otherwise empty
	about   string                       // description in the documentation
	decides string                       // words that follow "decides" in a reason; empty if the limit ends no task
}{
	limitNoticeWindow: {field: "NoticeWindow", of: func(c *Config) *time.Duration { return &c.NoticeWindow },
		def: DefaultNoticeWindow, off: "no wait", key: "noticeWindowMs",
		about: "How long a due notice is held back, so that it can also report tasks that end shortly afterwards"},
	limitNoticeMaxWait: {field: "NoticeMaxWait", of: func(c *Config) *time.Duration { return &c.NoticeMaxWait },
		def: DefaultNoticeMaxWait, off: "never", key: "noticeMaxWaitMs",
		about: "Time after which an ended task is reported even if other tasks of its batch are live"},
	limitPollInterval: {field: "PollInterval", of: func(c *Config) *time.Duration { return &c.PollInterval },
		def: DefaultPollInterval, key: "pollIntervalMs",
		about: "Pause between two polls of the sessions"},
	limitMinIdleTime: {field: "MinIdleTime", of: func(c *Config) *time.Duration { return &c.MinIdleTime },
		def: DefaultMinIdleTime, off: "no wait", key: "minIdleTimeMs",
		about: "For this long after a prompt, an idle session counts as done only if its newest message reports how the turn ended"},
	limitMinStabilityTime: {field: "MinStabilityTime", of: func(c *Config) *time.Duration { return &c.MinStabilityTime },
		def: DefaultMinStabilityTime, off: "no wait", key: "minStabilityTimeMs",
		about: "How long a turn must last before polls count towards `stablePolls`"},
	limitTodoHold: {field: "TodoHold", of: func(c *Config) *time.Duration { return &c.TodoHold },
		def: DefaultTodoHold, off: "no wait", key: "todoHoldMs",
		about: "How long open todos keep an idle session from counting as done"},
	limitStaleTimeout: {field: "StaleTimeout", of: func(c *Config) *time.Duration { return &c.StaleTimeout },
		def: DefaultStaleTimeout, off: "never", key: "staleTimeoutMs",
		about:   "A turn is cancelled if nothing has changed for this long, but not in its first 30 s",
		decides: "how long is too long"},
	limitSessionGone: {field: "SessionGone", of: func(c *Config) *time.Duration { return &c.SessionGone },
		def: DefaultSessionGone, key: "sessionGoneMs", alias: "sessionGoneTimeoutMs",
		about:   "How long a session must be reported as gone before its task ends",
		decides: "how long is long enough"},
	limitHostUnreachable: {field: "HostUnreachable", of: func(c *Config) *time.Duration { return &c.HostUnreachable },
		def: DefaultHostUnreachable, off: "never", key: "hostUnreachableMs",
		about:   "A task ends as an error if its client has not answered for this long",
		decides: "how long is too long"},
	limitTimeToLive: {field: "TimeToLive", of: func(c *Config) *time.Duration { return &c.TimeToLive },
		def: DefaultTimeToLive, off: "never", key: "taskTtlMs",
		about:   "A task is cancelled when it has been in turns for this long",
		decides: "how long a task may run"},
	limitQueueTimeToLive: {field: "QueueTimeToLive", of: func(c *Config) *time.Duration { return &c.QueueTimeToLive },
		def: Disabled, off: "never", key: "queueTtlMs",
		about:   "A task is cancelled when it has waited for a slot for this long",
		decides: "how long a task may wait"},
	limitMaxPark: {field: "MaxPark", of: func(c *Config) *time.Duration { return &c.MaxPark },
		def: DefaultMaxPark, off: "never parked", about: "How long a task waits for a provider that has said when it will accept requests again"},
	limitFallbackAfter: {field: "FallbackAfter", of: func(c *Config) *time.Duration { return &c.FallbackAfter },
		def: DefaultFallbackAfter, off: "no wait", key: "fallbackAfterMs",
		about: "How long a refused task waits for the provider of its model before it continues with the next model of `fallback`"},
	limitStopTimeout: {field: "StopTimeout", of: func(c *Config) *time.Duration { return &c.StopTimeout },
		def: DefaultStopTimeout, key: "stopTimeoutMs",
		about:   "How long a session may take to stop before its slot goes to the next task",
		decides: "how long it may take"},
	limitCreateTimeout: {field: "CreateTimeout", of: func(c *Config) *time.Duration { return &c.CreateTimeout },
		def: DefaultCreateTimeout, key: "createTimeoutMs",
		about:   "Time limit for creating a session or sending a prompt",
		decides: "how long it may take"},
	limitCallTimeout: {field: "CallTimeout", of: func(c *Config) *time.Duration { return &c.CallTimeout },
		def: DefaultCallTimeout, key: "callTimeoutMs",
		about: "Time limit for other host calls"},
	limitStatusTimeout: {field: "StatusTimeout", of: func(c *Config) *time.Duration { return &c.StatusTimeout },
		def: DefaultStatusTimeout, key: "statusTimeoutMs",
		about: "Time limit for a status call"},
	limitRetention: {field: "Retention", of: func(c *Config) *time.Duration { return &c.Retention },
		def: DefaultRetention, off: "no time limit", key: "retentionMs", alias: "taskCleanupDelayMs",
		about: "How long an ended task is kept after its end has been reported"},
	limitRestartWithin: {field: "RestartWithin", of: func(c *Config) *time.Duration { return &c.RestartWithin },
		def: DefaultRestartWithin, off: "no limit", about: "Longest time without a process after which turns still begin by themselves",
		decides: "how long is too long"},
	limitStoreTimeout: {field: "StoreTimeout", of: func(c *Config) *time.Duration { return &c.StoreTimeout },
		def: DefaultStoreTimeout, about: "How long a call waits for the store",
		decides: "how long is too long"},
	limitBudgetPeriod: {field: "BudgetPeriod", of: func(c *Config) *time.Duration { return &c.BudgetPeriod },
		def: Disabled, off: "no period", about: "How long the account of a tree stays open"},
}

// field returns the name of the limit for errors, such as Config.TimeToLive.
func (l timeLimit) field() string { return "Config." + timeLimits[l].field }

// key returns the limit's key in a file.
func (l timeLimit) key() string { return timeLimits[l].key }

// The method "of" returns a pointer to the limit in c.
func (l timeLimit) of(c *Config) *time.Duration { return timeLimits[l].of(c) }

// inFile returns the limit's entry in fileKeys.
func (l timeLimit) inFile() fileKey {
	row := &timeLimits[l]
	return fileKey{key: row.key, alias: row.alias, kind: keyMs, field: row.field, zero: row.off, about: row.about, limit: l}
}

// The method "decided" returns the reason for the end of a task. The reason states what happened,
// and names the limit that caused the end, with its key in a file if it has one.
func (l timeLimit) decided(what string) string {
	row, name := &timeLimits[l], l.field()
	if row.key != "" {
		name += " (" + row.key + ")"
	}
	return what + "; " + name + " decides " + row.decides
}

// The method "following" returns the functions that adapt defaults to the limits that the user set.
// It must be called before the defaults are filled in.
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
