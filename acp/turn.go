package acp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
	"github.com/bgagent/bgagent/internal/jsonlines"
	"github.com/bgagent/bgagent/internal/procs"
	sdk "github.com/coder/acp-go-sdk"
)

// errAborted and errOver are the cancellation causes of a turn's context. errAborted is used if the
// turn is aborted, and errOver when the turn is over.
var (
	errAborted = errors.New("the turn was aborted")
	errOver    = errors.New("the turn is over")
)

// maxTries is the maximum number of processes tried for one turn. Another process is tried only if
// the previous process ended before it got the prompt.
const maxTries = 3

// cancelAgain is the pause between two requests to cancel a turn.
const cancelAgain = 500 * time.Millisecond

// turn is a running turn of a session.
type turn struct {
	c      *Client
	s      *session
	prompt bgagent.Prompt
	ctx    context.Context // ends when the turn must stop, and when it is over
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when RunTurn returns

	heard bool          // whether the agent has sent an update or a request since the prompt
	late  chan struct{} // gets a signal when a late piece arrives, and when the wait for late pieces ends

	// reporting guards r and the questions. It is also held while r is called, because r must not
	// be used after RunTurn returns.
	reporting sync.Mutex
	r         *bgagent.Reporter
	questions []*string // questions that the host has not answered yet, oldest first
	shown     string    // question that was reported last

	requests sync.WaitGroup // counts the agent's requests that are being answered

	// Client.mu guards the fields below.
	noise     jsonlines.Noise // text printed during the turn that was not a message
	over      bool            // whether everything from the agent is ignored
	answered  bool            // whether the prompt was answered; if so, only late pieces are accepted
	broken    bool            // whether the agent has reported that it failed
	problem   string          // text that the agent sent after it reported its failure
	fault     apifault.Fault  // last provider error that the agent reported
	retries   int             // number of failed tries of the current request, according to the agent
	calls     map[string]*toolCall
	repeated  int    // number of calls that reused the id of an ended call
	kept      int    // number of bytes of the calls' paths and inputs that are kept
	described int    // number of bytes of the calls' descriptions that are kept
	refused   string // last refusal; cleared when the agent writes text
	terms     map[string]*terminal
	asides    asides
	cost      float64 // cost in US dollars that has not been reported yet
	told      float64 // cost in US dollars that has been reported

	compaction sdk.ToolCallId // id of the call that reported the last compaction; empty if there was no compaction
}

// RunTurn implements [bgagent.TurnRunner]. If the agent answers with an error, the turn fails. If
// the agent process ends, the turn is interrupted, and the error states how the process ended. If
// the session's process ended before the turn, another process loads the session. If the agent
// cannot load sessions or does not have this one, the error wraps [bgagent.ErrNoSession].
func (c *Client) RunTurn(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	t, err := c.begin(ctx, id, p, r)
	if err != nil {
		return bgagent.TurnEnd{}, err
	}
	defer c.wg.Done()
	end, err := c.play(t)
	if err != nil && end.Stop == bgagent.StopUntold {
		end.Stop = bgagent.StopError
	}
	if t.stopped() {
		end, err = bgagent.TurnEnd{Stop: bgagent.StopAborted, Text: end.Text, NoText: end.NoText, Usage: end.Usage}, nil
	}
	c.remember(t, end, err)
	c.finish(t, end, err)
	return end, err
}

// The method "begin" registers and returns a new turn. The caller must call c.wg.Done after the
// turn.
func (c *Client) begin(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (*turn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	switch {
	case c.closed:
		return nil, fmt.Errorf("acp: %w", errClosed)
	case id == "":
		return nil, noSession(id)
	case s == nil:
		// The session might come from an earlier run of the host.
		s = &session{id: id, dir: c.cfg.Dir, conv: conversation{max: c.cfg.MaxHistory}}
		c.sessions[id] = s
	case s.turn != nil:
		return nil, fmt.Errorf("acp: session %q: %w", id, bgagent.ErrBusy)
	case s.restoring:
		return nil, fmt.Errorf("acp: session %q is being restored: %w", id, bgagent.ErrBusy)
	}
	t := &turn{c: c, s: s, prompt: p, r: r, done: make(chan struct{}), late: make(chan struct{}, 1), calls: map[string]*toolCall{}, terms: map[string]*terminal{}}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	s.turn, s.by = t, p.Instance
	c.wg.Add(1)
	return t, nil
}

// The method "stopped" reports whether the turn was cancelled before it was over.
func (t *turn) stopped() bool {
	cause := context.Cause(t.ctx)
	return cause != nil && !errors.Is(cause, errOver)
}

// The method "finish" unregisters the turn. Everything that the turn started must already have
// stopped.
func (c *Client) finish(t *turn, end bgagent.TurnEnd, err error) {
	t.cancel(errOver)
	t.reporting.Lock()
	t.r = nil
	t.reporting.Unlock()
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	c.mu.Lock()
	s := t.s
	s.conv.finish(end.Stop, reason)
	s.turn = nil
	if s.proc == nil && s.lost == nil && s.conv.empty() {
		delete(c.sessions, s.id) // no agent has this session
	}
	c.mu.Unlock()
	close(t.done)
}

// The method "play" finds a process for the turn, sends the prompt, waits until the turn ends, and
// returns how it ended.
func (c *Client) play(t *turn) (bgagent.TurnEnd, error) {
	s := t.s
	agent, err := c.agent(t.prompt.Agent)
	if err != nil {
		return bgagent.TurnEnd{}, err
	}
	var p *process
	for try := 1; ; try++ {
		if p, err = c.attach(t.ctx, s, procs.Instances(c.cfg.Instance, t.prompt.Instance)); err != nil {
			return bgagent.TurnEnd{}, err
		}
		ctx, cancel := context.WithTimeoutCause(t.ctx, c.cfg.StartTimeout, errSlowStart)
		err = c.choose(ctx, p, s, agent, t.prompt.Model, t.prompt.Permissions)
		cancel()
		switch {
		case err != nil:
			return bgagent.TurnEnd{}, err
		case t.stopped():
			return bgagent.TurnEnd{Stop: bgagent.StopAborted}, nil
		}
		if c.enter(t, p) {
			break
		}
		<-p.dead
		if try == maxTries {
			return bgagent.TurnEnd{Stop: bgagent.StopInterrupted}, c.interrupted(p)
		}
	}
	answer, err := c.ask(t, p)
	c.awaitLate(t, p)
	c.settleAsides(t)
	c.quiet(t)
	noise := c.leave(t, p)
	lost := err != nil && !errors.As(err, new(*sdk.RequestError)) && p.conn.ended() != nil
	if err == nil && answer.StopReason == sdk.StopReasonCancelled && p.isEnding() {
		lost = true // a process that is being terminated can cancel its turns before it exits
	}
	if lost {
		<-p.dead
		c.mu.Lock()
		defer c.mu.Unlock()
		return bgagent.TurnEnd{Stop: bgagent.StopInterrupted, Text: t.s.conv.lastText(), Usage: bgagent.Usage{Cost: t.cost}}, c.interrupted(p)
	}
	end, err := c.endOf(t, answer, err)
	switch {
	case err == nil:
		end.Remark = noise.String()
	case noise.Any():
		err = fmt.Errorf("%w; %s", err, noise)
	}
	return end, err
}

// The method "enter" adds the turn to its process and records the prompt. If the process no longer
// works, the method does nothing and reports false.
func (c *Client) enter(t *turn, p *process) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, alive := c.all[p]; !alive || !p.usable() {
		return false
	}
	p.turns[t] = struct{}{}
	t.s.conv.add(bgagent.Message{Role: bgagent.RoleUser, PromptID: t.prompt.ID, Text: t.prompt.Text, Finished: true, Time: time.Now()})
	return true
}

// The method "leave" removes a turn from its process. It returns the text that the agent printed
// during the turn and that was not a message.
func (c *Client) leave(t *turn, p *process) jsonlines.Noise {
	c.mu.Lock()
	delete(p.turns, t)
	p.endIfUseless()
	noise := t.noise
	c.mu.Unlock()
	if noise.Any() {
		c.cfg.Logger.Warn("acp: "+noise.String(), "program", c.cfg.Command[0], "session", t.s.id)
	}
	return noise
}

// endIfUseless terminates a retired process if only turns that do not stop are left in it. The
// caller must hold Client.mu.
func (p *process) endIfUseless() {
	if p.retired && len(p.turns) == p.stuck {
		p.end(fmt.Errorf("it was terminated because it did not stop a turn within %v of the request", p.c.cfg.CancelGrace))
	}
}

// The method "retire" marks a process as retired, because it does not stop a turn. A retired
// process does not get new turns, and it is terminated once its other turns are over.
func (c *Client) retire(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.retired = true
	p.stuck++
	if c.proc[p.instance] == p {
		delete(c.proc, p.instance)
	}
	p.endIfUseless()
}

// The method "ask" sends the prompt and waits for its answer. If the turn must stop before the
// answer, the method tells the agent to cancel the turn. It does the same if the agent sends
// nothing for Config.Silence.
func (c *Client) ask(t *turn, p *process) (sdk.PromptResponse, error) {
	var answer sdk.PromptResponse
	over := make(chan error, 1)
	req := sdk.PromptRequest{SessionId: sdk.SessionId(t.s.id), Prompt: c.blocks(t)}
	t.save()
	go func() {
		over <- p.conn.callSeen(context.Background(), sdk.AgentMethodSessionPrompt, req, &answer, func(m received) { c.answered(t, m) })
	}()
	silence := time.NewTimer(c.cfg.Silence)
	defer silence.Stop()
	for waiting := true; waiting; {
		select {
		case err := <-over:
			return answer, err
		case <-t.ctx.Done():
			waiting = false
		case <-silence.C:
			waiting = c.heard(t)
		}
	}
	err := c.cancelTurn(t, p, over)
	if !t.stopped() && !c.heard(t) {
		err = fmt.Errorf("it sent nothing for %v (Config.Silence), so the turn was cancelled", c.cfg.Silence)
	}
	return answer, err
}

// The method "heard" reports whether the agent has sent an update or a request since the prompt.
func (c *Client) heard(t *turn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.heard
}

// cancelTurn tells the agent to cancel the turn and waits until the prompt is answered. The channel
// "over" receives the result of the prompt.
func (c *Client) cancelTurn(t *turn, p *process, over <-chan error) error {
	// The cancellation is repeated, because an agent ignores a cancellation that it reads before it
	// begins to work on the prompt.
	again := time.NewTicker(cancelAgain)
	defer again.Stop()
	timer := time.NewTimer(c.cfg.CancelGrace)
	defer timer.Stop()
	for told := false; ; told = true {
		if err := p.conn.notify(sdk.AgentMethodSessionCancel, sdk.CancelNotification{SessionId: sdk.SessionId(t.s.id)}); err != nil && !told {
			c.cfg.Logger.Warn("acp: the request to stop a turn could not be sent to the agent", "session", t.s.id, "error", err)
		}
		select {
		case err := <-over:
			return err
		case <-again.C:
			continue
		case <-timer.C:
		}
		break
	}
	c.cfg.Logger.Warn("acp: the agent does not stop a turn", "session", t.s.id, "task", t.prompt.Task)
	c.retire(p)
	err := <-over // waits for a late answer or the end of the process
	c.mu.Lock()
	defer c.mu.Unlock()
	p.stuck--
	p.endIfUseless()
	return err
}

// The method "blocks" returns the content of the prompt. The protocol has no system text. Therefore
// the method puts the system text in front of the prompt, unless the agent already has this text.
// Both texts are in one block, because some agents search the last block for a command.
func (c *Client) blocks(t *turn) []sdk.ContentBlock {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := t.prompt.Text
	if t.prompt.System != "" && t.prompt.System != t.s.system {
		t.s.system = t.prompt.System
		text = t.prompt.System + "\n\n" + text
	}
	if isCommand(text) {
		text = lead + text
	}
	if t.prompt.Instance != "" {
		t.s.memory.sends(t.prompt.ID, text)
	}
	return []sdk.ContentBlock{sdk.TextBlock(text)}
}

// lead is put in front of a prompt that the agent would otherwise treat as a command to the agent.
// An agent answers a command without calling the model, or not at all.
const lead = "The task:\n\n"

// isCommand reports whether agents treat a prompt as a command. In the protocol, commands
// begin with a slash. In gemini they can also begin with a dollar sign. White space in front of the
// command is ignored. U+FEFF is treated as white space, as in JavaScript.
func isCommand(text string) bool {
	text = strings.TrimLeftFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
	return strings.HasPrefix(text, "/") || strings.HasPrefix(text, "$")
}

// The method "quiet" terminates the commands in the turn's terminals and waits until the agent's
// requests have been answered. Further requests are refused.
func (c *Client) quiet(t *turn) {
	if !t.stopped() {
		t.cancel(errOver)
	}
	c.mu.Lock()
	t.over = true
	terms := t.terms
	t.terms = nil
	c.mu.Unlock()
	for _, term := range terms {
		term.end()
	}
	t.requests.Wait()
	c.settle(t)
}

// The method "interrupted" returns the error of a turn whose process has ended.
func (c *Client) interrupted(p *process) error {
	return fmt.Errorf("acp: the agent %s broke off the turn: %w", c.program(), p.why)
}

// Abort implements [bgagent.SessionClient]. It tells the agent to cancel the session's turn, and
// returns when the turn is over. If ctx ends first, Abort returns an error that wraps the cause of
// ctx.
func (c *Client) Abort(ctx context.Context, id string) error {
	c.mu.Lock()
	var t *turn
	if s := c.sessions[id]; s != nil {
		t = s.turn
	}
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	t.cancel(errAborted)
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("acp: session %q has not stopped yet: %w", id, context.Cause(ctx))
	}
}
