package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The files render*.go make all texts that a model reads. They contain pure functions of values.
// These rules apply to text from outside, such as descriptions, names, messages, errors and ids:
//
//   - Text in one of our lines goes through oneLine: one line of bounded length, valid UTF-8, without
//     control and invisible characters. In a table row it also goes through escapeCell, in a code span
//     through code. So it cannot begin a line, end a cell or end a code span.
//   - Text with several lines (a result, a partial text, a prompt) is either the last part of an answer,
//     so that everything after its beginning belongs to it, whatever it pretends to be; or it is in a
//     fence that is longer than any fence inside. Nothing of ours follows such a last part: the lines
//     about reading on and the notice come before it. So a notice also survives in hosts that cut long
//     tool results at the end.
//   - Text with several lines goes through cleantext: no escape sequences, no control characters, one
//     kind of line end.
//   - A notice contains lines only, never results.

// Bounds of what is rendered, in bytes.
const (
	answerMax  = 32 << 10 // of the answer of a tool, including a notice
	noticeMax  = 14 << 10 // of a notice; leaves room for the rest of an answer
	idMax      = 512
	nameMax    = 100
	titleShown = titleMax
	titleShort = 100 // of a description in a table of many tasks
	reasonMax  = 400
	promptMax  = 8 << 10
	soFarMax   = 4 << 10 // of the text so far of a running task
)

const notStarted = "(not started)"

// wording holds the tool names that the model knows. If a name is empty, the model does not have
// that tool, and no text mentions it.
type wording struct {
	delegate, output, cancel string

	// noNotices says that nothing wakes the model when a task ends. Texts then promise no notice
	// and do not let the model end its turn. They tell it to wait instead.
	noNotices bool
}

var defaultWording = wording{delegate: ToolDelegateTask, output: ToolBackgroundOutput, cancel: ToolBackgroundCancel}

// answer is a text for a model, in two parts.
type answer struct {
	head string // our own text
	body string // text from outside, after a line of ours; always the last part
}

// with returns the answer as one text, with the notice between head and body.
func (a answer) with(notice string) string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(a.head, "\n"))
	for _, s := range [...]string{notice, a.body} {
		if s != "" {
			b.WriteString("\n\n" + strings.TrimLeft(s, "\n"))
		}
	}
	return b.String()
}

// text is a builder with the forms that the texts consist of.
type text struct{ mdtext.Builder }

// arg formats a value as an argument of a tool call.
func arg(s string) string { return strconv.Quote(mdtext.OneLine(s, idMax)) }

// sessionLine and sessionCode format a task's session, which may not exist yet.
func sessionLine(session string) string {
	if session == "" {
		return notStarted
	}
	return mdtext.OneLine(session, idMax)
}

func sessionCode(session string) string {
	if session == "" {
		return notStarted
	}
	return mdtext.Code(session, idMax)
}

// The reasons of ends, as people and models read them.

// reasonStopped says how a turn was broken off. detail may add what the client said about it.
func reasonStopped(r StopReason, detail string) string {
	reason := "the client gave an unknown stop reason, " + r.String()
	switch r {
	case StopLength:
		reason = "the model's output limit cut the answer off"
	case StopTurnLimit:
		reason = "the agent reached its limit of steps"
	case StopRefused:
		reason = "the model refused"
	case StopAborted:
		reason = "it was stopped in the agent's own window"
	case StopInterrupted:
		reason = "the turn broke off"
	case StopToolCalls:
		reason = "the turn broke off after tool calls"
	case StopError:
		reason = "the agent failed"
	}
	if detail != "" {
		reason += ": " + mdtext.Ends(mdtext.Valid(detail), reasonBytes)
	}
	return reason
}

// What the manager was doing when a host call failed.
const (
	doingCreate = "creating the session"
	doingPrompt = "handing over the prompt"
	doingTurn   = "the turn"
	doingStart  = "starting"
)

const (
	reasonSessionDeleted = "its session was deleted"
	reasonClosed         = "the manager was closed"
	reasonCallCancelled  = "the call that waited for it was cancelled"
	reasonNoOutput       = "the turn ended without any output"
	reasonIdleNoOutput   = "the session fell idle without any output"
	reasonBrokeOff       = "the session fell idle in the middle of a message"
	reasonNoLastWord     = "the session fell idle after tool calls, before the answer"
	reasonNoAnswer       = "the agent wrote no answer and called no tool"
	reasonNoID           = doingCreate + ": the client returned an empty session id"

	questionNotTold = "(not told)"
)

// reasonIDAbove says that a client has returned the id of a session that the task
// descends from.
func reasonIDAbove(id string) string {
	return fmt.Sprintf("%s: the client returned the id %s, which is that of the session that delegated or of one above it", doingCreate, mdtext.Quote(id))
}

// reasonIDTaken says that a client has returned the id of another task's session.
func reasonIDTaken(id, owner string, expired bool) string {
	what := "task"
	if expired {
		what = "the expired task"
	}
	return fmt.Sprintf("%s: the client returned the id %s, which belongs to %s %s", doingCreate, mdtext.Quote(id), what, owner)
}

// reasonParentDeleted says that the session which launched a task was deleted.
func reasonParentDeleted(session string) string {
	return fmt.Sprintf("session %s, which launched it, was deleted", mdtext.Quote(session))
}

// reasonParentEnded says that the task which launched a task has ended.
func reasonParentEnded(task string, cause Cause) string {
	return fmt.Sprintf("task %s, which launched it, ended: %s", task, cause)
}

func reasonNotStopped(most time.Duration) string {
	return limitStopTimeout.decided("the session of the earlier attempt did not stop within " + mdtext.Setting(most))
}

func reasonQueued(most time.Duration) string {
	return limitQueueTimeToLive.decided(fmt.Sprintf("waited %s for a slot", mdtext.Setting(most)))
}

func reasonNoAnswerToCall(doing string, most time.Duration) string {
	return limitCreateTimeout.decided(fmt.Sprintf("%s: the client did not answer within %s", doing, mdtext.Setting(most)))
}

func reasonTimeToLive(most time.Duration) string {
	return limitTimeToLive.decided("ran for more than " + mdtext.Setting(most))
}

func reasonUnreachable(most time.Duration) string {
	return limitHostUnreachable.decided("the client has not told the session's status for " + mdtext.Setting(most))
}

// reasonUnread says for how long the messages of a session could not be read, and
// what the client said last of why.
func reasonUnread(most time.Duration, why string) string {
	return limitHostUnreachable.decided(fmt.Sprintf("the messages of the session could not be read for %s, nor from the beginning: %s",
		mdtext.Setting(most), mdtext.Joined(mdtext.Valid(why), reasonBytes/2)))
}

func reasonGone(said time.Duration) string {
	return limitSessionGone.decided(fmt.Sprintf("the client has said for %s that the session does not exist", mdtext.Setting(said.Round(time.Second))))
}

// reasonStale says for how long nothing has changed in a turn, and what was seen
// last in it.
func reasonStale(idle time.Duration, turnStart int64, p *progress) string {
	seen := "its prompt"
	switch {
	case p.lastTextA > turnStart && p.lastText != "":
		seen = "the text " + mdtext.Quote(mdtext.Head(p.lastText, 80))
	case p.lastTool != "":
		seen = "the tool " + mdtext.Quote(p.lastTool)
	}
	span := mdtext.Span(idle)
	if idle >= time.Minute {
		span = fmt.Sprintf("%d min", int(idle.Minutes()))
	}
	return limitStaleTimeout.decided(fmt.Sprintf("nothing changed for %s; the last thing seen was %s", span, seen))
}

// reasonOutage says that nothing was started, because a client could not reach its
// runtime.
func reasonOutage(most time.Duration, why string) string {
	return limitHostUnreachable.decided(fmt.Sprintf("nothing was started, because the agent runtime could not be reached for %s: %s", mdtext.Setting(most), why))
}
