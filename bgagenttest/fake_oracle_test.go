package bgagenttest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
)

var nobody = bgagent.NewReporter(func(bgagent.Report) {})

// mustCreate creates a session with the title.
func mustCreate(t *testing.T, sc bgagent.SessionClient, title string) string {
	t.Helper()
	id, err := sc.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "a", Title: title})
	if err != nil || id == "" {
		t.Fatalf("CreateSession: %q, %v", id, err)
	}
	return id
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %v; want %v", what, got, want)
	}
}

func TestTheManagerWorksWithBothFakes(t *testing.T) {
	for name, make := range map[string]func(func(*Turn)) (bgagent.SessionClient, *Fake){"runner": newRunner, "starter": newStarter} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc, f := make(func(turn *Turn) {
					turn.Todos(bgagent.Todo{Text: "look", State: bgagent.TodoInProgress})
					turn.Think("where is it?")
					turn.Say("let me look")
					turn.Tool("grep", time.Minute)
					turn.Retry("the model is overloaded", time.Minute)
					turn.Ask("may I?", time.Minute)
					turn.Todos(bgagent.Todo{Text: "look", State: bgagent.TodoCompleted})
					turn.Usage(bgagent.Usage{OutputTokens: 7})
					turn.Say("found " + turn.Prompt.Text)
				})
				f.Stream, f.Beat, f.AbortTells = true, time.Second, true
				f.Root("root")
				m, err := bgagent.New(sc, bgagent.Config{Limits: bgagent.Limits{Default: 2}})
				if err != nil {
					t.Fatal(err)
				}
				by := bgagent.Caller{Session: "root"}
				var ids []string
				for _, what := range []string{"one", "two", "three"} {
					task, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "a", Prompt: what, Model: "p/m"})
					if err != nil {
						t.Fatal(err)
					}
					ids = append(ids, task.ID)
				}
				time.Sleep(time.Second)
				equal(t, "what runs", f.Running(), map[string]int{"p/m": 2})
				tasks, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, ids...)
				if err != nil {
					t.Fatal(err)
				}
				for _, task := range tasks {
					equal(t, "the result", task.Result, "found "+task.Prompt)
					equal(t, "the number of tool calls", task.Progress.ToolCalls, 1)
				}
				time.Sleep(time.Minute)
				if len(f.Inbox("root")) == 0 {
					t.Error("the root session has not received a notice")
				}
				if err := m.Close(context.Background()); err != nil {
					t.Error(err)
				}
				f.Close()
				equal(t, "the peak", f.Peak("p/m"), 2)
				equal(t, "the list of violations", f.Violations(), []string(nil))
			})
		})
	}
}

func TestTheOracleSeesWhatMustNotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStarter(func(turn *Turn) {
			if turn.Prompt.Text == "stubborn" {
				time.Sleep(time.Hour)
			}
			turn.Wait()
		})
		one, two := mustCreate(t, s, "one"), mustCreate(t, s, "two")
		start := func(id string, p bgagent.Prompt) error { return s.StartTurn(t.Context(), id, p) }
		if err := start(one, bgagent.Prompt{ID: "p1", Task: "t", Text: "stubborn"}); err != nil {
			t.Fatal(err)
		}
		if err := start(one, bgagent.Prompt{ID: "p2"}); !errors.Is(err, bgagent.ErrBusy) {
			t.Errorf("a prompt in mid-turn: %v", err)
		}
		if err := s.Abort(t.Context(), one); err == nil {
			t.Error("Abort returned nil for a script that does not stop")
		}
		_ = start(two, bgagent.Prompt{ID: "p1", Task: "t"})
		s.ForgetSession(two)
		_ = s.Abort(t.Context(), two)
		s.ForgetSession(two)
		_ = start(two, bgagent.Prompt{ID: "p3"})
		s.Close()
		got := s.Violations()
		for i, want := range []string{"in the middle of a turn (p2)", "p1 was run twice", "task t runs 2 turns", "forgotten in the middle", "after it was forgotten", "1 turn(s) of the model \"\" are still running after Close"} {
			if i >= len(got) || !strings.Contains(got[i], want) {
				t.Errorf("violation %d should contain %q; all are %q", i, want, got)
			}
		}
		time.Sleep(2 * time.Hour)
		equal(t, "what runs", s.Running(), map[string]int{})
	})
}

func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	var fault Fault
	var calls []Call
	// The function "turn" runs one turn of a new runner with the given fault.
	turn := func(t *testing.T, x Fault) (r Runner, took time.Duration, err error) {
		fault, calls = x, nil
		r = NewRunner(nil)
		r.Faults = func(c Call) Fault {
			if calls = append(calls, c); c.Kind == CallTurn {
				return fault
			}
			return Fault{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		id := mustCreate(t, r, "title")
		begun := time.Now()
		err = guarded("RunTurn", func() error {
			_, err := r.RunTurn(ctx, id, bgagent.Prompt{ID: "p"}, nobody)
			return err
		})
		return r, time.Since(begun), err
	}
	for name, x := range map[string]struct {
		fault Fault
		err   string
		took  time.Duration
		turns int
	}{
		"none":    {turns: 1},
		"delay":   {fault: Fault{Delay: time.Minute}, took: time.Minute, turns: 1},
		"hang":    {fault: Fault{Hang: true}, err: "deadline exceeded", took: time.Hour},
		"err":     {fault: Fault{Err: broken}, err: "broken"},
		"panic":   {fault: Fault{Panic: "boom"}, err: "panicked: boom"},
		"late":    {fault: Fault{Late: true, Err: broken}, err: "broken", turns: 1},
		"lie":     {fault: Fault{Lie: true}},
		"too far": {fault: Fault{Delay: 2 * time.Hour}, err: "deadline exceeded", took: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, took, err := turn(t, x.fault)
				if x.err == "" && err != nil || x.err != "" && (err == nil || !strings.Contains(err.Error(), x.err)) {
					t.Errorf("the error is %v; want %q", err, x.err)
				}
				equal(t, "the time", took, x.took)
				equal(t, "the number of turns", len(r.Prompts()), x.turns)
				equal(t, "the list of calls", calls, []Call{{Kind: CallCreate, Title: "title", N: 1}, {Kind: CallTurn, Session: "ses_1", Title: "title", N: 1}})
			})
		})
	}
}

func TestACallThatHangsForEverWaitsForRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRunner(nil)
		r.Faults = func(c Call) Fault { return Fault{HangForever: c.Kind == CallAbort, Goexit: c.Kind == CallFind} }
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan error, 1)
		go func() { done <- r.Abort(ctx, "x") }()
		time.Sleep(time.Hour)
		if len(done) > 0 {
			t.Error("Abort has returned before Release")
		}
		r.Release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = r.FindSession(t.Context(), "x")
			t.Error("FindSession has returned")
		}()
		<-over
		equal(t, "the number of calls", r.Calls(CallAbort, "x"), 1)
	})
}

func TestTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStarter(func(turn *Turn) { turn.Wait() })
		s.Stream, s.AbortTells = true, true
		var kinds []string
		over := make(chan error, 1)
		go func() {
			over <- s.Events(t.Context(), func(e bgagent.HostEvent) { kinds = append(kinds, e.Kind.String()) })
		}()
		synctest.Wait()
		id := mustCreate(t, s, "title")
		_ = s.StartTurn(t.Context(), id, bgagent.Prompt{ID: "p"})
		_ = s.Abort(t.Context(), id)
		synctest.Wait()
		s.StreamDown()
		s.SetBusy(id, true)
		if err := s.Notify(t.Context(), id, bgagent.Notice{ID: "n"}); !errors.Is(err, bgagent.ErrBusy) {
			t.Errorf("Notify of a busy session: %v", err)
		}
		s.SetBusy(id, false)
		s.StreamUp()
		s.Delete(id)
		s.Emit(bgagent.HostEvent{Kind: bgagent.HostActivity})
		s.StreamBreak(errAborted)
		if err := <-over; !errors.Is(err, errAborted) {
			t.Errorf("Events returned %v", err)
		}
		want := []string{"stream up", "status", "message", "message", "error", "status", "status", "stream gap", "stream up", "deleted", "activity"}
		if !slices.Equal(kinds, want) {
			t.Errorf("the events are %q; want %q", kinds, want)
		}
		got, err := s.Statuses(t.Context(), []string{id})
		if err != nil || got[id].State != bgagent.SessionGone {
			t.Errorf("the status of a deleted session is %v, %v", got[id].State, err)
		}
	})
}
