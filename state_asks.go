package bgagent

import "slices"

// The code in this file opens or refuses the questions that runners ask and that starters report. It
// also decides what becomes of the questions from an earlier process.

// refusesQuestion returns the reason for refusing a question immediately. It returns notRefused if the
// question may be opened.
func (st *state) refusesQuestion(t *task, q *Question) refusedQuestion {
	switch {
	case !st.cfg.Ask:
		return questionsOff
	case st.openQuestions >= questionsOpen:
		return questionsFull
	case st.cfg.OnlyModelsAnswer && !(st.cfg.answers && t.up.session != "" && !t.up.gone && q.isForModels(st.cfg.ModelsMayPermit)):
		return questionNotForModels
	}
	return notRefused
}

// askFor opens a runner's question, or returns an error that says why nobody is asked.
func (st *state) askFor(a *attempt, turn int32, q Question, w *waiter, now int64) (*asked, error) {
	if !a.live() || a.turn != turn || a.turnStart == 0 || a.halted() != nil || st.suspend == frozen {
		return nil, notAsked(questionLate)
	}
	if why := st.refusesQuestion(a.t, &q); why != notRefused {
		return nil, notAsked(why)
	}
	b := a.inquiries()
	b.last++
	q.ID = "q" + itoa(int(b.last))
	return st.openQuestion(a, &q, w, now), nil
}

func (a *attempt) inquiries() *questions {
	x := a.t.extra()
	if x.questions == nil {
		x.questions = &questions{}
	}
	return x.questions
}

// hostAsks applies the list of open questions that a starter reports for a session.
func (st *state) hostAsks(a *attempt, list []Question, now int64) {
	if !a.cl.answers {
		return
	}
	keys := map[string]bool{}
	for i := range list {
		if q := &list[i]; q.check(true) == nil {
			keys[keyOfQuestion(q)] = true
		}
	}
	if b := a.t.questions(); b != nil {
		for _, x := range slices.Clone(b.list) {
			if x.State == QuestionOpen && !keys[x.Key] {
				st.questionOver(x, QuestionWithdrawn, now)
			}
		}
	}
	for i := range list {
		q := &list[i]
		err, usable := q.check(true), q.checkID() == nil
		if usable && a.t.question(keyOfQuestion(q)) != nil {
			continue
		}
		if err != nil {
			st.logText(logAnswerFailed, a.t.sess.id, err.Error())
		}
		switch why := st.refusesQuestion(a.t, q); {
		case !usable: // the id is not valid, so the runtime could not identify the refused question
		case err != nil:
			st.refuseQuestion(a, &Question{ID: q.ID, Key: keyOfQuestion(q), Kind: q.Kind, Title: q.Title}, questionInvalid, err.Error(), now)
		case why != notRefused:
			st.refuseQuestion(a, q, why, "", now)
		default:
			st.openQuestion(a, q, nil, now)
		}
	}
}

// refuseQuestion refuses a starter's question immediately.
func (st *state) refuseQuestion(a *attempt, q *Question, why refusedQuestion, problem string, now int64) {
	x := st.newAsked(a, q, now)
	x.State, x.refused, x.problem = QuestionWithdrawn, why, problem
	if why == questionInvalid {
		x.Key = q.Key // digest of the whole question, which might be too large to keep
	}
	a.inquiries().add(x)
	st.wantPass(x)
}

// leaveQuestions withdraws a runner's questions, because the process in which the runner asked them
// has ended. A starter's questions stay open, because its server might still be asking them. An
// outcome that might not have reached the client is passed to the client again.
func (st *state) leaveQuestions(a *attempt, now int64) {
	if a.t.questions() == nil {
		return
	}
	if a.cl.runner {
		st.asksNoMore(a, now)
		return
	}
	for _, x := range a.t.questions().list {
		if x.State != QuestionOpen && !x.passed {
			st.wantPass(x)
		}
	}
}
