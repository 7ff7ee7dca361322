package opencode

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/bgagent/bgagent"
)

// When the context is full, opencode compacts the session: it asks itself for a summary and then
// prompts itself, with "Continue if you have next steps" or with a copy of the prompt that did not
// fit. Therefore, whether a message is an answer depends on the messages before it.

// kind describes what a message does in its turn.
type kind uint8

const (
	kindOther      kind = iota
	kindPrompt          // a prompt from outside
	kindSelf            // a prompt by opencode that makes the agent continue
	kindJoined          // a message that joined the turn
	kindCompaction      // a request by opencode for a summary
	kindSummary         // the summary
	kindAgent           // a message from the agent
)

// facts holds the properties of a message from which a track is computed.
type facts struct {
	id, key string // id: the server's id of the message; key: the first of bgagent's ids for the prompt that the message contains or copies, if any
	last    string // the last of bgagent's ids for the prompt, if there are several
	kind    kind
	hidden  bool // opencode itself wrote all the text of the message
	said    bool // the message has text or a tool call
	whole   bool // the message is a complete answer
}

// The method "asks" reports whether the message is a prompt that someone other than opencode wrote.
func (f *facts) asks() bool { return f.kind == kindPrompt && !f.hidden }

func (w *wireMessage) facts(m *bgagent.Message) facts {
	f := facts{id: m.ID, said: len(m.Tools) > 0 || visible(m.Text)}
	if keys := w.keys(); m.Role == bgagent.RoleUser && len(keys) > 0 {
		f.key = keys[0]
		if len(keys) > 1 {
			f.last = keys[len(keys)-1]
		}
	}
	switch {
	case w.Info.Role == "user":
		if m.Role == bgagent.RoleUser {
			f.kind = kindPrompt
		}
		f.hidden = m.Role == bgagent.RoleUser
		for i := range w.Parts {
			switch p := &w.Parts[i]; {
			case p.Type == "compaction":
				f.kind = kindCompaction
			case p.continues():
				f.kind = kindSelf
			case p.joins():
				f.kind, f.hidden = kindJoined, false
			case p.Type == "text" && !p.Synthetic, p.Type == "file", p.Type == "agent", p.Type == "subtask":
				f.hidden = false
			}
		}
	case w.Info.Role == "assistant" && w.Info.Summary:
		f.kind = kindSummary
	case m.Role == bgagent.RoleAgent:
		f.kind = kindAgent
		f.whole = m.Finished && m.Stop == bgagent.StopEndOfTurn && visible(m.Text)
	}
	return f
}

// The function "visible" reports whether s contains any visible characters.
func visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// track is the state of the current turn after a given message. It is computed from the session's
// messages in order, up to and including this message.
type track struct {
	prompt, key string // the last prompt from outside: its message id, and the first of bgagent's ids for it
	last        string // the last of bgagent's ids for that prompt, if its turn was continued
	whole       bool   // the prompt has a complete answer
	after       bool   // opencode has prompted itself since the complete answer
	summed      bool   // the last message was a summary
	compacted   int    // number of compactions since the agent's last text or tool call
}

// The method "next" processes the next message. opencode's own prompts, and messages that joined the turn,
// get the role RoleOther. If opencode prompts itself after a complete answer, the agent's later messages get
// this role too.
func (t *track) next(f facts, m *bgagent.Message) {
	summed := t.summed
	t.summed = false
	copied := f.kind == kindPrompt && f.key != "" && f.key == t.key && f.id != t.prompt
	switch {
	case f.kind == kindSelf, f.kind == kindPrompt && (copied || summed && f.hidden):
		t.after = t.whole
		m.Role, m.PromptID = bgagent.RoleOther, ""
	case f.kind == kindJoined: // the agent's next message answers the joined prompt
		t.whole, t.after = false, false
		m.Role = bgagent.RoleOther
	case f.kind == kindPrompt:
		*t = track{prompt: f.id, key: f.key, last: f.last}
	case f.kind == kindCompaction:
		t.compacted++
	case f.kind == kindSummary:
		t.summed = true
		if t.whole { // a compaction after a complete answer does not change the answer, even if the compaction fails
			none(m)
		}
	case f.kind == kindAgent:
		if f.said {
			t.compacted = 0
		}
		if t.after {
			none(m)
			return
		}
		t.whole = f.whole
	}
}

// The function "none" changes a message's role and stop reason: the message then neither answers
// the prompt nor ends the turn.
func none(m *bgagent.Message) {
	m.Role, m.Stop, m.Error, m.Provider = bgagent.RoleOther, bgagent.StopUntold, "", nil
}

// The method "stuck" reports whether the turn makes no progress because the input does not fit into the
// model's context even after a compaction.
func (t *track) stuck() bool { return t.compacted >= 2 }

// String encodes the track for a cursor.
func (t track) String() string {
	flags := ""
	for _, b := range []bool{t.whole, t.after, t.summed} {
		flags += strconv.Itoa(map[bool]int{true: 1}[b])
	}
	s := url.QueryEscape(t.prompt) + "," + url.QueryEscape(t.key) + "," + flags + "," + strconv.Itoa(t.compacted)
	if t.last != "" {
		s += "," + url.QueryEscape(t.last)
	}
	return s
}

func parseTrack(s string) (t track, ok bool) {
	f := strings.Split(s, ",")
	if len(f) < 4 || len(f) > 5 || len(f[2]) != 3 || strings.Trim(f[2], "01") != "" {
		return t, false
	}
	var errs [4]error
	if len(f) == 5 {
		t.last, errs[3] = url.QueryUnescape(f[4])
	}
	t.prompt, errs[0] = url.QueryUnescape(f[0])
	t.key, errs[1] = url.QueryUnescape(f[1])
	t.compacted, errs[2] = strconv.Atoi(f[3])
	t.whole, t.after, t.summed = f[2][0] == '1', f[2][1] == '1', f[2][2] == '1'
	return t, errs == [4]error{} && t.compacted >= 0
}

// line is a converted message, together with the track after the message.
type line struct {
	bgagent.Message
	track track
}

// lines converts consecutive messages. t is the track before the first message.
func (c *Client) lines(session string, t track, list []wireMessage) []line {
	out := make([]line, len(list))
	over := c.over(session)
	for i := range list {
		m := list[i].message()
		t.next(list[i].facts(&m), &m)
		over.apply(t.prompt, &m)
		out[i] = line{m, t}
	}
	return out
}

// The type "over" describes how the last turn of a session ended, as far as this client knows.
type over struct {
	aborted string // id of the prompt message for the last turn that this client aborted
	tooLong string // id of the prompt message for the last turn whose input was too long for the model
	retried bool   // the session's last status during a turn was "retry"

	tried string // id of the prompt message for the last turn with the status "retry"
	tries int    // number of failed requests according to that status; 0 if the server has made another request since
	blind bool   // that status did not come from the stream, so the server might have made another request since
}

func (c *Client) over(session string) over {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[session]; s != nil {
		return s.over
	}
	return over{}
}

// tooLongText is the error of a turn that giveUp aborted.
const tooLongText = "opencode has compacted the session twice in a row without an answer or a tool call"

// apply corrects the stop reason of a message, and adds the number of requests to a provider error.
// prompt is the id of the message that began the turn, or empty if that is unknown.
func (o over) apply(prompt string, m *bgagent.Message) {
	if m.Provider != nil && (prompt == "" || prompt == o.tried) && o.tries > 0 && !(o.blind && m.Provider.Tries > 0) {
		m.Provider.Tries = o.tries + 1
	}
	if m.Role != bgagent.RoleAgent || m.Stop != bgagent.StopAborted && m.Stop != bgagent.StopInterrupted {
		return
	}
	switch {
	case prompt != "" && prompt == o.tooLong:
		m.Stop, m.Error = bgagent.StopTooLong, tooLongText
	case m.Stop == bgagent.StopInterrupted && (o.retried || prompt != "" && prompt == o.aborted):
		m.Stop = bgagent.StopAborted
	}
}

// giveUp aborts the turn if the turn is stuck, because the server would otherwise
// compact the session forever. giveUp does nothing if it has already aborted the turn, or if another prompt
// was sent after the turn's prompt. It reports whether it aborts the turn.
func (c *Client) giveUp(session string, t track) bool {
	if !t.stuck() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[session]
	if s == nil || !s.ours || len(s.sent) == 0 || s.sent[len(s.sent)-1].message != t.prompt || s.over.tooLong == t.prompt {
		return false
	}
	s.over.tooLong = t.prompt
	if c.tell != nil && !t.whole {
		c.tell(bgagent.HostEvent{Kind: bgagent.HostError, Session: session, Stop: bgagent.StopTooLong, Error: tooLongText})
	}
	c.spawn(func() { retry(c.life, func() error { return c.Abort(c.life, session) }) })
	return true
}

// stuckIn calls giveUp for a session if the turn is stuck after the last line.
func (c *Client) stuckIn(session string, list []line) {
	if len(list) > 0 {
		c.giveUp(session, list[len(list)-1].track)
	}
}
