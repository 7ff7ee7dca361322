package modelserver

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"net/http"
	"slices"
	"time"
)

// Protocol names what a request was made in.
type Protocol string

const (
	Chat      Protocol = "openai-chat"
	Responses Protocol = "openai-responses"
	Messages  Protocol = "anthropic-messages"
	Gemini    Protocol = "gemini"
)

// Role is who speaks in a message.
type Role string

const (
	User      Role = "user"
	Assistant Role = "assistant"
	Tool      Role = "tool" // results of tools
)

// Kind is what a program wants of the model.
type Kind string

const (
	Main    Kind = "main"    // a turn of an agent
	Title   Kind = "title"   // a name for the conversation
	Summary Kind = "summary" // the conversation made shorter
	Side    Kind = "side"    // any other question that is not the agent's own turn
)

// Request is one request as it came. It is a copy: what a test does with it does
// not reach the server. Its slices and maps are shared and not to be written to.
type Request struct {
	N        int // from 1, in the order of arrival
	Protocol Protocol
	Model    string
	Kind     Kind
	Stream   bool

	// Session is the id that the program itself sent with the request, Parent the
	// one of the session that started this one; "" where it sent none, as gemini
	// does. Key is what the last @key line in the conversation says.
	Session string
	Parent  string
	Key     string

	System   string // system and developer messages, and Claude Code's reminders, one after the other
	Messages []Message
	Tools    []ToolDef
	Schema   json.RawMessage // of the answer, when JSON is asked for; nil otherwise

	// Attempt counts the requests of this session with exactly this conversation,
	// from 1: more than 1 is a repetition.
	Attempt int

	Header http.Header
	Path   string
	Body   []byte

	Arrived time.Time
	Done    bool      // answered, refused, or left
	Left    bool      // the client left, or the server was closed, before the end
	Ended   time.Time // zero while it is open

	ctx context.Context
}

// Context ends when the client has left or the server is closed. A handler that
// waits has to watch it.
func (r Request) Context() context.Context {
	if r.ctx == nil {
		return context.Background()
	}
	return r.ctx
}

// LastUser returns the text of the last user message, "" without one.
func (r Request) LastUser() string {
	if i := lastUser(r.Messages); i >= 0 {
		return r.Messages[i].Text
	}
	return ""
}

// LastResults returns the results of tools that came after the last user message
// and that no answer of the model has followed yet.
func (r Request) LastResults() []Result {
	if n := len(r.Messages); n > 0 && r.Messages[n-1].Role == Tool {
		return r.Messages[n-1].Results
	}
	return nil
}

// Turn is how many times the model has answered since the last user message.
func (r Request) Turn() int {
	n := 0
	for _, m := range r.Messages[lastUser(r.Messages)+1:] {
		if m.Role == Assistant {
			n++
		}
	}
	return n
}

// Offers says whether the request offers a tool of this name.
func (r Request) Offers(name string) bool {
	return slices.ContainsFunc(r.Tools, func(t ToolDef) bool { return t.Name == name })
}

// Message is one message of a conversation. Messages of the assistant that follow
// each other are one, and so are results of tools, because protocols differ in
// how they cut them.
type Message struct {
	Role    Role
	Text    string
	Calls   []Call   // of the assistant
	Results []Result // of tools
}

// Call is a tool call of the model. Args is JSON; the server sends it as it is,
// so that a handler can also send what is none.
type Call struct {
	ID   string // "" in a reply: the server makes one
	Name string
	Args string
}

// Result is what a tool returned.
type Result struct {
	CallID string
	Name   string // of the tool
	Text   string
	Failed bool // only where the protocol says so: Anthropic messages
}

// ToolDef is a tool as it was offered.
type ToolDef struct {
	Name        string // of a tool in a namespace: NAMESPACE__NAME
	Namespace   string // "" for none (OpenAI responses)
	Description string
	Schema      json.RawMessage // of its arguments
	Custom      bool            // takes text instead of JSON (OpenAI responses)
}

func lastUser(messages []Message) int {
	for i, m := range slices.Backward(messages) {
		if m.Role == User {
			return i
		}
	}
	return -1
}

// conversation collects messages, merges those that protocols cut differently,
// and gives results the names of their tools.
type conversation struct {
	messages []Message
	names    map[string]string // of tools, by the id of the call
}

func (c *conversation) last(role Role) *Message {
	if n := len(c.messages); n > 0 && c.messages[n-1].Role == role {
		return &c.messages[n-1]
	}
	c.messages = append(c.messages, Message{Role: role})
	return &c.messages[len(c.messages)-1]
}

func (c *conversation) user(text string) {
	c.messages = append(c.messages, Message{Role: User, Text: text})
}

func (c *conversation) assistant(text string, calls ...Call) {
	m := c.last(Assistant)
	m.Text = join(m.Text, text)
	for _, call := range calls {
		if c.names == nil {
			c.names = map[string]string{}
		}
		if call.ID != "" {
			c.names[call.ID] = call.Name
		}
		m.Calls = append(m.Calls, call)
	}
}

func (c *conversation) results(results ...Result) {
	m := c.last(Tool)
	for _, r := range results {
		if r.Name == "" {
			r.Name = c.names[r.CallID]
		}
		m.Results = append(m.Results, r)
	}
}

// beside adds text that came in the same message as results of tools: it is the
// program's remark about them, not a new question.
func (c *conversation) beside(text string) {
	m := c.last(Tool)
	m.Text = join(m.Text, text)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

var seed = maphash.MakeSeed()

// fingerprint is equal for a request and its repetition.
func (r Request) fingerprint() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	b, err := json.Marshal([]any{r.Protocol, r.Model, r.Kind, r.Session, r.Key, r.System, r.Messages})
	if err != nil {
		panic("modelserver: bug: " + err.Error())
	}
	h.Write(b)
	return h.Sum64()
}
