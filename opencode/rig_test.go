package opencode_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/opencode"
)

// newClient returns a client that is closed at the end of the test.
func newClient(t bgagenttest.TB, cfg opencode.Config) *opencode.Client {
	t.Helper()
	c, err := opencode.New(cfg)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// noticesIn returns the ids of the notices in a session. If a message contains its notice's text
// several times, the id is returned once for each copy of the text.
func noticesIn(sc bgagent.SessionClient, session string) (ids []string) {
	page, err := sc.(bgagent.MessageReader).Messages(context.Background(), session, "", 1000)
	if err != nil {
		return []string{err.Error()}
	}
	for _, m := range page.Messages {
		if strings.HasPrefix(m.PromptID, "bgn_") {
			for range strings.Count(m.Text, "a task has ended") {
				ids = append(ids, m.PromptID)
			}
		}
	}
	return ids
}

// rig is a manager with a client for a fake server, in a bubble.
type rig struct {
	t    *testing.T
	f    *fakeServer
	c    *opencode.Client
	m    *bgagent.BackgroundManager
	root string // id of a root session, which belongs to the user

	mu     sync.Mutex
	events []bgagent.HostEvent // the events that the client emitted
}

// The type "tapped" is a client whose events are recorded.
type tapped struct {
	*opencode.Client
	r *rig
}

func (t tapped) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	return t.Client.Events(ctx, func(e bgagent.HostEvent) {
		t.r.mu.Lock()
		t.r.events = append(t.r.events, e)
		t.r.mu.Unlock()
		emit(e)
	})
}

// bubble runs a test with a rig in a bubble of testing/synctest.
func bubble(t *testing.T, cfg opencode.Config, mcfg bgagent.Config, test func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		cfg.HTTPClient = f.client()
		r := &rig{t: t, f: f, c: newClient(t, cfg)}
		root, err := r.c.CreateSession(t.Context(), bgagent.SessionSpec{Title: "the user's", Agent: "build", Directory: "/work"})
		require.NoError(t, err)
		r.root = root
		r.m, err = bgagent.New(tapped{r.c, r}, mcfg)
		require.NoError(t, err)
		time.Sleep(time.Second) // lets the stream connect
		defer f.stop()
		defer func() {
			var left *bgagent.CloseError
			if errors.As(r.m.Close(context.Background()), &left) {
				assert.Empty(t, left.NotStopped)
				assert.Empty(t, left.Hung)
				assert.NoError(t, left.Err)
			}
			require.NoError(t, r.c.Close())
		}()
		test(t, r)
	})
}

func (r *rig) launch(prompt string) bgagent.Task {
	r.t.Helper()
	task, err := r.m.Launch(r.t.Context(), bgagent.Caller{Session: r.root}, bgagent.LaunchInput{Agent: "worker", Prompt: prompt, Description: prompt})
	require.NoError(r.t, err)
	return task
}

// The method "wait" waits for the end of a task, and returns the ended task.
func (r *rig) wait(task bgagent.Task) bgagent.Task {
	r.t.Helper()
	ended, err := r.m.Wait(r.t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
	require.NoError(r.t, err)
	return ended[0]
}

// The method "under" waits until a task's agent is working, and returns the task's current state.
func (r *rig) under(task bgagent.Task) bgagent.Task {
	r.t.Helper()
	time.Sleep(time.Second)
	got, err := r.m.Get(task.ID)
	require.NoError(r.t, err)
	require.Equal(r.t, bgagent.Running, got.Status, got.Reason)
	return got
}

// session creates a session without a task.
func (r *rig) session(dir string) string {
	r.t.Helper()
	id, err := r.c.CreateSession(r.t.Context(), bgagent.SessionSpec{Agent: "worker", Directory: dir})
	require.NoError(r.t, err)
	return id
}

func (r *rig) state(session string) bgagent.SessionState {
	r.t.Helper()
	got, err := r.c.Statuses(r.t.Context(), []string{session})
	require.NoError(r.t, err)
	return got[session].State
}

func (r *rig) messages(session string) []bgagent.Message {
	r.t.Helper()
	page, err := r.c.Messages(r.t.Context(), session, "", 1000)
	require.NoError(r.t, err)
	return page.Messages
}

// texts returns the texts of a session's messages. A prompt begins with "> ".
func (r *rig) texts(session string) (out []string) {
	for _, m := range r.messages(session) {
		if m.Role == bgagent.RoleUser {
			m.Text = "> " + m.Text
		}
		out = append(out, m.Text)
	}
	return out
}

// count returns the number of requests with the given method whose path contains the given
// text.
func (r *rig) count(method, part string) (n int) {
	r.f.do(func() {
		for _, call := range r.f.calls {
			if strings.HasPrefix(call, method+" ") && strings.Contains(call, part) {
				n++
			}
		}
	})
	return n
}

// The method "told" returns the events of one kind that the client emitted for a session.
func (r *rig) told(session string, kind bgagent.HostEventKind) (out []bgagent.HostEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e bgagent.HostEvent) bool { return e.Kind != kind || e.Session != session })
}

// rules returns the permission rules of a session.
func (r *rig) rules(session string) (out []map[string]any) {
	r.f.do(func() { out = slices.Clone(r.f.sessions[session].Permission) })
	return out
}

func prompt(id, text string) bgagent.Prompt {
	return bgagent.Prompt{ID: id, Agent: "worker", Text: text}
}

func notice(id string) bgagent.Notice {
	return bgagent.Notice{ID: id, Text: "a task has ended"}
}

func seconds(n int) { time.Sleep(time.Duration(n) * time.Second) }
