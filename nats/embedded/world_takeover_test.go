//go:build linux

package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

const childOutside = "BGAGENT_NATS_TEST_OUTSIDE" // makes the process run sessions on an agent server; the value is an outsidePlan

func init() { roles[childOutside] = runOutside }

type outsidePlan struct {
	URL, Name string
	Agents    string // address of the agent server
	Launches  int
}

// agentCall is a call to the agent server, and its answer.
type agentCall struct {
	What, Session, Prompt string
	Sessions              []string `json:",omitempty"`
	By                    int      // id of the calling process
	At                    time.Time

	States map[string]bgagent.SessionStatus `json:",omitempty"`
	Page   bgagent.Page                     `json:",omitzero"`
}

// agentServer runs sessions outside of all processes. A turn ends when the test says so.
type agentServer struct {
	mu    sync.Mutex
	calls []agentCall
	turns map[string]string // the prompt of each session
	over  bool
}

func (a *agentServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c agentCall
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c.At = time.Now()
	switch c.What {
	case "statuses":
		c.States = map[string]bgagent.SessionStatus{}
		for _, s := range c.Sessions {
			c.States[s] = bgagent.SessionStatus{State: bgagent.SessionIdle}
			if a.turns[s] != "" && !a.over {
				c.States[s] = bgagent.SessionStatus{State: bgagent.SessionBusy}
			}
		}
	case "messages":
		c.Page.Next = "1"
		if prompt := a.turns[c.Session]; prompt != "" {
			c.Page.Messages = append(c.Page.Messages, bgagent.Message{ID: "1", Role: bgagent.RoleUser, PromptID: prompt, Text: "x", Finished: true})
			if a.over {
				c.Page.Messages = append(c.Page.Messages, bgagent.Message{ID: "2", Role: bgagent.RoleAgent, Text: "done", Finished: true, Stop: bgagent.StopEndOfTurn})
			}
		}
	case "start":
		a.turns[c.Session] = c.Prompt
		fallthrough
	default:
		a.calls = append(a.calls, c)
	}
	_ = json.NewEncoder(w).Encode(c) // fails if the caller is dead
}

// The method "touched" returns the calls that create a session, or that start or stop a turn.
func (a *agentServer) touched() []agentCall {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]agentCall(nil), a.calls...)
}

// outside is a client of the agent server.
type outside struct{ url string }

func (o outside) call(ctx context.Context, c agentCall) (agentCall, error) {
	c.By = os.Getpid()
	body, err := json.Marshal(c)
	if err != nil {
		return c, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(body))
	if err != nil {
		return c, err
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return c, err
	}
	defer r.Body.Close()
	return c, json.NewDecoder(r.Body).Decode(&c)
}

func (o outside) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	_, err := o.call(ctx, agentCall{What: "create", Session: s.Task})
	return s.Task, err
}

func (o outside) Abort(ctx context.Context, session string) error {
	_, err := o.call(ctx, agentCall{What: "abort", Session: session})
	return err
}

func (o outside) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	_, err := o.call(ctx, agentCall{What: "start", Session: session, Prompt: p.ID})
	return err
}

func (o outside) Statuses(ctx context.Context, sessions []string) (map[string]bgagent.SessionStatus, error) {
	c, err := o.call(ctx, agentCall{What: "statuses", Sessions: sessions})
	return c.States, err
}

func (o outside) Messages(ctx context.Context, session string, _ bgagent.Cursor, _ int) (bgagent.Page, error) {
	c, err := o.call(ctx, agentCall{What: "messages", Session: session})
	return c.Page, err
}

// runOutside joins a cluster and launches tasks. It launches another task for each line that it reads.
func runOutside(text string) error {
	var p outsidePlan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	ctx := context.Background()
	c, err := bgnats.Join(ctx, p.URL, bgnats.ClusterOptions{Process: p.Name, Lease: worldLease, Limits: bgagent.Limits{Default: 2}})
	if err != nil {
		return err
	}
	m, err := newManager(2*time.Minute, outside{p.Agents}, bgagent.Config{Slots: c.Slots, Store: c.Store, Wake: bgagent.WakeNever}) // New fails while the earlier owner is still treated as alive
	if err != nil {
		return err
	}
	if err := c.Serve(m); err != nil {
		return err
	}
	_, events := m.Subscribe(1000)
	go func() {
		for e := range events.Events(ctx) {
			if e.Kind == bgagent.EventEnded {
				report("ended", e.Task.ID, e.Task.Status)
			}
		}
	}()
	launch := func() {
		t, err := m.Launch(ctx, bgagent.Caller{}, bgagent.LaunchInput{Agent: "x", Prompt: "x"})
		report("launched", t.ID, errors.Is(err, bgagent.ErrStoreLost))
	}
	m.Start()
	for range p.Launches {
		launch()
	}
	report("opened", m.Restored().Tasks)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		launch()
	}
	return nil
}

// TestAFrozenWorkerDoesNotTouchWhatAnotherHasTakenOver freezes a process until another process has taken over
// its tasks. The sessions of the tasks are on a server outside of both processes.
func TestAFrozenWorkerDoesNotTouchWhatAnotherHasTakenOver(t *testing.T) {
	n := faultsOf(t, false)
	t.Parallel()
	w := newWorld(t, "127.0.0.1", here, workerPlan{})
	for i := range n {
		agents := &agentServer{turns: map[string]string{}}
		server := httptest.NewServer(agents)
		p := outsidePlan{URL: w.url, Name: fmt.Sprint("p", i), Agents: server.URL, Launches: 3}
		owner := w.spawn(p.Name, childOutside, p)
		w.until("the sessions are in a turn", func() bool { return w.log.said(owner, "opened") && len(agents.touched()) == 4 })
		owner.freeze(t)
		p.Launches = 0
		heir := w.spawn("heir of "+p.Name, childOutside, p)
		w.until("another process has taken over", func() bool { return w.log.said(heir, "opened") })
		require.Equal(t, "3", w.log.last(heir, "opened"))

		thaw := owner.thaw(t)
		_, err := fmt.Fprintln(owner.in)
		require.NoError(t, err)
		launched := func() (all []reported) {
			for _, x := range w.log.all() {
				if x.by == owner && x.words[0] == "launched" {
					all = append(all, x)
				}
			}
			return all
		}
		w.until("the write of the thawed process is refused", func() bool { return len(launched()) == 4 })
		require.Equal(t, "true", launched()[3].words[len(launched()[3].words)-1], "the error matches ErrStoreLost")
		passes(worldLease / 3) // the last third of the lease, in which a process stops its sessions
		agents.mu.Lock()
		agents.over = true
		agents.mu.Unlock()
		w.until("all tasks have ended", func() bool {
			ended := 0
			for _, x := range w.log.all() {
				if x.by == heir && x.words[0] == "ended" && x.words[2] == "completed" {
					ended++
				}
			}
			return ended == 3
		})
		starts := map[string]int{}
		for _, c := range agents.touched() {
			require.NotEqual(t, "abort", c.What, "%+v", c)
			if c.By == owner.cmd.Process.Pid {
				require.True(t, c.At.Before(thaw), "%+v", c)
			}
			if c.What == "start" {
				starts[c.Session]++
			}
		}
		require.Len(t, starts, 3)
		for session, n := range starts {
			require.Equal(t, 1, n, "prompts of the session %s", session)
		}
		owner.kill()
		heir.kill()
		server.Close()
	}
	t.Log("take-overs from a frozen process:", n)
}
