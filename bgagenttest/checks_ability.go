package bgagenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/bgagent/bgagent"
)

// abilityChecks check the optional abilities of a client.
var abilityChecks = []check{
	{name: "notices once", why: "a notice is sent again if its answer was lost, and a parent that gets it twice acts twice", needs: []need{aNotifier, harnessNotices}, run: checkNoticesOnce},
	{name: "notice to a missing session", why: "a notice that reached nobody must be kept or tried with another client", needs: []need{aNotifier}, run: checkNoticeToMissing},
	{name: "notice to a busy session", why: "a notice that is accepted while the agent works and then dropped is never delivered", needs: []need{aNotifier, harnessNotices}, run: checkNoticeToBusy},
	{name: "event after a turn", why: "without an event for the idle session, its task waits for the next poll", needs: []need{anEventSource}, run: checkEventAfterTurn},
	{name: "events tell messages", why: "a session is not read while a stream that is up reports everything about it", needs: []need{aStarter, anEventSource}, run: checkEventsTellMessages},
	{name: "revisions", why: "a session is not read if its revision has not changed", needs: []need{aStarter}, run: checkRevisions},
	{name: "events end", why: "Close waits for the stream to end", needs: []need{anEventSource}, run: checkEventsEnd},
	{name: "todos", why: "todos that cannot be read delay the end of every turn", needs: []need{aTodoReader}, run: checkTodos},
	{name: "find", why: "its notices depend on whether a session exists, and on its place in the tree", needs: []need{aFinder}, run: checkFind},
	{name: "agents", why: "a caller that misspells a name is shown the list", needs: []need{aLister}, run: checkAgents},
	{name: "message without a turn", why: "a turn that a message starts on its own runs without a slot, and nobody waits for it", needs: []need{aSteerer}, run: checkMessageWithoutTurn},
	{name: "message in a turn", why: "a message must not stop the turn that it joins, and must not be answered in a later turn", needs: []need{aSteerer}, run: checkMessageInTurn},
	{name: "message taken", why: "a message that the session has not received is lost, because its sender learns that it was received", needs: []need{aSteerer, harnessNap}, run: checkMessageTaken},
	{name: "forget", why: "a client that forgets too little fills the memory, and one that forgets too much loses sessions in use", needs: []need{aForgetter}, run: checkForget},
}

// The method "notice" returns a notice for the session; n makes the ids of the notice and of its
// item unique.
func (c *checkContext) notice(session, n string) bgagent.Notice {
	return bgagent.Notice{
		ID: "bgn_" + c.task + n, Session: session, Closing: true, Text: "a task has ended",
		Items: []bgagent.NoticeItem{{ID: "bge_" + c.task + n, Task: "bg_" + c.task, Attempt: 1, Description: "conformance", Agent: c.h.Agent, Status: bgagent.Completed}},
	}
}

func checkNoticesOnce(c *checkContext) {
	id := c.create()
	c.say(id, "acacia")
	one, two := c.notice(id, "1"), c.notice(id, "2")
	for _, n := range []bgagent.Notice{one, one, two, one} {
		var err error
		told := c.until(c.h.TurnTime, func() bool {
			err = c.call("Notify", func(ctx context.Context) error { return c.notifier.Notify(ctx, id, n) })
			return !errors.Is(err, bgagent.ErrBusy)
		})
		if c.unsupported(err) {
			return
		}
		if !told || err != nil {
			c.endf("Notify of an existing session: %v", err)
		}
	}
	count := map[string]int{}
	c.until(c.h.Settle, func() bool {
		clear(count)
		for _, n := range c.h.Notices(c.sc, id) {
			count[n]++
		}
		return count[one.ID] > 0 && count[two.ID] > 0
	})
	if count[one.ID] != 1 || count[two.ID] != 1 || len(count) != 2 {
		c.failf("a notice was sent three times and another once; the session received %v; it should receive each once", count)
	}
}

func checkNoticeToMissing(c *checkContext) {
	n := bgagent.Notice{ID: "bgn_" + c.task, Session: missing, Text: "a task has ended"}
	err := c.call("Notify", func(ctx context.Context) error { return c.notifier.Notify(ctx, missing, n) })
	if c.unsupported(err) {
		return
	}
	if !errors.Is(err, bgagent.ErrNoSession) {
		c.failf("Notify of a session that does not exist: %v; it should be ErrNoSession", err)
	}
}

func checkNoticeToBusy(c *checkContext) {
	id := c.create()
	d := c.slow(id)
	n := c.notice(id, "1")
	err := c.call("Notify", func(ctx context.Context) error { return c.notifier.Notify(ctx, id, n) })
	d.stop()
	switch {
	case c.unsupported(err) || errors.Is(err, bgagent.ErrBusy):
	case err != nil:
		c.failf("Notify of a session in a turn: %v; it should be ErrBusy, or nil if the notice is queued", err)
	case !c.until(c.h.Settle, func() bool { return slices.Contains(c.h.Notices(c.sc, id), n.ID) }):
		c.failf("Notify of a session in a turn returned nil, but the notice has not arrived %v after the turn; it should be queued or refused with ErrBusy", c.h.Settle)
	}
}

// The type "listening" holds a call to Events and the events that the call has emitted.
type listening struct {
	c      *checkContext
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	events []bgagent.HostEvent
	err    error
}

// The method "listen" calls Events on another goroutine. The context of the call ends with the
// check.
func (c *checkContext) listen() *listening {
	ctx, cancel := context.WithCancel(c.Context())
	l := &listening{c: c, cancel: cancel, done: make(chan struct{})}
	c.Cleanup(cancel)
	go func() {
		defer close(l.done)
		err := guarded("Events", func() error {
			return c.events.Events(ctx, func(e bgagent.HostEvent) {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.events = append(l.events, e)
			})
		})
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err = err
	}()
	c.pause(10 * c.h.Poll) // gives the client time to connect
	return l
}

// The method "ended" reports whether Events has returned, and which error it returned.
func (l *listening) ended() (bool, error) {
	select {
	case <-l.done:
	default:
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return true, l.err
}

// The method "saw" waits for at most Harness.Settle for an event that meets the condition. It
// reports whether there was such an event.
func (l *listening) saw(is func(bgagent.HostEvent) bool) bool {
	return l.c.until(l.c.h.Settle, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range l.events {
			if is(e) {
				return true
			}
		}
		return false
	})
}

func checkEventAfterTurn(c *checkContext) {
	l := c.listen()
	if over, err := l.ended(); over {
		if !c.unsupported(err) {
			c.failf("Events returned %v before its context ended", err)
		}
		return
	}
	id := c.create()
	c.say(id, "birch")
	if !l.saw(func(e bgagent.HostEvent) bool {
		return e.Kind == bgagent.HostStatus && e.Session == id && e.Status.State == bgagent.SessionIdle
	}) {
		c.failf("no event says that the session is idle, %v after its turn", c.h.Settle)
	}
}

// checkEventsTellMessages compares the messages that the stream emits before the session
// becomes idle with the messages that can be read.
func checkEventsTellMessages(c *checkContext) {
	l := c.listen()
	if over, err := l.ended(); over && c.unsupported(err) {
		return
	}
	id := c.create()
	c.say(id, "elder")
	idle := func(e bgagent.HostEvent) bool {
		return e.Kind == bgagent.HostStatus && e.Session == id && e.Status.State == bgagent.SessionIdle
	}
	if !l.saw(idle) {
		return // checkEventAfterTurn reports that the event is missing
	}
	up, told := l.toldBefore(id, idle)
	if !up {
		c.Logf("does not apply: the stream never says that it reports everything")
		return
	}
	for _, msg := range c.readAll(id) {
		if msg.Role != bgagent.RoleAgent {
			continue
		}
		if got, want := told[msg.ID], shown([]bgagent.Message{msg}); len(got) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
			c.failf("when the stream reported the idle session, it had emitted %+v for a message that is %+v; a stream that is up must emit all of it first", got, want)
		}
	}
}

// toldBefore reports whether the stream has emitted HostStreamUp, after which the stream reports
// everything. toldBefore also returns the session's messages that were emitted before the last
// event for which the function "end" returns true. It returns only the latest version of each
// message.
func (l *listening) toldBefore(session string, end func(bgagent.HostEvent) bool) (up bool, told map[string][]look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := 0
	for i, e := range l.events {
		up = up || e.Kind == bgagent.HostStreamUp
		if end(e) {
			last = i
		}
	}
	told = map[string][]look{}
	for _, e := range l.events[:last] {
		if e.Kind == bgagent.HostMessage && e.Session == session && e.Message != nil {
			told[e.Message.ID] = shown([]bgagent.Message{*e.Message})
		}
	}
	return up, told
}

func checkRevisions(c *checkContext) {
	id := c.create()
	revision := func() string { return c.statuses(id)[id].Revision }
	before := revision()
	for _, word := range []string{"fir", "gum"} {
		c.say(id, word)
		after := revision()
		if after != "" && after == before {
			c.failf("a turn added messages, but the revision is still %q", after)
		}
		before = after
	}
}

func checkEventsEnd(c *checkContext) {
	l := c.listen()
	if over, err := l.ended(); over && c.unsupported(err) {
		return
	}
	l.cancel()
	if !c.until(c.h.Soon, func() bool { over, _ := l.ended(); return over }) {
		c.failf("Events has not returned %v after its context ended", c.h.Soon)
	}
}

func checkTodos(c *checkContext) {
	id := c.create()
	for _, when := range []string{"before the first turn", "after the first turn"} {
		err := c.call("Todos", func(ctx context.Context) error {
			list, err := c.todos.Todos(ctx, id)
			if err == nil && len(list) > 0 {
				c.Logf("todos %s: %v", when, list)
			}
			return err
		})
		if c.unsupported(err) {
			return
		}
		if err != nil {
			c.failf("Todos of an existing session, %s: %v", when, err)
		}
		c.say(id, "cedar")
	}
}

func (c *checkContext) find(session string) (info bgagent.SessionInfo, err error) {
	c.Helper()
	err = c.call("FindSession", func(ctx context.Context) (err error) {
		info, err = c.finder.FindSession(ctx, session)
		return err
	})
	return info, err
}

func checkFind(c *checkContext) {
	id := c.create()
	info, err := c.find(id)
	if c.unsupported(err) {
		return
	}
	switch {
	case err != nil:
		c.failf("FindSession of a session that was just created: %v", err)
	case info.Parent != "" && info.Parent != c.h.Parent, info.Directory != "" && c.h.Directory != "" && info.Directory != c.h.Directory:
		c.failf("FindSession returned %+v; the session was created with parent %q and directory %q", info, c.h.Parent, c.h.Directory)
	}
	if _, err := c.find(missing); !errors.Is(err, bgagent.ErrNoSession) {
		c.failf("FindSession of a session that does not exist: %v; it should be ErrNoSession", err)
	}
}

func checkAgents(c *checkContext) {
	var list []bgagent.AgentInfo
	err := c.call("Agents", func(ctx context.Context) (err error) {
		list, err = c.lister.Agents(ctx)
		return err
	})
	if c.unsupported(err) {
		return
	}
	if err != nil {
		c.endf("Agents: %v", err)
	}
	count := map[string]int{}
	var names []string
	for _, a := range list {
		count[a.Name]++
		names = append(names, a.Name)
	}
	if count[c.h.Agent] == 0 && !c.h.AnyAgent {
		c.failf("Agents returned %s; the agent %q is missing", strings.Join(names, ", "), c.h.Agent)
	}
	for name, n := range count {
		if name == "" || n > 1 {
			c.failf("Agents returned the name %q %d times", name, n)
		}
	}
}

func checkForget(c *checkContext) {
	kept, gone := c.create(), c.create()
	c.say(kept, "maple")
	c.say(gone, "oak")
	for _, id := range []string{gone, gone, missing} {
		if err := c.call("ForgetSession", func(context.Context) error { c.forgetter.ForgetSession(id); return nil }); err != nil {
			c.failf("ForgetSession of %q: %v", id, err)
		}
	}
	c.say(kept, "pine")
	if c.finder == nil {
		return
	}
	if _, err := c.find(kept); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		c.failf("FindSession of a session after another one was forgotten: %v", err)
	}
	if _, err := c.find(gone); err != nil && !errors.Is(err, bgagent.ErrNoSession) && !errors.Is(err, errors.ErrUnsupported) {
		c.failf("FindSession of a forgotten session: %v; it should find it or return ErrNoSession", err)
	}
}
