package bgagent_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/storetest"
)

// scenario describes what a host does with a manager. The scenario is run once for each possible
// fault of each of its writes.
type scenario struct {
	name string
	cfg  bgagent.Config
	host func(*process)            // what the host does in the first process; in later processes, the host only reads
	want map[string]bgagent.Status // expected status of each task, by prompt

	refuses bool // the provider refuses turns; after a crash, the client reports that a refused turn failed, but not why
}

// The method "ends" returns the status with which each task must end. It omits tasks that might
// end differently because of the fault.
func (s *scenario) ends(p *play, states map[string]*storedState) map[string]bgagent.Status {
	out := map[string]bgagent.Status{}
	struck, fated := p.outcome()
	for id, x := range states {
		want, is := s.want[x.prompt]
		switch {
		case !is || p.fault.again > 0:
		case s.refuses && struck && p.fault.crashes() && x.Attempt == 1 && x.Cause == bgagent.CauseSessionError:
		case fated && p.fault.fate == bgagenttest.FateAnswered && want == bgagent.Failed:
		case fated && p.fault.fate == bgagenttest.FateOrphan && x.Cause == bgagent.CauseNotStopped:
		case fated && (p.fault.fate == bgagenttest.FateUnknown || p.fault.fate == bgagenttest.FateGone && want == bgagent.Completed && x.Status == bgagent.Failed && x.Cause == bgagent.CauseSessionGone):
		default:
			out[id] = want
		}
	}
	return out
}

func onRunner(prompt string) bgagent.LaunchInput {
	return bgagent.LaunchInput{Agent: "r-worker", Prompt: prompt}
}

func onServer(prompt string) bgagent.LaunchInput {
	return bgagent.LaunchInput{Agent: "s-worker", Prompt: prompt}
}

func statusOf(status bgagent.Status, prompts ...string) map[string]bgagent.Status {
	out := map[string]bgagent.Status{}
	for _, prompt := range prompts {
		out[prompt] = status
	}
	return out
}

// cancelAfter launches two tasks and cancels the first one after a pause. The other task
// continues.
func cancelAfter(in bgagent.LaunchInput, pause time.Duration) func(*process) {
	return func(l *process) {
		task := l.launch(root, in)
		l.launch(root, bgagent.LaunchInput{Agent: in.Agent, Prompt: "other"})
		time.Sleep(pause)
		l.cancel(task.ID)
	}
}

var scenarios = []scenario{
	{
		name: "a runner", want: statusOf(bgagent.Completed, "work"),
		host: func(l *process) { l.launch(root, onRunner("work")) },
	}, {
		name: "a task of the host", want: statusOf(bgagent.Completed, "work"),
		host: func(l *process) { l.launch(bgagent.Caller{}, onRunner("work")) },
	}, {
		name: "a starter", want: statusOf(bgagent.Completed, "work"),
		host: func(l *process) { l.launch(root, onServer("work")) },
	}, {
		name: "two runners, one slot", cfg: limit(1), want: statusOf(bgagent.Completed, "one", "two"),
		host: func(l *process) { l.launch(root, onRunner("one")); l.launch(root, onRunner("two")) },
	}, {
		name: "two starters, one slot", cfg: limit(1), want: statusOf(bgagent.Completed, "one", "two"),
		host: func(l *process) { l.launch(root, onServer("one")); l.launch(root, onServer("two")) },
	}, {
		name: "a runner that delegates", want: statusOf(bgagent.Completed, "delegate a+b."),
		host: func(l *process) { l.launch(root, onRunner("delegate a+b.")) },
	}, {
		name: "a starter that delegates", want: statusOf(bgagent.Completed, "delegate a+s1."),
		host: func(l *process) { l.launch(root, onServer("delegate a+s1.")) },
	}, {
		name: "a runner that waits in Run for its own task", want: statusOf(bgagent.Completed, "delegate now."),
		host: func(l *process) { l.launch(root, onRunner("delegate now.")) },
	}, {
		name: "cancel while pending", cfg: limit(1), want: statusOf(bgagent.Completed, "first", "other"),
		host: func(l *process) { l.launch(root, onRunner("first")); cancelAfter(onRunner("work"), 2*time.Second)(l) },
	}, {
		name: "cancel a runner that starts", want: statusOf(bgagent.Completed, "other"),
		host: cancelAfter(onRunner("work"), 500*time.Millisecond),
	}, {
		name: "cancel a runner in its turn", want: statusOf(bgagent.Completed, "other"),
		host: cancelAfter(onRunner("work"), 3*time.Second),
	}, {
		name: "cancel a starter in its turn", want: statusOf(bgagent.Completed, "other"),
		host: cancelAfter(onServer("work"), 3*time.Second),
	}, {
		name: "cancel a task that waits for its own", want: statusOf(bgagent.Completed, "other"),
		host: cancelAfter(onRunner("delegate a+b."), 15*time.Second),
	}, {
		name: "Run", want: statusOf(bgagent.Completed, "work"),
		host: func(l *process) { l.run(root, onRunner("work")) },
	}, {
		name: "Run on a starter", want: statusOf(bgagent.Completed, "work"),
		host: func(l *process) { l.run(root, onServer("work")) },
	}, {
		name: "resume", want: statusOf(bgagent.Completed, "again"),
		host: func(l *process) {
			if id := l.launch(root, onRunner("work")).ID; l.until(id) {
				l.resume(id, "again")
			}
		},
	}, {
		name: "resume a starter", want: statusOf(bgagent.Completed, "again"),
		host: func(l *process) {
			if id := l.launch(root, onServer("work")).ID; l.until(id) {
				l.resume(id, "again")
			}
		},
	}, {
		name: "resume to delegate", want: statusOf(bgagent.Completed, "delegate a+s1."),
		host: func(l *process) {
			if id := l.launch(root, onRunner("work")).ID; l.until(id) {
				time.Sleep(time.Second)
				l.resume(id, "delegate a+s1.")
			}
		},
	}, {
		name: "resume what was cancelled",
		want: statusOf(bgagent.Completed, "again"),
		host: func(l *process) {
			id := l.launch(root, onRunner("work")).ID
			time.Sleep(3 * time.Second)
			l.cancel(id)
			l.resume(id, "again")
		},
	}, {
		name: "a task that fails", want: statusOf(bgagent.Failed, "fail", "fail too"),
		host: func(l *process) { l.launch(root, onRunner("fail")); l.launch(root, onServer("fail too")) },
	}, {
		name: "each end is told", cfg: bgagent.Config{Wake: bgagent.WakeEach}, want: statusOf(bgagent.Completed, "one", "two"),
		host: func(l *process) {
			l.launch(root, onRunner("one"))
			time.Sleep(5 * time.Second)
			l.launch(root, onServer("two"))
		},
	}, {
		name: "one batch", cfg: bgagent.Config{NoticeWindow: 10 * time.Second}, want: statusOf(bgagent.Completed, "one", "two"),
		host: func(l *process) {
			l.launch(root, onRunner("one"))
			time.Sleep(8 * time.Second)
			l.launch(root, onServer("two"))
		},
	}, {
		name: "a message to a task that waits for its own", want: statusOf(bgagent.Completed, "delegate a."),
		host: sendAfter(onRunner("delegate a."), 15*time.Second),
	}, {
		name: "messages to a starter", want: statusOf(bgagent.Completed, "work"),
		host: sendAfter(onServer("work"), 5*time.Second, 3*time.Second),
	}, {
		name: "a runner that falls back", refuses: true, cfg: fallbacks(modelB), want: statusOf(bgagent.Completed, "work", "repeat"),
		host: func(l *process) { l.launch(root, onRunner("work")); l.launch(root, onRunner("repeat")) },
	}, {
		name: "a starter that falls back", refuses: true, cfg: fallbacks(modelB, modelC), want: statusOf(bgagent.Completed, "work", "work too"),
		host: func(l *process) { l.launch(root, onServer("work")); l.launch(root, onServer("work too")) },
	}, {
		name: "a message to a task that is cancelled then",
		host: func(l *process) {
			sendAfter(onRunner("work"), 3*time.Second, 15*time.Second)(l)
			if list := l.m.List(bgagent.Query{}); len(list) > 0 {
				l.cancel(list[0].ID)
			}
		},
	},
}

// sendAfter launches a task, and sends it a message after each of the pauses. The call that sends
// the second message is repeated.
func sendAfter(in bgagent.LaunchInput, pauses ...time.Duration) func(*process) {
	return func(l *process) {
		task := l.launch(root, in)
		for i, pause := range pauses {
			time.Sleep(pause)
			text := fmt.Sprintf("message %d", i+1)
			l.send(task.ID, text)
			if i == 1 {
				l.send(task.ID, text)
			}
		}
	}
}

var (
	everyCrash = flag.Bool("crash.every", false, "play every scenario with every fault of every write, and not only with a random part of the faults")
	crashSeed  = flag.Uint64("crash.seed", 0, "seed that chooses the faults in TestEveryWriteOfEveryScenarioMayFail; 0 for a random one")
)

// TestEveryWriteOfEveryScenarioMayFail runs each scenario once for each of its writes, with the
// store refusing that write. It also tries the other faults that can strike at each write, such as a
// crash before or after it. Without -crash.every, it tries only some of the other faults.
func TestEveryWriteOfEveryScenarioMayFail(t *testing.T) {
	seed, oneOf := *crashSeed, 4
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	switch {
	case *everyCrash:
		oneOf = 1
	case race.Enabled || testing.Short(): // with the race detector, a run takes about ten times as long
		oneOf = 20
	}
	t.Logf("one of %d faults, chosen by seed %d", oneOf, seed)
	for i := range scenarios {
		t.Run(scenarios[i].name, func(t *testing.T) {
			t.Parallel()
			e := enumeration{t: t, sc: &scenarios[i], rnd: rand.New(rand.NewPCG(seed, uint64(i))), oneOf: oneOf}
			e.play(crashPlan{})
			for e.at = 1; e.reached; e.at++ {
				e.write()
			}
			t.Logf("%d plays, %d writes", e.plays, e.at-2)
			if t.Failed() {
				t.Logf("repeat this with -crash.seed %d", seed)
			}
		})
	}
}

// enumeration runs a scenario with all faults.
type enumeration struct {
	t       *testing.T
	sc      *scenario
	at      int
	plays   int
	rnd     *rand.Rand
	oneOf   int  // on average, one in this many faults is tried
	reached bool // the scenario has a write with the number in the field "at"
	fated   bool // a turn was running in the previous play when the process ended
}

var fates = []bgagenttest.Fate{
	bgagenttest.FateCut, bgagenttest.FateUnknown, bgagenttest.FateLost, bgagenttest.FateGone, bgagenttest.FateAnswered, bgagenttest.FateOrphan, bgagenttest.FateLeft,
}

// The method "write" tries all faults of one write.
func (e *enumeration) write() {
	e.play(crashPlan{at: e.at, kind: storetest.Refused})
	if !e.reached {
		return
	}
	e.play(crashPlan{at: e.at, kind: storetest.Full, times: 9})
	e.play(crashPlan{at: e.at, kind: storetest.LostWritten})
	e.play(crashPlan{at: e.at, kind: storetest.LostUnwritten})
	for _, c := range []crashPlan{
		{kind: storetest.CrashBefore}, {kind: storetest.CrashAfter}, {later: time.Millisecond}, {later: 2 * time.Second}, {later: 7 * time.Second},
	} {
		c.at = e.at
		e.play(c)
		for again := 1; again <= 3; again++ {
			if c.later > 0 && again != 2 { // for a crash some time after the write, one value of "again" is enough
				continue
			}
			c := c
			c.again = again
			e.play(c)
		}
		if e.fated {
			for _, c.fate = range fates {
				e.play(c)
			}
		}
	}
	e.reached = true
}

func (e *enumeration) play(c crashPlan) {
	always := c.at == 0 || c.kind == storetest.Refused && c.times == 0 // never skipped, because the result shows whether the scenario has this many writes
	if !always && e.rnd.IntN(e.oneOf) > 0 {
		return
	}
	e.plays++
	synctest.Test(e.t, func(t *testing.T) {
		p := newPlay(t, e.sc, c)
		p.run()
		e.reached, e.fated = p.outcome()
		e.reached = e.reached || c.at == 0
		if len(p.book.faults) > 0 {
			t.Errorf("%s: %v:\n%s\n\n%s", e.sc.name, c, strings.Join(p.book.faults[:min(5, len(p.book.faults))], "\n"), strings.Join(p.book.trace, "\n"))
		}
	})
}
