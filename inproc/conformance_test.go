package inproc_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/inproc"
)

// journal simulates a file in which a host records its agent's turns. The journal outlives the
// process.
type journal struct {
	mu      sync.Mutex
	turns   map[string][]*entry // turns by session
	spoiled map[string]bool     // sessions whose turns cannot be read
	prompts int
}

// entry describes one turn in a journal.
type entry struct {
	prompt bgagent.Prompt
	answer string
	over   bool
}

// The method "keep" returns an agent that works like the given agent and also records its turns in
// the journal.
func (j *journal) keep(agent inproc.Agent) inproc.Agent {
	return func(ctx context.Context, t *inproc.Turn) (string, error) {
		e := &entry{prompt: t.Prompt}
		j.mu.Lock()
		j.turns[t.Session()] = append(j.turns[t.Session()], e)
		j.prompts++
		j.mu.Unlock()
		answer, err := agent(ctx, t)
		if ctx.Err() == nil {
			j.mu.Lock()
			e.answer, e.over = answer, true
			j.mu.Unlock()
		}
		return answer, err
	}
}

// The method "restore" is the [inproc.Client.Restore] function of a client whose agent records its
// turns in the journal.
func (j *journal) restore(_ context.Context, r bgagent.SessionRestore) (x inproc.Restored, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	turns, found := j.turns[r.Session]
	switch {
	case j.spoiled[r.Session]:
		return x, nil
	case !found:
		return x, bgagent.ErrNoSession
	}
	x.Prompt = bgagent.PromptMissing
	for _, e := range turns {
		x.History = append(x.History, bgagent.Message{Role: bgagent.RoleUser, Text: e.prompt.Text}, bgagent.Message{Role: bgagent.RoleAgent, Text: e.answer})
		switch {
		case e.prompt.ID != r.Last.ID:
		case e.over:
			x.Prompt, x.End.Text = bgagent.PromptAnswered, e.answer
		default:
			x.Prompt = bgagent.PromptInterrupted
		}
	}
	return x, nil
}

// The function "obeys" is an agent that executes the command in its prompt.
func obeys(ctx context.Context, t *inproc.Turn) (string, error) {
	verb, rest, _ := strings.Cut(t.Prompt.Text, " ")
	switch verb {
	case "say":
		return "As you wish: " + rest, nil
	case "wait":
		t.Text("I wait")
		<-ctx.Done()
		return "", ctx.Err()
	case "nap":
		timer := time.NewTimer(time.Second)
		defer timer.Stop()
		for said := "awake"; ; {
			select {
			case msg := <-t.Receive():
				said += ", and " + msg.Text
			case <-timer.C:
				return said, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
	case "think":
		t.Reasoning("hm")
		return "", nil
	case "ask":
		option, err := t.Ask(ctx, bgagent.Question{Kind: bgagent.QuestionPermission, Title: "May I?", Options: []string{"allow", "deny"}})
		if err != nil {
			return "I go on without it", nil
		}
		return "I was told to " + option, nil
	case "fail":
		return "", errors.New("the agent failed as asked")
	case "use":
		for _, state := range []bgagent.ToolState{bgagent.ToolPending, bgagent.ToolRunning, bgagent.ToolDone} {
			t.Tool(bgagent.MessageTool{ID: t.Prompt.ID, Name: "grep", State: state})
		}
		return "used", nil
	default:
		return t.History()[0].Text, nil
	}
}

func TestConformance(t *testing.T) {
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	j := &journal{turns: map[string][]*entry{}, spoiled: map[string]bool{}}
	newClient := func() bgagent.SessionClient {
		client := inproc.New(map[string]inproc.Agent{"obedient": j.keep(obeys)})
		client.Restore = j.restore
		return client
	}
	bgagenttest.Conformance(t, bgagenttest.Harness{
		New:   func(bgagenttest.TB) bgagent.SessionClient { return newClient() },
		Agent: "obedient",
		Say:   func(text string) string { return "say " + text },
		Slow:  fixed("wait"), Fail: fixed("fail"), Tool: fixed("use"), Recall: fixed("recall"), Silent: fixed("think"), Ask: fixed("ask"), Nap: fixed("nap"),
		Parent: "root", Directory: "/work", Virtual: true,
		Restart: bgagenttest.Restart{
			Next: func(_ bgagenttest.TB, _ bgagent.SessionClient, death bgagenttest.Death) bgagent.SessionClient {
				if death != bgagenttest.DeathWhole { // agents are functions, so they always end with the process
					return nil
				}
				return newClient()
			},
			Spoil: func(_ bgagent.SessionClient, session string) {
				j.mu.Lock()
				defer j.mu.Unlock()
				j.spoiled[session] = true
			},
			Requests: func(bgagent.SessionClient) int {
				j.mu.Lock()
				defer j.mu.Unlock()
				return j.prompts
			},
		},
	})
}
