// Package bgagenttest helps to test session clients for bgagent and programs that use its
// manager.
//
// [Conformance] checks a session client against the contract of
// [bgagent.SessionClient] and its abilities. All adapters of this module pass it. The test
// for your own adapter looks like this:
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
// [NewRunner] and [NewStarter] return scriptable clients of the two kinds, for tests of programs
// that use the manager. The clients need neither a model nor a server. They record the turns that
// ran and the manager's violations of the contract. They can fail in every way that a real runtime
// can. [Runner.NextProcess] simulates the end of a client's process. It returns the client of the
// next process, which has the same sessions.
package bgagenttest

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
)

// TB is the part of [testing.TB] that the suite needs. *testing.T implements TB. A type
// that only records failures can implement TB too.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	// Fatalf fails the test and ends the goroutine that calls it.
	Fatalf(format string, args ...any)
	Cleanup(func())
	// Context returns a context that ends just before the functions given to Cleanup are
	// called.
	Context() context.Context
}

// Harness configures [Conformance]: how it creates the client, and which prompts it uses.
// New, Agent, Say and Slow are required. A check that needs an optional field is skipped if
// the field is not set.
type Harness struct {
	// New returns a new client for one check. It should use t.Cleanup to register functions that
	// free the client's resources. With Virtual, the clients of two checks must not share
	// goroutines or channels.
	New func(t TB) bgagent.SessionClient

	// Agent is the agent that gets all prompts.
	Agent string

	// Say returns a prompt that makes the agent answer soon, without calling a tool. The answer
	// must contain text, which is a single word of lower-case letters.
	Say func(text string) string

	// Slow returns a prompt that makes the agent work until its turn is aborted. The agent should
	// first write some text: the message is then unfinished until the abort, and the suite checks
	// that Messages returns it again after it has changed.
	Slow func() string

	Fail   func() string // a prompt that makes the agent fail; optional
	Tool   func() string // a prompt that makes the agent call exactly one tool and then answer; optional
	Recall func() string // a prompt that makes the agent answer with the first prompt of its session; optional

	// Silent returns a prompt that makes the agent end its turn normally without
	// text and without calling a tool. Optional.
	Silent func() string

	// Cut returns a prompt whose answer is cut off at the model's output limit or at a
	// step limit. Some runtimes report the truncation as a warning. Optional.
	Cut func() string

	// Late returns a prompt whose answer arrives in several parts. The last part arrives after the
	// runtime has reported that the turn is over, or that the agent is working in the background.
	// It is for runtimes whose answers can arrive late. Optional.
	Late func(text string) string

	// Ask returns a prompt that makes the agent ask exactly one question, as a
	// [bgagent.Question], and then end its turn normally, whatever the answer. Optional.
	Ask func() string

	// Nap returns a prompt that makes the agent work for about a second and then end its turn
	// normally. If a message joins the turn during this second, the answer contains the word that
	// the message asks for; the text of the message is the result of Say. It is for clients that
	// implement [bgagent.Steerer]. Optional.
	Nap func() string

	// Notices returns the ids of the notices that have reached the session. If the session's
	// agent gets a notice several times, its id is returned that many times. Without this
	// function, the suite cannot count deliveries. Optional.
	Notices func(sc bgagent.SessionClient, session string) []string

	// Parent and Directory are set in each session's [bgagent.SessionSpec], for a client that
	// needs an existing parent session or directory. Both may be empty.
	Parent, Directory string

	// With Virtual, every check runs in a bubble of testing/synctest, where pauses take no real
	// time. Set it for clients that do not wait for anything outside the program.
	Virtual bool

	AnyAgent      bool // the client cannot know whether an agent exists
	KeepsPromptID bool // the client stores Prompt.ID in Message.PromptID
	MayRepeat     bool // the runtime cannot recognize a repeated prompt

	// Restart configures the restart checks. It is for clients that can continue the sessions of
	// an earlier process. Optional.
	Restart Restart

	// TurnTime is the maximum duration of a turn that is not aborted. Default 1 minute.
	TurnTime time.Duration

	// Soon is the maximum duration of a call. It is also the maximum time that a turn may take to
	// end after an abort or after its context has ended. Default 10 seconds.
	Soon time.Duration

	// Settle applies if no message shows that a starter's turn has ended. In that case, the turn
	// counts as over after the session has been idle and unchanged for this time. Settle is also
	// the maximum time that notices, events and final messages may take to arrive after a turn.
	// Default 2 seconds.
	Settle time.Duration

	// Poll is the pause between two polls of a session. Default 20 milliseconds.
	Poll time.Duration
}

// Conformance checks that the client behaves as the manager expects. Every check is a subtest,
// named after its subject. A failure message states what happened and why it matters. If the client
// lacks an ability, the checks for this ability pass and log that they do not apply.
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
					t.Cleanup(func() { time.Sleep(h.Soon) }) // virtual time in which the remaining goroutines can end
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

// need is a precondition of a check. It completes the sentence "the client …" for a client
// that does not meet the precondition.
type need string

const (
	aRunner        need = "is not a TurnRunner"
	aStarter       need = "is not a TurnStarter"
	aReader        need = "is not a MessageReader"
	aNotifier      need = "is not a Notifier"
	anEventSource  need = "is not an EventSource"
	aTodoReader    need = "is not a TodoReader"
	aFinder        need = "is not a SessionFinder"
	aLister        need = "is not an AgentLister"
	aForgetter     need = "is not a SessionForgetter"
	aSteerer       need = "is not a Steerer"
	aRestorer      need = "is not a SessionRestorer"
	anAnswerer     need = "is not an Answerer"
	harnessFail    need = "has no Harness.Fail"
	harnessTool    need = "has no Harness.Tool"
	harnessRecall  need = "has no Harness.Recall"
	harnessSilent  need = "has no Harness.Silent"
	harnessCut     need = "has no Harness.Cut"
	harnessLate    need = "has no Harness.Late"
	harnessAsk     need = "has no Harness.Ask"
	harnessNap     need = "has no Harness.Nap"
	harnessNotices need = "has no Harness.Notices"
	knownAgents    need = "has Harness.AnyAgent"
	keptPromptIDs  need = "has no Harness.KeepsPromptID"
	knownRepeats   need = "has Harness.MayRepeat"

	harnessRestart  need = "has no Restart.Next"
	harnessRelease  need = "has no Restart.Release"
	harnessLeft     need = "has no Restart.Left"
	harnessSpoil    need = "has no Restart.Spoil"
	harnessRequests need = "has no Restart.Requests"
)

type check struct {
	name  string
	why   string // one line about the consequence of a failure
	needs []need
	run   func(c *checkContext)
}

var checks = slices.Concat(sessionChecks, messageChecks, abilityChecks, questionChecks, restartChecks)

// inReach reports whether the harness provides what the check needs.
func (ck *check) inReach(h *Harness) bool {
	has := map[need]bool{
		harnessFail: h.Fail != nil, harnessTool: h.Tool != nil, harnessRecall: h.Recall != nil, harnessSilent: h.Silent != nil,
		harnessCut: h.Cut != nil, harnessLate: h.Late != nil, harnessAsk: h.Ask != nil, harnessNap: h.Nap != nil, harnessNotices: h.Notices != nil,
		knownAgents: !h.AnyAgent, keptPromptIDs: h.KeepsPromptID, knownRepeats: !h.MayRepeat,
		harnessRestart: h.Restart.Next != nil, harnessRelease: h.Restart.Release != nil, harnessLeft: h.Restart.Left != nil,
		harnessSpoil: h.Restart.Spoil != nil, harnessRequests: h.Restart.Requests != nil,
	}
	for _, n := range ck.needs {
		if ok, known := has[n]; known && !ok {
			return false
		}
	}
	return true
}

// The method "hold" runs the check with a new client. It does not run the check if the client lacks
// an ability that the check needs.
func (ck *check) hold(t TB, h *Harness) {
	t.Helper()
	c := newCheckContext(t, h, ck)
	has := map[need]bool{
		aRunner: c.runner != nil, aStarter: c.starter != nil, aReader: c.reader != nil, aNotifier: c.notifier != nil,
		anEventSource: c.events != nil, aTodoReader: c.todos != nil, aFinder: c.finder != nil, aLister: c.lister != nil,
		aForgetter: c.forgetter != nil, aSteerer: c.steerer != nil, aRestorer: c.restorer != nil, anAnswerer: c.answerer != nil,
	}
	for _, n := range ck.needs {
		if ok, known := has[n]; known && !ok {
			t.Logf("does not apply: the client %s", n)
			return
		}
	}
	ck.run(c)
}
