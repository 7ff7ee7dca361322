package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// This file contains the commands that control the tasks of a running "bgagent serve". The command
// that answers a task's question is in answer.go.

// controlCodes describes the exit codes of the commands in this file.
const controlCodes = `

Exit codes: 0 done; 1 the server refused it or did not answer; 2 invalid input, there is no such task, or its bgagent serve does not run.`

// cancelCmd is the command "bgagent cancel".
type cancelCmd struct {
	ID     string `arg:"" help:"Id of the task."`
	Reason string `placeholder:"TEXT" help:"Reason to report to the task's caller, in one line."`
}

// Help implements kong's help provider.
func (cancelCmd) Help() string {
	return `Cancels a task of a running serve, and the tasks that it has launched. The task's caller is notified.` + controlCodes
}

// Run implements the subcommand.
func (c cancelCmd) Run(all *cli, stop stops) error {
	server, id, err := controlled(stop.soft, all, c.ID)
	if err != nil {
		return err
	}
	reason := strings.TrimSpace(c.Reason)
	if reason == "" {
		reason = "cancelled in the terminal"
	}
	defer sayWaiting(id)()
	t, err := server.Cancel(stop.soft, control.CancelInput{ID: id, Reason: reason})
	if err != nil {
		return undone(err, "bgagent show "+id+" tells whether it did")
	}
	return say("cancelled %s, which was %s: %s", t.ID, t.Status.String(), t.Description)
}

// resumeCmd is the command "bgagent resume".
type resumeCmd struct {
	ID     string `arg:"" help:"Id of the task."`
	Prompt string `arg:"" optional:"" help:"What the agent should do next; - reads it from standard input."`
	Again  bool   `help:"Repeat the prompt of the latest attempt."`
	Model  string `placeholder:"MODEL" help:"Use this model from now on."`
}

// Help implements kong's help provider.
func (resumeCmd) Help() string {
	return `Continues a task that has ended, in the same session. The task gets a new attempt with the prompt, and its caller is notified when the attempt ends.` + controlCodes
}

// Run implements the subcommand.
func (c resumeCmd) Run(all *cli, stop stops) error {
	if c.Again == (c.Prompt != "") {
		return &exitError{exitInput, errors.New("say what the agent should do next: bgagent resume ID PROMPT, or bgagent resume ID --again for the same prompt")}
	}
	server, id, err := controlled(stop.soft, all, c.ID)
	if err != nil {
		return err
	}
	in := control.ResumeInput{ID: id, Model: c.Model}
	if !c.Again {
		if in.Prompt, err = textOf(stop, c.Prompt, "prompt"); err != nil {
			return err
		}
	}
	defer sayWaiting(id)()
	t, err := server.Resume(stop.soft, in)
	if err != nil {
		return undone(err, "bgagent show "+id+" tells whether it did")
	}
	return say("resumed %s, attempt %s: %s", t.ID, fmt.Sprint(t.Attempt), t.Description)
}

// sendCmd is the command "bgagent send".
type sendCmd struct {
	ID   string `arg:"" help:"Id of the task."`
	Text string `arg:"" help:"The message; - reads it from standard input."`
	Now  bool   `help:"Add the message to the running turn, if the agent supports this."`
	Key  string `placeholder:"KEY" help:"Send the message only if the task has no message with this key; otherwise print the state of that message."`
}

// Help implements kong's help provider.
func (sendCmd) Help() string {
	return `Sends a message to a task that has not ended. The message becomes the prompt of a further turn of the task; with --now, it joins the turn that is running.` + controlCodes
}

// Run implements the subcommand.
func (c sendCmd) Run(all *cli, stop stops) error {
	server, id, err := controlled(stop.soft, all, c.ID)
	if err != nil {
		return err
	}
	text, err := textOf(stop, c.Text, "message")
	if err != nil {
		return err
	}
	if c.Key == "" {
		c.Key = rand.Text()
	}
	defer sayWaiting(id)()
	r, err := server.Send(stop.soft, control.SendInput{ID: id, Key: c.Key, Text: text, Now: c.Now})
	if err != nil {
		return undone(err, "with --key "+c.Key+", the command can be repeated, and the message is sent only once")
	}
	how := r.State.String()
	if r.State == bgagent.MessageAccepted {
		how += "; it waits for its turn"
	}
	return say("message %s to %s: %s", r.Key, id, how)
}

// waitingTime is how long a command waits for an answer before it prints what it is waiting for.
const waitingTime = 3 * time.Second

// sayWaiting prints, after a while, that the command is waiting for the task's server. The returned function
// cancels this message.
func sayWaiting(id string) (stop func()) {
	t := time.AfterFunc(waitingTime, func() {
		warn("waiting for the answer of the bgagent serve that has task %s; Ctrl-C stops the wait", id)
	})
	return func() { t.Stop() }
}

// maxText is the maximum size, in bytes, of a text that is read from standard input.
const maxText = 1 << 20

// textOf returns a text from the command line. If the text is a dash, textOf reads it from standard
// input.
func textOf(stop stops, text, what string) (string, error) {
	if text == "-" {
		b, err := untilStopped(stop.soft, func() ([]byte, error) { return io.ReadAll(io.LimitReader(os.Stdin, maxText+1)) })
		switch {
		case err != nil:
			return "", fmt.Errorf("reading the %s from standard input: %w", what, err)
		case len(b) > maxText:
			return "", &exitError{exitInput, fmt.Errorf("the %s on standard input has more than %d bytes; shorten it", what, maxText)}
		}
		text = string(b)
	}
	if strings.TrimSpace(text) == "" {
		return "", &exitError{exitInput, fmt.Errorf("the %s is empty; write one", what)}
	}
	return text, nil
}

// say prints one line. The arguments can be untrusted text.
func say(format string, texts ...string) error {
	_, err := fmt.Println(cleantext.Line(fmt.Sprintf(format, clean(texts...)...)))
	return err
}
