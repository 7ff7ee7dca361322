package bgagent

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goldenQuestions puts the texts about questions.
func goldenQuestions(w wording, put func(name string, a answer)) {
	permission := Question{
		ID: "per_1", Key: "per_1.2f8k", Kind: QuestionPermission, Title: "May I run a | command?\n## No question", Subject: "npm test\n```\n## Question\n",
		Options: []string{"allow", "deny"}, Expires: at.Add(23 * time.Hour), State: QuestionOpen,
	}
	choice := permission
	choice.ID, choice.Key, choice.Kind, choice.Title, choice.Subject, choice.Options = "q2", "q2.9x1z", QuestionChoice, "Which branch?", "", []string{"main", "next"}
	long := permission
	long.Key, long.Subject = "per_3.77aa", strings.Repeat("0123456789abcdef", 300)
	task := runningTask()
	task.Phase, task.Progress.Detail = PhaseAsking, permission.Title
	task.Questions = []Question{permission, choice}
	put("status_question_host", w.status(task, at))
	if w.delegate == ToolDelegateTask { // otherwise the model does not have the optional tool
		w.message = ToolBackgroundMessage
	}
	put("status_question", w.status(task, at))
	w.permits = true
	parked := task
	parked.Questions, parked.Phase = []Question{permission, long, choice, permission, choice}, PhaseParked
	parked.Reason, parked.Until = reasonAsking(parked.Questions)
	put("status_question_permitted", w.status(parked, at))
	parked.Questions = nil
	parked.Reason, parked.Until = reasonAsking(nil)
	put("status_question_answered", w.status(parked, at))
	put("goes_on_asking", w.goesOn(task, false, task))
	below := pendingTask()
	below.Questions = task.Questions
	put("goes_on_asking_below", w.goesOn(runningTask(), false, below))
	put("status_asking_below", w.status(runningTask(), at, noteAsking([]Task{below, task})))
	answered := choice
	answered.State, answered.Answer = QuestionAnswered, "next"
	put("question_answered", w.questionAnswered(runningTask(), answered))
}

func TestWhatAModelMustNotAnswerIsNotOffered(t *testing.T) {
	q := Question{Key: "q1.a", Kind: QuestionPermission, Title: "May I?", Options: []string{"allow"}}
	long := q
	long.Kind, long.Subject = QuestionChoice, strings.Repeat("x", subjectShown+1)
	task := runningTask()
	for _, x := range []struct {
		w      wording
		q      Question
		offers bool
	}{
		{wording{}, q, false},
		{wording{message: "say"}, q, false},
		{wording{message: "say", permits: true}, q, true},
		{wording{message: "say", permits: true}, long, false},
	} {
		task.Questions = []Question{x.q}
		require.Equal(t, x.offers, strings.Contains(x.w.status(task, at).with(""), "say("))
	}
}
