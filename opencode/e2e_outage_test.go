package opencode_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestFiftyTasksThatStartWhileTheRealServerIsAwayAllComplete(t *testing.T) {
	w := realagent.New(t, "opencode")
	// A server that is starting can accept a request and never answer it. Such a request must be
	// retried well before the manager gives up on the server.
	s := serve(t, w, w.ServeOpencode(t), opencode.Config{Timeout: 30 * time.Second}, bgagent.Config{
		HostUnreachable: patience, Limits: bgagent.Limits{Default: 10},
	})
	require.Equal(t, "warm", s.ended(s.launch("scope", "worker", "@say warm").ID)[0].Result)
	s.s.Kill()
	var ids []string
	for i := range 50 {
		ids = append(ids, s.launch("scope", "worker", fmt.Sprintf("@say the answer is number %d", i)).ID)
	}
	time.Sleep(2 * time.Second)
	s.s.Restart()
	for i, task := range s.ended(ids...) {
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, fmt.Sprintf("the answer is number %d", i), task.Result)
	}
}

func TestTheRealServerAndItsOwnEnds(t *testing.T) {
	w := realagent.New(t, "opencode")
	server := w.ServeOpencode(t)
	cfg := opencode.Config{Tools: map[string]bool{"question": true}} // by default, only opencode's own primary agents are allowed to ask
	for _, x := range []struct {
		name string
		run  func(*scene)
	}{
		{"a question to the user is named", func(s *scene) {
			got := s.ended(s.launch("scope", "worker", `@tool question {"questions":[{"question":"Which?","header":"Pick","options":[{"label":"A","description":"a"},{"label":"B","description":"b"}]}]}`+"\n@say done").ID)[0]
			require.Equal(s, bgagent.Failed, got.Status)
			require.Contains(s, got.Reason, `"Which?"`)
		}},
		{"a directory that was removed is refused", func(s *scene) {
			dir := filepath.Join(s.w.Dir, "removed")
			in := bgagent.LaunchInput{Agent: "worker", Model: realagent.OpencodeModel, Prompt: "@say here", Directory: dir}
			require.NoError(s, os.Mkdir(dir, 0o755))
			task, err := s.m.Launch(s.Context(), bgagent.Caller{Session: "scope"}, in)
			require.NoError(s, err)
			require.Equal(s, "here", s.ended(task.ID)[0].Result, s.ended(task.ID)[0].Reason)
			require.NoError(s, os.RemoveAll(dir))
			task, err = s.m.Launch(s.Context(), bgagent.Caller{Session: "scope"}, in)
			require.NoError(s, err)
			require.Contains(s, s.ended(task.ID)[0].Reason, "cannot read the directory")
		}},
		{"an answer that fills the context is the result", func(s *scene) {
			got := s.ended(s.launch("scope", "worker", "@usage 126000 2000\n@say the whole answer").ID)[0]
			require.Equal(s, bgagent.Completed, got.Status, got.Reason)
			require.Equal(s, "the whole answer", got.Result)
		}},
		{"killed before any output it leaves an interrupted task", func(s *scene) {
			task := s.launch("scope", "worker", "@key mute\n@mute")
			s.waitFor(func(r modelserver.Request) bool { return r.Key == "mute" && isMain(r) })
			s.s.Restart()
			got := s.ended(task.ID)[0]
			require.Equal(s, bgagent.CauseInterrupted, got.Cause, got.Reason)
		}},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(serve(t, w, server, cfg, bgagent.Config{})) })
	}
}
