package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/sqlite"
)

const (
	chapters = 6 // number of tasks
	steps    = 4 // number of steps per task

	storeName   = "store"
	stepsName   = "steps"   // one line for each completed step
	promptsName = "prompts" // one line for each prompt that an agent received
	toldName    = "told"    // one line for each reported completion
)

func chapterName(n int) string     { return fmt.Sprint("chapter ", n) }
func answer(chapter string) string { return "The summary of " + chapter + "." }

// worker is the process with the tasks. Both processes run the same code. The first process finds
// an empty store and launches the tasks; the second process continues the tasks that it finds.
func worker() error {
	a := &agent{dir: os.Getenv(folderVariable), slow: os.Getenv(lifeVariable) == "1"}
	client := inproc.New(map[string]inproc.Agent{"summary": a.summarize})
	client.Restore = a.restore
	m, err := bgagent.New(client, bgagent.Config{
		Store:  sqlite.New(filepath.Join(a.dir, storeName), sqlite.Options{}),
		Limits: bgagent.Limits{Default: 2},
		Wake:   bgagent.WakeEach,
		Notify: a.notify,
	})
	if err != nil {
		return err
	}
	if m.Restored().Tasks == 0 {
		for i := range chapters {
			t, err := m.Launch(context.Background(), bgagent.Caller{Session: "main"}, bgagent.LaunchInput{
				Agent: "summary", Description: chapterName(i + 1), Prompt: "Summarize " + chapterName(i+1) + ".",
			})
			if err != nil {
				return err
			}
			fmt.Println("accepted", t.ID) // from now on, the task survives a crash
		}
	}
	m.Start()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(m.Drain(ctx), m.Close(ctx)) // Drain waits until everything has ended and been reported
}

// agent is an agent that works in steps. Like an agent that edits files, it leaves traces outside
// its session: one line for each step.
type agent struct {
	dir  string
	slow bool // whether chapters 3 and 4 stop in the middle, so that the process is killed during their turns
}

// The method "summarize" does the steps that have not been done yet. If an earlier turn was
// interrupted, it takes the steps of that turn into account.
func (a *agent) summarize(ctx context.Context, t *inproc.Turn) (string, error) {
	chapter := t.Title()
	if err := a.note(promptsName, t.Prompt.ID); err != nil {
		return "", err
	}
	for step := a.done(chapter) + 1; step <= steps; step++ {
		if a.slow && step == 3 && (chapter == chapterName(3) || chapter == chapterName(4)) {
			fmt.Println("working", chapter)
			<-ctx.Done()
			return "", ctx.Err()
		}
		if err := a.note(stepsName, fmt.Sprintf("%s, step %d", chapter, step)); err != nil {
			return "", err
		}
	}
	return answer(chapter), nil
}

// The method "restore" finds out how far the killed process got with the session's last prompt.
func (a *agent) restore(_ context.Context, r bgagent.SessionRestore) (inproc.Restored, error) {
	switch {
	case count(a.dir, promptsName)[r.Last.ID] == 0:
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil // the agent has not begun, so it gets the same prompt
	case a.done(r.Spec.Title) == steps:
		return inproc.Restored{Prompt: bgagent.PromptAnswered, End: bgagent.TurnEnd{Text: answer(r.Spec.Title)}}, nil
	}
	return inproc.Restored{Prompt: bgagent.PromptInterrupted}, nil // the agent gets a prompt that asks it to continue
}

// The method "done" returns how many steps of the chapter have been done.
func (a *agent) done(chapter string) (n int) {
	for line := range count(a.dir, stepsName) {
		if strings.HasPrefix(line, chapter+",") {
			n++
		}
	}
	return n
}

// The method "notify" implements Config.Notify. It notes the completions that are reported to the
// session "main".
func (a *agent) notify(_ context.Context, _ string, n bgagent.Notice) error {
	for _, item := range n.Items {
		if err := a.note(toldName, item.Task+" "+item.ID); err != nil {
			return err
		}
		fmt.Println("told", item.Task)
	}
	return nil
}

// The method "note" appends a line to a file. The line is written as a whole or not at all.
func (a *agent) note(name, line string) error {
	f, err := os.OpenFile(filepath.Join(a.dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
