//go:build unix

package acp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// moment is a moment during a turn at which a test kills the host.
type moment struct {
	name   string
	prompt func(s *scene) string
	part   string                  // part of the prompt that needs no escapes in JSON
	until  func(s *scene, h *host) // waits until the moment has come
	want   []bgagent.PromptState
	agents []string // agents that are killed at this moment even without the flag -acp.slow
	lost   bool     // whether the session's files are removed, as if the agent had not written them yet
	cut    bool     // whether the session's files are truncated, as if the agent had been killed while it wrote the prompt
}

var moments = []moment{
	{
		name: "before the first byte", prompt: func(*scene) string { return "@mute" }, part: "@mute",
		until:  func(s *scene, _ *host) { s.asked("@mute") },
		want:   []bgagent.PromptState{bgagent.PromptInterrupted, bgagent.PromptMissing},
		agents: []string{codex.name},
	},
	{
		name: "in the text", prompt: hangs, part: "half an ans", until: inText,
		want:   []bgagent.PromptState{bgagent.PromptInterrupted, bgagent.PromptMissing},
		agents: []string{gemini.name, claude.name},
	},
	{
		name: "in the text of a session that is not stored", prompt: hangs, part: "half an ans", until: inText,
		want:   []bgagent.PromptState{bgagent.PromptMissing},
		agents: []string{claude.name}, lost: true,
	},
	{
		name: "while the prompt is stored", prompt: hangs, part: "half an ans", until: inText,
		want:   []bgagent.PromptState{bgagent.PromptMissing},
		agents: []string{codex.name}, cut: true,
	},
	{
		name: "in a command", prompt: func(s *scene) string { return s.bash("touch begun; sleep 300", "") + "\n@say never" }, part: "touch begun",
		until: func(s *scene, h *host) {
			s.appears(filepath.Join(s.w.Dir, "begun"))
			s.sleep(true, "no command runs")
			h.saves(`"called":true`)
		},
		want:   []bgagent.PromptState{bgagent.PromptInterrupted},
		agents: []string{opencode.name, gemini.name, claude.name, codex.name},
	},
	{
		name: "after the answer", prompt: func(*scene) string { return "@say marzipan" }, part: "marzipan",
		until:  func(_ *scene, h *host) { h.read("end0") },
		want:   []bgagent.PromptState{bgagent.PromptAnswered},
		agents: []string{gemini.name, codex.name},
	},
}

func hangs(*scene) string { return "@hang half an ans" }

func inText(s *scene, h *host) {
	s.asked("half an ans")
	if s.streams {
		h.read("text")
	}
}

// kills are the ways to kill a host. If only the agent's own process is killed with the host, the
// agent's other processes keep running.
var kills = []struct {
	name   string
	kill   func(h *host)
	agents []string // agents that are killed in this way without -acp.slow, and only during a command; nil means the agents of each moment
}{
	{"with its agent", func(h *host) { h.killWithAgent(false) }, nil},
	{"alone", (*host).kill, []string{claude.name}},
	{"with its agent's group", func(h *host) { h.killWithAgent(true) }, []string{codex.name}},
}

// Each start of an agent takes seconds, and opencode takes the longest. Therefore, without the flag
// -acp.slow, each agent is killed only at some moments and in some ways.
func TestASessionOfAKilledHostIsRestored(t *testing.T) {
	for _, a := range reals {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			for _, m := range moments {
				for _, k := range kills {
					at := slices.Contains(m.agents, a.name)
					if k.agents != nil {
						at = m.name == "in a command" && slices.Contains(k.agents, a.name)
					}
					if m.lost && a.name == opencode.name { // opencode's database contains all sessions, so one cannot be lost alone
						continue
					}
					if m.cut && a.name != codex.name { // the other agents store one item for both the replay and the model, so no cut can separate them
						continue
					}
					if !at && !*slow {
						continue
					}
					t.Run(m.name+", killed "+k.name, func(t *testing.T) {
						w := a.world(t)
						w.Model.Handle(recalling)
						s := &scene{T: t, real: a, w: w}
						s.restores(m, k.kill)
					})
				}
			}
		})
	}
}

// The method "restores" kills a host at the given moment and restores its session.
func (s *scene) restores(m moment, kill func(h *host)) {
	spec := bgagent.SessionSpec{Task: "bg_1", Agent: s.name, Directory: s.w.Dir, Instance: uuid.NewString()}
	cfg := s.config(s.w)
	first := bgagent.Prompt{ID: "p1", Task: "bg_1", Attempt: 1, Turn: 1, Agent: s.name, Text: m.prompt(s), Instance: spec.Instance}
	h := startHost(s.T, order{Command: cfg.Command, Dir: cfg.Dir, Env: cfg.Env, Auth: cfg.Auth, Spec: spec, Prompts: []bgagent.Prompt{first}})
	m.until(s, h)
	// Claude stores a session some time after its first request to the model; the other agents
	// store it before the request. If the host is killed earlier, the prompt is missing.
	if s.name != claude.name || len(m.want) == 1 {
		s.stored(m.part)
	}
	kill(h)
	in := h.restore(first)
	c := open(s.T, h.o.config())
	// The processes that the host left running are killed first, because they could still call the
	// model and write to gemini's session file.
	require.NoError(s, s.patiently(func() error { return c.endLeft(s.Context(), in) }))
	if s.name == gemini.name {
		s.age()
		in.Saved = older(s.T, in.Saved)
	}
	if m.lost {
		for _, file := range s.w.SessionFiles(in.Session) {
			require.NoError(s, os.Remove(file))
		}
	}
	if m.cut {
		s.cut(in.Session, m.part)
	}
	asked := s.turnRequests(first.Text)
	began := time.Now()
	var state bgagent.PromptState
	var end bgagent.TurnEnd
	err := s.patiently(func() (err error) { state, end, err = c.RestoreSession(s.Context(), in); return err })
	s.Logf("%v %+v %v after %v", state, end, err, time.Since(began))
	s.sleep(false, "a command runs on")
	require.Equal(s, asked, s.turnRequests(first.Text), "the model was asked")
	require.Contains(s, m.want, state)
	session := in.Session
	switch {
	case state == bgagent.PromptAnswered:
		require.Equal(s, "marzipan", end.Text)
	case err != nil || m.cut:
		require.ErrorIs(s, err, bgagent.ErrNoSession)
		require.Equal(s, bgagent.PromptMissing, state)
		session, err = c.CreateSession(s.Context(), in.Spec)
		require.NoError(s, err)
	default:
		require.NoError(s, err)
	}
	next := bgagent.Prompt{ID: "p2", Task: "bg_1", Attempt: 2, Turn: 1, Agent: s.name, Text: "What did I say first?", Instance: in.Spec.Instance}
	e := run(s.T, c, session, next).wait()
	require.NoError(s, e.err)
	if state != bgagent.PromptMissing {
		require.Contains(s, e.Text, "You said: "+strings.TrimPrefix(first.Text, "@")[:4])
	}
	for _, r := range s.w.Model.Requests() {
		if !isMain(r) || !strings.Contains(r.LastUser(), next.Text) {
			continue
		}
		times := 0
		for _, msg := range r.Messages {
			times += strings.Count(msg.Text, first.Text)
		}
		require.LessOrEqual(s, times, 1, "the session has the first prompt twice")
	}
}

// The method "cut" truncates codex's session file after the item that contains the prompt as the
// model gets it. It also deletes the database from which codex replays. When codex starts, it fills
// the database from the session file again.
func (s *scene) cut(session, part string) {
	s.Helper()
	files := s.w.SessionFiles(session)
	require.Len(s, files, 1)
	content, err := os.ReadFile(files[0])
	require.NoError(s, err)
	end := 0
	for line := range strings.Lines(string(content)) {
		if end += len(line); strings.Contains(line, part) {
			require.Contains(s, line, `"type":"response_item"`)
			break
		}
	}
	require.Less(s, end, len(content))
	require.NoError(s, os.WriteFile(files[0], content[:end], 0o600))
	home, _, _ := strings.Cut(files[0], "/sessions/")
	databases, err := filepath.Glob(filepath.Join(home, "thread_history_*"))
	require.NoError(s, err)
	require.NotEmpty(s, databases)
	for _, file := range databases {
		require.NoError(s, os.Remove(file))
	}
}

// turnRequests returns the number of requests to the model whose conversation contains the prompt.
// Other requests, such as those for a title, are not counted.
func (s *scene) turnRequests(prompt string) (n int) {
	for _, r := range s.w.Model.Requests() {
		if isMain(r) && slices.ContainsFunc(r.Messages, func(m modelserver.Message) bool { return strings.Contains(m.Text, prompt) }) {
			n++
		}
	}
	return n
}

// The method "patiently" calls f until f no longer returns an error that matches ErrBusy. The
// manager does the same.
func (s *scene) patiently(f func() error) (err error) {
	s.Helper()
	require.Eventually(s, func() bool {
		if err = f(); isBusy(err) {
			s.Logf("busy: %v", err)
			return false
		}
		return true
	}, 10*time.Minute, time.Second)
	return err
}

// The function "older" returns the saved state, changed so that the session was created a year ago.
// scene.age makes gemini's session file look old as well.
func older(t *testing.T, saved []byte) []byte {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(saved, &m))
	m["made"] = time.Now().AddDate(-1, 0, 0)
	text, err := json.Marshal(m)
	require.NoError(t, err)
	return text
}
