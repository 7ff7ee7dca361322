package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The files render*.go contain the functions that build all texts that a model reads. These
// functions are pure: the text depends only on the arguments. The following rules apply to text
// from outside, such as descriptions, names, messages, errors and ids:
//
//   - Text that is inserted into one of our own lines goes through mdtext.OneLine. The result is one
//     line of bounded length in valid UTF-8, without control characters or invisible characters.
//     Table cells are also escaped, and code spans are made by mdtext.Code. Therefore, text from
//     outside cannot begin a line, end a cell or end a code span.
//   - Text with several lines (a result, a partial text, a prompt) is in one of two places. Either
//     it is in a fence that is longer than any fence inside it, or it is the last part of an
//     answer, so that none of our own text follows it. The notice, and the lines that describe how
//     to read more, come before it, because some hosts cut off the end of long tool results.
//   - Text with several lines goes through cleantext, which removes escape sequences and control
//     characters and turns all line endings into "\n".

// The maximum sizes of rendered texts and of their parts, in bytes.
const (
	answerMax  = 32 << 10 // a tool's answer, including a notice
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

// wording holds the names of the tools that the model has. If the model does not have a tool, the
// name is empty and no text mentions the tool.
type wording struct {
	delegate, output, cancel, message string

	permits bool // the model may grant permissions

	// noNotices means that the model is not woken when a task ends. The texts then do not promise a
	// notice, and they ask the model to wait instead of ending its turn.
	noNotices bool
}

var defaultWording = wording{delegate: ToolDelegateTask, output: ToolBackgroundOutput, cancel: ToolBackgroundCancel}

// answer is text for a model, in two parts.
type answer struct {
	head string // our own text
	body string // text from outside, after one of our own lines; always the last part
}

// The method "with" returns the answer as one string, with the notice between the fields "head" and
// "body".
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

// The type "text" builds text from lines, fields and tables.
type text struct{ mdtext.Builder }

// arg formats a string as an argument of a tool call.
func arg(s string) string { return strconv.Quote(mdtext.OneLine(s, idMax)) }

// sessionLine formats the id of a task's session for a plain line, and sessionCode formats it for a
// code span. The id is empty until the session exists.
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

// The texts below state why attempts ended. People and models read them.

// reasonStopped states why a turn ended early. detail is the client's own description, which can be
// empty.
func reasonStopped(r StopReason, detail string) string {
	reason := "the client reported an unknown stop reason, " + r.String()
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
	case StopTooLong:
		reason = "the input is too long for the model"
	}
	if detail != "" {
		reason += ": " + mdtext.Ends(mdtext.Valid(detail), reasonBytes)
	}
	return reason
}

// Names for the manager's actions that fail if a host call fails. The reasons contain these names.
const (
	doingCreate = "creating the session"
	doingPrompt = "handing over the prompt"
	doingTurn   = "the turn"
	doingStart  = "starting"

	doingRestore = "restoring the session"
)

const (
	detailPostponed      = "waits until the tasks before it are continued, because the process has crashed twice in a short time"
	reasonSessionDeleted = "its session was deleted"
	reasonClosed         = "the manager was closed"
	reasonStoreLost      = "the store no longer belongs to this manager"
	reasonCallCancelled  = "the call that waited for it was cancelled"
	reasonNoOutput       = "the turn ended without any output"
	reasonIdleNoOutput   = "the session fell idle without any output"
	reasonBrokeOff       = "the session fell idle in the middle of a message"
	reasonNoLastWord     = "the session fell idle after tool calls, before the answer"
	reasonNoAnswer       = "the agent wrote no answer and called no tool"
	reasonCompacted      = "the input is too long for the model: it was compacted twice in a row without an answer or a tool call"
	reasonNoID           = doingCreate + ": the client returned an empty session id"

	reasonSessionLost    = "the session, which an earlier process has created, does not exist"
	reasonSuperseded     = "the process ended in the middle of the turn; the next attempt continues it"
	reasonRestart        = "the process ended in the middle of the turn, and the agent's turns are not continued"
	reasonRestartUnknown = "the process ended in the middle of the turn, and it is not known how far the session got"

	questionNotTold = "(not told)"
)

// reasonUnanswered returns the reason for ending an attempt that has no answer. The remark describes
// output that the client did not understand; it can be empty.
func reasonUnanswered(reason, remark string) string {
	if remark == "" {
		return reason
	}
	return reason + "; " + mdtext.Ends(mdtext.Valid(remark), reasonBytes)
}

// reasonIDAbove returns the reason for ending a task when the client returned a wrong id for the new
// session: the id of a session from which the task descends.
func reasonIDAbove(id string) string {
	return fmt.Sprintf("%s: the client returned the id %s, which is that of the session that delegated or of one above it", doingCreate, mdtext.Quote(id))
}

// reasonIDTaken returns the reason for ending a task when the client returned the id of another
// task's session instead of a new session's id.
func reasonIDTaken(id, owner string, expired bool) string {
	what := "task"
	if expired {
		what = "the expired task"
	}
	return fmt.Sprintf("%s: the client returned the id %s, which belongs to %s %s", doingCreate, mdtext.Quote(id), what, owner)
}

// reasonParentDeleted returns the reason for ending a task when the session that launched it was deleted.
func reasonParentDeleted(session string) string {
	return fmt.Sprintf("session %s, which launched it, was deleted", mdtext.Quote(session))
}

// reasonParentEnded returns the reason for ending a task when the task that launched it has ended.
func reasonParentEnded(task string, cause Cause) string {
	return fmt.Sprintf("task %s, which launched it, ended: %s", task, cause)
}

// reasonRestarts returns the reason for ending a task when the process ended too often without the
// task making progress.
func reasonRestarts(most int) string {
	return fmt.Sprintf("the process ended more than %d times in the turn, without progress in between", most)
}

// If a write takes too long, reasonNoAnswerOfStore returns the reason why nothing can be written.
func reasonNoAnswerOfStore(limit time.Duration) string {
	return limitStoreTimeout.decided(fmt.Sprintf("the store has not answered for %s", mdtext.Setting(limit)))
}

// reasonNoContext returns the reason for ending a task of an earlier process when its context could
// not be restored.
func reasonNoContext(why string) string {
	return "restoring its context: " + mdtext.Ends(mdtext.Valid(why), reasonBytes)
}

// reasonNotContinued is the reason for ending a task if its process is gone and the host does not want
// such tasks to be continued.
const reasonNotContinued = "the process that had the task was ended, and the next one continues no tasks"

// reasonLate returns the reason for ending a task of an earlier process when no process was running
// for too long. The argument "gone" is the time without a process, and "most" is the limit.
func reasonLate(gone, most time.Duration) string {
	return limitRestartWithin.decided(fmt.Sprintf("the program was not running for %s, longer than %s", mdtext.Setting(gone.Round(time.Second)), mdtext.Setting(most)))
}

// reasonOutdated returns the reason for ending a task of an earlier process when the store might lack
// the latest changes.
func reasonOutdated(why string) string {
	return "the store may be out of date, so none of its tasks is continued: " + why
}

// reasonNotRestored returns the reason for ending a task when its session from an earlier process could
// not be restored.
func reasonNotRestored(why string) string {
	return "the process ended in the middle of the turn; " + why
}

// promptToContinue returns the prompt that continues a turn that was interrupted when the process
// ended. The prompt repeats the request, because the session might not contain it.
func promptToContinue(request string) string {
	return "Your last turn was cut off because the program that runs you was restarted. Nobody stopped you on purpose, and any note that says so is wrong. " +
		"The request still stands, and you have not answered it yet.\n\n" +
		"Commands of that turn may have run completely, in part or not at all, and some may still run. Text that you had begun to write is lost. " +
		"Before you repeat a step, check whether it has been done.\n\n" +
		"The request was:\n\n" + request
}

func reasonNotStopped(most time.Duration) string {
	return limitStopTimeout.decided("the session of the earlier attempt did not stop within " + mdtext.Setting(most))
}

func reasonSlotLost(why string) string {
	return "its slot is lost: " + mdtext.Joined(mdtext.Valid(why), reasonBytes)
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

// reasonUnreachable returns the reason for ending an attempt when the client has failed to report
// the session's status for the duration "most". The argument "why" is the client's last error; it
// is empty if there was none.
func reasonUnreachable(most time.Duration, why string) string {
	text := "the client has not reported the session's status for " + mdtext.Setting(most)
	if why != "" {
		text += ": " + mdtext.Joined(mdtext.Valid(why), reasonBytes/2)
	}
	return limitHostUnreachable.decided(text)
}

// reasonUnread returns the reason for ending an attempt when the messages of its session have been
// unreadable for the duration "most". The argument "why" is the client's last error.
func reasonUnread(most time.Duration, why string) string {
	return limitHostUnreachable.decided(fmt.Sprintf("the messages of the session could not be read for %s, nor from the beginning: %s",
		mdtext.Setting(most), mdtext.Joined(mdtext.Valid(why), reasonBytes/2)))
}

func reasonGone(said time.Duration) string {
	return limitSessionGone.decided(fmt.Sprintf("the client has said for %s that the session does not exist", mdtext.Setting(said.Round(time.Second))))
}

// reasonStale returns the reason for ending an attempt because its turn has made no progress for
// the duration "idle". It names the last text or tool call that was seen in the turn.
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

// reasonOutage returns the reason for ending an attempt when nothing was started because the client
// could not reach its runtime.
func reasonOutage(most time.Duration, why string) string {
	return limitHostUnreachable.decided(fmt.Sprintf("nothing was started, because the agent runtime could not be reached for %s: %s", mdtext.Setting(most), why))
}

// reasonRepeated returns the reason for ending an attempt when the agent repeated a tool call too often.
func reasonRepeated(tool string, times int) string {
	return fmt.Sprintf("the tool %s was called %d times in a row with the same input and the same result; "+
		"Config.RepeatedCalls (circuitBreaker.consecutiveThreshold) decides how many are too many", mdtext.Quote(mdtext.OneLine(tool, nameMax)), times)
}

// reasonManyCalls returns the reason for ending an attempt that made too many tool calls.
func reasonManyCalls(most int) string {
	return fmt.Sprintf("the attempt made more than %d tool calls; Config.MaxToolCalls (maxToolCalls or circuitBreaker.maxToolCalls) decides how many are too many", most)
}
