package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestLaunchRefusesBadInputAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, working(time.Second), bgagent.Config{
			Model: func(agent, asked string) (string, error) {
				if asked == "no/such" {
					return "", errors.New("there is no model no/such")
				}
				return asked, nil
			},
			ClientFor: func(agent string) string {
				if agent == "lost" {
					return "nowhere"
				}
				return ""
			},
		})
		for _, in := range []bgagent.LaunchInput{
			{Prompt: "p"}, {Agent: "  ", Prompt: "p"}, {Agent: "a"}, {Agent: "a", Prompt: " \n"},
			{Agent: "a", Prompt: "p", Model: "no/such"}, {Agent: "lost", Prompt: "p"},
		} {
			_, err := m.Launch(t.Context(), root, in)
			require.Error(t, err, "%+v", in)
		}
		require.Empty(t, m.List(bgagent.Query{}))
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "\xffp", Description: "two\nlines | a cell\x00"})
		require.NoError(t, err)
		require.NotContains(t, task.Description, "\n")
		require.Equal(t, "\uFFFDp", task.Prompt)
		_, err = m.Wait(t.Context(), root, bgagent.WaitAll)
		require.ErrorContains(t, err, "ids")
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{})
		require.ErrorContains(t, err, "Prompt")
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, bgagent.ErrStillLive)
		_, err = m.Resume(t.Context(), root, "ses_unknown", bgagent.ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
		ended(t, m, task.ID)
	})
}

func TestTheSameToolCallLaunchesOneTask(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		first, err := m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		again, err := m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		require.Equal(t, first.ID, again.ID)
		for _, other := range []struct {
			by bgagent.Caller
			in bgagent.LaunchInput
		}{
			{bgagent.Caller{Session: "root"}, in}, {bgagent.Caller{Session: "root"}, in},
			{bgagent.Caller{Session: "other", ToolCallID: "call_1"}, in},
			{by, bgagent.LaunchInput{Agent: "b", Prompt: "p"}}, {by, bgagent.LaunchInput{Agent: "a", Prompt: "q"}},
		} {
			task, err := m.Launch(t.Context(), other.by, other.in)
			require.NoError(t, err)
			require.NotEqual(t, first.ID, task.ID)
		}
		ended(t, m, first.ID)
		again, err = m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		require.NotEqual(t, first.ID, again.ID, "a call after the end of the task is not a retry")
	})
}

func TestARepeatedLaunchAsksTheHostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m := manage(t, working(time.Second), bgagent.Config{PrepareLaunch: func(_ context.Context, _ bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
			if n++; n > 1 {
				return in, errors.New("the worktree is there already")
			}
			return in, nil
		}})
		by := bgagent.Caller{Session: "root", ToolCallID: "c"}
		one, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.NoError(t, err)
		two, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.NoError(t, err)
		require.Equal(t, one.ID, two.ID)
	})
}

// With 32-bit ids, two of 50,000 tasks would have the same id in about a quarter of all runs, and
// the older task would be lost.
func TestIDsAreUnguessableAndDistinct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := limit(1)
		cfg.MaxTasksPerRoot = bgagent.Unlimited
		m, err := bgagent.New(working(time.Hour), cfg) // not created by the function "manage", because checking the invariants after each of 50,000 updates would take minutes
		require.NoError(t, err)
		seen := map[string]bool{}
		var letters [16]map[byte]bool
		for i := range letters {
			letters[i] = map[byte]bool{}
		}
		for range 50_000 {
			id := launch(t, m, "p").ID
			require.Len(t, id, len("bg_")+16, "16 characters of 5 bits are 80 random bits")
			require.False(t, seen[id])
			seen[id] = true
			for i, used := range letters {
				used[id[len("bg_")+i]] = true
			}
		}
		for i, used := range letters {
			require.Len(t, used, 32, "character %d is not random", i)
		}
		require.Error(t, m.Close(t.Context()))
	})
}

type valueKey struct{}

// A task must not end when the context of the tool call that launched it ends.
func TestATaskOutlivesTheCallThatLaunchedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen any
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			seen = ctx.Value(valueKey{})
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{})
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), valueKey{}, "tenant"))
		task, err := m.Launch(ctx, root, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.NoError(t, err)
		cancel()
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		require.Equal(t, "tenant", seen)
		_, err = m.Launch(ctx, root, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestDelegationHasABottom(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{MaxDepth: 2, MaxTasksPerRoot: 3}, func(t *testing.T, m *bgagent.BackgroundManager) {
		a := launch(t, m, "a")
		synctest.Wait()
		b, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, a.ID).Session}, bgagent.LaunchInput{Agent: "w", Prompt: "b"})
		require.NoError(t, err)
		require.Equal(t, 2, b.Depth)
		synctest.Wait()
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, b.ID).Session}, bgagent.LaunchInput{Agent: "w", Prompt: "c"})
		require.ErrorIs(t, err, bgagent.ErrDepth)
		launch(t, m, "c")
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "w", Prompt: "d"})
		require.ErrorIs(t, err, bgagent.ErrTooManyTasks)
		require.Len(t, m.List(bgagent.Query{Under: "root"}), 3)
	})
}

// If the parents of a session form a cycle, looking them up must not loop forever.
func TestParentsAreLookedUpAndACircleIsRefused(t *testing.T) {
	f := &finder{goRunner: &goRunner{run: works(time.Hour)}, parents: map[string]string{"a": "b", "b": "c", "c": "a", "child": "root", "root": ""}}
	bubble(t, f, bgagent.Config{MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager) {
		in := bgagent.LaunchInput{Agent: "w", Prompt: "p"}
		_, err := m.Launch(t.Context(), bgagent.Caller{Session: "a"}, in)
		require.ErrorIs(t, err, bgagent.ErrParentCycle)
		task, err := m.Launch(t.Context(), bgagent.Caller{Session: "child"}, in)
		require.NoError(t, err)
		require.Equal(t, 2, task.Depth)
		require.Equal(t, "root", task.Root)
		_, err = m.Read(root, task.ID)
		require.NoError(t, err, "the session also descends from the root session")
		f.err = errors.New("down")
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: "unknown"}, in)
		require.ErrorContains(t, err, "down")
	})
}

func TestATurnCannotCallToolsAsItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var tool bgagent.ToolDef
		var inner error
		f := &goRunner{}
		f.run = func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "outer" { // the host forgot to call WithCaller for this session
				_, inner = tool.Call(ctx, []byte(`{"subagent_type":"a","prompt":"inner"}`))
			}
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		m = manage(t, f, bgagent.Config{}) // MaxDepth 1: a task is not allowed to delegate
		for _, d := range bgagent.Tools(m, bgagent.ToolOptions{}) {
			if d.Name == bgagent.ToolDelegateTask {
				tool = d
			}
		}
		_, err := tool.Call(bgagent.WithCaller(t.Context(), root), []byte(`{"subagent_type":"a","prompt":"outer"}`))
		require.NoError(t, err)
		synctest.Wait()
		require.Error(t, inner)
		require.Len(t, m.List(bgagent.Query{}), 1)
	})
}

// Restrictions must not be lost when a task is resumed, and defaults must not override
// them.
func TestRestrictionsAreTheSameInEveryTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var specs []bgagent.SessionSpec
		var prompts []bgagent.Prompt
		f := &goRunner{}
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			specs = append(specs, s)
			return f.nextID(), nil
		}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			prompts = append(prompts, p)
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		own := bgagent.Permission{Name: "bash", Pattern: "*", Action: bgagent.PermissionDeny}
		m := manage(t, f, bgagent.Config{
			Permissions:      []bgagent.Permission{{Name: "bash", Pattern: "*", Action: bgagent.PermissionAllow}},
			AgentPermissions: func(string) []bgagent.Permission { return []bgagent.Permission{own} },
		})
		task := launch(t, m, "p")
		ended(t, m, task.ID)
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "q", Model: "another/model"})
		require.NoError(t, err)
		ended(t, m, task.ID)
		require.Len(t, prompts, 2)
		for _, p := range prompts {
			require.Equal(t, specs[0].Permissions, p.Permissions)
			require.Equal(t, own, p.Permissions[len(p.Permissions)-1], "the agent's own rules come last, so they decide")
		}
		require.Equal(t, "another/model", prompts[1].Model)
	})
}

func TestAHostCannotChangeTheRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []bgagent.Permission
		f := &goRunner{}
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			slices.Reverse(s.Permissions) // for a host that obeys the first matching rule
			return f.nextID(), nil
		}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			got = slices.Clone(p.Permissions)
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		allow := bgagent.Permission{Name: "*", Pattern: "*", Action: bgagent.PermissionAllow}
		deny := bgagent.Permission{Name: "bash", Pattern: "*", Action: bgagent.PermissionDeny}
		m := manage(t, f, bgagent.Config{Permissions: []bgagent.Permission{allow, deny}})
		ended(t, m, launch(t, m, "a").ID)
		require.Equal(t, deny, got[len(got)-1], "%v", got)
	})
}

func TestPrepareLaunchCompletesWhatAModelAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		var specs []bgagent.SessionSpec
		var prompts []bgagent.Prompt
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			specs = append(specs, s)
			return f.nextID(), nil
		}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			prompts = append(prompts, p)
			time.Sleep(time.Second)
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		seen := 0
		m := manage(t, f, bgagent.Config{PrepareLaunch: func(_ context.Context, by bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
			seen++
			switch in.Agent {
			case "nobody":
				return in, errors.New("nobody may not work here")
			case "panics":
				panic("boom")
			}
			in.Directory, in.System, in.Prompt = "/projects/"+by.Session, fmt.Sprint("skill ", seen), fmt.Sprint(in.Prompt, " no. ", seen)
			in.Metadata = map[string]string{"tree": in.Directory}
			return in, nil
		}})
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		a := bgagent.DelegateTaskArgs{Prompt: "look", SubagentType: "worker"}
		r, err := bgagent.DelegateTask(t.Context(), m, by, a)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, "/projects/root", specs[0].Directory)
		require.Equal(t, "/projects/root", specs[0].Metadata["tree"])
		require.Equal(t, "skill 1", prompts[0].System)
		require.Equal(t, "look no. 1", prompts[0].Text)
		again, err := bgagent.DelegateTask(t.Context(), m, by, a)
		require.NoError(t, err)
		require.Equal(t, r.Task.ID, again.Task.ID, "a repeated call is recognized by its input")

		for agent, says := range map[string]string{"nobody": "nobody may not work here", "panics": "boom"} {
			_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: "p"})
			require.ErrorContains(t, err, "bgagent: launch: preparing the launch: ")
			require.ErrorContains(t, err, says)
		}
		require.Len(t, m.List(bgagent.Query{}), 1, "a refused launch must not launch a task")
	})
}
