package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "retries" returns a runner whose first turn reports that its program is repeating a
// request, and then waits until it is stopped. Later turns succeed.
func retries(report func(*bgagent.Reporter)) *limited {
	f := newLimited(func(int, bgagent.Prompt) error { return nil })
	run := f.run
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if len(f.turns()) > 0 {
			return run(ctx, session, p, r)
		}
		f.mu.Lock()
		f.begun = append(f.begun, limitedTurn{session, p, time.Now()})
		f.mu.Unlock()
		report(r)
		<-ctx.Done()
		return bgagent.TurnEnd{Stop: bgagent.StopAborted}, ctx.Err()
	}
	return f
}

var overloaded = bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Status: 529, Tries: 1, Next: bgagent.NextContinue}

func TestATurnThatWouldRetryLateIsStoppedAndParked(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration // time until the program's next request; 0 if it is unknown
		parks time.Duration // time until the attempt is parked
	}{
		"a known time":    {10 * time.Minute, 0},
		"an unknown time": {0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			f := retries(func(r *bgagent.Reporter) {
				var at time.Time
				if c.after > 0 {
					at = time.Now().Add(c.after)
				}
				r.Retrying(overloaded, at)
			})
			bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
				began := time.Now()
				id := launch(t, m, "p").ID
				if synctest.Wait(); c.parks > 0 {
					time.Sleep(c.parks - time.Second)
					require.Equal(t, bgagent.PhaseTurn, get(t, m, id).Phase)
					time.Sleep(2 * time.Second)
				}
				parked := get(t, m, id)
				require.Equal(t, bgagent.PhaseParked, parked.Phase)
				require.Contains(t, parked.Reason, "overload, status 529")
				task := ended(t, m, id)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				turns := f.turns()
				require.Len(t, turns, 2)
				require.Equal(t, turns[0].prompt.ID, turns[1].prompt.Unanswered)
				require.False(t, turns[1].at.Before(began.Add(max(c.after, c.parks))))
			})
		})
	}
}

func TestATurnThatRetriesSoonHoldsItsPoolBackAndIsNotStale(t *testing.T) {
	f := newLimited(func(int, bgagent.Prompt) error { return nil })
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		f.mu.Lock()
		n := len(f.begun)
		f.begun = append(f.begun, limitedTurn{session, p, time.Now()})
		f.mu.Unlock()
		if n == 0 {
			for range 6 {
				r.Retrying(overloaded, time.Now().Add(50*time.Second))
				time.Sleep(50 * time.Second)
			}
			r.Text("at last")
		}
		return works(time.Second)(ctx, session, p, r)
	}
	cfg := limit(2)
	cfg.StaleTimeout = 40 * time.Second // shorter than the wait for the next request
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		first := launch(t, m, "first").ID
		synctest.Wait()
		second := launch(t, m, "second").ID
		tasks := ended(t, m, first, second)
		require.Equal(t, []bgagent.Status{bgagent.Completed, bgagent.Completed}, statuses(tasks), tasks[0].Reason)
		require.Equal(t, "answer to first", tasks[0].Result)
		require.GreaterOrEqual(t, f.turns()[1].at.Sub(began), 5*time.Minute)
	})
}

func TestAConnectionThatFailsDoesNotHoldThePoolBack(t *testing.T) {
	f := retries(func(r *bgagent.Reporter) {
		r.Retrying(bgagent.ProviderError{Message: "connection reset"}, time.Now().Add(time.Hour))
	})
	bubble(t, f, limit(2), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		synctest.Wait()
		require.Equal(t, bgagent.PhaseTurn, get(t, m, id).Phase)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, launchNow(t, m).ID).Phase)
	})
}

// launchNow launches a task and waits until its turn has begun.
func launchNow(t *testing.T, m *bgagent.BackgroundManager) bgagent.Task {
	task := launch(t, m, "now")
	synctest.Wait()
	return task
}

func TestAnAuthenticationThatFailsEndsTheTurnAtOnce(t *testing.T) {
	f := retries(func(r *bgagent.Reporter) {
		r.Retrying(bgagent.ProviderError{Kind: bgagent.ProviderAuthentication, Status: 401, Next: bgagent.NextContinue}, time.Now().Add(time.Second))
	})
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		synctest.Wait()
		task := get(t, m, id)
		require.Equal(t, bgagent.CauseSessionError, task.Cause)
		require.Contains(t, task.Reason, "authentication, status 401")
	})
}

func TestTheSilenceOfAProgramThatShowsItsRetriesProvesThePool(t *testing.T) {
	f := silentAfterRetry()
	bubble(t, f, limit(4), func(t *testing.T, m *bgagent.BackgroundManager) {
		launch(t, m, "first")
		synctest.Wait()
		for range 3 {
			launch(t, m, "p")
		}
		time.Sleep(5 * time.Minute)
		turns := f.turns()
		require.Len(t, turns, 5)
		require.Equal(t, []time.Duration{0, 10 * time.Second, 10 * time.Second, 20 * time.Second}, between(turns[1:]))
	})
}

// In this test, one agent of a client reports that its program is repeating a request. Another
// agent's program might repeat requests without reporting this.
func TestTheSilenceOfAnotherProgramProvesNothing(t *testing.T) {
	f := silentAfterRetry()
	cfg := limit(4)
	cfg.Model = func(string, string) (string, error) { return "m/m", nil }
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		first, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "talker", Prompt: "first"})
		require.NoError(t, err)
		synctest.Wait()
		for range 3 {
			launch(t, m, "p")
		}
		_, err = m.Cancel(t.Context(), root, first.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		turns := f.turns()
		require.Len(t, turns, 4)
		require.Equal(t, []time.Duration{0, time.Minute, time.Minute}, between(turns[1:]), "the end of the first turn proves it")
	})
}

// silentAfterRetry returns a runner whose first turn reports a repeated request and then waits
// until it is stopped. Later turns do not report anything and end after a minute.
func silentAfterRetry() *limited {
	f := retries(func(r *bgagent.Reporter) { r.Retrying(overloaded, time.Now().Add(2*time.Minute)) })
	quiet := f.run
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if len(f.turns()) == 0 {
			return quiet(ctx, session, p, r)
		}
		f.mu.Lock()
		f.begun = append(f.begun, limitedTurn{session, p, time.Now()})
		f.mu.Unlock()
		return works(time.Minute)(ctx, session, p, r) // does not report anything
	}
	return f
}

// The function "between" returns how long after the first turn each turn began.
func between(turns []limitedTurn) (since []time.Duration) {
	for _, turn := range turns {
		since = append(since, turn.at.Sub(turns[0].at))
	}
	return since
}

// refusedMessage is the message from an agent whose request was refused.
func refusedMessage(session string, e bgagent.ProviderError) bgagent.Message {
	return bgagent.Message{
		ID: session + "-failure", Role: bgagent.RoleAgent, Text: "API Error: 529", Finished: true, Stop: bgagent.StopError, Error: "overloaded", Provider: &e,
	}
}

func TestAStartersTurnThatEndsWithARefusalIsParked(t *testing.T) {
	f := newServer()
	refuse := true
	f.started = func(session string, p bgagent.Prompt) {
		if refuse {
			f.put(session, refusedMessage(session, overloaded))
		} else {
			f.say(session, "answer to "+p.Unanswered)
		}
		f.set(session, bgagent.SessionIdle)
	}
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		time.Sleep(3 * time.Second)
		parked := get(t, m, id)
		require.Equal(t, bgagent.PhaseParked, parked.Phase)
		require.Empty(t, parked.Result, "the text of a failure is not the agent's text")
		refuse = false
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "answer to "+f.prompted()[0].ID, task.Result)
		require.Len(t, f.prompted(), 2)
	})
}

func TestAPromptThatTheProviderRefusesIsParked(t *testing.T) {
	e := overloaded
	e.Next = bgagent.NextRepeat
	f := newServer().answers(time.Second)
	f.startErr = &e
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		synctest.Wait()
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		f.do(func() { f.startErr = nil })
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
		require.Len(t, f.prompted(), 1)
	})
}

func TestAStarterThatRetriesLateIsStoppedAndParked(t *testing.T) {
	f := newServer()
	retrying := true
	f.started = func(session string, p bgagent.Prompt) {
		if !retrying {
			f.say(session, "answer")
			f.set(session, bgagent.SessionIdle)
		}
	}
	f.statuses = func(all map[string]bgagent.SessionStatus) {
		for id, s := range all {
			if retrying && s.State == bgagent.SessionBusy {
				e := overloaded
				all[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: time.Now().Add(time.Hour), Provider: &e}
			}
		}
	}
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		time.Sleep(10 * time.Second)
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		require.Equal(t, 1, f.session(session).aborts)
		retrying = false
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.NotEmpty(t, f.prompted()[1].Unanswered)
	})
}

// In this test, the turn that reports the end of a child task is refused.
func TestARefusedNoticeTurnStillTellsTheEnds(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextRepeat, bgagent.NextContinue} {
		f := newLimited(nil)
		var m *bgagent.BackgroundManager
		notices := 0
		f.refuse = func(n int, p bgagent.Prompt) error {
			switch {
			case p.Text == "parent":
				for session := range map[string]bool{f.turns()[n].session: true} {
					_, err := m.Launch(context.Background(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
					if err != nil {
						return err
					}
				}
			case p.Notice != nil:
				if notices++; notices == 1 {
					return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: next}
				}
			}
			return nil
		}
		synctest.Test(t, func(t *testing.T) {
			notices = 0
			m = manage(t, f, bgagent.Config{MaxDepth: 2})
			task := ended(t, m, launch(t, m, "parent").ID)[0]
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			last := f.turns()[len(f.turns())-1].prompt
			if next == bgagent.NextRepeat {
				require.NotNil(t, last.Notice)
				require.Equal(t, 2, notices)
			} else {
				require.NotEmpty(t, last.Unanswered)
			}
			require.Equal(t, "answer to "+last.Text, task.Result)
		})
	}
}
