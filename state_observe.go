package bgagent

import "github.com/bgagent/bgagent/internal/mdtext"

// The code in this file applies the events and reports of clients.

// observe applies one event from a client.
func (st *state) observe(cl *client, e HostEvent, now int64) {
	if cl.streamUp > 0 {
		cl.lastBeat = now // any event shows that the stream works
	}
	switch e.Kind {
	case HostStreamUp:
		cl.streamUp, cl.lastBeat = now, now
		return
	case HostStreamBeat:
		return
	case HostStreamGap:
		cl.streamUp, cl.gapAt = 0, now
		for a := range cl.followed {
			if a.live() {
				a.sight.needRead = true
			}
		}
		st.kick(cl)
		return
	case HostDeleted:
		if of := st.clientOf(e.Session); of == nil || of == cl { // ignore the event if the session belongs to another client
			st.sessionDeleted(e.Session, now)
		}
		return
	}
	if n := st.nodes[e.Session]; n != nil && n.busy == cl && e.Kind == HostStatus && e.Status.State == SessionIdle {
		st.parentIdle(n)
	}
	s := st.session(e.Session)
	if s == nil || s.task.kind.cl != cl {
		return
	}
	if e.Kind == HostMessage && e.Message != nil {
		st.countOld(s.task, e.Message, now)
	}
	if s.task.run == nil {
		return
	}
	if a := s.task.run; a.ended {
		if e.Kind == HostStatus && (e.Status.State == SessionIdle || e.Status.State == SessionGone) {
			st.kick(cl) // a poll must confirm the status, because the event might belong to an earlier turn
		}
	} else if cl.starter && (a.turnStart > 0 || a.recovering && e.Kind == HostQuestion) {
		st.observed(a, e, now)
	}
}

// clientOf returns the client that owns the session, or nil.
func (st *state) clientOf(session string) *client {
	switch s := st.sessions.find(session); {
	case s == nil:
		return nil
	case s.tomb > 0:
		return st.keep.tombs[s.tomb-1].kind.cl
	default:
		return s.task.kind.cl
	}
}

// The method "observed" applies an event about the turn of an attempt.
func (st *state) observed(a *attempt, e HostEvent, now int64) {
	s := a.sight
	switch e.Kind {
	case HostMessage:
		if e.Message == nil {
			return
		}
		if s.message(st.seed, e.Message, &a.sight.prog, now) {
			a.activity = now
			st.progressed(a, e.Message.Finished, now)
			st.showsOutput(a)
		}
		s.toldBy(e.Message.ID, now)
		if st.streamed(a, now) {
			s.knownTo = now
		}
		st.stopLoop(a, now)
		st.count(a, now)
	case HostTodos:
		st.todos(a, e.Todos, now)
		s.todosLive = true
	case HostError:
		stop := e.Stop
		if stop == StopUntold || stop == StopEndOfTurn {
			stop = StopError
		}
		if s.hint == nil { // keep only the first error, because it is the most informative
			s.hint = &hint{stop: stop, err: e.Error, at: now, finger: s.finger, provider: e.Provider.clone()}
		}
		st.eventLook(a)
	case HostStatus:
		st.statusEvent(a, e.Status, now)
	case HostQuestion:
		st.hostAsks(a, e.Questions, now)
	}
}

// statusEvent applies an event that reports a status. An idle status counts only if all messages of
// the session are known. If events have not reported all of them, statusEvent requests a poll of
// the session.
func (st *state) statusEvent(a *attempt, s SessionStatus, now int64) {
	switch s.State {
	case SessionIdle, SessionGone:
		st.heard(a, now)
		if s.State == SessionIdle && st.streamed(a, now) && !a.sight.looking && !a.inCall {
			st.judge(a, observation{status: s, answered: true, read: true}, now)
			return
		}
		a.sight.said = s.State
		st.eventLook(a)
	case SessionBusy, SessionRetrying, SessionAsking:
		st.heard(a, now)
		a.sight.said = SessionUnknown
		st.status(a, s)
		st.judge(a, observation{status: s, answered: true, read: st.streamed(a, now)}, now)
	}
}

// eventLook polls a session because of an event. If the call that hands over the session's prompt has
// not returned yet, the poll begins right after that call.
func (st *state) eventLook(a *attempt) {
	if a.inCall {
		a.sight.lookAt = 1
		return
	}
	st.lookSoon(a)
}

// The method "report" applies one report from a runner.
func (st *state) report(a *attempt, r Report, now int64) {
	s := a.seen()
	p := &s.prog
	s.knownTo = a.activity // each call is reported immediately, so all calls up to the last report are known
	if o := a.cl.out; o != nil && o.trying == a {
		st.reached(a.cl, now)
	}
	changed, quick := true, true
	switch r.Kind {
	case ReportText:
		if changed = r.Text != ""; changed {
			s.wrote(r.Text, now)
			quick = false
		}
	case ReportReasoning:
		if changed = r.Text != ""; changed {
			if s.text == "" && p.toolCalls == 0 { // reasoning is shown only if there is nothing else
				s.thinks.WriteString(mdtext.Head(r.Text, maxResult-s.thinks.Len()))
				s.thought = s.thinks.String()
			}
			s.output, quick = true, false
		}
	case ReportTool:
		if s.tool(r.Tool, now) {
			p.toolCalls++
			s.afterUse = true
		}
		s.compacts = 0
		p.lastTool, s.output = r.Tool.Name, true
	case ReportTodos:
		p.todos, p.todosSeen = r.Todos, true
	case ReportUsage:
		p.usage, quick = p.usage.plus(r.Usage), false
	case ReportAsking:
		st.asking(a, r.Text)
	case ReportRetrying:
		st.asking(a, "")
		p.detail = title(r.Provider.Error(), "")
		if st.retrying(a, r.Provider, r.RetryAt, now); !a.live() {
			return
		}
	case ReportActivity:
		quick = false
	case ReportCompaction:
		s.compacts++
	case ReportState:
		st.saved(a, r.Saved, now)
		return
	default:
		return
	}
	if !changed {
		return
	}
	a.activity, s.reported = now, true
	switch r.Kind {
	case ReportText, ReportReasoning, ReportTool, ReportUsage:
		s.goesOnAfterRetry()
		st.provesPool(a)
	}
	st.setDeadline(a, now)
	st.progressed(a, quick, now)
	st.stopLoop(a, now)
	if r.Kind == ReportUsage || r.Kind == ReportTool {
		st.count(a, now)
	}
}

// The method "asking" stores the question that the agent is asking. An empty question means that
// the agent is no longer waiting for an answer.
func (st *state) asking(a *attempt, question string) {
	if a.clocksStand() { // a question that waits for an answer is shown instead
		return
	}
	a.sight.prog.detail = title(question, "")
	if question != "" {
		st.phase(a, PhaseAsking)
	} else if a.phase == PhaseAsking {
		st.phase(a, PhaseTurn)
	}
}

// newsPause is the minimum time between two progress events about pieces of text, in nanoseconds.
const newsPause = int64(100e6)

// The method "progressed" emits a progress event. Unless quick is true, it emits at most one event
// per newsPause. The event about the last change then follows at the end of the pause or of the
// turn.
func (st *state) progressed(a *attempt, quick bool, now int64) {
	switch {
	case quick || now-a.lastNews >= newsPause:
		st.news(a, now)
	case a.newsAt == 0 && len(st.subs) > 0:
		a.newsAt = a.lastNews + newsPause
		st.deadlines.attempts.setBy(&a.alarm, a, a.newsAt)
	}
}

// The method "news" emits a progress event.
func (st *state) news(a *attempt, now int64) {
	a.lastNews, a.newsAt = now, 0
	st.emit(EventProgress, a.t)
}
