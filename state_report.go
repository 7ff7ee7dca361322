package bgagent

import "github.com/bgagent/bgagent/internal/mdtext"

// report takes one report of a runner.
func (st *state) report(a *attempt, r Report, now int64) {
	w := a.seen()
	p := &w.prog
	if o := a.cl.out; o != nil && o.trying == a {
		st.reached(a.cl, now)
	}
	changed, quick := true, true
	switch r.Kind {
	case ReportText:
		if changed = r.Text != ""; changed {
			if w.afterUse && !mdtext.Invisible(r.Text) { // until then what was said before is the last
				w.pieces.Reset()
				w.afterUse = false
			}
			w.pieces.WriteString(mdtext.Head(r.Text, maxTurnText-w.pieces.Len()))
			w.text = w.pieces.String()
			w.output, quick = true, false
			p.lastText, p.lastTextA = mdtext.Tail(w.text, glimpse), now
		}
	case ReportReasoning:
		if changed = r.Text != ""; changed {
			if w.text == "" && p.toolCalls == 0 { // else it is never shown
				w.thinks.WriteString(mdtext.Head(r.Text, maxResult-w.thinks.Len()))
				w.thought = w.thinks.String()
			}
			w.output, quick = true, false
		}
	case ReportTool:
		if w.tool(r.Tool) {
			p.toolCalls++
			w.afterUse = true
		}
		p.lastTool, w.output = r.Tool.Name, true
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
	a.activity, w.reported = now, true
	st.setDeadline(a, now)
	st.progressed(a, quick, now)
}

// asking notes that the agent asks something, or does not any more.
func (st *state) asking(a *attempt, question string) {
	a.w.prog.detail = title(question, "")
	if question != "" {
		st.phase(a, PhaseAsking)
	} else if a.phase == PhaseAsking {
		st.phase(a, PhaseTurn)
	}
}

// newsPause is how long pieces of text wait for each other before they become
// an event.
const newsPause = int64(100e6)

// progressed tells subscribers of progress; what comes in small pieces
// only every now and then.
func (st *state) progressed(a *attempt, quick bool, now int64) {
	if quick || now-a.lastNews >= newsPause {
		a.lastNews = now
		st.emit(EventProgress, a.t)
	}
}
