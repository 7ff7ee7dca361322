package modelserver

import (
	"iter"
	"net/http"
	"time"
)

// Handler decides what the model answers. It runs on the request's own goroutine,
// so it may wait, but must watch the request's context. It must be safe for
// concurrent use. Requests for titles and other side questions come here too;
// [Request.Scripted] answers them.
type Handler func(Request) Reply

// Reply is an answer of the model. The zero value is an empty answer.
type Reply struct {
	Delay     time.Duration // before the first byte
	Reasoning string
	Text      string
	Calls     []Call

	// Pieces, if set, is streamed instead of Text, each piece as soon as it arrives.
	// A handler that waits between them controls the stream exactly.
	Pieces iter.Seq[string]

	// Text is streamed in Chunks pieces, Gap apart, or in one piece if Chunks is 0
	// or 1. The time passes even if the text has fewer letters than pieces.
	Chunks int
	Gap    time.Duration

	// At most one of the following failures is set. Error alone is an HTTP error.
	// With a text, the error comes in the stream after the text.
	Error *Error
	Hang  bool // nothing follows the text
	Mute  bool // nothing is sent, not even a header
	Cut   bool // the connection breaks after the text

	Usage *Usage // nil: estimated
	// Truncated says that the answer ended at the token limit.
	Truncated bool
}

// Say returns a reply that says text.
func Say(text string) Reply { return Reply{Text: text} }

// Use returns a reply that calls a tool with JSON arguments.
func Use(tool, args string) Reply { return Reply{Calls: []Call{{Name: tool, Args: args}}} }

// Refuse returns a reply that is an HTTP error.
func Refuse(status int, message string) Reply {
	return Reply{Error: &Error{Status: status, Message: message}}
}

// Hang returns a reply that says text, if any, and then never ends.
func Hang(text string) Reply { return Reply{Text: text, Hang: true} }

// Error is an error of a model's provider.
type Error struct {
	Status  int // 0: 500
	Message string

	// RetryAfter is sent as a header in whole seconds, rounded up, and also in the
	// body if the protocol has a field for it. Zero sends nothing.
	RetryAfter time.Duration
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

// Usage counts tokens. Input includes Cached.
type Usage struct {
	Input, Output, Cached, Reasoning int
}

func (u Usage) total() int { return u.Input + u.Output }

// usage returns the reply's usage, or an estimate at four letters per token, the
// rule of thumb from OpenAI's help pages.
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

// pieces yields the pieces of text to stream. The first piece is never empty.
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

// says reports whether there is text to stream.
func (rep Reply) says() bool { return rep.Text != "" || rep.Pieces != nil }
