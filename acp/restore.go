package acp

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
	sdk "github.com/coder/acp-go-sdk"
)

var (
	_ bgagent.SessionRestorer = (*Client)(nil)
	_ bgagent.SessionHome     = (*Client)(nil)
)

// Home implements [bgagent.SessionHome]. Agents keep their sessions in the user's files. Home
// therefore returns the user's id and the name of the machine, in the form UID@HOST. It returns ""
// if the name of the machine is unknown.
func (c *Client) Home() string { return procs.Home() }

// RestoreSession implements [bgagent.SessionRestorer]. First it kills the processes that the
// earlier host left running. Then it starts the agent and makes it load the session. The agent
// replays the session, and the replay shows whether the session has the last prompt. The prompt is
// treated as answered only if the earlier client saw the end of its turn, because the replay of a
// turn that was cut off can look like the replay of a complete turn. If codex's replay lacks the
// prompt and the session has no earlier prompt, the session is treated as lost. If the session has
// an earlier prompt, the state is unknown.
//
// If a process cannot be terminated or the session is open in another process, the error matches
// [bgagent.ErrBusy]. If the agent cannot be started or does not answer, the error matches
// [bgagent.ErrUnreachable]. If the agent does not have the session, the error matches
// [bgagent.ErrNoSession]. If the agent cannot load the session for another reason, the error matches
// [bgagent.ErrUnreadable].
//
// RestoreSession works only on Linux. On other systems the client cannot find the processes, so
// RestoreSession returns an error.
func (c *Client) RestoreSession(ctx context.Context, in bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	if err := c.endLeft(ctx, in); err != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, err
	}
	if in.Session == "" { // no prompt was sent
		return bgagent.PromptMissing, bgagent.TurnEnd{}, nil
	}
	s, err := c.adopt(in)
	if err != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, err
	}
	state, end, err := c.restore(ctx, s, in)
	c.mu.Lock()
	defer c.mu.Unlock()
	s.restoring, s.replay = false, nil
	known := s.memory.Now.Prompt == in.Last.ID
	switch {
	case errors.Is(err, bgagent.ErrNoSession):
		c.drop(s)
	case err != nil && ctx.Err() == nil && !errors.Is(err, bgagent.ErrBusy) && !errors.Is(err, bgagent.ErrUnreachable):
		err = unreadable{err}
	case err != nil:
	case state == bgagent.PromptMissing && known:
		s.memory.unsent()
	case state == bgagent.PromptInterrupted && !known:
		s.memory.sends(in.Last.ID, in.Last.Text)
	}
	return state, end, err
}

// unreadable is the error of RestoreSession if the agent cannot load the session. It matches
// [bgagent.ErrUnreadable], because nothing is running in the session.
type unreadable struct{ error }

func (e unreadable) Unwrap() []error { return []error{e.error, bgagent.ErrUnreadable} }

// endLeft kills the processes that the earlier host left running.
func (c *Client) endLeft(ctx context.Context, in bgagent.SessionRestore) error {
	id := in.Instance
	if id == "" || id == c.cfg.Instance || id == in.Spec.Instance {
		if in.Last.ID != "" {
			return errors.New("acp: the processes of the earlier host cannot be distinguished from those of this host; give every run of the host another Config.Instance")
		}
		return nil
	}
	var own []*process // processes of an earlier manager in this host
	c.mu.Lock()
	for p := range c.all {
		if slices.Contains(strings.Split(p.instance, "/"), id) {
			own = append(own, p)
		}
	}
	c.mu.Unlock()
	for _, p := range own {
		p.end(errEarlierManager)
		select {
		case <-p.dead:
		case <-ctx.Done():
			return fmt.Errorf("acp: %w: %w", bgagent.ErrBusy, context.Cause(ctx))
		}
	}
	err := c.left.End(ctx, id, c.cfg.Instance, in.Spec.Instance)
	switch {
	case errors.Is(err, procs.ErrLeft):
		return fmt.Errorf("acp: %w: %w", bgagent.ErrBusy, err)
	case err != nil:
		return fmt.Errorf("acp: %w", err)
	}
	return nil
}

// The method "adopt" returns the session for RestoreSession. If the client does not know the
// session, or if a manager of another process has used the session since this client last used it,
// the method creates it from the saved state.
func (c *Client) adopt(in bgagent.SessionRestore) (*session, error) {
	m, err := recall(in.Saved)
	if err != nil {
		return nil, err
	}
	dir, err := c.directory(in.Spec.Directory)
	if m.Directory != "" {
		dir, err = m.Directory, nil
	}
	mcp := c.mcpServers(in.Spec)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[in.Session]
	switch {
	case c.closed:
		return nil, fmt.Errorf("acp: %w", errClosed)
	case s != nil && (s.restoring || s.turn != nil):
		return nil, fmt.Errorf("acp: session %q: %w", in.Session, bgagent.ErrBusy)
	case s != nil && (in.Instance == "" || in.Instance == s.by || len(in.Saved) == 0):
		// What the client knows is not older than the saved state.
	case err != nil:
		return nil, err
	default:
		old := s
		s = &session{id: in.Session, by: in.Spec.Instance, parent: in.Spec.Parent, dir: dir, place: dir, conv: conversation{max: c.cfg.MaxHistory}}
		s.memory, s.cost, s.made = m, m.Cost, m.Made
		s.opts.mode.own, s.opts.model.own = m.Mode, m.Model
		if s.made.IsZero() { // the session was created at an unknown time, but not later than now
			s.made = time.Now()
		}
		if old != nil {
			s.proc, s.lost = old.proc, old.lost // the old process must close the session before another process loads it
		}
		c.sessions[s.id] = s
	}
	s.restoring, s.mcp = true, mcp
	return s, nil
}

// The method "restore" loads the session and returns the state of the last prompt in it.
func (c *Client) restore(ctx context.Context, s *session, in bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	var now progress // what the earlier client had seen of the last prompt's turn
	if s.memory.Now.Prompt == in.Last.ID {
		now = s.memory.Now
	}
	if end, over := now.turnEnd(); over && in.Last.ID != "" {
		return bgagent.PromptAnswered, end, nil // the session will be loaded for its next prompt
	}
	err := c.reload(ctx, s, in)
	switch {
	case errors.Is(err, bgagent.ErrNoSession) && now.Called:
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, fmt.Errorf("acp: the session is lost, and the agent had begun to work on its last prompt: %s", err) // a new session must not repeat the work
	case errors.Is(err, bgagent.ErrNoSession):
		return bgagent.PromptMissing, bgagent.TurnEnd{}, err
	case err != nil:
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, err
	case in.Last.ID == "":
		return bgagent.PromptMissing, bgagent.TurnEnd{}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := s.replay
	state := r.judge(&s.memory, in.Last)
	if state == bgagent.PromptMissing && c.runs("codex") {
		return notProven(s, r, now)
	}
	if text, whole := r.answered(); state == bgagent.PromptInterrupted && now.Answered && whole {
		return bgagent.PromptAnswered, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: text}, nil
	}
	return state, bgagent.TurnEnd{}, nil
}

// notProven returns the state of the last prompt in a codex session if the replay lacks the prompt.
// This does not prove that the session lacks the prompt: codex first stores the message for the
// model, and then the item that it replays. If codex was killed between these two steps and the
// prompt is sent again, the model gets the prompt twice. Therefore, the prompt must not be sent into
// the session again. If the session has no earlier prompts, it is treated as lost, and the prompt is
// sent into a new session.
func notProven(s *session, r *replay, now progress) (bgagent.PromptState, bgagent.TurnEnd, error) {
	if len(r.runs) > 0 || now.Called {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, nil
	}
	return bgagent.PromptMissing, bgagent.TurnEnd{}, fmt.Errorf("acp: session %q was not stored completely, and might have a part of its first prompt: %w", s.id, bgagent.ErrNoSession)
}

// The method "reload" makes an agent process of this host load the session.
func (c *Client) reload(ctx context.Context, s *session, in bgagent.SessionRestore) error {
	if err := isDirectory(s.dir); err != nil {
		return fmt.Errorf("acp: session %q: %w", s.id, err)
	}
	p, err := c.ready(ctx, procs.Instances(c.cfg.Instance, in.Spec.Instance))
	if err != nil {
		return c.unreachable(ctx, err)
	}
	if !p.init.AgentCapabilities.LoadSession {
		if in.Last.ID != "" {
			return fmt.Errorf("acp: session %q: the agent %s cannot load sessions, so the outcome of the last prompt is not known", s.id, c.program())
		}
		return noSession(s.id)
	}
	servers, err := p.mcpServers(s.mcp)
	if err != nil {
		return err
	}
	if wait, late := c.minuteLeft(s), time.Now(); wait > 0 {
		if end, ok := ctx.Deadline(); ok && end.Before(late.Add(wait)) {
			return fmt.Errorf("acp: session %q: the agent %s cannot load it before %s: %w", s.id, c.program(), late.Add(wait).Format(time.TimeOnly), bgagent.ErrUnreachable)
		}
	}
	c.mu.Lock()
	s.replay = &replay{}
	c.mu.Unlock()
	switch err = c.load(ctx, p, s, servers); {
	case err == nil, errors.Is(err, bgagent.ErrBusy), errors.Is(err, bgagent.ErrNoSession):
		return err
	}
	return c.unreachable(ctx, err)
}

// The method "unreachable" wraps [bgagent.ErrUnreachable] into an error. It returns the error
// unchanged in three cases: ctx has ended, the client was closed, or the agent answered with an
// error, such as one about missing authentication.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, errClosed) || errors.As(err, new(*sdk.RequestError)) {
		return err
	}
	return fmt.Errorf("%w: %w", err, bgagent.ErrUnreachable)
}

// notLoaded returns the error for an agent's answer that it cannot load the session. The error
// matches ErrBusy if the session is open in another process, and ErrNoSession if the agent does not
// have the session. If the answer can have another reason, for example that one of the agent's
// files is missing, the error matches neither.
func (c *Client) notLoaded(s *session, re *sdk.RequestError) error {
	err := fmt.Errorf("acp: the agent %s cannot load session %q: %w", c.program(), s.id, &agentError{re})
	text := innerMessage(re.Message) + "; " + detail(re.Data)
	switch {
	case inUse.MatchString(text):
		return fmt.Errorf("%w: %w", err, bgagent.ErrBusy)
	case re.Code == codeNotFound && !otherThing.MatchString(text), isUnknownSession(text, s.id):
		return fmt.Errorf("%w: %w", err, bgagent.ErrNoSession)
	}
	return err
}

// inUse matches the error that an agent returns if the session is open in another process.
var inUse = regexp.MustCompile(`(?i)\bin use\b|\bactive writer\b|\balready (open|loaded|running)\b|\blocked\b`)

// isUnknownSession reports whether the text states that the session with the given id does not
// exist.
func isUnknownSession(text, id string) bool {
	if id != "" {
		text = strings.ReplaceAll(text, id, "")
	}
	for _, m := range unknownSession.FindAllStringSubmatch(text, -1) {
		if !otherSession.MatchString(m[1]) {
			return true
		}
	}
	return false
}

// unknownSession matches a sentence about a session that does not exist. The session's id must be
// removed from the sentence first. The first group contains the text before the words about the
// session. otherSession matches the end of this group if the sentence is about another kind of
// session, such as a login session. otherThing matches an error about something other than a
// session.
var (
	unknownSession = regexp.MustCompile(`(?i)([^.;\n]*?)\b(?:` + strings.Join([]string{
		aSession + `(?:(?:was|is|could) )?not (?:be )?found\b`,
		aSession + `(?:does not|doesn't) exist\b`,
		`no (?:such |previous |saved |matching )` + aSession + `(?:here|(?:for|in) this\b|$|[.;\n]|` + areFound + `)`,
		`no ` + aSession + areFound,
		`(?:unknown|invalid|nonexistent) ` + aSession + `(?:$|[.;\n])`,
		`(?:cannot|can't|could not|couldn't|unable to|failed to) find (?:the |a |any )?` + aSession + `(?:$|[.;\n])`,
	}, "|") + `)`)
	otherSession = regexp.MustCompile(`(?i)\b(?:mcp|pty|terminal|shell|browser|tmux|ssh|https?|login|auth\w*|oauth|web|worker|debug|server|client|of|for|in|to|from|by|with)(?: the| this)?\W*$`)
	otherThing   = regexp.MustCompile(`(?i)\b(?:files?|director(?:y|ies)|folders?|paths?|models?|servers?|executables?|commands?|binary|binaries|programs?|tools?|modules?|packages?|credentials?|keys?|tokens?)\b`)
)

// aSession is a pattern for the word "session" or a similar word. It includes the punctuation that
// remains when an id is removed. areFound is a pattern for words that follow "no session".
const (
	aSession = `(?:sessions?|conversations?|rollouts?|threads?)(?:[ _-](?:id|identifier|uuid))?` + aroundID + `(?:with (?:the )?(?:id|identifier|uuid)` + aroundID + `)?`
	areFound = `(?:(?:was|were|is|are) )?(?:found|exists?|with|matching|named)\b`
	aroundID = "[ :\"'()`,=]*"
)
