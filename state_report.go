package bgagent

import "github.com/bgagent/bgagent/internal/mdtext"

// report applies one report of a runner.
func (st *state) report(a *attempt, r Report, now int64) {
	s := a.seen()
	p := &s.prog
	if o := a.cl.out; o != nil && o.trying == a {
		st.reached(a.cl, now)
	}
	changed, quick := true, true
	switch r.Kind {
	case ReportText:
		if changed = r.Text != ""; changed {
			if s.afterUse && !mdtext.Invisible(r.Text) { // a new text replaces the one before the tool call
				s.pieces.Reset()
				s.afterUse = false
			}
			s.pieces.WriteString(mdtext.Head(r.Text, maxTurnText-s.pieces.Len()))
			s.text = s.pieces.String()
			s.output, quick = true, false
			p.lastText, p.lastTextA = mdtext.Tail(s.text, glimpse), now
		}
	case ReportReasoning:
		if changed = r.Text != ""; changed {
			if s.text == "" && p.toolCalls == 0 { // reasoning is only shown if there is nothing else
				s.thinks.WriteString(mdtext.Head(r.Text, maxResult-s.thinks.Len()))
				s.thought = s.thinks.String()
			}
			s.output, quick = true, false
		}
	case ReportTool:
		if s.tool(r.Tool) {
			p.toolCalls++
			s.afterUse = true
		}
		p.lastTool, s.output = r.Tool.Name, true
	case ReportTodos:
		p.todos, p.todosSeen = r.Todos, true
	case ReportUsage:
		p.usage, quick = p.usage.plus(r.Usage), false
	case ReportAsking:
		st.asking(a, r.Text)
	case ReportActivity:
		quick = false
	default:
		return
	}
	if !changed {
		return
	}
	a.activity, s.reported = now, true
	st.setDeadline(a, now)
	st.progressed(a, quick, now)
}

// asking notes the question that the agent asks, or that it asks none any more.
func (st *state) asking(a *attempt, question string) {
	a.sight.prog.detail = title(question, "")
	if question != "" {
		st.phase(a, PhaseAsking)
	} else if a.phase == PhaseAsking {
		st.phase(a, PhaseTurn)
	}
}

// newsPause is how long pieces of text are collected into one event.
const newsPause = int64(100e6)

// progressed emits a progress event. Unless quick is set, it emits at most one per newsPause.
func (st *state) progressed(a *attempt, quick bool, now int64) {
	if quick || now-a.lastNews >= newsPause {
		a.lastNews = now
		st.emit(EventProgress, a.t)
	}
}
