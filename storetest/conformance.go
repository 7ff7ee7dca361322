// Package storetest helps to test implementations and users of [bgagent.Store].
//
// [Memory] is an in-memory store that outlives the simulated processes of a test and can produce
// a fault for every write. [Conformance] checks that a store follows the rules on which the
// manager relies:
//
//	func TestConformance(t *testing.T) {
//		storetest.Conformance(t, storetest.Harness{
//			New: func(t storetest.TB) storetest.Content {
//				dir := newFolder(t)
//				return storetest.Content{Process: func() bgagent.Store { return mystore.New(dir) }}
//			},
//		})
//	}
//
// [Script] is for tests that interrupt a store and check what the store then contains.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// TB is the part of [testing.TB] that the suite needs.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	// Fatalf fails the test and ends the goroutine that calls it.
	Fatalf(format string, args ...any)
	Cleanup(func())
	// Context returns a context that ends just before the functions given to Cleanup are called.
	Context() context.Context
	TempDir() string
}

// Harness describes how [Conformance] creates a store.
type Harness struct {
	// New returns the content of a new store. Every check calls New once.
	New func(t TB) Content
}

// Content is the part of a store that outlives a process. Process is required. The other functions
// are optional. If a check needs a function that is nil, the check logs this and passes.
type Content struct {
	// Process returns a store on this content in a new simulated process. The store is not open yet.
	Process func() bgagent.Store

	// Crash kills the process that has this store open. After that, the process writes nothing, and its locks
	// are released as the operating system would release them.
	Crash func(s bgagent.Store)

	// CrashAt makes the process of s die during the next Write, at the given place. The store decides which
	// places there are, for example before each statement of a transaction. Places are counted from 0. That
	// Write then returns an error, and the check calls Crash. If the Write has fewer places, it succeeds.
	CrashAt func(s bgagent.Store, place int)

	// LoseAnswer makes the commit in s's next Write fail with an error that matches
	// [bgagent.ErrUncertain]. The store may or may not contain the batch.
	LoseAnswer func(s bgagent.Store)

	// Damage corrupts a stored record, as a faulty disk does. DamageText corrupts a stored text.
	Damage     func(key string)
	DamageText func(record, name string)
}

// Conformance checks that a store follows the rules on which the manager relies. Every check is a
// subtest, whose name describes the rule. A failure reports what the check observed and why it
// matters.
func Conformance(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil {
		t.Fatalf("storetest: Harness needs New")
	}
	for _, ck := range checks {
		t.Run(ck.name, func(t *testing.T) {
			t.Helper()
			ck.hold(t, &h)
		})
	}
}

// need is the name of an optional function in Content that a check requires.
type need string

const (
	aCrash      need = "Crash"
	aCrashAt    need = "CrashAt"
	aLostAnswer need = "LoseAnswer"
	aDamage     need = "Damage"
	aBadText    need = "DamageText"
)

type check struct {
	name  string
	why   string // one line about the problem if a store fails the check
	needs []need
	run   func(c *checkContext)
}

var checks = append(append(append([]check{}, contentChecks...), orderChecks...), lifeChecks...)

// The method "hold" runs the check on the content of a new store, unless that content lacks a
// function that the check needs.
func (ck *check) hold(t TB, h *Harness) {
	t.Helper()
	c := &checkContext{TB: t, ck: ck, content: h.New(t)}
	for _, n := range ck.needs {
		has := map[need]bool{
			aCrash: c.content.Crash != nil, aCrashAt: c.content.CrashAt != nil, aLostAnswer: c.content.LoseAnswer != nil,
			aDamage: c.content.Damage != nil, aBadText: c.content.DamageText != nil,
		}
		if !has[n] {
			t.Logf("does not apply: there is no Content.%s", n)
			return
		}
	}
	ck.run(c)
}

// checkContext contains the state of one run of a check.
type checkContext struct {
	TB
	ck      *check
	content Content
	batch   uint64 // number of the last written batch
	opened  int
}

// failf fails the check and stops it.
func (c *checkContext) failf(format string, args ...any) {
	c.Helper()
	c.Fatalf(format+"\n(why it matters: "+c.ck.why+")", args...)
}

// start is the approximate launch time of the tasks in the checks. This time is only one hour ago, so that no
// store deletes the tasks because of their age.
var start = time.Now().Add(-time.Hour).Round(0).UTC()

// owner returns a new owner for the store.
func (c *checkContext) owner() bgagent.StoreOwner {
	c.opened++
	return bgagent.StoreOwner{Instance: "instance_" + string(rune('0'+c.opened%10)), PID: 100 + c.opened, Host: "here", Program: "a test", Since: start}
}

// The method "open" opens the store in a new process. The store is closed at the end of the check.
func (c *checkContext) open() (bgagent.Store, bgagent.StoreContents) {
	c.Helper()
	s := c.content.Process()
	contents, err := s.Open(c.Context(), c.owner())
	if err != nil {
		c.failf("Open failed: %v", err)
	}
	c.Cleanup(func() { _ = s.Close() }) // fails if the process has died or the store is already closed
	return s, contents
}

// The method "next" returns a batch with the next number.
func (c *checkContext) next(records ...bgagent.StoreRecord) *bgagent.StoreBatch {
	return &bgagent.StoreBatch{Number: c.batch + 1, Records: records}
}

func (c *checkContext) write(s bgagent.Store, b *bgagent.StoreBatch) {
	c.Helper()
	if err := s.Write(c.Context(), b); err != nil {
		c.failf("Write failed: %v", err)
	}
	c.batch = b.Number
}

// The method "reopen" closes the store and opens it in a new process.
func (c *checkContext) reopen(s bgagent.Store) (bgagent.Store, bgagent.StoreContents) {
	c.Helper()
	if err := s.Close(); err != nil {
		c.failf("Close failed: %v", err)
	}
	return c.open()
}

// The method "due" fails the check unless the result of Open has the expected batch number and records.
func (c *checkContext) due(contents bgagent.StoreContents, want ...bgagent.StoreRecord) {
	c.Helper()
	if contents.Batch != c.batch {
		c.failf("the store reports %d as the number of its last batch; it is %d", contents.Batch, c.batch)
	}
	for _, d := range contents.Damage {
		c.failf("the record %q is reported as damaged: %s", d.Key, d.Problem)
	}
	if err := sameRecords("Open", want, contents.Records); err != nil {
		c.failf("%v", err)
	}
}

// The method "text" compares a text in the store with the text that was written.
func (c *checkContext) text(s bgagent.Store, record, name, want string) {
	c.Helper()
	switch got, err := s.Text(c.Context(), record, name); {
	case err != nil:
		c.failf("the text %q of %q cannot be read: %v", name, record, err)
	case got != want:
		c.failf("the text %q of %q has %d bytes, %q, but was written with %d, %q", name, record, len(got), short(got), len(want), short(want))
	}
}

// history returns a page of history. If the query has no limit, the page contains up to 1000 tasks.
func (c *checkContext) history(s bgagent.Store, q bgagent.StoreQuery) []bgagent.StoreRecord {
	c.Helper()
	if q.Limit == 0 {
		q.Limit = 1000
	}
	page, err := s.History(c.Context(), q)
	if err != nil {
		c.failf("History failed: %v", err)
	}
	return page
}

// The function "live" returns the record of a running task.
func live(key string) bgagent.StoreRecord {
	return bgagent.StoreRecord{
		Key: key, Kind: bgagent.StoreTask, Due: true, Data: []byte("data of " + key),
		Parent: "ses_parent", Root: "ses_root", Session: "ses_" + key, Agent: "worker", Status: bgagent.Running, Launched: start,
	}
}

// The function "ended" returns the record of a task that has ended and that no longer has to be
// reported to its parent.
func ended(key string, launched time.Duration) bgagent.StoreRecord {
	r := live(key)
	r.Due, r.Status, r.Launched, r.Ended = false, bgagent.Completed, start.Add(launched), start.Add(launched+time.Minute)
	return r
}
