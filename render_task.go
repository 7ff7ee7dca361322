package bgagent

import (
	"fmt"
	"strconv"
	"time"
)

// What a model reads about one task.

// read is the call that reads the task.
func (w wording) read(id string) string { return fmt.Sprintf("%s(task_id=%s)", w.output, arg(id)) }

// launched answers a launch or a resume in the background.
func (w wording) launched(t Task, again bool, notes ...string) answer {
	var b text
	if again {
		b.line("Background task continued successfully.\n")
	} else {
		b.line("Background task launched successfully.\n")
	}
	b.field("Task ID", oneLine(t.ID, idMax))
	b.field("Session ID", sessionLine(t.Session))
	b.field("Description", oneLine(t.Description, titleShown))
	b.field("Agent", oneLine(t.Agent, nameMax))
	b.field("Status", t.Status.String())
	if t.Attempt > 1 {
		b.field("Attempt", strconv.Itoa(t.Attempt))
	}
	if t.Status == Pending && t.Queue != nil {
		b.field("Place in line", place(*t.Queue))
	}
	b.line()
	for _, n := range notes {
		b.line(n)
	}
	switch {
	case !t.Status.Terminal():
		b.line(w.untilEnd(t.ID), " Whatever else can be done side by side is best launched now, too.")
	case w.output != "":
		b.line("It has ended already. To read the result: ", w.read(t.ID))
	}
	return answer{head: b.String()}
}

// goesOn answers a call in the foreground whose task outlasts it.
func (w wording) goesOn(t Task, deadline bool) answer {
	var b text
	b.line("The task goes on in the background.\n")
	b.field("Task ID", oneLine(t.ID, idMax))
	b.field("Session ID", sessionLine(t.Session))
	b.field("Description", oneLine(t.Description, titleShown))
	b.field("Agent", oneLine(t.Agent, nameMax))
	b.field("Status", t.Status.String())
	if t.Status == Pending && t.Queue != nil {
		b.field("Place in line", place(*t.Queue))
	}
	b.line()
	if deadline {
		b.line("The time that this call may take was over before the task ended; nothing of it is lost.")
	} else {
		b.line("You are a task yourself, and to wait here could keep this one from ever getting its turn.")
	}
	b.line(w.untilEnd(t.ID))
	return answer{head: b.String()}
}

// place says where in line a task is, and why it has to wait.
func place(q QueuePlace) string {
	limit := "no limit"
	if q.Pool.Limit != Unlimited {
		limit = fmt.Sprintf("limit %d", q.Pool.Limit)
	}
	where := "far back"
	if q.Place > 0 {
		where = fmt.Sprintf("%d of %d", q.Place, max(q.Place, q.Pool.Waiting))
	}
	return fmt.Sprintf("%s (pool %s: %s, %d in use)", where, oneLine(q.Pool.Name, nameMax), limit, q.Pool.InUse)
}

// status answers about a task that is pending or running.
func (w wording) status(t Task, now time.Time, notes ...string) answer {
	var b text
	b.line("## Task Status\n")
	b.tableHead("Field", "Value")
	b.row("Task ID", code(t.ID, idMax))
	b.row("Description", oneLine(t.Description, titleShown))
	b.row("Agent", oneLine(t.Agent, nameMax))
	b.row("Status", "**"+t.Status.String()+"**")
	if t.Status == Pending {
		b.row("Queued for", span(now.Sub(t.Queued)))
	} else {
		b.row("Duration", span(t.Duration(now)))
	}
	b.row("Session ID", sessionCode(t.Session))
	b.progress(t, now)
	b.line()
	for _, n := range notes {
		b.line("> ", n, "\n>")
	}
	b.line("> **Note**: ", w.untilEnd(t.ID))
	if t.Result != "" {
		all := clean(t.Result)
		shown := tailAtRune(all, soFarMax)
		b.line("\n## Text So Far\n")
		if len(shown) < len(all) {
			b.line(fmt.Sprintf("The last %d of %d bytes of an answer that is not finished:\n", len(shown), len(all)))
		} else {
			b.line("An answer that is not finished:\n")
		}
		b.WriteString(fence(shown))
	}
	prompt := clean(t.Prompt)
	body := "## Original Prompt\n\n"
	if len(prompt) > promptMax {
		part := cutAtRune(prompt, promptMax)
		body += fmt.Sprintf("The first %d of %d bytes:\n\n", len(part), len(prompt))
		prompt = part
	}
	return answer{head: b.String(), body: body + prompt}
}

// progress writes the rows about what is known beyond the state.
func (b *text) progress(t Task, now time.Time) {
	p := t.Progress
	if t.Attempt > 1 {
		b.row("Attempt", strconv.Itoa(t.Attempt))
	}
	switch {
	case t.Status == Pending && t.Queue != nil:
		b.row("Place in line", place(*t.Queue))
	case t.Status == Pending && t.Attempt > 1:
		b.row("Waits for", "its earlier attempt to stop")
	}
	if t.Phase != PhaseNone {
		b.row("Phase", t.Phase.String())
	}
	if t.Phase == PhaseWaiting {
		b.row("Waits for", count(t.Waiting, "task", "tasks")+" of its own")
	}
	switch {
	case p.Detail != "" && t.Phase == PhaseAsking:
		b.row("Asks", oneLine(p.Detail, reasonMax))
	case p.Detail != "":
		b.row("Detail", oneLine(p.Detail, reasonMax))
	}
	if p.ToolCalls > 0 {
		b.row("Tool calls", strconv.Itoa(p.ToolCalls))
	}
	if p.LastTool != "" {
		b.row("Last tool", code(p.LastTool, nameMax))
	}
	if p.LastMessage != "" {
		ago := ""
		if !p.LastMessageAt.IsZero() {
			ago = " (" + span(now.Sub(p.LastMessageAt)) + " ago)"
		}
		b.row("Last message", oneLine(p.LastMessage, reasonMax)+ago)
	}
	if len(p.Todos) > 0 {
		open := 0
		for _, d := range p.Todos {
			if d.State.Open() {
				open++
			}
		}
		b.row("Todos", fmt.Sprintf("%d of %d open", open, len(p.Todos)))
	}
}

// part says which part of a result to show.
type part struct {
	offset    int  // first byte
	fromEnd   bool // the last that fits
	noSession bool // the session cannot be read
}

// of returns the part of s that fits into room bytes, and where it lies.
func (p part) of(s string, room int) (shown string, from int) {
	room = max(room, 0)
	if p.fromEnd {
		shown = tailAtRune(s, room)
		return shown, len(s) - len(shown)
	}
	rest := tailAtRune(s, max(len(s)-p.offset, 0))
	return cutAtRune(rest, room), max(len(s)-len(rest), p.offset) // behind the end it is the offset
}

var endTitles = [...]string{Completed: "Task Result", Failed: "Task Error", Cancelled: "Task Cancelled"}

// ended answers about a task that has ended: its result, or why there is none
// and what there is instead.
func (w wording) ended(t Task, p part, room int, notes ...string) answer {
	var b text
	b.line(endTitles[t.Status], "\n")
	b.field("Task ID", oneLine(t.ID, idMax))
	b.field("Description", oneLine(t.Description, titleShown))
	if t.Status != Completed {
		b.failure(t)
	}
	if t.Started.IsZero() {
		b.field("Duration", notStarted)
	} else {
		b.field("Duration", span(t.Duration(t.Ended)))
	}
	b.field("Session ID", sessionLine(t.Session))
	if t.Attempt > 1 {
		b.field("Attempt", strconv.Itoa(t.Attempt))
	}
	if t.OpenTodos > 0 {
		b.field("Open todos", fmt.Sprintf("%d left open by the agent", t.OpenTodos))
	}
	if t.Phase == PhaseStopping {
		b.field("Phase", "stopping (its session has not come to rest yet)")
	}
	for _, n := range notes {
		b.field("Note", n)
	}
	more := 1000 + 4*len(arg(t.ID)) + len(arg(t.Session)) // room for what resultLines and continuation add
	result := clean(t.Result)
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

// failure writes how and why an attempt ended without a result.
func (b *text) failure(t Task) {
	b.field("Agent", oneLine(t.Agent, nameMax))
	b.field("Status", t.Status.String())
	if t.Cause != CauseNone {
		b.field("Cause", t.Cause.String())
	}
	if t.Reason != "" {
		b.field("Reason", oneLine(t.Reason, reasonMax))
	}
}

// resultLines says what the text that follows is, and how to read the rest.
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
		b.field(kind, "not kept any longer, to save room")
		if session != "" {
			b.field("To read it in the session", session)
		}
	case size == 0:
		b.field(kind, "(none)")
	case shown == 0:
		b.field(kind, fmt.Sprintf("%d bytes; offset=%d is behind its end", size, from))
	case shown < size:
		b.field(kind, fmt.Sprintf("bytes %d to %d of %d", from, from+shown, size))
		if w.output != "" && from+shown < size {
			b.field("To read on", fmt.Sprintf("%s(task_id=%s, offset=%d), or the end of it with from_end=true", w.output, arg(t.ID), from+shown))
		} else if w.output != "" {
			b.field("To read its beginning", w.read(t.ID))
		}
	case kind != "Result":
		b.field(kind, fmt.Sprintf("%d bytes of an answer that is not finished", size))
	}
	if t.Cut && size > 0 {
		b.field("Cut", fmt.Sprintf("only the first %d bytes were kept", size))
		if session != "" {
			b.field("To read all of it in the session", session)
		}
	}
}

// continuation says how to go on with a task that did not complete.
func (b *text) continuation(w wording, t Task) {
	switch {
	case w.delegate == "":
	case t.Session == "" || t.Cause == CauseSessionGone || t.Cause == CauseSessionDeleted:
		b.line("\nIt has no session that could be continued. If its work is still needed, launch another task.")
	default:
		b.line("\nIf its work is still needed, continue it where it was:\n")
		b.line("    ", w.resume(t.Session))
	}
}

// resume is the call that continues a task.
func (w wording) resume(session string) string {
	return fmt.Sprintf("%s(session_id=%s, prompt=\"Continue: <your follow-up>\")", w.delegate, arg(session))
}
