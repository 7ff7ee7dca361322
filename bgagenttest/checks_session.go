package bgagenttest

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// The constant "missing" is the id of a session that no client has.
const missing = "ses_conformance_no_such_session"

// sessionChecks check sessions and their turns, for both kinds of clients.
var sessionChecks = []check{
	{name: "one kind", why: "New refuses a client that is both a TurnRunner and a TurnStarter, or neither", run: checkOneKind},
	{name: "session ids", why: "two tasks with the same session id get each other's answers", run: checkSessionIDs},
	{name: "unknown agent", why: "only a *NoSuchAgentError lets the caller correct the name immediately", needs: []need{knownAgents}, run: checkUnknownAgent},
	{name: "answer", why: "the answer is the purpose of a task", run: checkAnswer},
	{name: "second turn", why: "Resume and notices continue the session of the first turn", run: checkSecondTurn},
	{name: "memory", why: "a follow-up that does not know the earlier turns is a new conversation", needs: []need{harnessRecall}, run: checkMemory},
	{name: "side by side", why: "one long task must not delay the others", run: checkSideBySide},
	{name: "many at once", why: "all methods are called concurrently, and every task needs its own answer", run: checkManyAtOnce},
	{name: "missing session", why: "a prompt that reached nobody must not look like a turn that began", run: checkMissingSession},
	{name: "abort", why: "Cancel, time limits and Close rely on it to stop turns", run: checkAbort},
	{name: "abort is no answer", why: "a turn that somebody else stopped would complete its task", run: checkAbortIsNoAnswer},
	{name: "after abort", why: "a cancelled task can be resumed in its session", run: checkAfterAbort},
	{name: "abort idle", why: "an abort can come just after the turn has ended, and it can be repeated", run: checkAbortIdle},
	{name: "abort missing", why: "the manager also aborts sessions that might never have been created", run: checkAbortMissing},
	{name: "context of a turn", why: "the manager ends a runner's turn through its context", needs: []need{aRunner}, run: checkContextOfTurn},
	{name: "reporter", why: "nothing that a turn started may continue after RunTurn has returned, because the turn's slot is then free", needs: []need{aRunner}, run: checkReporter},
	{name: "handed over", why: "the context of StartTurn ends when the manager stops waiting for the call, not when the turn must stop", needs: []need{aStarter}, run: checkHandedOver},
	{name: "repeated prompt", why: "StartTurn is called again if its answer was lost, and the work must not be done twice", needs: []need{aStarter, knownRepeats}, run: checkRepeatedPrompt},
	{name: "statuses", why: "a session that is missing from the answer is unknown, so its task never ends", needs: []need{aStarter}, run: checkStatuses},
	{name: "idle after the turn", why: "an idle session with output completes its task, even if something is still running", needs: []need{aStarter}, run: checkIdleAfterTurn},
	{name: "failure", why: "a failed agent's last words would count as its answer", needs: []need{harnessFail}, run: checkFailure},
	{name: "after a failure", why: "a failed task can be resumed in its session", needs: []need{harnessFail}, run: checkAfterFailure},
}

func checkOneKind(c *checkContext) {
	_, runner := c.sc.(bgagent.TurnRunner)
	_, starter := c.sc.(bgagent.TurnStarter)
	switch {
	case runner && starter:
		c.failf("%T is both a TurnRunner and a TurnStarter", c.sc)
	case !runner && !starter:
		c.failf("%T is neither a TurnRunner nor a TurnStarter", c.sc)
	}
}

func checkSessionIDs(c *checkContext) {
	seen := map[string]bool{}
	for range 12 {
		id := c.create()
		if seen[id] {
			c.failf("CreateSession returned the id %q twice", id)
		}
		seen[id] = true
	}
}

func checkUnknownAgent(c *checkContext) {
	const agent = "conformance-no-such-agent"
	var id string
	err := c.call("CreateSession", func(ctx context.Context) (err error) {
		id, err = c.sc.CreateSession(ctx, c.spec(agent))
		return err
	})
	if err == nil { // CreateSession accepts the unknown agent, so the first prompt must be refused
		p := c.promptFor(c.h.Say("apple"))
		p.Agent = agent
		err = c.call("the first turn", func(ctx context.Context) error {
			if c.starter != nil {
				return c.starter.StartTurn(ctx, id, p)
			}
			_, err := c.runner.RunTurn(ctx, id, p, bgagent.NewReporter(func(bgagent.Report) {}))
			return err
		})
	}
	var no *bgagent.NoSuchAgentError
	switch {
	case !errors.As(err, &no):
		c.failf("the agent %q does not exist; the error should be a *NoSuchAgentError, but it is %v", agent, err)
	case no.Agent != agent:
		c.failf("the error names the agent %q; it should name the requested agent %q", no.Agent, agent)
	}
}

func checkAnswer(c *checkContext) { c.say(c.create(), "banana") }

func checkSecondTurn(c *checkContext) {
	id := c.create()
	c.say(id, "cherry")
	c.say(id, "damson")
	c.say(id, "elder")
}

func checkMemory(c *checkContext) {
	id := c.create()
	c.say(id, "marzipan")
	if o := c.begin(id, c.h.Recall()).await(); o.failed() || !strings.Contains(o.text, "marzipan") {
		c.failf("the agent was asked for the first prompt of the session and ended as %v; the prompt contains %q", o, "marzipan")
	}
}

func checkSideBySide(c *checkContext) {
	one, two := c.create(), c.create()
	long := c.slow(one)
	short := c.begin(two, c.h.Say("fig"))
	if !short.ended(c.h.TurnTime) {
		c.endf("the turn in one session is not over after %v while a long one runs in another", c.h.TurnTime)
	}
	c.answered(short, "fig")
	if c.runner != nil && long.ended(0) {
		c.failf("the long turn ended as %v together with the short one in another session", long.outcome())
	}
	if c.starter != nil && !inTurn(c.statuses(one)[one].State) {
		c.failf("the long turn is %s after the short one in another session", c.statuses(one)[one].State)
	}
	long.stop()
}

func checkManyAtOnce(c *checkContext) {
	words := []string{"grape", "hazel", "juniper", "kiwi", "lemon", "mango"}
	var turns []*driven
	for _, word := range words {
		turns = append(turns, c.begin(c.create(), c.h.Say(word)))
	}
	for i, d := range turns {
		if o := d.await(); o.failed() || !strings.Contains(o.text, words[i]) {
			c.failf("with %d turns at the same time, the turn with %q ended as %v", len(words), d.prompt.Text, o)
		}
	}
}

func checkMissingSession(c *checkContext) {
	d, err := c.tryBegin(missing, c.promptFor(c.h.Say("nutmeg")))
	if c.runner != nil {
		if !d.ended(c.h.Soon) {
			c.endf("RunTurn in a session that does not exist has not returned after %v", c.h.Soon)
		}
		err = d.outcome().err
	}
	if err == nil {
		c.failf("a turn in a session that does not exist should be refused with an error")
	}
}

func checkAbort(c *checkContext) {
	id := c.create()
	d := c.slow(id)
	d.stop()
	if c.starter == nil {
		return
	}
	if s := c.statuses(id)[id].State; s != bgagent.SessionIdle && s != bgagent.SessionUntold {
		c.failf("the session is %s after its turn was aborted; it should be idle", s)
	}
}

func checkAbortIsNoAnswer(c *checkContext) {
	d := c.slow(c.create())
	o := d.stop()
	switch {
	case c.starter != nil && o.stop == bgagent.StopEndOfTurn,
		c.runner != nil && !o.failed():
		c.failf("an aborted turn ended as %v; it should be an error or StopAborted", o)
	}
}

func checkAfterAbort(c *checkContext) {
	id := c.create()
	c.slow(id).stop()
	c.say(id, "olive")
}

func checkAbortIdle(c *checkContext) {
	id := c.create()
	c.abort(id)
	c.say(id, "peach")
	c.abort(id)
	c.abort(id)
	c.say(id, "quince")
}

func checkAbortMissing(c *checkContext) { c.abort(missing) }

func checkContextOfTurn(c *checkContext) {
	d := c.slow(c.create())
	d.cancel()
	o := d.awaitFor(c.h.Soon, "the end of its context")
	if !o.failed() {
		c.failf("a turn whose context has ended returned %v; it should be an error or StopAborted", o)
	}
}

func checkReporter(c *checkContext) {
	id := c.create()
	said := c.begin(id, c.h.Say("raisin"))
	said.await()
	stopped := c.slow(id)
	stopped.stop()
	c.pause(20 * c.h.Poll)
	for _, d := range []*driven{said, stopped} {
		d.mu.Lock()
		late := d.late
		d.mu.Unlock()
		if late > 0 {
			c.failf("%d report(s) came after RunTurn had returned for %q", late, d.prompt.Text)
		}
	}
}

func checkHandedOver(c *checkContext) {
	d := c.slow(c.create()) // when slow returns, StartTurn has returned and its context has ended
	if d.ended(5 * c.h.Poll) {
		c.failf("the turn ended as %v together with the context of StartTurn", d.outcome())
	}
	d.stop()
}

func checkRepeatedPrompt(c *checkContext) {
	id := c.create()
	d := c.begin(id, c.h.Say("saffron"))
	again := func(when string) {
		if err := c.call("StartTurn", func(ctx context.Context) error { return c.starter.StartTurn(ctx, id, d.prompt) }); err != nil {
			c.failf("StartTurn was repeated %s: %v; it should return nil like the first call", when, err)
		}
	}
	again("at once")
	d.await()
	again("after the turn")
	c.onlyOnce(d, "saffron")
}

// onlyOnce fails the check if the prompt of d, which was sent twice, began a second turn. The
// answer to the prompt contains the word.
func (c *checkContext) onlyOnce(d *driven, word string) {
	c.Helper()
	c.pause(5 * c.h.Poll)
	if !d.ended(c.h.TurnTime) {
		c.endf("the session is still in a turn %v after a repeated StartTurn", c.h.TurnTime)
	}
	users, answers := 0, 0
	for _, msg := range c.readAll(d.session) {
		switch {
		case msg.Role == bgagent.RoleUser:
			users++
		case msg.Role == bgagent.RoleAgent && strings.Contains(msg.Text, word):
			answers++
		}
	}
	if users != 1 || answers != 1 {
		c.failf("StartTurn was repeated with the same Prompt.ID; there are %d messages of the user and %d answers; there should be one of each", users, answers)
	}
}

func checkStatuses(c *checkContext) {
	idle, busy, used := c.create(), c.create(), c.create()
	c.say(used, "tamarind")
	d := c.slow(busy)
	got := c.statuses(idle, missing, busy, used)
	for what, id := range map[string]string{"that never was in a turn": idle, "whose turn is over": used} {
		if s, ok := got[id]; !ok || s.State != bgagent.SessionIdle && s.State != bgagent.SessionUntold {
			c.failf("the status of a session %s is %s; it should be idle", what, stateOf(got, id))
		}
	}
	if !inTurn(got[busy].State) {
		c.failf("the status of a session in a turn is %s; it should be busy", stateOf(got, busy))
	}
	switch got[missing].State {
	case bgagent.SessionGone, bgagent.SessionUnknown, bgagent.SessionUntold:
	default:
		c.failf("the status of a session that does not exist is %s; it should be gone or left out", stateOf(got, missing))
	}
	d.stop()
}

func stateOf(got map[string]bgagent.SessionStatus, id string) string {
	if s, ok := got[id]; ok {
		return s.State.String()
	}
	return "missing from the answer"
}

func checkIdleAfterTurn(c *checkContext) {
	id := c.create()
	d := c.slow(id)
	for i := range 20 {
		if s := c.statuses(id)[id].State; s == bgagent.SessionIdle || s == bgagent.SessionGone {
			c.failf("poll %s: the status of a session in the middle of its turn is %s; it should be busy", strconv.Itoa(i+1), s)
			break
		}
		c.pause(c.h.Poll)
	}
	d.stop()
}

func checkFailure(c *checkContext) {
	id := c.create()
	var ev *listening
	if c.starter != nil && c.events != nil {
		ev = c.listen()
	}
	o := c.begin(id, c.h.Fail()).await()
	if o.failed() && o.stop != bgagent.StopAborted {
		return
	}
	if ev != nil && ev.saw(func(e bgagent.HostEvent) bool { return e.Kind == bgagent.HostError && e.Session == id }) {
		return
	}
	c.failf("a failing agent ended as %v; it should be an error or StopError", o)
}

func checkAfterFailure(c *checkContext) {
	id := c.create()
	c.begin(id, c.h.Fail()).await()
	c.say(id, "vanilla")
}
