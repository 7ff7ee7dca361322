package bgagent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about messages to running tasks.

// letterAnswer is the text of the turn that answered a message.
type letterAnswer struct {
	no    int    // number of the message among the messages of the task
	about string // beginning of the message
	text  string
}

// withAnswers returns the text of an attempt: first its text without the messages, then the text of
// each message's turn under a heading.
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

// The method "unconsumed" describes the messages that the attempt might not have received before it
// ended.
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
		maybe := ""
		if u.Uncertain {
			maybe = " (its agent may have got it)"
		}
		b.Line("- ", mdtext.OneLine(u.Text, messageAbout), maybe)
	}
}

func (w wording) messageDescription() string {
	s := "Send a message to a background task of yours that has not ended, for example to correct it or to add to its work. " +
		"Its agent gets the message when it has finished what it is doing, and its result then answers the message, too.\n\n" +
		"Do not use it to ask how a task is getting on: every message costs a turn."
	if w.delegate != "" {
		s += " A task that has ended is continued with " + w.delegate + " instead."
	}
	s += "\n\nIt also answers a question that a task asks: with question and answer in place of message."
	return s
}

// messageSent answers a call that sent a message.
func (w wording) messageSent(r SendResult) answer {
	t := r.Task
	var b text
	switch r.State {
	case MessageAccepted:
		b.Line("Message accepted.\n")
	case MessageInTurn:
		b.Line("Message delivered.\n")
	case MessageUnconsumed:
		b.Line("Message not delivered.\n")
	default:
		b.Line("Message sent, with an unknown outcome.\n")
	}
	b.task(t)
	if t.Messages > 1 {
		b.Field("Messages that wait", strconv.Itoa(t.Messages))
	}
	b.Line()
	switch r.State {
	case MessageAccepted:
		b.Line("Its agent gets the message when it has finished what it is doing. The task does not complete before that.")
	case MessageInTurn:
		b.Line("Its agent has got the message.")
	case MessageUnconsumed:
		b.Line("The task ended before its agent had got the message.")
	default:
		b.Line("It is not known whether its agent has got the message.")
	}
	if !t.Status.Terminal() {
		b.Line(w.untilEnd(t.ID))
	} else if w.output != "" {
		b.Line("To read the result of the task: ", w.read(t.ID))
	}
	return answer{head: b.String()}
}

// messageTooLate answers a call with a message for a task that has ended.
func (w wording) messageTooLate(ref, session string) string {
	s := "Task " + mdtext.Code(ref, idMax) + " has ended, so the message was not sent."
	switch {
	case w.delegate == "":
	case session == "":
		s += " If its work is still needed, launch another task."
	default:
		s += "\n\nTo continue the task with a message:\n\n    " + w.resume(session)
	}
	return s
}

// messageNotNow answers a call with a message for a task whose end is not durable yet. Until the end is
// durable, it must not be shown.
func (w wording) messageNotNow(ref string) string {
	return "The message was not sent: the state of task " + mdtext.Code(ref, idMax) + " cannot be stored at present. Go on with your other work."
}

func (w wording) tooManyMessages(ref string) string {
	return fmt.Sprintf("Task %s already has %d messages that its agent has not got yet, so this one was not sent. Wait until it has got some, and put what you have to say into one message.", mdtext.Code(ref, idMax), messagesWaiting)
}

func (w wording) tooManyJoin(ref string) string {
	return fmt.Sprintf("%d messages have already joined what the agent of task %s is doing now, so this one was not sent. Send it without now; the agent then gets it as soon as it has finished that.", messagesJoining, mdtext.Code(ref, idMax))
}

// cannotJoin answers a call with a message that cannot join the agent's running turn.
func (w wording) cannotJoin(ref string) string {
	return "The message was not sent: nothing can join what the agent of task " + mdtext.Code(ref, idMax) + " is doing now. Send it without now; the agent then gets it as soon as it has finished that."
}

func (w wording) messageUncertain(ref string) string {
	return "It is not known whether task " + mdtext.Code(ref, idMax) + " has got the message. Before you send it again, consider whether it may come twice."
}
