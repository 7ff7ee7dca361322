package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/kills"
)

// This file contains the process that TestNoKillLosesOrRepeatsWork kills. The process runs tasks whose agents
// are Go functions, keeps them in a store, and logs everything that is visible outside the manager.

const (
	killLimit = 8 // number of turns that may run at the same time
	killCap   = 2 // number of turns of the agent "again" that may run at the same time
	killModel = "model"
)

// killAgent returns the agent of the task with the given number. The agents differ in their treatment of
// interrupted turns:
//
//   - For "once" and "delegate", the client knows from the log which prompts their sessions have received.
//     The agent "delegate" launches two tasks of "once" and waits for them.
//   - The turns of "again" may be repeated.
//   - The client knows nothing about the sessions of "unknown".
func killAgent(n int) string {
	return [...]string{"once", "once", "again", "once", "delegate", "once", "again", "unknown", "once", "once"}[n%10]
}

func killPrompt(name string) string { return "Answer " + name + ".\n" }

func killTask(name, agent string) bgagent.LaunchInput {
	return bgagent.LaunchInput{Agent: agent, Model: killModel, Description: name, Prompt: killPrompt(name)}
}

// killAnswer returns the answer of the task with the given name. Its length differs between tasks.
func killAnswer(name string) string {
	line := "Answer of " + name + ": é, 世界, \t\"quoted\" <&> \\u0000\n"
	return strings.Repeat(line, 1+len(name)*7%13*11) + "the end of " + name
}

// killWorld is the state of the process.
type killWorld struct {
	*kills.Host
	before map[string]kills.Line // last line about a turn of an earlier process, by prompt id
}

// killedProcess is the main function of the process.
func killedProcess(o kills.Order) error {
	h, lines, err := o.Host()
	if err != nil {
		return err
	}
	h.Launch = func(n int) bgagent.LaunchInput { return killTask(kills.Name(n), killAgent(n)) }
	h.Cancels = func(n int) bool { return n%10 == 9 }
	h.Ends = time.Minute
	w := &killWorld{h, map[string]kills.Line{}}
	for _, x := range lines {
		if x.What == kills.Begin || x.What == kills.End {
			w.before[x.Prompt] = x
		}
	}
	client := inproc.New(map[string]inproc.Agent{"once": w.work, "again": w.work, "unknown": w.work, "delegate": w.delegate})
	client.Restore = w.restore
	m, err := bgagent.New(client, bgagent.Config{
		Store:           New(filepath.Join(o.Dir, "store"), Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}),
		Limits:          bgagent.Limits{Default: killLimit, Agent: map[string]int{"again": killCap}},
		MaxDepth:        2,
		MaxTasksPerRoot: bgagent.Unlimited,
		Wake:            bgagent.WakeEach,
		NoticeWindow:    bgagent.Disabled,
		Notify:          h.Notify,
	})
	if err != nil {
		return err
	}
	return h.Run(m, lines)
}

func (w *killWorld) begin(t *inproc.Turn) (end func(string) (string, error)) {
	p := t.Prompt
	w.Log.Add(kills.Line{What: kills.Begin, Task: p.Task, Name: t.Title(), Prompt: p.ID, Text: p.Text})
	return func(answer string) (string, error) {
		w.Log.Add(kills.Line{What: kills.End, Task: p.Task, Name: t.Title(), Prompt: p.ID, Text: answer})
		return answer, nil
	}
}

// work is the agent of all tasks that do not delegate.
func (w *killWorld) work(ctx context.Context, t *inproc.Turn) (string, error) {
	end := w.begin(t)
	w.Pause(10 * time.Millisecond)
	if ctx.Err() != nil {
		_, err := end("")
		return "", errors.Join(err, ctx.Err())
	}
	return end(killAnswer(t.Title()))
}

// delegate launches two tasks in its first turn. If that turn is repeated, it launches only the missing
// tasks. The answer of its last turn is the task's result.
func (w *killWorld) delegate(ctx context.Context, t *inproc.Turn) (string, error) {
	if t.Prompt.Notice != nil {
		w.Told(*t.Prompt.Notice) // logs the notice before the turn begins, because a session that contains the prompt also contains the notice
	}
	end := w.begin(t)
	if t.Prompt.Notice == nil {
		by, _ := bgagent.CallerFrom(ctx)
		for i := range 2 {
			name := fmt.Sprint(t.Title(), " part ", i)
			if w.Launched(name) {
				continue
			}
			if _, err := w.Accept(by, killTask(name, "once")); err != nil {
				_, _ = end("")
				return "", err
			}
		}
	}
	return end(killAnswer(t.Title()))
}

// The method "restore" reports whether a session has its last prompt, and how far its turn has got.
func (w *killWorld) restore(_ context.Context, r bgagent.SessionRestore) (inproc.Restored, error) {
	last, begun := w.before[r.Last.ID]
	switch {
	case r.Last.ID == "" || r.Spec.Agent == "again":
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
	case r.Spec.Agent == "unknown":
		return inproc.Restored{Prompt: bgagent.PromptUnknown}, nil
	case !begun:
		return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
	case last.What == kills.Begin || last.Text == "": // the turn was killed, or it was stopped because its context had ended
		return inproc.Restored{Prompt: bgagent.PromptInterrupted}, nil
	}
	return inproc.Restored{Prompt: bgagent.PromptAnswered, End: bgagent.TurnEnd{Text: last.Text}}, nil
}
