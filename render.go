package bgagent

import (
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
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
type text struct{ mdtext.Builder }

// arg formats a value as an argument of a tool call.
func arg(s string) string { return strconv.Quote(mdtext.OneLine(s, idMax)) }

// sessionLine and sessionCode format a task's session, which may not exist yet.
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
