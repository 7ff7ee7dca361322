//go:build unix

package command_test

import (
	"context"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/command"
)

// An agent can be any program. The agent in this example answers with its prompt.
func Example() {
	client, err := command.New(command.Config{Agents: map[string]command.Agent{
		"parrot": {Program: command.Text("cat")},
	}})
	if err != nil {
		panic(err)
	}
	defer client.Close(context.Background())
	m, err := bgagent.New(client, bgagent.Config{})
	if err != nil {
		panic(err)
	}
	defer m.Close(context.Background())

	task, err := m.Run(context.Background(), bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "parrot", Prompt: "Hello!"})
	if err != nil {
		panic(err)
	}
	fmt.Println(task.Status, task.Result)
	// Output: completed Hello!
}

// A new program is described by the arguments that begin a session, the arguments that
// continue it, and a decoder for the program's output.
func ExampleProgram() {
	program := command.Program{
		Executable: "my-agent",
		Start:      command.Form{Args: []string{"run", "--json"}, Prompt: []string{"--", "{prompt}"}, Stdin: []string{"-"}},
		Resume:     command.Form{Args: []string{"run", "--json", "--continue={session}"}, Prompt: []string{"--", "{prompt}"}},
		Model:      []string{"--model={model}"},
		Decode:     command.DecodeLines,
		Environ:    []string{"MY_AGENT_*"},
	}
	_, err := command.New(command.Config{Agents: map[string]command.Agent{"mine": {Program: program, Model: "small"}}})
	fmt.Println(err)
	// Output: <nil>
}
