package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// showCmd is the command "bgagent show".
type showCmd struct {
	ID       string `arg:"" help:"Id of the task."`
	Prompt   bool   `xor:"what" help:"Print the prompt of the latest attempt, and nothing else."`
	Messages bool   `xor:"what" help:"Print the conversation of the task's session. The agent must be configured, and its server must run."`
}

// Help implements kong's help provider.
func (showCmd) Help() string {
	return `Prints what is kept of a task: its state, its attempts and its result. It can be used while the task runs.

Exit codes: 0 the task was printed; 1 it could not be read, or the output could not be written; 2 invalid input, or there is no such task.`
}

// Run implements the subcommand.
func (c showCmd) Run(all *cli, stop stops) error {
	folder, err := all.folder()
	if err != nil {
		return err
	}
	v, t, server, shared, err := findAnywhere(stop.soft, folder, c.ID)
	if err != nil {
		return err
	}
	if server != nil {
		return c.showShared(all, stop, shared)
	}
	defer v.reader.Close()
	if server, err := v.server(); err == nil {
		latest, err := server.Task(stop.soft, control.TaskInput{ID: t.ID})
		switch {
		case err == nil:
			t = latest
			if s, err := server.Status(stop.soft); err == nil {
				v.now = &s
			}
		case stop.soft.Err() == nil:
			warn("%v: %v; the output comes from its store", v, err)
		}
	}
	switch {
	case c.Messages:
		return printMessages(all, stop, t)
	case c.Prompt:
		text, err := v.text(t, "prompt")
		if err != nil {
			return err
		}
		return printText(os.Stdout, text)
	}
	return v.print(os.Stdout, t)
}

// The function "shown" returns the id in a form that is suitable for a message: on one line, and no wider
// than a terminal.
func shown(id string) string {
	const most = 80
	if len(id) > most {
		id = strings.ToValidUTF8(id[:most], "") + "…"
	}
	if cleantext.Line(id) != id {
		return strconv.Quote(id)
	}
	return id
}

// find returns the task with the given id, and the view of its store. The id can also be the id of the task's
// session. If the error is nil, the caller must close the view's reader.
func find(folder statedir.Folder, id string) (*view, bgagent.Task, error) {
	stores, err := folder.Stores()
	if err != nil {
		return nil, bgagent.Task{}, fmt.Errorf("reading the state folder: %w", err)
	}
	v, t, err := findKept(stores, id)
	switch {
	case v != nil:
		return v, t, err
	case err != nil:
		return nil, t, &exitError{exitFailed, errors.Join(err, notKept(folder, stores, id))}
	}
	return nil, t, notKept(folder, stores, id)
}

// notKept returns the error for an id that no task has.
func notKept(folder statedir.Folder, stores []statedir.Store, id string) error {
	return &exitError{exitInput, fmt.Errorf("no task %s is kept in %s; %s", shown(id), folder.Dir(), instead(stores, id))}
}

// findKept is like the function "find", but the task may be missing. If it is missing, the view is nil, and the
// error says which stores cannot be read.
func findKept(stores []statedir.Store, id string) (*view, bgagent.Task, error) {
	var problems []error
	for _, s := range stores {
		if s.Cluster != "" {
			continue
		}
		v, err := openView(s)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, fmt.Errorf("the tasks of %v cannot be read: %w", s, err))
			}
			continue
		}
		t, found, err := v.find(id)
		if found {
			return v, t, err
		}
		if err = errors.Join(err, v.reader.Close()); err != nil {
			problems = append(problems, err)
		}
	}
	return nil, bgagent.Task{}, errors.Join(problems...)
}

// The function "instead" returns a hint for an id that no task has. If possible, the hint names
// tasks that the user might have meant.
func instead(stores []statedir.Store, id string) string {
	var alike []string
	// Tasks that cannot be read are not suggested.
	_ = eachView(context.Background(), stores, statusEnded, func(v *view) error {
		for _, t := range v.tasks {
			if strings.HasPrefix(t.ID, id) && t.ID != id { // an equal id belongs to a task of a cluster, and the command cannot use this task
				alike = append(alike, t.ID)
			}
		}
		return nil
	})
	const most = 3
	switch n := len(alike); {
	case n == 0:
		return "bgagent tasks --all lists the tasks"
	case n == 1:
		return "did you mean " + alike[0] + "?"
	case n <= most:
		return fmt.Sprintf("%d tasks begin with it: %s; write the whole id", n, strings.Join(alike, ", "))
	default:
		return fmt.Sprintf("%d tasks begin with it, such as %s; write the whole id", n, strings.Join(alike[:most], ", "))
	}
}

// find returns the task with the given id, and whether the store contains the task. The id can also be the id
// of the task's session. If find returns true and an error, the task's record cannot be decoded.
func (v *view) find(id string) (bgagent.Task, bool, error) {
	page, err := v.reader.History(context.Background(), bgagent.StoreQuery{Ref: id, Limit: 1})
	if err == nil && len(page) == 0 {
		page, err = v.reader.Live(context.Background())
	}
	for i := range page {
		if page[i].Key == id || page[i].Session == id {
			t, err := page[i].Task()
			v.tasks = []bgagent.Task{t}
			v.due[t.ID] = page[i].Due
			return t, true, err
		}
	}
	return bgagent.Task{}, false, err
}

// text returns the prompt or the result of the task's latest attempt, as selected by the argument "what". If
// the store does not contain the text, it returns an empty string.
func (v *view) text(t bgagent.Task, what string) (string, error) {
	if v.reader == nil { // the server has returned the texts
		return map[string]string{"prompt": t.Prompt, "result": t.Result}[what], nil
	}
	text, err := v.reader.Text(context.Background(), t.ID, fmt.Sprintf("%s.%d", what, t.Attempt))
	if errors.Is(err, bgagent.ErrNoText) {
		return "", nil
	}
	return text, err
}

// printText writes text without escape sequences or control characters.
func printText(w io.Writer, text string) error {
	_, err := fmt.Fprintln(w, strings.TrimRight(cleantext.String(text), "\n"))
	return err
}

// print writes the fields of the task, its attempts and its result.
func (v *view) print(w io.Writer, t bgagent.Task) error {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s %s\n", name+":", cleantext.Line(value))
		}
	}
	line("task", t.ID)
	line("status", v.status(t))
	if _, detail := doing(t, time.Now(), v.silent()); v.lives && !t.Status.Terminal() {
		line("phase", t.Phase.String())
		line("doing", detail)
	} else {
		line("reason", plainReason(t))
	}
	line("description", t.Description)
	line("agent", t.Agent)
	line("model", t.Model)
	line("fallback", t.Fallback)
	line("session", t.Session)
	line("launched by", t.Parent)
	line("kept by", v.String())
	if v.lives && v.process == "" {
		line("process", fmt.Sprint(v.owner.PID))
	}
	for _, at := range []struct {
		name string
		time time.Time
	}{{"launched", t.Queued}, {"started", t.Started}, {"ended", t.Ended}} {
		if !at.time.IsZero() {
			line(at.name, at.time.Local().Format(time.DateTime))
		}
	}
	if u := t.Progress.Usage; u != (bgagent.Usage{}) {
		line("tokens", fmt.Sprintf("%d in, %d out", u.InputTokens, u.OutputTokens))
		if u.Cost > 0 { // clients that do not know the cost report 0
			line("cost", fmt.Sprintf("$%.4f", u.Cost))
		}
	}
	if t.Budget != (bgagent.BudgetUse{}) {
		line("budget used", t.Budget.String())
	}
	for _, a := range t.Attempts {
		line(fmt.Sprintf("attempt %d", a.Number), strings.TrimSpace(fmt.Sprintf("%v %v %s", a.Status, a.Cause, a.Reason)))
	}
	if !t.Status.Terminal() {
		if v.lives {
			printQuestions(w, t, v.Kind == statedir.Serve)
		}
		return nil
	}
	text, err := v.text(t, "result")
	if err != nil || text == "" {
		return err
	}
	fmt.Fprintln(w)
	return printText(w, text)
}

// printMessages prints the conversation of the task's session. It reads the conversation from
// the agent's server.
func printMessages(all *cli, stop stops, t bgagent.Task) error {
	set, err := all.settings()
	if err != nil {
		return err
	}
	crew, err := fleet.New(set, fleet.Options{})
	if err != nil {
		return &exitError{exitInput, err}
	}
	messages, err := crew.Messages(stop.soft, t)
	if err != nil {
		return errors.Join(err, crew.Close(stop.hard))
	}
	for _, m := range messages {
		fmt.Fprintf(&stdout, "== %v %s\n", m.Role, m.Time.Local().Format(time.DateTime))
		for _, tool := range m.Tools {
			fmt.Fprintf(&stdout, "   (tool %s: %v)\n", cleantext.Line(tool.Name), tool.State)
		}
		if m.Text != "" {
			err = errors.Join(err, printText(os.Stdout, m.Text))
		}
	}
	return errors.Join(err, crew.Close(stop.hard))
}
