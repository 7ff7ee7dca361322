// Command approval runs a task that asks for permission in the middle of its turn. The host
// shows the question and answers it, and the task continues with the answer.
package main

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func main() {
	ctx := context.Background()
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"cleaner": cleaner}), bgagent.Config{
		Ask: true, // otherwise, every question is refused immediately
	})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close(ctx)
	_, events := m.Subscribe(0)
	defer events.Close()

	for _, folder := range []string{"build", "secrets"} {
		_, err := m.Launch(ctx, bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "cleaner", Prompt: folder})
		if err != nil {
			log.Fatal(err)
		}
		for e := range events.Events(ctx) {
			if e.Kind == bgagent.EventQuestion && e.Question.State == bgagent.QuestionOpen {
				fmt.Printf("%s\n   %s\n   %s? %s\n", e.Question.Title, e.Question.Subject, strings.Join(e.Question.Options, " or "), decide(e.Question))
				answer := bgagent.AnswerInput{Key: e.Question.Key, Option: decide(e.Question)}
				if _, err := m.Answer(ctx, bgagent.Caller{}, e.Task.ID, answer); err != nil { // the zero Caller is the host
					log.Fatal(err)
				}
			}
			if e.Kind == bgagent.EventEnded {
				fmt.Printf("%s: %s\n", e.Task.Status, e.Task.Result)
				break
			}
		}
	}
}

// The function "decide" simulates a person who reads the question. A real program could show the
// question in a window and answer it hours later.
func decide(q *bgagent.Question) string {
	if strings.Contains(q.Subject, "secrets") {
		return "deny"
	}
	return "allow"
}

// cleaner removes a folder if it is allowed to.
func cleaner(ctx context.Context, t *inproc.Turn) (string, error) {
	command := "rm -r " + t.Prompt.Text
	answer, err := t.Ask(ctx, bgagent.Question{
		Kind:    bgagent.QuestionPermission,
		Title:   "May I run a command?",
		Subject: command,
		Options: []string{"allow", "deny"},
	})
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil: // nobody was asked, or nobody answered in time
		return "I have kept the folder: " + err.Error(), nil
	case answer == "allow":
		return "I have run " + command, nil
	default:
		return "I have kept the folder", nil
	}
}
