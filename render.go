package bgagent

import (
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
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
//   - Text with several lines goes through cleantext: no escape sequences, no
//     control characters, one kind of line end.
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
type text struct{ mdtext.Builder }

// arg is a value as an argument of a tool call in a text.
func arg(s string) string { return strconv.Quote(mdtext.OneLine(s, idMax)) }

// sessionLine and sessionCode are a task's session, which may not exist yet.
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
