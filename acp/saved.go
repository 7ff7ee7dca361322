package acp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// memory is the state that a client needs to continue a session from an earlier host. During every
// turn, the client passes this state to the manager as JSON.
type memory struct {
	Version   int       `json:"v"`
	Directory string    `json:"directory"`
	Made      time.Time `json:"made"`            // session.made
	Cost      float64   `json:"cost,omitempty"`  // session.cost
	Mode      string    `json:"mode,omitempty"`  // mode that the agent itself chose
	Model     string    `json:"model,omitempty"` // model that the agent itself chose

	Sent   []string `json:"sent,omitempty"`   // hashes of the prompts that the agent got, oldest first; a message that joined a turn precedes the prompt of that turn
	Cut    bool     `json:"cut,omitempty"`    // whether the oldest entries of Sent are missing
	Joined []string `json:"joined,omitempty"` // hashes of the messages that joined the last prompt's turn
	Before []string `json:"before,omitempty"` // hashes of the messages that joined the previous turn
	Now    progress `json:"now,omitzero"`
}

// progress describes what the client has seen of the last prompt's turn. The hash of that prompt is
// the last entry of memory.Sent.
type progress struct {
	Prompt   string    `json:"prompt,omitempty"`   // id of the prompt
	Called   bool      `json:"called,omitempty"`   // whether the agent has begun a tool call or sent a request to the client
	Answered bool      `json:"answered,omitempty"` // whether the agent has answered the prompt with the stop reason end_turn
	End      *savedEnd `json:"end,omitempty"`      // how the turn ended; nil if it has not ended, has failed, or has text that is too long
}

// savedEnd is a saved [bgagent.TurnEnd].
type savedEnd struct {
	Stop   string `json:"stop"` // name of the stop reason
	Text   string `json:"text,omitempty"`
	NoText bool   `json:"noText,omitempty"`

	Used bgagent.Usage `json:"used,omitzero"` // usage of the whole turn
}

const (
	memoryVersion = 1        // version of a memory's format; a client refuses other versions
	maxSavedText  = 64 << 10 // maximum number of bytes of savedEnd.Text; it is small because the state is written often
	maxSent       = 256      // maximum number of entries in memory.Sent
)

// savedStops contains the stop reasons of the turns whose end is saved.
var savedStops = []bgagent.StopReason{bgagent.StopEndOfTurn, bgagent.StopLength, bgagent.StopTurnLimit, bgagent.StopRefused}

// hashOf returns a short hash of plain(text).
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(plain(text)))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// The function "plain" returns the text without anything that agents might change in a replay: white
// space other than single spaces, characters that cannot be encoded, and hidden parts. If an agent
// might leave out the whole text, the result is empty.
func plain(text string) string {
	text = hiddenPart.ReplaceAllString(text, " ")
	text = strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\uFFFD", "")
	return strings.Join(strings.Fields(text), " ")
}

// hiddenPart matches parts that programs themselves put into the user's text. The agent for Claude
// does not replay them. gemini does replay its session_context.
var hiddenPart = regexp.MustCompile(`(?s)<session_context>.*?</session_context>|<system-reminder>.*?</system-reminder>|<task-notification>.*?</task-notification>|` +
	`<command-(?:name|message|args)>.*?</command-(?:name|message|args)>|<local-command-std(?:out|err)>.*?</local-command-std(?:out|err)>`)

// hiddenHash is the hash of texts that agents might leave out.
var hiddenHash = hashOf("")

// The method "sends" records that the agent gets the text as the prompt with the given id. It is
// called before the text is sent.
func (m *memory) sends(id, text string) {
	m.Sent, m.Now = append(m.Sent, hashOf(text)), progress{Prompt: id}
	m.Before, m.Joined = m.Joined, nil
	if more := len(m.Sent) - maxSent; more > 0 {
		m.Sent, m.Cut = append([]string(nil), m.Sent[more:]...), true
	}
}

// The method "joins" records that the agent gets the text as a message in the last prompt's turn. It
// is called before the text is sent.
func (m *memory) joins(text string) {
	if n := len(m.Sent); n > 0 {
		m.Sent = slices.Insert(m.Sent, n-1, hashOf(text))
		m.Joined = append(m.Joined, hashOf(text))
	}
	if more := len(m.Sent) - maxSent; more > 0 {
		m.Sent, m.Cut = append([]string(nil), m.Sent[more:]...), true
	}
}

// The method "leaves" undoes a call to the method "joins", because the agent has refused the message. The
// message was meant to join the last prompt's turn or the previous turn.
func (m *memory) leaves(text string) {
	drop := func(list, after []string) ([]string, bool) {
		for i := len(list) - 1; i >= 0; i-- {
			if list[i] == hashOf(text) {
				return slices.Concat(list[:i], list[i+1:], after), true
			}
		}
		return slices.Concat(list, after), false
	}
	var was bool
	if m.Joined, was = drop(m.Joined, nil); !was {
		m.Before, was = drop(m.Before, nil)
	}
	if n := len(m.Sent); was && n > 0 {
		m.Sent, _ = drop(m.Sent[:n-1], m.Sent[n-1:])
	}
}

// The method "unsent" undoes the last call to the method "sends", because the agent has not
// received the prompt.
func (m *memory) unsent() {
	if n := len(m.Sent); n > 0 && m.Now.Prompt != "" {
		m.Sent = m.Sent[:n-1]
		m.Joined, m.Before = m.Before, nil
	}
	m.Now = progress{}
}

// The method "ends" stores how the turn ended. If the stop reason is not in savedStops or the text
// is too long, nothing is stored.
func (p *progress) ends(end bgagent.TurnEnd) {
	for _, stop := range savedStops {
		if end.Stop == stop && len(end.Text) <= maxSavedText {
			p.End = &savedEnd{Stop: stop.String(), Text: end.Text, NoText: end.NoText, Used: end.Usage}
		}
	}
}

// turnEnd returns how the turn ended. The second result reports whether this is known.
func (p *progress) turnEnd() (bgagent.TurnEnd, bool) {
	for _, stop := range savedStops {
		if p.End != nil && p.End.Stop == stop.String() {
			return bgagent.TurnEnd{Stop: stop, Text: p.End.Text, NoText: p.End.NoText, Usage: p.End.Used}, true
		}
	}
	return bgagent.TurnEnd{}, false
}

// The method "remember" returns the session's memory as JSON. The caller must hold Client.mu.
func (s *session) remember() []byte {
	m := s.memory
	m.Version, m.Directory, m.Made, m.Cost = memoryVersion, s.place, s.made, s.cost
	m.Mode, m.Model = s.opts.mode.own, s.opts.model.own
	data, _ := json.Marshal(m) // never fails, because all fields are strings, numbers, booleans and times
	return data
}

// The function "recall" decodes the result of session.remember. If data is empty, the function
// returns the memory of a session that was never prompted.
func recall(data []byte) (m memory, err error) {
	if len(data) == 0 {
		return memory{Version: memoryVersion}, nil
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("acp: the saved state of the session cannot be read: %w", err)
	}
	if m.Version != memoryVersion {
		return m, fmt.Errorf("acp: the saved state of the session has version %d, and this client knows only version %d", m.Version, memoryVersion)
	}
	return m, nil
}

// The method "save" passes the session's memory to the manager if the manager has a store. The
// caller must not hold Client.mu.
func (t *turn) save() {
	if t.prompt.Instance == "" {
		return
	}
	t.report(func(r *bgagent.Reporter) {
		c := t.c
		c.mu.Lock()
		data := t.s.remember()
		c.mu.Unlock()
		r.SaveState(data)
	})
}

// The method "works" records that the agent has begun to work on the prompt. If this is new and
// must be saved, the result is true. The caller must hold Client.mu.
func (t *turn) works() (news bool) {
	now := &t.s.memory.Now
	news = !now.Called && now.Prompt == t.prompt.ID && t.prompt.Instance != ""
	now.Called = now.Called || news
	return news
}

// The method "acts" records and saves that the agent has sent a request to the client.
func (t *turn) acts() {
	t.c.mu.Lock()
	t.heard = true
	news := t.works()
	t.c.mu.Unlock()
	if news {
		t.save()
	}
}

// The method "remember" saves how the turn ended, if the turn succeeded and the manager has a
// store.
func (c *Client) remember(t *turn, end bgagent.TurnEnd, err error) {
	if err != nil || t.prompt.Instance == "" {
		return
	}
	c.mu.Lock()
	now := &t.s.memory.Now
	if now.Prompt == t.prompt.ID {
		end.Usage.Cost += t.told
		now.ends(end)
	}
	known := now.End != nil
	c.mu.Unlock()
	if known {
		t.save()
	}
}
