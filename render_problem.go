package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What a model reads when a call was wrong: what was wrong first, then how to
// do it right.

const unknownShown = 20 // of the caller's own tasks, in the answer about an unknown one

// unknown answers about an id that is none of the caller's tasks.
func (w wording) unknown(ref string, own []Task) string {
	var b text
	b.line("None of your tasks has the id ", code(ref, idMax), ".")
	if len(own) == 0 {
		b.line("You have no tasks.")
		return b.String()
	}
	b.line("\nYour tasks, the latest last:\n")
	for _, t := range own {
		b.line("- ", code(t.ID, idMax), " ", t.Status.String(), ": ", oneLine(t.Description, titleShort), ", session ", sessionCode(t.Session))
	}
	return b.String()
}

// expired answers about a task of which only the end is known.
func (w wording) expired(e *ExpiredError) string {
	s := fmt.Sprintf("Task %s has expired: its status was %s, and its text is not kept any longer.", code(e.ID, idMax), e.Status)
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
	s := "There is no agent " + code(e.Agent, nameMax) + "."
	if len(e.Known) > 0 {
		s += " There are: " + oneLine(strings.Join(e.Known, ", "), reasonMax) + "."
	}
	return s
}

// alreadyEnded answers a cancellation that came too late.
func (w wording) alreadyEnded(t Task) string {
	s := fmt.Sprintf("Task %s cannot be cancelled: its status is %s already. Nothing was changed.", code(t.ID, idMax), t.Status)
	if w.output != "" {
		s += " To read it: " + w.read(t.ID)
	}
	return s
}

type remedy struct {
	err  error
	text string
}

// remedies are the sentences for the errors that need no more than an id.
func (w wording) remedies(ref string) []remedy {
	id := code(ref, idMax)
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
		{ErrSessionEnded, "Your own task has been ended from outside, so nothing can be launched from it any more. Bring your work to its end."},
		{ErrParentCycle, "Nothing can be launched from this session: its parents form a circle, so nobody could be told of the end. Do this work yourself."},
		{ErrClosed, "No tasks are accepted any more: the program that runs them is shutting down. Go on with what you have."},
	}
}

// What an answer says about how the call went, beside what it shows.
const (
	notePointless    = "You are a task yourself, and to wait here could keep the others from ever getting their turn. So this answers at once; what ends will be told to you as your next turn."
	noteNoSessionYet = "It has no session yet, so there are no messages."
)

const noteNoResultYet = "It has not ended, so there is no result yet; offset and from_end were not used."

func noteTimedOut(d time.Duration) string {
	if d < time.Millisecond {
		return "It has not ended. It goes on; nothing of it is lost."
	}
	return "It did not end in the " + waited(d) + " that this call has waited. It goes on; nothing of it is lost."
}

// waited is a span of which parts of a second may matter.
func waited(d time.Duration) string {
	if d < time.Second {
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	}
	return span(d)
}

func noteNoneEnded(d time.Duration) string {
	if d < time.Millisecond {
		return "None of them has ended. They go on; nothing of them is lost."
	}
	return "None of them ended in the " + waited(d) + " that this call has waited. They go on; nothing of them is lost."
}

func noteTimeoutCut() string {
	return fmt.Sprintf("timeout was cut to %d ms (%s), the longest that one call waits.", outputTimeoutMax.Milliseconds(), span(outputTimeoutMax))
}

func noteLimitCut() string {
	return fmt.Sprintf("message_limit was cut to %d, the most that one call shows.", messageLimitMax)
}
