package bgagent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goldenQuestions passes the texts about questions to the function "put".
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
	if w.delegate == ToolDelegateTask { // with other tool names, the model does not have the optional tool
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

	ask := func(q Question) NoticeQuestion {
		return NoticeQuestion{Task: "bg_abc123", Session: "sess_xyz789", Description: "Explore: find the | code\n## No", Agent: "explore", Question: q}
	}
	n := Notice{ID: "bgn_5e6f7g", Live: 2, Questions: []NoticeQuestion{ask(permission)}}
	put("notice_question", answer{head: w.notice(n)})
	n.Items = []NoticeItem{{ID: "bgn_1.1", Task: "bg_ghi789", Attempt: 1, Description: "Oracle: look at the design", Agent: "oracle", Status: Completed, Duration: time.Minute}}
	n.Questions = append(n.Questions, ask(choice))
	put("notice_question_and_end", answer{head: w.notice(n)})
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

// Even the maximum number of questions, each as large as possible, leaves room for the ended tasks
// in the same notice.
func TestANoticeMentionsEveryQuestionAndEveryEnd(t *testing.T) {
	w := wording{output: ToolBackgroundOutput, message: ToolBackgroundMessage, delegate: ToolDelegateTask}
	q := Question{Kind: QuestionChoice, Title: strings.Repeat("t", questionTitle), Subject: strings.Repeat("s", subjectShown), Key: strings.Repeat("k", questionIDBytes+keyDigest)}
	for i := range questionOptions {
		q.Options = append(q.Options, strings.Repeat("o", questionOption-2)+string(rune('a'+i)))
	}
	for questions := range questionsOpen + 1 {
		for _, ends := range []int{0, 1, 5, 100} {
			n := Notice{ID: "bgn_5e6f7g", Live: 2}
			for i := range questions {
				n.Questions = append(n.Questions, NoticeQuestion{Task: fmt.Sprintf("bg_asks%02d", i), Description: strings.Repeat("d", titleMax), Agent: strings.Repeat("a", nameMax), Question: q})
			}
			for i := range ends {
				n.Items = append(n.Items, NoticeItem{ID: fmt.Sprint(i), Task: fmt.Sprintf("bg_ended%03d", i), Status: Failed, Cause: CauseSessionError, Reason: strings.Repeat("r", reasonMax)})
			}
			text := w.notice(n)
			require.LessOrEqual(t, len(text), noticeMax, "%d questions, %d ends", questions, ends)
			for _, q := range n.Questions {
				require.Contains(t, text, "`"+q.Task+"`")
			}
			if questions > 2 {
				require.Contains(t, text, "### More Questions")
			}
			for _, it := range n.Items {
				require.Contains(t, text, it.Task, "%d questions, %d ends", questions, ends)
			}
		}
	}
}
