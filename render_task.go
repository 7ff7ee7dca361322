package bgagent

import (
	"fmt"
	"strconv"
	"time"

	"github.com/bgagent/bgagent/internal/cleantext"
	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// Texts about one task.

// The method "read" returns the tool call that reads the task.
func (w wording) read(id string) string { return fmt.Sprintf("%s(task_id=%s)", w.output, arg(id)) }

// The method "task" writes the lines at the beginning of an answer about a task.
func (b *text) task(t Task) {
	b.Field("Task ID", mdtext.OneLine(t.ID, idMax))
	b.Field("Session ID", sessionLine(t.Session))
	b.Field("Description", mdtext.OneLine(t.Description, titleShown))
	b.Field("Agent", mdtext.OneLine(t.Agent, nameMax))
	b.Field("Status", t.Status.String())
}

// The method "launched" returns the answer to a call that launched a task in the background or, if
// the argument "again" is true, resumed it.
func (w wording) launched(t Task, again bool, notes ...string) answer {
	var b text
	if again {
		b.Line("Background task continued successfully.\n")
	} else {
		b.Line("Background task launched successfully.\n")
	}
	b.task(t)
	if t.Attempt > 1 {
		b.Field("Attempt", strconv.Itoa(t.Attempt))
	}
	if t.Status == Pending && t.Queue != nil {
		b.Field("Place in line", place(*t.Queue))
	}
	b.Line()
	for _, n := range notes {
		b.Line(n)
	}
	switch {
	case !t.Status.Terminal():
		b.Line(w.untilEnd(t.ID), " Launch other work that can run in parallel now, too.")
	case w.output != "":
		b.Line("It has ended already. To read the result: ", w.read(t.ID))
	}
	return answer{head: b.String()}
}

// goesOn answers a foreground call that returns before its task has ended. "deadline" is true if the
// call's time limit has passed, and "askers" holds the tasks that ask questions. If the time limit
// has not passed and no task asks, one of two other reasons applies: the task waits for its model
// provider, or the caller is itself a task and must not wait.
func (w wording) goesOn(t Task, deadline bool, askers ...Task) answer {
	var b text
	b.Line("The task goes on in the background.\n")
	b.task(t)
	if t.Status == Pending && t.Queue != nil {
		b.Field("Place in line", place(*t.Queue))
	}
	b.Line()
	switch {
	case deadline:
		b.Line("The time limit of this call passed before the task ended. Nothing is lost.")
	case t.asks() || len(askers) > 0:
		b.Line(asksBelow(t, askers))
	case t.awaitsProvider():
		b.Line(waitsForProvider(t))
	default:
		b.Line("You are a task yourself, and waiting here could keep this one from ever getting its turn.")
	}
	b.Line(w.untilAnswered(t))
	for _, a := range askers {
		if a.ID == t.ID {
			w.questions(&b, a)
		}
	}
	return answer{head: b.String()}
}

// The function "place" describes a task's place in line, and the limit and use of its pool.
func place(q QueuePlace) string {
	limit := "no limit"
	if q.Pool.Limit != Unlimited {
		limit = fmt.Sprintf("limit %d", q.Pool.Limit)
	}
	where := "far back"
	switch {
	case q.Place == 0 && q.Pool.Waiting <= slots.MaxPlace: // the place is unknown
		where = fmt.Sprintf("one of %d", max(q.Pool.Waiting, 1))
	case q.Place > 0:
		where = fmt.Sprintf("%d of %d", q.Place, max(q.Place, q.Pool.Waiting))
	}
	cools := ""
	if at := q.Pool.CoolUntil; !at.IsZero() {
		cools = ", the provider refuses requests; none before " + at.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s (pool %s: %s, %d in use%s)", where, mdtext.OneLine(q.Pool.Name, nameMax), limit, q.Pool.InUse, cools)
}

// The method "status" answers a call about a pending or running task.
func (w wording) status(t Task, now time.Time, notes ...string) answer {
	var b text
	b.Line("## Task Status\n")
	b.TableHead("Field", "Value")
	b.Row("Task ID", mdtext.Code(t.ID, idMax))
	b.Row("Description", mdtext.OneLine(t.Description, titleShown))
	b.Row("Agent", mdtext.OneLine(t.Agent, nameMax))
	b.Row("Status", "**"+t.Status.String()+"**")
	if t.Status == Pending {
		b.Row("Queued for", mdtext.Span(now.Sub(t.Queued)))
	} else {
		b.Row("Duration", mdtext.Span(t.Duration(now)))
	}
	b.Row("Session ID", sessionCode(t.Session))
	b.progress(t, now)
	b.Line()
	for _, n := range notes {
		b.Line("> ", n, "\n>")
	}
	b.Line("> **Note**: ", w.untilAnswered(t))
	w.questions(&b, t)
	if t.Result != "" {
		all := cleantext.String(t.Result)
		shown := mdtext.Tail(all, soFarMax)
		b.Line("\n## Text So Far\n")
		if len(shown) < len(all) {
			b.Line(fmt.Sprintf("The last %d of %d bytes of an answer that is not finished:\n", len(shown), len(all)))
		} else {
			b.Line("An answer that is not finished:\n")
		}
		b.WriteString(mdtext.Fence(shown))
	}
	prompt := cleantext.String(t.Prompt)
	body := "## Original Prompt\n\n"
	if len(prompt) > promptMax {
		part := mdtext.Head(prompt, promptMax)
		body += fmt.Sprintf("The first %d of %d bytes:\n\n", len(part), len(prompt))
		prompt = part
	}
	return answer{head: b.String(), body: body + prompt}
}

// The method "progress" writes the rows about the task's progress.
func (b *text) progress(t Task, now time.Time) {
	p := t.Progress
	if t.Attempt > 1 {
		b.Row("Attempt", strconv.Itoa(t.Attempt))
	}
	switch {
	case t.Status == Pending && t.Queue != nil:
		b.Row("Place in line", place(*t.Queue))
	case t.Status == Pending && t.Attempt > 1:
		b.Row("Waits for", "its earlier attempt to stop")
	}
	if t.Fallback != "" {
		b.Row("Model", mdtext.OneLine(t.Fallback, reasonMax))
	}
	if t.Phase != PhaseNone {
		b.Row("Phase", t.Phase.String())
	}
	switch {
	case t.Phase == PhaseWaiting && t.Messages > 0: // the next turn delivers a message, so it does not wait for the task's own tasks
		b.Row("Waits for", "a slot for its next turn")
	case t.Phase == PhaseWaiting:
		b.Row("Waits for", mdtext.Count(t.Waiting, "task", "tasks")+" of its own")
	}
	if t.Phase == PhaseParked {
		b.parkedRows(t, now)
	}
	if t.Messages > 0 {
		b.Row("Messages", strconv.Itoa(t.Messages)+" not in a turn yet")
	}
	switch {
	case t.Outage != nil:
		b.Row("Out of reach", outOfReach(*t.Outage, now))
	case len(t.Questions) > 0: // the questions are shown below
	case p.Detail != "" && t.Phase == PhaseAsking:
		b.Row("Asks", mdtext.OneLine(p.Detail, reasonMax))
	case p.Detail != "":
		b.Row("Detail", mdtext.OneLine(p.Detail, reasonMax))
	}
	if p.ToolCalls > 0 {
		b.Row("Tool calls", strconv.Itoa(p.ToolCalls))
	}
	if !t.Budget.Limit.isZero() {
		b.Row("Budget used", t.Budget.String())
	}
	if p.LastTool != "" {
		b.Row("Last tool", mdtext.Code(p.LastTool, nameMax))
	}
	if p.LastMessage != "" {
		ago := ""
		if !p.LastMessageAt.IsZero() {
			ago = " (" + mdtext.Span(now.Sub(p.LastMessageAt)) + " ago)"
		}
		b.Row("Last message", mdtext.OneLine(p.LastMessage, reasonMax)+ago)
	}
	if len(p.Todos) > 0 {
		open := 0
		for _, d := range p.Todos {
			if d.State.Open() {
				open++
			}
		}
		b.Row("Todos", fmt.Sprintf("%d of %d open", open, len(p.Todos)))
	}
}

// outOfReach describes an outage: how long it has lasted, when it will make the task fail, and why
// the agent runtime cannot be reached.
func outOfReach(o Outage, now time.Time) string {
	s := "its agent runtime has been unreachable for " + mdtext.Span(now.Sub(o.Since))
	if !o.Until.IsZero() {
		s += "; if this goes on, the task fails in " + mdtext.Span(max(o.Until.Sub(now), 0))
	}
	if o.Reason != "" {
		s += ": " + mdtext.OneLine(o.Reason, reasonMax)
	}
	return s
}

// The type "part" selects the bytes of a result that an answer shows.
type part struct {
	offset    int  // first byte to show
	fromEnd   bool // show the last bytes that fit
	noSession bool // the session cannot be read
}

// The method "of" returns the selected part of s (at most "room" bytes) and the part's offset in s.
func (p part) of(s string, room int) (shown string, from int) {
	room = max(room, 0)
	if p.fromEnd {
		shown = mdtext.Tail(s, room)
		return shown, len(s) - len(shown)
	}
	rest := mdtext.Tail(s, max(len(s)-p.offset, 0))
	return mdtext.Head(rest, room), max(len(s)-len(rest), p.offset) // an offset beyond the end is returned unchanged
}

var endTitles = [...]string{Completed: "Task Result", Failed: "Task Error", Cancelled: "Task Cancelled"}

// The method "ended" answers a call about a task that has ended. If the task completed, the answer
// contains its result. Otherwise, it contains the reason and the partial text, if there is any.
func (w wording) ended(t Task, p part, room int, notes ...string) answer {
	var b text
	b.Line(endTitles[t.Status], "\n")
	b.Field("Task ID", mdtext.OneLine(t.ID, idMax))
	b.Field("Description", mdtext.OneLine(t.Description, titleShown))
	if t.Status != Completed {
		b.failure(t)
	}
	if t.Started.IsZero() {
		b.Field("Duration", notStarted)
	} else {
		b.Field("Duration", mdtext.Span(t.Duration(t.Ended)))
	}
	b.Field("Session ID", sessionLine(t.Session))
	if t.Attempt > 1 {
		b.Field("Attempt", strconv.Itoa(t.Attempt))
	}
	if t.OpenTodos > 0 {
		b.Field("Open todos", fmt.Sprintf("%d left open by the agent", t.OpenTodos))
	}
	if t.Fallback != "" {
		b.Field("Model", mdtext.OneLine(t.Fallback, reasonMax))
	}
	b.unconsumed(t.Unconsumed)
	if t.Phase == PhaseStopping {
		b.Field("Phase", "stopping (its session has not come to rest yet)")
	}
	for _, n := range notes {
		b.Field("Note", n)
	}
	more := 1000 + 4*len(arg(t.ID)) + len(arg(t.Session)) // room for the lines that resultLines and continuation add
	result := cleantext.String(t.Result)
	shown, from := p.of(result, room-b.Len()-more)
	b.resultLines(w, t, p, len(result), len(shown), from)
	if t.Status != Completed {
		b.continuation(w, t)
	}
	a := answer{head: b.String()}
	if shown != "" {
		a.body = "---\n\n" + shown
	}
	return a
}

// The method "failure" writes the lines about an attempt that did not complete.
func (b *text) failure(t Task) {
	b.Field("Agent", mdtext.OneLine(t.Agent, nameMax))
	b.Field("Status", t.Status.String())
	if t.Cause != CauseNone {
		b.Field("Cause", t.Cause.String())
	}
	if t.Reason != "" {
		b.Field("Reason", mdtext.OneLine(t.Reason, reasonMax))
	}
}

// resultLines describes the part of the result that follows, and how to read the rest of it.
func (b *text) resultLines(w wording, t Task, p part, size, shown, from int) {
	kind := "Result"
	if t.Status != Completed || t.Partial {
		kind = "Partial text"
	}
	session := ""
	if w.output != "" && t.Session != "" && !p.noSession {
		session = fmt.Sprintf("%s(task_id=%s, full_session=true, from_end=true)", w.output, arg(t.ID))
	}
	switch {
	case t.Dropped:
		b.Field(kind, "not kept any longer, to save room")
		if session != "" {
			b.Field("To read it in the session", session)
		}
	case size == 0 && t.Status == Completed:
		b.noReport(w, t)
	case size == 0:
		b.Field(kind, "(none)")
	case shown == 0:
		b.Field(kind, fmt.Sprintf("%d bytes; offset=%d is behind its end", size, from))
	case shown < size:
		b.Field(kind, fmt.Sprintf("bytes %d to %d of %d", from, from+shown, size))
		if w.output != "" && from+shown < size {
			b.Field("To read on", fmt.Sprintf("%s(task_id=%s, offset=%d), or the end of it with from_end=true", w.output, arg(t.ID), from+shown))
		} else if w.output != "" {
			b.Field("To read its beginning", w.read(t.ID))
		}
	case t.Reasoning:
		b.Field(kind, fmt.Sprintf("%d bytes of what the agent thought; it wrote no answer", size))
	case kind != "Result":
		b.Field(kind, fmt.Sprintf("%d bytes of an answer that is not finished", size))
	}
	if t.Cut && size > 0 {
		b.Field("Cut", fmt.Sprintf("only the first %d bytes were kept", size))
		if session != "" {
			b.Field("To read all of it in the session", session)
		}
	}
}

// noReport describes the work of a completed task whose agent wrote no answer.
func (b *text) noReport(w wording, t Task) {
	if t.Progress.ToolCalls == 0 {
		b.Field("Result", "(none)")
		return
	}
	calls := mdtext.Count(t.Progress.ToolCalls, "tool call", "tool calls")
	b.Field("Result", fmt.Sprintf("(none: the agent wrote no answer; it made %s, the last one %s)", calls, mdtext.Code(t.Progress.LastTool, nameMax)))
	if w.delegate != "" && t.Session != "" {
		b.Field("To ask it for a report", fmt.Sprintf("%s(session_id=%s, prompt=\"Report what you have done and found.\")", w.delegate, arg(t.Session)))
	}
}

// atLimit reports whether an attempt with this cause reached a limit that another attempt would
// probably also reach. In that case, the texts contain the advice of limitAdvice and do not suggest
// continuing the task.
func atLimit(c Cause) bool { return (wording{}).limitAdvice(c) != "" }

// limitAdvice returns advice for the model about a task that has reached a limit. It returns "" for
// a cause that is not a limit.
func (w wording) limitAdvice(c Cause) string {
	switch c {
	case CauseBudget:
		return budgetAdvice
	case CauseRateLimited:
		return "The provider of its model does not accept its requests. The reason says why and, if known, from when the provider accepts them again. " +
			"Do not continue the task before that time. If no time is known, do other work first."
	case CauseRefused:
		return "Its model refused the request, and the same request would be refused again. If its work is still needed, ask for it in other words."
	case CauseLoop:
		return "It has reached a limit, which the reason names. Only the people who run this program can raise the limit; no tool can."
	case CauseTooLong:
		advice := "Its input does not fit into its model, and the same prompt would fail again."
		if w.delegate != "" {
			advice += " If its work is still needed, divide it into smaller tasks."
		}
		return advice
	}
	return ""
}

// The method "continuation" writes how to continue a task that did not complete.
func (b *text) continuation(w wording, t Task) {
	switch {
	case atLimit(t.Cause):
		b.Line("\n", w.limitAdvice(t.Cause))
	case w.delegate == "":
	case t.Session == "" || t.Cause == CauseSessionGone || t.Cause == CauseSessionDeleted:
		b.Line("\nIt has no session that could be continued. If its work is still needed, launch another task.")
	default:
		b.Line("\nIf its work is still needed, continue it where it was:\n")
		b.Line("    ", w.resume(t.Session))
	}
}

// The method "resume" returns the tool call that continues the task of the session.
func (w wording) resume(session string) string {
	return fmt.Sprintf("%s(session_id=%s, prompt=\"Continue: <your follow-up>\")", w.delegate, arg(session))
}
