package bgagenttest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
)

// adversary describes a client that fails one check.
type adversary struct {
	check   string
	how     string
	runner  func(*badRunner) // exactly one of the three functions is set
	starter func(*badStarter)
	client  func(*Fake) bgagent.SessionClient
	also    []string // other checks that the client inevitably fails
}

var adversaries = slices.Concat(adversariesOfRestarts, []adversary{
	{check: "one kind", how: "both kinds", client: func(f *Fake) bgagent.SessionClient { return bothKinds{Runner{f}, Starter{f}} }},
	{check: "session ids", how: "an id is repeated", runner: repeatsIDs},
	{check: "unknown agent", how: "some other error", runner: hidesNoSuchAgent},
	{check: "answer", how: "an answer is lost", runner: losesAnAnswer},
	{check: "second turn", how: "a session ends after two turns", runner: endsAfterTwoTurns, also: []string{"pages"}},
	{check: "memory", how: "the conversation begins anew", runner: forgetsWhatWasSaid, also: []string{"restart memory"}},
	{check: "side by side", how: "one turn at a time", runner: runsOneAtATime},
	{check: "many at once", how: "answers are mixed up", runner: mixesAnswersUp},
	{check: "missing session", how: "the error is swallowed", runner: func(b *badRunner) {
		after(b, func(_ string, _ bgagent.Prompt, e *ended) {
			if errors.Is(e.err, bgagent.ErrNoSession) {
				e.err = nil
			}
		})
	}},
	{
		check: "abort", how: "a runner's abort does nothing", runner: func(b *badRunner) { b.abort = func(context.Context, string) error { return nil } },
		also: []string{"side by side", "abort is no answer", "after abort", "reporter", "changes", "notice to a busy session", "message in a turn"},
	},
	{
		check: "abort", how: "a starter's abort does nothing", starter: func(b *badStarter) { b.abort = func(context.Context, string) error { return nil } },
		also: []string{"side by side", "abort is no answer", "after abort", "handed over", "statuses", "idle after the turn", "changes", "notice to a busy session", "message in a turn", "restart followed"},
	},
	{check: "abort is no answer", how: "it ends like any other turn", runner: func(b *badRunner) {
		after(b, func(_ string, _ bgagent.Prompt, e *ended) {
			if e.Stop == bgagent.StopAborted {
				e.Stop = bgagent.StopEndOfTurn
			}
		})
	}},
	{check: "after abort", how: "an abort kills the session", also: []string{"changes", "message in a turn"}, runner: func(b *badRunner) {
		dead(b, &guardedSet{}, func(_ bgagent.Prompt, e *ended) bool { return e.Stop == bgagent.StopAborted })
	}},
	{check: "abort idle", how: "an error when nothing runs", runner: abortsOnlyRunning},
	{check: "abort missing", how: "an error when there is no session", runner: abortsOnlyExisting},
	{check: "context of a turn", how: "it is ignored", runner: ignoresContext},
	{check: "reporter", how: "a report comes late", runner: reportsLate},
	{check: "handed over", how: "the turn ends with the call's context", starter: tiesTurnToCall, also: []string{"late pieces", "message in a turn"}},
	{check: "repeated prompt", how: "a repeated prompt is a new one", starter: takesRepeatsForNew},
	{check: "statuses", how: "unused sessions are left out", starter: leavesOutUnused},
	{check: "idle after the turn", how: "sometimes idle in the middle of a turn", starter: idlesNowAndThen},
	{check: "failure", how: "a runner's failure is an answer", runner: func(b *badRunner) {
		after(b, func(_ string, p bgagent.Prompt, e *ended) {
			if p.Text == "fail" {
				e.Stop, e.err = bgagent.StopEndOfTurn, nil
			}
		})
	}},
	{check: "failure", how: "a starter's failure is an answer", starter: hidesFailures},
	{check: "after a failure", how: "a failure kills the session", runner: func(b *badRunner) {
		dead(b, &guardedSet{}, func(p bgagent.Prompt, _ *ended) bool { return p.Text == "fail" })
	}},
	{check: "message order", how: "newest first", runner: func(b *badRunner) { reading(b, newestFirst) }, also: []string{"prompt ids", "changes", "pages"}},
	{check: "message ids", how: "an answer has the id of another", runner: func(b *badRunner) {
		reading(b, func(page *bgagent.Page) {
			for i, msg := range page.Messages {
				if msg.Role == bgagent.RoleAgent && strings.Contains(msg.Text, "dill") {
					page.Messages[i].ID = page.Messages[0].ID
				}
			}
		})
	}},
	{check: "finished", how: "answers are never finished", runner: func(b *badRunner) {
		reading(b, func(page *bgagent.Page) {
			for i, msg := range page.Messages {
				page.Messages[i].Finished = msg.Role == bgagent.RoleUser
			}
		})
	}},
	{check: "prompt ids", how: "they are lost", runner: func(b *badRunner) {
		reading(b, func(page *bgagent.Page) {
			for i := range page.Messages {
				page.Messages[i].PromptID = ""
			}
		})
	}},
	{check: "cursor", how: "it is ignored", runner: startsAnew, also: []string{"pages"}},
	{check: "changes", how: "the cursor counts messages", runner: countsMessages},
	{check: "pages", how: "max is ignored", runner: ignoresMax},
	{check: "tool calls", how: "every state has an id of its own", runner: renumbersTools},
	{check: "no answer", how: "a sentence stands for it", runner: func(b *badRunner) {
		after(b, func(_ string, p bgagent.Prompt, e *ended) {
			if p.Text == "think" {
				e.Text = "(no output)"
			}
		})
	}},
	{check: "cut answer", how: "a warning is not read", runner: func(b *badRunner) {
		after(b, func(_ string, _ bgagent.Prompt, e *ended) {
			if e.Stop == bgagent.StopLength {
				e.Stop = bgagent.StopEndOfTurn
			}
		})
	}},
	{check: "late pieces", how: "the first end counts", runner: endsEarly},
	{check: "one end of a call", how: "every end is reported twice", runner: repeatsEnds},
	{check: "tools in messages", how: "a call is listed twice", runner: func(b *badRunner) {
		reading(b, func(page *bgagent.Page) {
			for i, msg := range page.Messages {
				for _, t := range msg.Tools {
					t.ID += "'"
					page.Messages[i].Tools = append(page.Messages[i].Tools, t)
				}
			}
		})
	}},
	{check: "notices once", how: "a notice gets a new id each time", runner: renamesNotices},
	{check: "notice to a missing session", how: "it is accepted", runner: func(b *badRunner) {
		b.notify = func(ctx context.Context, id string, n bgagent.Notice) error {
			if id == missing {
				return nil
			}
			return b.Runner.Notify(ctx, id, n)
		}
	}},
	{check: "notice to a busy session", how: "it is dropped", runner: func(b *badRunner) {
		b.notify = func(ctx context.Context, id string, n bgagent.Notice) error {
			if err := b.Runner.Notify(ctx, id, n); !errors.Is(err, bgagent.ErrBusy) {
				return err
			}
			return nil
		}
	}},
	{check: "event after a turn", how: "statuses are not emitted", starter: func(b *badStarter) { b.events = without(b, bgagent.HostStatus) }},
	{check: "events tell messages", how: "they are left out", starter: func(b *badStarter) { b.events = without(b, bgagent.HostMessage) }},
	{check: "events tell messages", how: "idle comes before the last message", starter: idleFirst},
	{check: "revisions", how: "it never changes", starter: func(b *badStarter) {
		b.statuses = func(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
			all, err := b.Starter.Statuses(ctx, ids)
			for id, s := range all {
				s.Revision = "1"
				all[id] = s
			}
			return all, err
		}
	}},
	{check: "events end", how: "the stream outlives its context", starter: neverEndsEvents},
	{check: "refused question", how: "the turn fails", runner: func(b *badRunner) {
		after(b, func(_ string, p bgagent.Prompt, e *ended) {
			if p.Text == "ask" {
				e.err = bgagent.ErrNotAsked
			}
		})
	}},
	{check: "question", how: "it is not reported", starter: func(b *badStarter) { b.events = without(b, bgagent.HostQuestion) }},
	{check: "question", how: "the answer is lost", starter: func(b *badStarter) {
		b.answer = func(context.Context, string, bgagent.Question, error) error { return nil }
	}},
	{check: "question", how: "it offers an answer to all later questions", starter: func(b *badStarter) {
		b.events = func(ctx context.Context, emit func(bgagent.HostEvent)) error {
			return b.Starter.Events(ctx, func(e bgagent.HostEvent) {
				for i := range e.Questions {
					e.Questions[i].Options = append(slices.Clone(e.Questions[i].Options), "allow always")
				}
				emit(e)
			})
		}
	}},
	{check: "todos", how: "an error when there are none", runner: func(b *badRunner) {
		b.listed = func(context.Context, string) ([]bgagent.Todo, error) { return nil, errBroken }
	}},
	{check: "find", how: "every session is found", runner: func(b *badRunner) {
		b.find = func(context.Context, string) (bgagent.SessionInfo, error) { return bgagent.SessionInfo{}, nil }
	}},
	{check: "agents", how: "one is missing", runner: func(b *badRunner) {
		b.agents = func(context.Context) ([]bgagent.AgentInfo, error) { return []bgagent.AgentInfo{{Name: "other"}}, nil }
	}},
	{check: "message without a turn", how: "it is accepted", runner: func(b *badRunner) {
		b.steer = func(ctx context.Context, id string, msg bgagent.TurnMessage) error {
			_ = b.Runner.Steer(ctx, id, msg)
			return nil
		}
	}},
	{check: "message in a turn", how: "the turn is aborted", also: []string{"message taken"}, runner: func(b *badRunner) {
		b.steer = func(ctx context.Context, id string, msg bgagent.TurnMessage) error {
			if err := b.Runner.Steer(ctx, id, msg); err != nil {
				return err
			}
			return b.Runner.Abort(ctx, id)
		}
	}},
	{check: "message taken", how: "it is dropped", also: []string{"message without a turn"}, runner: func(b *badRunner) {
		b.steer = func(context.Context, string, bgagent.TurnMessage) error { return nil }
	}},
	{check: "message taken", how: "it is answered again in the next turn", runner: func(b *badRunner) {
		var taken atomic.Bool
		b.steer = func(ctx context.Context, id string, msg bgagent.TurnMessage) error {
			err := b.Runner.Steer(ctx, id, msg)
			taken.Store(err == nil)
			return err
		}
		after(b, func(_ string, p bgagent.Prompt, e *ended) {
			if taken.Load() && p.Text == "say maple" {
				e.Text += " lotus"
			}
		})
	}},
	{check: "forget", how: "all sessions go", runner: forgetsAll},
})

// recorder is a TB that records failures.
type recorder struct {
	ctx context.Context

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// The function "record" runs one check with the harness's client and returns the failures that the
// check reports.
func record(t *testing.T, ck *check, h *Harness) (failures []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		r := &recorder{ctx: ctx}
		done := make(chan struct{})
		go func() {
			defer close(done)
			ck.hold(r, h)
		}()
		<-done
		cancel()
		for _, f := range slices.Backward(r.cleanups) {
			f()
		}
		time.Sleep(2 * time.Minute) // virtual time in which the adversary's goroutines can end
		failures = r.failures
	})
	return failures
}

// harness returns the harness that tests the fakes, with the adversary as the client.
func (a *adversary) harness() *Harness {
	h := obedient(func(f *Fake) bgagent.SessionClient {
		switch {
		case a.runner != nil:
			b := &badRunner{Runner: Runner{f}}
			a.runner(b)
			return b
		case a.starter != nil:
			b := &badStarter{Starter: Starter{f}}
			a.starter(b)
			return b
		default:
			return a.client(f)
		}
	}).withDefaults()
	return &h
}

func TestTheSuiteCatchesWhoBreaksOneThing(t *testing.T) {
	for _, a := range adversaries {
		t.Run(a.check+", "+a.how, func(t *testing.T) {
			h := a.harness()
			want := append([]string{a.check}, a.also...)
			for i := range checks {
				ck := &checks[i]
				switch failures := record(t, ck, h); {
				case slices.Contains(want, ck.name) && len(failures) == 0:
					t.Errorf("the check %q did not fail", ck.name)
				case !slices.Contains(want, ck.name) && len(failures) > 0:
					t.Errorf("the check %q says: %s", ck.name, strings.Join(failures, "\n"))
				}
			}
		})
	}
}

func TestEveryCheckHasAnAdversary(t *testing.T) {
	names := map[string]bool{}
	for _, ck := range checks {
		if names[ck.name] || ck.why == "" {
			t.Errorf("the check %q has no reason or the name of another check", ck.name)
		}
		names[ck.name] = true
		if !slices.ContainsFunc(adversaries, func(a adversary) bool { return a.check == ck.name }) {
			t.Errorf("no adversary shows that the check %q can fail", ck.name)
		}
	}
	for _, a := range adversaries {
		for _, name := range append([]string{a.check}, a.also...) {
			if !names[name] {
				t.Errorf("there is no check %q", name)
			}
		}
	}
}
