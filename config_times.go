package bgagent

import "time"

// timeLimit names a duration of [Config]: the row that it has in timeLimits.
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
	limitStopTimeout
	limitCreateTimeout
	limitCallTimeout
	limitStatusTimeout
	limitRetention
)

// timeLimits says everything about the durations of Config that is not their value.
// A new one is a row here, a field of Config, and its key at its place in fileKeys.
// The state gets all of them, by their rows (state.limit). Nothing else types the
// name of a field or a key: sentences are put together from the row.
var timeLimits = [...]struct {
	field   string                       // of Config
	of      func(*Config) *time.Duration // the field
	def     time.Duration                // what 0 means
	off     string                       // what Disabled means, as the words after "0 for"; empty if Disabled is refused
	key     string                       // of the file, in milliseconds
	alias   string                       // the host's own key for the same thing, where it has another one
	about   string                       // what it is, in the documentation
	decides string                       // for a limit that ends something: the words after "decides" in the reason
}{
	limitNoticeWindow: {field: "NoticeWindow", of: func(c *Config) *time.Duration { return &c.NoticeWindow },
		def: DefaultNoticeWindow, off: "no wait", key: "noticeWindowMs",
		about: "How long a notice that is due waits for others"},
	limitNoticeMaxWait: {field: "NoticeMaxWait", of: func(c *Config) *time.Duration { return &c.NoticeMaxWait },
		def: DefaultNoticeMaxWait, off: "never", key: "noticeMaxWaitMs",
		about: "Age at which an end is told even though others of its batch are live"},
	limitPollInterval: {field: "PollInterval", of: func(c *Config) *time.Duration { return &c.PollInterval },
		def: DefaultPollInterval, key: "pollIntervalMs",
		about: "Pause between two looks at the sessions"},
	limitMinIdleTime: {field: "MinIdleTime", of: func(c *Config) *time.Duration { return &c.MinIdleTime },
		def: DefaultMinIdleTime, off: "no wait", key: "minIdleTimeMs",
		about: "For so long after a prompt, a session that is idle counts as done only with a finish mark"},
	limitMinStabilityTime: {field: "MinStabilityTime", of: func(c *Config) *time.Duration { return &c.MinStabilityTime },
		def: DefaultMinStabilityTime, off: "no wait", key: "minStabilityTimeMs",
		about: "Earliest moment of a turn at which polls without a change count"},
	limitTodoHold: {field: "TodoHold", of: func(c *Config) *time.Duration { return &c.TodoHold },
		def: DefaultTodoHold, off: "no wait", key: "todoHoldMs",
		about: "How long open todos hold an idle session back"},
	limitStaleTimeout: {field: "StaleTimeout", of: func(c *Config) *time.Duration { return &c.StaleTimeout },
		def: DefaultStaleTimeout, off: "never", key: "staleTimeoutMs",
		about:   "A turn in which nothing has changed for so long is cancelled, but not in its first 30 s",
		decides: "how long is too long"},
	limitSessionGone: {field: "SessionGone", of: func(c *Config) *time.Duration { return &c.SessionGone },
		def: DefaultSessionGone, key: "sessionGoneMs", alias: "sessionGoneTimeoutMs",
		about:   "How long a session must have been reported as gone",
		decides: "how long is long enough"},
	limitHostUnreachable: {field: "HostUnreachable", of: func(c *Config) *time.Duration { return &c.HostUnreachable },
		def: DefaultHostUnreachable, off: "never", key: "hostUnreachableMs",
		about:   "A task whose host has not answered for so long ends as error",
		decides: "how long is too long"},
	limitTimeToLive: {field: "TimeToLive", of: func(c *Config) *time.Duration { return &c.TimeToLive },
		def: DefaultTimeToLive, off: "never", key: "taskTtlMs",
		about:   "A task that has been in turns for so long is cancelled",
		decides: "how long a task may"},
	limitQueueTimeToLive: {field: "QueueTimeToLive", of: func(c *Config) *time.Duration { return &c.QueueTimeToLive },
		def: Disabled, off: "never", key: "queueTtlMs",
		about:   "A task that has waited for a slot for so long is cancelled",
		decides: "how long a task may"},
	limitStopTimeout: {field: "StopTimeout", of: func(c *Config) *time.Duration { return &c.StopTimeout },
		def: DefaultStopTimeout, key: "stopTimeoutMs",
		about:   "How long a session may take to stop before its slot is given on",
		decides: "how long it may take"},
	limitCreateTimeout: {field: "CreateTimeout", of: func(c *Config) *time.Duration { return &c.CreateTimeout },
		def: DefaultCreateTimeout, key: "createTimeoutMs",
		about:   "Bound of creating a session and of handing a prompt over",
		decides: "how long it may take"},
	limitCallTimeout: {field: "CallTimeout", of: func(c *Config) *time.Duration { return &c.CallTimeout },
		def: DefaultCallTimeout, key: "callTimeoutMs",
		about: "Bound of other host calls"},
	limitStatusTimeout: {field: "StatusTimeout", of: func(c *Config) *time.Duration { return &c.StatusTimeout },
		def: DefaultStatusTimeout, key: "statusTimeoutMs",
		about: "Bound of a status call"},
	limitRetention: {field: "Retention", of: func(c *Config) *time.Duration { return &c.Retention },
		def: DefaultRetention, off: "no limit of time", key: "retentionMs", alias: "taskCleanupDelayMs",
		about: "How long an ended task is kept once its parent has been told"},
}

// field is the name by which errors know the limit.
func (l timeLimit) field() string { return "Config." + timeLimits[l].field }

// key is the limit's key in a file.
func (l timeLimit) key() string { return timeLimits[l].key }

// of returns the limit in c.
func (l timeLimit) of(c *Config) *time.Duration { return timeLimits[l].of(c) }

// inFile is the limit's row of the table of keys.
func (l timeLimit) inFile() fileKey {
	row := &timeLimits[l]
	return fileKey{key: row.key, alias: row.alias, kind: keyMs, field: row.field, zero: row.off, about: row.about, limit: l}
}

// decided is the reason of an end that the limit has brought about: what has
// happened, and which limit decides.
func (l timeLimit) decided(what string) string {
	row := &timeLimits[l]
	return what + "; " + l.field() + " (" + row.key + ") decides " + row.decides
}
