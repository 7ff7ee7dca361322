package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// All text that a model reads is made in the files render*.go, by pure functions
// of values. The rules for what comes from outside (descriptions, names,
// messages, errors, ids):
//
//   - What stands in a line of ours goes through oneLine: one line, no control or
//     invisible characters, valid UTF-8, of bounded length. In a table row goes
//     through escapeCell as well, in a code span through code. None of it can so
//     begin a line, end a cell or end a code span.
//   - What may have several lines is either the very last thing in an answer (a
//     result, a partial text, a prompt), so that whatever it pretends to be,
//     everything after its beginning is known to be it; or it stands in a fence
//     that is longer than any in it. Nothing of ours follows such a last thing:
//     how to read on and what is owed stand before it. That also keeps a notice
//     alive in hosts that cut long tool results at the end.
//   - A notice holds no results, only lines.

// Bounds of what is rendered, in bytes.
const (
	answerMax  = 32 << 10 // of an answer of a tool, with the notice in it
	noticeMax  = 14 << 10 // of a notice, so that the rest of an answer has room beside it
	idMax      = 512
	nameMax    = 100
	titleShown = titleMax
	titleShort = 100 // of a description in a table of many
	reasonMax  = 400
	rowMax     = 1024 // of any cell
	promptMax  = 8 << 10
	soFarMax   = 4 << 10 // of the text so far of a running task
)

const notStarted = "(not started)"

// wording holds the names by which the model knows the tools. An empty name is
// that of a tool it does not have: nothing then speaks of it.
type wording struct {
	delegate, output, cancel string

	// noNotices: nothing wakes the model when a task ends. No text then promises a
	// notice or lets it end its turn; it is told to wait instead.
	noNotices bool
}

var defaultWording = wording{delegate: ToolDelegateTask, output: ToolBackgroundOutput, cancel: ToolBackgroundCancel}

// answer is a text for a model, in two parts.
type answer struct {
	head string // ours
	body string // somebody else's, which begins with a line of ours; always comes last
}

// with puts what is owed between the two.
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

// text is a builder with the few forms that texts are made of.
type text struct{ strings.Builder }

func (b *text) line(s ...string) {
	for _, s := range s {
		b.WriteString(s)
	}
	b.WriteByte('\n')
}

func (b *text) field(label, value string) { b.line(label, ": ", value) }

// row writes a table row. Whatever the cells hold, it is one row of that many
// cells.
func (b *text) row(cells ...string) {
	b.cells(safeCells(cells))
}

// safeCells escapes cells in place and returns them.
func safeCells(cells []string) []string {
	for i, c := range cells {
		cells[i] = escapeCell(oneLine(c, rowMax))
	}
	return cells
}

// cells writes a row of cells that are safe already.
func (b *text) cells(cells []string) {
	b.WriteByte('|')
	for _, c := range cells {
		b.WriteByte(' ')
		b.WriteString(c)
		b.WriteString(" |")
	}
	b.WriteByte('\n')
}

func (b *text) tableHead(cells ...string) {
	b.row(cells...)
	b.WriteString("|" + strings.Repeat(" --- |", len(cells)) + "\n")
}

// table writes as many rows as fit into room bytes, and returns how many.
func (b *text) table(room int, head []string, rows [][]string) (shown int) {
	b.tableHead(head...)
	room += b.Len()
	for _, cells := range rows {
		long := len("|\n")
		for _, c := range safeCells(cells) {
			long += len(c) + len("  |")
		}
		if b.Len()+long > room {
			break
		}
		b.cells(cells)
		shown++
	}
	return shown
}

// oneLine makes text from outside one line of at most max bytes: white space and
// control characters become single spaces, invisible format characters
// (direction marks, tags) go, except the joiners that scripts and emoji need.
func oneLine(s string, max int) string {
	if len(s) <= max && isPlain(s) {
		return s
	}
	const joiner, nonJoiner = '\u200d', '\u200c'
	var b strings.Builder
	gap := false
	for _, r := range s { // an invalid byte comes as U+FFFD
		switch {
		case unicode.IsSpace(r) || unicode.IsControl(r):
			gap = b.Len() > 0
			continue
		case unicode.Is(unicode.Cf, r) && r != joiner && r != nonJoiner:
			continue
		}
		if gap {
			b.WriteByte(' ')
			gap = false
		}
		b.WriteRune(r)
		if b.Len() > max {
			return strings.TrimRight(cutAtRune(b.String(), max-len("…")), " ") + "…"
		}
	}
	return b.String()
}

// isPlain reports whether s is one line of printable ASCII with single spaces
// between words, as most text is: there is nothing to do about it then.
func isPlain(s string) bool {
	last := byte(' ')
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ' ' && last == ' ' {
			return false
		}
		last = s[i]
	}
	return s == "" || last != ' '
}

// escapeCell escapes what would end a cell. Backslashes are doubled only where
// they stand before a bar, so that paths stay as they are.
func escapeCell(s string) string {
	if !strings.Contains(s, "|") {
		return s
	}
	var b strings.Builder
	slashes := 0
	for i := range len(s) {
		if s[i] == '|' {
			b.WriteString(strings.Repeat(`\`, slashes) + `\`)
		}
		if s[i] == '\\' {
			slashes++
		} else {
			slashes = 0
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// code makes a code span of text from outside.
func code(s string, max int) string {
	s = oneLine(s, max)
	if s != "" && strings.IndexByte(s, '`') < 0 {
		return "`" + s + "`"
	}
	tick := strings.Repeat("`", longestRun(s, '`', 0)+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") || s == "" {
		s = " " + s + " "
	}
	return tick + s + tick
}

// fence puts text from outside into a fence that nothing in it can end.
func fence(s string) string {
	// A run without end would make a fence without end.
	const run = "````````````````````````````````"
	s = strings.ReplaceAll(s, run, run+" ")
	ticks := strings.Repeat("`", max(3, longestRun(s, '`', 0)+1))
	return ticks + "\n" + strings.TrimRight(clean(s), "\n") + "\n" + ticks + "\n"
}

// longestRun returns the length of the longest run of c in s, at least least.
func longestRun(s string, c byte, least int) int {
	run := 0
	for i := range len(s) {
		if s[i] != c {
			run = 0
			continue
		}
		run++
		least = max(least, run)
	}
	return least
}

// arg is a value as an argument of a tool call in a text.
func arg(s string) string { return strconv.Quote(oneLine(s, idMax)) }

// sessionLine and sessionCode are a task's session, which may not exist yet.
func sessionLine(session string) string {
	if session == "" {
		return notStarted
	}
	return oneLine(session, idMax)
}

func sessionCode(session string) string {
	if session == "" {
		return notStarted
	}
	return code(session, idMax)
}

// span writes a duration in whole seconds: 45s, 2m 15s, 1h 2m 3s; from a day on
// in whole hours: 21d 0h.
func span(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s >= 24*3600:
		return fmt.Sprintf("%dd %dh", s/(24*3600), s/3600%24)
	case s >= 3600:
		return fmt.Sprintf("%dh %dm %ds", s/3600, s/60%60, s%60)
	case s >= 60:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	default:
		return fewSeconds[s]
	}
}

// fewSeconds are the durations that most often have to be written.
var fewSeconds = func() (names [60]string) {
	for i := range names {
		names[i] = strconv.Itoa(i) + "s"
	}
	return names
}()

// count writes a number with its noun: 1 task, 3 tasks.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// tailAtRune returns at most the last n bytes of s, and no half rune.
func tailAtRune(s string, n int) string {
	if len(s) <= n {
		return s
	}
	i := len(s) - n
	for i < len(s) && s[i]&0xc0 == 0x80 {
		i++
	}
	return s[i:]
}
