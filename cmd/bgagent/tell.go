package main

import (
	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// The function "bad" reports whether a task failed or was cancelled. The user might want to know this
// immediately.
func bad(t bgagent.Task) bool {
	return t.Status == bgagent.Failed || t.Status == bgagent.Cancelled
}

// kindOfEnd returns the kind of notification for a task that ended badly.
func kindOfEnd(t bgagent.Task) string {
	if t.Status == bgagent.Cancelled {
		return "cancelled"
	}
	return "failed"
}

// questionText returns the text of the notification for a task that asks a question. The argument "advice"
// says what the user can do; it can be empty.
func questionText(t bgagent.Task, q bgagent.Question, advice string) string {
	text := "bgagent: task " + t.ID + " (" + t.Description + ") asks: " + q.Title
	if advice != "" {
		text += "; " + advice
	}
	return cleantext.Line(text)
}

// questionAdvice says what the user of this server can do about a task's question.
func (s *serving) questionAdvice(id string) string {
	switch {
	case s.at.Dir == "":
		return ""
	case s.command == "serve":
		return "to see and answer it: bgagent show " + id
	}
	return "to see it: bgagent show " + id
}

// endText returns the text of the notification for a task that ended badly.
func endText(name string, t bgagent.Task) string {
	how := "has failed: "
	if t.Status == bgagent.Cancelled {
		how = "was cancelled: "
	}
	return cleantext.Line("bgagent: " + name + " (" + t.Description + ") " + how + plainReason(t))
}
