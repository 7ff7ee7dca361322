package bgagent

// letterRecord is the part of a task's record that describes a message to the task.
type letterRecord struct {
	Key     string       `json:"key"`
	No      int32        `json:"no"`
	State   MessageState `json:"state"`
	Attempt int32        `json:"attempt"`
	Turn    int32        `json:"turn,omitempty"`    // number of the turn that received the message, or that the message was meant to join
	About   string       `json:"about,omitempty"`   // beginning of the message
	Text    string       `json:"text,omitempty"`    // name of the message's text, while the text is still needed
	Answer  string       `json:"answer,omitempty"`  // name of the text that the message's turn produced, while the attempt runs
	Now     bool         `json:"now,omitempty"`     // the message was meant to join a running turn
	Current bool         `json:"current,omitempty"` // the message is the prompt of a turn that is running, is about to begin, or will continue after a refusal
}

// recordLetters makes the records of the messages to the task.
func (t *task) recordLetters(r *recorded) (list []letterRecord) {
	b := t.mail()
	if b == nil {
		return nil
	}
	a := t.run
	goesOn := a != nil && a.live() && !a.takesLetter() // a turn that the provider refused will continue later
	for _, l := range b.letters {
		x := letterRecord{
			Key: l.key, No: l.no, State: l.state, Attempt: l.attempt, Turn: l.turn, About: l.about, Now: l.now,
			Current: goesOn && l == b.current,
		}
		if l.text != "" {
			x.Text = r.name(l.name, l.text)
		}
		if l.answer != "" {
			if l.answerName == "" {
				l.answerName = "answer." + contentID(l.answer)
			}
			x.Answer = r.name(l.answerName, l.answer)
		}
		list = append(list, x)
	}
	return list
}

// possibleLetters reports whether the messages of a task are consistent with each other and with
// the task.
func (x *storedTask) possibleLetters() bool {
	last, current := int32(0), 0
	for _, l := range x.Letters {
		switch {
		case l.Key == "" || l.No <= last || l.Attempt < 1 || l.Attempt > x.Attempt || l.Turn < 0:
			return false
		case l.State == 0 || l.State == MessageRefused:
			return false
		case l.State == MessageAccepted && (x.Status.Terminal() || l.Attempt != x.Attempt || l.Text == "" || l.Now):
			return false
		case l.Current && (x.Status != Running || x.Run == nil || x.Run.Waits && x.Run.Refused == nil || l.Attempt != x.Attempt):
			return false
		}
		if last = l.No; l.Current {
			current++
		}
	}
	return current <= 1
}

// The method "unconsumed" is like task.unconsumed for the latest attempt, but reads the record.
func (x *storedTask) unconsumed() (list []UnconsumedMessage) {
	for _, l := range x.Letters {
		if l.Attempt == x.Attempt && !l.Now && (l.State == MessageUnconsumed || l.State == MessageUncertain) {
			list = append(list, UnconsumedMessage{l.Key, l.About, l.State == MessageUncertain})
		}
	}
	return list
}

// The method "waiting" returns the number of messages that no turn has received yet.
func (x *storedTask) waiting() (n int) {
	for _, l := range x.Letters {
		if l.State == MessageAccepted {
			n++
		}
	}
	return n
}

// letterTexts returns the names of the texts that belong to the task's messages.
func (x *storedTask) letterTexts() (names []string) {
	for _, l := range x.Letters {
		for _, name := range [...]string{l.Text, l.Answer} {
			if name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// loadLetters restores the messages to the task from its record.
func (t *task) loadLetters(x *storedTask) {
	if len(x.Letters) == 0 {
		return
	}
	b := &mailbox{}
	t.extra().mail = b
	for _, r := range x.Letters {
		l := &letter{
			key: r.Key, no: r.No, attempt: r.Attempt, turn: r.Turn, about: r.About, now: r.Now, name: r.Text, text: x.texts[r.Text], answer: x.texts[r.Answer],
		}
		b.letters = append(b.letters, l)
		b.set(l, r.State)
		b.last = max(b.last, r.No)
		if r.Current {
			b.current = l
		}
	}
}
