package opencode

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/bgagent/bgagent"
)

// A context that is full is compacted: opencode asks itself for a summary, and
// then prompts itself, with "Continue if you have next steps" or with a copy of
// the prompt that did not fit. Which messages answer can therefore only be told
// from those before them.

// kind is what a message is in its turn.
type kind uint8

const (
	kindOther      kind = iota
	kindPrompt          // somebody asks
	kindSelf            // opencode asks itself to go on
	kindCompaction      // opencode asks itself for a summary
	kindSummary         // the summary
	kindAgent           // the agent's
)

// facts is what a track has to know of a message.
type facts struct {
	id, key string // key: the id of the prompt that it was sent for, or of which it is a copy
	kind    kind
	hidden  bool // all of its text is opencode's own
	said    bool // it has text, or a tool call
	whole   bool // it is an answer, and nothing is missing
}

// asks reports whether the message is a prompt that opencode has not made itself.
func (f *facts) asks() bool { return f.kind == kindPrompt && !f.hidden }

func (w *wireMessage) facts(m *bgagent.Message) facts {
	f := facts{id: m.ID, key: m.PromptID, said: len(m.Tools) > 0 || visible(m.Text)}
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

// visible reports whether a text has anything that can be seen.
func visible(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// track follows the messages of a session in their order.
type track struct {
	prompt, key string // the last prompt that was not opencode's own: its message, and the id it was sent for
	whole       bool   // it has been answered
	after       bool   // and what comes now follows that answer
	summed      bool   // a summary came last
	compacted   int    // compactions in a row, without a text or a tool call of the agent
}

// next takes the next message. It makes those that do not answer, and are not
// asked by anybody, messages of nobody.
func (t *track) next(f facts, m *bgagent.Message) {
	summed := t.summed
	t.summed = false
	copied := f.kind == kindPrompt && f.key != "" && f.key == t.key && f.id != t.prompt
	switch {
	case f.kind == kindSelf, f.kind == kindPrompt && (copied || summed && f.hidden):
		t.after = t.whole
		m.Role, m.PromptID = bgagent.RoleOther, ""
	case f.kind == kindPrompt:
		*t = track{prompt: f.id, key: f.key}
	case f.kind == kindCompaction:
		t.compacted++
	case f.kind == kindSummary:
		t.summed = true
	case f.kind == kindAgent:
		if f.said {
			t.compacted = 0
		}
		if t.after {
			m.Role, m.Stop, m.Error = bgagent.RoleOther, bgagent.StopUntold, ""
			return
		}
		t.whole = f.whole
	}
}

// stuck reports whether the turn gets nowhere: what it is about does not fit
// into the model's context, compacted or not.
func (t *track) stuck() bool { return t.compacted >= 2 }

// String returns the track for a cursor.
func (t track) String() string {
	flags := ""
	for _, b := range []bool{t.whole, t.after, t.summed} {
		flags += strconv.Itoa(map[bool]int{true: 1}[b])
	}
	return url.QueryEscape(t.prompt) + "," + url.QueryEscape(t.key) + "," + flags + "," + strconv.Itoa(t.compacted)
}

func parseTrack(s string) (t track, ok bool) {
	f := strings.Split(s, ",")
	if len(f) != 4 || len(f[2]) != 3 || strings.Trim(f[2], "01") != "" {
		return t, false
	}
	var errs [3]error
	t.prompt, errs[0] = url.QueryUnescape(f[0])
	t.key, errs[1] = url.QueryUnescape(f[1])
	t.compacted, errs[2] = strconv.Atoi(f[3])
	t.whole, t.after, t.summed = f[2][0] == '1', f[2][1] == '1', f[2][2] == '1'
	return t, errs == [3]error{} && t.compacted >= 0
}

// line is a message as the port makes it of what the server tells, and what is
// known of its turn with it.
type line struct {
	bgagent.Message
	track track
}

// lines makes lines of messages that follow each other, after the given track.
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

// over is what this client knows of how the last turn of a session ended.
type over struct {
	aborted string // the message of the prompt whose turn it has aborted
	tooLong string // the same, where what was asked did not fit into the model's context
	retried bool   // the session has last told that it waits to try the model again
}

func (c *Client) over(session string) over {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[session]; s != nil {
		return s.over
	}
	return over{}
}

// tooLongText is the reason of a turn that this client has ended.
const tooLongText = "the input is too long for the model: opencode has compacted the session twice in a row without an answer or a tool call"

// apply corrects the end of a message of the turn.
func (o over) apply(prompt string, m *bgagent.Message) {
	if m.Role != bgagent.RoleAgent || m.Stop != bgagent.StopAborted && m.Stop != bgagent.StopInterrupted {
		return
	}
	switch {
	case prompt != "" && prompt == o.tooLong:
		m.Stop, m.Error = bgagent.StopError, tooLongText
	case m.Stop == bgagent.StopInterrupted && (o.retried || prompt != "" && prompt == o.aborted):
		m.Stop = bgagent.StopAborted
	}
}

// giveUp ends a turn that gets nowhere: left alone the server would compact for
// ever. It does so once, and only for the prompt that was sent last. It reports
// whether it has.
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
		c.tell(bgagent.HostEvent{Kind: bgagent.HostError, Session: session, Stop: bgagent.StopError, Error: tooLongText})
	}
	c.spawn(func() { retry(c.life, func() error { return c.Abort(c.life, session) }) })
	return true
}

// stuckIn gives up a turn of which the last of these lines says that it is stuck.
func (c *Client) stuckIn(session string, list []line) {
	if len(list) > 0 {
		c.giveUp(session, list[len(list)-1].track)
	}
}
