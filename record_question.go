package bgagent

import "slices"

// questionRecord is the part of a task's record that describes a question from the agent.
type questionRecord struct {
	Question Question `json:"question"`          // without the subject
	Subject  string   `json:"subject,omitempty"` // name of the subject's text, while the question is open
	Turn     int32    `json:"turn"`              // number of the turn that asked the question
	Passed   bool     `json:"passed,omitempty"`  // the client has received the outcome, or needs none
	Owed     bool     `json:"owed,omitempty"`    // the parent must still be notified of the question
}

// recordQuestions makes the records of the task's questions.
func (t *task) recordQuestions(r *recorded) (list []questionRecord) {
	b := t.questions()
	if b == nil {
		return nil
	}
	for _, q := range b.list {
		if q.refused == questionInvalid {
			continue
		}
		x := questionRecord{Question: q.Question, Turn: q.turn, Passed: q.passed, Owed: q.owed}
		if x.Question.Subject = ""; q.State == QuestionOpen {
			x.Subject = r.name("question."+contentID(q.Subject), q.Subject)
		}
		list = append(list, x)
	}
	return list
}

// possibleQuestions reports whether the questions of a task are consistent with each other and with
// the task.
func (x *storedTask) possibleQuestions() bool {
	keys := map[string]bool{}
	for _, r := range x.Questions {
		q := &r.Question
		switch {
		case q.Key == "" || keys[q.Key] || q.ID == "" || q.State == 0 || q.Kind == 0 || len(q.Options) == 0 || r.Turn < 1:
			return false
		case q.State == QuestionOpen && (x.Status != Running || x.Run == nil || x.Run.Waits):
			return false
		}
		keys[q.Key] = true
	}
	return true
}

// questionTexts returns the names of the subjects of the task's open questions.
func (x *storedTask) questionTexts() (names []string) {
	for _, q := range x.Questions {
		if q.Subject != "" {
			names = append(names, q.Subject)
		}
	}
	return names
}

// openQuestions returns the questions that were open when the record was written.
func (x *storedTask) openQuestions() (list []Question) {
	for _, r := range x.Questions {
		if r.Question.State == QuestionOpen {
			list = append(list, r.Question)
		}
	}
	return list
}

// owesQuestion reports whether the parent must still be notified of the open question with the key.
func (x *storedTask) owesQuestion(key string) bool {
	return slices.ContainsFunc(x.Questions, func(r questionRecord) bool {
		return r.Question.Key == key && r.Owed && r.Question.State == QuestionOpen
	})
}

// loadQuestions restores the questions of the task from its record.
func (st *state) loadQuestions(t *task, x *storedTask) {
	if len(x.Questions) == 0 && x.LastQuestion == 0 {
		return
	}
	b := &questions{last: x.LastQuestion, from: st.at(x.AskedFrom)}
	t.extra().questions = b
	for _, r := range x.Questions {
		q := &asked{Question: r.Question, a: t.run, turn: r.Turn, expires: st.at(r.Question.Expires), passed: r.Passed, refused: questionLate}
		if q.Subject = x.texts[r.Subject]; q.State == QuestionOpen {
			b.open++
			st.openQuestions++
			st.lastQuestion++
			q.no = st.lastQuestion
		}
		q.shown = q.isShown()
		q.owed = r.Owed && st.mayTell(q)
		b.list = append(b.list, q)
	}
}
