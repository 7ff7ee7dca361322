package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// A display shows text and the progress of tasks to the user.
type display interface {
	// The method "print" writes text permanently. While tasks are shown, the text may be delayed
	// until the caller calls the function that the method "watch" returned.
	print(text string)
	// The method "watch" starts showing the tasks. The returned function stops showing them.
	watch(tasks []bgagent.Task) (end func())
	// The method "task" shows the current state of a task, unless a later state has already been
	// shown.
	task(t bgagent.Task)
	// The method "told" shows that the notice was delivered to the parent.
	told(n bgagent.Notice)
}

// lines is a display that writes plain lines, for files, pipes and simple terminals. It
// writes a line whenever the state of a task changes.
type lines struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
	last  map[string]state
	open  bool // whether the last output was a line of a block
}

// The type "state" holds the number and the status of a task's attempt.
type state struct {
	attempt int
	status  bgagent.Status
}

func stateOf(t bgagent.Task) state { return state{t.Attempt, t.Status} }

// The method "before" reports whether the state precedes another state of the same task.
func (s state) before(other state) bool {
	return s.attempt < other.attempt || s.attempt == other.attempt && s.status < other.status
}

func newLines(w io.Writer) *lines { return &lines{w: w} }

func (d *lines) print(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closeLocked()
	fmt.Fprintln(d.w, strings.TrimRight(text, "\n")+"\n")
}

// closeLocked ends a block of lines with an empty line.
func (d *lines) closeLocked() {
	if d.open {
		fmt.Fprintln(d.w)
	}
	d.open = false
}

func (d *lines) lineLocked(what, about string) {
	fmt.Fprintf(d.w, "[%7.3fs] %-9s  %s\n", time.Since(d.start).Seconds(), what, about)
	d.open = true
}

func (d *lines) watch(tasks []bgagent.Task) func() {
	d.mu.Lock()
	d.start, d.last = time.Now(), map[string]state{}
	for _, t := range tasks {
		if !t.Queued.IsZero() && t.Queued.Before(d.start) {
			d.start = t.Queued
		}
	}
	d.mu.Unlock()
	for _, t := range tasks {
		d.task(t)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.closeLocked()
		d.last = nil
	}
}

func (d *lines) task(t bgagent.Task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := stateOf(t)
	if was, ok := d.last[t.ID]; d.last == nil || ok && !was.before(now) {
		return // no tasks are shown, or this state or a later state has been shown
	}
	d.last[t.ID] = now
	about := t.Description
	if t.Status.Terminal() && !t.Started.IsZero() {
		about += fmt.Sprintf(" (%s, %d tool calls)", t.Duration(time.Now()).Round(time.Millisecond), t.Progress.ToolCalls)
	}
	d.lineLocked(t.Status.String(), about)
}

func (d *lines) told(n bgagent.Notice) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lineLocked("told", endsOf(n))
}

// endsOf returns one line about the tasks in a notice.
func endsOf(n bgagent.Notice) string {
	var ends []string
	for _, it := range n.Items {
		ends = append(ends, it.Description+" "+it.Status.String())
	}
	return strings.Join(ends, "; ")
}
