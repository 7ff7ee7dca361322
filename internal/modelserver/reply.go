package modelserver

import (
	"iter"
	"net/http"
	"time"
)

// Handler returns the model's answer to a request. It runs on the request's goroutine, so it
// may block, but it must return soon after the request's context ends. It must be safe for
// concurrent use. It also gets requests for titles and other side questions, which
// [Request.Scripted] can answer.
type Handler func(Request) Reply

// Reply is an answer from the model. The zero value is an empty answer.
type Reply struct {
	Delay     time.Duration // time before the first byte
	Reasoning string
	Text      string
	Calls     []Call

	// Pieces, if set, is streamed instead of Text. Each piece is sent as soon as the
	// sequence yields it. A sequence that waits between pieces controls the stream exactly.
	Pieces iter.Seq[string]

	// The server streams Text in Chunks pieces, and pauses for Gap between two pieces. If Chunks is
	// 0 or 1, Text is sent in one piece. If Text has fewer letters than Chunks, some pieces are
	// empty, and the server waits for Gap before these pieces too.
	Chunks int
	Gap    time.Duration

	// At most one of the following failures may be set. If there is no text and Error.InStream is
	// not set, Error is sent as an HTTP error. Otherwise, Error is sent in the stream after the text.
	Error *Error
	Hang  bool // the answer never ends after the text
	Mute  bool // the server sends nothing, not even a header
	Cut   bool // the connection is cut after the text

	Usage *Usage // token counts; nil means an estimate
	// If Truncated is set, the server reports that the answer ended at the token limit.
	Truncated bool
}

// Say returns a reply with the given text.
func Say(text string) Reply { return Reply{Text: text} }

// Use returns a reply that calls a tool with JSON arguments.
func Use(tool, args string) Reply { return Reply{Calls: []Call{{Name: tool, Args: args}}} }

// Refuse returns a reply that is an HTTP error.
func Refuse(status int, message string) Reply {
	return Reply{Error: &Error{Status: status, Message: message}}
}

// Hang returns a reply that has the given text and then never ends. The text may be empty.
func Hang(text string) Reply { return Reply{Text: text, Hang: true} }

// Error is an error from a model's provider.
type Error struct {
	Status  int // HTTP status; 0 means 500
	Message string

	// RetryAfter is sent as a header in whole seconds, rounded up. It is also sent in the body
	// if the protocol has a field for it. Zero means that it is not sent. If Dated is set, the
	// header contains a date instead of the number of seconds.
	RetryAfter time.Duration
	Dated      bool

	Reason   Reason        // reason, if the status is not enough to describe the failure; usually empty
	Reset    time.Duration // time until a usage limit is reset; only for the reason UsageLimit
	InStream bool          // whether the error is sent in the stream, after a success status
}

func (e *Error) status() int {
	if e.Status < 400 || e.Status > 599 {
		return http.StatusInternalServerError
	}
	return e.Status
}

func (e *Error) seconds() int {
	return int((e.RetryAfter + time.Second - 1) / time.Second)
}

// Usage holds numbers of tokens. Input includes Cached.
type Usage struct {
	Input, Output, Cached, Reasoning int
}

func (u Usage) total() int { return u.Input + u.Output }

// usage returns the usage that is set in the reply. If no usage is set, the result is an estimate of one
// token per four bytes, because OpenAI's help pages give four characters per token as a rule of thumb.
func (rep Reply) usage(req Request, text string) Usage {
	if rep.Usage != nil {
		return *rep.Usage
	}
	tokens := func(letters int) int { return (letters + 3) / 4 }
	out := len(text)
	for _, c := range rep.Calls {
		out += len(c.Name) + len(c.Args)
	}
	return Usage{Input: tokens(len(req.Body)), Output: tokens(out) + tokens(len(rep.Reasoning)), Reasoning: tokens(len(rep.Reasoning))}
}

// The method "pieces" returns the pieces of text to stream. The first piece of Text is never empty.
func (rep Reply) pieces() iter.Seq[string] {
	if rep.Pieces != nil {
		return rep.Pieces
	}
	return func(yield func(string) bool) {
		letters, n := []rune(rep.Text), max(rep.Chunks, 1)
		cut := func(i int) int { return (i*len(letters) + n - 1) / n }
		for i := range n {
			if !yield(string(letters[cut(i):cut(i+1)])) {
				return
			}
		}
	}
}

// The method "says" reports whether there is any text to stream.
func (rep Reply) says() bool { return rep.Text != "" || rep.Pieces != nil }
