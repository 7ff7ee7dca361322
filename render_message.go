package bgagent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about messages to running tasks.

// letterAnswer is the text of the turn that has answered a message.
type letterAnswer struct {
	no    int    // number of the message among the messages of the task
	about string // beginning of the message
	text  string
}

// withAnswers returns the text of an attempt: first its text without the messages, then the text of the
// turn of each message under a heading.
func withAnswers(first string, list []letterAnswer) string {
	if len(list) == 0 {
		return first
	}
	var b strings.Builder
	b.WriteString(strings.TrimRight(first, "\n"))
	for _, x := range list {
		if b.Len() > 0 {
			b.WriteString("\n\n")
		}
		fmt.Fprintf(&b, "## Answer to message %d: %s\n\n%s", x.no, mdtext.OneLine(x.about, messageAbout), strings.Trim(x.text, "\n"))
	}
	return b.String()
}

const unconsumedShown = 5 // maximum number of unconsumed messages that an answer quotes

// unconsumed describes the messages that an ended attempt has not got.
func (b *text) unconsumed(list []UnconsumedMessage) {
	if len(list) == 0 {
		return
	}
	b.Field("Messages not consumed", strconv.Itoa(len(list)))
	for i, u := range list {
		if i == unconsumedShown {
			b.Line(fmt.Sprintf("- and %d more", len(list)-i))
			break
		}
		b.Line("- ", mdtext.OneLine(u.Text, messageAbout))
	}
}
