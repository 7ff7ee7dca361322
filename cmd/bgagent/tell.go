package main

import (
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// bad reports whether a task has ended in a way that its user may want to know about
// at once.
func bad(t bgagent.Task) bool {
	return t.Status == bgagent.Failed || t.Status == bgagent.Cancelled
}

// kindOfEnd returns the kind of the notification for such an end.
func kindOfEnd(t bgagent.Task) string {
	if t.Status == bgagent.Cancelled {
		return "cancelled"
	}
	return "failed"
}

// endText returns one line that says how a task has ended.
func endText(name string, t bgagent.Task) string {
	how := "has failed: "
	if t.Status == bgagent.Cancelled {
		how = "was cancelled: "
	}
	return cleantext.Line("bgagent: " + name + " (" + t.Description + ") " + how + plainReason(t))
}
