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
	Tool      Role = "tool" // tool results
)

// Kind is the purpose of a request.
type Kind string

const (
	Main    Kind = "main"    // an agent's turn
	Title   Kind = "title"   // a title for the conversation
	Summary Kind = "summary" // a summary of the conversation
	Side    Kind = "side"    // any other question that is not an agent's turn
)

// Request is a request that the server has received. It is a copy: changing its fields does
// not affect the server. However, its slices and maps are shared and must not be modified.
type Request struct {
	N        int // number in order of arrival, from 1
	Protocol Protocol
	Model    string
	Kind     Kind
	Stream   bool

	// Session is the session id that the program sent with the request. Parent is the id of the
	// session that started this session. An id is "" if the program does not send it. Key is the
	// name in the last @key line of the conversation.
	Session string
	Parent  string
	Key     string

	System   string // system messages, developer messages and Claude Code's reminders, concatenated
	Messages []Message
	Tools    []ToolDef
	Schema   json.RawMessage // schema of the answer if the program requests JSON; otherwise nil

	// Attempt is 1 for the first request of this session with this conversation. If Attempt is greater than
	// 1, the request is a retry.
	Attempt int

	Header http.Header
	Path   string
	Body   []byte

	Arrived time.Time
	Done    bool      // whether the request has ended: it was answered or refused, or Left is set
	Left    bool      // whether the client left or the server was closed before the end of the answer
	Ended   time.Time // time of the end; zero while the request is open

	ctx context.Context
}

// Context returns a context that ends when the client leaves or the server is closed. A
// handler that blocks must return soon after the context ends.
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

// LastResults returns the tool results at the end of the conversation. The model has not answered
// them yet. LastResults returns nil if the last message is not a tool result.
func (r Request) LastResults() []Result {
	if n := len(r.Messages); n > 0 && r.Messages[n-1].Role == Tool {
		return r.Messages[n-1].Results
	}
	return nil
}

// Turn returns the number of the model's answers since the last user message.
func (r Request) Turn() int {
	n := 0
	for _, m := range r.Messages[lastUser(r.Messages)+1:] {
		if m.Role == Assistant {
			n++
		}
	}
	return n
}

// Offers reports whether the request offers a tool with the given name.
func (r Request) Offers(name string) bool {
	return slices.ContainsFunc(r.Tools, func(t ToolDef) bool { return t.Name == name })
}

// Message is one message of a conversation. Consecutive messages from the assistant are
// merged into one message, because protocols divide them differently. Tool results are merged
// in the same way.
type Message struct {
	Role    Role
	Text    string
	Calls   []Call   // the assistant's tool calls
	Results []Result // tool results
}

// Call is a tool call by the model. Args is JSON. The server sends Args unchanged, so a
// handler can also send invalid JSON.
type Call struct {
	ID   string // id of the call; "" in a reply means that the server generates an id
	Name string
	Args string
}

// Result is the result of a tool call.
type Result struct {
	CallID string
	Name   string // name of the tool
	Text   string
	Failed bool // whether the call failed; only Anthropic messages report this
}

// ToolDef is a tool that the request offers.
type ToolDef struct {
	Name        string // name of the tool; NAMESPACE__NAME if the tool is in a namespace
	Namespace   string // namespace of the tool, or ""; only in OpenAI responses
	Description string
	Schema      json.RawMessage // schema of the arguments
	Custom      bool            // whether the tool takes text instead of JSON (OpenAI responses only)
}

func lastUser(messages []Message) int {
	for i, m := range slices.Backward(messages) {
		if m.Role == User {
			return i
		}
	}
	return -1
}

// conversation collects messages. It merges messages as described at [Message], and adds tool
// names to results.
type conversation struct {
	messages []Message
	names    map[string]string // names of tools by call id
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

// The method "beside" adds text from a message that also contains tool results. This text is the
// program's remark about the results, not a new user message.
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

// fingerprint returns a hash that is the same for a request and its retries.
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
