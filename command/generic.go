package command

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// Text returns the description of a program that reads a prompt from standard input and prints its answer as
// plain text. The program does not get the prompts and answers of earlier turns. Exit code 0 means that the
// answer is complete.
//
// If the program takes its prompt as an argument, or can continue a session, change the
// fields of the result:
//
//	p := command.Text("llm")
//	p.Start.Prompt = []string{"--", "{prompt}"}
//	p.Model = []string{"-m", "{model}"}
func Text(executable string) Program {
	return Program{Executable: executable}
}

// Lines returns the description of a program that reads a prompt from standard input and
// prints JSON lines in the format of [DecodeLines]. To continue a session, the client calls
// the program with --session=ID.
func Lines(executable string) Program {
	return Program{Executable: executable, Resume: Form{Args: []string{"--session={session}"}}, Decode: DecodeLines}
}

// simpleLine is a line in the format of DecodeLines.
type simpleLine struct {
	Type   string
	ID     string
	Text   given
	Name   string
	State  string
	Stop   fault
	Error  fault
	Input  json.RawMessage // number of tokens, or input of a tool
	Output count
	Result json.RawMessage
	Cost   float64
	Todos  []struct{ Text, State string }
	simpleFailure
}

// given is a text field of a line. Its field "is" reports whether the line contains the text field. A value
// of an unexpected type is ignored.
type given struct {
	wording
	is bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (g *given) UnmarshalJSON(data []byte) error {
	err := g.wording.UnmarshalJSON(data)
	g.is = g.wording != "" || slices.Contains([]string{"null", `""`, "[]"}, string(data))
	return err
}

// simpleFailure has the fields of lines of the types "error" and "retrying".
type simpleFailure struct {
	Kind    string
	Status  count
	RetryAt string `json:"retry_at"`
	At      string
	Tries   count
	Scope   string
	Next    string
}

// failure returns the failure at the provider. Its kind is zero if the line contains neither the
// kind of a failure nor a status.
func (x *simpleFailure) failure(message string) bgagent.ProviderError {
	e := failureOf(apifault.Fault{Status: small(x.Status)})
	var kind bgagent.ProviderErrorKind
	if kind.UnmarshalText([]byte(spaces.Replace(x.Kind))) == nil && kind != 0 {
		e.Kind = kind
	}
	var scope bgagent.ProviderScope // the zero value: the failure concerns only the model
	if x.Scope == "provider" {
		scope = bgagent.ScopeProvider
	}
	e.Scope, e.Message, e.Tries = scope, message, small(x.Tries)
	e.RetryAt, _ = time.Parse(time.RFC3339, x.RetryAt)
	switch spaces.Replace(x.Next) {
	case "continue":
		e.Next = bgagent.NextContinue
	case "repeat":
		e.Next = bgagent.NextRepeat
	case "new session":
		e.Next = bgagent.NextNewSession
	default:
		e.Next = bgagent.NextNone
	}
	return e
}

// spaces replaces word separators with spaces.
var spaces = strings.NewReplacer("_", " ", "-", " ")

// DecodeLines returns a decoder for JSON lines in a small format that is easy to print in any
// programming language. The field "type" contains the kind of the line. Unknown kinds of lines,
// unknown fields, and fields of an unexpected type are ignored. Only the fields "error" and "stop"
// can have any type. Text after the end is not part of the answer. If the turn ends badly or
// without an answer, the reason shows the first line of an unknown kind, or the first "text" or
// "message" line without a text.
//
//	{"type":"session","id":"s1"}                       the program's id for the session
//	{"type":"text","text":"…"}                         a piece of the answer
//	{"type":"message","text":"…"}                      a whole message
//	{"type":"reasoning","text":"…"}                    a piece of the agent's reasoning
//	{"type":"tool","id":"1","name":"grep","state":"running"}  pending, running, done or failed
//	{"type":"tool","id":"1","name":"grep","state":"done","input":{"for":"x"},"result":"…"}  the same call
//	{"type":"todos","todos":[{"text":"…","state":"pending"}]}  pending, in progress, completed or cancelled
//	{"type":"usage","input":10,"output":5,"cost":0.01} usage since the last line of this type
//	{"type":"activity"}                                activity without another report
//	{"type":"compaction"}                              earlier messages were replaced by a summary
//	{"type":"retrying","status":429,"tries":1,"at":"2026-11-29T10:00:00Z"}  a request to the provider failed and is repeated
//	{"type":"error","kind":"rate limit","status":429,"next":"continue","text":"…"}  a request to the provider failed for good
//	{"type":"end"}                                     the turn has succeeded
//	{"type":"end","stop":"error","error":"…"}          the turn has failed, or ended early
//
// The fields "input" and "result" of a tool call can be any JSON values. Only their digests are
// kept. If both are present, an agent that repeats a call can be stopped; see
// [bgagent.Config].RepeatedCalls.
//
// A line of the type "error" says why the turn is about to fail. It does not end the turn. If the agent
// does nothing after this line and the turn ends with an error, the error of RunTurn wraps a
// [*bgagent.ProviderError]. The line must have a "kind", which is the name of a
// [bgagent.ProviderErrorKind], or a "status", which is the HTTP status. The other fields are optional:
//
//	"retry_at":"2026-11-29T10:00:00Z"  time at which, according to the provider, it accepts requests again
//	"tries":3                          number of requests so far
//	"scope":"provider"                 the failure concerns all models of the provider; otherwise, it concerns only this model
//	"next":"continue"                  the session has the prompt, and the next turn continues it
//	"next":"repeat"                    the session has kept nothing from the turn, and the prompt can be given again
//	"next":"new session"               the session is lost, and the prompt can be given to a new one
//	"text":"…"                         one line for people
//
// Without "next", the turn cannot be continued. A line of the type "retrying" has the same fields.
// If the time of the next try is known, the field "at" contains it. Do not print such a line if
// this machine's network might be the cause, because the line makes the manager hold back the other
// turns that use the model.
//
// In a line of the type "end", the field "stop" contains the name of a [bgagent.StopReason]: "end of turn",
// "length", "turn limit", "refused", "aborted", "interrupted", "error" or "too long". Models' own stop
// reasons, such as "max_tokens", are also known. Any other string means "error".
func DecodeLines() Decoder {
	return func(line []byte, o *Output) {
		var x simpleLine
		if !jsonlines.Decode(line, &x) {
			o.notKnown()
			return
		}
		if (x.Type == "text" || x.Type == "message") && !x.Text.is {
			o.notKnown()
		}
		switch x.Type {
		case "session":
			o.Session(x.ID)
		case "text":
			o.Text(string(x.Text.wording))
		case "message":
			o.Message(string(x.Text.wording))
		case "reasoning":
			o.Reasoning(string(x.Text.wording))
		case "tool":
			state := toolState(x.State, x.State == "done")
			o.Call(bgagent.MessageTool{ID: x.ID, Name: x.Name, State: state, Input: calldigest.Input(x.Input), Result: calldigest.Result(x.Result)})
		case "todos":
			list := make([]bgagent.Todo, len(x.Todos))
			for i, t := range x.Todos {
				list[i] = bgagent.Todo{Text: t.Text, State: todoState(t.State)}
			}
			o.Todos(list)
		case "usage":
			var input count
			if len(x.Input) > 0 {
				_ = input.UnmarshalJSON(x.Input) // never fails
			}
			o.Usage(bgagent.Usage{InputTokens: input.tokens(), OutputTokens: x.Output.tokens(), Cost: x.Cost})
		case "activity":
			o.Activity()
		case "compaction":
			o.Compaction()
		case "error":
			if e := x.failure(cmp.Or(string(x.Text.wording), x.Error.text)); e.Kind != 0 {
				o.ProviderFailed(e)
			}
		case "retrying":
			if e := x.failure(cmp.Or(string(x.Text.wording), x.Error.text)); e.Kind != 0 {
				at, _ := time.Parse(time.RFC3339, x.At)
				o.Retrying(e, at)
			}
		case "end":
			o.End(stopReason(x.Stop.text, x.Error.text), string(x.Text.wording), x.Error.text)
		default:
			o.notKnown()
		}
	}
}

// todoState returns the todo state with the given name. Spaces, hyphens or underscores can
// separate the words of the name.
func todoState(word string) bgagent.TodoState {
	word = spaces.Replace(word)
	for s := bgagent.TodoPending; s <= bgagent.TodoCancelled; s++ {
		if strings.EqualFold(s.String(), word) {
			return s
		}
	}
	return bgagent.TodoPending
}

// stopReason returns the stop reason with the given name. For an unknown name, the result is StopError. If
// the name is empty, the result is StopError if there is a problem, else StopEndOfTurn.
func stopReason(word, problem string) bgagent.StopReason {
	if word == "" {
		if problem != "" {
			return bgagent.StopError
		}
		return bgagent.StopEndOfTurn
	}
	for s := bgagent.StopEndOfTurn; s <= bgagent.StopTooLong; s++ {
		if s != bgagent.StopToolCalls && strings.EqualFold(s.String(), word) {
			return s
		}
	}
	if stop, known := stopOf(word); known {
		return stop
	}
	return bgagent.StopError
}
