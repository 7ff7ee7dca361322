package bgagent_test

import (
	"errors"
	"strings"

	"github.com/bgagent/bgagent"
)

// The code in this file checks what became of the messages that the plays in crash_play_test.go
// send. Each message has its text as its key.

// The method "sends" is called with the result of Send.
func (b *playBook) sends(l *process, task, text string, r bgagent.SendResult, err error) {
	alive := l.alive()
	b.Lock()
	defer b.Unlock()
	b.logLocked("life %d: %q sent to %s: %s %v (alive %v)", l.no, text, task, r.State, err, alive)
	switch {
	case err == nil:
		b.sent[[2]string{task, text}] = true
	case alive && !errors.Is(err, bgagent.ErrUncertain):
		b.denied[text] = true
	}
}

// judgeMessages checks that the state of each accepted message agrees with the turns that got it,
// and that no turn got a refused message.
func (b *playBook) judgeMessages(states map[string]*storedState) {
	got := map[[2]string]int{}
	for _, t := range b.turns {
		text := t.prompt.Text
		if _, request, continues := strings.Cut(text, "The request was:"); continues {
			text = request[strings.LastIndex(request, "\n")+1:] // a message is the last line of the request
		}
		if strings.HasPrefix(text, "message ") {
			got[[2]string{t.prompt.Task, text}]++
		}
	}
	for key := range b.sent {
		x := states[key[0]]
		if x == nil {
			b.faultLocked("%q was sent to %s, which the store does not have", key[1], key[0])
			continue
		}
		state := bgagent.MessageState(0)
		for _, l := range x.Letters {
			if l.Key == key[1] {
				state = l.State
			}
		}
		switch n := got[key]; {
		case state == bgagent.MessageInTurn && n > 0, state == bgagent.MessageUnconsumed && n == 0, state == bgagent.MessageUncertain:
		default:
			b.faultLocked("%q was accepted by %s, its state is %q, and %d turns got it", key[1], key[0], state, n)
		}
	}
	for key, n := range got {
		if b.denied[key[1]] && !b.sent[key] {
			b.faultLocked("%q was refused, but %d turns got it", key[1], n)
		}
	}
}

// judgeAnswers checks the parts of a result that answer messages, and returns the rest of the result.
func (b *playBook) judgeAnswers(id string, x *storedState) (rest string) {
	const heading = "## Answer to message "
	first, parts, _ := strings.Cut(x.result, heading)
	if parts == "" {
		return x.result
	}
	for _, part := range strings.Split(parts, heading) {
		about, answer, _ := strings.Cut(part, "\n\n")
		_, about, _ = strings.Cut(about, ": ")
		answer = strings.TrimSuffix(answer, "\n\n")
		found := false
		for _, t := range b.turns {
			found = found || t.prompt.Task == id && strings.HasSuffix(t.prompt.Text, about) && (answer == "ok" || strings.HasSuffix(strings.Join(t.said, ""), answer))
		}
		if !found {
			b.faultLocked("%s answers %q with %q, which is not the text of any turn", id, about, answer)
		}
	}
	return strings.TrimSuffix(first, "\n\n")
}
