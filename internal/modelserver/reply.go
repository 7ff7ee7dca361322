package modelserver

import (
	"iter"
	"net/http"
	"time"
)

// Handler decides what the model answers. It is called on the request's own
// goroutine, so it may wait (watching the request's context), and it must be
// safe to call concurrently. Requests for titles and other side questions come
// here too; [Request.Scripted] has an answer for them.
type Handler func(Request) Reply

// Reply is an answer of the model. The zero value is an empty answer.
type Reply struct {
	Delay     time.Duration // before the first byte
	Reasoning string
	Text      string
	Calls     []Call

	// Pieces, when set, is streamed instead of Text, each piece as soon as it
	// comes: a handler that waits between them steers the stream exactly.
	Pieces iter.Seq[string]

	// Text is streamed in so many pieces with so much time between them; in one
	// piece when Chunks is 0 or 1. The time passes even where the text has fewer
	// letters than there are pieces.
	Chunks int
	Gap    time.Duration

	// How it goes wrong, at most one of them. Error alone is an HTTP error; with
	// a text the error comes in the stream, after it.
	Error *Error
	Hang  bool // after the text nothing more comes
	Mute  bool // nothing comes, no header even
	Cut   bool // after the text the connection breaks

	Usage *Usage // estimated when nil
	// Truncated says that the answer ended because it reached the most tokens
	// allowed.
	Truncated bool
}

// Say is a reply that says text.
func Say(text string) Reply { return Reply{Text: text} }

// Use is a reply that calls a tool with JSON arguments.
func Use(tool, args string) Reply { return Reply{Calls: []Call{{Name: tool, Args: args}}} }

// Refuse is a reply that is an HTTP error.
func Refuse(status int, message string) Reply {
	return Reply{Error: &Error{Status: status, Message: message}}
}

// Hang is a reply that says text, if any, and then never ends.
func Hang(text string) Reply { return Reply{Text: text, Hang: true} }

// Error is an error of a model's provider.
type Error struct {
	Status  int // 500 when zero
	Message string

	// RetryAfter is sent as a header in whole seconds, rounded up, and where the
	// protocol has a place for it in the body too. Nothing is sent when zero.
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

// Usage counts tokens. Input contains Cached.
type Usage struct {
	Input, Output, Cached, Reasoning int
}

func (u Usage) total() int { return u.Input + u.Output }

// usage returns what the reply says, or an estimate of four letters a token, the
// rule of thumb of OpenAI's help pages.
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

// pieces returns the text as it is to be streamed, split so that the first piece
// is never empty.
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

// says tells whether there is text to stream.
func (rep Reply) says() bool { return rep.Text != "" || rep.Pieces != nil }
