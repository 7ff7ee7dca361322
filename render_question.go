package bgagent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/cleantext"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// Texts about questions that agents ask.

// Limits on what a text shows about questions.
const (
	questionsShown = 3  // questions of a task
	askersShown    = 10 // tasks that ask
)

// reasonAnswered says why a task waits for a slot after its question has been answered.
const reasonAnswered = "waits for a slot, because its question is no longer open"

// reasonAsking says what a task that is parked in its turn waits for, and when its first question
// expires.
func reasonAsking(list []Question) (reason string, until time.Time) {
	if len(list) == 0 {
		return reasonAnswered, until
	}
	for _, q := range list {
		if until.IsZero() || q.Expires.Before(until) {
			until = q.Expires
		}
	}
	return "waits for an answer: " + list[0].Title, until
}

// The method "asks" reports whether the task waits for an answer, or for a slot after its question is
// over.
func (t Task) asks() bool {
	return len(t.Questions) > 0 || t.Phase == PhaseParked && t.Reason == reasonAnswered
}

// The method "questions" describes the open questions of a task, and how to answer them.
func (w wording) questions(b *text, t Task) {
	for i, q := range t.Questions {
		b.Line("\n## Question\n")
		if i == questionsShown {
			b.Line(fmt.Sprintf("The task asks %d further questions.", len(t.Questions)-i))
			return
		}
		w.question(b, t.ID, q)
	}
}

// The method "question" describes an open question of the task with the given id, and how to answer it.
func (w wording) question(b *text, id string, q Question) {
	b.Field("Asks", mdtext.OneLine(q.Title, questionTitle))
	b.Field("Kind", q.Kind.String())
	if w.mayAnswer(q) {
		b.Field("Key", mdtext.Code(q.Key, idMax))
	}
	var options []string
	for _, o := range q.Options {
		options = append(options, mdtext.Code(o, questionOption))
	}
	b.Field("Options", strings.Join(options, ", "))
	b.Field("Expires", q.Expires.UTC().Format(time.RFC3339))
	subject := cleantext.String(q.Subject)
	switch {
	case mdtext.Invisible(subject):
	case q.isShown():
		b.WriteString("\n" + mdtext.Fence(subject))
	default:
		b.Line(fmt.Sprintf("\nThe subject has %d bytes and is not shown. Only the host can answer.", len(subject)))
		return
	}
	if !w.mayAnswer(q) {
		b.Line("\nYou cannot answer this question. The host has been asked.")
		return
	}
	b.Line("\nTo answer it with one of the options:\n\n    " + fmt.Sprintf("%s(task_id=%s, question=%s, answer=\"<option>\")", w.message, arg(id), arg(q.Key)))
}

// noticeQuestions describes the questions that a notice reports. The last questions are shown with only their
// titles if there is no room for more.
func (w wording) noticeQuestions(b *text, n Notice) {
	const short = 300 // more than the size of a line with a title
	room := noticeMax - b.Len() - 800
	if len(n.Items) > 0 {
		room /= 2
	}
	rest := n.Questions
	for len(rest) > 0 {
		q := rest[0]
		var full text
		full.Line("\n### Question\n")
		full.Field("Task ID", mdtext.Code(q.Task, idMax))
		full.Field("Description", mdtext.OneLine(q.Description, titleShort))
		full.Field("Agent", mdtext.OneLine(q.Agent, nameMax))
		w.question(&full, q.Task, q.Question)
		if full.Len()+(len(rest)-1)*short > room {
			break
		}
		b.WriteString(full.String())
		room -= full.Len()
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return
	}
	b.Line("\n### More Questions\n")
	for _, q := range rest {
		b.Line("- ", mdtext.Code(q.Task, idMax), " asks: ", mdtext.OneLine(q.Question.Title, questionTitle))
	}
	if w.output != "" {
		b.Line("\nTo see these questions: ", w.output, `(task_id="<task id>")`)
	}
}

// oneAsks reports whether all questions in the notice come from one task.
func (n *Notice) oneAsks() bool {
	return len(n.Questions) > 0 && !slices.ContainsFunc(n.Questions, func(q NoticeQuestion) bool { return q.Task != n.Questions[0].Task })
}

// awaitsAnswers returns the line of a notice that says which tasks wait for answers.
func awaitsAnswers(n Notice) string {
	if n.oneAsks() {
		if len(n.Questions) > 1 {
			return "The task that asks waits for the answers. The host has been asked, too."
		}
		return "The task that asks waits for the answer. The host has been asked, too."
	}
	return "The tasks that ask wait for the answers. The host has been asked, too."
}

// untilAnswered says what a task that asks questions waits for. If the model cannot answer any of
// them, the text is the same as for any other task that has not ended.
func (w wording) untilAnswered(t Task) string {
	for _, q := range t.Questions {
		if w.mayAnswer(q) {
			return "The task goes on once its question is answered. Answer it now; see below."
		}
	}
	return w.untilEnd(t.ID)
}

// mayAnswer reports whether the model has the tool and the right to answer the question.
func (w wording) mayAnswer(q Question) bool {
	return w.message != "" && q.isForModels(w.permits)
}

// asksBelow says that the task, or tasks below it, ask questions. "askers" holds the tasks that
// ask.
func asksBelow(t Task, askers []Task) string {
	if len(t.Questions) > 0 || len(askers) == 0 {
		return "It goes on in the background, because it asks a question."
	}
	s := "It goes on in the background, because tasks below it ask questions:"
	for i, a := range askers {
		if i == askersShown {
			return s + fmt.Sprintf(" and %d more", len(askers)-i)
		}
		s += " " + mdtext.Code(a.ID, idMax)
	}
	return s
}

// noteAsking says why a call that waits for tasks returns before they have ended.
func noteAsking(askers []Task) string {
	s := "This call does not wait any longer, because an answer is awaited by"
	for i, a := range askers {
		if i == askersShown {
			return s + fmt.Sprintf(" and %d more", len(askers)-i)
		}
		s += " " + mdtext.Code(a.ID, idMax) + " (" + mdtext.OneLine(a.Questions[0].Title, titleShort) + ")"
	}
	return s + "."
}

// questionAnswered confirms that a call has answered a question.
func (w wording) questionAnswered(t Task, q Question) answer {
	var b text
	b.Line("Question answered.\n")
	b.task(t)
	b.Field("Question", mdtext.OneLine(q.Title, questionTitle))
	b.Field("Answer", mdtext.Code(q.Answer, questionOption))
	b.Line()
	b.Line("Its agent goes on with this answer.")
	b.Line(w.untilEnd(t.ID))
	return answer{head: b.String()}
}

// questionIsOver is the reply to a call that tried to answer a question that is over.
func (w wording) questionIsOver(ref string, q Question) string {
	s := "The question of task " + mdtext.Code(ref, idMax) + " was not answered by this call: "
	switch q.State {
	case QuestionAnswered:
		return s + "it has been answered already with " + mdtext.Code(q.Answer, questionOption) + "."
	case QuestionExpired:
		return s + "it has expired."
	default:
		return s + "the task no longer asks it."
	}
}

func (w wording) noSuchQuestion(ref, key string) string {
	s := "Task " + mdtext.Code(ref, idMax) + " does not ask the question " + mdtext.Code(key, idMax) + "."
	if w.output != "" {
		s += " To see its questions: " + w.read(ref)
	}
	return s
}

func notPermitted(ref string) string {
	return "You may not answer this question of task " + mdtext.Code(ref, idMax) + ". Only the host can answer it, and it has been asked."
}

func answerUncertain(ref string) string {
	return "The answer for task " + mdtext.Code(ref, idMax) + " is not stored yet. The agent gets it once it is stored."
}
