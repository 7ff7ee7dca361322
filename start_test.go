package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// If a failed start kept its slot, the slot would be lost until the manager was closed. In each
// case, a different step of the start or of the turn fails.
func TestAFailingStartGivesItsSlotBack(t *testing.T) {
	failures := map[string]func(*goRunner){
		"create fails": func(f *goRunner) {
			f.create = func(context.Context, bgagent.SessionSpec) (string, error) { return "", errors.New("no") }
		},
		"empty session": func(f *goRunner) {
			f.create = func(context.Context, bgagent.SessionSpec) (string, error) { return "", nil }
		},
		"create panics": func(f *goRunner) {
			f.create = func(context.Context, bgagent.SessionSpec) (string, error) { panic("boom") }
		},
		"create exits": func(f *goRunner) {
			f.create = func(context.Context, bgagent.SessionSpec) (string, error) { runtime.Goexit(); return "", nil }
		},
		"create hangs": func(f *goRunner) {
			f.create = func(ctx context.Context, _ bgagent.SessionSpec) (string, error) { <-ctx.Done(); return "", ctx.Err() }
		},
		"same session": func(f *goRunner) {
			f.create = func(context.Context, bgagent.SessionSpec) (string, error) { return "ses_same", nil }
		},
		"the turn fails": func(f *goRunner) { f.run = failing(errors.New("no")) },
		"the turn panics": func(f *goRunner) {
			f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
				panic("boom")
			}
		},
		"the turn exits": func(f *goRunner) {
			f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
				runtime.Goexit()
				return bgagent.TurnEnd{}, nil
			}
		},
		"the turn is empty": func(f *goRunner) { f.run = failing(nil) },
	}
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const slots = 3
				f := &goRunner{run: works(time.Hour)}
				fail(f)
				m := manage(t, f, limit(slots))
				var ids []string
				for i := range 2 * slots {
					ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
				}
				failed := 0
				for _, task := range ended(t, m, ids...) {
					if task.Status == bgagent.Failed {
						require.NotEmpty(t, task.Reason)
						failed++
					}
				}
				require.GreaterOrEqual(t, failed, 2*slots-1, "only the first task to get the shared session may run to its time to live")
				synctest.Wait()
				f.create, f.run = nil, works(time.Hour)
				f.n = 100
				fullBatch(t, m, slots)
			})
		})
	}
}

// If a TurnStarter does not accept a prompt, the task must not keep its slot.
func TestAFailingPromptGivesItsSlotBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.startErr = errors.New("not now")
		m := manage(t, f, limit(2))
		var ids []string
		for i := range 4 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.CausePromptFailed, task.Cause)
			require.Contains(t, task.Reason, "not now")
			require.NoError(t, m.Quiet(t.Context(), task.ID))
			require.Positive(t, f.session(task.Session).aborts, "a prompt that failed might have been accepted nevertheless")
		}
		f.do(func() { f.startErr = nil })
		fullBatch(t, m, 2)
	})
}

// If a task ends while its session is being created, the session must not be
// prompted afterwards.
func TestWhatEndedBeforeItsSessionWasMadeIsNeverPrompted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := make(chan struct{})
		prompts := 0
		f := &goRunner{}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { <-made; return "ses_late", nil } // the call ignores its context
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			prompts++
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		m := manage(t, f, limit(1))
		a := launch(t, m, "a")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.False(t, get(t, m, a.ID).Quiet)
		close(made)
		require.NoError(t, m.Quiet(t.Context(), a.ID))
		require.Equal(t, bgagent.Cancelled, get(t, m, a.ID).Status)
		require.Zero(t, prompts)
		require.Equal(t, 1, f.aborted("ses_late"))
	})
}

func TestASlowStartHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(ctx context.Context, s bgagent.SessionSpec) (string, error) {
			if s.Title == "slow" {
				time.Sleep(20 * time.Second)
			}
			return f.nextID(), nil
		}
		m := manage(t, f, limit(2))
		slow := launch(t, m, "slow")
		began := time.Now()
		for i := range 5 {
			ended(t, m, launch(t, m, fmt.Sprint(i)).ID)
		}
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, bgagent.Completed, ended(t, m, slow.ID)[0].Status)
	})
}

// CreateSession can return after the task's record has expired. Even then, the session is aborted.
func TestLateSessionOfAnExpiredTaskIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			time.Sleep(time.Hour)
			return "ses_late", nil
		}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		m.TakeNotice("root")
		time.Sleep(2 * time.Hour)
		_, err := m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.Equal(t, 1, f.aborted("ses_late"))
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
		require.Empty(t, prompted, "the parent's own session must not be prompted")
		require.Equal(t, bgagent.CauseStartFailed, get(t, m, a.ID).Cause)
	})
}

// The type "listing" is a server that can list its agents.
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
