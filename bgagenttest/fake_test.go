package bgagenttest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// The function "obey" is a script that follows the instruction in its prompt.
func obey(t *Turn) {
	verb, rest, _ := strings.Cut(t.Prompt.Text, " ")
	t.SaveState([]byte(t.Prompt.ID))
	t.Sleep(50 * time.Millisecond)
	switch verb {
	case "say":
		t.Say("As you ")
		t.Sleep(50 * time.Millisecond)
		t.Say("wish: " + rest)
	case "wait":
		t.Say("I wait")
		t.Wait()
	case "nap":
		t.Sleep(time.Second)
		for _, msg := range t.Steered() {
			t.Say("you said: " + msg.Text)
		}
		t.Say("I am awake")
	case "fail":
		t.Say("I will")
		t.Fail(errors.New("failed as I was told to"))
	case "use":
		t.Say("I look")
		t.Tool("grep", time.Second)
		t.Say("used")
	case "think":
		t.Think("hm")
	case "ask":
		option, err := t.Question(bgagent.Question{ID: "per_1", Kind: bgagent.QuestionPermission, Title: "May I?", Options: []string{"allow", "deny"}})
		if err != nil {
			option = "go on without it"
		}
		t.Say("I was told to " + option)
	case "cut":
		t.Say("half of")
		t.Stop(bgagent.StopLength)
	case "late":
		t.Say("I work on it in the background. ")
		t.Sleep(time.Minute / 2)
		t.Say(rest)
	case "recall":
		t.Say(t.History()[0].Text)
	}
}

func fixed(prompt string) func() string { return func() string { return prompt } }

func notices(inbox func(string) []bgagent.Notice, session string) (ids []string) {
	for _, n := range inbox(session) {
		ids = append(ids, n.ID)
	}
	return ids
}

// self returns the fake. A client that embeds the fake also has this method.
func (f *Fake) self() *Fake { return f }

// letGo aborts all turns.
func (f *Fake) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		if s.run != nil {
			s.run.cancel(errAborted)
		}
	}
}

// The method "alone" returns the number of running turns that were started by an earlier process
// with the given instance.
func (f *Fake) alone(instance string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		if s.run != nil && s.run.alone && s.run.Prompt.Instance == instance {
			n++
		}
	}
	return n
}

// The method "spoil" sets the state of all the session's prompts to PromptUnknown.
func (f *Fake) spoil(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.sessions[session].prompts {
		x.state = bgagent.PromptUnknown
	}
}

// The function "restarts" returns the [Restart] for clients that the function "wrap" makes from
// fakes.
func restarts(wrap func(*Fake) bgagent.SessionClient) Restart {
	of := func(sc bgagent.SessionClient) *Fake { return sc.(interface{ self() *Fake }).self() }
	return Restart{
		Next: func(_ TB, old bgagent.SessionClient, death Death) bgagent.SessionClient {
			fate := [...]Fate{DeathWhole: FateCut, DeathAlone: FateLeft, DeathBusy: FateOrphan}[death]
			f := of(old)
			f.Fates = func(bgagent.Prompt) Fate { return fate }
			return wrap(f.nextProcess())
		},
		Release:  func(next bgagent.SessionClient) { of(next).letGo() },
		Left:     func(next bgagent.SessionClient, instance string) int { return of(next).alone(instance) },
		Spoil:    func(next bgagent.SessionClient, session string) { of(next).spoil(session) },
		Requests: func(next bgagent.SessionClient) int { return len(of(next).Prompts()) },
	}
}

// The function "obedient" returns the harness for clients that the function "wrap" makes from
// fakes. The fakes run the script "obey".
func obedient(wrap func(*Fake) bgagent.SessionClient) Harness {
	return Harness{
		New: func(t TB) bgagent.SessionClient {
			f := newFake("bgagenttest.Fake", obey)
			f.AgentNames = []string{"obedient", "other"}
			f.Stream, f.AbortTells, f.Beat, f.Steerable = true, true, time.Second, true
			t.Cleanup(f.Close)
			return wrap(f)
		},
		Agent: "obedient",
		Say:   func(text string) string { return "say " + text },
		Slow:  fixed("wait"), Fail: fixed("fail"), Tool: fixed("use"), Recall: fixed("recall"),
		Silent: fixed("think"), Cut: fixed("cut"), Late: func(text string) string { return "late " + text }, Ask: fixed("ask"), Nap: fixed("nap"),
		Notices: func(sc bgagent.SessionClient, session string) []string {
			return notices(sc.(interface {
				Inbox(string) []bgagent.Notice
			}).Inbox, session)
		},
		Parent: "root", Directory: "/work", Virtual: true, KeepsPromptID: true, Restart: restarts(wrap),
	}
}

func newRunner(script func(*Turn)) (bgagent.SessionClient, *Fake) {
	r := NewRunner(script)
	return r, r.Fake
}

func newStarter(script func(*Turn)) (bgagent.SessionClient, *Fake) {
	s := NewStarter(script)
	return s, s.Fake
}

func TestRunnerConforms(t *testing.T) {
	Conformance(t, obedient(func(f *Fake) bgagent.SessionClient { return Runner{f} }))
}

func TestStarterConforms(t *testing.T) {
	Conformance(t, obedient(func(f *Fake) bgagent.SessionClient { return Starter{f} }))
}
