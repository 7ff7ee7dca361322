//go:build linux

package command

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

// moment describes a moment at which a host is killed.
type moment struct {
	name  string
	reply func(r real, x *restoring) modelserver.Handler // the model's answer to the first prompt
	wait  func(x *restoring)                             // waits until the moment has come
	late  bool                                           // whether the session is restored only after the program has exited, on its own or because it was killed
	want  []bgagent.PromptState
}

// restoring is a session whose host is killed.
type restoring struct {
	*testing.T
	h    *host
	w    *realagent.World
	said chan struct{} // closed when the model has sent the beginning of its answer
}

const marker = "a request for the violet report"

// The method "asks" returns when the function "ok" accepts the list of the agents' requests to the
// model.
func (x *restoring) asks(ok func([]modelserver.Request) bool) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	require.NoError(x, x.w.Model.WaitFor(ctx, func([]modelserver.Request) bool { return ok(x.requests()) }))
}

// The method "requests" returns the agents' requests to the model.
func (x *restoring) requests() (list []modelserver.Request) {
	for _, r := range x.w.Model.Requests() {
		if r.Kind == modelserver.Main {
			list = append(list, r)
		}
	}
	return list
}

// The method "runs" reports whether a process of the world has exactly this command line. The
// command line of an agent program can contain the text of the prompt, and thus the command that
// the model asks for.
func (x *restoring) runs(command string) bool {
	return slices.ContainsFunc(x.w.Processes(), func(p string) bool {
		_, line, _ := strings.Cut(p, " ")
		return line == command
	})
}

func answers(real, *restoring) modelserver.Handler {
	return func(modelserver.Request) modelserver.Reply { return modelserver.Say("the violet answer") }
}

var moments = []moment{
	{
		name: "at the start", reply: answers, late: true,
		wait: func(x *restoring) {
			require.True(x, until(patience, func() bool { return x.h.program() > 0 && len(x.h.read("saved")) > 0 }))
		},
		want: []bgagent.PromptState{bgagent.PromptMissing, bgagent.PromptInterrupted, bgagent.PromptAnswered},
	},
	{
		name: "before the first byte",
		reply: func(real, *restoring) modelserver.Handler {
			return func(modelserver.Request) modelserver.Reply { return modelserver.Reply{Mute: true} }
		},
		wait: func(x *restoring) { x.asks(func(all []modelserver.Request) bool { return len(all) > 0 }) },
		want: []bgagent.PromptState{bgagent.PromptMissing, bgagent.PromptInterrupted},
	},
	{
		name: "in the text",
		reply: func(_ real, x *restoring) modelserver.Handler {
			begun := sync.OnceFunc(func() { close(x.said) })
			return func(r modelserver.Request) modelserver.Reply {
				return modelserver.Reply{Pieces: func(yield func(string) bool) {
					if yield("I begin") {
						begun()
						<-r.Context().Done()
					}
				}}
			}
		},
		wait: func(x *restoring) {
			select {
			case <-x.said:
			case <-time.After(patience):
				require.Fail(x, "the model was not asked")
			}
		},
		want: []bgagent.PromptState{bgagent.PromptMissing, bgagent.PromptInterrupted},
	},
	{
		name: "in a command",
		reply: func(r real, x *restoring) modelserver.Handler {
			return func(q modelserver.Request) modelserver.Reply {
				if len(q.LastResults()) > 0 {
					return modelserver.Say("the command has ended")
				}
				tool, args, _ := strings.Cut(strings.TrimPrefix(r.shell("sleep 302"), "@tool "), " ")
				return modelserver.Use(tool, args)
			}
		},
		wait: func(x *restoring) {
			require.True(x, until(patience, func() bool { return x.runs("sleep 302") }))
			require.True(x, until(patience, func() bool { return x.w.HasStored(marker) })) // Claude Code stores the prompt late
			if x.h.Preset != "opencode" {                                                  // opencode reports a tool call only after the call ends
				x.h.waits("saved", `"called":true`)
			}
		},
		want: []bgagent.PromptState{bgagent.PromptInterrupted},
	},
	{
		name: "after the answer", reply: answers, late: true,
		wait: func(x *restoring) {
			x.asks(func(all []modelserver.Request) bool { return len(all) > 0 && all[0].Done })
		},
		want: []bgagent.PromptState{bgagent.PromptMissing, bgagent.PromptInterrupted, bgagent.PromptAnswered},
	},
}

// Each turn of a program takes seconds. Therefore, without the flag -command.slow, some
// cases are skipped: the program's process group is killed only while a command is running, and
// the hosts of gemini and opencode are killed only while a command is running, and never together
// with the process group.
func TestRealSessionsOfAKilledHostAreRestored(t *testing.T) {
	t.Parallel()
	for _, r := range reals {
		for _, at := range moments {
			for _, group := range []bool{false, true} {
				brief := r.name == "gemini" || r.name == "opencode"
				if !*slow && (at.name != "in a command" && (brief || group) || brief && group) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/group=%v", r.name, at.name, group), func(t *testing.T) {
					t.Parallel()
					restoreReal(t, r, at, group)
				})
			}
		}
	}
}

func restoreReal(t *testing.T, r real, at moment, group bool) {
	w := realagent.New(t, r.name)
	a := r.agent(w)
	plan := hostPlan{Preset: r.name, Command: a.Command, Env: a.Env, Model: a.Model, Dir: w.Dir}
	plan.Prompt = bgagent.Prompt{ID: "bg_1.1.1", Task: "bg_1", Attempt: 1, Turn: 1, Text: marker}
	if r.name == "gemini" || r.name == "claude" {
		plan.Prompt.Permissions = everything
	}
	x := &restoring{T: t, w: w, said: make(chan struct{})}
	first := at.reply(r, x)
	w.Model.Handle(func(q modelserver.Request) modelserver.Reply {
		if q.Kind != modelserver.Main {
			return q.Scripted()
		}
		return first(q)
	})
	x.h = startHost(t, plan)
	at.wait(x)
	if group {
		x.h.killAll()
	} else {
		x.h.kill()
	}
	if at.late {
		require.True(t, until(patience, func() bool { return len(w.Processes()) == 0 }), "the program does not end: %q", w.Processes())
	}
	c, state, end, err := x.h.restored()
	t.Logf("%v %q %v, saved: %s", state, end.Text, err, x.h.read("saved"))
	require.NoError(t, err)
	require.Empty(t, w.Processes())
	require.Contains(t, at.want, state)
	id, text := "bg_1.2.1", "Please go on."
	switch state {
	case bgagent.PromptAnswered:
		require.Equal(t, "the violet answer", end.Text)
	case bgagent.PromptMissing:
		id, text = plan.Prompt.ID, plan.Prompt.Text
	}
	x.asks(func(all []modelserver.Request) bool {
		return !slices.ContainsFunc(all, func(q modelserver.Request) bool { return !q.Done })
	})
	asked := len(x.requests())
	w.Model.Handle(func(q modelserver.Request) modelserver.Reply {
		if q.Kind != modelserver.Main {
			return q.Scripted()
		}
		return modelserver.Say("here again")
	})
	end, err = x.h.next(c, id, text)
	require.NoError(t, err)
	require.Equal(t, "here again", end.Text)
	list := x.requests()
	require.Len(t, list, asked+1, "the model received an unexpected request")
	var all []string
	for _, m := range list[len(list)-1].Messages {
		all = append(all, m.Text)
	}
	require.Equal(t, 1, strings.Count(strings.Join(all, "\n"), marker), "%q", all)
	require.Equal(t, 1, strings.Count(strings.Join(all, "\n"), text), "%q", all)
	require.Empty(t, w.Processes())
}
