package bgagenttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// checkContext holds the new client created for a check, and has methods that call the client. The
// methods work for both kinds of clients.
type checkContext struct {
	TB
	h  *Harness
	ck *check
	sc bgagent.SessionClient

	runner    bgagent.TurnRunner
	starter   bgagent.TurnStarter // nil if the client is a runner
	reader    bgagent.MessageReader
	notifier  bgagent.Notifier
	events    bgagent.EventSource
	todos     bgagent.TodoReader
	finder    bgagent.SessionFinder
	lister    bgagent.AgentLister
	forgetter bgagent.SessionForgetter
	steerer   bgagent.Steerer
	restorer  bgagent.SessionRestorer
	answerer  bgagent.Answerer

	sessions []string // ids of the sessions that the check has created
	instance string   // instance in specs and prompts; empty if the check does not need a restart

	task  string // suffix of the id of the task that all prompts belong to
	turns int    // number of prompts so far
}

func newCheckContext(t TB, h *Harness, ck *check) *checkContext {
	t.Helper()
	c := &checkContext{TB: t, h: h, ck: ck, task: strings.ToLower(rand.Text())}
	if slices.Contains(ck.needs, harnessRestart) {
		c.newInstance()
	}
	c.use(h.New(t))
	return c
}

// The method "use" makes sc the client of the check and determines which abilities sc has.
func (c *checkContext) use(sc bgagent.SessionClient) {
	c.sc, c.starter = sc, nil
	c.runner, _ = c.sc.(bgagent.TurnRunner)
	if c.runner == nil {
		c.starter, _ = c.sc.(bgagent.TurnStarter)
	}
	c.reader, _ = c.sc.(bgagent.MessageReader)
	c.notifier, _ = c.sc.(bgagent.Notifier)
	c.events, _ = c.sc.(bgagent.EventSource)
	c.todos, _ = c.sc.(bgagent.TodoReader)
	c.finder, _ = c.sc.(bgagent.SessionFinder)
	c.lister, _ = c.sc.(bgagent.AgentLister)
	c.forgetter, _ = c.sc.(bgagent.SessionForgetter)
	c.steerer, _ = c.sc.(bgagent.Steerer)
	c.restorer, _ = c.sc.(bgagent.SessionRestorer)
	c.answerer, _ = c.sc.(bgagent.Answerer)
}

// failf fails the check and adds to the message why the failure matters. The check
// continues.
func (c *checkContext) failf(format string, args ...any) {
	c.Helper()
	c.Errorf("%s\n\twhy it matters: %s", fmt.Sprintf(format, args...), c.ck.why)
}

// endf fails the check and stops it. It adds to the message why the failure matters.
func (c *checkContext) endf(format string, args ...any) {
	c.Helper()
	c.Fatalf("%s\n\twhy it matters: %s", fmt.Sprintf(format, args...), c.ck.why)
}

// The method "unsupported" reports whether the error means that the client lacks the ability
// although it implements the interface. In this case, it also logs that the check does not apply.
func (c *checkContext) unsupported(err error) bool {
	if errors.Is(err, errors.ErrUnsupported) {
		c.Logf("does not apply: %v", err)
		return true
	}
	return false
}

func (c *checkContext) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.Context().Done():
	}
}

// The method "until" calls the function "holds" again and again until this function returns true,
// the limit has passed or the check is stopped. It returns the function's last result.
func (c *checkContext) until(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); ; c.pause(c.h.Poll) {
		switch {
		case holds():
			return true
		case !time.Now().Before(end) || c.Context().Err() != nil:
			return false
		}
	}
}

// The method "call" calls a method of the client. If the method does not return within
// Harness.Soon, the check fails and stops, even if the method ignores its context.
func (c *checkContext) call(what string, f func(ctx context.Context) error) error {
	c.Helper()
	return c.callFor(c.h.Soon, what, f)
}

// callFor is like call, but uses the given limit instead of Harness.Soon.
func (c *checkContext) callFor(limit time.Duration, what string, f func(ctx context.Context) error) error {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	ch := make(chan error, 1)
	go func() { ch <- guarded(what, func() error { return f(ctx) }) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ch:
		return err
	case <-timer.C:
		c.endf("%s has not returned within %v", what, limit)
		return nil
	}
}

// The function "guarded" executes f and converts a panic or a Goexit into an error.
func guarded(what string, f func() error) (err error) {
	err = fmt.Errorf("%s called runtime.Goexit", what)
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s panicked: %v", what, v)
		}
	}()
	return f()
}

func (c *checkContext) create() string {
	c.Helper()
	var id string
	err := c.call("CreateSession", func(ctx context.Context) (err error) {
		id, err = c.sc.CreateSession(ctx, c.spec(c.h.Agent))
		return err
	})
	switch {
	case err != nil:
		c.endf("CreateSession: %v", err)
	case id == "":
		c.endf("CreateSession returned an empty id and no error")
	}
	c.sessions = append(c.sessions, id)
	c.forgetLater(id)
	return id
}

// forgetLater makes the client forget the session when the check is over. This is necessary because
// a client can keep a process for each session.
func (c *checkContext) forgetLater(session string) {
	if forgetter := c.forgetter; forgetter != nil {
		c.Cleanup(func() { _ = guarded("ForgetSession", func() error { forgetter.ForgetSession(session); return nil }) })
	}
}

func (c *checkContext) spec(agent string) bgagent.SessionSpec {
	return bgagent.SessionSpec{
		Task: "bg_" + c.task, Parent: c.h.Parent, Title: "conformance: " + c.ck.name, Agent: agent, Directory: c.h.Directory, Depth: 1,
		Instance: c.instance,
	}
}

func (c *checkContext) abort(session string) {
	c.Helper()
	if err := c.call("Abort", func(ctx context.Context) error { return c.sc.Abort(ctx, session) }); err != nil {
		c.failf("Abort of %q: %v; it should return nil", session, err)
	}
}

func (c *checkContext) statuses(sessions ...string) map[string]bgagent.SessionStatus {
	c.Helper()
	var got map[string]bgagent.SessionStatus
	err := c.call("Statuses", func(ctx context.Context) (err error) {
		got, err = c.starter.Statuses(ctx, sessions)
		return err
	})
	if err != nil {
		c.endf("Statuses of %q: %v", sessions, err)
	}
	return got
}

func (c *checkContext) page(session string, after bgagent.Cursor, most int) bgagent.Page {
	c.Helper()
	var page bgagent.Page
	err := c.call("Messages", func(ctx context.Context) (err error) {
		page, err = c.reader.Messages(ctx, session, after, most)
		return err
	})
	if err != nil {
		c.endf("Messages of %q after %q: %v", session, after, err)
	}
	return page
}

// manyPages is more pages than any check should need.
const manyPages = 1000

// conversation holds the messages that were read from a session. Each message is in the list
// once, in its latest version. Messages are in the order they were first read.
type conversation struct {
	list  []bgagent.Message
	next  bgagent.Cursor
	pages []bgagent.Page // in the order of the calls
}

func (v *conversation) add(page bgagent.Page) {
	v.pages = append(v.pages, page)
	for _, msg := range page.Messages {
		i := slices.IndexFunc(v.list, func(m bgagent.Message) bool { return m.ID == msg.ID })
		if i < 0 {
			v.list = append(v.list, msg)
		} else {
			v.list[i] = msg
		}
	}
	v.next = page.Next
}

// readOn reads new and changed messages into v. Each page contains at most the given number of
// messages.
func (c *checkContext) readOn(session string, v *conversation, most int) {
	c.Helper()
	for range manyPages {
		page := c.page(session, v.next, most)
		v.add(page)
		if !page.More {
			return
		}
	}
	c.endf("Messages of %q sets More on every page", session)
}

// readAll reads all messages of the session from the beginning.
func (c *checkContext) readAll(session string) []bgagent.Message {
	c.Helper()
	var v conversation
	c.readOn(session, &v, 1000)
	return v.list
}
