package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/cleantext"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about several tasks.

// taskList is a part of the list of a caller's tasks. In the list, live tasks come before ended
// tasks.
type taskList struct {
	tasks []Task
	live  int  // number of live tasks in the whole list
	skip  int  // number of tasks before this part
	more  bool // the list continues after this part
}

// The method "list" makes the answer that lists the caller's tasks.
func (w wording) list(l taskList, now time.Time, room int, notes ...string) answer {
	var b text
	b.Line("## Background Tasks\n")
	rows := make([][]string, len(l.tasks))
	ended := 0
	for i, t := range l.tasks {
		if t.Status.Terminal() {
			ended++
		}
		rows[i] = []string{mdtext.Code(t.ID, idMax), mdtext.OneLine(t.Description, titleShort), mdtext.OneLine(t.Agent, nameMax), t.Status.String(), lasted(t, now), sessionCode(t.Session)}
	}
	for _, n := range notes {
		b.Line(n, "\n")
	}
	switch {
	case len(l.tasks) == 0 && l.skip > 0:
		b.Line("There are no more: offset=", strconv.Itoa(l.skip), " is behind the end of the list.")
		return answer{head: b.String()}
	case len(l.tasks) == 0:
		b.Line("You have no background tasks.")
		if w.delegate != "" {
			b.Line("\nTo launch one: ", w.delegate, `(subagent_type="<agent>", description="<title>", prompt="<what to do>")`)
		}
		return answer{head: b.String()}
	}
	switch {
	case l.skip > 0:
		b.Line("From number ", strconv.Itoa(l.skip+1), " on. Live ones come first, then those that have ended, the latest first.\n")
	case l.more:
		b.Line(strconv.Itoa(l.live), " live, and the latest of those that have ended.\n")
	default:
		b.Line(strconv.Itoa(l.live), " live, ", strconv.Itoa(ended), " ended.\n")
	}
	const more = 600 // room for the lines after the table
	shown := b.Table(room-b.Len()-more, []string{"Task ID", "Description", "Agent", "Status", "Duration", "Session ID"}, rows)
	if shown < len(rows) || l.more {
		b.Line("\nThere are more. To list them: ", w.output, "(offset=", strconv.Itoa(l.skip+shown), ")")
	}
	if l.live > 0 {
		b.Line("\n> **Note**: ", w.untilNextEnd(l.live))
	}
	if ended > 0 && w.output != "" {
		b.Line("\nTo read the result of one that has ended: ", w.output, `(task_id="<task id>")`)
	}
	return answer{head: b.String()}
}

// The function "lasted" formats how long a task has run or waited.
func lasted(t Task, now time.Time) string {
	switch {
	case t.Status == Pending:
		return "queued for " + mdtext.Span(now.Sub(t.Queued))
	case t.Started.IsZero():
		return notStarted
	default:
		return mdtext.Span(t.Duration(now))
	}
}

// The method "cancelled" answers a cancellation. The tasks are shown with the status that they had
// right before the cancellation.
func (w wording) cancelled(tasks []Task, room int) answer {
	var b text
	if len(tasks) == 0 {
		b.Line("Cancelled 0 background task(s): none of yours was pending or running.")
		return answer{head: b.String()}
	}
	b.Line("Cancelled ", strconv.Itoa(len(tasks)), " background task(s):\n")
	rows := make([][]string, len(tasks))
	var sessions []string
	for i, t := range tasks {
		rows[i] = []string{mdtext.Code(t.ID, idMax), mdtext.OneLine(t.Description, titleShort), t.Status.String(), sessionCode(t.Session)}
		if t.Session != "" {
			sessions = append(sessions, "- "+mdtext.Code(t.Session, idMax)+" ("+mdtext.OneLine(t.Description, titleShort)+")\n")
		}
	}
	const more = 600 // room for the sentences after the table
	room -= b.Len() + more
	shown := b.Table(room*3/5, []string{"Task ID", "Description", "Status", "Session ID"}, rows)
	if left := len(rows) - shown; left > 0 {
		b.Line("\n", strconv.Itoa(left), " more, not listed here, were cancelled as well.")
	}
	if w.delegate == "" || len(sessions) == 0 {
		return answer{head: b.String()}
	}
	b.Line("\n## Continue Instructions\n\nTo continue a cancelled task, use:\n")
	b.Line("    ", w.delegate, `(session_id="<session_id>", prompt="Continue: <your follow-up>")`)
	b.Line("\nContinuable sessions:")
	room = room * 2 / 5
	for i, s := range sessions {
		if room -= len(s); room < 0 {
			b.Line("- and ", strconv.Itoa(len(sessions)-i), " more")
			break
		}
		b.WriteString(s)
	}
	return answer{head: b.String()}
}

// sessionPage holds messages from a session. An answer shows as many of them as fit.
type sessionPage struct {
	messages []Message // messages that may be shown
	first    int       // position of the page's first message in the session, counted from 1
	total    int       // number of messages in the session
	partial  bool      // the session has more messages than were read
	offset   int       // number of bytes to skip in the first message's text
	fromEnd  bool      // show the last messages that fit, not the first
	before   string    // id of the message before the first one; empty if there is no such message or its id is unknown
}

// The method "session" makes the answer that shows messages from a task's session.
func (w wording) session(t Task, p sessionPage, now time.Time, room int, notes ...string) answer {
	head := 900 + 3*len(arg(t.ID)) + len(arg(p.before)) + len(sessionLine(t.Session)) // room for the lines before the messages
	if w.noNotices {
		head += len(w.untilEnd(t.ID))
	}
	longest := 0
	for _, m := range p.messages {
		longest = max(longest, len(arg(m.ID)))
	}
	for _, s := range notes {
		head += len(s) + len("Note: \n")
	}
	body, n, cut := p.fit(room - head - longest)
	first, last := p.first, p.first+n-1
	shown := p.messages[:n]
	if p.fromEnd {
		shown = p.messages[len(p.messages)-n:]
		last = p.first + len(p.messages) - 1
		first = last - n + 1
	}

	var b text
	b.Line("Full Session\n")
	b.Field("Task ID", mdtext.OneLine(t.ID, idMax))
	b.Field("Description", mdtext.OneLine(t.Description, titleShown))
	b.Field("Status", t.Status.String())
	b.Field("Duration", lasted(t, now))
	b.Field("Session ID", sessionLine(t.Session))
	total := strconv.Itoa(p.total)
	if p.partial {
		total = "more than " + total
	}
	if n == 0 {
		b.Field("Messages", "none new of "+total)
	} else {
		b.Field("Messages", fmt.Sprintf("%d to %d of %s", first, last, total))
	}
	for _, s := range notes {
		b.Field("Note", s)
	}
	if w.output != "" && n > 0 {
		b.readOn(w, t, p, first, last, shown[n-1].ID, cut)
	}
	if !t.Status.Terminal() {
		b.Line("\n> **Note**: ", w.untilEnd(t.ID))
	}
	a := answer{head: b.String()}
	if body != "" {
		a.body = "---\n\n" + body
	}
	return a
}

// readOn writes the tool calls that read the earlier and the later messages. The arguments "first"
// and "last" are the numbers of the first and the last message shown.
func (b *text) readOn(w wording, t Task, p sessionPage, first, last int, lastID string, cut int) {
	call := fmt.Sprintf("%s(task_id=%s, full_session=true", w.output, arg(t.ID))
	if cut > 0 && !p.fromEnd {
		since := ""
		if p.before != "" {
			since = ", since_message_id=" + arg(p.before)
		}
		b.Field(fmt.Sprintf("To read on in message %d", first), fmt.Sprintf("%s%s, message_limit=1, offset=%d)", call, since, cut))
	}
	if cut > 0 && p.fromEnd {
		since := ""
		if before := p.beforeLast(); before != "" {
			since = ", since_message_id=" + arg(before)
		}
		b.Field(fmt.Sprintf("To read message %d from its beginning", first), call+since+", message_limit=1)")
	}
	switch {
	case last < p.total || p.partial:
		b.Field("To read what follows", fmt.Sprintf("%s, since_message_id=%s)", call, arg(lastID)))
	case first > 1:
		b.Field("To read from the beginning", call+")")
	}
}

// beforeLast returns the id of the message before the page's last message.
func (p sessionPage) beforeLast() string {
	if n := len(p.messages); n > 1 {
		return p.messages[n-2].ID
	}
	return p.before
}

// fit renders as many messages as fit into the given room, in bytes, but at least one. n is the
// number of rendered messages. If the text of the first message had to be cut, the result "cut" is
// the offset of the cut in that text. If fromEnd is set, callers check only whether "cut" is
// greater than 0.
func (p sessionPage) fit(room int) (body string, n, cut int) {
	var parts []string
	for i := range p.messages {
		k := i
		if p.fromEnd {
			k = len(p.messages) - 1 - i
		}
		msg := p.messages[k]
		msg.Text = cleantext.String(msg.Text)
		offset, note := 0, ""
		if k == 0 && !p.fromEnd && p.offset > 0 {
			whole := len(msg.Text)
			msg.Text = mdtext.Tail(msg.Text, max(whole-p.offset, 0))
			if offset = whole - len(msg.Text); msg.Text == "" {
				note = fmt.Sprintf(", offset=%d is behind the end of its %d bytes", p.offset, whole)
			}
		}
		s := renderMessage(msg, p.first+k, note)
		if i == 0 && len(s) > room {
			over := len(s) - max(room, 0) + 64
			if p.fromEnd {
				msg.Text = mdtext.Tail(msg.Text, max(len(msg.Text)-over, 0))
				s = renderMessage(msg, p.first+k, ", only its end")
			} else {
				msg.Text = mdtext.Head(msg.Text, max(len(msg.Text)-over, 0))
				s = renderMessage(msg, p.first+k, ", cut")
			}
			cut = offset + len(msg.Text)
		}
		if i > 0 && len(s) > room {
			break
		}
		room -= len(s)
		parts = append(parts, s)
	}
	if p.fromEnd {
		for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
			parts[i], parts[j] = parts[j], parts[i]
		}
	}
	return strings.Join(parts, ""), len(parts), cut
}

// renderMessage formats one message. The text of the message is in a fence, because other messages
// follow.
func renderMessage(m Message, number int, note string) string {
	var b text
	who := m.Role.String()
	b.Line(fmt.Sprintf("### Message %d (%s%s)\n", number, who, note))
	b.Field("Message ID", mdtext.Code(m.ID, idMax))
	if !m.Time.IsZero() {
		b.Field("Time", m.Time.UTC().Format(time.RFC3339))
	}
	const tools = 50
	for i, t := range m.Tools {
		if i == tools {
			b.Field("Tools", strconv.Itoa(len(m.Tools)-i)+" more calls")
			break
		}
		b.Field("Tool", mdtext.Code(t.Name, nameMax)+" "+t.State.String())
	}
	if m.Stop != StopUntold && m.Stop != StopEndOfTurn && m.Stop != StopToolCalls {
		b.Field("Stopped", m.Stop.String())
	}
	if m.Error != "" {
		b.Field("Error", mdtext.OneLine(m.Error, reasonMax))
	}
	b.Line()
	if m.Text != "" {
		b.Line(mdtext.Fence(m.Text))
	}
	return b.String()
}
