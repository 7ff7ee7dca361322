//go:build linux

package mixed

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

// patience is the time limit for one step of a test. On a busy machine, the first request to a
// server can take a minute.
const patience = 5 * time.Minute

// program is a real program, with the host agent that it runs.
type program struct {
	name     string
	agent    string
	model    string // model of the agent; empty means that the program decides
	protocol modelserver.Protocol
	shell    func(command string) modelserver.Reply // returns a reply that makes the program run the command
}

var programs = []program{
	{"opencode", "worker", realagent.OpencodeModel, modelserver.Chat, func(c string) modelserver.Reply {
		return modelserver.Use("bash", fmt.Sprintf(`{"command":%q,"description":"a step"}`, c))
	}},
	{"codex", "explore", "", modelserver.Responses, func(c string) modelserver.Reply {
		return modelserver.Use("exec_command", fmt.Sprintf(`{"cmd":%q}`, c))
	}},
	{"claude", "writer", "", modelserver.Messages, func(c string) modelserver.Reply {
		return modelserver.Use("Bash", fmt.Sprintf(`{"command":%q,"description":"a step"}`, c))
	}},
}

// watcher records when turns begin, and records the cool-downs of one pool.
type watcher struct {
	agent string // agent of the pool

	mu    sync.Mutex
	turns []*begun
	cools []coolDown
}

func (w *watcher) begin(p bgagent.Prompt) *begun {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.turns {
		if b.prompt == p.ID { // the call is a retry
			return b
		}
	}
	b := &begun{task: p.Task, agent: p.Agent, prompt: p.ID, at: time.Now()}
	w.turns = append(w.turns, b)
	return b
}

func (w *watcher) end(b *begun) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.over = time.Now()
}

// The method "look" takes a sample. If the sample shows a new cool-down, the method records which
// turns are due.
func (w *watcher) look(m *bgagent.BackgroundManager) {
	var until time.Time
	for _, p := range m.Concurrency().Pools() {
		if p.Name == w.pool() {
			until = p.CoolUntil
		}
	}
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !until.After(now) || len(w.cools) > 0 && w.cools[len(w.cools)-1].until.Equal(until) {
		return
	}
	c := coolDown{at: now, until: until, due: map[string]bool{}}
	for _, t := range m.List(bgagent.Query{}) {
		if t.Agent == w.agent && t.Phase == bgagent.PhaseTurn && !slices.ContainsFunc(w.turns, func(b *begun) bool { return b.task == t.ID && b.over.IsZero() }) {
			c.due[t.ID] = true
		}
	}
	w.cools = append(w.cools, c)
}

// The method "seen" returns copies of the turns and of the cool-downs.
func (w *watcher) seen() (turns []*begun, cools []coolDown) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.turns {
		c := *b
		turns = append(turns, &c)
	}
	return turns, slices.Clone(w.cools)
}

// The method "pool" returns the name of the pool that the watcher's agent uses.
func (w *watcher) pool() string {
	if w.agent == programs[0].agent {
		return "default " + programs[0].model
	}
	return "agent " + w.agent
}

// The type "commands" wraps a TurnRunner and records its turns.
type commands struct {
	*command.Client
	w *watcher
}

func (c commands) RunTurn(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	b := c.w.begin(p)
	end, err := c.Client.RunTurn(ctx, session, p, r)
	c.w.end(b)
	return end, err
}

// server is a client whose turns are recorded.
type server struct {
	*opencode.Client
	w *watcher
}

func (s server) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	s.w.begin(p)
	return s.Client.StartTurn(ctx, session, p)
}

// The function "host" starts a manager with the agents of all programs. The watcher records the
// turns and its pool's cool-downs.
func host(t *testing.T, w *realagent.World, s *realagent.OpencodeServer, watch *watcher, limits bgagent.Limits) *bgagent.BackgroundManager {
	t.Helper()
	claude := command.Agent{Program: command.Claude(), Command: w.Claude(), Args: []string{"--allowedTools=Bash"},
		Env: w.Env, LeaveRetries: true}
	cc, err := command.New(command.Config{Directory: w.Dir, Agents: map[string]command.Agent{
		"explore": {Program: command.Codex(), Command: w.Codex(), Env: w.Env}, "writer": claude,
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cc.Close(context.Background())) })
	oc, err := opencode.New(opencode.Config{URL: s.URL, Directory: w.Dir, Timeout: patience})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, oc.Close()) })
	m, err := bgagent.New(commands{cc, watch}, bgagent.Config{
		Clients: map[string]bgagent.SessionClient{"opencode": server{oc, watch}},
		ClientFor: func(agent string) string {
			if agent == programs[0].agent {
				return "opencode"
			}
			return ""
		},
		Model: func(agent, _ string) (string, error) {
			i := slices.IndexFunc(programs, func(p program) bool { return p.agent == agent })
			return programs[i].model, nil
		},
		Limits: limits, Wake: bgagent.WakeNever, CreateTimeout: patience, StopTimeout: patience,
	})
	require.NoError(t, err)
	over, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				watch.look(m)
			case <-over:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(over)
		<-stopped
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = m.Close(ctx) // an error only lists notices that were not delivered
		require.NoError(t, ctx.Err())
	})
	return m
}
