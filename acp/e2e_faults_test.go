//go:build unix

package acp

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/stretchr/testify/require"
)

func TestAModelThatFailsFailsItsTask(t *testing.T) {
	once := func(c *Config) { c.Env = append(slices.Clone(c.Env), "CLAUDE_CODE_MAX_RETRIES=1") }
	eachReal(t, bgagent.Config{}, once, func(s *scene) {
		task := s.run("@error 400 you cannot ask for that")
		require.Equal(s, bgagent.Failed, task.Status)
		require.Contains(s, task.Reason, "you cannot ask for that")

		task = s.run("@error 429 times=1 retry-after=1 slow down\n@say patience pays")
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, "patience pays", task.Result)

		task = s.run("@error 500 times=1 hiccup\n@say better now")
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, "better now", task.Result)
		if s.name == claude.name || s.name == codex.name { // the other agents retry a refused request for a minute or longer
			s.refusedThenContinued()
		}
	})
}

// refusedThenContinued runs a turn that the provider refuses, and then the next turn of the
// session.
func (s *scene) refusedThenContinued() {
	id, err := s.c.CreateSession(s.Context(), bgagent.SessionSpec{Task: "bg_1", Agent: s.name})
	require.NoError(s, err)
	var refuse atomic.Bool
	s.w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if isMain(r) && refuse.Load() {
			return modelserver.Refuse(429, "This request would exceed the rate limit for your organization")
		}
		return recalling(r)
	})
	play := func(p bgagent.Prompt) ended {
		p.Task, p.Agent = "bg_1", s.name
		return run(s, s.c, id, p).wait()
	}
	refuse.Store(true)
	e := play(bgagent.Prompt{ID: "p1", Text: "MARK\n@say fine"})
	refuse.Store(false)
	var p *bgagent.ProviderError
	require.ErrorAs(s, e.err, &p)
	require.Equal(s, bgagent.ProviderRateLimited, p.Kind)
	require.Equal(s, 429, p.Status)
	require.Equal(s, bgagent.NextContinue, p.Next)
	require.Empty(s, e.Text)
	e = play(bgagent.Prompt{ID: "p2", Unanswered: "p1", Text: "Go on.\n@say I went on"})
	require.NoError(s, e.err)
	require.Equal(s, "I went on", e.Text)
	requests := slices.DeleteFunc(s.w.Model.Requests(), func(r modelserver.Request) bool { return !isMain(r) })
	marks := 0
	for _, m := range requests[len(requests)-1].Messages {
		marks += strings.Count(m.Text, "MARK")
	}
	require.Equal(s, 1, marks, "the model sees the prompt once")
}

func TestAModelThatNeverAnswersIsEndedByTheLimits(t *testing.T) {
	each(t, []real{opencode, gemini}, bgagent.Config{TimeToLive: 4 * time.Second}, nil, func(s *scene) {
		s.run("@say a start may take longer than all that is allowed here")
		for _, script := range []string{"@mute", "@error 500 broken for good"} {
			task := s.run(script)
			require.Equal(s, bgagent.Cancelled, task.Status)
			require.Equal(s, bgagent.CauseTimeToLive, task.Cause)
			s.quiet(task.ID)
			s.until(func([]modelserver.Request) bool { return s.w.Model.Open(isMain) == 0 })
		}
	})
}

// The method "agents" returns the PIDs of the agent processes that the client started.
func (s *scene) agents() (pids []int) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for p := range s.c.all {
		pids = append(pids, p.run.pid)
	}
	return pids
}

// The method "stored" returns when the agent has stored a prompt that contains the text. The text
// must not need any escapes in JSON.
func (s *scene) stored(text string) {
	s.Helper()
	require.Eventually(s, func() bool { return s.w.HasStored(text) }, 5*time.Minute, 20*time.Millisecond, "the agent does not store its prompt")
}

// The method "age" renames gemini's session records so that the sessions look old. A record's name
// contains the session's id and the minute in which the session was created. If gemini loads a
// session in that minute, gemini overwrites the record and finds an empty session.
func (s *scene) age() {
	s.Helper()
	if s.name != gemini.name {
		return
	}
	records := s.w.SessionFiles("")
	require.NotEmpty(s, records)
	for _, r := range records {
		id := r[strings.LastIndex(r, "-"):]
		require.NoError(s, os.Rename(r, filepath.Join(filepath.Dir(r), "session-2025-01-01T00-00"+id)))
	}
}

func TestAKilledAgentInterruptsItsTurnsAndIsStartedAgain(t *testing.T) {
	allow := func(c *Config) {
		c.Permit = func(context.Context, PermissionRequest) PermissionAnswer { return PermissionAnswer{Allow: true} }
	}
	eachReal(t, bgagent.Config{}, allow, func(s *scene) {
		first := s.run("@say marzipan")
		require.Equal(s, "marzipan", first.Result, first.Reason)
		one := s.launch("@hang half an ans")
		two := s.launch(s.bash("touch begun; sleep 300", "") + "\n@say never")
		s.asked("half an ans")
		s.appears(filepath.Join(s.w.Dir, "begun"))
		said := map[string]string{first.ID: "marzipan", one.ID: "half an ans"}
		for _, text := range said {
			s.stored(text)
		}
		require.Len(s, s.agents(), 1)
		require.NoError(s, syscall.Kill(s.agents()[0], syscall.SIGKILL))
		began := time.Now()
		for _, task := range s.ended(one.ID, two.ID) {
			s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
			require.Equal(s, bgagent.Failed, task.Status)
			require.Contains(s, task.Reason, "killed")
		}
		s.Logf("ended, with all children gone, after %v", time.Since(began))
		require.Eventually(s, func() bool { return len(s.w.Processes()) == 0 }, 2*time.Minute, 10*time.Millisecond, "children of the killed agent are alive")

		s.age()
		for id, text := range said {
			_, err := s.m.Resume(s.Context(), root, id, bgagent.ResumeInput{Prompt: "What did I say first?"})
			require.NoError(s, err)
			task := s.ended(id)[0]
			require.Equal(s, bgagent.Completed, task.Status, task.Reason)
			require.Contains(s, task.Result, text)
		}
		require.Len(s, s.agents(), 1)
	})
}
