package bgagent

import (
	"context"
	"log/slog"
	"time"
)

// logKind is the kind of a log entry. It determines the text of the entry.
type logKind uint8

const (
	logLaunched logKind = iota
	logResumed
	logStarted
	logEnded
	logOverLimit
	logGivenUp
	logExpired
	logAbortFailed
	logAnswerFailed
	logStreamBroke
	logStatusesFailed
	logReadFailed
	logNoticeFailed
	logNoticeGivenUp
	logNoticeLeft
	logPanicked
	logUnreachable
	logTodosFailed
	logStoreFailed
	logNoContext
	logStoreLost
	logStoreAside
	logSavedTooLong
	logNoCost
	logTreeHere
)

var logMessages = [...]string{
	logLaunched: "task launched", logResumed: "task resumed", logStarted: "task started", logEnded: "task ended",
	logOverLimit: "a session did not stop in time; its slot goes to the next task", logGivenUp: "a notice was given up",
	logExpired: "task expired", logAbortFailed: "aborting a session failed", logAnswerFailed: "passing an answer failed", logStreamBroke: "the event stream broke off",
	logStatusesFailed: "asking for statuses failed", logReadFailed: "reading messages failed",
	logNoticeFailed: "a notice could not be delivered", logNoticeGivenUp: "a notice was given up",
	logNoticeLeft: "several processes have pushed a notice, and none has recorded it; it waits to be taken",
	logPanicked:   "a host function panicked", logUnreachable: "a client cannot be reached, and its starts wait",
	logTodosFailed: "reading todos failed", logStoreFailed: "writing a batch to the store failed",
	logNoContext:    "tasks of an earlier process have no context values; see Config.RestoreContext",
	logStoreLost:    "the store is lost; the tasks have ended here",
	logStoreAside:   "the store refuses a record; its changes are only in memory for now, and will be tried again",
	logSavedTooLong: "the data given to SaveState is too long and is not stored",
	logNoCost:       "an agent has used tokens and reported no cost, so a budget does not count its cost",
	logTreeHere:     "budgets of trees count only the tasks of this process, although its slots can be shared with other processes",
}

// logEntry is one entry for the log. It concerns either a task or a problem with the host.
type logEntry struct {
	at   int64
	kind logKind

	// The following fields are set only if the entry concerns a task.
	task, session, agent string
	attempt              int
	status               Status
	cause                Cause

	// The following fields are set only if the entry concerns a problem with the host.
	about, detail string
}

// logQueue holds entries until a goroutine has written them. The logger is the host's code and might
// be slow, so it is never called under the lock. Entries beyond maxLogEntries are dropped, and only
// their number is logged.
type logQueue struct {
	entries []logEntry
	writing bool
	dropped int
}

const maxLogEntries = 10_000

// writeLogs writes the queued entries in order until the queue is empty.
func (m *BackgroundManager) writeLogs() {
	for {
		var entries []logEntry
		var dropped int
		m.update(func(st *state, _ int64) {
			q := &st.logs
			entries, dropped = q.entries, q.dropped
			q.entries, q.dropped = nil, 0
			q.writing = len(entries) > 0
		})
		if len(entries) == 0 {
			return
		}
		m.each(goLog, 0, len(entries), func(i int) { m.writeEntry(entries[i]) }, m.writeLogs)
		if dropped > 0 {
			m.writeLine(time.Now(), slog.LevelWarn, "log lines were dropped", slog.Int("lines", dropped))
		}
	}
}

// writeEntry writes one entry. The details of a problem with the host can contain text that an agent
// wrote. Therefore, they are logged only at debug level.
func (m *BackgroundManager) writeEntry(e logEntry) {
	at, text := wall(m.epoch, e.at), logMessages[e.kind]
	if e.task == "" {
		about := slog.String("about", e.about)
		m.writeLine(at, slog.LevelWarn, text, about)
		m.writeLine(at, slog.LevelDebug, text, about, slog.String("detail", e.detail))
		return
	}
	attrs := []slog.Attr{slog.String("task", e.task), slog.Int("attempt", e.attempt), slog.String("agent", e.agent), slog.String("status", e.status.String())}
	if e.session != "" {
		attrs = append(attrs, slog.String("session", e.session))
	}
	if e.cause != CauseNone {
		attrs = append(attrs, slog.String("cause", e.cause.String()))
	}
	level := slog.LevelInfo
	switch {
	case e.kind == logLaunched:
		level = slog.LevelDebug
	case e.kind == logOverLimit, e.kind == logGivenUp, e.kind == logEnded && e.status == Failed:
		level = slog.LevelWarn
	}
	m.writeLine(at, level, text, attrs...)
}

func (m *BackgroundManager) writeLine(at time.Time, level slog.Level, text string, attrs ...slog.Attr) {
	h := m.cfg.Logger.Handler()
	if ctx := context.Background(); h.Enabled(ctx, level) {
		r := slog.NewRecord(at, level, text, 0)
		r.AddAttrs(attrs...)
		_ = h.Handle(ctx, r) // there is nobody to report the error to
	}
}
