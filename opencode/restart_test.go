package opencode_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
	"github.com/bgagent/bgagent/storetest"
)

// afterlife contains what outlives a process: a fake server and a store. It also holds the current
// process.
type afterlife struct {
	*testing.T
	f      *fakeServer
	memory storetest.Memory
	cfg    opencode.Config
	mcfg   bgagent.Config
	now    *process
}

// process simulates a process with a client and a manager. It is also the client's HTTP transport.
// After the process dies, it does not send any more requests to the server.
type process struct {
	c     *opencode.Client
	m     *bgagent.BackgroundManager
	f     *fakeServer
	store *storetest.Process
	life  context.Context
	die   context.CancelFunc

	diesAfter  atomic.Pointer[string] // method and path of a request; the process dies when it has been answered
	diesBefore atomic.Pointer[string] // suffix of the path of a request; the process dies before it sends the request
}

var errDead = errors.New("the process is dead")

func (p *process) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	context.AfterFunc(p.life, cancel)
	if p.life.Err() != nil {
		return nil, errDead
	}
	if next := p.diesBefore.Load(); next != nil && strings.HasSuffix(req.URL.Path, *next) {
		p.crash()
		return nil, errDead
	}
	resp, err := p.f.RoundTrip(req.WithContext(ctx))
	if last := p.diesAfter.Load(); last != nil && *last == req.Method+" "+req.URL.Path {
		p.crash()
		return nil, errDead
	}
	return resp, err
}

// crash ends the process as SIGKILL would.
func (p *process) crash() {
	p.die()
	p.store.Crash()
}

// The function "restarts" executes a test in a bubble of testing/synctest, with a fake server.
func restarts(t *testing.T, test func(a *afterlife)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &afterlife{T: t, f: newFake()}
		defer a.f.stop()
		defer func() { a.now.close(t) }()
		test(a)
	})
}

// begin kills the previous process, if any, and starts the next one.
func (a *afterlife) begin() *process {
	a.Helper()
	if a.now != nil {
		a.now.crash()
		a.now.close(a.T)
	}
	p := &process{f: a.f, store: a.memory.Process()}
	p.life, p.die = context.WithCancel(context.Background())
	cfg, mcfg := a.cfg, a.mcfg
	cfg.HTTPClient, cfg.Directory = &http.Client{Transport: p}, "/work"
	p.c = newClient(a, cfg)
	mcfg.Store = p.store
	var err error
	p.m, err = bgagent.New(p.c, mcfg)
	require.NoError(a, err)
	p.m.Start()
	time.Sleep(time.Second) // until the stream is connected
	a.now = p
	return p
}

func (p *process) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = p.m.Close(ctx) // returns an error if the process is dead
	require.NoError(t, p.c.Close())
	p.die()
}

func (a *afterlife) launch(prompt string) string {
	a.Helper()
	task, err := a.now.m.Launch(a.Context(), bgagent.Caller{Session: "scope"}, bgagent.LaunchInput{Agent: "worker", Prompt: prompt, Description: "the task"})
	require.NoError(a, err)
	time.Sleep(5 * time.Second)
	return task.ID
}

func (a *afterlife) ended(id string) bgagent.Task {
	a.Helper()
	ended, err := a.now.m.Wait(a.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(a, err)
	return ended[0]
}

// messageIDs returns the message ids of all prompts that were sent.
func (a *afterlife) messageIDs() (ids []string) {
	for _, p := range a.f.sent() {
		ids = append(ids, p["messageID"].(string))
	}
	return ids
}

// serverRestarts kills the server and starts it again.
func (a *afterlife) serverRestarts() {
	a.f.crash()
	time.Sleep(time.Second)
	a.f.restart()
}

func TestATurnThatOutlivesTheManagerIsFollowed(t *testing.T) {
	for name, away := range map[string]time.Duration{"it still runs": 0, "it has ended": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			restarts(t, func(a *afterlife) {
				a.begin()
				id := a.launch("later the answer")
				a.now.crash()
				time.Sleep(away)
				a.begin()
				got := a.ended(id)
				require.Equal(a, bgagent.Completed, got.Status, got.Reason)
				require.Equal(a, "the answer", got.Result)
				require.Equal(a, 1, got.Attempt)
				require.Len(a, a.messageIDs(), 1, "nothing was prompted")
			})
		})
	}
}

func TestAServersAnswerBeforeItsEndIsTheResult(t *testing.T) {
	restarts(t, func(a *afterlife) {
		a.begin()
		id := a.launch("later the answer")
		a.now.crash()
		time.Sleep(2 * time.Minute)
		a.serverRestarts()
		a.begin()
		got := a.ended(id)
		require.Equal(a, bgagent.Completed, got.Status, got.Reason)
		require.Equal(a, "the answer", got.Result)
		require.Len(a, a.messageIDs(), 1)
	})
}

func TestAPromptThatTheServerHasNotStoredIsSentAgainUnderItsID(t *testing.T) {
	restarts(t, func(a *afterlife) {
		a.begin()
		id := a.launch("later the answer")
		a.now.crash()
		a.f.crash()
		a.f.do(func() {
			for _, s := range a.f.sessions {
				s.messages = nil // the server answered, but was killed before it stored the prompt
			}
		})
		a.f.restart()
		a.begin()
		got := a.ended(id)
		require.Equal(a, bgagent.Completed, got.Status, got.Reason)
		require.Equal(a, "the answer", got.Result)
		require.Equal(a, 1, got.Attempt)
		ids := a.messageIDs()
		require.Len(a, ids, 2)
		require.Equal(a, ids[0], ids[1])
	})
}

func TestATurnThatBrokeOffWithItsServerIsContinued(t *testing.T) {
	for name, prompt := range map[string]string{
		"before the agent's message": "mute", "before the first byte": "blank", "in the text": "wait", "in a command": "run",
	} {
		t.Run(name, func(t *testing.T) {
			restarts(t, func(a *afterlife) {
				a.begin()
				id := a.launch(prompt)
				a.now.crash()
				a.serverRestarts()
				a.begin()
				got := a.ended(id)
				require.Equal(a, bgagent.Completed, got.Status, got.Reason)
				require.Equal(a, 2, got.Attempt)
				require.Equal(a, bgagent.CauseSuperseded, got.Attempts[0].Cause)
				require.Contains(a, got.Result, "echo: ")
				require.Contains(a, got.Result, prompt, "the request is repeated in the prompt")
				sent := a.f.sent()
				require.Len(a, sent, 2)
				require.NotEqual(a, sent[0]["messageID"], sent[1]["messageID"])

				a.mcfg.OnRestart = func(string) bool { return false }
				id = a.launch(prompt)
				a.now.crash()
				a.serverRestarts()
				a.begin()
				got = a.ended(id)
				require.Equal(a, bgagent.CauseInterrupted, got.Cause, got.Reason)
				require.Len(a, a.f.sent(), 3)
			})
		})
	}
}

func TestAnotherPromptInTheSessionIsNotTakenForTheOwn(t *testing.T) {
	restarts(t, func(a *afterlife) {
		a.begin()
		id := a.launch("say one")
		require.Equal(a, "one", a.ended(id).Result)
		_, err := a.now.m.Resume(a.Context(), bgagent.Caller{}, id, bgagent.ResumeInput{Prompt: "later two"})
		require.NoError(a, err)
		time.Sleep(5 * time.Second)
		a.now.crash()
		a.f.crash()
		a.f.do(func() {
			for _, s := range a.f.sessions {
				s.messages = s.messages[:2] // the server was killed before it stored the second prompt
			}
		})
		a.f.restart()
		a.begin()
		got := a.ended(id)
		require.Equal(a, "two", got.Result, got.Reason)
		require.Equal(a, 2, got.Attempt)
	})
}

func TestTheTurnOfSomebodyElseIsNotFollowedAfterARestart(t *testing.T) {
	for name, users := range map[string]string{"it has ended": "later nothing of yours", "it goes on": "wait"} {
		t.Run(name, func(t *testing.T) {
			restarts(t, func(a *afterlife) {
				a.begin()
				id := a.launch("say one")
				require.Equal(a, "one", a.ended(id).Result)
				last := "/prompt_async"
				a.now.diesBefore.Store(&last)
				_, err := a.now.m.Resume(a.Context(), bgagent.Caller{}, id, bgagent.ResumeInput{Prompt: "say two"})
				require.NoError(a, err)
				time.Sleep(time.Second)
				task, err := a.now.m.Get(id)
				require.NoError(a, err)
				user := newClient(a, opencode.Config{HTTPClient: a.f.client()})
				require.NoError(a, user.StartTurn(a.Context(), task.Session, prompt("", users)))
				a.begin()
				got := a.ended(id)
				if users == "wait" {
					require.Equal(a, bgagent.CauseInterrupted, got.Cause, got.Reason)
					return
				}
				require.Equal(a, "two", got.Result, got.Reason)
			})
		})
	}
}

func TestQuestionsOfAnEarlierProcessAreAnswered(t *testing.T) {
	restarts(t, func(a *afterlife) {
		a.cfg.Permission = func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			return opencode.PermissionReply{Leave: true}
		}
		a.begin()
		id := a.launch("ask")
		a.now.crash()
		var asked []opencode.PermissionRequest
		a.cfg.Permission = func(_ context.Context, q opencode.PermissionRequest) opencode.PermissionReply {
			asked = append(asked, q)
			return opencode.PermissionReply{Allow: true}
		}
		a.begin()
		got := a.ended(id)
		require.Equal(a, "replied once", got.Result, got.Reason)
		require.Len(a, asked, 1)
		require.Equal(a, got.Session, asked[0].Task)
	})
}

func TestASessionThatWasCreatedBeforeTheProcessEndedIsUsed(t *testing.T) {
	restarts(t, func(a *afterlife) {
		p := a.begin()
		last := "POST /session"
		p.diesAfter.Store(&last)
		id := a.launch("say done")
		require.ErrorIs(a, p.life.Err(), context.Canceled)
		require.Len(a, a.f.sessions, 1)
		a.begin()
		got := a.ended(id)
		require.Equal(a, "done", got.Result, got.Reason)
		require.Len(a, a.f.sessions, 1, "no other session is left")
	})
}

func TestAKeyCreatesOneSession(t *testing.T) {
	restarts(t, func(a *afterlife) {
		spec := bgagent.SessionSpec{Title: "the task", Agent: "worker", Key: "bg_1.1"}
		create := func() string {
			id, err := a.begin().c.CreateSession(a.Context(), spec)
			require.NoError(a, err)
			return id
		}
		first := create()
		require.Equal(a, first, create())
		other := newClient(a, opencode.Config{HTTPClient: a.f.client(), Directory: "/work"})
		users, err := other.CreateSession(a.Context(), bgagent.SessionSpec{Title: "the user's", Agent: "build"})
		require.NoError(a, err)
		for _, change := range []func(){
			func() { spec.Key = "bg_1.2" },
			func() { spec.Key, spec.Parent = "bg_1.1", users },
			func() { spec.Key, spec.Parent = "", "" },
			func() {},
		} {
			change()
			id := create()
			require.NotEqual(a, first, id)
			first = id
		}
	})
}

func TestAFreshClientRecognisesAPromptBehindManyMessages(t *testing.T) {
	for _, key := range []string{"", "bg_1.1"} {
		restarts(t, func(a *afterlife) {
			id, err := a.begin().c.CreateSession(a.Context(), bgagent.SessionSpec{Title: "the task", Agent: "worker", Key: key})
			require.NoError(a, err)
			start := func(p bgagent.Prompt) {
				require.NoError(a, a.now.c.StartTurn(a.Context(), id, p))
				time.Sleep(time.Minute)
			}
			start(prompt("bgp_1", "say one"))
			start(prompt("bgp_2", "say two"))
			a.f.do(func() {
				s := a.f.sessions[id]
				for range 150 { // a turn with many tool calls
					m := *s.messages[3]
					m.Info = map[string]any{"id": a.f.id("msg"), "sessionID": id, "role": "assistant", "parentID": a.f.lastMessageOf(s), "finish": "tool-calls", "time": m.Info["time"]}
					m.row = a.f.now()<<12 + int64(a.f.ids)
					s.messages = append(s.messages, &m)
				}
			})
			a.begin()
			start(prompt("bgp_2", "say two"))
			start(prompt("bgp_1", "say one"))
			require.Len(a, a.f.sent(), 2)
			start(prompt("bgp_3", "say three"))
			require.Len(a, a.f.sent(), 3)
		})
	}
}

func TestACursorIsValidInAnotherProcess(t *testing.T) {
	restarts(t, func(a *afterlife) {
		id, err := a.begin().c.CreateSession(a.Context(), bgagent.SessionSpec{Title: "the task", Agent: "worker", Key: "bg_1.1"})
		require.NoError(a, err)
		for _, text := range []string{"one", "two", "three"} {
			require.NoError(a, a.now.c.StartTurn(a.Context(), id, prompt("bgp_"+text, "say "+text)))
			time.Sleep(time.Second)
		}
		page, err := a.now.c.Messages(a.Context(), id, "", 0)
		require.NoError(a, err)
		require.Len(a, page.Messages, 6)
		again, err := a.begin().c.Messages(a.Context(), id, page.Next, 0)
		require.NoError(a, err)
		require.Empty(a, again.Messages)
		require.NoError(a, a.now.c.StartTurn(a.Context(), id, prompt("bgp_four", "say four")))
		time.Sleep(time.Second)
		again, err = a.begin().c.Messages(a.Context(), id, page.Next, 0)
		require.NoError(a, err)
		require.Len(a, again.Messages, 2)
		require.Equal(a, "bgp_four", again.Messages[0].PromptID)
		require.Equal(a, "four", again.Messages[1].Text)
	})
}

func TestAFreshClientAbortsATurn(t *testing.T) {
	restarts(t, func(a *afterlife) {
		id, err := a.begin().c.CreateSession(a.Context(), bgagent.SessionSpec{Title: "the task", Agent: "worker", Key: "bg_1.1"})
		require.NoError(a, err)
		require.NoError(a, a.now.c.StartTurn(a.Context(), id, prompt("bgp_1", "run")))
		time.Sleep(time.Second)
		state := func() bgagent.SessionState {
			got, err := a.now.c.Statuses(a.Context(), []string{id})
			require.NoError(a, err)
			return got[id].State
		}
		a.begin()
		require.Equal(a, bgagent.SessionBusy, state())
		require.NoError(a, a.now.c.Abort(a.Context(), id))
		require.Equal(a, bgagent.SessionIdle, state())
	})
}

func TestThePermissionsOfAPromptReachASessionOfAnEarlierProcess(t *testing.T) {
	restarts(t, func(a *afterlife) {
		rule := func(action bgagent.PermissionAction) []bgagent.Permission {
			return []bgagent.Permission{{Name: "bash", Action: action}}
		}
		id, err := a.begin().c.CreateSession(a.Context(), bgagent.SessionSpec{Title: "the task", Agent: "worker", Key: "bg_1.1", Permissions: rule(bgagent.PermissionDeny)})
		require.NoError(a, err)
		rules := func() int { return len(a.f.sessions[id].Permission) }
		p := prompt("bgp_1", "say one")
		p.Permissions = rule(bgagent.PermissionDeny)
		require.NoError(a, a.begin().c.StartTurn(a.Context(), id, p))
		require.Equal(a, 1, rules(), "the session has the rule already")
		p = prompt("bgp_2", "say two")
		p.Permissions = rule(bgagent.PermissionAllow)
		require.NoError(a, a.begin().c.StartTurn(a.Context(), id, p))
		require.Equal(a, 2, rules())
	})
}

func TestASessionOfAnotherManagerIsLeftAlone(t *testing.T) {
	restarts(t, func(a *afterlife) {
		a.begin()
		id := a.launch("ask")
		got := a.ended(id)
		answered := strings.Count(got.Result, "reject")
		require.Equal(a, 1, answered)
		a.cfg.Permission = func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			return opencode.PermissionReply{Leave: true}
		}
		a.begin()
		id = a.launch("ask")
		c := newClient(a, opencode.Config{HTTPClient: a.f.client(), Permission: func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			a.Error("the question belongs to another manager")
			return opencode.PermissionReply{}
		}})
		m, err := bgagent.New(c, bgagent.Config{})
		require.NoError(a, err)
		defer m.Close(context.Background())
		task, err := a.now.m.Get(id)
		require.NoError(a, err)
		_, err = c.Statuses(a.Context(), []string{task.Session})
		require.NoError(a, err)
		time.Sleep(time.Minute)
		task, err = a.now.m.Get(id)
		require.NoError(a, err)
		assert.Equal(a, bgagent.PhaseAsking, task.Phase)
	})
}

func TestTheHomeIsTheAddressOfTheServer(t *testing.T) {
	home := func(url string) string {
		return newClient(t, opencode.Config{URL: url, Username: "somebody", Password: "secret"}).Home()
	}
	for url, want := range map[string]string{
		"http://127.0.0.1:4096/":    "http://127.0.0.1:4096",
		"HTTP://Server.example":     "http://server.example:80",
		"https://server.example/a/": "https://server.example:443/a",
		"http://[::1]:4096":         "http://[::1]:4096",
	} {
		assert.Equal(t, want, home(url))
	}
	assert.Equal(t, home(""), newClient(t, opencode.Config{}).Home())
	var _ bgagent.SessionHome = (*opencode.Client)(nil)
}
