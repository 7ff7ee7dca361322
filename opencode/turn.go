package opencode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// StartTurn implements [bgagent.TurnStarter]. It first waits until no abort request for the session
// is in flight. Another call with the same p.ID does not start a second turn, even from another
// process. StartTurn refuses an agent or model that does not exist, and a directory that no longer
// exists, because the server would accept the prompt and never run it. The error matches
// [bgagent.ErrUnreachable] if the server cannot be reached and the prompt was not sent.
//
// If the connection drops while the prompt is being sent, StartTurn waits for the server for at
// most a minute, or until ctx ends. When the server can be reached again, StartTurn checks whether
// the session has the prompt's message. If the session is idle and does not have the message, StartTurn
// sends the prompt again as the same message.
//
// If p.Unanswered is set, the server continues the turn of that prompt, and the model gets
// neither the prompt again nor p.Text. If the session no longer has the prompt, or has a
// complete answer to it, p.Text is sent like any other prompt.
func (c *Client) StartTurn(ctx context.Context, id string, p bgagent.Prompt) error {
	if !isSession(id) {
		return c.noSession()
	}
	if err := c.calmed(ctx, id); err != nil {
		return err
	}
	in, message, there, err := c.ready(ctx, id, p)
	if err != nil || there {
		return unstarted(true, err)
	}
	c.mu.Lock()
	c.drop(id) // the end of the previous turn drops its questions, but the event that reports the end can be lost
	c.mu.Unlock()
	err = c.send(ctx, id, message, p.ID, p.Text, in)
	if in.Parts == nil && isCutOff(err) {
		err = c.resolve(ctx, id, message, p, in, err)
	}
	return unstarted(false, err)
}

// ready prepares the session for a prompt and chooses the id of the prompt's message. The boolean
// result reports whether the session already has the message. ready does not start the turn.
func (c *Client) ready(ctx context.Context, id string, p bgagent.Prompt) (in wirePrompt, message string, there bool, err error) {
	dir, err := c.adopt(ctx, id, c.rules(p.Permissions))
	if err != nil {
		return in, "", false, err
	}
	in = wirePrompt{Agent: cmp.Or(p.Agent, c.cfg.Agent), System: p.System}
	model, err := c.usable(ctx, dir, in.Agent, p.Model)
	if err != nil {
		return in, "", false, err
	}
	in.setModel(model)
	if p.Unanswered != "" {
		var part *wirePromptPart
		message, part, there, err = c.unanswered(ctx, id, p.Unanswered, p.ID)
		if err != nil || there {
			return in, message, there, err
		}
		if part != nil {
			in.Parts = []wirePromptPart{*part}
			return in, message, false, nil
		}
	}
	message, there, err = c.place(ctx, id, p.ID)
	return in, message, there, err
}

func (p *wirePrompt) setModel(m *wireModel) {
	if m != nil {
		p.Model = &wirePromptModel{ProviderID: m.ProviderID, ModelID: m.ID}
	}
}

// adopt sets the permission rules of the session, marks the session as run by this client, and
// returns its directory. The server appends the rules to those that an earlier process set. If
// several rules match, the server applies the last one.
func (c *Client) adopt(ctx context.Context, id string, want []wireRule) (dir string, err error) {
	c.mu.Lock()
	s := c.session(id)
	dir = s.dir
	settled := s.ours && s.ruled && dir != "" && slices.Equal(s.rules, want)
	c.mu.Unlock()
	if settled {
		return dir, nil
	}
	w, err := c.fetch(ctx, id)
	if err != nil {
		return "", err
	}
	has := w.Permission
	if len(want) > len(has) || !slices.Equal(has[len(has)-len(want):], want) {
		body := map[string]any{"permission": want}
		if err := c.do(ctx, call{method: http.MethodPatch, path: sessionPath(id, ""), body: body, out: &w}); err != nil {
			return "", fmt.Errorf("setting the permissions of session %s: %w", id, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s = c.session(id)
	s.ours, s.rules, s.ruled = true, want, true
	return w.Directory, nil
}

// These are the numbers of messages that the client reads, beginning with the newest, to find out whether the
// session already has the message of a prompt or a notice.
const (
	newest   = 10  // for a session whose earlier messages from bgagent are known to this client
	earliest = 500 // for a session to which an earlier process might have sent messages
)

// place returns the id of the message for a prompt or a notice. The boolean result
// reports whether the session already has the message.
func (c *Client) place(ctx context.Context, id, key string) (message string, there bool, err error) {
	c.mu.Lock()
	s := c.session(id)
	for _, x := range s.sent {
		if x.key == key {
			message = x.message
		}
	}
	empty, at, depth := s.empty, stampAt(s.created)+1, earliest
	if s.searched {
		depth = newest
	}
	c.mu.Unlock()
	if message != "" {
		there, err := c.has(ctx, id, message)
		return message, there, err
	}
	if empty {
		return at.messageID(key), false, nil
	}
	read, keys := 0, 0
	isIt := func(w *wireMessage) bool { return strings.HasSuffix(w.Info.ID, tail(key)) }
	messages, _, err := c.back(ctx, id, func(w *wireMessage) bool {
		if read++; w.sentFor() != "" {
			keys++
		}
		return isIt(w) || read >= depth || keys >= maxSent
	})
	if err != nil {
		return "", false, fmt.Errorf("looking for the prompt in session %s: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s = c.session(id)
	for i := range messages {
		m := messages[i].Info.ID
		if n, ok := stampOf(m); ok {
			at = n + 1 // the last message is the newest
		}
		if k := messages[i].sentFor(); k != "" {
			s.note(sent{k, m})
		}
	}
	if len(messages) > 0 && isIt(&messages[0]) { // the search stopped at the first message, because this is the message of the prompt or notice
		message = messages[0].Info.ID
		s.note(sent{key, message})
		return message, true, nil
	}
	s.searched = true
	return at.messageID(key), false, nil
}

// The method "has" reports whether the session has the message.
func (c *Client) has(ctx context.Context, id, message string) (bool, error) {
	var m struct {
		Info struct {
			ID string `json:"id"`
		} `json:"info"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, "/message/"+url.PathEscape(message)), out: &m})
	if err == nil && m.Info.ID != message {
		err = &ServerError{URL: c.base, Status: http.StatusOK, Detail: "the answer is not the requested message", Advice: adviceNotOpencode}
	}
	if err != nil && !missing(err) {
		return false, fmt.Errorf("looking for the prompt in session %s: %w", id, err)
	}
	return err == nil, nil
}

// sentFor returns the id of a prompt or a notice if a client of this package sent the message for
// it. It returns "" for all other messages, such as copies of prompts that the server made. If the
// prompt was continued, the result is its first id.
func (m *wireMessage) sentFor() string {
	for i := range m.Parts {
		if key := m.Parts[i].promptID(); key != "" && strings.HasSuffix(m.Info.ID, tail(key)) {
			return key
		}
	}
	return ""
}

// note remembers a message that is being sent or was found in the session. It keeps the list sorted
// by message id, which is chronological order. A continued prompt has one entry for each of its
// prompt ids, all with the same message. Client.mu must be held.
func (s *session) note(x sent) {
	s.empty = false
	at, _ := slices.BinarySearchFunc(s.sent, x, func(a, b sent) int { return strings.Compare(a.message, b.message) })
	for ; at < len(s.sent) && s.sent[at].message == x.message; at++ {
		if s.sent[at].key == x.key {
			return
		}
	}
	if s.sent = slices.Insert(s.sent, at, x); len(s.sent) > maxSent {
		s.sent = slices.Delete(s.sent, 0, 1)
	}
}

// send sends a message with the given text, or with the parts of the prompt "in" if there are any. It first
// records the message, because the server's answer can be lost.
func (c *Client) send(ctx context.Context, id, message, key, text string, in wirePrompt) error {
	in.MessageID = message
	continues := in.Parts != nil
	if !continues {
		in.Parts = []wirePromptPart{{ID: partID(message), Type: "text", Text: text, Metadata: map[string]string{metadataKey: key}}}
	}
	c.mu.Lock()
	s := c.session(id)
	s.note(sent{key, message})
	if continues {
		s.over = over{} // the old value describes the turn that is continued
	}
	s.over.tries = 0
	if !in.NoReply {
		s.turn, s.cut = message, false
		s.asked = wirePrompt{MessageID: message, Agent: in.Agent, Model: in.Model, System: in.System}
		if c.stream {
			s.awaited = message
		}
	}
	c.mu.Unlock()
	err := c.do(ctx, call{method: http.MethodPost, path: sessionPath(id, "/prompt_async"), body: in})
	if err == nil {
		return nil
	}
	c.mu.Lock()
	if s := c.session(id); s.awaited == message {
		s.awaited = ""
	}
	if s := c.session(id); s.turn == message {
		s.turn, s.cut = "", false
	}
	c.mu.Unlock()
	return err
}

// NoticeIDs implements [bgagent.NoticeRecognizer]: the id of a notice is the id of its message.
func (c *Client) NoticeIDs() bool { return true }

// Notify implements [bgagent.Notifier]. The notice becomes a message of the session, for the agent
// and the model that the session last used. Notify returns [bgagent.ErrBusy] while the session is
// in a turn. It does so even with Config.SilentNotices, because during a turn the server also
// answers silent messages. Sending the same notice again is harmless.
func (c *Client) Notify(ctx context.Context, id string, n bgagent.Notice) error {
	if !isSession(id) {
		return c.noSession()
	}
	if err := c.calmed(ctx, id); err != nil {
		return err
	}
	w, err := c.fetch(ctx, id)
	if err != nil {
		return fmt.Errorf("telling session %s: %w", id, err)
	}
	message, there, err := c.place(ctx, id, n.ID)
	if err != nil || there {
		return err
	}
	got, err := c.Statuses(ctx, []string{id})
	if err != nil {
		return fmt.Errorf("telling session %s: %w", id, err)
	}
	switch got[id].State {
	case bgagent.SessionIdle:
	case bgagent.SessionGone:
		return c.noSession()
	case bgagent.SessionUnknown:
		return errors.New("telling session " + id + ": the server did not return its status")
	default:
		return fmt.Errorf("telling session %s: %w", id, bgagent.ErrBusy)
	}
	in := wirePrompt{Agent: w.Agent, NoReply: c.cfg.SilentNotices}
	in.setModel(w.Model)
	return c.send(ctx, id, message, n.ID, n.Text, in)
}
