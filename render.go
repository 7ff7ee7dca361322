package bgagent

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// The files render*.go make all texts that a model reads. They contain pure functions of values.
// These rules apply to text from outside, such as descriptions, names, messages, errors and ids:
//
//   - Text in one of our lines goes through oneLine: one line of bounded length, valid UTF-8, without
//     control and invisible characters. In a table row it also goes through escapeCell, in a code span
//     through code. So it cannot begin a line, end a cell or end a code span.
//   - Text with several lines (a result, a partial text, a prompt) is either the last part of an answer,
//     so that everything after its beginning belongs to it, whatever it pretends to be; or it is in a
//     fence that is longer than any fence inside. Nothing of ours follows such a last part: the lines
//     about reading on and the notice come before it. So a notice also survives in hosts that cut long
//     tool results at the end.
//   - Text with several lines goes through cleantext: no escape sequences, no control characters, one
//     kind of line end.
//   - A notice contains lines only, never results.

// Bounds of what is rendered, in bytes.
const (
	answerMax  = 32 << 10 // of the answer of a tool, including a notice
	noticeMax  = 14 << 10 // of a notice; leaves room for the rest of an answer
	idMax      = 512
	nameMax    = 100
	titleShown = titleMax
	titleShort = 100 // of a description in a table of many tasks
	reasonMax  = 400
	rowMax     = 1024 // of a cell
	promptMax  = 8 << 10
	soFarMax   = 4 << 10 // of the text so far of a running task
)

const notStarted = "(not started)"

// wording holds the tool names that the model knows. If a name is empty, the model does not have
// that tool, and no text mentions it.
type wording struct {
	delegate, output, cancel string

	// noNotices says that nothing wakes the model when a task ends. Texts then promise no notice
	// and do not let the model end its turn. They tell it to wait instead.
	noNotices bool
}

var defaultWording = wording{delegate: ToolDelegateTask, output: ToolBackgroundOutput, cancel: ToolBackgroundCancel}

// answer is a text for a model, in two parts.
type answer struct {
	head string // our own text
	body string // text from outside, after a line of ours; always the last part
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

// text is a builder with the forms that the texts consist of.
type text struct{ strings.Builder }

func (b *text) line(s ...string) {
	for _, s := range s {
		b.WriteString(s)
	}
	b.WriteByte('\n')
}

func (b *text) field(label, value string) { b.line(label, ": ", value) }

// row writes one table row with that many cells, whatever they contain.
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

// cells writes a row of cells that are already safe.
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

// table writes as many rows as fit into room bytes and returns their number.
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

// oneLine turns text from outside into one line of at most max bytes. White space and control
// characters become single spaces. Escape sequences and invisible format characters (direction
// marks, tags) are removed, except the joiners that scripts and emoji need.
func oneLine(s string, max int) string {
	if len(s) <= max && isPlain(s) {
		return s
	}
	if strings.ContainsAny(s, escapes) {
		s = cleantext.String(cutAtRune(s, 16*max))
	}
	const joiner, nonJoiner = '\u200d', '\u200c'
	var b strings.Builder
	gap := false
	for _, r := range s { // an invalid byte is decoded as U+FFFD
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

// escapes are the characters that begin an escape sequence: ESC, and the control characters that
// stand for ESC and one more character.
const escapes = "\x1b\u0090\u0098\u009b\u009d\u009e\u009f"

// isPlain reports whether s is one line of printable ASCII with single spaces between words. Most
// text is, and needs no cleaning.
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

// escapeCell escapes the bars that would end a cell. It doubles backslashes only before a bar, so
// that paths stay readable.
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

// fence puts text from outside into a fence that the text cannot end.
func fence(s string) string {
	s = cleantext.String(s) // first, because this can join two runs of backquotes
	// An unbounded run would need an unbounded fence.
	const run = "````````````````````````````````"
	s = strings.ReplaceAll(s, run, run+" ")
	ticks := strings.Repeat("`", max(3, longestRun(s, '`', 0)+1))
	return ticks + "\n" + strings.TrimRight(s, "\n") + "\n" + ticks + "\n"
}

// longestRun returns the length of the longest run of c in s, but no less than least.
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

// arg formats a value as an argument of a tool call.
func arg(s string) string { return strconv.Quote(oneLine(s, idMax)) }

// sessionLine and sessionCode format a task's session, which may not exist yet.
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

// span formats a duration in whole seconds: 45s, 2m 15s, 1h 2m 3s. From one day on it uses whole
// hours: 21d 0h.
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

// fewSeconds are the durations that occur most often.
var fewSeconds = func() (names [60]string) {
	for i := range names {
		names[i] = strconv.Itoa(i) + "s"
	}
	return names
}()

// count formats a number with its noun: 1 task, 3 tasks.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// tailAtRune returns at most the last n bytes of s, without a partial rune.
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
