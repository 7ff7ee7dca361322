// Package bgagenttest helps to test what is built on bgagent.
//
// [Conformance] holds a session client against the contract of
// [bgagent.SessionClient] and of its abilities, check by check. Every adapter of
// this module is held against it, and so should be one of your own:
//
//	func TestConformance(t *testing.T) {
//		bgagenttest.Conformance(t, bgagenttest.Harness{
//			New:     func(bgagenttest.TB) bgagent.SessionClient { return newMyClient() },
//			Agent:   "worker",
//			Say:     func(text string) string { return "say " + text },
//			Slow:    func() string { return "wait" },
//			Virtual: true,
//		})
//	}
//
// [NewRunner] and [NewStarter] are scriptable clients of both kinds, for tests
// of a program that uses the manager: they need no model and no server, keep
// account of what ran and of what never should have, and can be told to fail in
// every way that real runtimes do.
package bgagenttest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
)

// TB is the part of [testing.TB] that the suite needs. A *testing.T is one, and
// so can be something that only takes note of the failures.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	// Fatalf fails the test and ends the goroutine that calls it.
	Fatalf(format string, args ...any)
	Cleanup(func())
	// Context ends just before the functions given to Cleanup are called.
	Context() context.Context
}

// Harness tells [Conformance] how to make the client and what to ask of it. New,
// Agent, Say and Slow are required; a check that needs something optional that
// is missing is left out.
type Harness struct {
	// New returns a fresh client. Every check asks for one of its own. What it
	// needs to be freed with goes to t.Cleanup, and with Virtual it must not
	// share goroutines or channels with the client of another check.
	New func(t TB) bgagent.SessionClient

	// Agent is the agent that all prompts are for.
	Agent string

	// Say returns a prompt that makes the agent answer with a text that
	// contains the given one, a single word of lower-case letters, soon and
	// without calling a tool.
	Say func(text string) string

	// Slow returns a prompt that makes the agent work until it is stopped. It is
	// best when the agent says something first: half a message is what shows
	// whether changes are told.
	Slow func() string

	Fail   func() string // a prompt that makes the agent fail; optional
	Tool   func() string // a prompt that makes the agent call exactly one tool, then answer; optional
	Recall func() string // a prompt that makes the agent answer with the first prompt of its session; optional

	// Silent returns a prompt that makes the agent end its turn as if all were
	// well, without a word to its reader and without calling a tool. Optional.
	Silent func() string

	// Cut returns a prompt of which the answer is cut off: at the model's output
	// limit, or at a limit of steps. Runtimes also tell that by a warning. Optional.
	Cut func() string

	// Late returns a prompt that makes the agent say that its turn is over, or that
	// it works in the background, before the given word of its answer has come.
	// Optional, for runtimes that have this.
	Late func(text string) string

	// Notices returns the ids of the notices that have reached the session, one
	// for each time that its agent was or will be told. Optional; without it
	// nobody can know how often that was.
	Notices func(sc bgagent.SessionClient, session string) []string

	// Parent and Directory go into the sessions' [bgagent.SessionSpec], for a
	// client that needs them to be real. Both may be empty.
	Parent, Directory string

	// Virtual runs every check in a bubble of testing/synctest: pauses take no
	// time. It is for clients that wait for nothing outside of the program.
	Virtual bool

	AnyAgent      bool // the client cannot know whether an agent exists
	KeepsPromptID bool // the client claims to keep Prompt.ID in Message.PromptID
	MayRepeat     bool // the runtime cannot tell that a prompt is a repeated one

	TurnTime time.Duration // how long a turn may take that nobody stops; 1 minute when zero
	Soon     time.Duration // how long a call, an abort and the end of a context may take; 10 seconds when zero
	Settle   time.Duration // how long a starter's session must be idle without a sign of its turn's end before the turn counts as over; 2 seconds when zero
	Poll     time.Duration // pause between two looks at a session; 20 milliseconds when zero
}

// Conformance checks that the client does what the manager expects of it. Every
// check is a subtest of its own, named after what it checks; a failure says what
// was seen and why it matters. Checks about an ability that the client does not
// have say so in their log and pass.
func Conformance(t *testing.T, h Harness) {
	t.Helper()
	if h.New == nil || h.Agent == "" || h.Say == nil || h.Slow == nil {
		t.Fatalf("bgagenttest: Harness needs New, Agent, Say and Slow")
	}
	h = h.withDefaults()
	for _, ck := range checks {
		if !ck.inReach(&h) {
			continue
		}
		t.Run(ck.name, func(t *testing.T) {
			t.Helper()
			if h.Virtual {
				synctest.Test(t, func(t *testing.T) {
					t.Cleanup(func() { time.Sleep(h.Soon) }) // time of the bubble, for what ends a little later
					ck.hold(t, &h)
				})
			} else {
				ck.hold(t, &h)
			}
		})
	}
}

func (h Harness) withDefaults() Harness {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&h.TurnTime, time.Minute)
	or(&h.Soon, 10*time.Second)
	or(&h.Settle, 2*time.Second)
	or(&h.Poll, 20*time.Millisecond)
	return h
}

// need is something without which a check makes no sense.
type need string

const (
	aRunner        need = "is no TurnRunner"
	aStarter       need = "is no TurnStarter"
	aReader        need = "is no MessageReader"
	aNotifier      need = "is no Notifier"
	anEventSource  need = "is no EventSource"
	aTodoReader    need = "is no TodoReader"
	aFinder        need = "is no SessionFinder"
	aLister        need = "is no AgentLister"
	aForgetter     need = "is no SessionForgetter"
	harnessFail    need = "has no Harness.Fail"
	harnessTool    need = "has no Harness.Tool"
	harnessRecall  need = "has no Harness.Recall"
	harnessSilent  need = "has no Harness.Silent"
	harnessCut     need = "has no Harness.Cut"
	harnessLate    need = "has no Harness.Late"
	harnessNotices need = "has no Harness.Notices"
	knownAgents    need = "has Harness.AnyAgent"
	keptPromptIDs  need = "has no Harness.KeepsPromptID"
	knownRepeats   need = "has Harness.MayRepeat"
)

// check is one check of the suite.
type check struct {
	name  string
	why   string // one line: what goes wrong for a client that fails it
	needs []need
	run   func(c *checkContext)
}

// checks is the whole suite.
var checks = append(append(append([]check{}, sessionChecks...), messageChecks...), abilityChecks...)

// inReach reports whether the harness has what the check needs of it.
func (ck *check) inReach(h *Harness) bool {
	for _, n := range ck.needs {
		switch n {
		case harnessFail:
			if h.Fail == nil {
				return false
			}
		case harnessTool:
			if h.Tool == nil {
				return false
			}
		case harnessRecall:
			if h.Recall == nil {
				return false
			}
		case harnessSilent:
			if h.Silent == nil {
				return false
			}
		case harnessCut:
			if h.Cut == nil {
				return false
			}
		case harnessLate:
			if h.Late == nil {
				return false
			}
		case harnessNotices:
			if h.Notices == nil {
				return false
			}
		case knownAgents:
			if h.AnyAgent {
				return false
			}
		case keptPromptIDs:
			if !h.KeepsPromptID {
				return false
			}
		case knownRepeats:
			if h.MayRepeat {
				return false
			}
		}
	}
	return true
}

// hold holds a fresh client against the check.
func (ck *check) hold(t TB, h *Harness) {
	t.Helper()
	c := newCheckContext(t, h, ck)
	has := map[need]bool{
		aRunner: c.runner != nil, aStarter: c.starter != nil, aReader: c.reader != nil, aNotifier: c.notifier != nil,
		anEventSource: c.events != nil, aTodoReader: c.todos != nil, aFinder: c.finder != nil, aLister: c.lister != nil,
		aForgetter: c.forgetter != nil,
	}
	for _, n := range ck.needs {
		if ok, known := has[n]; known && !ok {
			t.Logf("does not apply: the client %s", n)
			return
		}
	}
	ck.run(c)
}
