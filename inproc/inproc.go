// Package inproc runs agents that are Go functions. It is for programs that define their own
// agents, and it is the quickest way to try the library.
//
//	client := inproc.New(map[string]inproc.Agent{
//		"echo": func(ctx context.Context, t *inproc.Turn) (string, error) {
//			return "You said: " + t.Prompt.Text, nil
//		},
//	})
//	m, err := bgagent.New(client, bgagent.Config{})
//
// A session is the conversation of one task. It keeps the prompts and answers of its
// turns, so that a later turn can use them. The client forgets a session when the manager
// no longer needs it.
//
// A session ends when the process ends. If the manager has a store and the process ends during a
// turn, the next process ends the attempt as interrupted. If [Client.Restore] is set, the next
// process can continue the attempt instead. If an agent's turns can be repeated, this function is
// enough:
//
//	client.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
//		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
//	}
//
// If an agent must continue a turn where it stopped, it can store its progress with
// [Turn.SaveState] and read it with [Turn.Saved].
package inproc

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/bgagent/bgagent"
	"github.com/google/uuid"
)

// Agent is a function that works on one turn and returns the turn's answer. If ctx ends, the
// function must return soon and must not leave goroutines or processes running. ctx contains the
// agent's session as the [bgagent.Caller], so that the agent can call the three tools of bgagent
// with ctx.
//
// If a request to its model provider failed, the agent can return a [*bgagent.ProviderError]. If it is safe
// to repeat the turn, set the field Next to [bgagent.NextRepeat]: the manager then calls the agent again
// later with the same prompt. [bgagent.NextContinue] is suitable for an agent that keeps its own history.
type Agent func(ctx context.Context, t *Turn) (string, error)

// Client is a session client for agents that are Go functions. Its methods are safe for
// concurrent use.
type Client struct {
	// Restore returns the state of a session from an earlier process and the state of its last
	// prompt. r.Saved contains the data that the agent last stored with [Turn.SaveState]. Restore
	// must not run the agent.
	//
	// If the session does not exist, Restore must return an error that matches
	// [bgagent.ErrNoSession]. If something that the earlier process started is still running,
	// Restore must return an error that matches [bgagent.ErrBusy]; the manager then retries later.
	// Restore must be safe for concurrent use. Set it before you pass the client to [bgagent.New].
	Restore func(ctx context.Context, r bgagent.SessionRestore) (Restored, error)

	agents map[string]Agent
	names  []string

	mu       sync.Mutex
	ids      *bufio.Reader
	sessions map[string]*session
}

var (
	_ bgagent.TurnRunner       = (*Client)(nil)
	_ bgagent.MessageReader    = (*Client)(nil)
	_ bgagent.SessionFinder    = (*Client)(nil)
	_ bgagent.AgentLister      = (*Client)(nil)
	_ bgagent.SessionForgetter = (*Client)(nil)
	_ bgagent.SessionRestorer  = (*Client)(nil)
	_ bgagent.Steerer          = (*Client)(nil)
)

// Fallback is a name in the map for [New]. The agent with this name runs if no other agent
// has the requested name.
const Fallback = "*"

// New returns a client that runs the given agents by name. It copies the map. New panics if
// an agent is nil or if the map is empty.
func New(agents map[string]Agent) *Client {
	c := &Client{agents: make(map[string]Agent, len(agents)), ids: bufio.NewReaderSize(rand.Reader, 1024), sessions: map[string]*session{}}
	for name, a := range agents {
		if a == nil {
			panic("inproc: the agent " + strconv.Quote(name) + " is nil")
		}
		c.agents[name] = a
		if name != Fallback {
			c.names = append(c.names, name)
		}
	}
	if len(c.agents) == 0 {
		panic("inproc: New needs at least one agent")
	}
	slices.Sort(c.names)
	return c
}

// session is one conversation. The type is small because a program can have many finished
// sessions, most of which have one turn and no tool call.
type session struct {
	agent  Agent
	title  string
	dir    string
	up     string
	prompt string             // prompt of the first turn
	answer string             // answer of the first turn
	turns  int32              // number of finished turns
	stop   bgagent.StopReason // stop reason of the first turn
	more   *more              // data that most sessions do not need; nil if the session has none of it
	run    *Turn              // running turn; nil if no turn is running
}

// The type "more" holds data that most conversations do not need.
type more struct {
	tools []bgagent.MessageTool // tool calls of the first turn
	turns []exchange            // all turns after the first turn

	prompt string // id of the last prompt whose turn has ended; empty if the manager has no store
	broke  bool   // whether the last ended turn was stopped
	saved  []byte // argument of the last call to SaveState

	restored bool // whether RestoreSession added the session
}

// exchange is a finished turn.
type exchange struct {
	prompt string
	answer string
	tools  []bgagent.MessageTool
	stop   bgagent.StopReason
}

func (s *session) exchange(i int) exchange {
	if i > 0 {
		return s.more.turns[i-1]
	}
	x := exchange{prompt: s.prompt, answer: s.answer, stop: s.stop}
	if s.more != nil {
		x.tools = s.more.tools
	}
	return x
}

// The method "extra" returns s.more, and sets it first if it is nil.
func (s *session) extra() *more {
	if s.more == nil {
		s.more = &more{}
	}
	return s.more
}

func (s *session) add(x exchange) {
	if s.turns > 0 {
		more := s.extra()
		more.turns = append(more.turns, x)
	} else if s.prompt, s.answer, s.stop = x.prompt, x.answer, x.stop; len(x.tools) > 0 {
		s.extra().tools = x.tools
	}
	s.turns++
}

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newIDLocked returns a new session id, which encodes 80 random bits of a version 4 UUID.
func (c *Client) newIDLocked() (string, error) {
	u, err := uuid.NewRandomFromReader(c.ids)
	if err != nil {
		return "", err
	}
	raw := [10]byte{u[0], u[1], u[2], u[3], u[4], u[5], u[7], u[9], u[10], u[11]}
	buf := [20]byte{'s', 'e', 's', '_'}
	idEncoding.Encode(buf[4:], raw[:])
	return string(buf[:]), nil
}

// CreateSession implements [bgagent.SessionClient].
func (c *Client) CreateSession(_ context.Context, s bgagent.SessionSpec) (string, error) {
	agent, err := c.agent(s.Agent)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id, err := c.newIDLocked()
	if err != nil {
		return "", fmt.Errorf("inproc: creating a session id: %w", err)
	}
	c.sessions[id] = &session{agent: agent, title: s.Title, dir: s.Directory, up: s.Parent}
	return id, nil
}

func (c *Client) agent(name string) (Agent, error) {
	if a := c.agents[name]; a != nil {
		return a, nil
	}
	if a := c.agents[Fallback]; a != nil {
		return a, nil
	}
	return nil, &bgagent.NoSuchAgentError{Agent: name, Known: slices.Clone(c.names)}
}

// RunTurn implements [bgagent.TurnRunner]. It returns the agent's error unchanged. If the agent called
// [Turn.Stop] or the turn was aborted, it returns no error.
func (c *Client) RunTurn(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	c.mu.Lock()
	s := c.sessions[id]
	switch {
	case s == nil:
		c.mu.Unlock()
		return bgagent.TurnEnd{}, fmt.Errorf("inproc: session %q: %w", id, bgagent.ErrNoSession)
	case s.run != nil:
		c.mu.Unlock()
		return bgagent.TurnEnd{}, fmt.Errorf("inproc: session %q: %w", id, bgagent.ErrBusy)
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(outer)
	t := &Turn{Prompt: p, c: c, s: s, id: id, r: r, cancel: cancel, over: ctx.Done()}
	s.run = t
	c.mu.Unlock()

	var answer string
	var err error
	returned := false
	defer func() { // this also runs if the agent panics or exits its goroutine
		cancel(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		s.run = nil
		if refusal := (*bgagent.ProviderError)(nil); errors.As(err, &refusal) && refusal.Next == bgagent.NextRepeat {
			return // the turn leaves no trace in the session
		}
		x := exchange{prompt: p.Text, answer: answer, tools: t.tools, stop: bgagent.StopEndOfTurn}
		if x.answer == "" {
			x.answer = t.text
		}
		switch {
		case t.stop != bgagent.StopUntold:
			x.stop = t.stop
		case t.aborted:
			x.stop = bgagent.StopAborted
		case err != nil || !returned:
			x.stop = bgagent.StopError
		}
		s.add(x)
		if p.Instance != "" {
			s.extra().prompt = p.ID
			s.more.broke = x.stop == bgagent.StopAborted || x.stop == bgagent.StopError && outer.Err() != nil
		}
	}()
	answer, err = s.agent(bgagent.WithCaller(ctx, bgagent.Caller{Session: id}), t)
	returned = true
	switch stop, aborted, used := t.how(); {
	case stop != bgagent.StopUntold:
		return bgagent.TurnEnd{Stop: stop, Text: answer, Usage: used}, nil
	case aborted:
		return bgagent.TurnEnd{Stop: bgagent.StopAborted, Text: answer, Usage: used}, nil
	case err != nil:
		return bgagent.TurnEnd{Text: answer, Usage: used}, err
	default:
		return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: answer, Usage: used}, nil
	}
}

// errAborted is the cause that Abort gives when it cancels a turn's context.
var errAborted = errors.New("inproc: the turn was aborted")

// Abort implements [bgagent.SessionClient]. If the session has a running turn, Abort cancels the
// turn's context.
func (c *Client) Abort(_ context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.run != nil {
		s.run.aborted = true
		s.run.cancel(errAborted)
	}
	return nil
}

// Agents implements [bgagent.AgentLister].
func (c *Client) Agents(context.Context) ([]bgagent.AgentInfo, error) {
	list := make([]bgagent.AgentInfo, len(c.names))
	for i, name := range c.names {
		list[i].Name = name
	}
	return list, nil
}

// FindSession implements [bgagent.SessionFinder].
func (c *Client) FindSession(_ context.Context, id string) (bgagent.SessionInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		return bgagent.SessionInfo{Parent: s.up, Directory: s.dir}, nil
	}
	return bgagent.SessionInfo{}, fmt.Errorf("inproc: session %q: %w", id, bgagent.ErrNoSession)
}

// ForgetSession implements [bgagent.SessionForgetter].
func (c *Client) ForgetSession(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.run == nil {
		delete(c.sessions, id)
	}
}

// Messages implements [bgagent.MessageReader]. Each turn has two messages: the prompt and the
// answer. The answer of a running turn contains the text that was written so far. It is missing if
// there is neither text nor a tool call yet.
func (c *Client) Messages(_ context.Context, id string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	from := 0
	if after != "" {
		var err error
		if from, err = strconv.Atoi(string(after)); err != nil || from < 0 {
			return bgagent.Page{}, fmt.Errorf("inproc: session %q: the cursor %q does not come from this client", id, after)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil {
		return bgagent.Page{}, fmt.Errorf("inproc: session %q: %w", id, bgagent.ErrNoSession)
	}
	all := s.messagesLocked(from)
	page := bgagent.Page{Messages: all}
	if max > 0 && len(all) > max {
		page.Messages, page.More = all[:max], true
	}
	next := from
	for _, msg := range page.Messages {
		if msg.Finished { // the next call returns unfinished messages again
			next++
		}
	}
	page.Next = bgagent.Cursor(strconv.Itoa(next))
	return page, nil
}

// messagesLocked returns the messages from the given index onwards.
func (s *session) messagesLocked(from int) (out []bgagent.Message) {
	turns := int(s.turns)
	for i := from / 2; i < turns; i++ {
		x := s.exchange(i)
		if 2*i >= from {
			out = append(out, prompted(i, x.prompt))
		}
		msg := bgagent.Message{ID: messageID(2*i + 1), Role: bgagent.RoleAgent, Text: x.answer, Tools: x.tools, Finished: true, Stop: x.stop}
		out = append(out, msg)
	}
	if t := s.run; t != nil {
		if 2*turns >= from {
			out = append(out, prompted(turns, t.Prompt.Text))
		}
		if 2*turns+1 >= from && (t.text != "" || len(t.tools) > 0) {
			out = append(out, bgagent.Message{ID: messageID(2*turns + 1), Role: bgagent.RoleAgent, Text: t.text, Tools: slices.Clone(t.tools)})
		}
	}
	return out
}

func prompted(turn int, text string) bgagent.Message {
	return bgagent.Message{ID: messageID(2 * turn), Role: bgagent.RoleUser, Text: text, Finished: true}
}

func messageID(i int) string { return "msg_" + strconv.Itoa(i+1) }
