package command

import (
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// Text returns the description of a program that reads a prompt from standard input and
// prints its answer as plain text. Its turns know nothing about each other. Exit code 0
// means that the answer is complete.
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
	Text   wording
	Name   string
	State  string
	Stop   fault
	Error  fault
	Input  count
	Output count
	Cost   float64
	Todos  []struct{ Text, State string }
}

// DecodeLines returns a decoder for JSON lines in a small format that is easy to print in
// any programming language. The field type is the kind of a line. Unknown kinds of lines,
// unknown fields, and fields of an unexpected type are ignored, but the fields error and
// stop may have any type. Text after the end is not part of the answer.
//
//	{"type":"session","id":"s1"}                       the program's id for the session
//	{"type":"text","text":"…"}                         a piece of the answer
//	{"type":"message","text":"…"}                      a whole message
//	{"type":"reasoning","text":"…"}                    a piece of the agent's reasoning
//	{"type":"tool","id":"1","name":"grep","state":"running"}  pending, running, done or failed
//	{"type":"todos","todos":[{"text":"…","state":"pending"}]}  pending, in progress, completed or cancelled
//	{"type":"usage","input":10,"output":5,"cost":0.01} usage since the last such line
//	{"type":"activity"}                                activity without another report
//	{"type":"end"}                                     the turn has succeeded
//	{"type":"end","stop":"error","error":"…"}          the turn has ended otherwise
//
// The field stop of an end is the name of a [bgagent.StopReason]: "end of turn", "length",
// "turn limit", "refused", "aborted", "interrupted" or "error". Stop reasons of models,
// such as "max_tokens", are known too. Any other text counts as "error".
func DecodeLines() Decoder {
	return func(line []byte, o *Output) {
		var x simpleLine
		if !jsonlines.Decode(line, &x) {
			return
		}
		switch x.Type {
		case "session":
			o.Session(x.ID)
		case "text":
			o.Text(string(x.Text))
		case "message":
			o.Message(string(x.Text))
		case "reasoning":
			o.Reasoning(string(x.Text))
		case "tool":
			state := toolState(x.State, x.State == "done")
			o.Tool(x.ID, x.Name, state)
		case "todos":
			list := make([]bgagent.Todo, len(x.Todos))
			for i, t := range x.Todos {
				list[i] = bgagent.Todo{Text: t.Text, State: todoState(t.State)}
			}
			o.Todos(list)
		case "usage":
			o.Usage(bgagent.Usage{InputTokens: x.Input.tokens(), OutputTokens: x.Output.tokens(), Cost: x.Cost})
		case "activity":
			o.Activity()
		case "end":
			o.End(stopReason(x.Stop.text, x.Error.text), string(x.Text), x.Error.text)
		}
	}
}

// todoState returns the state with the name. The words of the name may be joined by spaces,
// hyphens or underscores.
func todoState(word string) bgagent.TodoState {
	word = strings.NewReplacer("_", " ", "-", " ").Replace(word)
	for s := bgagent.TodoPending; s <= bgagent.TodoCancelled; s++ {
		if strings.EqualFold(s.String(), word) {
			return s
		}
	}
	return bgagent.TodoPending
}

// stopReason returns the stop reason with the name. An unknown name counts as StopError. If
// the name is empty, the result is StopError if there is a problem, else StopEndOfTurn.
func stopReason(word, problem string) bgagent.StopReason {
	if word == "" {
		if problem != "" {
			return bgagent.StopError
		}
		return bgagent.StopEndOfTurn
	}
	for s := bgagent.StopEndOfTurn; s <= bgagent.StopError; s++ {
		if strings.EqualFold(s.String(), word) {
			return s
		}
	}
	if stop, known := stopOf(word); known {
		return stop
	}
	return bgagent.StopError
}
