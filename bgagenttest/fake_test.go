package bgagenttest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// obey is a script that follows the instruction in its prompt.
func obey(t *Turn) {
	verb, rest, _ := strings.Cut(t.Prompt.Text, " ")
	t.Sleep(50 * time.Millisecond)
	switch verb {
	case "say":
		t.Say("As you ")
		t.Sleep(50 * time.Millisecond)
		t.Say("wish: " + rest)
	case "wait":
		t.Say("I wait")
		t.Wait()
	case "fail":
		t.Say("I will")
		t.Fail(errors.New("failed as I was told to"))
	case "use":
		t.Say("I look")
		t.Tool("grep", time.Second)
		t.Say("used")
	case "think":
		t.Think("hm")
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

// obedient returns the harness for a fake that plays the script obey.
func obedient(make func(func(*Turn)) (bgagent.SessionClient, *Fake)) Harness {
	return Harness{
		New: func(t TB) bgagent.SessionClient {
			sc, f := make(obey)
			f.AgentNames = []string{"obedient", "other"}
			f.Stream, f.AbortTells, f.Beat = true, true, time.Second
			t.Cleanup(f.Close)
			return sc
		},
		Agent: "obedient",
		Say:   func(text string) string { return "say " + text },
		Slow:  fixed("wait"), Fail: fixed("fail"), Tool: fixed("use"), Recall: fixed("recall"),
		Silent: fixed("think"), Cut: fixed("cut"), Late: func(text string) string { return "late " + text },
		Notices: func(sc bgagent.SessionClient, session string) []string {
			return notices(sc.(interface {
				Inbox(string) []bgagent.Notice
			}).Inbox, session)
		},
		Parent: "root", Directory: "/work", Virtual: true, KeepsPromptID: true,
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

func TestRunnerConforms(t *testing.T)  { Conformance(t, obedient(newRunner)) }
func TestStarterConforms(t *testing.T) { Conformance(t, obedient(newStarter)) }
