package bgagent

import (
	"slices"
	"strconv"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The code in this file handles the questions that agents ask in their turns.
//
//	ask, or an event -> open -> answer: answered -------------------> passed: the client has the outcome
//	                         -> its time runs out: expired --------->
//	                         -> the client no longer asks, or the turn or the process ends: withdrawn
//
// Until the client has the outcome, the turn's clocks are paused. A runner's turn that does not
// report anything for a minute gives its slot back; see forAnswer in state_park.go. The outcome is
// then passed on only once the attempt has a slot again. A starter's turn keeps its slot, because a
// person can answer the question directly at the server, and the turn would then continue without a
// slot.

// The type "questions" holds the questions of a task.
type questions struct {
	list []*asked // oldest first; old questions that are over are dropped
	last int32    // number of the latest question that a runner asked
	open int      // number of questions in the state QuestionOpen
	from int64    // when the attempt's clocks were paused; 0 if they are running
}

// asked is the record of a question.
type asked struct {
	Question
	a       *attempt
	turn    int32
	no      uint64  // sequence number among all questions that this manager has opened
	w       *waiter // waiter of Reporter.Ask; nil for a starter's question
	expires int64
	owed    bool // the parent must still be notified of the question; see state_question_told.go
	shown   bool // the subject is short enough to be shown to models; computed once, because it takes time
	passed  bool // the client has received the outcome, or needs none
	refused refusedQuestion
	problem string // with questionInvalid: description of the problem
}

// refusedQuestion is the reason why a question was refused immediately.
type refusedQuestion uint8

const (
	notRefused           refusedQuestion = iota
	questionsOff                         // Config.Ask is not set
	questionsFull                        // too many questions are open
	questionNotForModels                 // no model may answer the question, and nobody else can (Config.OnlyModelsAnswer)
	questionLate                         // the turn has ended
	questionInvalid                      // a starter reported an invalid question; not recorded, because its server might ask it again
)

// The method "questions" returns the task's questions, or nil if the task has not asked any.
func (t *task) questions() *questions {
	if t.more == nil {
		return nil
	}
	return t.more.questions
}

// The method "asks" reports whether the attempt has an open question.
func (a *attempt) asks() bool {
	b := a.t.questions()
	return b != nil && b.open > 0
}

// clocksStand reports whether the clocks of the attempt's turn are paused by a question.
func (a *attempt) clocksStand() bool {
	b := a.t.questions()
	return b != nil && b.from > 0
}

// openQuestions returns copies of the open questions of a task.
func (t *task) openQuestions() (list []Question) {
	b := t.questions()
	if b == nil || b.open == 0 {
		return nil
	}
	for _, x := range b.list {
		if x.State == QuestionOpen {
			list = append(list, *x.Question.clone())
		}
	}
	return list
}

// asksBelow reports whether the task, or a task below it, has an open question whose number is
// greater than the given one. If models is true, an earlier question that a model may answer also
// counts.
func (st *state) asksBelow(t *task, after uint64, models bool) bool {
	if st.openQuestions == 0 || st.lastQuestion <= after && !models {
		return false
	}
	counts := func(x *asked) bool {
		return x.State == QuestionOpen && (x.no > after || models && x.isForModels(st.cfg.ModelsMayPermit))
	}
	asks := t.asksAny(counts)
	if own := t.ownNode(); own != nil {
		own.each(func(t *task) { asks = asks || t.asksAny(counts) })
	}
	return asks
}

func (t *task) asksAny(counts func(*asked) bool) bool {
	b := t.questions()
	return b != nil && b.open > 0 && slices.ContainsFunc(b.list, counts)
}

// isForModels reports whether a model may answer the question. permits is Config.ModelsMayPermit.
func (x *asked) isForModels(permits bool) bool {
	return x.shown && (x.Kind != QuestionPermission || permits)
}

// keyOfQuestion returns the key of a question.
func keyOfQuestion(q *Question) string {
	parts := append([]string{q.Kind.String(), q.Title, q.Subject}, q.Options...)
	return q.ID + "." + strconv.FormatUint(storedHash(parts...), 36)
}

// newAsked makes the record of a question that the attempt asks. The time at which the question
// expires must come from onClock.
func (st *state) newAsked(a *attempt, q *Question, now int64) *asked {
	x := &asked{Question: *q.clone(), a: a, turn: a.turn}
	x.Key = keyOfQuestion(q)
	x.Title, x.Subject = mdtext.Joined(mdtext.Valid(q.Title), questionTitle), mdtext.Valid(q.Subject)
	x.shown = x.Question.isShown()
	x.expires = now + int64(questionExpiry)
	if !q.Expires.IsZero() {
		x.expires = max(int64(q.Expires.Sub(st.epoch)), now)
	}
	x.State, x.Answer, x.Asked, x.Expires = QuestionOpen, "", st.wall(now), st.wall(x.expires)
	return x
}

// openQuestion opens a question. Callers that wait for the task, or for a task above it, can then
// return.
func (st *state) openQuestion(a *attempt, q *Question, w *waiter, now int64) *asked {
	x, b := st.newAsked(a, q, now), a.inquiries()
	st.lastQuestion++
	x.w, x.no = w, st.lastQuestion
	b.add(x)
	b.open++
	st.openQuestions++
	if b.from == 0 {
		b.from = now
	}
	a.seen()
	a.activity = now
	st.tellQuestion(x, now)
	st.showQuestion(a)
	st.questionChanged(x)
	st.wakeTask(a.t)
	for n := a.t.up; n != nil; n = n.above() { // between two tasks, there can be sessions that do not belong to a task
		if t := n.parentTask(); t != nil {
			st.wakeTask(t)
		}
	}
	st.setDeadline(a, now)
	return x
}

// The method "add" adds a question, and drops the oldest questions that are over.
func (b *questions) add(x *asked) {
	b.list = append(b.list, x)
	for i := 0; len(b.list) > questionsKept && i < len(b.list); {
		if q := b.list[i]; q.State == QuestionOpen || !q.passed && q != x {
			i++
			continue
		}
		if b.list[i] == x {
			break
		}
		b.list = slices.Delete(b.list, i, i+1)
	}
}

// showQuestion shows the attempt's oldest open question as its current activity. If no question is open,
// it shows that the agent is working again.
func (st *state) showQuestion(a *attempt) {
	about := ""
	for _, x := range a.t.questions().list {
		if x.State == QuestionOpen {
			about = x.Title
			break
		}
	}
	a.seen().prog.detail = about
	switch {
	case a.parkedFor != notParked || a.phase == PhaseStarting:
	case about != "":
		st.phase(a, PhaseAsking)
	case a.phase == PhaseAsking:
		st.phase(a, PhaseTurn)
	}
}

// questionChanged records an urgent change to a question and reports it.
func (st *state) questionChanged(x *asked) {
	st.mustKeep(x.a.t)
	st.emitNews(news{kind: EventQuestion, question: &x.Question}, x.a.t)
}

// questionOver records the outcome of an open question.
func (st *state) questionOver(x *asked, s QuestionState, now int64) {
	a, b := x.a, x.a.t.questions()
	x.State = s
	b.open--
	st.openQuestions--
	st.tellNoMore(x)
	st.showQuestion(a)
	st.questionChanged(x)
	switch {
	case x.w != nil:
		st.fx.after.wakes.add(x.w)
	case s == QuestionWithdrawn:
		x.passed = true
	default:
		st.wantPass(x)
	}
	if a.parkedFor != notParked {
		st.touchAttempt(a)
	} else {
		st.clocksMayRun(a, now)
	}
}

// wantPass requests that the outcome of a question be passed to the client.
func (st *state) wantPass(x *asked) { st.rare().after.answers = append(st.rare().after.answers, x) }

// clocksMayRun makes the clocks of the attempt's turn run again, unless the turn is still waiting for
// an answer.
func (st *state) clocksMayRun(a *attempt, now int64) {
	if b := a.t.questions(); b.open == 0 && !a.outcomeWaits() {
		st.clocksRun(a, now)
	}
}

// clocksRun makes the clocks of the attempt's turn run again. The time during which they were
// paused does not count. In a turn that began in an earlier process, they might have been paused
// before the time from which the turn counts; see turnOfBefore.
func (st *state) clocksRun(a *attempt, now int64) {
	b := a.t.questions()
	if b.from == 0 {
		return
	}
	if a.turnStart > 0 {
		a.ran -= now - max(b.from, a.turnStart)
	}
	b.from, a.activity = 0, now
	a.seen().c.change(now)
	st.setDeadline(a, now)
}

// withdrawQuestion is called when a runner is no longer asking the question.
func (st *state) withdrawQuestion(x *asked, now int64) {
	if x.State == QuestionOpen && st.suspend != frozen {
		st.questionOver(x, QuestionWithdrawn, now)
	}
}

// askReturns reports whether Reporter.Ask returns now. It does not return while the attempt has no slot,
// unless the turn ends.
func (st *state) askReturns(x *asked) bool {
	a := x.a
	switch {
	case st.suspend == frozen || a.halted() != nil:
	case x.State == QuestionOpen || a.live() && a.turn == x.turn && a.awaitsAnswer():
		return false
	}
	return true
}

// mayPass reports whether the outcome of a starter's question must still be passed to the client.
func (st *state) mayPass(x *asked) bool {
	return !x.passed && x.a.live() && x.a.turn == x.turn && st.suspend != frozen
}

// The method "passed" is called when the client gets the outcome of a question. It returns false if
// the turn ended before that. A turn that has other open questions can give its slot back again.
func (st *state) passed(x *asked, now int64) bool {
	if x.passed || x.State == QuestionOpen || st.suspend == frozen || !x.a.live() || x.a.halted() != nil {
		return false
	}
	x.passed = true
	st.clocksMayRun(x.a, now)
	st.setDeadline(x.a, now)
	return true
}

// answerQuestion answers a question that a task asks. It returns the question even if it is over.
func (st *state) answerQuestion(by Caller, ref string, in AnswerInput, now int64) (q Question, t *task, err error) {
	t, tomb, err := st.ref(by, ref)
	switch {
	case err != nil:
		return q, nil, err
	case tomb != nil:
		return q, nil, &ExpiredError{ID: tomb.id, Status: tomb.status, Session: tomb.sessionID()}
	}
	x := t.question(in.Key)
	switch {
	case x == nil:
		return q, t, noQuestion(t.id(), in.Key)
	case by.Session != "" && !x.isForModels(st.cfg.ModelsMayPermit):
		return q, t, mayNotPermit(t.id(), x.shown)
	case x.State != QuestionOpen:
		return *x.Question.clone(), t, questionOver(t.id(), &x.Question)
	case !slices.Contains(x.Options, in.Option):
		return q, t, notOffered(in.Option, &x.Question)
	case st.closing:
		return q, t, ErrClosed
	case st.isRefused(t):
		return q, t, recordRefused(t.id())
	}
	if err := st.storeFails(); err != nil {
		return q, t, err
	}
	x.Answer = in.Option
	st.questionOver(x, QuestionAnswered, now)
	return *x.Question.clone(), t, nil
}

// The method "question" returns the task's question with the key, or nil.
func (t *task) question(key string) *asked {
	if b := t.questions(); b != nil {
		for _, x := range b.list {
			if x.Key == key {
				return x
			}
		}
	}
	return nil
}

// expireQuestions closes the attempt's questions that nobody answered in time.
func (st *state) expireQuestions(a *attempt, now int64) {
	for _, x := range slices.Clone(a.t.questions().list) {
		if x.State == QuestionOpen && x.expires <= now {
			st.questionOver(x, QuestionExpired, now)
		}
	}
}

// questionEnd returns the time at which the first open question of the attempt expires, or 0 if there is
// none.
func (a *attempt) questionEnd() (at int64) {
	if !a.asks() {
		return 0
	}
	for _, x := range a.t.questions().list {
		if x.State == QuestionOpen && (at == 0 || x.expires < at) {
			at = x.expires
		}
	}
	return at
}

// parksAt returns the time at which a turn that waits for an answer gives its slot back, or 0 if
// it keeps the slot.
func (a *attempt) parksAt() int64 {
	if !a.cl.runner || !a.asks() || a.turnStart == 0 || a.parkedFor != notParked || a.halted() != nil || a.outcomeWaits() {
		return 0
	}
	return a.activity + int64(questionPark)
}

// outcomeWaits reports whether the client has yet to receive the outcome of a question.
func (a *attempt) outcomeWaits() bool {
	b := a.t.questions()
	return b != nil && slices.ContainsFunc(b.list, func(x *asked) bool { return x.a == a && x.State != QuestionOpen && !x.passed })
}

// turnGoesOn continues a turn that was parked while it waited for an answer and now has a slot
// again.
func (st *state) turnGoesOn(a *attempt, now int64) {
	b := a.t.questions()
	a.activity = now
	st.showQuestion(a)
	for _, x := range b.list {
		if x.a == a && x.State != QuestionOpen && !x.passed {
			st.fx.after.wakes.add(x.w)
		}
	}
	st.setDeadline(a, now)
}

// asksNoMore withdraws all questions of the attempt, because the attempt or its turn has ended.
func (st *state) asksNoMore(a *attempt, now int64) {
	b := a.t.questions()
	if b == nil {
		return
	}
	for _, x := range slices.Clone(b.list) {
		if x.a != a {
			continue
		}
		if x.State == QuestionOpen {
			st.questionOver(x, QuestionWithdrawn, now)
		}
		x.passed, x.Subject = true, "" // the subject is no longer needed and might be long
		if x.w != nil {
			st.fx.after.wakes.add(x.w)
		}
	}
	st.leavePark(a)
	st.clocksRun(a, now)
}
