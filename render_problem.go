package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about wrong calls. Each first describes the mistake and then the correct call.

const unknownShown = 20 // maximum number of the caller's tasks that an answer about an unknown id lists

// The method "unknown" answers a call with an id that does not belong to any of the caller's tasks.
func (w wording) unknown(ref string, own []Task) string {
	var b text
	b.Line("None of your tasks has the id ", mdtext.Code(ref, idMax), ".")
	if len(own) == 0 {
		b.Line("You have no tasks.")
		return b.String()
	}
	b.Line("\nYour tasks, the latest last:\n")
	for _, t := range own {
		b.Line("- ", mdtext.Code(t.ID, idMax), " ", t.Status.String(), ": ", mdtext.OneLine(t.Description, titleShort), ", session ", sessionCode(t.Session))
	}
	return b.String()
}

// The method "expired" answers a call about a task whose record has expired.
func (w wording) expired(e *ExpiredError) string {
	s := fmt.Sprintf("Task %s has expired: its status was %s, and its text is not kept any longer.", mdtext.Code(e.ID, idMax), e.Status)
	switch {
	case w.delegate == "":
	case e.Session == "":
		s += " It has no session. If its work is still needed, launch another task."
	default:
		s += "\n\nIts session can still be continued:\n\n    " + w.resume(e.Session)
	}
	return s
}

func (w wording) noSuchAgent(e *NoSuchAgentError) string {
	s := "There is no agent " + mdtext.Code(e.Agent, nameMax) + "."
	if len(e.Known) > 0 {
		s += " There are: " + mdtext.OneLine(strings.Join(e.Known, ", "), reasonMax) + "."
	}
	return s
}

// alreadyEnded answers a cancellation of a task that has already ended.
func (w wording) alreadyEnded(t Task) string {
	s := fmt.Sprintf("Task %s cannot be cancelled: its status is %s already. Nothing was changed.", mdtext.Code(t.ID, idMax), t.Status)
	if w.output != "" {
		s += " To read it: " + w.read(t.ID)
	}
	return s
}

type remedy struct {
	err  error
	text string
}

// The method "remedies" returns errors, each with the answer that the model gets. These answers
// depend only on the id that the model passed.
func (w wording) remedies(ref string) []remedy {
	id := mdtext.Code(ref, idMax)
	live := "Task " + id + " has not ended, so it cannot be continued yet. " + w.continueThen()
	if w.cancel != "" {
		live += " If it should do something else instead, cancel it first: " + w.cancel + "(task_id=<its task id>)"
	}
	full := "No more tasks can be launched now: too many are pending or running. " + w.launchThen()
	if w.cancel != "" {
		full += ", or cancel what is not needed with " + w.cancel
	}
	return []remedy{
		{ErrStillLive, live},
		{ErrNotStopped, "Task " + id + " cannot be continued: its session did not stop when it was told to and may still be working. Launch another task for what is left to do."},
		{ErrNoSession, "Task " + id + " cannot be continued: its session was deleted. Launch another task for what is left to do."},
		{ErrDepth, "Tasks may not delegate any further at this depth. Do this work yourself."},
		{ErrTooManyTasks, full + "."},
		{ErrSessionEnded, "Your own task was ended from outside, so nothing can be launched from it any more. Finish your work."},
		{ErrParentCycle, "Nothing can be launched from this session: its parents form a cycle, so nobody could be told about the end. Do this work yourself."},
		{ErrClosed, "No tasks are accepted any more: the program that runs them is shutting down. Go on with what you have."},
	}
}

// Notes that are shown in addition to a call's answer.
const (
	notePointless    = "You are a task yourself, and waiting here could keep the others from ever getting their turn. So this call answers at once. Your next turn will tell you what has ended."
	noteNoSessionYet = "It has no session yet, so there are no messages."
)

const noteNoResultYet = "It has not ended, so there is no result yet; offset and from_end were not used."

func noteTimedOut(d time.Duration) string {
	if d < time.Millisecond {
		return "It has not ended. It continues; nothing is lost."
	}
	return "It did not end in the " + waited(d) + " that this call waited. It continues; nothing is lost."
}

// The function "waited" formats a duration like mdtext.Span, but with milliseconds if it is less
// than a second.
func waited(d time.Duration) string {
	if d < time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return mdtext.Span(d)
}

func noteNoneEnded(d time.Duration) string {
	if d < time.Millisecond {
		return "None of them has ended. They continue; nothing is lost."
	}
	return "None of them ended in the " + waited(d) + " that this call waited. They continue; nothing is lost."
}

func noteTimeoutCut() string {
	return fmt.Sprintf("timeout was cut to %d ms (%s), the longest that one call waits.", outputTimeoutMax.Milliseconds(), mdtext.Span(outputTimeoutMax))
}

func noteLimitCut() string {
	return fmt.Sprintf("message_limit was cut to %d, the most that one call shows.", messageLimitMax)
}

// Texts about how a model is told that a task has ended. A model can end its turn if its host can
// wake it later. A model that is never woken, such as the caller of an MCP server, would lose its
// tasks if it ended its turn. Therefore, the texts for such models describe how to wait.

// untilEnd returns advice on what to do until the task ends.
func (w wording) untilEnd(id string) string {
	if !w.noNotices {
		return "Nothing has to be done to wait for it: go on with other work, or end your turn. A notice comes by itself when the task ends."
	}
	return w.nothingWakes("the task ends", "for the end", w.block(id))
}

// untilNextEnd returns advice on what to do until the next of n tasks ends.
func (w wording) untilNextEnd(n int) string {
	switch {
	case !w.noNotices && n == 1:
		return w.untilEnd("")
	case !w.noNotices:
		return "Nothing has to be done to wait for them: go on with other work, or end your turn. A notice comes by itself when they end."
	case n == 1:
		return w.nothingWakes("the task ends", "for the end", w.blockAny())
	default:
		return w.nothingWakes("they end", "for the next end", w.blockAny())
	}
}

func (w wording) nothingWakes(when, what, call string) string {
	s := "Nothing wakes you when " + when + ". Go on with other work"
	if w.output == "" {
		return s + "; " + w.toldWithTheNextAnswer()
	}
	return s + "; when nothing else is left to do, wait " + what + ": " + call + ". If the time runs out first, wait again."
}

// toldWithTheNextAnswer describes how a model without background_output is told that a task has
// ended.
func (w wording) toldWithTheNextAnswer() string {
	var names []string
	for _, n := range [...]string{w.delegate, w.cancel} {
		if n != "" {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "you cannot wait for an end."
	}
	return "an end is reported with the answer to your next call to " + strings.Join(names, " or ") + "."
}

// The method "block" returns the call that waits until the task ends.
func (w wording) block(id string) string { return w.output + "(task_id=" + arg(id) + ", block=true)" }

// blockAny returns the call that waits until any of the tasks ends.
func (w wording) blockAny() string { return w.output + "(block=true)" }

// continueThen describes when a task that has not ended can be continued.
func (w wording) continueThen() string {
	switch {
	case !w.noNotices:
		return "A notice comes when it ends; continue it then."
	case w.output == "":
		return "Continue it when it has ended; " + w.toldWithTheNextAnswer()
	default:
		return "To wait for its end: " + w.output + "(task_id=<its task id>, block=true). Continue it then."
	}
}

// launchThen describes when another task can be launched if the limit on live tasks has been
// reached. The caller adds the rest of the sentence.
func (w wording) launchThen() string {
	switch {
	case !w.noNotices:
		return "Go on when the next notice has told of an end"
	case w.output == "":
		return "Launch it when one of them has ended"
	default:
		return "Wait for the next end with " + w.blockAny()
	}
}
