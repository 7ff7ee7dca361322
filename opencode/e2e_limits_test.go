package opencode_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

// limitScene is a session on a real server. Its events are recorded.
type limitScene struct {
	*testing.T
	w  *realagent.World
	c  *opencode.Client
	id string

	mu     sync.Mutex
	events []bgagent.HostEvent
}

func limits(t *testing.T, w *realagent.World, server *realagent.OpencodeServer) *limitScene {
	s := &limitScene{T: t, w: w, c: newClient(t, opencode.Config{URL: server.URL, Directory: w.Dir})}
	ctx, cancel := context.WithCancel(t.Context())
	over, up := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(over)
		_ = s.c.Events(ctx, func(e bgagent.HostEvent) {
			if e.Kind == bgagent.HostStreamUp {
				once.Do(func() { close(up) })
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
		})
	}()
	t.Cleanup(func() { cancel(); <-over })
	<-up
	require.Eventually(t, func() (ok bool) { // the first request to a directory can take a long time
		id, err := s.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Model: realagent.OpencodeModel, Directory: w.Dir})
		if !errors.Is(err, bgagent.ErrUnreachable) {
			require.NoError(t, err)
		}
		s.id = id
		return err == nil
	}, patience, 50*time.Millisecond)
	return s
}

// turn runs a turn and returns its events.
func (s *limitScene) turn(p bgagent.Prompt) []bgagent.HostEvent {
	s.Helper()
	s.mu.Lock()
	s.events = nil
	s.mu.Unlock()
	p.Agent, p.Model = "worker", realagent.OpencodeModel
	require.NoError(s, s.c.StartTurn(s.Context(), s.id, p))
	var out []bgagent.HostEvent
	require.Eventually(s, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		begun := false // the server might report the end of the previous turn once more
		for _, e := range s.events {
			if e.Session != s.id || e.Kind != bgagent.HostStatus {
				continue
			}
			if begun = begun || e.Status.State != bgagent.SessionIdle; begun && e.Status.State == bgagent.SessionIdle {
				out = s.events
				return true
			}
		}
		return false
	}, patience, 20*time.Millisecond)
	return out
}

// requests returns the model requests made in turns of the session's agent.
func (s *limitScene) requests() []modelserver.Request {
	return slices.DeleteFunc(s.w.Model.Requests(), func(r modelserver.Request) bool { return !isMain(r) || r.Session != s.id })
}

// refusals checks how a real server handles refusals by its provider.
func refusals(t *testing.T, w *realagent.World, server *realagent.OpencodeServer) {
	s := limits(t, w, server)
	defer w.Model.Handle(nil)
	w.Model.Handle(nil)
	retries := 0
	for _, e := range s.turn(bgagent.Prompt{ID: "p0", Text: "@error 429 times=1 retry-after=1 Rate limit reached\n@say fine"}) {
		if e.Kind == bgagent.HostStatus && e.Status.State == bgagent.SessionRetrying {
			retries++
			require.NotNil(t, e.Status.Provider)
			require.Equal(t, bgagent.ProviderRateLimited, e.Status.Provider.Kind)
			require.Equal(t, 1, e.Status.Provider.Tries)
			require.False(t, e.Status.RetryAt.IsZero())
		}
		require.NotEqual(t, bgagent.HostError, e.Kind)
	}
	require.Equal(t, 1, retries)

	var mu sync.Mutex
	refuse := true
	s.w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		mu.Lock()
		defer mu.Unlock()
		if isMain(r) && refuse && r.Turn() > 0 { // after the tool call
			return modelserver.Refuse(401, "the key has expired")
		}
		return r.Scripted()
	})
	var told *bgagent.ProviderError
	for _, e := range s.turn(bgagent.Prompt{ID: "p1", Text: "MARK\n@tool bash {\"command\":\"true\",\"description\":\"nothing\"}\n@say done"}) {
		if e.Kind == bgagent.HostError {
			told = e.Provider
		}
	}
	require.NotNil(t, told)
	require.Equal(t, bgagent.ProviderAuthentication, told.Kind)
	require.Equal(t, 401, told.Status)
	require.Equal(t, bgagent.NextContinue, told.Next)
	mu.Lock()
	refuse = false
	mu.Unlock()
	s.turn(bgagent.Prompt{ID: "p2", Unanswered: "p1", Text: "this must not be sent"})
	var last bgagent.Message
	require.Eventually(t, func() bool { // an event from the refused turn might report the session as idle once more
		page, err := s.c.Messages(t.Context(), s.id, "", 100)
		require.NoError(t, err)
		last = page.Messages[len(page.Messages)-1]
		return last.Finished && last.Text != ""
	}, patience, 50*time.Millisecond)
	require.Equal(t, "done", last.Text)
	require.Equal(t, bgagent.StopEndOfTurn, last.Stop)
	requests := s.requests()
	other := newClient(t, opencode.Config{URL: server.URL, Directory: w.Dir})
	require.NoError(t, other.StartTurn(t.Context(), s.id, bgagent.Prompt{ID: "p2", Unanswered: "p1", Agent: "worker", Model: realagent.OpencodeModel}))
	status, err := s.c.Statuses(t.Context(), []string{s.id})
	require.NoError(t, err)
	require.Equal(t, bgagent.SessionIdle, status[s.id].State)
	require.Len(t, s.requests(), len(requests), "a repeated call does not start another turn, even from another client")
	prompts, calls := 0, 0
	for _, m := range requests[len(requests)-1].Messages {
		prompts += strings.Count(m.Text, "MARK")
		calls += len(m.Results)
		require.NotContains(t, m.Text, "this must not be sent")
	}
	require.Equal(t, []int{1, 1}, []int{prompts, calls}, "the model sees the prompt and the result of the tool once")
}
