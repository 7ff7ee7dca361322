package bgagent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The texts of notices, and the digest of a session's tasks for a parent whose context was
// compacted.

// The method "told" adds the text to the notice if the notice has none yet.
func (w wording) told(n Notice) Notice {
	if n.Text == "" {
		n.Text = w.notice(n)
	}
	return n
}

// The method "notice" returns the text of a notice. The text shows the questions that tasks ask,
// and lists the tasks that ended, each with its status and duration. The text states how many tasks
// are still live and how to read the results. It asks the model to use the results and not to poll
// tasks that are still running.
func (w wording) notice(n Notice) string {
	var b text
	b.Grow(min(noticeMax, 512+128*max(len(n.Items), len(n.Batch))))
	items := n.Items
	var told map[string]bool // keyed by item id; true if an earlier notice reported the item
	switch {
	case n.Closing && sameItems(n.Items, n.Batch):
		b.Line("## All Background Tasks Ended\n")
	case n.Closing && len(n.Batch) > 0:
		b.Line("## All Background Tasks Ended\n")
		told = map[string]bool{}
		items = slices.Clone(n.Batch)
		for _, it := range n.Batch {
			told[it.ID] = true
		}
		for _, it := range n.Items {
			if !told[it.ID] {
				items = append(items, it) // from an earlier batch, but not reported yet
			}
			told[it.ID] = false
		}
	case len(items) == 0 && n.oneAsks():
		b.Line("## Background Task Asks\n")
	case len(items) == 0 && len(n.Questions) > 0:
		b.Line("## Background Tasks Ask\n")
	case len(items) == 1:
		b.Line("## Background Task Ended\n")
	default:
		b.Line("## Background Tasks Ended\n")
	}
	b.Field("Notice ID", mdtext.Code(n.ID, idMax))
	good, bad := completedFirst(items)
	ends := len(items) > 0 || len(n.Questions) == 0
	if ends {
		b.Field("Completed", strconv.Itoa(len(good)))
		b.Field("Not completed", strconv.Itoa(len(bad)))
	}
	if len(n.Questions) > 0 {
		b.Field("Questions", strconv.Itoa(len(n.Questions)))
	}
	b.Field("Still pending or running", strconv.Itoa(n.Live))
	if n.Omitted > 0 {
		b.Field("Not listed", mdtext.Count(n.Omitted, "older end", "older ends")+" of this batch")
	}
	w.noticeQuestions(&b, n)
	// Attempts that did not complete get more room, because their rows include a reason.
	room := noticeMax - b.Len() - 800
	if len(bad) > 0 {
		b.Line("\n### Not Completed\n")
		used := b.Len()
		b.items(bad, told, room*min(3, 1+2*len(bad))/5, true)
		room -= b.Len() - used
	}
	if len(good) > 0 {
		b.Line("\n### Completed\n")
		b.items(good, told, room, false)
	}
	b.fallbacks(items, noticeMax-b.Len()-800)
	b.results(items, noticeMax-b.Len()-800)
	if len(n.Questions) > 0 {
		b.Line("\n", awaitsAnswers(n))
	}
	if ends {
		w.noticeEnd(&b, n, len(good), bad)
	}
	return strings.TrimRight(b.String(), "\n")
}

// completedFirst divides the items into those that completed and the others. Usually all of them belong to
// one part, and nothing is copied.
func completedFirst(items []NoticeItem) (good, bad []NoticeItem) {
	completed := func(it NoticeItem) bool { return it.Status == Completed }
	other := func(it NoticeItem) bool { return !completed(it) }
	switch {
	case !slices.ContainsFunc(items, other):
		return items, nil
	case !slices.ContainsFunc(items, completed):
		return nil, items
	}
	return slices.DeleteFunc(slices.Clone(items), other), slices.DeleteFunc(slices.Clone(items), completed)
}

// sameItems reports whether two lists describe the same attempts. The items and the batch of a
// closing notice are usually the same, because usually no task of the batch was reported earlier.
func sameItems(a, b []NoticeItem) bool {
	return slices.EqualFunc(a, b, func(x, y NoticeItem) bool { return x.ID == y.ID })
}

// The method "items" writes a table of attempts that have ended. If some rows do not fit, the ids
// of the tasks in these rows follow the table, as far as there is room.
func (b *text) items(items []NoticeItem, told map[string]bool, room int, failed bool) {
	head := []string{"Task ID", "Description", "Agent", "Duration"}
	if failed {
		head = []string{"Task ID", "Description", "Agent", "Status", "Duration", "Reason"}
	}
	const most = 200 // a notice never has room for more rows
	rows := make([][]string, min(len(items), most))
	cells := make([]string, 0, len(rows)*len(head))
	for i, it := range items[:len(rows)] {
		id, lasted := mdtext.Code(it.Task, idMax), mdtext.Span(it.Duration)
		if it.Attempt > 1 {
			id += fmt.Sprintf(" (attempt %d)", it.Attempt)
		}
		if told[it.ID] {
			lasted += " (told before)"
		}
		if it.NoAnswer {
			lasted += " (wrote no answer)"
		}
		if it.Unconsumed > 0 {
			lasted += " (" + mdtext.Count(it.Unconsumed, "message", "messages") + " not consumed)"
		}
		began := len(cells)
		cells = append(cells, id, mdtext.OneLine(it.Description, titleShort), mdtext.OneLine(it.Agent, nameMax))
		if failed {
			cells = append(cells, endWords(it), lasted, mdtext.OneLine(it.Reason, reasonMax))
		} else {
			cells = append(cells, lasted)
		}
		rows[i] = cells[began:]
	}
	// Keep room for the ids of all items, so that every item is mentioned at least by its id.
	ids := 32
	for _, it := range items {
		ids += len(" ``") + len(it.Task)
	}
	began := b.Len()
	shown := b.Table(max(room-ids, room/2), head, rows)
	rest := items[shown:]
	if len(rest) == 0 {
		return
	}
	room -= b.Len() - began
	b.WriteString("\nAlso:")
	for i, it := range rest {
		s := " " + mdtext.Code(it.Task, idMax)
		if room -= len(s); room < 40 {
			b.WriteString(fmt.Sprintf(" and %d more", len(rest)-i))
			break
		}
		b.WriteString(s)
	}
	b.Line()
}

// The method "fallbacks" lists the tasks that continued with another model, or as many of them as the given
// room allows.
func (b *text) fallbacks(items []NoticeItem, room int) {
	head := "\n### On Other Models\n\n"
	for _, it := range items {
		if it.Fallback == "" {
			continue
		}
		s := head + "- " + mdtext.Code(it.Task, idMax) + ": " + mdtext.OneLine(it.Fallback, reasonMax) + "\n"
		if room -= len(s); room < 0 {
			return
		}
		b.WriteString(s)
		head = ""
	}
}

// The method "results" writes the results that the notice contains, as many as fit. The notice can
// contain only the beginning of a result.
func (b *text) results(items []NoticeItem, room int) {
	head := "\n### Results\n"
	for _, it := range items {
		if mdtext.Invisible(it.Result) {
			continue
		}
		title := "\n" + mdtext.Code(it.Task, idMax) + " (" + mdtext.OneLine(it.Description, titleShort) + ")"
		if it.Status != Completed {
			title += ", partial"
		}
		if it.Cut {
			title += ", the beginning"
		}
		s := head + title + ":\n\n" + mdtext.Fence(it.Result)
		if len(s) > room {
			continue // a shorter result might still fit
		}
		b.WriteString(s)
		room -= len(s)
		head = ""
	}
}

// endWords describes the status and the cause of an attempt that did not complete.
func endWords(it NoticeItem) string {
	switch {
	case !it.Status.Terminal():
		return "ended" // an old attempt whose status is no longer known
	case it.Cause == CauseNone:
		return it.Status.String()
	default:
		return it.Status.String() + " (" + it.Cause.String() + ")"
	}
}

// howToContinue writes how to continue the tasks that did not complete, and why some of them should not
// be continued.
func (w wording) howToContinue(b *text, n Notice, ended []NoticeItem) {
	var limits []Cause
	others := 0
	for _, it := range ended {
		switch {
		case !atLimit(it.Cause):
			others++
		case !slices.Contains(limits, it.Cause):
			limits = append(limits, it.Cause)
		}
	}
	for _, c := range limits {
		prefix := ""
		if len(ended) > 1 {
			prefix = "About a task that ended with the cause " + c.String() + ": "
		}
		b.Line(prefix, w.limitAdvice(c))
	}
	if others > 0 && w.delegate != "" {
		id, which := `"<task id>"`, "one that did not complete"
		if len(n.Items) == 1 && n.Items[0].Status != Completed && !atLimit(n.Items[0].Cause) {
			id = arg(n.Items[0].Task)
		}
		if len(limits) > 0 {
			which = "another one that did not complete"
		}
		b.Line("To continue ", which, ": ", w.delegate, "(task_id=", id, `, prompt="Continue: <your follow-up>")`)
	}
}

// noticeEnd writes the end of the notice, which says what the model can do next.
func (w wording) noticeEnd(b *text, n Notice, good int, ended []NoticeItem) {
	b.Line()
	if w.output != "" {
		id := `"<task id>"`
		if len(n.Items) == 1 {
			id = arg(n.Items[0].Task)
		}
		what := "a result"
		switch {
		case good == 0:
			what = "what there is of it"
		case len(n.Items) == 1 && n.Items[0].Status == Completed:
			what = "the result"
		}
		b.Line("To read ", what, ": ", w.output, "(task_id=", id, ")")
	}
	w.howToContinue(b, n, ended)
	switch {
	case n.Live == 0:
		b.Line("\nUse what you need from these results and continue.")
	case w.noNotices:
		b.Line("\nUse what you need from these results now. ", w.nothingWakes("what is still pending or running ends", "for the next end", w.blockAny()))
	default:
		b.Line("\nUse what you need from these results now. A notice will also come for what is still pending or running.")
	}
}

// The method "digest" describes the tasks in at most the given number of bytes. Live tasks come
// first, then ended tasks whose notice is still owed. The other tasks follow, beginning with the
// task that ended most recently.
func (w wording) digest(tasks []Task, live, owed, limit int, now time.Time) string {
	head := "## Background Tasks\n\n" + fmt.Sprintf("%d live, %d ended and not told yet, %d in all.\n", live, owed, len(tasks))
	if live > 0 || owed > 0 {
		head += "A notice comes by itself when they end.\n"
	}
	if w.output != "" {
		head += "To read a result: " + w.output + "(task_id=\"<task id>\")\n"
	}
	for _, short := range [...]string{head, fmt.Sprintf("Background tasks: %d live, %d not told, %d in all.\n", live, owed, len(tasks))} {
		if len(short) <= limit {
			return strings.TrimRight(short+digestLines(tasks, len(tasks), limit-len(short), now), "\n")
		}
	}
	return ""
}

// digestLines lists as many tasks as fit into the given room, in bytes, one per line.
func digestLines(tasks []Task, total, room int, now time.Time) string {
	tasks = slices.Clone(tasks)
	rank := func(t Task) int {
		switch {
		case !t.Status.Terminal():
			return 0
		case t.Notice == NoticeOwed:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(tasks, func(a, b Task) int {
		if d := rank(a) - rank(b); d != 0 || rank(a) < 2 {
			return d
		}
		return b.Ended.Compare(a.Ended)
	})
	const more = 24 // room for the line "- and 10000 more"
	var b strings.Builder
	if room--; len(tasks) == 0 || room < more {
		return ""
	}
	b.WriteByte('\n')
	for i, t := range tasks {
		full := fmt.Sprintf("- %s %s, %s: %s (%s)\n", mdtext.Code(t.ID, idMax), t.Status, lasted(t, now), mdtext.OneLine(t.Description, titleShort), mdtext.OneLine(t.Agent, nameMax))
		if t.Session != "" {
			full = full[:len(full)-2] + ", session " + mdtext.Code(t.Session, idMax) + ")\n"
		}
		keep := room
		if i < total-1 {
			keep -= more
		}
		for _, s := range [...]string{full, fmt.Sprintf("- %s %s\n", mdtext.Code(t.ID, idMax), t.Status), ""} {
			if s == "" {
				if room >= more {
					fmt.Fprintf(&b, "- and %d more\n", total-i)
				}
				return b.String()
			}
			if len(s) <= keep {
				b.WriteString(s)
				room -= len(s)
				break
			}
		}
	}
	return b.String()
}
