package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/bgagent/bgagent/internal/modelserver"
)

// The function "offline" starts a model server in this process. Its scripted model knows only this
// example.
func offline() (url string, end func()) {
	s := modelserver.New(script())
	return s.URL + "/v1", s.Close
}

var taskID = regexp.MustCompile(`bg_[0-9a-z]{16}`)

// The function "script" returns a handler for the requests from the leading agent and from the
// background agents. The handler delays its answers to the background agents until the leading
// agent has delegated all tasks.
func script() modelserver.Handler {
	var once sync.Once
	delegated := make(chan struct{})
	return func(r modelserver.Request) modelserver.Reply {
		if r.Offers("delegate_task") {
			if len(r.LastResults()) > 0 {
				once.Do(func() { close(delegated) })
			}
			return lead(r)
		}
		select {
		case <-delegated:
		case <-r.Context().Done():
		}
		return work(r.LastUser(), r.LastResults())
	}
}

func lead(r modelserver.Request) modelserver.Reply {
	switch results := r.LastResults(); {
	case len(results) > 0 && taskID.MatchString(r.LastUser()): // the results were read after the notice
		return modelserver.Say("This is what they found:" + answers(results))
	case len(results) > 0:
		return modelserver.Say("Three agents are working. I will continue when I am notified.")
	case taskID.MatchString(r.LastUser()): // the prompt is a notice
		ids := taskID.FindAllString(r.LastUser(), -1)
		slices.Sort(ids)
		var calls []modelserver.Call
		for _, id := range slices.Compact(ids) {
			calls = append(calls, modelserver.Call{Name: "background_output", Args: fmt.Sprintf(`{"task_id":%q}`, id)})
		}
		return modelserver.Reply{Calls: calls}
	default:
		return modelserver.Reply{Calls: []modelserver.Call{
			delegate("explore", "What is it", "Read README.md and say what this project is."),
			delegate("explore", "How is it built", "Read go.mod and say what this project is built with."),
			delegate("oracle", "What to change", "List the files and say what to change first."),
		}}
	}
}

func delegate(agent, description, prompt string) modelserver.Call {
	return modelserver.Call{Name: "delegate_task", Args: fmt.Sprintf(
		`{"subagent_type":%q,"description":%q,"prompt":%q,"run_in_background":true}`, agent, description, prompt)}
}

// The function "work" answers a background agent. The first answer calls one file tool, and the
// second answer reports the result.
func work(prompt string, results []modelserver.Result) modelserver.Reply {
	file, ok := strings.CutPrefix(prompt, "Read ")
	file, _, _ = strings.Cut(file, " ")
	switch {
	case len(results) == 0 && ok:
		return modelserver.Use("read_file", fmt.Sprintf(`{"path":%q}`, file))
	case len(results) == 0:
		return modelserver.Use("list_files", `{}`)
	case ok:
		first, _, _ := strings.Cut(results[0].Text, "\n")
		return modelserver.Say(file + " begins with " + first)
	default:
		return modelserver.Say(fmt.Sprintf("There are %d names at the top, which is the first thing to look at.", strings.Count(results[0].Text, "\n")+1))
	}
}

// The function "answers" returns the last line of each result of background_output.
func answers(results []modelserver.Result) (out string) {
	for _, r := range results {
		text := strings.TrimSpace(r.Text)
		out += "\n- " + text[strings.LastIndex(text, "\n")+1:]
	}
	return out
}
