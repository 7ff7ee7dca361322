package bgagenttest

import (
	"context"
	"errors"
	"strings"

	"github.com/bgagent/bgagent"
)

// restartChecks check what the next process finds out about the sessions of the earlier process.
var restartChecks = []check{
	{name: "restart answered", why: "if an answer is not found, the whole turn is paid for again", needs: restartNeeds(), run: checkRestartAnswered},
	{name: "restart interrupted", why: "a prompt that counts as missing is sent again, so its work is done twice", needs: restartNeeds(), run: checkRestartInterrupted},
	{name: "restart left", why: "a program that keeps running works at the same time as the next turn, in the same session and on the same files", needs: restartNeeds(harnessLeft), run: checkRestartLeft},
	{name: "restart missing", why: "the answer to an earlier prompt would count as the answer to a prompt that was never received", needs: restartNeeds(), run: checkRestartMissing},
	{name: "restart same text", why: "two prompts of a session can have the same text, so the text does not show which of them was received", needs: restartNeeds(), run: checkRestartSameText},
	{name: "restart no session", why: "only ErrNoSession makes the manager create another session", needs: restartNeeds(), run: checkRestartNoSession},
	{name: "restart unknown", why: "a session that cannot be read might have the prompt, and would get it twice", needs: restartNeeds(harnessSpoil), run: checkRestartUnknown},
	{name: "restart busy", why: "a prompt in the middle of an old turn is refused, or the two turns get mixed up", needs: restartNeeds(harnessRelease), run: checkRestartBusy},
	{name: "restart without state", why: "the process can end before the saved state is durable", needs: restartNeeds(), run: checkRestartWithoutState},
	{name: "restart next prompt", why: "the next prompt continues the session", needs: restartNeeds(), run: checkRestartNextPrompt},
	{name: "restart resumed", why: "a task of an earlier process can be resumed, and a parked task gets its next turn", needs: restartNeeds(), run: checkRestartResumed},
	{name: "restart twice", why: "a process that restores a session can also end", needs: restartNeeds(), run: checkRestartTwice},
	{name: "restart memory", why: "a task that is continued without its conversation starts over", needs: restartNeeds(harnessRecall), run: checkRestartMemory},
	{name: "restart no request", why: "a request costs money and changes the session", needs: restartNeeds(harnessRequests), run: checkRestartNoRequest},
	{name: "restart followed", why: "a turn that cannot be seen looks like a prompt that was never received, which is sent again", needs: []need{aStarter, harnessRestart}, run: checkRestartFollowed},
	{name: "restart repeated prompt", why: "the earlier process might have sent the prompt just before its end", needs: []need{aStarter, harnessRestart, knownRepeats}, run: checkRestartRepeatedPrompt},
	{name: "restart other instances", why: "RestoreSession must end everything that the dead manager left running, and nothing that belongs to a live manager", needs: restartNeeds(), run: checkRestartOtherInstances},
}

// restartNeeds returns the given needs and those that every check of RestoreSession has.
func restartNeeds(more ...need) []need { return append(more, aRunner, aRestorer, harnessRestart) }

func checkRestartAnswered(c *checkContext) {
	d := c.begin(c.create(), c.h.Say("apricot"))
	c.answered(d, "apricot")
	if !c.restart(DeathWhole) {
		return
	}
	a, able := c.restore(restoring(d))
	if !able || !c.is(a, bgagent.PromptAnswered, "after the end of the turn") {
		return
	}
	if failed := a.end.Stop != bgagent.StopUntold && a.end.Stop != bgagent.StopEndOfTurn; failed || !strings.Contains(a.end.Text, "apricot") {
		c.failf("RestoreSession returned the end %+v; the turn had ended normally, and its answer contains %q", a.end, "apricot")
	}
}

func checkRestartInterrupted(c *checkContext) {
	d := c.slow(c.create())
	if !c.restart(DeathWhole) {
		return
	}
	if a, able := c.restore(restoring(d)); able {
		c.is(a, bgagent.PromptInterrupted, "after a death in the middle of a turn")
	}
}

func checkRestartLeft(c *checkContext) {
	d := c.slow(c.create())
	if !c.restart(DeathAlone) {
		return
	}
	a, able := c.restore(restoring(d))
	if !able {
		return
	}
	if a.err != nil || a.isMissing() {
		c.failf("RestoreSession after a death in the middle of a turn that continued: %q, %v; the session has the prompt", a.state, a.err)
	}
	if n := c.h.Restart.Left(c.sc, d.prompt.Instance); n > 0 {
		c.failf("RestoreSession returned %q, and %d turn(s) of the dead process are still running; it should end them or return ErrBusy", a.state, n)
	}
}

func checkRestartMissing(c *checkContext) {
	id, unused := c.create(), c.create()
	d := c.begin(id, c.h.Say("blackberry"))
	c.answered(d, "blackberry")
	r := restoring(d)
	r.Last = c.promptFor(c.h.Say("cranberry")) // the process died after storing this prompt but before sending it
	if !c.restart(DeathWhole) {
		return
	}
	if a, able := c.restore(r); able && c.is(a, bgagent.PromptMissing, "for a prompt that was never received") {
		again := r.Last
		again.Instance = c.instance
		c.answered(c.beginWith(id, again), "cranberry")
	}
	r.Session, r.Saved = unused, nil
	if a, able := c.restore(r); able && !a.isMissing() {
		c.is(a, bgagent.PromptMissing, "for the first prompt of a session, which was never received")
	}
}

func checkRestartSameText(c *checkContext) {
	d := c.begin(c.create(), c.h.Say("elderberry"))
	c.answered(d, "elderberry")
	r := restoring(d)
	r.Last = c.promptFor(r.Last.Text)
	if !c.restart(DeathWhole) {
		return
	}
	if a, able := c.restore(r); able && (a.state == bgagent.PromptAnswered || a.state == bgagent.PromptInterrupted) {
		c.failf("RestoreSession returned %q for a prompt that was never received; an earlier prompt with another id has the same text", a.state)
	}
}

func checkRestartNoSession(c *checkContext) {
	r := bgagent.SessionRestore{Session: missing, Last: c.promptFor(c.h.Say("fig")), Instance: c.instance}
	if !c.restart(DeathWhole) {
		return
	}
	a, able := c.restore(r)
	switch {
	case !able || errors.Is(a.err, bgagent.ErrNoSession):
	case a.err == nil && a.state == bgagent.PromptMissing: // the client accepts any id
		c.answered(c.begin(missing, c.h.Say("fig")), "fig")
	case a.err != nil || a.state != bgagent.PromptUnknown || !c.h.Restart.Unsure:
		c.failf("RestoreSession of a session that does not exist: %q, %v; it should be ErrNoSession", a.state, a.err)
	}
	r.Session = "" // as if the process had died before CreateSession returned
	if a, able = c.restore(r); able && a.err == nil && a.state > bgagent.PromptMissing {
		c.failf("RestoreSession without a session returned %q; nothing can have been prompted", a.state)
	}
}

func checkRestartUnknown(c *checkContext) {
	d := c.begin(c.create(), c.h.Say("grapefruit"))
	c.answered(d, "grapefruit")
	if !c.restart(DeathWhole) {
		return
	}
	c.h.Restart.Spoil(c.sc, d.session)
	a, able := c.restore(restoring(d))
	madeUp := a.err == nil && a.state == bgagent.PromptAnswered && !strings.Contains(a.end.Text, "grapefruit")
	if able && (a.isMissing() || madeUp) {
		c.failf("RestoreSession of a session that cannot be read: %q with %+v, %v; it should be PromptUnknown or an error other than ErrNoSession", a.state, a.end, a.err)
	}
}

func checkRestartBusy(c *checkContext) {
	d := c.slow(c.create())
	if !c.restart(DeathBusy) {
		return
	}
	a := c.tryRestore(restoring(d))
	if c.unsupported(a.err) {
		return
	}
	if !errors.Is(a.err, bgagent.ErrBusy) {
		c.failf("RestoreSession returned %q, %v, and the old turn is still running; it should be ErrBusy", a.state, a.err)
	}
	c.h.Restart.Release(c.sc)
	if a, _ = c.restore(restoring(d)); a.err != nil || a.isMissing() {
		c.failf("RestoreSession after the end of the old turn: %q, %v; the session has the prompt", a.state, a.err)
	}
}

func checkRestartWithoutState(c *checkContext) {
	for _, state := range []string{"", "{\x00this is not what the client has saved"} {
		c.newInstance()
		d := c.slow(c.create())
		if !c.restart(DeathWhole) {
			return
		}
		r := restoring(d)
		if r.Saved = nil; state != "" {
			r.Saved = []byte(state)
		}
		a, able := c.restore(r)
		if !able {
			return
		}
		if a.isMissing() || a.err == nil && a.state == bgagent.PromptAnswered {
			c.failf("RestoreSession after a death in the middle of a turn, with the saved state %q: %q, %v; it should be %q or %q", state, a.state, a.err, bgagent.PromptInterrupted, bgagent.PromptUnknown)
		}
	}
}

func checkRestartNextPrompt(c *checkContext) {
	over := c.begin(c.create(), c.h.Say("hazelnut"))
	c.answered(over, "hazelnut")
	cut := c.slow(c.create())
	if !c.restart(DeathWhole) {
		return
	}
	for _, d := range []*driven{over, cut} {
		a, able := c.restore(restoring(d))
		if !able {
			return
		}
		if a.err != nil {
			c.endf("RestoreSession after the prompt %q: %v", d.prompt.Text, a.err)
		}
		c.say(d.session, "lime")
		c.say(d.session, "mandarin")
	}
}

func checkRestartResumed(c *checkContext) {
	d := c.begin(c.create(), c.h.Say("nectarine"))
	c.answered(d, "nectarine")
	if !c.restart(DeathWhole) {
		return
	}
	r := restoring(d)
	r.Last = bgagent.Prompt{} // an empty Last means that the manager has recorded the ends of all turns
	a, able := c.restore(r)
	if !able {
		return
	}
	if a.err != nil {
		c.endf("RestoreSession of a session whose turns have all ended: %v", a.err)
	}
	c.say(d.session, "orange")
}

func checkRestartTwice(c *checkContext) {
	cut := c.slow(c.create())
	for range 2 { // two processes, one after the other; neither sends a prompt
		if !c.restart(DeathWhole) {
			return
		}
		if a, able := c.restore(restoring(cut)); !able || !c.is(a, bgagent.PromptInterrupted, "after a death in the middle of a turn") {
			return
		}
	}
	over := c.begin(cut.session, c.h.Say("pear"))
	c.answered(over, "pear")
	if !c.restart(DeathWhole) {
		return
	}
	a, able := c.restore(restoring(cut, over))
	if able && c.is(a, bgagent.PromptAnswered, "after a turn in a restored session") && !strings.Contains(a.end.Text, "pear") {
		c.failf("RestoreSession returned the end %+v; the last answer of the session contains %q", a.end, "pear")
	}
}

func checkRestartMemory(c *checkContext) {
	d := c.begin(c.create(), c.h.Say("papaya"))
	c.answered(d, "papaya")
	if !c.restart(DeathWhole) {
		return
	}
	if _, able := c.restore(restoring(d)); !able {
		return
	}
	if o := c.begin(d.session, c.h.Recall()).await(); o.failed() || !strings.Contains(o.text, "papaya") {
		c.failf("after a restart, the agent was asked for the first prompt of the session and ended as %v; the prompt contains %q", o, "papaya")
	}
}

func checkRestartNoRequest(c *checkContext) {
	d := c.slow(c.create())
	if !c.restart(DeathWhole) {
		return
	}
	before := c.h.Restart.Requests(c.sc)
	if _, able := c.restore(restoring(d)); !able {
		return
	}
	c.pause(10 * c.h.Poll)
	if n := c.h.Restart.Requests(c.sc) - before; n > 0 {
		c.failf("RestoreSession made %d request(s); it should only read", n)
	}
}

func checkRestartOtherInstances(c *checkContext) {
	other := newCheckContext(c.TB, c.h, c.ck) // stands for another manager, whose process keeps running
	foreign := other.slow(other.create())
	d := c.slow(c.create())
	if !c.restart(DeathAlone, DeathWhole) {
		return
	}
	own := c.slow(c.create())
	r := restoring(d)
	if _, able := c.restore(r); !able {
		return
	}
	r.Instance = c.instance
	c.tryRestore(r)
	c.goesOn(own, "its own process")
	c.goesOn(foreign, "another manager")
}

func checkRestartFollowed(c *checkContext) {
	id := c.create()
	c.say(id, "raspberry")
	var v conversation
	c.readOn(id, &v, 1000)
	known := len(v.list)
	d := c.slow(id)
	if !c.restart(DeathAlone) {
		return
	}
	if got := c.statuses(id); !inTurn(got[id].State) {
		c.failf("in the next process, the status of a session in a turn is %s; it should be busy", stateOf(got, id))
	}
	c.readOn(id, &v, 1000)
	prompted := false
	for _, msg := range v.list[known:] {
		prompted = prompted || msg.Role == bgagent.RoleUser && (msg.PromptID == d.prompt.ID || !c.h.KeepsPromptID)
	}
	if !prompted {
		c.failf("in the next process, Messages from the last cursor before the prompt %s returned no such prompt", d.prompt.ID)
	}
	c.abort(id)
	d.awaitFor(c.h.Soon, "Abort by the next process")
}

func checkRestartRepeatedPrompt(c *checkContext) {
	d := c.begin(c.create(), c.h.Say("sloe"))
	c.answered(d, "sloe")
	if !c.restart(DeathAlone) {
		return
	}
	again := d.prompt
	again.Instance = c.instance
	if err := c.call("StartTurn", func(ctx context.Context) error { return c.starter.StartTurn(ctx, d.session, again) }); err != nil {
		c.failf("StartTurn was repeated in the next process: %v; it should return nil like the first call", err)
	}
	c.onlyOnce(d, "sloe")
}
