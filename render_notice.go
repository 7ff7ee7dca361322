package bgagent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a parent reads about ends that it is told of, and about its tasks after
// its context has been compacted.

// notice makes the text of a notice. It says what ended, how and after how
// long, what is live still and how to read the results. It asks for an answer
// and never for another look at what is still running.
func (w wording) notice(n Notice) string {
	var b text
	b.Grow(min(noticeMax, 512+128*max(len(n.Items), len(n.Batch))))
	items := n.Items
	var told map[string]bool // items of the batch that are not news
	switch {
	case n.Closing && sameItems(n.Items, n.Batch):
		b.line("## All Background Tasks Ended\n")
	case n.Closing && len(n.Batch) > 0:
		b.line("## All Background Tasks Ended\n")
		told = map[string]bool{}
		items = slices.Clone(n.Batch)
		for _, it := range n.Batch {
			told[it.ID] = true
		}
		for _, it := range n.Items {
			if !told[it.ID] {
				items = append(items, it) // left over from an earlier batch, and news all the same
			}
			told[it.ID] = false
		}
	case len(items) == 1:
		b.line("## Background Task Ended\n")
	default:
		b.line("## Background Tasks Ended\n")
	}
	b.field("Notice ID", code(n.ID, idMax))
	var good, bad []NoticeItem
	for _, it := range items {
		if it.Status == Completed {
			good = append(good, it)
		} else {
			bad = append(bad, it)
		}
	}
	b.field("Completed", strconv.Itoa(len(good)))
	b.field("Not completed", strconv.Itoa(len(bad)))
	b.field("Still pending or running", strconv.Itoa(n.Live))
	if n.Omitted > 0 {
		b.field("Not listed", count(n.Omitted, "older end", "older ends")+" of this batch")
	}
	// What did not complete needs more room and is worth more of it.
	room := noticeMax - b.Len() - 800
	if len(bad) > 0 {
		b.line("\n### Not Completed\n")
		used := b.Len()
		b.items(bad, told, room*min(3, 1+2*len(bad))/5, true)
		room -= b.Len() - used
	}
	if len(good) > 0 {
		b.line("\n### Completed\n")
		b.items(good, told, room, false)
	}
	w.noticeEnd(&b, n, len(good), len(bad))
	return strings.TrimRight(b.String(), "\n")
}

// sameItems reports whether two lists speak of the same ends: mostly a batch has
// been told nothing of before it closes.
func sameItems(a, b []NoticeItem) bool {
	return slices.EqualFunc(a, b, func(x, y NoticeItem) bool { return x.ID == y.ID })
}

// items writes a table of ends. When there are too many for it, the ids of the
// others follow, as far as there is room.
func (b *text) items(items []NoticeItem, told map[string]bool, room int, failed bool) {
	head := []string{"Task ID", "Description", "Agent", "Duration"}
	if failed {
		head = []string{"Task ID", "Description", "Agent", "Status", "Duration", "Reason"}
	}
	const most = 200 // more rows than that never fit
	rows := make([][]string, min(len(items), most))
	cells := make([]string, 0, len(rows)*len(head))
	for i, it := range items[:len(rows)] {
		id, lasted := code(it.Task, idMax), span(it.Duration)
		if it.Attempt > 1 {
			id += fmt.Sprintf(" (attempt %d)", it.Attempt)
		}
		if told[it.ID] {
			lasted += " (told before)"
		}
		began := len(cells)
		cells = append(cells, id, oneLine(it.Description, titleShort), oneLine(it.Agent, nameMax))
		if failed {
			cells = append(cells, endWords(it), lasted, oneLine(it.Reason, reasonMax))
		} else {
			cells = append(cells, lasted)
		}
		rows[i] = cells[began:]
	}
	// Every end is to be named at least: what the ids of all need is kept free.
	ids := 32
	for _, it := range items {
		ids += len(" ``") + len(it.Task)
	}
	began := b.Len()
	shown := b.table(max(room-ids, room/2), head, rows)
	rest := items[shown:]
	if len(rest) == 0 {
		return
	}
	room -= b.Len() - began
	b.WriteString("\nAlso:")
	for i, it := range rest {
		s := " " + code(it.Task, idMax)
		if room -= len(s); room < 40 {
			b.WriteString(fmt.Sprintf(" and %d more", len(rest)-i))
			break
		}
		b.WriteString(s)
	}
	b.line()
}

// endWords names the state and the cause of an end that is not a completion.
func endWords(it NoticeItem) string {
	switch {
	case !it.Status.Terminal():
		return "ended" // an attempt of long ago: how is not known any more
	case it.Cause == CauseNone:
		return it.Status.String()
	default:
		return it.Status.String() + " (" + it.Cause.String() + ")"
	}
}

// noticeEnd says what to do about the notice.
func (w wording) noticeEnd(b *text, n Notice, good, bad int) {
	b.line()
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
		b.line("To read ", what, ": ", w.output, "(task_id=", id, ")")
	}
	if bad > 0 && w.delegate != "" {
		id := `"<task id>"`
		if len(n.Items) == 1 && n.Items[0].Status != Completed {
			id = arg(n.Items[0].Task)
		}
		b.line("To continue one that did not complete: ", w.delegate, "(task_id=", id, `, prompt="Continue: <your follow-up>")`)
	}
	switch {
	case n.Live == 0:
		b.line("\nTake up what you need of this and bring your work to its end.")
	case w.noNotices:
		b.line("\nTake up what you need of this now. ", w.nothingWakes("what is still pending or running ends", "for the next end", w.blockAny()))
	default:
		b.line("\nTake up what you need of this now. What is still pending or running will be told in the same way.")
	}
}

// digest describes tasks in at most limit bytes: live ones first, then those
// whose end has not been told, then the latest.
func (w wording) digest(tasks []Task, live, owed, limit int, now time.Time) string {
	head := "## Background Tasks\n\n" + fmt.Sprintf("%d live, %d ended and not told yet, %d in all.\n", live, owed, len(tasks))
	if live > 0 || owed > 0 {
		head += "Their ends are told by a notice, without your doing.\n"
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

// digestLines lists as many of the tasks as fit into room bytes.
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
	const more = 24 // "- and 10000 more"
	var b strings.Builder
	if room--; len(tasks) == 0 || room < more {
		return ""
	}
	b.WriteByte('\n')
	for i, t := range tasks {
		full := fmt.Sprintf("- %s %s, %s: %s (%s)\n", code(t.ID, idMax), t.Status, lasted(t, now), oneLine(t.Description, titleShort), oneLine(t.Agent, nameMax))
		if t.Session != "" {
			full = full[:len(full)-2] + ", session " + code(t.Session, idMax) + ")\n"
		}
		keep := room
		if i < total-1 {
			keep -= more
		}
		for _, s := range [...]string{full, fmt.Sprintf("- %s %s\n", code(t.ID, idMax), t.Status), ""} {
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
