package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The files render*.go make all texts that a model reads. Their functions are pure: the text
// depends on the arguments only. These rules apply to text from outside, such as descriptions,
// names, messages, errors and ids:
//
//   - Text that is inserted into one of our own lines goes through mdtext.OneLine. The result is one
//     line of bounded length in valid UTF-8, without control characters and invisible characters.
//     Table cells are also escaped, and code spans are made by mdtext.Code. So text from outside
//     cannot begin a line, end a cell or end a code span.
//   - Text with several lines (a result, a partial text, a prompt) has one of two places. Either it
//     is in a fence that is longer than any fence inside it. Or it is the last part of an answer:
//     then everything after its beginning belongs to it, whatever it pretends to be. The notice and
//     the lines about reading on come before it, so the notice survives in hosts that cut the end
//     of long tool results.
//   - Text with several lines goes through cleantext, which removes escape sequences and control
//     characters and makes all line ends alike.

// The largest sizes of rendered texts and of their parts, in bytes.
const (
	answerMax  = 32 << 10 // answer of a tool, including a notice
	noticeMax  = 14 << 10 // notice; leaves room for the rest of an answer
	idMax      = 512
	nameMax    = 100
	titleShown = titleMax
	titleShort = 100 // description in a table of many tasks
	reasonMax  = 400
	promptMax  = 8 << 10
	soFarMax   = 4 << 10 // unfinished answer of a running task
)

const notStarted = "(not started)"

// wording holds the names of the tools that the model has. An empty name means that the model does
// not have the tool, and then no text mentions it.
type wording struct {
	delegate, output, cancel string

	// noNotices means that nothing wakes the model when a task ends. The texts then promise no
	// notice, and they ask the model to wait instead of ending its turn.
	noNotices bool
}

var defaultWording = wording{delegate: ToolDelegateTask, output: ToolBackgroundOutput, cancel: ToolBackgroundCancel}

// answer is a text for a model, in two parts.
type answer struct {
	head string // our own text
	body string // text from outside, after one of our own lines; always the last part
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

// text builds a text from lines, fields and tables.
type text struct{ mdtext.Builder }

// arg formats a string as an argument of a tool call.
func arg(s string) string { return strconv.Quote(mdtext.OneLine(s, idMax)) }

// sessionLine formats the id of a task's session for a plain line, and sessionCode for a code span.
// The id is empty as long as the session does not exist.
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

// The reasons for which attempts ended, as texts for people and models.

// reasonStopped describes how a turn was broken off. detail is the client's own description and may
// be empty.
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

// The actions of the manager that can fail in a host call, as the reasons name them.
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

// reasonIDAbove is the reason if the client returned, for the new session, the id of a session from
// which the task descends.
func reasonIDAbove(id string) string {
	return fmt.Sprintf("%s: the client returned the id %s, which is that of the session that delegated or of one above it", doingCreate, mdtext.Quote(id))
}

// reasonIDTaken is the reason if the client returned, for the new session, the id of another task's
// session.
func reasonIDTaken(id, owner string, expired bool) string {
	what := "task"
	if expired {
		what = "the expired task"
	}
	return fmt.Sprintf("%s: the client returned the id %s, which belongs to %s %s", doingCreate, mdtext.Quote(id), what, owner)
}

// reasonParentDeleted is the reason if the session that launched the task was deleted.
func reasonParentDeleted(session string) string {
	return fmt.Sprintf("session %s, which launched it, was deleted", mdtext.Quote(session))
}

// reasonParentEnded is the reason if the task that launched this task has ended.
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

// reasonUnread is the reason if the messages of the session could not be read for too long. The
// argument "why" is the client's last error.
func reasonUnread(most time.Duration, why string) string {
	return limitHostUnreachable.decided(fmt.Sprintf("the messages of the session could not be read for %s, nor from the beginning: %s",
		mdtext.Setting(most), mdtext.Joined(mdtext.Valid(why), reasonBytes/2)))
}

func reasonGone(said time.Duration) string {
	return limitSessionGone.decided(fmt.Sprintf("the client has said for %s that the session does not exist", mdtext.Setting(said.Round(time.Second))))
}

// reasonStale is the reason if nothing has changed in the turn for too long. It names the last
// thing seen in the turn.
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

// reasonOutage is the reason if nothing was started because the client could not reach its runtime.
func reasonOutage(most time.Duration, why string) string {
	return limitHostUnreachable.decided(fmt.Sprintf("nothing was started, because the agent runtime could not be reached for %s: %s", mdtext.Setting(most), why))
}
