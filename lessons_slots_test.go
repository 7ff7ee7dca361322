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

func limit(n int) bgagent.Config {
	return bgagent.Config{Limits: bgagent.Limits{Default: n}}
}

// Lesson 1.
func TestLesson01FailingStartGivesItsSlotBack(t *testing.T) {
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

func failing(err error) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{}, err
	}
}

// Lesson 1, for a client that starts turns.
func TestLesson01FailingPromptGivesItsSlotBack(t *testing.T) {
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
			require.Positive(t, f.session(task.Session).aborts, "a prompt that failed may have been accepted all the same")
		}
		f.do(func() { f.startErr = nil })
		fullBatch(t, m, 2)
	})
}

// Lesson 2.
func TestLesson02CancellingARunningTaskFreesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Minute)}, limit(1))
		a, b := launch(t, m, "a"), launch(t, m, "b")
		require.Equal(t, bgagent.Pending, b.Status)
		before, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Running, before.Status)
		synctest.Wait()
		require.Equal(t, bgagent.Running, get(t, m, b.ID).Status)
		require.Equal(t, []bgagent.Status{bgagent.Cancelled, bgagent.Completed}, statuses(ended(t, m, a.ID, b.ID)))
	})
}

// Lessons 3, 4 and 5.
func TestLesson03to05CancellingInTheQueueConcernsNobodyElse(t *testing.T) {
	for name, cancel := range map[string]int{"head": 1, "middle": 2, "last": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, &goRunner{run: works(time.Minute)}, limit(1))
				var ids []string
				for i := range 4 {
					ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
				}
				_, err := m.Cancel(t.Context(), root, ids[cancel], bgagent.CancelOptions{})
				require.NoError(t, err)
				ids = append(ids, launch(t, m, "one more").ID)
				began := time.Now()
				for i, task := range ended(t, m, ids...) {
					want := bgagent.Completed
					if i == cancel {
						want = bgagent.Cancelled
						require.True(t, task.Started.IsZero(), "it was cancelled in the queue and must not start")
					}
					require.Equal(t, want, task.Status, "task %d", i)
				}
				require.Equal(t, 4*time.Minute, time.Since(began))
			})
		})
	}
}

// Lesson 6.
func TestLesson06WhatEndedBeforeItsSessionWasMadeIsNeverPrompted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := make(chan struct{})
		prompts := 0
		f := &goRunner{}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { <-made; return "ses_late", nil } // ignores its context
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

// Lesson 7.
func TestLesson07ASlowStartHoldsUpNobody(t *testing.T) {
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

// Lesson 9.
func TestLesson09TwoResumesTakeOneSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Minute)}, limit(2))
		a := launch(t, m, "a")
		ended(t, m, a.ID)
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := m.Resume(context.Background(), root, a.ID, bgagent.ResumeInput{Prompt: "go on"})
				errs <- err
			}()
		}
		first, second := <-errs, <-errs
		if first != nil {
			first, second = second, first
		}
		require.NoError(t, first)
		require.ErrorIs(t, second, bgagent.ErrStillLive)
		task := ended(t, m, a.ID)[0]
		require.Equal(t, 2, task.Attempt)
		require.Len(t, task.Attempts, 1)
		require.Equal(t, 0, m.Concurrency().Stats("").InUse)
		fullBatch(t, m, 2)
	})
}

// Lesson 10.
func TestLesson10CloseStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		created := 0
		f := &goRunner{run: works(time.Minute)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { created++; return f.nextID(), nil }
		m := manage(t, f, limit(1))
		var ids []string
		for i := range 5 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		synctest.Wait()
		err := m.Close(t.Context())
		var closed *bgagent.CloseError
		require.ErrorAs(t, err, &closed)
		require.Empty(t, closed.NotStopped)
		require.Len(t, closed.Owed, 5, "nobody was told of these ends")
		require.Equal(t, 1, created)
		for _, id := range ids {
			require.Equal(t, bgagent.CauseClosed, get(t, m, id).Cause)
		}
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.ErrorIs(t, err, bgagent.ErrClosed)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 5)
	})
}

// Lesson 11.
func TestLesson11IDsAreUnguessableAndDistinct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := limit(1)
		cfg.MaxTasksPerRoot = bgagent.Unlimited
		m, err := bgagent.New(&goRunner{run: works(time.Hour)}, cfg) // 50,000 checked updates would take minutes
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
