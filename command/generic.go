package command

import (
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// Text is any program that reads a prompt from standard input and prints its
// answer as plain text, in turns that know nothing of each other. Exit code 0
// says that the answer is whole.
//
// Change the fields of what it returns for a program that wants its prompt as
// an argument, or that can continue a session:
//
//	p := command.Text("llm")
//	p.Start.Prompt = []string{"--", "{prompt}"}
//	p.Model = []string{"-m", "{model}"}
func Text(executable string) Program {
	return Program{Executable: executable}
}

// Lines is any program that reads a prompt from standard input and prints JSON
// lines of the form that [DecodeLines] reads. To continue a session it is called
// with --session=ID.
func Lines(executable string) Program {
	return Program{Executable: executable, Resume: Form{Args: []string{"--session={session}"}}, Decode: DecodeLines}
}

// simpleLine is a line of the form that DecodeLines reads.
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

// DecodeLines returns a decoder for JSON lines of a small form that is easy to
// print from any language. What a line means is said by its type; unknown types
// and fields are ignored, fields of another type are as if they were not there
// (but an error or a stop is one, whatever its type), and what is said after the end is not part of the answer:
//
//	{"type":"session","id":"s1"}                       the program's id of the session
//	{"type":"text","text":"…"}                         a piece of the answer
//	{"type":"message","text":"…"}                      a whole message
//	{"type":"reasoning","text":"…"}                    what the agent thinks
//	{"type":"tool","id":"1","name":"grep","state":"running"}  pending, running, done or failed
//	{"type":"todos","todos":[{"text":"…","state":"pending"}]}  pending, in progress, completed or cancelled
//	{"type":"usage","input":10,"output":5,"cost":0.01} since it was last told
//	{"type":"activity"}                                something happens
//	{"type":"end"}                                     the turn is over and went well
//	{"type":"end","stop":"error","error":"…"}          or did not; see below
//
// The stop of an end is the name of a [bgagent.StopReason]: "end of turn",
// "length", "turn limit", "refused", "aborted", "interrupted" or "error". The
// words of models, such as "max_tokens", are known too; any other is an error.
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

// todoState reads the name of a state, however its words are joined.
func todoState(word string) bgagent.TodoState {
	word = strings.NewReplacer("_", " ", "-", " ").Replace(word)
	for s := bgagent.TodoPending; s <= bgagent.TodoCancelled; s++ {
		if strings.EqualFold(s.String(), word) {
			return s
		}
	}
	return bgagent.TodoPending
}

// stopReason reads the name of a stop reason. One that is not known is no
// success.
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
