package bgagenttest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// Restart configures the restart checks. For a [bgagent.TurnRunner], they check
// [bgagent.SessionRestorer]. For a [bgagent.TurnStarter], they check that another process can
// follow the sessions.
//
// The suite cannot end its own process. Instead, it stops using the old client, gets the client of
// the next process from Next, and calls RestoreSession on that client. If a call to RunTurn is
// still running in the old client, it continues until the check is over. The suite ignores the
// result of that call.
//
// In these checks, all prompts and specs have an Instance, as if the manager had a store. Each
// process has a different Instance. The configuration of the clients must not contain an instance.
type Restart struct {
	// Next simulates the death of the old client's process, and returns a client of the next
	// process. It leaves everything that the old client has started in the state that this kind of
	// death would cause. It should use t.Cleanup to register functions that free the new client's
	// resources. If this kind of death cannot happen to the client, Next must return nil; the check
	// then does not apply. Without Next, all restart checks are skipped.
	Next func(t TB, old bgagent.SessionClient, death Death) bgagent.SessionClient

	// Release terminates the programs that are still running after DeathBusy. Optional: without
	// Release, the check for DeathBusy is skipped.
	Release func(next bgagent.SessionClient)

	// Left returns the number of running turns that were started by an earlier process with the
	// given instance. Optional: without Left, the check that needs it is skipped.
	Left func(next bgagent.SessionClient, instance string) int

	// Spoil makes it impossible to find out which prompts the session contains, for example by
	// damaging the session's file. Optional: without Spoil, the check that needs it is skipped.
	Spoil func(next bgagent.SessionClient, session string)

	// Requests returns the number of requests that the model has received, or the number of
	// prompts that the agent has received. Optional: without Requests, the check that needs it is
	// skipped.
	Requests func(next bgagent.SessionClient) int

	// Unsure means that the suite accepts PromptUnknown in place of another state, because the
	// client's program does not always show the state of a prompt.
	Unsure bool
}

// Death describes what is still running after a client's process has ended.
type Death uint8

// The deaths.
const (
	DeathWhole Death = iota // nothing; the programs that the process had started have also ended
	DeathAlone              // the programs of running turns, or the server; RestoreSession can terminate the programs or wait until they exit
	DeathBusy               // the programs of running turns; RestoreSession can neither terminate them nor wait until they exit
)

// The type "restored" contains the results of a call to RestoreSession.
type restored struct {
	state bgagent.PromptState
	end   bgagent.TurnEnd
	err   error
}

// newInstance sets a new instance, as if another manager had been started.
func (c *checkContext) newInstance() { c.instance = "conformance-" + strings.ToLower(rand.Text()) }

// The method "restart" simulates the end of the client's process. It uses the first of the deaths
// that can happen to the client. The check then uses the client of the next process. If none of the
// deaths can happen, the method returns false.
func (c *checkContext) restart(deaths ...Death) bool {
	c.Helper()
	var next bgagent.SessionClient
	for _, death := range deaths {
		if next = c.h.Restart.Next(c.TB, c.sc, death); next != nil {
			break
		}
	}
	if next == nil {
		c.Logf("does not apply: Restart.Next returned nil")
		return false
	}
	runner := c.runner != nil
	c.use(next)
	c.newInstance()
	if runner && (c.runner == nil || c.restorer == nil) || !runner && c.starter == nil {
		c.endf("Restart.Next returned a %T; it should have the abilities of the previous client", next)
	}
	for _, id := range c.sessions {
		c.forgetLater(id)
	}
	return true
}

// The function "restoring" returns the argument that the next process's manager passes to
// RestoreSession for the session of these turns. The turns must be in the order they began.
func restoring(turns ...*driven) bgagent.SessionRestore {
	var r bgagent.SessionRestore
	for _, d := range turns {
		r.Session, r.Last, r.Instance = d.session, d.prompt, d.prompt.Instance
		d.mu.Lock()
		for _, x := range d.reports {
			if x.Kind == bgagent.ReportState {
				r.Saved = slices.Clone(x.Saved)
			}
		}
		d.mu.Unlock()
	}
	return r
}

// tryRestore calls RestoreSession once.
func (c *checkContext) tryRestore(r bgagent.SessionRestore) (a restored) {
	c.Helper()
	r.Spec = c.spec(c.h.Agent)
	a.err = c.callFor(c.h.TurnTime, "RestoreSession", func(ctx context.Context) (err error) {
		a.state, a.end, err = c.restorer.RestoreSession(ctx, r)
		return err
	})
	return a
}

// The method "restore" calls RestoreSession. Like the manager, it repeats the call while the error
// is ErrBusy. The result "able" is false if the client does not support the call.
func (c *checkContext) restore(r bgagent.SessionRestore) (a restored, able bool) {
	c.Helper()
	quiet := c.until(c.h.TurnTime, func() bool {
		a = c.tryRestore(r)
		return !errors.Is(a.err, bgagent.ErrBusy)
	})
	if !quiet {
		c.endf("RestoreSession still returns %v after %v", a.err, c.h.TurnTime)
	}
	return a, !c.unsupported(a.err)
}

// isMissing reports whether these results make the manager send the prompt again.
func (a restored) isMissing() bool {
	return errors.Is(a.err, bgagent.ErrNoSession) || a.err == nil && a.state == bgagent.PromptMissing
}

// The method "is" reports whether RestoreSession returned the wanted state. If it did not, the
// check fails, unless the state is PromptUnknown and Restart.Unsure is set.
func (c *checkContext) is(a restored, want bgagent.PromptState, when string) bool {
	c.Helper()
	switch {
	case a.err == nil && a.state == want:
		return true
	case a.err != nil:
		c.failf("RestoreSession %s: %v; it should be %q", when, a.err, want)
	case a.state != bgagent.PromptUnknown || !c.h.Restart.Unsure:
		c.failf("RestoreSession %s returned %q with the end %+v; it should be %q", when, a.state, a.end, want)
	}
	return false
}

// goesOn fails the check if the turn ends within a short time.
func (c *checkContext) goesOn(d *driven, whose string) {
	c.Helper()
	if d.ended(5 * c.h.Poll) {
		c.failf("RestoreSession ended a turn of %s: it ended as %v", whose, d.outcome())
	}
}
