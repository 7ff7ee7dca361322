package bgagent

import (
	"context"
	"log/slog"
	"time"
)

// logKind says what a log line tells about a task.
type logKind uint8

const (
	logLaunched logKind = iota
	logResumed
	logStarted
	logEnded
	logOverLimit
	logGivenUp
	logExpired
)

var logMessages = [...]string{"task launched", "task resumed", "task started", "task ended", "a session did not stop in time; its slot is used again", "a notice was given up", "task expired"}

// logLine is one line on its way to the host's logger.
type logLine struct {
	at    time.Time
	level slog.Level
	text  string
	attrs []slog.Attr
}

// logQueue holds lines until their goroutine has written them: the logger is
// the host's, may be slow, and is never called under the lock. Lines over the
// bound are counted and dropped.
type logQueue struct {
	lines   []logLine
	writing bool
	dropped int
}

const maxLogLines = 10_000

func (m *BackgroundManager) logLocked(k logKind, t *task) {
	if m.cfg.Logger == nil {
		return
	}
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("task", t.id()), slog.Int("attempt", int(t.no)), slog.String("agent", t.kind.key.agent), slog.String("status", t.status.String())}
	if t.sess != nil {
		attrs = append(attrs, slog.String("session", t.sess.id))
	}
	if t.cause != CauseNone {
		attrs = append(attrs, slog.String("cause", t.cause.String()))
	}
	switch k {
	case logOverLimit, logGivenUp:
		level = slog.LevelWarn
	case logEnded:
		if t.status == Failed {
			level = slog.LevelWarn
		}
	case logLaunched:
		level = slog.LevelDebug
	}
	m.logLineLocked(logLine{level: level, text: logMessages[k], attrs: attrs})
}

// logTextLocked logs something that went wrong with the host. The detail may
// hold what an agent wrote, so it is logged at debug level.
func (m *BackgroundManager) logTextLocked(text, about, detail string) {
	if m.cfg.Logger == nil {
		return
	}
	m.logLineLocked(logLine{level: slog.LevelWarn, text: text, attrs: []slog.Attr{slog.String("about", about)}})
	m.logLineLocked(logLine{level: slog.LevelDebug, text: text, attrs: []slog.Attr{slog.String("about", about), slog.String("detail", detail)}})
}

func (m *BackgroundManager) logLineLocked(l logLine) {
	q := &m.logs
	if len(q.lines) >= maxLogLines {
		q.dropped++
		return
	}
	l.at = time.Now()
	q.lines = append(q.lines, l)
	if !q.writing {
		q.writing = true
		m.spawn(goLog, m.writeLogs)
	}
}

// writeLogs writes lines in their order until there are none.
func (m *BackgroundManager) writeLogs() {
	for {
		m.mu.Lock()
		lines, dropped := m.logs.lines, m.logs.dropped
		m.logs.lines, m.logs.dropped = nil, 0
		m.logs.writing = len(lines) > 0
		m.mu.Unlock()
		if len(lines) == 0 {
			return
		}
		if dropped > 0 {
			lines = append(lines, logLine{at: time.Now(), level: slog.LevelWarn, text: "log lines were dropped", attrs: []slog.Attr{slog.Int("lines", dropped)}})
		}
		m.each(goLog, 0, len(lines), func(i int) { m.writeLog(lines[i]) }, m.writeLogs)
	}
}

func (m *BackgroundManager) writeLog(l logLine) {
	h := m.cfg.Logger.Handler()
	if ctx := context.Background(); h.Enabled(ctx, l.level) {
		r := slog.NewRecord(l.at, l.level, l.text, 0)
		r.AddAttrs(l.attrs...)
		_ = h.Handle(ctx, r) // there is nobody to tell
	}
}
