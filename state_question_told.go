package bgagent

import "slices"

// The code in this file reports questions to the sessions that may answer them. A question is
// reported only if models have the tool that answers questions and may answer this one. The host
// gets an event for every question.
//
//	opened -> owed: in the outbox of the parent -> packed into an envelope -> told
//	                                                                       -> handed out -> acknowledged: told
//	       -> its answer no longer matters: no longer owed, wherever it is
//
// A question is urgent, so it does not wait for the end of a batch. Debts to the session are
// delivered with it.

// tellQuestion records that the newly opened question must be reported to the task's parent.
func (st *state) tellQuestion(x *asked, now int64) {
	n := x.a.t.up
	if p := n.parentTask(); !st.mayTell(x) || n.session == "" || n.gone || p != nil && !p.live() && p.status != Completed {
		return
	}
	x.owed = true
	n.putAsk(x, now)
	st.touchNode(n)
}

// mayTell reports whether models can answer the question.
func (st *state) mayTell(x *asked) bool {
	return st.cfg.answers && x.State == QuestionOpen && x.isForModels(st.cfg.ModelsMayPermit)
}

// putAsk puts a question into the outbox of the node.
func (n *node) putAsk(x *asked, at int64) {
	if len(n.asks) == 0 {
		n.asksFrom = max(at, 1)
	}
	n.asks = append(n.asks, x)
}

// emptyAsks removes all questions from the outbox and returns them.
func (n *node) emptyAsks() (list []*asked) {
	list = n.asks
	n.asks, n.asksFrom = nil, 0
	return list
}

// owesAsks reports whether a question must still be reported to the session, apart from questions that
// were handed out.
func (n *node) owesAsks() bool {
	return len(n.asks) > 0 || slices.ContainsFunc(n.unsettled(), func(env *envelope) bool { return len(env.asks) > 0 })
}

// asksEverywhere returns the number of questions that must still be reported to the session.
func (n *node) asksEverywhere() int {
	count := len(n.asks)
	for _, env := range n.unsettled() {
		count += len(env.asks)
	}
	if n.held != nil {
		for _, h := range n.held.hands {
			count += len(h.asks)
		}
	}
	return count
}

// The method "packs" reports whether an envelope of the node contains the question.
func (n *node) packs(x *asked) bool {
	return slices.ContainsFunc(n.unsettled(), func(env *envelope) bool { return slices.Contains(env.asks, x) })
}

// The method "empty" reports whether nothing in the envelope is still owed.
func (env *envelope) empty() bool { return len(env.debts)+len(env.asks) == 0 && !env.loading }

// noticeQuestion describes a question in a notice.
func (x *asked) noticeQuestion() NoticeQuestion {
	t := x.a.t
	q := NoticeQuestion{Task: t.id(), Description: t.title, Agent: t.kind.key.agent, Question: *x.Question.clone()}
	if t.sess != nil {
		q.Session = t.sess.id
	}
	return q
}

// toldAsks records that the questions have been reported to the session, or that they cannot be
// reported.
func (st *state) toldAsks(list []*asked) {
	for _, x := range list {
		x.owed = false
		st.changed(x.a.t)
	}
}

// tellNoMore records that a question no longer has to be reported to the session, because it is
// over.
func (st *state) tellNoMore(x *asked) {
	if !x.owed {
		return
	}
	st.toldAsks([]*asked{x})
	st.dropAsk(x)
}

// openAsks returns the questions in list that are still open.
func (st *state) openAsks(list []NoticeQuestion) (open []NoticeQuestion) {
	for _, q := range list {
		num, _ := parseID(q.Task)
		if t := st.tasks[num]; t != nil {
			if x := t.question(q.Question.Key); x != nil && x.State == QuestionOpen {
				open = append(open, q)
			}
		}
	}
	return open
}

// dropAsk removes a question from the outbox, from the node's envelopes, and from answers that were
// handed out.
func (st *state) dropAsk(x *asked) {
	n := x.a.t.up
	is := func(y *asked) bool { return x == y }
	if n.asks = slices.DeleteFunc(n.asks, is); len(n.asks) == 0 {
		n.asksFrom = 0
	}
	for _, env := range n.unsettled() {
		env.asks = slices.DeleteFunc(env.asks, is)
	}
	if env := n.env; env != nil && env.empty() && !env.flying {
		n.env = nil
	}
	if n.held != nil {
		n.held.left = slices.DeleteFunc(n.held.left, (*envelope).empty)
		for _, h := range slices.Clone(n.held.hands) {
			h.setAsks(slices.DeleteFunc(h.asks, is))
			st.dropHand(h)
		}
	}
	st.touchNode(n)
}

// showsQuestions is called when an answer to the session shows the open questions of the task, so
// that no notice repeats them. list contains the questions that the answer shows. Questions that
// were asked after the answer was built are not in the list, so they must still be reported.
func (st *state) showsQuestions(by Caller, t *task, list []Question, out *handing) {
	b := t.questions()
	if b == nil || b.open == 0 || t.up.session != by.Session || !st.cfg.answers {
		return
	}
	var shown []*asked
	for _, q := range list {
		if x := t.question(q.Key); x != nil && x.owed {
			st.dropAsk(x)
			shown = append(shown, x)
		}
	}
	switch {
	case len(shown) == 0:
	case st.storing == nil || st.closed:
		st.toldAsks(shown)
	default:
		h := &hand{n: t.up, asks: shown}
		out.hands = append(out.hands, h)
		t.up.hold().hands = append(t.up.hold().hands, h)
		st.nodeChanged(t.up)
	}
}

// setAsks sets the questions in the answer that are not yet acknowledged.
func (h *hand) setAsks(list []*asked) {
	if h.asks = list; h.notice != nil {
		h.notice.asks = list
	}
}

// loadAsks finds the questions that are owed to the session of the node: first those in a notice
// from the earlier process, then the others.
func (st *state) loadAsks(n *node, now int64) {
	for _, env := range n.unsettled() {
		env.loading = false
		for _, q := range env.notice.Questions {
			num, _ := parseID(q.Task)
			if t := st.tasks[num]; t != nil && t.up == n {
				if x := t.question(q.Question.Key); x != nil && x.owed && !n.packs(x) {
					env.asks = append(env.asks, x)
				}
			}
		}
		if len(env.asks) > 0 { // wait, because the clients might soon report that the questions are over
			env.next = max(env.next, now+st.noticeWindow())
		}
	}
	if env := n.env; env != nil && env.empty() && !env.flying { // nothing in the notice is owed any more, because models can no longer answer its questions
		n.env = n.nextAgain()
	}
	for t := n.first; t != nil; t = t.next {
		b := t.questions()
		if b == nil {
			continue
		}
		for _, x := range b.list {
			if x.owed && !n.packs(x) {
				n.putAsk(x, now)
			}
		}
	}
}
