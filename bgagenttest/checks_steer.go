package bgagenttest

import (
	"context"
	"errors"
	"strings"

	"github.com/bgagent/bgagent"
)

// The method "steer" calls Steer with a message whose text makes the agent answer with the word.
func (c *checkContext) steer(session, word string) error {
	c.turns++
	msg := bgagent.TurnMessage{ID: "bg_" + c.task + "." + word, Task: "bg_" + c.task, Attempt: 1, Turn: c.turns, Text: c.h.Say(word)}
	return c.call("Steer", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, c.h.Soon/2) // like the manager, which also sets a deadline
		defer cancel()
		return c.steerer.Steer(ctx, session, msg)
	})
}

func checkMessageWithoutTurn(c *checkContext) {
	switch err := c.steer(missing, "lotus"); {
	case err == nil:
		c.failf("Steer of a session that does not exist returned nil; it should be ErrNoSession")
	case c.unsupported(err):
		return
	case !errors.Is(err, bgagent.ErrNoSession):
		c.failf("Steer of a session that does not exist: %v; it should be ErrNoSession", err)
	}
	id := c.create()
	c.say(id, "acacia")
	switch err := c.steer(id, "lotus"); {
	case err == nil:
		c.failf("Steer of a session that is not in a turn returned nil; it should be an error")
	case c.unsupported(err):
		return
	case errors.Is(err, bgagent.ErrUncertain):
		c.failf("Steer of a session that is not in a turn: %v; it should not be ErrUncertain, because the session cannot have got the message", err)
	}
	c.pause(c.h.Settle)
	if c.starter != nil {
		if s := c.statuses(id)[id].State; s != bgagent.SessionIdle {
			c.failf("the session is %s after Steer was refused; no turn should have started", s)
		}
	}
	c.say(id, "maple")
	if c.reader != nil {
		for _, m := range c.readAll(id) {
			if strings.Contains(m.Text, "lotus") {
				c.failf("the message %q contains the text of a message that Steer has refused", m.Text)
			}
		}
	}
}

func checkMessageInTurn(c *checkContext) {
	id := c.create()
	d := c.slow(id)
	err := c.steer(id, "lotus")
	if c.unsupported(err) {
		d.stop()
		return
	}
	if d.ended(5 * c.h.Poll) { // true if the message makes the agent end its turn
		if o := d.outcome(); err != nil || o.failed() {
			c.failf("the turn ended as %v after Steer returned %v; Steer should not stop the turn", o, err)
		}
	} else if o := d.stop(); err != nil && strings.Contains(o.text, "lotus") {
		c.failf("Steer returned %v, but the turn ended as %v; after an error, the session should not get the message", err, o)
	}
	c.say(id, "maple")
}

func checkMessageTaken(c *checkContext) {
	id := c.create()
	d := c.begin(id, c.h.Nap())
	if c.starter != nil && !c.until(c.h.TurnTime, func() bool { return inTurn(c.statuses(id)[id].State) }) {
		c.endf("the status never showed the session in a turn while the turn of Harness.Nap ran")
	}
	c.pause(5 * c.h.Poll)
	err := c.steer(id, "lotus")
	if c.unsupported(err) {
		d.stop()
		return
	}
	switch o := d.await(); {
	case o.failed():
		c.failf("the turn ended as %v after Steer returned %v; Steer should not stop the turn", o, err)
	case err == nil && !strings.Contains(o.text, "lotus"):
		c.failf("Steer returned nil, and the turn ended as %v; the answer should contain \"lotus\"", o)
	case err != nil && !errors.Is(err, bgagent.ErrUncertain) && strings.Contains(o.text, "lotus"):
		c.failf("Steer returned %v, but the turn ended as %v; after an error, the session should not get the message", err, o)
	}
	next := c.begin(id, c.h.Say("maple"))
	c.answered(next, "maple")
	if o := next.outcome(); strings.Contains(o.text, "lotus") {
		c.failf("the next turn ended as %v; the message of the turn before should not be answered again", o)
	}
}
