package modelserver

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"net/http"
	"slices"
	"time"
)

// Protocol is the protocol of a request.
type Protocol string

const (
	Chat      Protocol = "openai-chat"
	Responses Protocol = "openai-responses"
	Messages  Protocol = "anthropic-messages"
	Gemini    Protocol = "gemini"
)

// Role is the author of a message.
type Role string

const (
	User      Role = "user"
	Assistant Role = "assistant"
	Tool      Role = "tool" // results of tools
)

// Kind is what a program wants from the model.
type Kind string

const (
	Main    Kind = "main"    // an agent's turn
	Title   Kind = "title"   // a name for the conversation
	Summary Kind = "summary" // a summary of the conversation
	Side    Kind = "side"    // any other question that is not an agent's turn
)

// Request is one request as received. It is a copy: changing its fields does not
// affect the server. Its slices and maps are shared and must not be modified.
type Request struct {
	N        int // from 1, in order of arrival
	Protocol Protocol
	Model    string
	Kind     Kind
	Stream   bool

	// Session is the session id that the program sent with the request, and Parent
	// the id of the session that started it. Both are "" if the program sends none,
	// like gemini. Key is the name in the last @key line of the conversation.
	Session string
	Parent  string
	Key     string

	System   string // system and developer messages and Claude Code's reminders, concatenated
	Messages []Message
	Tools    []ToolDef
	Schema   json.RawMessage // of the answer if JSON is requested; otherwise nil

	// Attempt counts the requests of this session with exactly this conversation,
	// from 1. Above 1, the request is a repetition.
	Attempt int

	Header http.Header
	Path   string
	Body   []byte

	Arrived time.Time
	Done    bool      // answered, refused, or left
	Left    bool      // the client left or the server was closed before the end
	Ended   time.Time // zero while it is open

	ctx context.Context
}

// Context ends when the client leaves or the server is closed. A handler that waits
// must watch it.
func (r Request) Context() context.Context {
	if r.ctx == nil {
		return context.Background()
	}
	return r.ctx
}

// LastUser returns the text of the last user message, or "" if there is none.
func (r Request) LastUser() string {
	if i := lastUser(r.Messages); i >= 0 {
		return r.Messages[i].Text
	}
	return ""
}

// LastResults returns the results of tools after the last user message that the
// model has not answered yet.
func (r Request) LastResults() []Result {
	if n := len(r.Messages); n > 0 && r.Messages[n-1].Role == Tool {
		return r.Messages[n-1].Results
	}
	return nil
}

// Turn returns how many times the model has answered since the last user message.
func (r Request) Turn() int {
	n := 0
	for _, m := range r.Messages[lastUser(r.Messages)+1:] {
		if m.Role == Assistant {
			n++
		}
	}
	return n
}

// Offers reports whether the request offers a tool of this name.
func (r Request) Offers(name string) bool {
	return slices.ContainsFunc(r.Tools, func(t ToolDef) bool { return t.Name == name })
}

// Message is one message of a conversation. Consecutive messages of the assistant
// are merged into one, and so are results of tools, because protocols divide them
// differently.
type Message struct {
	Role    Role
	Text    string
	Calls   []Call   // by the assistant
	Results []Result // of tools
}

// Call is a tool call of the model. Args is JSON. The server sends it unchanged, so
// a handler can also send invalid JSON.
type Call struct {
	ID   string // "" in a reply: the server generates one
	Name string
	Args string
}

// Result is the result of a tool call.
type Result struct {
	CallID string
	Name   string // name of the tool
	Text   string
	Failed bool // only in Anthropic messages; other protocols do not say
}

// ToolDef is a tool that the request offers.
type ToolDef struct {
	Name        string // NAMESPACE__NAME for a tool in a namespace
	Namespace   string // OpenAI responses only; "" if none
	Description string
	Schema      json.RawMessage // of its arguments
	Custom      bool            // takes text instead of JSON (OpenAI responses only)
}

func lastUser(messages []Message) int {
	for i, m := range slices.Backward(messages) {
		if m.Role == User {
			return i
		}
	}
	return -1
}

// conversation collects messages, merges those that protocols divide differently,
// and adds tool names to results.
type conversation struct {
	messages []Message
	names    map[string]string // of tools, by call id
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

// beside adds text from a message that also holds results of tools. Such text is
// the program's remark about them, not a new question.
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

// fingerprint is equal for a request and its repetitions.
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
