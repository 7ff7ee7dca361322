//go:build unix

package acp

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

var root = bgagent.Caller{Session: "root"}

// scene is a manager that runs a real agent.
type scene struct {
	*testing.T
	real
	w *realagent.World
	c *Client
	m *bgagent.BackgroundManager
}

// eachReal runs a test with every real agent.
func eachReal(t *testing.T, cfg bgagent.Config, edit func(*Config), test func(s *scene)) {
	each(t, reals, cfg, edit, test)
}

// The function "each" runs a test with some real agents. It runs the agents in parallel, because
// they start slowly.
func each(t *testing.T, with []real, cfg bgagent.Config, edit func(*Config), test func(s *scene)) {
	for _, a := range with {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			w := a.world(t)
			w.Model.Handle(recalling)
			ac := a.config(w)
			if edit != nil {
				edit(&ac)
			}
			c := open(t, ac)
			cfg := cfg
			cfg.CreateTimeout = 2 * ac.StartTimeout // the client must give up a slow start before the manager does
			cfg.StopTimeout = 4 * ac.CancelGrace
			m, err := bgagent.New(c, cfg)
			require.NoError(t, err)
			t.Cleanup(func() {
				var left *bgagent.CloseError // an error can only be about notices that were not delivered
				if err := m.Close(context.Background()); err != nil {
					require.ErrorAs(t, err, &left)
					require.Empty(t, left.NotStopped)
					require.Empty(t, left.Hung)
				}
			})
			test(&scene{T: t, real: a, w: w, c: c, m: m})
		})
	}
}

// The method "launch" launches a task.
func (s *scene) launch(prompt string) bgagent.Task {
	s.Helper()
	task, err := s.m.Launch(s.Context(), root, bgagent.LaunchInput{Agent: s.name, Prompt: prompt, Description: "a test"})
	require.NoError(s, err)
	return task
}

// The method "ended" returns once the tasks have ended.
func (s *scene) ended(ids ...string) []bgagent.Task {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	tasks, err := s.m.Wait(ctx, root, bgagent.WaitAll, ids...)
	require.NoError(s, err)
	return tasks
}

// The method "run" launches a task and waits until it has ended.
func (s *scene) run(prompt string) bgagent.Task {
	s.Helper()
	return s.ended(s.launch(prompt).ID)[0]
}

// The method "until" waits until the function "ok" accepts the requests to the model.
func (s *scene) until(ok func([]modelserver.Request) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	require.NoError(s, s.w.Model.WaitFor(ctx, ok))
}

// The method "asked" returns when the model has received a request that contains the text.
func (s *scene) asked(text string) {
	s.Helper()
	s.until(func(list []modelserver.Request) bool {
		for _, r := range list {
			if r.Kind == modelserver.Main && !r.Done && strings.Contains(r.LastUser(), text) {
				return true
			}
		}
		return false
	})
}

// The method "follow" waits until the function "ok" accepts the task. It polls instead of waiting
// for events, because pieces of text that quickly follow one another share an event, and there
// might be no event for the last piece.
func (s *scene) follow(id string, ok func(bgagent.Task) bool) (task bgagent.Task) {
	s.Helper()
	require.Eventually(s, func() bool {
		var err error
		task, err = s.m.Get(id)
		return err == nil && ok(task)
	}, 5*time.Minute, 20*time.Millisecond)
	return task
}

// The method "cancel" cancels a task and waits until everything that the task started has stopped.
func (s *scene) cancel(id string) bgagent.Task {
	s.Helper()
	_, err := s.m.Cancel(s.Context(), root, id, bgagent.CancelOptions{})
	require.NoError(s, err)
	s.quiet(id)
	task, err := s.m.Get(id)
	require.NoError(s, err)
	return task
}

// The method "quiet" returns when everything that the task started has stopped.
func (s *scene) quiet(id string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 5*time.Minute)
	defer cancel()
	require.NoError(s, s.m.Quiet(ctx, id))
}
