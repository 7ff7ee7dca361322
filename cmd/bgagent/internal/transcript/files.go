package transcript

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// Limits for the logs in files.
const (
	segmentBytes = 512 << 10          // size at which a new segment begins
	segmentsKept = 3                  // number of segments that are kept: the first one, and the latest ones
	lineBytes    = 64 << 10           // a longer line is written in parts
	partBytes    = 64 << 10           // maximum size of the text that ReadLog returns
	logsAge      = 7 * 24 * time.Hour // how long a log is kept after it was last written
	sweepPause   = time.Hour          // minimum time between two removals of old logs
	unsentBytes  = 256 << 10          // maximum amount of unwritten text that is kept per log; older text is dropped
)

// logsBytes is the maximum total size of a folder's logs. If they are larger, the oldest logs are removed.
// Tests reduce it.
var logsBytes int64 = 256 << 20

// Files writes the output of tasks' programs to files while the programs run. Each task has a
// folder. Lines of standard error begin with "stderr: ". Secrets are replaced with their names, and
// escape sequences are removed. Files is safe for concurrent use.
//
// A task's log consists of segments. A segment's name is the offset of its first byte in the log. The first
// segment and the latest segments are kept, so a task's log takes at most about 1.5 MiB.
type Files struct {
	dir     string
	secrets *Secrets
	warn    func(error)

	mu     sync.Mutex
	logs   map[string]*logFile
	warned bool
	swept  time.Time
}

// NewFiles returns a Files that writes into the folder dir, which does not have to exist. Errors do not
// affect the tasks. The function "warn" is called with the first error.
func NewFiles(dir string, secrets *Secrets, warn func(error)) *Files {
	return &Files{dir: dir, secrets: secrets, warn: warn, logs: map[string]*logFile{}}
}

// logFile is the log of one task.
type logFile struct {
	mu      sync.Mutex
	dir     string
	ended   bool      // the log is no longer in Files.logs, so nothing may be added to it
	opened  bool      // whether the fields "start" and "size" are known
	start   int64     // offset of the latest segment
	size    int64     // bytes in the latest segment
	pending [2][]byte // the unfinished lines of standard output and standard error
	within  [2]bool   // whether the beginning of the unfinished line has been written
	unsent  []byte    // text that could not be written yet
}

// taskName matches the ids that are used as folder names.
var taskName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// Printed adds output from a task's program. Stream 1 is standard output. Any other number means standard
// error.
func (f *Files) Printed(task string, stream int, p []byte) {
	if !taskName.MatchString(task) {
		return
	}
	l := f.lock(task)
	defer l.mu.Unlock()
	at := 0
	if stream != 1 {
		at = 1
	}
	l.pending[at] = append(l.pending[at], p...)
	f.check(l.write(at, f.secrets, false))
}

// The method "lock" returns a task's log and locks the log's mutex. The caller must unlock the mutex.
func (f *Files) lock(task string) *logFile {
	for {
		f.mu.Lock()
		l := f.logs[task]
		if l == nil {
			l = &logFile{dir: filepath.Join(f.dir, task)}
			f.logs[task] = l
		}
		f.mu.Unlock()
		l.mu.Lock()
		if !l.ended {
			return l
		}
		l.mu.Unlock()
	}
}

// End writes the unfinished lines of a task. Call it when the task ends, when its programs have
// stopped, and before the log of an ended task is read.
func (f *Files) End(task string) {
	f.mu.Lock()
	l := f.logs[task]
	sweep := time.Since(f.swept) > sweepPause
	if sweep {
		f.swept = time.Now()
	}
	f.mu.Unlock()
	if l != nil {
		f.end(task, l)
	}
	if sweep {
		f.sweep()
	}
}

// The method "end" writes the unfinished lines and unsent text of a log. It removes the log from the map only
// after the write, so that the method "sweep" does not remove the log's folder too early.
func (f *Files) end(task string, l *logFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	f.check(errors.Join(l.write(0, f.secrets, true), l.write(1, f.secrets, true)))
	l.ended = true
	f.mu.Lock()
	delete(f.logs, task)
	f.mu.Unlock()
}

// Read is like [ReadLog], but reads the logs in the folder of f.
func (f *Files) Read(task string, from int64) (text string, next int64, err error) {
	return ReadLog(f.dir, task, from)
}

// Close writes the unfinished lines of all tasks. A nil Files does nothing.
func (f *Files) Close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	tasks := slices.Collect(maps.Keys(f.logs))
	f.mu.Unlock()
	for _, task := range tasks {
		f.End(task)
	}
}

// The method "check" reports the first error.
func (f *Files) check(err error) {
	f.mu.Lock()
	first := err != nil && !f.warned
	f.warned = f.warned || first
	f.mu.Unlock()
	if first {
		f.warn(fmt.Errorf("the logs of tasks cannot be written: %w", err))
	}
}

// write writes the finished lines of a stream. If the argument "all" is true, it also writes the
// unfinished line.
func (l *logFile) write(at int, secrets *Secrets, all bool) error {
	raw := l.pending[at]
	n := bytes.LastIndexByte(raw, '\n') + 1
	switch {
	case all:
		n = len(raw)
	case n == 0 && len(raw) > lineBytes:
		n = partOf(raw, secrets)
	}
	if n == 0 {
		return l.flush()
	}
	text := cleantext.String(secrets.Mask(string(raw[:n])))
	l.pending[at] = append(raw[:0], raw[n:]...)
	if all && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if at == 1 {
		text = prefixed(text, l.within[at])
	}
	l.within[at] = !strings.HasSuffix(text, "\n")
	l.unsent = append(l.unsent, text...)
	return l.flush()
}

// partOf returns how many bytes of a long unfinished line can be written. The rest might be the beginning of
// a secret or of a character.
func partOf(raw []byte, secrets *Secrets) int {
	n, masked := secrets.complete(string(raw))
	for i := 1; i < utf8.UTFMax && i < n && n-i >= masked; i++ {
		if utf8.RuneStart(raw[n-i]) {
			if !utf8.FullRune(raw[n-i : n]) {
				n -= i
			}
			break
		}
	}
	return n
}

const errPrefix = "stderr: "

// The function "prefixed" adds a prefix to the lines of standard error. If the argument "within" is true, the
// text begins within a line that has already been marked.
func prefixed(text string, within bool) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !within {
			b.WriteString(errPrefix)
		}
		within = false
		b.WriteString(line)
	}
	return b.String()
}

// flush writes the text that has not been written yet. If that fails, a later call retries the write. If the
// folder has been removed since the last write, the method "flush" creates a new one, and the offsets
// continue.
func (l *logFile) flush() error {
	if len(l.unsent) == 0 {
		return nil
	}
	n, err := l.append(l.unsent)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(l.dir, 0o700); err == nil {
			l.start, l.size = l.start+l.size, 0
			n, err = l.append(l.unsent)
		}
	}
	l.unsent = append(l.unsent[:0], l.unsent[n:]...)
	if more := len(l.unsent) - unsentBytes; more > 0 {
		more += bytes.IndexByte(l.unsent[more:], '\n') + 1
		l.unsent = append(l.unsent[:0], l.unsent[more:]...)
	}
	return err
}

// append writes the text to the latest segment, and returns how much of it was written. If the
// segment is full, the method "append" begins a new segment and removes the second-oldest one.
func (l *logFile) append(text []byte) (int, error) {
	if !l.opened {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return 0, err
		}
		all, err := segments(l.dir)
		if err != nil {
			return 0, err
		}
		if len(all) > 0 {
			last := all[len(all)-1]
			l.start, l.size = last.start, last.size
		}
		l.opened = true
	}
	if l.size >= segmentBytes {
		all, err := segments(l.dir)
		if err != nil {
			return 0, err
		}
		for len(all) >= segmentsKept {
			if err := os.Remove(all[1].path); err != nil {
				return 0, err
			}
			all = slices.Delete(all, 1, 2)
		}
		l.start, l.size = l.start+l.size, 0
	}
	file, err := os.OpenFile(filepath.Join(l.dir, strconv.FormatInt(l.start, 10)), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := file.Write(text)
	l.size += int64(n)
	return n, errors.Join(err, file.Close())
}

// segment is one file of a log.
type segment struct {
	path        string
	start, size int64
	at          time.Time // time of the last write
}

// The function "segments" returns the segments of a log in order. If there is no log, the result is empty.
func segments(dir string) (all []segment, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		start, wrong := strconv.ParseInt(e.Name(), 10, 64)
		info, gone := e.Info()
		if wrong == nil && gone == nil && start >= 0 {
			all = append(all, segment{filepath.Join(dir, e.Name()), start, info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b segment) int { return int(min(max(a.start-b.start, -1), 1)) })
	return all, err
}

// ReadLog returns the part of a task's log that begins at the offset, and the offset of the next
// part. A part has at most 64 KiB. At the end of the log, the text is empty and the offset is
// unchanged. If the part at the offset was not kept, the text is a line that says so. The argument
// "dir" is the folder with all logs.
func ReadLog(dir, task string, from int64) (text string, next int64, err error) {
	if !taskName.MatchString(task) || from < 0 {
		return "", from, nil
	}
	all, err := segments(filepath.Join(dir, task))
	for _, s := range all {
		switch {
		case err != nil:
			return "", from, err
		case from < s.start:
			return fmt.Sprintf("[… %d bytes are left out here …]\n", s.start-from), s.start, nil
		case from >= s.start+s.size:
			continue
		}
		file, err := os.Open(s.path)
		if errors.Is(err, fs.ErrNotExist) { // the segment was removed after it was listed
			return ReadLog(dir, task, from)
		}
		if err != nil {
			return "", from, err
		}
		defer file.Close()
		b := make([]byte, min(s.start+s.size-from, partBytes))
		n, err := file.ReadAt(b, from-s.start)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		b = b[:n]
		if n > utf8.UTFMax {
			b = b[:partOf(b, &Secrets{})]
		}
		return string(b), from + int64(len(b)), err
	}
	return "", from, err
}

// RemoveLog removes a task's log. The argument "dir" is the folder with all logs.
func RemoveLog(dir, task string) error {
	if !taskName.MatchString(task) {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, task))
}

// sweep removes the logs that were last written long ago. If the remaining logs together are too large, it
// also removes those that were written least recently. The logs of tasks that are still printing are not
// removed.
func (f *Files) sweep() {
	type log struct {
		task string
		size int64
		at   time.Time
	}
	measure := func(task string) log {
		parts, _ := segments(filepath.Join(f.dir, task))
		one := log{task: task}
		for _, s := range parts {
			one.size += s.size
			if s.at.After(one.at) {
				one.at = s.at
			}
		}
		return one
	}
	var all []log
	var total int64
	entries, _ := os.ReadDir(f.dir)
	for _, e := range entries {
		one := measure(e.Name())
		all, total = append(all, one), total+one.size
	}
	slices.SortFunc(all, func(a, b log) int { return a.at.Compare(b.at) })
	for _, one := range all {
		if total <= logsBytes && time.Since(one.at) < logsAge {
			continue
		}
		f.mu.Lock() // while the lock is held, no task can begin to write the log
		if _, prints := f.logs[one.task]; !prints && measure(one.task) == one && RemoveLog(f.dir, one.task) == nil {
			total -= one.size
		}
		f.mu.Unlock()
	}
}
