package bgagent

// The code in this file joins the text of an attempt with the texts of the turns that answer letters.
// A letter is a message to a task; see state_message.go.

// The method "said" stores the text of the attempt's latest turn. The text of a letter's turn is
// kept separately.
func (a *attempt) said(text string) {
	if b := a.t.mail(); b != nil && b.current != nil {
		b.current.answer, b.current.answerName, b.joined = text, "", answers{}
		return
	}
	a.text = text
}

// The type "answers" caches the text that combines an attempt's own text with the answers to its
// letters, because every snapshot shows it.
type answers struct {
	of   *attempt // nil if no text is kept
	own  string   // the attempt's own text, from which the field "text" was made
	text string
}

// The method "answer" returns the text of the attempt so far: the text of the last turn that had
// text but no letter, followed by the texts of the letters' turns.
func (a *attempt) answer() string {
	b := a.t.mail()
	if b == nil {
		return a.text
	}
	if k := &b.joined; k.of == a && k.own == a.text {
		return k.text
	}
	var list []letterAnswer
	for _, l := range b.letters {
		if l.attempt == a.no && l.answer != "" {
			list = append(list, letterAnswer{int(l.no), l.about, l.answer})
		}
	}
	b.joined = answers{a, a.text, withAnswers(a.text, list)}
	return b.joined.text
}

// lettersOver drops the texts of the letters that the turn received, or might have received, because
// the turn is over. A letter that was meant for a lost turn keeps its text until it gets its own
// turn.
func (st *state) lettersOver(a *attempt) {
	b := a.t.mail()
	if b == nil {
		return
	}
	for _, l := range b.letters {
		if l.attempt == a.no && (l.state == MessageInTurn || l.now && !l.lost && st.hasLetter(a.t, l)) {
			l.text = ""
		}
	}
	st.changed(a.t)
}
