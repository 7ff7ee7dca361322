package command

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/google/uuid"
)

// saved is the state that a client needs to continue a session from an earlier process. During
// every turn, the client passes this state to the manager as JSON.
type saved struct {
	Version    int             `json:"v"`
	Own        string          `json:"own,omitempty"` // session.own
	Directory  string          `json:"directory,omitempty"`
	Turns      int             `json:"turns,omitempty"`
	Used       bgagent.Usage   `json:"used,omitzero"`
	Answered   bool            `json:"answered,omitempty"`
	Unanswered string          `json:"unanswered,omitempty"`
	Talk       []savedExchange `json:"talk,omitempty"` // conversation, if it must be repeated in the next turn
	Lost       bool            `json:"lost,omitempty"` // whether Unanswered or Talk was too long to be saved
	Sent       []sent          `json:"sent,omitempty"` // prompts given to the program's session, oldest first
	Cut        bool            `json:"cut,omitempty"`  // whether the oldest entries of Sent are missing
	Now        progress        `json:"now,omitzero"`
	Todos      []savedTodo     `json:"todos,omitempty"`
}

// savedVersion is the version of a saved state's format. A client refuses other versions.
const savedVersion = 1

// savedExchange is a prompt and its answer.
type savedExchange struct {
	Prompt string `json:"prompt"`
	Answer string `json:"answer"`
}

// sent is a prompt that was given to the program.
type sent struct {
	ID    string `json:"id"`
	Hash  string `json:"hash"`            // result of hashOf for the text that the program got
	Doubt bool   `json:"doubt,omitempty"` // whether the agent did nothing in the turn; if so, the program might not have stored the prompt
}

// progress describes how far the last prompt's turn got.
type progress struct {
	Prompt   string    `json:"prompt,omitempty"`   // id of the prompt
	Instance string    `json:"instance,omitempty"` // id of the manager that handed over the prompt
	Began    time.Time `json:"began,omitzero"`     // shortly before the program was started
	Wrote    bool      `json:"wrote,omitempty"`    // whether the agent has written text or called a tool
	Called   bool      `json:"called,omitempty"`   // whether the agent has called a tool
	Ended    bool      `json:"ended,omitempty"`    // whether the program has reported success; if so, Answer is set
	Answer   string    `json:"answer,omitempty"`

	Used bgagent.Usage `json:"used,omitzero"` // usage of the turn; valid only if Ended is set
}

// Limits for a saved state. The task's record contains the saved state, is written often and is
// kept for days, so it must stay small.
const (
	maxSavedText   = 64 << 10 // bytes of the conversation
	maxSavedAnswer = 16 << 10 // bytes of the answer
	maxSent        = 256      // number of prompts in saved.Sent
)

// hashOf returns a short hash of a text. Texts that differ only in white space between words have
// the same hash.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(plain(text)))
	return hex.EncodeToString(sum[:8])
}

// The function "plain" returns the text with leading and trailing white space removed and single
// spaces between words. The client compares prompts in this form because some programs change a
// prompt's white space.
func plain(text string) string { return strings.Join(strings.Fields(text), " ") }

// chosenSpace is the UUID namespace of the ids that the client chooses for program sessions.
var chosenSpace = uuid.MustParse("5b0d9f0e-5d0c-4a53-9d39-0f5a3f0b1c7e")

// chosenID returns the id that the client chooses for the program session that begins with the
// prompt. The id depends only on the arguments, so another process can compute it. The instance is
// an argument because the next manager might give the same prompt to a new session of the program,
// and the ids of the two sessions must differ.
func chosenID(session, prompt, instance string) string {
	return uuid.NewHash(sha256.New(), chosenSpace, []byte(session+"\n"+prompt+"\n"+instance), 4).String()
}

// The method "save" passes the state of the session to the manager if the manager has a store.
func (t *turn) save(r *bgagent.Reporter) {
	if t.prompt.Instance == "" {
		return
	}
	t.client.mu.Lock()
	data := t.session.savedLocked(t.client.cfg.Keep)
	t.client.mu.Unlock()
	r.SaveState(data)
}

// placeOf returns the absolute path of a directory without symbolic links. The next host, which uses
// this path, might be started in another directory, and by then a link might point somewhere else.
func placeOf(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	return abs
}

// savedLocked returns the state of the session as JSON.
func (s *session) savedLocked(keep int) []byte {
	x := saved{
		Version: savedVersion, Own: s.own, Directory: s.place, Turns: s.turns, Used: s.used, Answered: s.answered,
		Sent: s.sent, Cut: s.sentCut, Now: s.now,
	}
	if list, ok := s.memory.(*claudeTodos); ok {
		x.Todos = list.saved()
	}
	if program := &s.agent.Program; program.ForgetsUnanswered && !s.answered {
		if x.Unanswered = s.unanswered; len(x.Unanswered) > min(maxSavedText, keep) {
			x.Unanswered, x.Lost = "", true
		}
	} else if s.own == "" && !program.Resume.isZero() {
		x.Talk, x.Lost = s.talk.saved(maxSavedText)
	}
	if len(x.Now.Answer) > maxSavedAnswer {
		x.Now.Ended, x.Now.Answer, x.Now.Used = false, "", bgagent.Usage{}
	}
	data, _ := json.Marshal(x) // never fails: costs are finite numbers, and the encoder knows all other types
	return data
}

// decodeSaved decodes a state that savedLocked returned. If data is empty, decodeSaved returns the
// state of a new session.
func decodeSaved(data []byte) (x saved, err error) {
	if len(data) == 0 {
		return saved{Version: savedVersion}, nil
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return x, fmt.Errorf("command: the saved state of the session cannot be read: %w", err)
	}
	if x.Version != savedVersion {
		return x, fmt.Errorf("command: the saved state of the session has version %d, and this client knows only version %d", x.Version, savedVersion)
	}
	return x, nil
}

// The method "restore" sets the fields of a new session from a saved state.
func (s *session) restore(x saved) {
	s.own, s.turns, s.used, s.answered, s.unanswered = x.Own, x.Turns, x.Used, x.Answered, x.Unanswered
	s.sent, s.sentCut, s.now, s.forgot = x.Sent, x.Cut, x.Now, x.Lost
	if x.Directory != "" {
		s.dir, s.place = x.Directory, x.Directory
	}
	if len(x.Todos) > 0 {
		s.memory = restoredTodos(x.Todos)
	}
	s.talk.restore(x.Talk, x.Turns)
}

// sendsLocked records that the program gets the prompt in the current turn. If fresh is true, the
// program begins a new session.
func (s *session) sendsLocked(id, text string, fresh bool) {
	if fresh {
		s.sent, s.sentCut = nil, false
	}
	s.now = progress{Prompt: id}
	s.sent = slices.DeleteFunc(slices.Clone(s.sent), func(x sent) bool { return x.ID == id && id != "" })
	s.sent = append(s.sent, sent{ID: id, Hash: hashOf(text), Doubt: true})
	if len(s.sent) > maxSent {
		s.sent, s.sentCut = s.sent[len(s.sent)-maxSent:], true
	}
}

// wroteLocked records whether the agent has written text or called a tool in the current turn.
func (s *session) wroteLocked(wrote, called bool) {
	s.now.Wrote, s.now.Called = s.now.Wrote || wrote || called, s.now.Called || called
	if n := len(s.sent); n > 0 && s.now.Wrote && s.sent[n-1].Doubt {
		s.sent = slices.Clone(s.sent)
		s.sent[n-1].Doubt = false
	}
}

// The method "saved" returns the exchanges of the conversation. The parameter "most" is the maximum
// number of bytes of their texts. If the texts exceed this maximum, or if the client has not kept all
// exchanges, the method returns no exchanges, and lost is true.
func (c *conversation) saved(most int) (list []savedExchange, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first > c.before {
		return nil, true
	}
	for _, x := range c.list {
		if x.undone {
			continue
		}
		if most -= len(x.prompt) + len(x.answer); x.cut || most < 0 {
			return nil, true
		}
		list = append(list, savedExchange{x.prompt, x.answer})
	}
	return list, false
}

// The method "restore" sets the conversation of a session that an earlier process created. turns is
// the number of turns that have ended. Only the exchanges in the list can be repeated; the program
// itself remembers the others.
func (c *conversation) restore(list []savedExchange, turns int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = max(turns-len(list), 0)
	c.before = c.first
	for _, x := range list {
		y := exchange{prompt: x.Prompt, answer: x.Answer}
		c.list, c.size = append(c.list, y), c.size+y.size()
	}
}

// The method "any" reports whether there are exchanges that might have to be repeated.
func (c *conversation) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first > c.before || slices.ContainsFunc(c.list, func(x exchange) bool { return !x.undone })
}
