package bgagent

// The code in this file handles letters that join a running turn.

// inTurn reports whether the task is in a turn that a message can join.
func (st *state) inTurn(t *task) bool {
	a := t.run
	return a != nil && a.live() && a.turnStart > 0 && (a.phase == PhaseTurn || a.phase == PhaseAsking)
}

// mayJoin reports whether the turn that the letter must join is still running. The text of a letter
// is dropped when that turn is over.
func (st *state) mayJoin(t *task, l *letter) bool {
	return !l.withdrawn && l.text != "" && st.inTurn(t) && t.no == l.attempt && t.run.turn == l.turn && !st.closing
}

// The method "joining" returns the number of letters whose texts are kept because they have joined
// the running turn or are about to.
func (t *task) joining() (n int) {
	b := t.mail()
	if b == nil {
		return 0
	}
	for _, l := range b.letters {
		if l.now && l.text != "" {
			n++
		}
	}
	return n
}

// mayLose reports whether the turn that the letter has joined might still be lost. As long as this
// is possible, the text of the letter is kept, so that the letter can be sent again.
func (t *task) mayLose(l *letter) bool {
	a := t.run
	return a != nil && t.live() && t.no == l.attempt && a.turn == l.turn && (a.turnStart > 0 || a.recovering)
}

// joinedTurn records that the client has added the letter to the turn that it was meant to join. If
// that turn is lost, the letter waits for its own turn. If the attempt has ended, the letter is
// already unconsumed.
func (st *state) joinedTurn(t *task, l *letter) {
	switch {
	case !t.hasRecord() || l.state != MessageUncertain:
		return
	case l.lost:
		t.mail().waits(l)
	default:
		t.mail().set(l, MessageInTurn)
		if !t.mayLose(l) {
			l.text = ""
		}
	}
	st.letterSettled(t)
}

// The method "waits" is called for a letter that joined a lost turn. From then on, the letter waits
// for its own turn.
func (b *mailbox) waits(l *letter) {
	l.now, l.lost, l.turn = false, false, 0
	b.set(l, MessageAccepted)
}

// sendAgain makes the letters that joined a turn wait for their own turns, because the turn that they
// joined is lost and begins again. If the client has not accepted a letter yet, the letter starts to
// wait for its own turn once the client accepts it.
func (a *attempt) sendAgain() {
	b := a.t.mail()
	if b == nil {
		return
	}
	for _, l := range b.letters {
		switch {
		case !l.now || l.attempt != a.no || l.text == "":
		case l.state == MessageInTurn:
			b.waits(l)
			a.t.st.changed(a.t)
		case l.steering:
			l.lost = true
		}
	}
}

// keepJoined drops the texts of the letters that joined a turn. The turn was refused, but its session
// contains these letters and continues, so they are not sent again.
func (st *state) keepJoined(a *attempt) {
	b := a.t.mail()
	if b == nil {
		return
	}
	for _, l := range b.letters {
		if l.now && l.attempt == a.no && st.hasLetter(a.t, l) {
			a.t.dropText(l)
		}
	}
}
