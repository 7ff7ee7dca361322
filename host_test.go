package bgagent_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// brokenError panics when it is asked what it says, as a nil pointer in an error
// does.
type brokenError struct{ text *string }

func (e *brokenError) Error() string { return *e.text }

// askingError asks the manager when it is asked what it says.
type askingError struct{ ask func() }

func (e *askingError) Error() string { e.ask(); return "asked" }

// Spec 12: a panic in a host's function becomes an error of that task.
func TestAHostErrorThatPanicsEndsItsTaskOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "bad" {
				var e *brokenError
				return bgagent.TurnEnd{}, e
			}
			return bgagent.TurnEnd{Text: "fine"}, nil
		}
		m := manage(t, f, limit(1))
		bad := launch(t, m, "bad")
		good := launch(t, m, "good")
		tasks := ended(t, m, bad.ID, good.ID)
		require.Equal(t, []bgagent.Status{bgagent.Failed, bgagent.Completed}, statuses(tasks))
	})
}

// Design invariant 9: no host code while the lock is held.
func TestAHostErrorMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ask := &askingError{func() { m.List(bgagent.Query{}) }}
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{}, ask
		}
		m = manage(t, f, bgagent.Config{})
		task := launch(t, m, "ask")
		require.Equal(t, bgagent.Failed, ended(t, m, task.ID)[0].Status)
	})
}

// The same for every other error of a host.
func TestEveryHostErrorMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ask := &askingError{func() { m.List(bgagent.Query{}) }}
		f := newServer()
		f.abort = func(context.Context, string) error { return ask }
		var calls int
		cfg := bgagent.Config{Wake: bgagent.WakeEach, Notify: func(context.Context, string, bgagent.Notice) error {
			if calls++; calls == 1 {
				return ask
			}
			return nil
		}}
		m = manage(t, f, cfg)
		id, session := turnOn(t, m, "a")
		f.do(func() { f.statusErr = ask })
		time.Sleep(5 * time.Second)
		f.do(func() { f.statusErr, f.readErr = nil, ask })
		time.Sleep(5 * time.Second)
		f.do(func() { f.readErr = nil })
		_ = session
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, id).Notice)
		f.do(func() { f.startErr = ask })
		b := launch(t, m, "b")
		require.Equal(t, bgagent.Failed, ended(t, m, b.ID)[0].Status)
		f.do(func() { f.createErr = ask })
		c := launch(t, m, "c")
		require.Equal(t, bgagent.Failed, ended(t, m, c.ID)[0].Status)
	})
}

// A context may be the host's code as well.
func TestAContextMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ctx := &askingContext{t.Context(), func() { m.List(bgagent.Query{}) }}
		m = manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
		task, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "a", Prompt: "x"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status)
		_, err = m.Wait(ctx, root, bgagent.WaitAll, launch(t, m, "y").ID)
		require.NoError(t, err)
	})
}

type askingContext struct {
	context.Context
	ask func()
}

func (c *askingContext) Err() error {
	c.ask()
	return c.Context.Err()
}

// Several clients may have sessions of the same name.
func TestADeletionConcernsTheClientThatToldIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, other := newServer(), newServer()
		m := manage(t, f, bgagent.Config{Clients: map[string]bgagent.SessionClient{"other": other}})
		id, session := turnOn(t, m, "a")
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Client: "other", Session: session})
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: session})
		require.Equal(t, bgagent.CauseSessionDeleted, get(t, m, id).Cause)
	})
}

// Spec 5: an unknown word decides nothing, and moves no counter.
func TestAnUnknownStatusInAnEventIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{HostUnreachable: 5 * time.Minute})
		id, session := turnOn(t, m, "a")
		f.do(func() { f.statusErr = errors.New("down") })
		for range 10 {
			time.Sleep(time.Minute)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: 99}})
		}
		require.Equal(t, bgagent.CauseHostUnreachable, get(t, m, id).Cause)
	})
}

// Spec 7: a late event of an earlier turn does not make a session quiet that
// runs on; its status, asked for since, does.
func TestALateIdleEventMakesNoRunningSessionQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "a")
		f.do(func() {
			f.sessions[session].state = bgagent.SessionBusy
			f.abort = func(context.Context, string) error {
				f.set(session, bgagent.SessionBusy) // it does not stop at once
				return nil
			}
		})
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		m.Observe(idle(session)) // of the turn before
		synctest.Wait()
		require.False(t, get(t, m, id).Quiet)
		f.set(session, bgagent.SessionIdle)
		before := time.Now()
		m.Observe(idle(session))
		synctest.Wait()
		require.True(t, get(t, m, id).Quiet)
		require.Zero(t, time.Since(before), "it is asked at once")
	})
}

func TestHostFunctionsMayPanicOrExit(t *testing.T) {
	for name, bad := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				calls := 0
				m := manage(t, f, bgagent.Config{
					Model: func(agent, asked string) (string, error) {
						if agent == "bad model" {
							bad()
						}
						return asked, nil
					},
					AgentPermissions: func(agent string) []bgagent.Permission {
						if agent == "bad rules" {
							bad()
						}
						return nil
					},
					Notify: func(context.Context, string, bgagent.Notice) error {
						if calls++; calls < 3 {
							bad()
						}
						return nil
					},
				})
				for _, agent := range []string{"bad model", "bad rules"} {
					_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: "p"})
					require.ErrorContains(t, err, "the host's function")
				}
				f.statuses = func(map[string]bgagent.SessionStatus) {
					if f.asked == 1 {
						f.mu.Unlock()
						defer f.mu.Lock()
						bad()
					}
				}
				f.abort = func(context.Context, string) error { bad(); return nil }
				id, session := turnOn(t, m, "p")
				time.Sleep(3 * time.Second)
				f.say(session, "done")
				require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
				id, _ = turnOn(t, m, "q")
				_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
				require.NoError(t, err)
				require.NoError(t, m.Quiet(t.Context(), id))
				time.Sleep(time.Minute)
				require.Equal(t, bgagent.NoticeDelivered, get(t, m, id).Notice)
			})
		})
	}
}

// A turn that ends with an error ends as what its client says that it was.
func TestAnErrorWithAStopReasonEndsAsThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for stop, cause := range map[bgagent.StopReason]bgagent.Cause{
			bgagent.StopUntold: bgagent.CauseSessionError, bgagent.StopEndOfTurn: bgagent.CauseSessionError,
			bgagent.StopInterrupted: bgagent.CauseInterrupted, bgagent.StopLength: bgagent.CauseLength,
		} {
			m := manage(t, &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
				return bgagent.TurnEnd{Stop: stop}, errors.New("killed: " + strings.Repeat("stderr ", 100))
			}}, bgagent.Config{})
			task := ended(t, m, launch(t, m, "work").ID)[0]
			require.Equal(t, cause, task.Cause)
			require.Contains(t, task.Reason, "killed: stderr")
			require.Greater(t, len(task.Reason), 600, "what a program said last is not cut off")
		}
	})
}

func TestEmptyPiecesAreNoOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Reasoning("")
			return bgagent.TurnEnd{}, nil
		}}
		m := manage(t, f, bgagent.Config{})
		require.Equal(t, bgagent.CauseNoOutput, ended(t, m, launch(t, m, "p").ID)[0].Cause)
	})
}

func TestTheCauseOfATurnsContextIsNotTheLaunchs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		m := manage(t, &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return bgagent.TurnEnd{}, cause
		}}, bgagent.Config{})
		call, cancel := context.WithCancelCause(t.Context())
		task, err := m.Launch(call, root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		cancel(errors.New("the tool call has returned"))
		time.Sleep(time.Minute)
		_, _ = m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		synctest.Wait()
		require.ErrorIs(t, cause, context.Canceled)
	})
}

func TestATurnCannotCallToolsAsItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var tool bgagent.ToolDef
		var inner error
		f := &goRunner{}
		f.run = func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "outer" { // a host that forgot WithCaller for this session
				_, inner = tool.Call(ctx, []byte(`{"subagent_type":"a","prompt":"inner"}`))
			}
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		m = manage(t, f, bgagent.Config{}) // MaxDepth 1: a task may not delegate
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

func TestAHostCannotChangeTheRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []bgagent.Permission
		f := &goRunner{}
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			slices.Reverse(s.Permissions) // a host whose first match decides
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

// listing is a server that knows its agents.
type listing struct{ *server }

func (listing) Agents(context.Context) ([]bgagent.AgentInfo, error) {
	return []bgagent.AgentInfo{{Name: "explore"}}, nil
}

func TestAPromptThatFindsNoAgentNamesThoseThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.startErr = &bgagent.NoSuchAgentError{Agent: "exlpore"}
		m := manage(t, listing{f}, bgagent.Config{})
		task := ended(t, m, launch(t, m, "a").ID)[0]
		require.Equal(t, bgagent.CauseStartFailed, task.Cause)
		require.Contains(t, task.Reason, "there are: explore")
	})
}

// isPanics is an error that panics when it is compared.
type isPanics struct{}

func (isPanics) Error() string { return "x" }
func (isPanics) Is(error) bool { panic("Is") }

func TestAFindSessionErrorMayPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &finder{goRunner: &goRunner{run: works(time.Second)}, err: isPanics{}}
		m := manage(t, f, bgagent.Config{})
		require.NotPanics(t, func() {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
			require.Error(t, err)
		})
	})
}

func TestASessionIsNotItsOwnParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		prompted := ""
		f := &goRunner{create: func(_ context.Context, s bgagent.SessionSpec) (string, error) { return s.Parent, nil }}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			prompted = s
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{})
		a := launch(t, m, "a")
		synctest.Wait()
		require.Empty(t, prompted, "the parent's own session was prompted")
		require.Equal(t, bgagent.CauseStartFailed, get(t, m, a.ID).Cause)
	})
}
