package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// answerCmd is the command "bgagent answer".
type answerCmd struct {
	ID    string   `arg:"" help:"Id of the task."`
	Words []string `arg:"" name:"key-and-option" help:"Key of the question, which can be left out if the task asks only one question and it is not for a permission, and the option to choose."`
}

// Help implements kong's help provider.
func (answerCmd) Help() string {
	return `Answers a question of a task of a running serve, as in "bgagent answer ID KEY allow" or "bgagent answer ID main". A permission needs the key. bgagent show prints the questions of a task with their keys, subjects and options; bgagent status lists all that are open. An answer counts once.` + controlCodes
}

// Run implements the subcommand.
func (c answerCmd) Run(all *cli, stop stops) error {
	if len(c.Words) > 2 {
		return &exitError{exitInput, errors.New("there are too many arguments; bgagent answer ID [KEY] OPTION answers a question. Quote an option that contains spaces")}
	}
	server, id, err := controlled(stop.soft, all, c.ID)
	if err != nil {
		return err
	}
	in := control.AnswerInput{ID: id, Option: c.Words[len(c.Words)-1]}
	if len(c.Words) == 2 {
		in.Key = c.Words[0]
	}
	defer sayWaiting(id)()
	if in.Key == "" {
		t, err := server.Task(stop.soft, control.TaskInput{ID: id})
		if err != nil {
			return err
		}
		if in.Key, err = onlyQuestion(t); err != nil {
			return &exitError{exitInput, err}
		}
	}
	q, err := server.Answer(stop.soft, in)
	if err != nil {
		return undone(err, "bgagent show "+id+" tells whether it did")
	}
	return say("answered %s with %s: %s", id, q.Answer, q.Title)
}

// onlyQuestion returns the key of the only question of a task. A question that asks for permission must be
// named by its key. Otherwise, a user could grant a permission that was requested after the user looked at
// the questions.
func onlyQuestion(t bgagent.Task) (string, error) {
	switch len(t.Questions) {
	case 0:
		return "", fmt.Errorf("task %s asks nothing", t.ID)
	case 1:
		q := t.Questions[0]
		if q.Kind == bgagent.QuestionPermission {
			return "", fmt.Errorf("task %s asks for a permission, so the key is needed; bgagent show %[1]s prints what it is for, with the key", t.ID)
		}
		return q.Key, nil
	}
	var keys []string
	for _, q := range t.Questions {
		keys = append(keys, cleantext.Line(q.Key)+" ("+cleantext.Line(q.Title)+")")
	}
	return "", fmt.Errorf("task %s asks several questions, so the key of one is needed: %s", t.ID, strings.Join(keys, ", "))
}

// printQuestions writes a task's open questions and, if commands can control the task, the commands
// that answer them. Each command is on a separate line, so that it can be copied.
func printQuestions(w io.Writer, t bgagent.Task, controlled bool) {
	for _, q := range t.Questions {
		fmt.Fprintf(w, "\n%s: %s (%s)\n", clean(t.ID, q.Title, q.Kind.String())...)
		if subject := strings.TrimRight(cleantext.String(q.Subject), "\n"); strings.TrimSpace(subject) != "" {
			fmt.Fprintf(w, "\n    %s\n\n", strings.ReplaceAll(subject, "\n", "\n    "))
		}
		expires := q.Expires.Local().Format(time.DateTime)
		if !controlled {
			fmt.Fprintf(w, "  expires %s; only the model that launched the task can answer\n", expires)
			continue
		}
		fmt.Fprintf(w, "  expires %s; to answer:\n", expires)
		for _, command := range answerCommands(t.ID, q) {
			fmt.Fprintf(w, "  %s\n", command)
		}
	}
}

// answerCommands returns, for each option, a command that answers the question with that option.
func answerCommands(id string, q bgagent.Question) (commands []string) {
	for _, option := range q.Options {
		words := []string{"bgagent answer"}
		if strings.HasPrefix(q.Key, "-") || strings.HasPrefix(option, "-") {
			words = append(words, "--")
		}
		commands = append(commands, strings.Join(append(words, quoted(id), quoted(q.Key), quoted(option)), " "))
	}
	return commands
}

// The function "quoted" puts the word in quotes for a POSIX shell, if necessary. It removes control
// characters.
func quoted(word string) string {
	word = cleantext.Line(word)
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || slices.Contains([]rune("_-.:/@%+,"), r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
