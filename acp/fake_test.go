//go:build unix

package acp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sdk "github.com/coder/acp-go-sdk"
	"github.com/google/uuid"
)

// fakeAgent is an agent that executes its prompts line by line. It uses the agent side of
// the SDK. It runs in the test's own process, or as a program, which is the test binary
// itself (see TestMain).
type fakeAgent struct {
	fault string // fault that the agent simulates
	store string // directory for the sessions; empty if the agent cannot load sessions
	out   io.Writer
	ears  <-chan struct{} // ends a "deaf" turn; nil if nothing ends it

	steers   string        // answer to messages for the running turn; empty if the agent does not support them
	steersIn time.Duration // time until this answer

	conn *sdk.AgentSideConnection
	plug atomic.Bool

	mu       sync.Mutex
	sessions map[string]*fakeSession
	calls    int
	steered  []steerRequest
	cancels  int // number of session/cancel notifications
}

type fakeSession struct {
	Dir    string
	Agent  []string // the agent's answers
	User   []string // prompts
	MCP    int      // number of MCP servers
	mode   string
	model  string
	cancel context.CancelFunc
}

// serveFake runs the agent until its input ends.
func serveFake(a *fakeAgent, in io.Reader, out io.Writer) {
	a.sessions = map[string]*fakeSession{}
	a.out = out
	ready := make(chan struct{})
	a.conn = sdk.NewAgentSideConnection(a, out, gated{in, ready, a})
	a.conn.SetLogger(slog.New(slog.DiscardHandler))
	close(ready)
	<-a.conn.Done()
}

// gated is a reader that waits until the connection is complete. After the command "plug",
// reading blocks forever.
type gated struct {
	io.Reader
	ready chan struct{}
	a     *fakeAgent
}

func (g gated) Read(p []byte) (int, error) {
	<-g.ready
	if g.a.plug.Load() {
		select {}
	}
	return g.Reader.Read(p)
}

func (a *fakeAgent) Initialize(context.Context, sdk.InitializeRequest) (sdk.InitializeResponse, error) {
	version := sdk.ProtocolVersion(sdk.ProtocolVersionNumber)
	switch a.fault {
	case "silent":
		select {}
	case "version":
		version = 99
	case "refuse":
		return sdk.InitializeResponse{}, errors.New("not today")
	}
	return sdk.InitializeResponse{
		Meta:            a.steering(),
		ProtocolVersion: version,
		AgentInfo:       a.info(),
		AgentCapabilities: sdk.AgentCapabilities{
			LoadSession:         a.store != "",
			SessionCapabilities: sdk.SessionCapabilities{Close: &sdk.SessionCloseCapabilities{}},
		},
		AuthMethods: []sdk.AuthMethod{{Agent: &sdk.AuthMethodAgent{Id: "key", Name: "A key"}}, {Agent: &sdk.AuthMethodAgent{Id: "login", Name: "Log in"}}},
	}, nil
}

// info returns the name of the agent if it behaves like codex.
func (a *fakeAgent) info() *sdk.Implementation {
	if a.fault != "half store" {
		return nil
	}
	return &sdk.Implementation{Name: "codex-acp", Version: "1"}
}

func (a *fakeAgent) Authenticate(_ context.Context, q sdk.AuthenticateRequest) (sdk.AuthenticateResponse, error) {
	if q.MethodId == "login" {
		return sdk.AuthenticateResponse{}, errors.New("there is no browser")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault == "auth" {
		a.fault = ""
	}
	return sdk.AuthenticateResponse{}, nil
}

func (a *fakeAgent) NewSession(_ context.Context, q sdk.NewSessionRequest) (sdk.NewSessionResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.fault {
	case "auth":
		return sdk.NewSessionResponse{}, sdk.NewAuthRequired(nil)
	case "nosession":
		select {}
	}
	id := uuid.NewString()
	a.sessions[id] = &fakeSession{Dir: q.Cwd, MCP: len(q.McpServers), mode: "build", model: "small"}
	a.save(id)
	return sdk.NewSessionResponse{SessionId: sdk.SessionId(id), ConfigOptions: fakeOptions("small"), Modes: fakeModes()}, nil
}

func fakeOptions(model string) []sdk.SessionConfigOption {
	category := sdk.SessionConfigOptionCategoryModel
	list := sdk.SessionConfigSelectOptionsUngrouped{{Value: "small", Name: "Small"}, {Value: "large", Name: "Large"}}
	return []sdk.SessionConfigOption{{Select: &sdk.SessionConfigOptionSelect{
		Id: "model", Name: "Model", Type: "select", Category: &category,
		CurrentValue: sdk.SessionConfigValueId(model), Options: sdk.SessionConfigSelectOptions{Ungrouped: &list},
	}}}
}

func fakeModes() *sdk.SessionModeState {
	return &sdk.SessionModeState{CurrentModeId: "build", AvailableModes: []sdk.SessionMode{{Id: "build", Name: "Build"}, {Id: "plan", Name: "Plan"}}}
}

// The method "save" writes a session to the store.
func (a *fakeAgent) save(id string) {
	if a.store == "" {
		return
	}
	raw, err := json.Marshal(a.sessions[id])
	if err == nil {
		file := filepath.Join(a.store, id)
		if err = os.WriteFile(file+".new", raw, 0o600); err == nil {
			err = os.Rename(file+".new", file)
		}
		if a.fault == "exclusive" {
			err = errors.Join(err, os.WriteFile(file+".holder", []byte(strconv.Itoa(os.Getpid())), 0o600))
		}
	}
	if err != nil {
		panic(err)
	}
}

func number(text []byte) int {
	n, _ := strconv.Atoi(string(text))
	return n
}

func (a *fakeAgent) LoadSession(ctx context.Context, q sdk.LoadSessionRequest) (sdk.LoadSessionResponse, error) {
	if _, err := os.Stat(filepath.Join(a.store, "in use")); err == nil { // as codex does
		return sdk.LoadSessionResponse{}, &sdk.RequestError{Code: -32600, Message: "Invalid request", Data: map[string]any{"details": "the thread is in use by another client"}}
	}
	holder := filepath.Join(a.store, string(q.SessionId)+".holder") // process that has the session open
	if pid, err := os.ReadFile(holder); err == nil && a.fault == "exclusive" && string(pid) != strconv.Itoa(os.Getpid()) && syscall.Kill(number(pid), 0) == nil {
		return sdk.LoadSessionResponse{}, &sdk.RequestError{Code: -32600, Message: "Invalid request", Data: map[string]any{"details": "the thread is in use by another client"}}
	}
	if _, err := os.Stat(filepath.Join(a.store, "broken")); err == nil {
		return sdk.LoadSessionResponse{}, &sdk.RequestError{Code: -32603, Message: "Internal error", Data: map[string]any{"details": "the agent's executable was not found"}}
	}
	raw, err := os.ReadFile(filepath.Join(a.store, string(q.SessionId)))
	if err != nil {
		return sdk.LoadSessionResponse{}, sdk.NewInvalidParams("no such session here")
	}
	s := &fakeSession{mode: "build", model: "small"}
	if err := json.Unmarshal(raw, s); err != nil {
		return sdk.LoadSessionResponse{}, err
	}
	s.MCP = len(q.McpServers)
	a.mu.Lock()
	a.sessions[string(q.SessionId)] = s
	a.mu.Unlock()
	told := slices.Clone(s.User) // the next prompt might arrive during the replay
	if a.fault == "half store" { // codex was killed before it stored the item that it replays for the last prompt
		told = told[:len(s.Agent)]
	}
	replay := func(pause time.Duration) {
		for i, user := range told {
			time.Sleep(pause)
			if a.fault != "summary" { // this fault leaves the prompts out of the replay
				_ = a.update(ctx, q.SessionId, sdk.UpdateUserMessageText(user))
			}
			if i < len(s.Agent) {
				_ = a.update(ctx, q.SessionId, sdk.UpdateAgentMessageText(s.Agent[i]))
			}
		}
	}
	if a.fault == "late replay" { // as gemini does
		ctx = context.WithoutCancel(ctx)
		go replay(replayPause / 2)
	} else {
		replay(0)
	}
	return sdk.LoadSessionResponse{ConfigOptions: fakeOptions("small"), Modes: fakeModes()}, nil
}

func (a *fakeAgent) ResumeSession(context.Context, sdk.ResumeSessionRequest) (sdk.ResumeSessionResponse, error) {
	return sdk.ResumeSessionResponse{}, sdk.NewMethodNotFound("session/resume")
}

func (a *fakeAgent) ListSessions(context.Context, sdk.ListSessionsRequest) (sdk.ListSessionsResponse, error) {
	return sdk.ListSessionsResponse{}, sdk.NewMethodNotFound("session/list")
}

func (a *fakeAgent) CloseSession(_ context.Context, q sdk.CloseSessionRequest) (sdk.CloseSessionResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fault == "half store" {
		_ = os.WriteFile(filepath.Join(a.store, "closed "+string(q.SessionId)), nil, 0o600)
	}
	if a.fault == "exclusive" {
		_ = os.Remove(filepath.Join(a.store, string(q.SessionId)+".holder"))
	}
	delete(a.sessions, string(q.SessionId))
	return sdk.CloseSessionResponse{}, nil
}

func (a *fakeAgent) SetSessionMode(_ context.Context, q sdk.SetSessionModeRequest) (sdk.SetSessionModeResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[string(q.SessionId)].mode = string(q.ModeId)
	return sdk.SetSessionModeResponse{}, nil
}

func (a *fakeAgent) SetSessionConfigOption(_ context.Context, q sdk.SetSessionConfigOptionRequest) (sdk.SetSessionConfigOptionResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[string(q.ValueId.SessionId)].model = string(q.ValueId.Value)
	return sdk.SetSessionConfigOptionResponse{ConfigOptions: fakeOptions(string(q.ValueId.Value))}, nil
}

func (a *fakeAgent) Cancel(_ context.Context, q sdk.CancelNotification) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancels++
	if s := a.sessions[string(q.SessionId)]; s != nil && s.cancel != nil {
		s.cancel()
	}
	return nil
}

func (a *fakeAgent) update(ctx context.Context, id sdk.SessionId, u sdk.SessionUpdate) error {
	return a.conn.SessionUpdate(ctx, sdk.SessionNotification{SessionId: id, Update: u})
}

func (a *fakeAgent) Prompt(ctx context.Context, q sdk.PromptRequest) (sdk.PromptResponse, error) {
	var text []string
	for _, b := range q.Prompt {
		text = append(text, b.Text.Text)
	}
	a.mu.Lock()
	s := a.sessions[string(q.SessionId)]
	if s == nil {
		a.mu.Unlock()
		return sdk.PromptResponse{}, sdk.NewInvalidParams("no such session")
	}
	var cancel context.CancelFunc
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	s.cancel = cancel
	s.User = append(s.User, strings.Join(text, "\n"))
	if a.fault != "late store" { // as Claude does
		a.save(string(q.SessionId))
	}
	a.mu.Unlock()
	t := &fakeTurn{a: a, s: s, id: q.SessionId, ctx: ctx, stop: sdk.StopReasonEndTurn, blocks: len(q.Prompt)}
	var err error
	for line := range strings.Lines(strings.Join(text, "\n")) {
		if err = t.do(strings.TrimSpace(line)); err != nil {
			break
		}
	}
	a.mu.Lock()
	s.cancel = nil
	s.Agent = append(s.Agent, t.said.String())
	a.save(string(q.SessionId))
	a.mu.Unlock()
	if ctx.Err() != nil && !t.blind {
		return sdk.PromptResponse{StopReason: sdk.StopReasonCancelled}, nil
	}
	if t.free {
		return sdk.PromptResponse{StopReason: t.stop, Meta: t.meta}, err
	}
	return sdk.PromptResponse{StopReason: t.stop, Usage: &sdk.Usage{InputTokens: 10, OutputTokens: 5, TotalTokens: 15}}, err
}
